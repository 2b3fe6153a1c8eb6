"""Node health: marks silent nodes, taints by condition, and evicts pods from tainted nodes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from bowsprit.client.cache import split_key
from bowsprit.client.informer import Handler
from bowsprit.client.resources import LEASES, NODES, PODS
from bowsprit.client.rest import PatchType
from bowsprit.controllers import conditions
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.node_fit import node_taints
from bowsprit.controllers.node_health import Heartbeat, eviction_delay, mark_of, unknown_conditions, wanted_taints
from bowsprit.controllers.pods import POD_INDEXERS, is_deleting, is_ready
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.objects import Obj, find_condition, nested
from bowsprit.machinery.time import parse_time


class NodeLifecycleController(Controller):
    """Keys are nodes. Every node is looked at each ``period`` seconds; silence counts after ``grace``."""

    name = "node-lifecycle-controller"
    account = "node-controller"
    component = "node-controller"
    workers = 2
    period = 5.0
    grace = 50.0

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._nodes = context.informers.informer(NODES)
        self._leases = context.informers.informer(LEASES, namespace="kube-node-lease")
        self._pods = context.informers.informer(PODS, indexers=POD_INDEXERS)
        self._heartbeats: dict[str, Heartbeat] = {}
        self._nodes.add_handler(Handler(self._added, lambda _, node: self.enqueue(node), self._deleted))

    def _added(self, node: Obj, initial: bool) -> None:
        name = node["metadata"]["name"]
        about = {"kind": "Node", "apiVersion": "v1", "name": name, "uid": node["metadata"]["uid"]}
        self.event(about, "Normal", "RegisteredNode", f"Node {name} event: Registered Node {name} in Controller")
        self.enqueue(node)

    def _deleted(self, node: Obj) -> None:
        self._heartbeats.pop(node["metadata"]["name"], None)

    async def sync(self, key: str) -> None:
        """See Controller."""
        node = self._nodes.get(key)
        if node is None:
            return
        self.queue.add_after(key, self.period)
        if self._is_silent(key, node) and (unknown := unknown_conditions(node, self.now())) is not None:
            self.event(
                {**node, "apiVersion": "v1", "kind": "Node"},
                "Normal",
                "NodeNotReady",
                f"Node {key} status is now: NodeNotReady",
            )
            patch = {
                "metadata": {"resourceVersion": node["metadata"]["resourceVersion"]},
                "status": {"conditions": unknown},
            }
            with suppress(NotFoundError):
                node = await self.client.patch(NODES, key, patch, subresource="status", patch_type=PatchType.MERGE)
        taints = wanted_taints(node, self.now())
        if taints != node_taints(node):
            meta = node["metadata"]
            patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "spec": {"taints": taints or None}}
            with suppress(NotFoundError):
                await self.client.patch(NODES, key, patch, patch_type=PatchType.MERGE)
        ready = find_condition(node, "Ready")
        if ready is not None and ready.get("status") != "True":
            await self._mark_pods_not_ready(key)

    def _is_silent(self, name: str, node: Obj) -> bool:
        clock = self.now().timestamp()
        mark = mark_of(node, self._leases.get(f"kube-node-lease/{name}"))
        beat = self._heartbeats.get(name)
        if beat is None or beat.mark != mark:
            beat = self._heartbeats[name] = Heartbeat(mark, clock)
        return clock - beat.at > self.grace

    async def _mark_pods_not_ready(self, node: str) -> None:
        for pod in self._pods.by_index("node", node):
            if not is_ready(pod):
                continue
            meta = pod["metadata"]
            listed = nested(pod, "status", "conditions", default=[])
            new = conditions.condition("Ready", "False", "", "", self.now())
            del new["reason"], new["message"]
            status = {"conditions": [new if item["type"] == "Ready" else item for item in listed]}
            patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": status}
            with suppress(NotFoundError):
                await self.client.patch(
                    PODS,
                    meta["name"],
                    patch,
                    namespace=meta["namespace"],
                    subresource="status",
                    patch_type=PatchType.MERGE,
                )


class TaintEvictionController(Controller):
    """Keys are pods on nodes with NoExecute taints."""

    name = "taint-eviction-controller"
    account = "node-controller"
    component = "taint-eviction-controller"
    workers = 4

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._nodes = context.informers.informer(NODES)
        self._pods = context.informers.informer(PODS, indexers=POD_INDEXERS)
        self._since: dict[str, float] = {}
        self._nodes.add_handler(Handler(lambda node, _: self._node(node), lambda _, node: self._node(node)))
        self._pods.add_handler(Handler(lambda pod, _: self._pod(pod), self._pod_updated, self._gone))

    def _node(self, node: Obj) -> None:
        if any(taint.get("effect") == "NoExecute" for taint in node_taints(node)):
            for pod in self._pods.by_index("node", node["metadata"]["name"]):
                self.enqueue(pod)

    def _pod(self, pod: Obj) -> None:
        node = self._nodes.get(nested(pod, "spec", "nodeName", default=""))
        if node is not None and any(taint.get("effect") == "NoExecute" for taint in node_taints(node)):
            self.enqueue(pod)

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        if old["spec"] != pod["spec"]:
            self._pod(pod)

    def _gone(self, pod: Obj) -> None:
        self._since.pop(pod["metadata"]["uid"], None)

    async def sync(self, key: str) -> None:
        """See Controller."""
        pod = self._pods.get(key)
        if pod is None or is_deleting(pod):
            return
        uid = pod["metadata"]["uid"]
        node = self._nodes.get(nested(pod, "spec", "nodeName", default=""))
        taints = [taint for taint in node_taints(node or {}) if taint.get("effect") == "NoExecute"]
        delay = eviction_delay(pod, taints)
        if not taints or delay is None:
            if self._since.pop(uid, None) is not None:
                self._report(pod, f"Cancelling deletion of Pod {key}")
            return
        clock = self.now().timestamp()
        added = [parse_time(taint["timeAdded"]).timestamp() for taint in taints if taint.get("timeAdded")]
        since = self._since.setdefault(uid, max(added, default=clock))
        if clock < since + delay:
            self.queue.add_after(key, since + delay - clock)
            return
        await self._evict(key, pod)

    async def _evict(self, key: str, pod: Obj) -> None:
        namespace, name = split_key(key)
        self._report(pod, f"Marking for deletion Pod {key}")
        target = conditions.condition(
            "DisruptionTarget",
            "True",
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
            self.now(),
        )
        listed = conditions.with_condition(nested(pod, "status", "conditions", default=[]), target)
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": listed}}
        with suppress(NotFoundError):
            await self.client.patch(
                PODS, name, patch, namespace=namespace, subresource="status", patch_type=PatchType.MERGE
            )
            await self.client.delete(PODS, name, namespace=namespace, uid=pod["metadata"]["uid"])

    def _report(self, pod: Obj, message: str) -> None:
        self.event({**pod, "apiVersion": "v1", "kind": "Pod"}, "Normal", "TaintManagerEviction", message)


class PodGarbageCollector(Controller):
    """Removes pods of nodes that are gone (after a quarantine), unbound pods being deleted, and surplus finished pods."""

    name = "pod-garbage-collector-controller"
    account = "pod-garbage-collector"
    workers = 1
    period = 20.0
    quarantine = 40.0
    terminated_threshold = 12500

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._pods = context.informers.informer(PODS, indexers=POD_INDEXERS)
        self._nodes = context.informers.informer(NODES)
        self._missing: dict[str, float] = {}

    async def run(self) -> None:
        """See Controller; a clock, not events, drives this one."""
        self.queue.add("all")
        await super().run()

    async def sync(self, key: str) -> None:
        """See Controller."""
        self.queue.add_after(key, self.period)
        doomed = orphans(self._pods.list(), {node["metadata"]["name"] for node in self._nodes.list()})
        clock = self.now().timestamp()
        self._missing = {name: self._missing.get(name, clock) for name in doomed}
        for name, pods in doomed.items():
            if name and clock - self._missing[name] < self.quarantine:
                continue
            if name and not await self._node_is_gone(name):
                continue
            await asyncio.gather(*(self._remove(pod, fail=bool(name)) for pod in pods))
        finished = sorted(
            (pod for pod in self._pods.list() if nested(pod, "status", "phase") in ("Succeeded", "Failed")),
            key=lambda pod: pod["metadata"].get("creationTimestamp") or "",
        )
        for pod in finished[: max(0, len(finished) - self.terminated_threshold)]:
            await self._remove(pod, fail=False)

    async def _node_is_gone(self, name: str) -> bool:
        try:
            await self.client.get(NODES, name)
        except NotFoundError:
            return True
        return False

    async def _remove(self, pod: Obj, *, fail: bool) -> None:
        meta = pod["metadata"]
        with suppress(NotFoundError):
            if fail and nested(pod, "status", "phase") not in ("Succeeded", "Failed"):
                target = conditions.condition(
                    "DisruptionTarget", "True", "DeletionByPodGC", "PodGC: node no longer exists", self.now()
                )
                listed = conditions.with_condition(nested(pod, "status", "conditions", default=[]), target)
                patch = {"status": {"phase": "Failed", "conditions": listed}}
                await self.client.patch(
                    PODS,
                    meta["name"],
                    patch,
                    namespace=meta["namespace"],
                    subresource="status",
                    patch_type=PatchType.MERGE,
                )
            await self.client.delete(
                PODS, meta["name"], namespace=meta["namespace"], uid=meta["uid"], grace_period_seconds=0
            )


def orphans(pods: list[Obj], nodes: set[str]) -> dict[str, list[Obj]]:
    """Pods by missing node; under "" those being deleted that were never bound."""
    result: dict[str, list[Obj]] = {}
    for pod in pods:
        node = nested(pod, "spec", "nodeName", default="")
        if (node and node not in nodes) or (not node and is_deleting(pod)):
            result.setdefault(node, []).append(pod)
    return result
