"""TLS of servers and agents, with the errors of pkg/util/certificates.go; files are read again when they change."""

from __future__ import annotations

import os
import ssl
import warnings
from collections.abc import Sequence
from pathlib import Path

from bowsprit.konnectivity.serveroptions import CIPHER_SUITES
from bowsprit.pki.authority import load_certificates
from bowsprit.pki.errors import PKIError
from bowsprit.pki.serving import ServingContext

_VERSIONS = {
    "": ssl.TLSVersion.TLSv1_2,
    "VersionTLS10": ssl.TLSVersion.TLSv1,
    "VersionTLS11": ssl.TLSVersion.TLSv1_1,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}


class CertificateError(Exception):
    """A certificate, key or CA file cannot be used."""


def check_pool(path: str) -> None:
    """Whether a CA bundle holds certificates, and only good ones. Raises CertificateError."""
    try:
        data = Path(path).read_bytes() if path else _missing(path)
    except OSError as exc:
        raise CertificateError(f"failed to load CA cert: open {path}: {os.strerror(exc.errno or 2).lower()}") from exc
    try:
        found = load_certificates(data)
    except PKIError:
        found = []
    if not found:
        text = "data does not contain any valid RSA or ECDSA certificates"
        raise CertificateError(f"failed to load CA cert: error creating pool from {path}: {text}")


def check_pair(cert: str, key: str) -> None:
    """Whether certificate and key are there and belong together, in the words of tls.LoadX509KeyPair.

    Raises CertificateError.
    """
    what = f"failed to load X509 key pair {cert} and {key}"
    for path, role in ((cert, "certificate"), (key, "key")):
        try:
            data = Path(path).read_bytes() if path else _missing(path)
        except OSError as exc:
            raise CertificateError(f"{what}: open {path}: {os.strerror(exc.errno or 2).lower()}") from exc
        if b"-----BEGIN" not in data:
            raise CertificateError(f"{what}: tls: failed to find any PEM data in {role} input")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ssl.SSLError) as exc:
        mismatch = getattr(exc, "reason", "") == "KEY_VALUES_MISMATCH"
        reason = "tls: private key does not match public key" if mismatch else str(exc)
        raise CertificateError(f"{what}: {reason}") from exc


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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cafile=ca)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols([*extra_alpn, "h2"])
    if cert:
        check_pair(cert, key)
        context.load_cert_chain(cert, key, password=lambda: "")
    return context


def _missing(path: str) -> bytes:
    raise FileNotFoundError(2, "no such file or directory", path)
