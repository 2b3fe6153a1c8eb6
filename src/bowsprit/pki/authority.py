"""A certificate authority: makes serving and client certificates with P-256 keys.

Validity starts five minutes in the past, because the clocks of two machines differ.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bowsprit.pki.errors import PKIError
from bowsprit.pki.files import read_file
from bowsprit.pki.keypair import KeyPair

CA_DAYS = 3650
LEAF_DAYS = 365
_SKEW = datetime.timedelta(minutes=5)


class Authority:
    """A CA certificate and its key.

    Args:
        pair: the CA's certificate and key.

    Raises:
        PKIError: the pair is malformed, does not belong together, or is no CA.
    """

    def __init__(self, pair: KeyPair) -> None:
        self.pair = pair
        self._cert = load_certificate(pair.cert_pem)
        self._key = load_key(pair.key_pem)
        try:
            self._cert.public_key()
            same = _public_bytes(self._cert.public_key()) == _public_bytes(self._key.public_key())
        except (ValueError, InvalidSignature) as exc:
            raise PKIError(f"the CA certificate is malformed: {exc}") from exc
        if not same:
            raise PKIError("the CA's key does not belong to its certificate")
        try:
            constraints = self._cert.extensions.get_extension_for_class(x509.BasicConstraints).value
        except x509.ExtensionNotFound:
            constraints = None
        if constraints is None or not constraints.ca:
            raise PKIError("the certificate is not a CA's (basicConstraints CA:TRUE is missing)")

    @classmethod
    def create(cls, common_name: str, *, days: int = CA_DAYS, now: datetime.datetime | None = None) -> Authority:
        """A new self-signed authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = (
            _builder(name, name, key, days, now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(KeyPair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key)))

    @classmethod
    def load(cls, cert: Path, key: Path) -> Authority:
        """Read an authority from files.

        Raises:
            PKIError: a file cannot be read or used.
        """
        return cls(KeyPair(read_file(cert), read_file(key)))

    @property
    def ca_pem(self) -> bytes:
        """The CA's certificate."""
        return self.pair.cert_pem

    @property
    def subject(self) -> x509.Name:
        """Its name, the issuer of what it signs."""
        return self._cert.subject

    @property
    def not_after(self) -> datetime.datetime:
        """Until when it may sign."""
        return self._cert.not_valid_after_utc

    @property
    def key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """What certificates say of the key that signed them."""
        return _authority_key_identifier(self._cert)

    def sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        """Sign what was built."""
        return builder.sign(self._key, _hash_for(self._key))

    def issue_server(
        self,
        common_name: str,
        dns_names: Iterable[str] = (),
        ip_addresses: Iterable[str] = (),
        *,
        days: int = LEAF_DAYS,
        now: datetime.datetime | None = None,
    ) -> KeyPair:
        """A serving certificate; clients look only at the names and addresses, not at the common name."""
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in dns_names]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ip_addresses]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return self._issue(subject, ExtendedKeyUsageOID.SERVER_AUTH, names, days, now)

    def issue_client(
        self,
        common_name: str,
        organizations: Iterable[str] = (),
        *,
        days: int = LEAF_DAYS,
        now: datetime.datetime | None = None,
    ) -> KeyPair:
        """A client certificate: Kubernetes takes the common name as the user, the organizations as groups."""
        groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
        # One RDN per organization, as Go writes them.
        rdns = [x509.RelativeDistinguishedName([group]) for group in groups]
        rdns.append(x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        return self._issue(x509.Name(rdns), ExtendedKeyUsageOID.CLIENT_AUTH, [], days, now)

    def _issue(
        self,
        subject: x509.Name,
        usage: x509.ObjectIdentifier,
        names: list[x509.GeneralName],
        days: int,
        now: datetime.datetime | None,
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, self._cert.subject, key, days, now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(_authority_key_identifier(self._cert), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return KeyPair(_pem(builder.sign(self._key, _hash_for(self._key))), _key_pem(key))


def load_certificate(pem: bytes) -> x509.Certificate:
    """The first certificate of a PEM text.

    Raises:
        PKIError: there is none.
    """
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as exc:
        raise PKIError(f"not a PEM certificate: {exc}") from exc


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """All certificates of a PEM bundle.

    Raises:
        PKIError: there is none, or one is malformed.
    """
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as exc:
        raise PKIError(f"not a bundle of PEM certificates: {exc}") from exc


def load_key(pem: bytes) -> CertificateIssuerPrivateKeyTypes:
    """A private key that can sign.

    Raises:
        PKIError: it is malformed, encrypted or of another kind.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as exc:
        raise PKIError("not an unencrypted PEM private key") from exc
    if not hasattr(key, "sign"):
        raise PKIError("the private key cannot sign")
    return key  # type: ignore[return-value]


def not_after(pem: bytes) -> datetime.datetime:
    """When the first certificate of a PEM text expires, in UTC."""
    return load_certificate(pem).not_valid_after_utc


def needs_renewal(pem: bytes, now: datetime.datetime) -> bool:
    """Whether less than a third of a certificate's life is left."""
    cert = load_certificate(pem)
    life = cert.not_valid_after_utc - cert.not_valid_before_utc
    return now > cert.not_valid_after_utc - life / 3


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    days: int,
    now: datetime.datetime | None,
) -> x509.CertificateBuilder:
    start = now or datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _SKEW)
        .not_valid_after(start + datetime.timedelta(days=days))
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _authority_key_identifier(cert: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        subject = cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(cert.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject.value)


def _hash_for(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    # Ed25519 and Ed448 bring their own hash.
    return None if type(key).__name__.startswith("Ed") else hashes.SHA256()


def _public_bytes(key: object) -> bytes:
    data: bytes = key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return data


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    # The traditional form ("BEGIN EC PRIVATE KEY"), as kubeadm writes it; everything reads it.
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
