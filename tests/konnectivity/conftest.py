from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from bowsprit.konnectivity.agent import ProxyAgent
from bowsprit.konnectivity.agentoptions import SECOND, AgentOptions
from bowsprit.konnectivity.server import ProxyServer
from bowsprit.konnectivity.serveroptions import ServerOptions
from bowsprit.pki.authority import Authority

sys.path.insert(0, str(Path(__file__).parent))  # konnectivity_transcripts


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of the programs; where the transports matter most, asyncio's own too."""
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"uvloop": uvloop.new_event_loop}
    if item.path.stem in ("test_defects", "test_egress"):
        factories["asyncio"] = asyncio.new_event_loop
    return factories


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.crt, srv.* and ag.*, as the recorded programs had them."""
    directory = tmp_path_factory.mktemp("pki")
    authority = Authority.create("konnectivity-test")
    (directory / "ca.crt").write_bytes(authority.ca_pem)
    authority.issue_server("server", ["localhost"], ["127.0.0.1"]).save(directory / "srv.crt", directory / "srv.key")
    authority.issue_client("agent").save(directory / "ag.crt", directory / "ag.key")
    return directory


StartServer = Callable[..., Awaitable[ProxyServer]]
StartAgent = Callable[..., Awaitable[ProxyAgent]]


@pytest.fixture
async def start_server(certificates: Path, tmp_path: Path) -> AsyncIterator[StartServer]:
    servers: list[ProxyServer] = []

    async def start(**settings: Any) -> ProxyServer:
        fields: dict[str, Any] = {
            "uds_name": str(tmp_path / f"s{len(servers)}.sock"), "server_port": 0, "agent_port": 0, "admin_port": 0,
            "health_port": 0, "health_bind_address": "127.0.0.1", "agent_bind_address": "127.0.0.1", "server_id": "server-1",
            "cluster_cert": str(certificates / "srv.crt"), "cluster_key": str(certificates / "srv.key"),
            "cluster_ca_cert": str(certificates / "ca.crt"), **settings,
        }  # fmt: skip
        server = ProxyServer(ServerOptions(**fields), validate=False)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop(force=True)


@pytest.fixture
async def start_agent(certificates: Path) -> AsyncIterator[StartAgent]:
    agents: list[ProxyAgent] = []

    async def start(port: int, **settings: Any) -> ProxyAgent:
        fields: dict[str, Any] = {
            "ca_cert": str(certificates / "ca.crt"), "agent_cert": str(certificates / "ag.crt"),
            "agent_key": str(certificates / "ag.key"), "proxy_server_port": port, "health_server_host": "127.0.0.1",
            "health_server_port": 0, "admin_server_port": 0, "agent_id": "agent-a", "sync_interval": SECOND // 20, **settings,
        }  # fmt: skip
        agent = ProxyAgent(AgentOptions(**fields), validate=False)
        await agent.start()
        agents.append(agent)
        return agent

    yield start
    for agent in agents:
        await agent.stop()
