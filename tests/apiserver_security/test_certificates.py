"""Client certificates: who they stand for, and why wrong ones are a 401."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from cryptography import x509
from multidict import CIMultiDict

from bowsprit.apiserver.access import Connection, Credentials
from bowsprit.apiserver.authentication.certificate import CertificateAuthenticator, Trust
from bowsprit.apiserver.authentication.front_proxy import FrontProxyAuthenticator, FrontProxyHeaders
from bowsprit.machinery.errors import UnauthorizedError
from bowsprit.pki.authority import Authority
from bowsprit.pki.keypair import KeyPair

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def der(pair: KeyPair) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_pem_x509_certificate(pair.cert_pem).public_bytes(Encoding.DER)


def credentials(pair: KeyPair | None, headers: list[tuple[str, str]] | None = None) -> Credentials:
    return Credentials(CIMultiDict(headers or []), Connection(der(pair) if pair else None))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("ca", now=NOW)


@pytest.fixture
def trust(authority: Authority, tmp_path: Path) -> Trust:
    (tmp_path / "ca.pem").write_bytes(authority.ca_pem)
    return Trust(tmp_path / "ca.pem")


async def test_common_name_is_the_user_and_organizations_are_groups(authority, trust):
    found = await CertificateAuthenticator(trust, lambda: NOW).authenticate(
        credentials(authority.issue_client("alice", ["devs", "qa"], now=NOW))
    )
    assert found is not None
    assert (found.user.name, found.user.groups) == ("alice", ("devs", "qa", "system:authenticated"))
    assert found.user.extra["authentication.kubernetes.io/credential-id"][0].startswith("X509SHA256=")


async def test_no_certificate_is_left_to_others(trust):
    assert await CertificateAuthenticator(trust, lambda: NOW).authenticate(credentials(None)) is None


@pytest.mark.parametrize("case", ["foreign", "expired", "not yet valid", "server", "same name, other key"])
async def test_wrong_certificates_are_refused(authority, trust, case):
    clock = NOW
    pair = authority.issue_client("alice", now=NOW)
    if case == "foreign":
        pair = Authority.create("other", now=NOW).issue_client("alice", now=NOW)
    elif case == "same name, other key":
        pair = Authority.create("ca", now=NOW).issue_client("alice", ["system:masters"], now=NOW)
    elif case == "expired":
        clock = NOW + datetime.timedelta(days=366)
    elif case == "not yet valid":
        clock = NOW - datetime.timedelta(hours=1)
    elif case == "server":
        pair = authority.issue_server("alice", ["localhost"], now=NOW)
    with pytest.raises(UnauthorizedError):
        await CertificateAuthenticator(trust, lambda: clock).authenticate(credentials(pair))


async def test_a_malformed_certificate_is_refused(trust):
    shown = Credentials(CIMultiDict(), Connection(b"0\x03\x02\x01\x01"))
    with pytest.raises(UnauthorizedError):
        await CertificateAuthenticator(trust, lambda: NOW).authenticate(shown)


async def test_a_certificate_expires_on_an_open_connection(authority, trust):
    clock = [NOW]
    authenticator = CertificateAuthenticator(trust, lambda: clock[0])
    shown = credentials(authority.issue_client("alice", now=NOW, days=1))
    assert await authenticator.authenticate(shown) is not None
    clock[0] = NOW + datetime.timedelta(days=2)
    with pytest.raises(UnauthorizedError):
        await authenticator.authenticate(shown)


async def test_a_changed_bundle_is_taken_up(authority, tmp_path):
    other = Authority.create("other", now=NOW)
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(authority.ca_pem)
    ticks = [0.0]
    authenticator = CertificateAuthenticator(Trust(bundle, lambda: ticks[0]), lambda: NOW)
    pair = other.issue_client("bob", now=NOW)
    with pytest.raises(UnauthorizedError):
        await authenticator.authenticate(credentials(pair))
    replaced = tmp_path / "new.pem"
    replaced.write_bytes(authority.ca_pem + other.ca_pem)
    replaced.replace(bundle)
    ticks[0] = 1.5
    found = await authenticator.authenticate(credentials(pair))
    assert found is not None
    assert found.user.name == "bob"


HEADERS = [
    ("X-Remote-User", "jane"),
    ("X-Remote-Group", "g1"),
    ("X-Remote-Group", "g2"),
    ("X-Remote-Extra-Acme.com%2Fproject", "some"),
]


async def test_a_front_proxy_speaks_for_others(authority, trust):
    authenticator = FrontProxyAuthenticator(trust, FrontProxyHeaders(allowed_names=("proxy",)), lambda: NOW)
    found = await authenticator.authenticate(credentials(authority.issue_client("proxy", now=NOW), HEADERS))
    assert found is not None
    assert (found.user.name, found.user.groups) == ("jane", ("g1", "g2"))
    assert found.user.extra == {"acme.com/project": ("some",)}


@pytest.mark.parametrize("who", ["nobody", "other name", "other authority", "no headers"])
async def test_nobody_else_speaks_for_others(authority, trust, who):
    authenticator = FrontProxyAuthenticator(trust, FrontProxyHeaders(allowed_names=("proxy",)), lambda: NOW)
    pair: KeyPair | None = authority.issue_client("proxy", now=NOW)
    headers = HEADERS
    if who == "nobody":
        pair = None
    elif who == "other name":
        pair = authority.issue_client("someone", now=NOW)
    elif who == "other authority":
        pair = Authority.create("ca", now=NOW).issue_client("proxy", now=NOW)
    else:
        headers = []
    assert await authenticator.authenticate(credentials(pair, headers)) is None
