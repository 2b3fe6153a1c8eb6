"""Whom clients trust: what Go accepts, and no more."""

from __future__ import annotations

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bowsprit.pki.authority import Authority
from bowsprit.pki.trusting import trusting


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> None:
    """A handshake in memory. Raises ssl.SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=name), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass


def bare(name: str) -> tuple[bytes, bytes]:
    """A certificate that its own key has signed, without any extension but its names, as scripts make them."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def serving(tmp_path, cert: bytes, key: bytes) -> ssl.SSLContext:
    (tmp_path / "pair").write_bytes(cert + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pair")
    return context


def test_a_bare_certificate_is_trusted_when_it_is_in_the_bundle(tmp_path) -> None:
    cert, key = bare("hook.ns.svc")
    shake_hands(serving(tmp_path, cert, key), trusting(cert), "hook.ns.svc")


def test_strangers_and_other_names_are_refused(tmp_path) -> None:
    authority = Authority.create("ours")
    pair = authority.issue_server("a.svc", ["a.svc"])
    server = serving(tmp_path, pair.cert_pem, pair.key_pem)
    shake_hands(server, trusting(authority.ca_pem), "a.svc")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(server, trusting(authority.ca_pem), "b.svc")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, trusting(Authority.create("theirs").ca_pem), "a.svc")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, trusting(), "a.svc")


def test_the_common_name_counts_for_nothing(tmp_path) -> None:
    authority = Authority.create("ours")
    pair = authority.issue_server("a.svc", ip_addresses=["127.0.0.1"])
    server = serving(tmp_path, pair.cert_pem, pair.key_pem)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, trusting(authority.ca_pem), "a.svc")


def test_a_bundle_without_certificates_is_an_error() -> None:
    with pytest.raises((ssl.SSLError, ValueError)):
        trusting(b"nothing")
