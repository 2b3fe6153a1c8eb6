"""TLS: client certificates are asked for, never judged by the handshake."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme
from apiserver_toys import CRATES, crates

from bowsprit.apiserver.access import AllowAlways, Authenticated, Credentials
from bowsprit.apiserver.server import Server
from bowsprit.apiserver.tls import ask_for_client_certificates
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.errors import unauthorized
from bowsprit.store.memory import MemoryStore


class OnlyThisCertificate:
    """Knows one certificate; remembers what it saw."""

    def __init__(self, known: bytes) -> None:
        self.known = known
        self.seen: list[bytes | None] = []

    async def authenticate(self, credentials: Credentials) -> Authenticated | None:
        leaf = credentials.connection.peer_certificate
        self.seen.append(leaf)
        if leaf is not None and leaf != self.known:
            raise unauthorized()
        return Authenticated(UserInfo("known" if leaf else "system:anonymous"))


@pytest.fixture
async def setup() -> AsyncIterator[tuple[str, trustme.CA, trustme.LeafCert, OnlyThisCertificate]]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    known = authority.issue_cert("known@example.org")
    der = ssl.PEM_cert_to_DER_cert(known.cert_chain_pems[0].bytes().decode())
    authenticator = OnlyThisCertificate(der)
    server = Server(MemoryStore(), authenticator=authenticator, authorizer=AllowAlways())
    await server.registry.add(crates())
    _, port = await server.start("127.0.0.1", 0, context)
    yield f"https://localhost:{port}", authority, known, authenticator
    await server.stop()


async def _status(url: str, authority: trustme.CA, certificate: trustme.LeafCert | None) -> int:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session,
        session.get(url + CRATES) as response,
    ):
        return response.status


async def test_known_unknown_and_absent_certificates(
    setup: tuple[str, trustme.CA, trustme.LeafCert, OnlyThisCertificate],
) -> None:
    url, authority, known, authenticator = setup
    assert await _status(url, authority, known) == 200
    assert authenticator.seen == [authenticator.known]
    stranger = trustme.CA().issue_cert("stranger@example.org")
    assert await _status(url, authority, stranger) == 401
    assert await _status(url, authority, None) == 200
    assert authenticator.seen[-1] is None


def test_a_context_asks_without_verifying(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert ask_for_client_certificates(context)
    assert context.verify_mode is ssl.CERT_OPTIONAL
