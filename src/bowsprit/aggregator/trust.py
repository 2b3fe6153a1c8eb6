"""TLS to extension API servers: whom they must be, who we are, and what went wrong in the words that operators know.

The server name is always ``<service>.<namespace>.svc``, whatever address is dialled, and must be among the certificate's DNS
names; the front proxy's client certificate says that the X-Remote-* headers may be believed. Upstream: client-go/transport.
"""

from __future__ import annotations

import ssl
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj
from bowsprit.pki.trusting import trusting

if TYPE_CHECKING:
    from cryptography import x509

_PEM = b"-----BEGIN CERTIFICATE-----"


class TrustError(Exception):
    """The CA bundle or the proxy's client certificate cannot be used."""


class ClientCertificate:
    """`--proxy-client-cert-file` and `--proxy-client-key-file`; `version` changes when the files do."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)

    def version(self) -> tuple[object, ...]:
        """Changes with the files; empty while they cannot be read."""
        try:
            found = [path.stat() for path in self._files]
        except OSError:
            return ()
        return tuple((item.st_mtime_ns, item.st_size, item.st_ino) for item in found)

    def load(self, context: ssl.SSLContext) -> None:
        """Give it to a context. Raises OSError, ssl.SSLError."""
        context.load_cert_chain(*self._files)


def bundle_of(spec: Obj) -> bytes:
    """The CA bundle of an APIService's spec, b"" if it has none.

    Raises:
        TrustError: it is no base64 of PEM.
    """
    text = spec.get("caBundle") or ""
    if not text:
        return b""
    try:
        bundle = b64decode(text)
    except ValueError as exc:
        raise TrustError(f"unable to load root certificates: {exc}") from exc
    if _PEM not in bundle:
        raise TrustError("unable to load root certificates: unable to parse bytes as PEM block")
    return bundle


def context_for(spec: Obj, client: ClientCertificate | None) -> ssl.SSLContext:
    """The context for the server of an APIService.

    Raises:
        TrustError: the bundle or the client certificate cannot be used.
    """
    bundle = bundle_of(spec)
    try:
        context = trusting(bundle)
        if spec.get("insecureSkipTLSVerify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    except (ValueError, ssl.SSLError) as exc:
        raise TrustError(f"unable to load root certificates: {exc}") from exc
    if client is not None:
        try:
            client.load(context)
        except (OSError, ssl.SSLError) as exc:
            raise TrustError(f"unable to use the proxy client certificate: {exc}") from exc
    return context


def unverified_context() -> ssl.SSLContext:
    """For a look at a certificate that was refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def refusal(der: bytes, server_name: str, bundle: bytes, now: datetime) -> tuple[str, bool]:
    """Why Go would not accept a certificate, and whether that is because it names nobody (crypto/x509 Certificate.Verify).

    Args:
        der: the server's certificate.
        bundle: PEM of the authorities that it was checked against.
    """
    from cryptography import x509

    certificate = x509.load_der_x509_certificate(der)
    expired = "x509: certificate has expired or is not yet valid: current time"
    shown = _rfc3339(now)
    if now < certificate.not_valid_before_utc:
        return f"{expired} {shown} is before {_rfc3339(certificate.not_valid_before_utc)}", False
    if now > certificate.not_valid_after_utc:
        return f"{expired} {shown} is after {_rfc3339(certificate.not_valid_after_utc)}", False
    names, others = _names(certificate)
    if not names:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        if not others and common and _matches(str(common[0].value), server_name):
            return "x509: certificate relies on legacy Common Name field, use SANs instead", True
        return f"x509: certificate is not valid for any names, but wanted to match {server_name}", not others
    if not any(_matches(name, server_name) for name in names):
        return f"x509: certificate is valid for {', '.join(names)}, not {server_name}", False
    return f"x509: certificate signed by unknown authority{_candidate(certificate, bundle)}", False


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _names(certificate: x509.Certificate) -> tuple[list[str], bool]:
    """The DNS names, and whether there are names of other kinds."""
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return [], False
    return extension.value.get_values_for_type(x509.DNSName), True


def _matches(pattern: str, name: str) -> bool:
    first, dot, rest = pattern.lower().rstrip(".").partition(".")
    own_first, own_dot, own_rest = name.lower().partition(".")
    return dot == own_dot and rest == own_rest and first in ("*", own_first)


def _candidate(certificate: x509.Certificate, bundle: bytes) -> str:
    """Go's hint at an authority of the right name with another key."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    try:
        authorities = x509.load_pem_x509_certificates(bundle) if bundle else []
    except ValueError:
        return ""
    for authority in authorities:
        if authority.subject == certificate.issuer and authority.subject != certificate.subject:
            key = authority.public_key()
            problem = "crypto/rsa: verification error"
            if isinstance(key, ec.EllipticCurvePublicKey):
                problem = "x509: ECDSA verification failure"
            elif isinstance(key, ed25519.Ed25519PublicKey):
                problem = "x509: Ed25519 verification failure"
            names = authority.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
            shown = quote(str(names[0].value) if names else "serial:" + str(authority.serial_number))
            return f" (possibly because of {quote(problem)} while trying to verify candidate authority certificate {shown})"
    return ""
