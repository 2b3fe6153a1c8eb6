"""kube-controller-manager: starts the controllers, under leader election if asked to."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bowsprit.client.discovery import DiscoveryClient, RestMapper
from bowsprit.client.events import EventRecorder
from bowsprit.client.informer import InformerFactory
from bowsprit.client.leaderelection import LeaderElectionConfig, LeaderElector, LeadershipLost
from bowsprit.client.rest import RestClient
from bowsprit.controllers.accounts import ServiceAccountClients
from bowsprit.controllers.certificates import CertificateApprover, CertificateCleaner, CertificateSigner
from bowsprit.controllers.clusterrole_aggregation import ClusterRoleAggregationController
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.cronjob import CronJobController
from bowsprit.controllers.daemonset import DaemonSetController
from bowsprit.controllers.deployment import DeploymentController
from bowsprit.controllers.disruption import DisruptionController
from bowsprit.controllers.endpoints import EndpointsController
from bowsprit.controllers.endpointslice import EndpointSliceController, EndpointSliceMirroringController
from bowsprit.controllers.garbagecollector import GarbageCollector
from bowsprit.controllers.health import HealthServer
from bowsprit.controllers.job import JobController
from bowsprit.controllers.namespace import NamespaceController
from bowsprit.controllers.nodelifecycle import (
    NodeLifecycleController,
    PodGarbageCollector,
    TaintEvictionController,
)
from bowsprit.controllers.persistentvolume import PersistentVolumeController
from bowsprit.controllers.replicaset import ReplicaSetController, ReplicationControllerController
from bowsprit.controllers.resourcequota import ResourceQuotaController
from bowsprit.controllers.root_ca import RootCACertPublisher
from bowsprit.controllers.serviceaccount import ServiceAccountController
from bowsprit.controllers.statefulset import StatefulSetController
from bowsprit.controllers.storage_protection import ClaimProtectionController, VolumeProtectionController
from bowsprit.controllers.tokens import TokensController
from bowsprit.controllers.ttl_after_finished import TTLAfterFinishedController
from bowsprit.pki.authority import Authority
from bowsprit.pki.signing import load_signing_key

log = logging.getLogger(__name__)

CONTROLLERS: tuple[type[Controller], ...] = (
    ServiceAccountController,
    RootCACertPublisher,
    NamespaceController,
    ReplicaSetController,
    ReplicationControllerController,
    DeploymentController,
    EndpointsController,
    EndpointSliceController,
    EndpointSliceMirroringController,
    ClusterRoleAggregationController,
    DaemonSetController,
    JobController,
    TTLAfterFinishedController,
    CronJobController,
    StatefulSetController,
    NodeLifecycleController,
    TaintEvictionController,
    PodGarbageCollector,
    DisruptionController,
    ResourceQuotaController,
    PersistentVolumeController,
    ClaimProtectionController,
    VolumeProtectionController,
    TokensController,
    CertificateApprover,
    CertificateSigner,
    CertificateCleaner,
    GarbageCollector,  # last: it shares the informers of the others
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerManagerOptions:
    """Settings, named after upstream's flags. ``secure_port`` 0 switches the health endpoint off."""

    controllers: Sequence[str] = ("*",)
    root_ca: bytes = b""
    service_account_private_key: bytes = field(default=b"", repr=False)
    cluster_signing_cert_file: Path | None = None
    cluster_signing_key_file: Path | None = None
    use_service_account_credentials: bool = False
    leader_elect: bool = False
    leader_elect_lease_duration: float = 15.0
    leader_elect_renew_deadline: float = 10.0
    leader_elect_retry_period: float = 2.0
    leader_elect_resource_name: str = "kube-controller-manager"
    leader_elect_resource_namespace: str = "kube-system"
    identity: str = "bowsprit"
    bind_address: str = "127.0.0.1"
    secure_port: int = 0
    tls: ssl.SSLContext | None = None
    sync_timeout: float = 60.0


def _signing_authority(options: ControllerManagerOptions) -> Callable[[], Authority] | None:
    cert, key = options.cluster_signing_cert_file, options.cluster_signing_key_file
    return (lambda: Authority.load(cert, key)) if cert is not None and key is not None else None


def enabled(name: str, patterns: Sequence[str]) -> bool:
    """Upstream's --controllers rule: the last word on a name counts, then ``*``."""
    for pattern in patterns:
        if pattern == name:
            return True
        if pattern == f"-{name}":
            return False
    return "*" in patterns


class ControllerManager:
    """All controllers of a process. ``stop`` ends them and closes the client; ``wait`` raises what ended them otherwise."""

    def __init__(self, client: RestClient, options: ControllerManagerOptions | None = None) -> None:
        self._client = client
        self._options = options or ControllerManagerOptions()
        unknown = {name.lstrip("-") for name in self._options.controllers} - {"*"} - {kind.name for kind in CONTROLLERS}
        if unknown:
            raise ValueError(
                f"{', '.join(sorted(unknown))!r} is not in the list of known controllers: "
                + ", ".join(kind.name for kind in CONTROLLERS)
            )
        self._recorders: dict[str, EventRecorder] = {}
        self._controllers: list[Controller] = []
        self._task: asyncio.Task[None] | None = None
        self._synced = asyncio.Event()
        self._elector: LeaderElector | None = None
        self._health = HealthServer(
            {"leaderElection": self._check_leader, "controllers": self._check_task}, self._options.tls
        )
        self.port = 0

    @property
    def controllers(self) -> Sequence[Controller]:
        """The running controllers."""
        return tuple(self._controllers)

    async def start(self) -> None:
        """Begin; returns when the health endpoint listens. ``wait_synced`` tells when the controllers run."""
        options = self._options
        if options.secure_port:
            self.port = await self._health.start(options.bind_address, options.secure_port)
        self._task = asyncio.get_running_loop().create_task(self._lead(), name="controller-manager")

    async def wait_synced(self, timeout: float = 60.0) -> None:
        """Wait until every informer has its initial list and the controllers work."""
        waiter = asyncio.ensure_future(self._synced.wait())
        assert self._task is not None
        try:
            await asyncio.wait({waiter, self._task}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
            if not self._synced.is_set():
                raise TimeoutError("the controllers' informers have not synced")
        finally:
            waiter.cancel()

    async def wait(self) -> None:
        """Run until stopped, or until something ends the controllers (LeadershipLost, a bug)."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Stop all controllers, write their last events, give up the lease, close the client."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._health.stop()
        await self._client.close()

    def recorder(self, component: str) -> EventRecorder:
        """The event recorder of a component."""
        if component not in self._recorders:
            self._recorders[component] = EventRecorder(self._client, component)
        return self._recorders[component]

    async def _lead(self) -> None:
        options = self._options
        if not options.leader_elect:
            await self._run()
            return
        config = LeaderElectionConfig(
            options.leader_elect_resource_namespace,
            options.leader_elect_resource_name,
            options.identity,
            options.leader_elect_lease_duration,
            options.leader_elect_renew_deadline,
            options.leader_elect_retry_period,
        )
        recorder = EventRecorder(self._client, "kube-controller-manager")
        await recorder.start()
        self._elector = LeaderElector(
            self._client,
            config,
            on_new_leader=lambda name: log.info("new leader: %s", name),
            on_event=lambda lease, text: recorder.event(lease, "Normal", "LeaderElection", text),
        )
        try:
            await self._elector.run(self._run)
        except LeadershipLost:
            log.error("leaderelection lost")
            raise
        finally:
            await recorder.stop(1.0)

    async def _run(self) -> None:
        informers = InformerFactory(self._client)
        discovery = DiscoveryClient(self._client)
        context = ControllerContext(
            self._client,
            informers,
            discovery,
            RestMapper(discovery),
            self.recorder,
            root_ca=self._options.root_ca,
            token_key=load_signing_key(key) if (key := self._options.service_account_private_key) else None,
            signing_authority=_signing_authority(self._options),
        )
        kinds = [kind for kind in CONTROLLERS if enabled(kind.name, self._options.controllers)]
        accounts = ServiceAccountClients(self._client)
        try:
            if self._options.use_service_account_credentials:
                await accounts.start({kind.account for kind in kinds if kind.account})
            self._controllers = [
                kind(replace(context, client=accounts.clients.get(kind.account, self._client))) for kind in kinds
            ]
            for recorder in self._recorders.values():
                await recorder.start()
            informers.start()
            await informers.wait_synced(self._options.sync_timeout)
            self._synced.set()
            async with asyncio.TaskGroup() as group:
                for controller in self._controllers:
                    group.create_task(controller.run(), name=controller.name)
        finally:
            for controller in self._controllers:
                await controller.close()
            await informers.stop()
            await accounts.stop()
            await asyncio.gather(*(recorder.stop(1.0) for recorder in self._recorders.values()))
            self._recorders.clear()

    def _check_leader(self) -> str | None:
        return self._elector.check() if self._elector else None

    def _check_task(self) -> str | None:
        return "stopped" if self._task is None or self._task.done() else None
