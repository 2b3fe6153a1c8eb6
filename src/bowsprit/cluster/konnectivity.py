"""Konnectivity in a cluster: a server on a unix socket beside the API server, and agents where the nodes are."""

from __future__ import annotations

from bowsprit.cluster.config import ClusterConfig
from bowsprit.cluster.credentials import Credentials
from bowsprit.cluster.errors import ClusterError
from bowsprit.cluster.paths import ClusterPaths
from bowsprit.cluster.process import Component
from bowsprit.machinery.objects import Obj

_LONGEST_SOCKET = 107  # sun_path, unix(7)
_READY_SECONDS = 30.0
_SYNC_INTERVAL = 200_000_000  # nanoseconds; the server is near


def agent_names(config: ClusterConfig) -> list[str]:
    """The agents' IDs, which also name their certificates."""
    return [f"konnectivity-agent-{number + 1}" for number in range(config.konnectivity.agents)]


def prepare(config: ClusterConfig, paths: ClusterPaths) -> Obj:
    """Make the certificates; answers the API server's EgressSelectorConfiguration.

    Raises:
        ClusterError: the folder's path is too long for a unix socket in it.
    """
    socket = str(paths.konnectivity_socket)
    if len(socket.encode()) > _LONGEST_SOCKET:
        raise ClusterError(
            f"the path of the konnectivity socket is longer than {_LONGEST_SOCKET} bytes: {socket}",
            reason="PathTooLong",
            hint="set BOWSPRIT_HOME to a shorter folder",
        )
    Credentials(paths).make_konnectivity(agent_names(config))
    protocol = "GRPC" if config.konnectivity.mode == "grpc" else "HTTPConnect"
    connection = {"proxyProtocol": protocol, "transport": {"uds": {"udsName": socket}}}
    return {
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": connection}],
    }


def server(config: ClusterConfig, paths: ClusterPaths) -> Component:
    """The proxy-server. Agents prove themselves with certificates of the konnectivity authority."""
    from bowsprit.konnectivity.server import ProxyServer
    from bowsprit.konnectivity.serveroptions import ServerOptions

    credentials = Credentials(paths)
    cert, key = credentials.pair("konnectivity-server")
    options = ServerOptions(
        mode=config.konnectivity.mode,
        uds_name=str(paths.konnectivity_socket),
        server_port=0,
        cluster_cert=str(cert),
        cluster_key=str(key),
        cluster_ca_cert=str(credentials.konnectivity_ca_file),
        agent_bind_address="127.0.0.1",
        agent_port=config.konnectivity.port,
        admin_port=config.konnectivity.admin_port,
        health_bind_address="127.0.0.1",
        health_port=0,
        server_id="konnectivity-server",
    )
    return ProxyServer(options, validate=False)


class Agents:
    """The cluster's proxy-agents."""

    def __init__(self, config: ClusterConfig, paths: ClusterPaths) -> None:
        from bowsprit.konnectivity.agent import ProxyAgent
        from bowsprit.konnectivity.agentoptions import AgentOptions

        self._agents: list[ProxyAgent] = []
        credentials = Credentials(paths)
        for name in agent_names(config):
            cert, key = credentials.pair(name)
            options = AgentOptions(
                agent_id=name,
                agent_cert=str(cert),
                agent_key=str(key),
                ca_cert=str(credentials.konnectivity_ca_file),
                proxy_server_port=config.konnectivity.port,
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
