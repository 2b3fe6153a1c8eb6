"""Certificates: what they say, that OpenSSL agrees, and that wrong ones are refused."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import stat
import subprocess

import pytest
from cryptography import x509

from bowsprit.pki.authority import Authority, load_certificate, load_certificates, needs_renewal
from bowsprit.pki.errors import PKIError
from bowsprit.pki.keypair import KeyPair
from bowsprit.pki.serving import ServingContext
from bowsprit.pki.signing import load_signing_key, load_verification_keys, new_signing_key


@pytest.fixture(scope="module")
def authority():
    return Authority.create("test-ca")


def test_openssl_verifies_serving_and_client_certificates(authority, tmp_path):
    (tmp_path / "ca.pem").write_bytes(authority.ca_pem)
    server = authority.issue_server("kube-apiserver", ["kubernetes.default.svc"], ["127.0.0.1", "::1"])
    client = authority.issue_client("alice", ["devs", "qa"])
    for pair, purpose in ((server, "sslserver"), (client, "sslclient")):
        pair.save(tmp_path / "leaf.pem", tmp_path / "leaf.key")
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile", "ca.pem", "leaf.pem"]
        assert (
            subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "leaf.pem: OK\n"
        )
    assert stat.S_IMODE((tmp_path / "leaf.key").stat().st_mode) == 0o600
    subject = load_certificate(client.cert_pem).subject
    assert [attribute.value for attribute in subject] == ["devs", "qa", "alice"]


def test_a_key_never_shows_in_repr(authority):
    assert "PRIVATE" not in repr(authority.issue_client("a"))


def test_an_authority_survives_its_files(authority, tmp_path):
    authority.pair.save(tmp_path / "ca.pem", tmp_path / "ca.key")
    again = Authority.load(tmp_path / "ca.pem", tmp_path / "ca.key")
    load_certificate(again.issue_client("x").cert_pem).verify_directly_issued_by(load_certificate(authority.ca_pem))


def test_what_is_no_authority_is_refused(authority, tmp_path):
    leaf = authority.issue_client("x")
    with pytest.raises(PKIError, match="not a CA"):
        Authority(leaf)
    with pytest.raises(PKIError, match="does not belong"):
        Authority(KeyPair(authority.ca_pem, leaf.key_pem))
    with pytest.raises(PKIError, match="cannot read"):
        Authority.load(tmp_path / "no.pem", tmp_path / "no.key")
    for junk in (b"", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"):
        with pytest.raises(PKIError):
            load_certificates(junk)


def test_renewal_is_due_in_the_last_third(authority):
    now = datetime.datetime.now(datetime.UTC)
    pem = authority.issue_client("x", days=90).cert_pem
    assert not needs_renewal(pem, now + datetime.timedelta(days=59))
    assert needs_renewal(pem, now + datetime.timedelta(days=61))


def test_verification_keys_come_from_keys_and_certificates(authority):
    private = new_signing_key()
    bundle = private + authority.ca_pem
    keys = load_verification_keys(bundle)
    assert len(keys) == 2
    assert keys[0].public_numbers() == load_signing_key(private).public_key().public_numbers()
    with pytest.raises(PKIError):
        load_verification_keys(b"nothing")


async def test_a_server_takes_up_a_changed_certificate(authority, tmp_path):
    cert, key = tmp_path / "s.pem", tmp_path / "s.key"
    authority.issue_server("one", ["localhost"]).save(cert, key)
    now = [0.0]
    serving = ServingContext(cert, key, clock=lambda: now[0])

    async def handle(_reader, writer):
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=serving.context)
    port = server.sockets[0].getsockname()[1]
    trust = ssl.create_default_context(cadata=authority.ca_pem.decode())

    async def served_name() -> str:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="localhost")
        der = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.close()
        return x509.load_der_x509_certificate(der).subject.rfc4514_string()

    assert await served_name() == "CN=one"
    authority.issue_server("two", ["localhost"]).save(cert, key)
    now[0] = 2.0
    assert await served_name() == "CN=two"
    key.write_bytes(b"broken")
    now[0] = 4.0
    assert await served_name() == "CN=two"
    server.close()
