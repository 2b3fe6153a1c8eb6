"""TLS of servers and agents, with the errors of pkg/util/certificates.go; files are read again when they change."""

from __future__ import annotations

import errno
import os
import re
import ssl
import warnings
from collections.abc import Sequence
from pathlib import Path

from bowsprit.konnectivity.serveroptions import CIPHER_SUITES
from bowsprit.pki.authority import load_certificates
from bowsprit.pki.errors import PKIError
from bowsprit.pki.serving import ServingContext
from bowsprit.pki.trusting import trusting

_VERSIONS = {
    "": ssl.TLSVersion.TLSv1_2,
    "VersionTLS10": ssl.TLSVersion.TLSv1,
    "VersionTLS11": ssl.TLSVersion.TLSv1_1,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}


_MISMATCHES = {
    "KEY_VALUES_MISMATCH": "tls: private key does not match public key",
    "KEY_TYPE_MISMATCH": "tls: private key type does not match public key type",
}


class CertificateError(Exception):
    """A certificate, key or CA file cannot be used."""


def check_pool(path: str) -> None:
    """Whether a CA bundle holds certificates, and only good ones. Raises CertificateError."""
    try:
        data = Path(path).read_bytes() if path else _missing(path)
    except OSError as exc:
        raise CertificateError(f"failed to load CA cert: {_unreadable(path, exc)}") from exc
    text = ""
    try:
        if not load_certificates(data):
            text = "data does not contain any valid RSA or ECDSA certificates"
    except PKIError:
        malformed = "CERTIFICATE" in _block_types(data)
        text = (
            "x509: malformed certificate" if malformed else "data does not contain any valid RSA or ECDSA certificates"
        )
    if text:
        raise CertificateError(f"failed to load CA cert: error creating pool from {path}: {text}")


def _unreadable(path: str, exc: OSError) -> str:
    """os.ReadFile's error."""
    action = "read" if exc.errno == errno.EISDIR else "open"
    return f"{action} {path}: {os.strerror(exc.errno or 2).lower()}"


def check_pair(cert: str, key: str) -> None:
    """Whether certificate and key are there and belong together, in the words of tls.LoadX509KeyPair.

    Raises CertificateError.
    """
    what = f"failed to load X509 key pair {cert} and {key}"
    types = []
    for path in (cert, key):
        try:
            types.append(_block_types(Path(path).read_bytes() if path else _missing(path)))
        except OSError as exc:
            raise CertificateError(f"{what}: {_unreadable(path, exc)}") from exc
    fault = _certificate_fault(types[0]) or _key_fault(types[1])
    if fault:
        raise CertificateError(f"{what}: tls: {fault}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ssl.SSLError) as exc:
        reason = _MISMATCHES.get(getattr(exc, "reason", ""), str(exc))
        raise CertificateError(f"{what}: {reason}") from exc


def _block_types(data: bytes) -> list[str]:
    found = re.findall(rb"-----BEGIN ([A-Z0-9 ]+)-----\s.*?-----END \1-----", data, re.DOTALL)
    return [name.decode() for name in found]


def _certificate_fault(types: list[str]) -> str:
    if "CERTIFICATE" in types:
        return ""
    if not types:
        return "failed to find any PEM data in certificate input"
    if len(types) == 1 and types[0].endswith("PRIVATE KEY"):
        return (
            "failed to find certificate PEM data in certificate input, but did find a private key; "
            "PEM inputs may have been switched"
        )
    skipped = " ".join(types)
    return (
        'failed to find "CERTIFICATE" PEM block in certificate input after skipping PEM blocks of the following types: '
        f"[{skipped}]"
    )


def _key_fault(types: list[str]) -> str:
    if any(name == "PRIVATE KEY" or name.endswith(" PRIVATE KEY") for name in types):
        return ""
    if not types:
        return "failed to find any PEM data in key input"
    if types == ["CERTIFICATE"]:
        return "found a certificate rather than a key in the PEM for the private key"
    skipped = " ".join(types)
    return (
        'failed to find PEM block with type ending in "PRIVATE KEY" in key input after skipping PEM blocks of the '
        f"following types: [{skipped}]"
    )


def server_context(
    cert: str,
    key: str,
    client_ca: str,
    *,
    alpn: Sequence[str],
    tls_min_version: str = "",
    cipher_suites: Sequence[str] = (),
) -> ssl.SSLContext:
    """A listener's context that follows its files; with ``client_ca`` clients must show a certificate of it.

    Raises CertificateError.
    """
    check_pair(cert, key)
    if client_ca:
        check_pool(client_ca)

    def configure(context: ssl.SSLContext) -> None:
        with warnings.catch_warnings():  # of TLS 1.0 and 1.1 the operator has been warned already
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = _VERSIONS[tls_min_version]
        context.set_alpn_protocols(list(alpn))
        ciphers = [CIPHER_SUITES[name] for name in cipher_suites if CIPHER_SUITES[name]]
        if ciphers:
            context.set_ciphers(":".join(ciphers))
        context.num_tickets = 0  # a client that resumed a session would not be verified again; API servers do not try
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as Go: any certificate of the bundle is an anchor

    try:
        serving = ServingContext(
            Path(cert), Path(key), client_ca=Path(client_ca) if client_ca else None, require_client=bool(client_ca),
            configure=configure,
        )  # fmt: skip
    except PKIError as exc:
        raise CertificateError(f"failed to load X509 key pair {cert} and {key}: {exc}") from exc
    return serving.context


def client_context(ca: str, cert: str, key: str, extra_alpn: Sequence[str] = ()) -> ssl.SSLContext:
    """An agent's context, built anew from its files for each connection. Raises CertificateError."""
    check_pool(ca)
    context = trusting(Path(ca).read_bytes() if ca else b"")
    context.set_alpn_protocols([*extra_alpn, "h2"])
    if cert:
        check_pair(cert, key)
        context.load_cert_chain(cert, key, password=lambda: "")
    return context


def _missing(path: str) -> bytes:
    raise FileNotFoundError(2, "no such file or directory", path)
