"""Certificate signing requests (PKCS #10, RFC 2986), as CertificateSigningRequest objects carry them."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bowsprit.pki.authority import Authority
from bowsprit.pki.errors import PKIError

_BACKDATE = datetime.timedelta(minutes=5)
_SHORT = datetime.timedelta(hours=8)  # below it the end is not moved with the start
# v1.KeyUsage by the bits of the X.509 extension, and by the purposes of the extended one.
_BITS = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
_PURPOSES = {
    "any": ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    "server auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "code signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "email protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "s/mime": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "timestamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "ocsp signing": ExtendedKeyUsageOID.OCSP_SIGNING,
}


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A request, taken apart."""

    common_name: str
    organizations: tuple[str, ...]
    dns_names: tuple[str, ...]
    ip_addresses: tuple[str, ...]
    emails: tuple[str, ...]
    uris: tuple[str, ...]
    parsed: x509.CertificateSigningRequest

    @classmethod
    def read(cls, pem: bytes) -> SigningRequest:
        """Take a PEM block apart. Raises PKIError."""
        try:
            parsed = x509.load_pem_x509_csr(pem)
            if not parsed.is_signature_valid:
                raise PKIError("the request's signature does not belong to its key")
            names = _alternative_names(parsed)
            subject = parsed.subject
            return cls(
                next((str(item.value) for item in subject.get_attributes_for_oid(NameOID.COMMON_NAME)), ""),
                tuple(str(item.value) for item in subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)),
                tuple(names.get_values_for_type(x509.DNSName)) if names else (),
                tuple(str(address) for address in names.get_values_for_type(x509.IPAddress)) if names else (),
                tuple(names.get_values_for_type(x509.RFC822Name)) if names else (),
                tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names else (),
                parsed,
            )
        except (ValueError, TypeError) as exc:
            raise PKIError(f"the certificate signing request is malformed: {exc}") from exc


def _alternative_names(parsed: x509.CertificateSigningRequest) -> x509.SubjectAlternativeName | None:
    try:
        return parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None


def sign(
    authority: Authority,
    request: SigningRequest,
    usages: Iterable[str],
    lifetime: datetime.timedelta,
    now: datetime.datetime,
) -> bytes:
    """A certificate (PEM) for the request's key, subject and names, good for the usages (v1.KeyUsage).

    Upstream: pkg/controller/certificates/authority PermissiveSigningPolicy. It never lives longer than the authority.

    Raises:
        PKIError: a usage is unknown, or the authority has expired.
    """
    bits = dict.fromkeys(_BITS.values(), False)
    purposes: list[x509.ObjectIdentifier] = []
    for usage in usages:
        if usage in _BITS:
            bits[_BITS[usage]] = True
        elif usage in _PURPOSES:
            purposes.append(_PURPOSES[usage])
        else:
            raise PKIError(f"unrecognized usage: {usage}")
    end = min(now + lifetime - (_BACKDATE if lifetime >= _SHORT else datetime.timedelta()), authority.not_after)
    if now >= authority.not_after:
        raise PKIError(f"the signer has expired: NotAfter={authority.not_after}")
    builder = (
        x509.CertificateBuilder()
        .subject_name(request.parsed.subject)
        .issuer_name(authority.subject)
        .public_key(request.parsed.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(authority.key_identifier, critical=False)
    )
    if any(bits.values()):
        builder = builder.add_extension(x509.KeyUsage(**bits), critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    names = _alternative_names(request.parsed)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return authority.sign(builder).public_bytes(serialization.Encoding.PEM)
