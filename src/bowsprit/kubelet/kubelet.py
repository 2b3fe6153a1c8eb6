"""The driver: registers nodes, keeps them alive, and carries out what the pods' lifecycle says.

One process runs any number of nodes. Each speaks with its own identity and watches the pods bound to it; where all nodes
share one client (an administrator's), one watch serves them all.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bowsprit.client.cache import object_key, split_key
from bowsprit.client.errors import ClientError
from bowsprit.client.events import EventRecorder
from bowsprit.client.informer import Handler, Informer
from bowsprit.client.resources import LEASES, NODES, PODS
from bowsprit.client.rest import PatchType, RestClient
from bowsprit.client.workqueue import ShutDown, WorkQueue
from bowsprit.kubelet.containers import Event
from bowsprit.kubelet.lifecycle import KUBELET_CONDITIONS, Host, Look, look
from bowsprit.kubelet.logs import LogOptions, lines
from bowsprit.kubelet.node import (
    DEFAULT_CAPACITY,
    AddressPool,
    NodeProfile,
    lease_object,
    node_conditions,
    node_object,
    node_status,
)
from bowsprit.kubelet.portforward import Pipe, simulated
from bowsprit.kubelet.processpods import ProcessPods
from bowsprit.kubelet.server import KubeletServer
from bowsprit.machinery.errors import AlreadyExistsError, NotFoundError, StatusError
from bowsprit.machinery.objects import Obj, nested
from bowsprit.machinery.time import format_micro_time
from bowsprit.net.hostaddress import host_address
from bowsprit.pki.serving import ServingContext

log = logging.getLogger(__name__)

_LEASE_PERIOD = 10.0  # a quarter of the lease's duration, as upstream
_STATUS_PERIOD = 300.0  # upstream nodeStatusReportFrequency
_FINISHED = ("Succeeded", "Failed")
_PREPARE_RETRY = 1.0
_REGISTER_RETRY = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeletOptions:
    """The nodes of a process. ``zones`` are given out in turn as topology.kubernetes.io/zone.

    With a serving certificate, its key and a client CA there is an endpoint for logs and exec at ``bind_address:port`` (0:
    any port); the nodes' Hostname address and kubelet port say where it is.
    """

    nodes: Sequence[str] = ("node-0",)
    capacity: Mapping[str, str] = field(default_factory=lambda: dict(DEFAULT_CAPACITY))
    labels: Mapping[str, str] = field(default_factory=dict)
    zones: Sequence[str] = ()
    taints: Sequence[Obj] = ()
    first_index: int = 0
    bind_address: str = "127.0.0.1"
    port: int = 0
    serving_cert: Path | None = None
    serving_key: Path | None = None
    client_ca: Path | None = None
    workers: int = 4
    processes: Path | None = None  # pods whose commands are on this host run there; their volumes are below this folder

    def profiles(self, port: int) -> list[NodeProfile]:
        """One profile per node; ``port`` is the endpoint's, 0 for none."""
        made = []
        for number, name in enumerate(self.nodes):
            labels = dict(self.labels)
            if self.zones:
                labels["topology.kubernetes.io/zone"] = self.zones[number % len(self.zones)]
            made.append(
                NodeProfile(
                    name,
                    self.first_index + number,
                    dict(self.capacity),
                    labels,
                    tuple(self.taints),
                    kubelet_host=self.bind_address if port else "",
                    kubelet_port=port,
                )
            )
        return made


class Kubelet:
    """Simulated nodes. ``client_factory`` gives each node its client, which is closed at the end."""

    def __init__(
        self,
        client_factory: Callable[[str], RestClient],
        options: KubeletOptions | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._factory = client_factory
        self._options = options or KubeletOptions()
        self._now = now
        self._nodes: dict[str, _Node] = {}
        self._runners: list[_PodRunner] = []
        self._server: KubeletServer | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the endpoint, begin to register the nodes and to run their pods. Raises OSError, PKIError for the endpoint."""
        clients: dict[int, RestClient] = {}
        for profile in self._options.profiles(await self._serve()):
            client = self._factory(profile.name)
            clients[id(client)] = client
            self._nodes[profile.name] = _Node(client, profile, self._now)
        for client in clients.values():
            mine = {name: node for name, node in self._nodes.items() if node.client is client}
            self._runners.append(_PodRunner(client, mine, self._now, self._options.workers, self._options.processes))
        self._task = asyncio.get_running_loop().create_task(self._run(), name="kubelet")

    async def _serve(self) -> int:
        options = self._options
        if options.serving_cert is None or options.serving_key is None or options.client_ca is None:
            return 0
        serving = ServingContext(options.serving_cert, options.serving_key, client_ca=options.client_ca)
        self._server = KubeletServer(self.pod, self.pods, serving.context, self._now)
        self._server.lines = self._lines
        self._server.connect = self._connect
        return await self._server.start(options.bind_address, options.port)

    async def wait_ready(self, timeout: float = 30.0) -> None:
        """Wait until all nodes are registered; raises TimeoutError or what ended the kubelet."""
        assert self._task is not None
        waiting = asyncio.ensure_future(self._all_registered())
        try:
            await asyncio.wait({waiting, self._task}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
            if not waiting.done():
                missing = [name for name, node in self._nodes.items() if not node.registered.is_set()]
                raise TimeoutError(f"nodes not registered: {', '.join(missing)}")
        finally:
            waiting.cancel()

    async def _all_registered(self) -> None:
        for node in self._nodes.values():
            await node.registered.wait()

    async def wait(self) -> None:
        """Run until stopped, or until something fails for good."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def stop(self) -> None:
        """Stop; the nodes stay registered, as those of a machine that is switched off."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for runner in self._runners:
            await runner.stop()
        clients = {id(node.client): node.client for node in self._nodes.values()}
        for client in clients.values():
            await client.close()
        self._runners.clear()
        self._nodes.clear()

    def _lines(self, pod: Obj, container: str, options: LogOptions, now: datetime) -> Iterator[tuple[datetime, str]]:
        for runner in self._runners:
            if runner.processes is not None and runner.processes.has(pod["metadata"]["uid"]):
                return runner.processes.lines(pod, container, options, now)
        return lines(pod, container, options, now)

    async def _connect(self, pod: Obj, port: int, pipe: Pipe) -> bool:
        for runner in self._runners:
            if runner.processes is not None and runner.processes.has(pod["metadata"]["uid"]):
                return await runner.processes.connect(port, pipe)
        return await simulated(pod, port, pipe)

    def pods(self) -> list[Obj]:
        """The pods bound to our nodes, as last seen."""
        return [pod for runner in self._runners for pod in runner.pods()]

    def pod(self, namespace: str, name: str) -> Obj | None:
        """A pod of one of our nodes."""
        found = (runner.pod(f"{namespace}/{name}") for runner in self._runners)
        return next((pod for pod in found if pod is not None), None)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for node in self._nodes.values():
                group.create_task(node.run(), name=f"node {node.profile.name}")
            for runner in self._runners:
                group.create_task(runner.run(), name="pods")


class _Node:
    """Registration and heartbeats of one node."""

    def __init__(self, client: RestClient, profile: NodeProfile, now: Callable[[], datetime]) -> None:
        self.client = client
        self.profile = profile
        self.registered = asyncio.Event()
        self.addresses = AddressPool(profile.pod_cidr)
        self._now = now
        self._node: Obj = {}
        self._lease: Obj | None = None

    async def run(self) -> None:
        await self._register()
        last_status = asyncio.get_running_loop().time()
        while True:
            try:
                await self._renew_lease()
                self.registered.set()
                if asyncio.get_running_loop().time() - last_status >= _STATUS_PERIOD:
                    await self._report_status()
                    last_status = asyncio.get_running_loop().time()
            except NotFoundError:
                await self._register()  # somebody deleted the node: a running kubelet registers again
                continue
            except (StatusError, ClientError, TimeoutError) as exc:
                log.info("node %s: %s", self.profile.name, exc)
                self._lease = None
                await asyncio.sleep(1.0)
                continue
            await asyncio.sleep(_LEASE_PERIOD * random.uniform(1.0, 1.04))

    async def _register(self) -> None:
        attempt = 0
        while True:
            try:
                self._node = await self._create_or_adopt()
                return
            except (StatusError, ClientError, TimeoutError) as exc:
                log.info("node %s: not registered: %s", self.profile.name, exc)
                await asyncio.sleep(_REGISTER_RETRY[min(attempt, len(_REGISTER_RETRY) - 1)])
                attempt += 1

    async def _create_or_adopt(self) -> Obj:
        wanted = node_object(self.profile, self._now())
        try:
            return await self.client.create(NODES, wanted)
        except AlreadyExistsError:
            self._node = await self.client.get(NODES, self.profile.name)
        current = self._node["metadata"].get("labels") or {}
        if not wanted["metadata"]["labels"].items() <= current.items():
            patch = {"metadata": {"labels": wanted["metadata"]["labels"]}}
            self._node = await self.client.patch(NODES, self.profile.name, patch)
        return await self._report_status()

    async def _report_status(self) -> Obj:
        current = await self.client.get(NODES, self.profile.name)
        conditions = nested(current, "status", "conditions", default=[])
        status = node_status(self.profile, conditions, self._now())
        own = {condition["type"] for condition in node_conditions((), self._now())}
        status["conditions"] = [condition for condition in status["conditions"] if condition["type"] in own]
        return await self.client.patch(
            NODES, self.profile.name, {"status": status}, subresource="status", patch_type=PatchType.STRATEGIC
        )

    async def _renew_lease(self) -> None:
        if self._lease is None:
            wanted = lease_object(self._node, self._now())
            try:
                self._lease = await self.client.create(LEASES, wanted)
                return
            except AlreadyExistsError:
                self._lease = await self.client.get(LEASES, self.profile.name, namespace="kube-node-lease")
            if self._lease["metadata"].get("ownerReferences") != wanted["metadata"]["ownerReferences"]:
                self._lease["metadata"]["ownerReferences"] = wanted["metadata"]["ownerReferences"]
        self._lease["spec"] = {
            **(self._lease.get("spec") or {}),
            "holderIdentity": self.profile.name,
            "renewTime": format_micro_time(self._now()),
        }
        try:
            self._lease = await self.client.update(LEASES, self._lease, namespace="kube-node-lease")
        except NotFoundError:
            self._lease = None
            await self.client.get(NODES, self.profile.name)  # a vanished node takes its lease along
            self._lease = await self.client.create(LEASES, lease_object(self._node, self._now()))


class _PodRunner:
    """Runs the pods of the nodes that share a client."""

    def __init__(
        self,
        client: RestClient,
        nodes: Mapping[str, _Node],
        now: Callable[[], datetime],
        workers: int,
        processes: Path | None,
    ) -> None:
        self._client = client
        self._nodes = nodes
        self._now = now
        self._workers = workers
        selector = f"spec.nodeName={next(iter(nodes))}" if len(nodes) == 1 else "spec.nodeName!="
        self._informer = Informer(client, PODS, field_selector=selector)
        self._queue: WorkQueue[str] = WorkQueue("pods", base_delay=0.05, max_delay=30.0)
        self._recorders = {name: EventRecorder(client, "kubelet", host=name) for name in nodes}
        self._statuses: dict[str, Obj] = {}
        self._informer.add_handler(Handler(lambda pod, _: self._changed(pod), self._updated, self._gone))
        self.processes: ProcessPods | None = None
        if processes is not None:
            self.processes = ProcessPods(processes, host_address(), now, self._queue.add)

    def pods(self) -> list[Obj]:
        return [pod for pod in self._informer.list() if pod["spec"].get("nodeName") in self._nodes]

    def pod(self, key: str) -> Obj | None:
        found = self._informer.get(key)
        return found if found is not None and found["spec"].get("nodeName") in self._nodes else None

    async def run(self) -> None:
        for recorder in self._recorders.values():
            await recorder.start()
        self._informer.start()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def stop(self) -> None:
        self._queue.shut_down()
        await self._informer.stop()
        if self.processes is not None:
            await self.processes.stop()
        await asyncio.gather(*(recorder.stop(1.0) for recorder in self._recorders.values()))

    def _changed(self, pod: Obj) -> None:
        node = self._nodes.get(pod["spec"].get("nodeName") or "")
        if node is None:
            return
        if (known := nested(pod, "status", "podIP")) and _needs_address(pod):
            node.addresses.address(pod["metadata"]["uid"], known)  # kept across a restart, before a new pod can take it
        self._queue.add(object_key(pod))

    def _updated(self, old: Obj, pod: Obj) -> None:
        """Our own status coming back is no news."""
        meta, before = pod["metadata"], old["metadata"]
        if (
            pod.get("status") != self._statuses.get(meta["uid"])
            or before.get("deletionTimestamp") != meta.get("deletionTimestamp")
            or before.get("annotations") != meta.get("annotations")
            or old["spec"] != pod["spec"]
        ):
            self._changed(pod)

    def _gone(self, pod: Obj) -> None:
        uid = pod["metadata"]["uid"]
        self._statuses.pop(uid, None)
        if self.processes is not None and self.processes.has(uid):
            self._queue.add(object_key(pod))
        node = self._nodes.get(pod["spec"].get("nodeName") or "")
        if node is not None:
            node.addresses.release(uid)

    async def _work(self) -> None:
        while True:
            try:
                key = await self._queue.get()
            except ShutDown:
                return
            try:
                await self._sync(key)
                self._queue.forget(key)
            except (StatusError, ClientError, TimeoutError) as exc:
                log.info("pod %s: %s", key, exc)
                self._queue.add_rate_limited(key)
            except Exception:
                log.exception("pod %s", key)
                self._queue.add_rate_limited(key)
            finally:
                self._queue.done(key)

    async def _sync(self, key: str) -> None:
        cached = self._informer.get(key)
        if self.processes is not None:
            await self.processes.keep(key, cached["metadata"]["uid"] if cached is not None else "")
        if cached is None or (node := self._nodes.get(cached["spec"].get("nodeName") or "")) is None:
            return
        uid = cached["metadata"]["uid"]
        pod = {**cached, "apiVersion": "v1", "kind": "Pod", "status": self._merged(cached)}
        before = pod["status"]
        if self.processes is not None and self.processes.runs(pod):
            await self._sync_process(self.processes, key, node, pod)
            return
        pod_ip = before.get("podIP") or node.profile.ip
        if _needs_address(pod):
            pod_ip = node.addresses.address(uid, before.get("podIP") or "")
            if not pod_ip:
                self._record(
                    node, pod, Event("Warning", "FailedCreatePodSandBox", f"no address left in {node.profile.pod_cidr}")
                )
                self._queue.add_after(key, 10.0)
                return
        outcome = look(pod, Host(node.profile.ip, pod_ip), self._now())
        for event in outcome.events:
            self._record(node, pod, event)
        if outcome.status.get("phase") in _FINISHED:
            node.addresses.release(uid)
        await self._carry_out(key, pod, before, outcome)

    async def _sync_process(self, processes: ProcessPods, key: str, node: _Node, pod: Obj) -> None:
        """As `_sync`, for a pod that runs on this host and shares its address."""
        before = pod["status"]
        problem = await processes.prepare(self._client, pod) if before.get("phase") not in _FINISHED else None
        address = processes.address or node.profile.ip
        outcome = look(pod, Host(address, address), self._now(), processes.course)
        if problem is not None:
            outcome.events.append(problem)
            outcome.wake = _PREPARE_RETRY
        if outcome.status.get("phase") in _FINISHED:
            processes.rest(pod["metadata"]["uid"])
        else:
            outcome.events += await processes.carry_out(pod, outcome.status)
        for event in outcome.events:
            self._record(node, pod, event)
        if outcome.delete:
            await processes.forget(pod["metadata"]["uid"])
        await self._carry_out(key, pod, before, outcome)

    def _merged(self, cached: Obj) -> Obj:
        """What we last wrote (the cache may lag behind), with the conditions that are others' as the cache has them."""
        own = self._statuses.get(cached["metadata"]["uid"])
        seen: Obj = cached.get("status") or {}
        if own is None:
            return seen
        mine = [item for item in own.get("conditions") or () if item["type"] in KUBELET_CONDITIONS]
        theirs = [item for item in seen.get("conditions") or () if item["type"] not in KUBELET_CONDITIONS]
        return {**own, "conditions": [*mine, *theirs]}

    async def _carry_out(self, key: str, pod: Obj, before: Obj, outcome: Look) -> None:
        meta = pod["metadata"]
        namespace, name = split_key(key)
        try:
            # A pod that is about to vanish needs no last status, unless finalizers keep it in sight
            if outcome.status != before and not (outcome.delete and not meta.get("finalizers")):
                written = await self._client.patch(
                    PODS,
                    name,
                    {"metadata": {"uid": meta["uid"]}, "status": _patch_of(outcome.status)},
                    namespace=namespace,
                    subresource="status",
                    patch_type=PatchType.STRATEGIC,
                )
                self._statuses[meta["uid"]] = written.get("status") or {}
            if outcome.delete:
                await self._client.delete(PODS, name, namespace=namespace, grace_period_seconds=0, uid=meta["uid"])
                return
        except NotFoundError:
            return
        if outcome.wake is not None:
            self._queue.add_after(key, outcome.wake)

    def _record(self, node: _Node, pod: Obj, event: Event) -> None:
        meta = pod["metadata"]
        about = {
            "kind": "Pod",
            "apiVersion": "v1",
            "namespace": meta["namespace"],
            "name": meta["name"],
            "uid": meta["uid"],
            "resourceVersion": meta.get("resourceVersion", ""),
        }
        if event.container:
            about["fieldPath"] = f"spec.{'initContainers' if event.init else 'containers'}{{{event.container}}}"
        self._recorders[node.profile.name].event(
            about, "Warning" if event.type == "Warning" else "Normal", event.reason, event.message
        )


def _needs_address(pod: Obj) -> bool:
    """Whether the pod holds an address of its own: it is not finished, nor on the host's network."""
    return not pod["spec"].get("hostNetwork") and nested(pod, "status", "phase") not in _FINISHED


def _patch_of(status: Obj) -> Obj:
    """The status as a strategic merge patch: conditions merge by type, so what a condition no longer says must be nulled."""
    conditions = [{"reason": None, "message": None, **condition} for condition in status.get("conditions") or ()]
    return {**status, "conditions": conditions}
