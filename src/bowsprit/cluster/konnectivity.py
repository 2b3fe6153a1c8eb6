"""Konnectivity in a cluster: a server on a unix socket beside the API server, and agents where the nodes are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bowsprit.cluster.errors import ClusterError
from bowsprit.cluster.process import Component
from bowsprit.machinery.objects import Obj

if TYPE_CHECKING:
    from bowsprit.cluster.components import Plan

_LONGEST_SOCKET = 107  # sun_path, unix(7)
_READY_SECONDS = 30.0
_SYNC_INTERVAL = 200_000_000  # nanoseconds; the server is near


def agent_names(plan: Plan) -> list[str]:
    """The agents' IDs, which also name their certificates."""
    return [f"konnectivity-agent-{number + 1}" for number in range(plan.config.konnectivity.agents)]


def prepare(plan: Plan) -> Obj:
    """Make the certificates; answers the API server's EgressSelectorConfiguration.

    Raises:
        ClusterError: the folder's path is too long for a unix socket in it.
    """
    socket = str(plan.paths.konnectivity_socket)
    if len(socket.encode()) > _LONGEST_SOCKET:
        raise ClusterError(
            f"the path of the konnectivity socket is longer than {_LONGEST_SOCKET} bytes: {socket}",
            reason="PathTooLong",
            hint="set BOWSPRIT_HOME to a shorter folder",
        )
    plan.credentials.make_konnectivity(agent_names(plan))
    protocol = "GRPC" if plan.config.konnectivity.mode == "grpc" else "HTTPConnect"
    connection = {"proxyProtocol": protocol, "transport": {"uds": {"udsName": socket}}}
    return {
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": connection}],
    }


def server(plan: Plan) -> Component:
    """The proxy-server. Agents prove themselves with certificates of the konnectivity authority."""
    from bowsprit.konnectivity.server import ProxyServer
    from bowsprit.konnectivity.serveroptions import ServerOptions

    cert, key = plan.credentials.pair("konnectivity-server")
    options = ServerOptions(
        mode=plan.config.konnectivity.mode,
        uds_name=str(plan.paths.konnectivity_socket),
        server_port=0,
        cluster_cert=str(cert),
        cluster_key=str(key),
        cluster_ca_cert=str(plan.credentials.konnectivity_ca_file),
        agent_bind_address="127.0.0.1",
        agent_port=plan.config.konnectivity.port,
        admin_port=plan.config.konnectivity.admin_port,
        health_bind_address="127.0.0.1",
        health_port=0,
        server_id="konnectivity-server",
    )
    return ProxyServer(options, validate=False)


class Agents:
    """The cluster's proxy-agents."""

    def __init__(self, plan: Plan) -> None:
        from bowsprit.konnectivity.agent import ProxyAgent
        from bowsprit.konnectivity.agentoptions import AgentOptions

        self._agents: list[ProxyAgent] = []
        for name in agent_names(plan):
            cert, key = plan.credentials.pair(name)
            options = AgentOptions(
                agent_id=name,
                agent_cert=str(cert),
                agent_key=str(key),
                ca_cert=str(plan.credentials.konnectivity_ca_file),
                proxy_server_port=plan.config.konnectivity.port,
                sync_interval=_SYNC_INTERVAL,
                sync_interval_cap=10 * _SYNC_INTERVAL,
                health_server_host="127.0.0.1",
                health_server_port=0,
                admin_server_port=0,
            )
            self._agents.append(ProxyAgent(options, validate=False))

    async def start(self) -> None:
        """Return when every agent is connected."""
        for agent in self._agents:
            await agent.start()
        for agent in self._agents:
            await agent.wait_ready(_READY_SECONDS)

    async def stop(self) -> None:
        """Disconnect."""
        for agent in self._agents:
            await agent.stop()
