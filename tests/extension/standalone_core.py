"""Apps served on loopback with a core behind them, asked without the aggregation layer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bowsprit.client.config import RestConfig
from bowsprit.client.kubeconfig import Kubeconfig
from bowsprit.extension import App
from bowsprit.extension.options import ExtensionOptions
from bowsprit.extension.server import ExtensionServer
from bowsprit.testing.plugin import RunningCluster


@asynccontextmanager
async def serving(app: App, **options: Any) -> AsyncIterator[tuple[ExtensionServer, RestConfig]]:
    """A server on loopback, and how it is reached."""
    given = ExtensionOptions(bind_address="127.0.0.1", secure_port=0, shutdown_timeout=0.5, **options)
    server = ExtensionServer(app, given)
    _, port = await server.start()
    try:
        yield server, RestConfig(server=f"https://127.0.0.1:{port}", ca_data=server.ca_bundle, qps=0)
    finally:
        await server.stop()


def as_admin(core: RunningCluster, config: RestConfig) -> RestConfig:
    """Reach the server itself as the administrator: with the certificate that the core's authority signed, or the token."""
    admin = Kubeconfig.load(core.kubeconfig).rest_config()
    return RestConfig(
        server=config.server,
        ca_data=config.ca_data,
        client_certificate_data=admin.client_certificate_data,
        client_key_data=admin.client_key_data,
        token=admin.token,
        qps=0,
    )
