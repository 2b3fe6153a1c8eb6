"""Which components a cluster has and how each is built from its configuration.

A component is built inside the process that runs it; until then nothing of it is imported.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bowsprit.cluster.config import ClusterConfig, NodeGroup
from bowsprit.cluster.credentials import ADMIN, CONTROLLER_MANAGER, SCHEDULER, Credentials
from bowsprit.cluster.flags import with_flags
from bowsprit.cluster.paths import ClusterPaths
from bowsprit.cluster.process import Component
from bowsprit.cluster.supervisor import write_atomically

if TYPE_CHECKING:
    from bowsprit.client.rest import RestClient

_CONTROLLER_MANAGER_FLAGS = (
    "controllers",
    "leader-elect",
    "leader-elect-lease-duration",
    "leader-elect-renew-deadline",
    "leader-elect-retry-period",
    "leader-elect-resource-name",
    "leader-elect-resource-namespace",
    "use-service-account-credentials",
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A cluster's configuration together with where its files are."""

    config: ClusterConfig
    paths: ClusterPaths

    @property
    def credentials(self) -> Credentials:
        return Credentials(self.paths)

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.config.port}"

    @property
    def service_address(self) -> str:
        """The first address of the service range: that of default/kubernetes."""
        first = self.config.networking.service_cidr.partition(",")[0]
        return str(ipaddress.ip_network(first).network_address + 1)

    def prepare(self) -> None:
        """Make certificates, keys and kubeconfigs."""
        self.credentials.make(
            server=self.server,
            service_address=self.service_address,
            nodes=self.config.node_names(),
            context=f"bowsprit-{self.config.name}",
        )
        egress = self.config.egress_selector
        if self.config.konnectivity.enabled:
            from bowsprit.cluster import konnectivity

            egress = konnectivity.prepare(self.config, self.paths)
        if egress is not None:
            write_atomically(self.paths.egress, json.dumps(egress).encode())

    def components(self) -> dict[str, Callable[[], Component]]:
        """The builders by name, in the order of their start."""
        built: dict[str, Callable[[], Component]] = {"apiserver": self.api_server}
        if self.config.konnectivity.enabled:
            built["konnectivity-server"] = self.konnectivity_server
            built["konnectivity-agent"] = self.konnectivity_agents
        built[CONTROLLER_MANAGER] = self.controller_manager
        built[SCHEDULER] = self.scheduler
        if self.config.node_names():
            built["kubelet"] = self.kubelet
        return built

    def client(self, identity: str, component: str) -> RestClient:
        """A client with the identity of one of the cluster's kubeconfigs."""
        from dataclasses import replace

        from bowsprit.client.kubeconfig import Kubeconfig
        from bowsprit.client.rest import RestClient
        from bowsprit.client.transport import with_component

        config = Kubeconfig.load(self.credentials.kubeconfig(identity)).rest_config()
        return RestClient(replace(with_component(config, component), qps=0.0))

    def api_server(self) -> Component:
        """kube-apiserver."""
        from bowsprit.controlplane.options import APIServerOptions
        from bowsprit.controlplane.server import APIServer

        files = self.credentials
        serving, key = files.pair("apiserver")
        proxy_cert, proxy_key = files.pair("front-proxy-client")
        kubelet_cert, kubelet_key = files.pair("apiserver-kubelet-client")
        flags: dict[str, Any] = {
            "secure-port": self.config.port,
            "bind-address": "127.0.0.1",
            "store": self._store(),
            "cert-dir": self.paths.pki,
            "tls-cert-file": serving,
            "tls-private-key-file": key,
            "client-ca-file": files.ca_file,
            "service-account-signing-key-file": files.signing_key_file,
            "requestheader-client-ca-file": files.front_proxy_ca_file,
            "requestheader-allowed-names": ("front-proxy-client",),
            "proxy-client-cert-file": proxy_cert,
            "proxy-client-key-file": proxy_key,
            "kubelet-client-certificate": kubelet_cert,
            "kubelet-client-key": kubelet_key,
            "kubelet-certificate-authority": files.ca_file,
            "service-cluster-ip-range": self.config.networking.service_cidr,
            "enable-aggregator-routing": True,  # nothing is behind the ClusterIPs of simulated nodes
        }
        if self.config.konnectivity.enabled or self.config.egress_selector is not None:
            flags["egress-selector-config-file"] = self.paths.egress
        flags |= self.config.components.apiserver.flags
        return APIServer(APIServerOptions.from_flags(flags))

    def konnectivity_server(self) -> Component:
        """The server that the API server dials through."""
        from bowsprit.cluster import konnectivity

        return konnectivity.server(self.config, self.paths)

    def konnectivity_agents(self) -> Component:
        """All agents of the cluster in one process, each with its own identity."""
        from bowsprit.cluster import konnectivity

        return konnectivity.Agents(self.config, self.paths)

    def _store(self) -> str:
        return f"sqlite:{self.paths.database}" if self.config.store == "sqlite" else self.config.store

    def controller_manager(self) -> Component:
        """kube-controller-manager, and what it does once for a new cluster."""
        from bowsprit.cluster.addons import WithAddons
        from bowsprit.controllers.manager import ControllerManager, ControllerManagerOptions

        options = with_flags(
            "controllerManager",
            ControllerManagerOptions(
                root_ca=self.credentials.ca_file.read_bytes(),
                use_service_account_credentials=True,
                service_account_private_key=self.credentials.signing_key_file.read_bytes(),
                cluster_signing_cert_file=self.credentials.pair("ca")[0],
                cluster_signing_key_file=self.credentials.pair("ca")[1],
            ),
            self.config.components.controller_manager.flags,
            _CONTROLLER_MANAGER_FLAGS,
        )
        manager = ControllerManager(self.client(CONTROLLER_MANAGER, "kube-controller-manager"), options)
        return WithAddons(manager, lambda: self.client(ADMIN, "bowsprit"))

    def scheduler(self) -> Component:
        """kube-scheduler."""
        import yaml

        from bowsprit.scheduler.config import load
        from bowsprit.scheduler.process import Scheduler, SchedulerOptions

        document = self.config.components.scheduler.config
        config = load(yaml.safe_dump(document))[0] if document is not None else None
        options = with_flags(
            "scheduler",
            SchedulerOptions(config=config, secure_port=-1, leader_elect=False, qps=0.0),
            self.config.components.scheduler.flags,
            ("secure-port", "bind-address", "leader-elect"),
        )
        return Scheduler(lambda agent: self.client(SCHEDULER, agent), options)

    def kubelet(self) -> Component:
        """All simulated nodes of the cluster in one process, each with its own identity."""
        return NodeGroups(self)


class NodeGroups:
    """One kubelet object per group of equal nodes."""

    def __init__(self, plan: Plan) -> None:
        from bowsprit.kubelet.kubelet import Kubelet, KubeletOptions

        names, position = plan.config.node_names(), 0
        serving_cert, serving_key = plan.credentials.pair("kubelet-serving")
        self._kubelets: list[Kubelet] = []
        for group in plan.config.nodes:
            mine = names[position : position + group.count]
            if mine:
                options = KubeletOptions(
                    nodes=mine,
                    capacity=_capacity(group),
                    labels=group.labels,
                    taints=[taint.model_dump(exclude_defaults=True) for taint in group.taints],
                    first_index=position,
                    serving_cert=serving_cert,
                    serving_key=serving_key,
                    client_ca=plan.credentials.ca_file,
                    processes=plan.paths.pods if plan.config.kubelet.processes else None,
                )
                self._kubelets.append(Kubelet(lambda node: plan.client(f"node-{node}", "kubelet"), options))
            position += group.count

    async def start(self) -> None:
        """Return when every node is Ready."""
        for kubelet in self._kubelets:
            await kubelet.start()
        for kubelet in self._kubelets:
            await kubelet.wait_ready(60.0)

    async def stop(self) -> None:
        """Stop heartbeats and pods."""
        for kubelet in self._kubelets:
            await kubelet.stop()


def _capacity(group: NodeGroup) -> dict[str, str]:
    return {"cpu": group.cpu, "memory": group.memory, "pods": group.pods, "ephemeral-storage": "100Gi"}
