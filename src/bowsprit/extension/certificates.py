"""The certificates of an extension server: an authority of its own, and the serving certificate that kube-apiserver checks.

kube-apiserver asks for the DNS name ``<service>.<namespace>.svc`` whatever address it dials, and trusts what the APIService's
``caBundle`` holds; a common name alone is refused. While an authority is replaced the bundle holds both.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from cryptography import x509

from bowsprit.pki.authority import Authority, load_certificate, load_certificates, needs_renewal
from bowsprit.pki.errors import PKIError
from bowsprit.pki.keypair import KeyPair

CERT_KEY, KEY_KEY, CA_CERT_KEY, CA_KEY_KEY = "tls.crt", "tls.key", "ca.crt", "ca.key"


def serving_names(service: str, namespace: str) -> list[str]:
    """What a client may call the Service; the first is the one that kube-apiserver checks."""
    short = f"{service}.{namespace}"
    return [f"{short}.svc", short, service, f"{short}.svc.cluster.local"]


@dataclass(frozen=True, slots=True)
class Certificates:
    """An authority (its key may be unknown), a serving pair, and the bundle that clients are to trust (PEM)."""

    ca_pem: bytes
    ca_key_pem: bytes = field(repr=False)
    serving: KeyPair
    bundle: bytes

    @classmethod
    def make(
        cls, service: str, namespace: str, *, now: datetime.datetime | None = None, addresses: Iterable[str] = ()
    ) -> Certificates:
        """A new authority, and a serving pair for a Service."""
        authority = Authority.create(f"{service}.{namespace} CA", now=now)
        names = serving_names(service, namespace)
        pair = authority.issue_server(names[0], names, addresses, now=now)
        return cls(authority.ca_pem, authority.pair.key_pem, pair, authority.ca_pem)

    @classmethod
    def from_secrets(cls, serving: Mapping[str, bytes], authority: Mapping[str, bytes]) -> Certificates:
        """What the data (decoded) of the two Secrets hold. Raises PKIError when a part is missing or malformed."""
        for key in (CERT_KEY, KEY_KEY, CA_CERT_KEY):
            if not serving.get(key):
                raise PKIError(f"the Secret has no {key}")
        bundle = serving[CA_CERT_KEY]
        load_certificates(bundle)
        load_certificate(serving[CERT_KEY])
        pair = KeyPair(serving[CERT_KEY], serving[KEY_KEY])
        ca_pem = authority.get(CERT_KEY) or bundle
        return cls(ca_pem, authority.get(KEY_KEY, b""), pair, bundle)

    def serving_data(self) -> dict[str, bytes]:
        """The data of the Secret that the server mounts: the authority's key is not in it."""
        return {CERT_KEY: self.serving.cert_pem, KEY_KEY: self.serving.key_pem, CA_CERT_KEY: self.bundle}

    def authority_data(self) -> dict[str, bytes]:
        """The data of the Secret from which new serving certificates are issued; nothing mounts it."""
        return {CERT_KEY: self.ca_pem, KEY_KEY: self.ca_key_pem}

    def problem(self, names: Iterable[str], now: datetime.datetime) -> str:
        """Why these cannot be used (any longer) for a server of the names; "" when they can."""
        for text in (
            certificate_problem(self.serving.cert_pem, names, now),
            chain_problem(self.serving.cert_pem, self.bundle, now),
        ):
            if text:
                return text
        if needs_renewal(self.serving.cert_pem, now):
            return "less than a third of the serving certificate's life is left"
        if needs_renewal(self.ca_pem, now):
            return "less than a third of the authority's life is left"
        return ""

    def renew(self, service: str, namespace: str, now: datetime.datetime) -> Certificates:
        """A new serving pair under the same authority. Raises PKIError without its key."""
        if not self.ca_key_pem:
            raise PKIError("the authority's key is not at hand", hint="rotate the authority too: rotate-certs --ca")
        authority = Authority(KeyPair(self.ca_pem, self.ca_key_pem))
        names = serving_names(service, namespace)
        pair = authority.issue_server(names[0], names, now=now)
        return Certificates(self.ca_pem, self.ca_key_pem, pair, self.bundle)

    def with_bundle(self, *others: bytes, now: datetime.datetime) -> Certificates:
        """The same, trusted beside the other bundles: what of those has not expired."""
        seen: dict[bytes, None] = {}
        for pem in (self.ca_pem, *others):
            for one in load_certificates(pem):
                if one.not_valid_after_utc > now:
                    seen[_pem(one)] = None
        return Certificates(self.ca_pem, self.ca_key_pem, self.serving, b"".join(seen))


def certificate_problem(pem: bytes, names: Iterable[str], now: datetime.datetime) -> str:
    """Why a serving certificate is of no use for a server of these names; "" when it is."""
    try:
        certificate = load_certificate(pem)
    except PKIError as failure:
        return failure.message
    if text := validity_problem(certificate, now):
        return text
    held = dns_names(certificate)
    missing = [name for name in names if not _covered(name, held)]
    if missing:
        told = ", ".join(held) if held else f"none (its subject is {certificate.subject.rfc4514_string()})"
        return f"it is not valid for {missing[0]}: its DNS names are {told}"
    algorithm = certificate.signature_hash_algorithm
    if algorithm is not None and algorithm.name in ("sha1", "md5"):
        return f"it is signed with {algorithm.name.upper()}, which kube-apiserver refuses"
    return ""


def validity_problem(certificate: x509.Certificate, now: datetime.datetime) -> str:
    """Why a certificate is not valid now."""
    if now > certificate.not_valid_after_utc:
        return f"it expired at {certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    if now < certificate.not_valid_before_utc:
        return f"it is not valid before {certificate.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
    return ""


def chain_problem(chain: bytes, bundle: bytes, now: datetime.datetime) -> str:
    """Why a served chain (PEM, leaf first) does not lead to a certificate of the bundle; "" when it does."""
    try:
        current, *others = load_certificates(chain)
        roots = load_certificates(bundle)
    except PKIError as failure:
        return failure.message
    expired = ""
    for _ in range(len(others) + 1):
        for root in roots:
            if root == current or _issued_by(current, root):
                expired = validity_problem(root, now)
                if not expired:
                    return ""
        parent = next((one for one in others if _issued_by(current, one)), None)
        if parent is None:
            break
        others.remove(parent)
        current = parent
    if expired:
        return f"the authority in the bundle cannot be used: {expired}"
    return f"certificate signed by unknown authority ({current.issuer.rfc4514_string()})"


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # any of ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm: it is not its issuer
        return False
    return True


def dns_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names of a certificate."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(extension.value.get_values_for_type(x509.DNSName))


def _covered(name: str, held: Iterable[str]) -> bool:
    _, _, rest = name.partition(".")
    return any(one.lower() == name or (one.startswith("*.") and one[2:].lower() == rest) for one in held)


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)
