"""A kubelet's endpoint with one pod."""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme

from bowsprit.kubelet.server import KubeletServer

sys.path.insert(0, str(Path(__file__).parent))

from kubelet_pods import NOW, pod


class Endpoint:
    """Where it listens, and how to ask with a certificate of an organization."""

    def __init__(self, authority: trustme.CA) -> None:
        self.port = 0
        self._authority = authority

    def context(self, organization: str | None) -> ssl.SSLContext:
        trust = ssl.create_default_context()
        self._authority.configure_trust(trust)
        if organization:
            certificate = self._authority.issue_cert("me", common_name="me", organization_name=organization)
            certificate.configure_cert(trust)
        return trust

    def session(self, organization: str | None) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self.context(organization))
        return aiohttp.ClientSession(f"https://127.0.0.1:{self.port}", connector=connector)


@pytest.fixture
async def kubelet() -> AsyncIterator[Endpoint]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    known = pod(log="hello")
    server = KubeletServer(
        lambda ns, name: known if (ns, name) == ("default", "p") else None, lambda: [known], context, lambda: NOW
    )
    endpoint = Endpoint(authority)
    endpoint.port = await server.start("127.0.0.1", 0)
    yield endpoint
    await server.stop()
