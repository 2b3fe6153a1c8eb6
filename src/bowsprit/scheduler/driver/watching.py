"""Informers that feed the core. Pods and nodes are trimmed to what scheduling needs, so that large clusters fit in memory."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

from bowsprit.client.informer import Handler, Informer
from bowsprit.client.resources import NODES, PODS
from bowsprit.client.rest import RestClient
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.core import SchedulerCore
from bowsprit.scheduler.objects import KINDS

log = logging.getLogger(__name__)

_TELL_AFTER = 5.0

_META = (
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "labels",
    "annotations", "ownerReferences",
)  # fmt: skip
_CONTAINER = ("name", "image", "resources", "ports", "restartPolicy", "restartPolicyRules")
_DROPPED_SPEC = frozenset({"securityContext", "dnsPolicy", "dnsConfig", "hostAliases", "imagePullSecrets", "subdomain"})


def trim_pod(obj: Obj) -> Obj:
    """A bound pod without what no plugin reads; a pending one is kept whole, extenders and plugins may want it."""
    obj["metadata"].pop("managedFields", None)
    spec = obj.get("spec") or {}
    if not spec.get("nodeName"):
        return obj
    meta = {key: obj["metadata"][key] for key in _META if key in obj["metadata"] and key != "annotations"}
    lean = {key: value for key, value in spec.items() if key not in _DROPPED_SPEC}
    for part in ("containers", "initContainers"):
        if spec.get(part):
            lean[part] = [{key: c[key] for key in _CONTAINER if key in c} for c in spec[part]]
    status = obj.get("status") or {}
    kept = ("phase", "startTime", "conditions", "nominatedNodeName")
    lean_status = {key: status[key] for key in kept if key in status}
    for part in ("containerStatuses", "initContainerStatuses"):
        resized = [c for c in status.get(part) or () if c.get("resources") or c.get("allocatedResources")]
        if resized:
            lean_status[part] = [
                {key: c[key] for key in ("name", "resources", "allocatedResources") if key in c} for c in resized
            ]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": lean, "status": lean_status}


def trim_node(obj: Obj) -> Obj:
    """A node without heartbeats' details."""
    meta, status = obj["metadata"], obj.get("status") or {}
    meta.pop("managedFields", None)
    kept = ("capacity", "allocatable", "images", "declaredFeatures")
    lean = {key: status[key] for key in kept if key in status}
    lean["conditions"] = [{"type": c.get("type"), "status": c.get("status")} for c in status.get("conditions") or ()]
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": obj.get("spec") or {}, "status": lean}


@contextmanager
def _without_collections() -> Iterator[None]:
    """While the initial lists come in: their objects stay, and looking through all of them for garbage again and again
    costs as much as reading them. Afterwards the collector leaves them alone."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


def _pod_event(obj: Obj, action: str) -> str:
    return f"{'AssignedPod' if (obj.get('spec') or {}).get('nodeName') else 'UnschedulablePod'}{action}"


class Watcher:
    """All informers of a scheduler. `changed` is called after every event that the core has seen, `handled` with the
    event's name and how long it took."""

    def __init__(
        self,
        client: RestClient,
        core: SchedulerCore,
        changed: Callable[[], None],
        handled: Callable[[str, float], None] = lambda event, seconds: None,
    ):
        self._core = core
        self._changed = changed
        self._handled = handled
        self._held: list[tuple[str, Callable[[], None]]] | None = None
        self.pods = Informer(client, PODS, transform=trim_pod)
        self._informers = [self._others(client, kind, GroupVersionResource(*gvr)) for kind, gvr in KINDS.items()]
        nodes = Informer(client, NODES, transform=trim_node)
        nodes.add_handler(
            Handler(
                lambda obj, initial: self._after("NodeAdd", lambda: core.set_node(obj)),
                lambda old, new: self._after("NodeUpdate", lambda: core.set_node(new)),
                lambda obj: self._after("NodeDelete", lambda: core.delete_node(obj["metadata"]["name"])),
            )
        )
        self.pods.add_handler(
            Handler(
                lambda obj, initial: self._after(_pod_event(obj, "Add"), lambda: core.set_pod(obj)),
                lambda old, new: self._after(_pod_event(new, "Update"), lambda: self._pod_changed(old, new)),
                lambda obj: self._after(_pod_event(obj, "Delete"), lambda: core.delete_pod(obj)),
            )
        )
        self._informers += [nodes, self.pods]

    def _others(self, client: RestClient, kind: str, gvr: GroupVersionResource) -> Informer:
        informer = Informer(client, gvr)
        core = self._core
        informer.add_handler(
            Handler(
                lambda obj, initial: self._after(f"{kind}Add", lambda: core.set_object(kind, obj)),
                lambda old, new: self._after(f"{kind}Update", lambda: core.set_object(kind, new)),
                lambda obj: self._after(f"{kind}Delete", lambda: core.delete_object(kind, obj)),
            )
        )
        return informer

    def _pod_changed(self, old: Obj, new: Obj) -> None:
        if old["metadata"].get("resourceVersion") != new["metadata"].get("resourceVersion"):
            self._core.set_pod(new)

    def _after(self, event: str, action: Callable[[], None]) -> None:
        if self._held is not None:
            self._held.append((event, action))
            return
        self._handle(event, action)
        self._changed()

    def _handle(self, event: str, action: Callable[[], None]) -> None:
        started = perf_counter()
        action()
        self._handled(event, perf_counter() - started)

    def hold(self) -> None:
        """Keep events back: the core is busy in another thread."""
        self._held = []

    def release(self) -> None:
        """Let the core see what was kept back, in order."""
        held, self._held = self._held or [], None
        for event, action in held:
            try:
                self._handle(event, action)
            except Exception:
                log.exception("an event could not be applied")
        self._changed()

    @property
    def synced(self) -> bool:
        return all(informer.has_synced for informer in self._informers)

    async def start(self, timeout: float) -> None:
        """Start all informers and wait for their initial lists. Pods come last: their nodes are known then."""
        for informer in self._informers[:-1]:
            informer.start()
        patience = asyncio.get_running_loop().create_task(self._tell_what_is_missing())
        try:
            with _without_collections():
                await self._sync(timeout)
        finally:
            patience.cancel()

    async def _sync(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                for informer in self._informers[:-1]:
                    await informer.wait_synced()
                self.pods.start()
                await self.pods.wait_synced()
        except TimeoutError:
            raise TimeoutError(self._missing()) from None

    def _missing(self) -> str:
        late = [informer for informer in self._informers if not informer.has_synced]
        problem = next((informer.problem for informer in late if informer.problem), "no answer yet")
        return f"no list of {', '.join(informer.gvr.resource for informer in late)}: {problem}"

    async def _tell_what_is_missing(self) -> None:
        while True:
            await asyncio.sleep(_TELL_AFTER)
            log.warning("%s", self._missing())

    async def stop(self) -> None:
        await asyncio.gather(*(informer.stop() for informer in self._informers))
