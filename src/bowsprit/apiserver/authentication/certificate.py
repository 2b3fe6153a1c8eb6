"""Client certificates: verification against an authority, and the user that a certificate names.

Upstream: k8s.io/apiserver/pkg/authentication/request/x509. The TLS layer only proves that the peer holds the key; chain,
validity and usage are checked here, so that an unknown authority is a 401 and not a broken handshake.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from bowsprit.apiserver.access import Authenticated, Connection, Credentials
from bowsprit.apiserver.authentication.chain import with_authenticated_group
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.errors import unauthorized
from bowsprit.pki.authority import load_certificates
from bowsprit.pki.errors import PKIError
from bowsprit.pki.files import read_file

_LONGEST_CHAIN = 8
_LOOK_EVERY = 1.0  # seconds
# The private attribute in which upstream carries a uid (k8s.io/apiserver authentication/request/x509).
_UID = ObjectIdentifier("1.3.6.1.4.1.57683.2")

Now = Callable[[], datetime.datetime]


class Roots:
    """Authorities that client certificates are verified against; `replace` takes others."""

    def __init__(self, pem: bytes = b"") -> None:
        self._roots: list[x509.Certificate] = []
        self.generation = 0
        if pem:
            self.replace(pem)

    def replace(self, pem: bytes) -> None:
        """Trusts the certificates of a bundle from now on; none at all when it is empty. Raises PKIError."""
        self._roots = load_certificates(pem) if pem else []
        self.generation += 1

    def refresh(self) -> None:
        """Called before each use."""

    def verify(self, leaf: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime.datetime) -> str:
        """Why the certificate is not good for a client, "" when it is."""
        if problem := _validity(leaf, now):
            return problem
        if not _for_clients(leaf):
            return "x509: certificate specifies an incompatible key usage"
        current, rest = leaf, list(chain)
        for _ in range(_LONGEST_CHAIN):
            root = _issuer(current, self._roots)
            if root is not None:
                return _validity(root, now)
            parent = _issuer(current, rest)
            if parent is None or not _is_authority(parent):
                return "x509: certificate signed by unknown authority"
            if problem := _validity(parent, now):
                return problem
            rest.remove(parent)
            current = parent
        return "x509: too many intermediates"


class Trust(Roots):
    """A bundle of authorities, re-read when its file changes.

    Raises:
        PKIError: the file holds no certificate.
    """

    def __init__(self, bundle: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._path = bundle
        self._clock = clock
        self._looked = clock()
        self._stamp: tuple[int, int] = (0, 0)
        self._load()

    @property
    def pem(self) -> bytes:
        """The bundle as it is now."""
        return read_file(self._path)

    def _load(self) -> None:
        info = self._path.stat()
        stamp = (info.st_mtime_ns, info.st_ino)
        if stamp != self._stamp:
            self.replace(read_file(self._path))
            self._stamp = stamp

    def refresh(self) -> None:
        """Take up a changed file, looked at once a second; a broken one leaves the last good bundle."""
        now = self._clock()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        try:
            self._load()
        except (OSError, PKIError):
            return


def _issuer(cert: x509.Certificate, candidates: Sequence[x509.Certificate]) -> x509.Certificate | None:
    for candidate in candidates:
        if candidate.subject == cert.issuer:
            try:
                cert.verify_directly_issued_by(candidate)
            except (ValueError, TypeError, InvalidSignature):
                continue
            return candidate
    return None


def _validity(cert: x509.Certificate, now: datetime.datetime) -> str:
    if now < cert.not_valid_before_utc or now > cert.not_valid_after_utc:
        return "x509: certificate has expired or is not yet valid"
    return ""


def _for_clients(cert: x509.Certificate) -> bool:
    try:
        usages = cert.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return True
    return ExtendedKeyUsageOID.CLIENT_AUTH in usages or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usages


def _is_authority(cert: x509.Certificate) -> bool:
    try:
        return cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def certificate_user(cert: x509.Certificate) -> UserInfo | None:
    """Common name as user, organizations as groups; None without a common name (upstream CommonNameUserConversion)."""

    def values(oid: ObjectIdentifier) -> list[str]:
        found = (attribute.value for attribute in cert.subject.get_attributes_for_oid(oid))
        return [value if isinstance(value, str) else value.decode("latin-1") for value in found]

    names = values(NameOID.COMMON_NAME)
    if not names or not names[0]:
        return None
    uids = values(_UID)
    # authentication.kubernetes.io/credential-id, as upstream records it for certificates.
    digest = cert.fingerprint(hashes.SHA256()).hex()
    return UserInfo(
        names[0],
        uids[0] if uids else "",
        tuple(values(NameOID.ORGANIZATION_NAME)),
        {"authentication.kubernetes.io/credential-id": (f"X509SHA256={digest}",)},
    )


class VerifiedPeer:
    """Verifies the peer certificate of a connection against one trust, once per connection and bundle."""

    def __init__(self, trust: Roots, key: str, now: Now) -> None:
        self._trust = trust
        self._key = key
        self._now = now

    def certificate(self, connection: Connection) -> x509.Certificate | None:
        """The verified leaf, None when the peer showed none.

        Raises:
            Unauthorized: it is not good.
        """
        if connection.peer_certificate is None:
            return None
        now = self._now()
        self._trust.refresh()
        found = connection.cache.get(self._key)
        if found is None or found[0] != self._trust.generation:
            try:
                leaf = x509.load_der_x509_certificate(connection.peer_certificate)
                chain = [x509.load_der_x509_certificate(der) for der in connection.peer_chain[:_LONGEST_CHAIN]]
                found = (self._trust.generation, leaf, self._trust.verify(leaf, chain, now), leaf.not_valid_after_utc)
            except ValueError:  # OpenSSL let it pass, and yet it is malformed
                raise unauthorized() from None
            connection.cache[self._key] = found
        _, leaf, problem, end = found
        if problem or now > end:
            raise unauthorized()
        return leaf


class CertificateAuthenticator:
    """`--client-ca-file`: any certificate of that authority with a common name."""

    def __init__(self, trust: Roots, now: Now) -> None:
        self._peer = VerifiedPeer(trust, "client-ca", now)

    async def authenticate(self, credentials: Credentials) -> Authenticated | None:
        """See access.Authenticator."""
        connection = credentials.connection
        cert = self._peer.certificate(connection)
        if cert is None:
            return None
        known = connection.cache.get("client-ca-user")
        if known is None or known[0] is not cert:
            user = certificate_user(cert)
            found = None if user is None else with_authenticated_group(Authenticated(user))
            known = connection.cache["client-ca-user"] = (cert, found)
        return known[1]
