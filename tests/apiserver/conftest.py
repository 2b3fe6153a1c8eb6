"""A server with two toy kinds on an ephemeral port, in the test's own event loop."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bowsprit.apiserver.access import AllowAlways, FixedUser
from bowsprit.apiserver.server import Server, ServerOptions
from bowsprit.store.memory import MemoryStore

sys.path.insert(0, str(Path(__file__).parent))

from apiserver_toys import ADMIN, Client, crates, widgets


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    store = MemoryStore()
    server = Server(
        store,
        authenticator=FixedUser(ADMIN),
        authorizer=AllowAlways(),
        options=ServerOptions(version={"major": "1", "minor": "36", "gitVersion": "v1.36.0"}),
    )
    await server.registry.add(widgets())
    await server.registry.add(crates())
    yield server
    await server.stop()
    await store.close()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    host, port = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield Client(f"http://{host}:{port}", session)
