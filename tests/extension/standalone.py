"""Apps served without a core API server, and a client for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bowsprit.apiserver.collection import World
from bowsprit.client.config import RestConfig
from bowsprit.client.rest import RestClient
from bowsprit.extension.app import App
from bowsprit.extension.options import ExtensionOptions
from bowsprit.extension.server import ExtensionServer


@asynccontextmanager
async def standalone(app: App, *, world: World | None = None) -> AsyncIterator[RestClient]:
    """A client of the app, served on loopback to a client that may do everything."""
    options = ExtensionOptions(standalone=True, bind_address="127.0.0.1", secure_port=0, shutdown_timeout=1.0)
    server = ExtensionServer(app, options, world=world)
    _, port = await server.start()
    try:
        async with RestClient(
            RestConfig(server=f"https://127.0.0.1:{port}", ca_data=server.ca_bundle, qps=0)
        ) as client:
            yield client
    finally:
        await server.stop()
