"""DaemonSets: one pod on every node that wants it (upstream pkg/controller/daemon)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from bowsprit.client.informer import Handler
from bowsprit.client.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES
from bowsprit.controllers.controller import ControllerContext
from bowsprit.controllers.deployment_rollout import resolve
from bowsprit.controllers.node_fit import matches_node, node_taints, untolerated
from bowsprit.controllers.pod_control import BURST, namespace_is_terminating, pod_from_template, slow_start
from bowsprit.controllers.pod_owner import PodOwnerController
from bowsprit.controllers.pods import POD_INDEXERS, available_in, is_available, is_deleting, is_ready, phase
from bowsprit.controllers.revisions import HASH_LABEL, RevisionKeeper, revision_hash
from bowsprit.machinery import objects
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.objects import Obj, labels, nested

_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_NO_RUN = frozenset({"NoSchedule", "NoExecute"})
_NO_STAY = frozenset({"NoExecute"})


def daemon_tolerations(spec: Obj) -> list[Obj]:
    """The template's tolerations and those that every daemon has."""
    wanted = [
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ]
    if spec.get("hostNetwork"):
        wanted.append(("node.kubernetes.io/network-unavailable", "NoSchedule"))
    result = list(spec.get("tolerations") or ())
    for key, effect in wanted:
        toleration = {"key": key, "operator": "Exists", "effect": effect}
        if toleration not in result:
            result.append(toleration)
    return result


def wants_node(daemon_set: Obj, node: Obj) -> tuple[bool, bool]:
    """``(should run, should continue to run)`` on a node (upstream NodeShouldRunDaemonPod)."""
    spec = nested(daemon_set, "spec", "template", "spec", default={})
    if spec.get("nodeName") and spec["nodeName"] != node["metadata"]["name"]:
        return False, False
    if not matches_node(spec, node):
        return False, False
    tolerations = daemon_tolerations(spec)
    if untolerated(tolerations, node_taints(node), _NO_RUN):
        return False, not untolerated(tolerations, node_taints(node), _NO_STAY)
    return True, True


def target_node(pod: Obj) -> str:
    """The node a daemon pod is for, bound already or by affinity."""
    if bound := pod["spec"].get("nodeName"):
        return str(bound)
    path = ("spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    for term in nested(pod, *path, default=()):
        for item in term.get("matchFields") or ():
            if item["key"] == "metadata.name" and item.get("values"):
                return str(item["values"][0])
    return ""


def daemon_pod(daemon_set: Obj, node: str, pod: Obj, hashed: str) -> Obj:
    """Bind a pod made of the template to a node by affinity, as the scheduler is to place it there."""
    spec, meta = pod["spec"], pod["metadata"]
    spec["tolerations"] = daemon_tolerations(spec)
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.get("nodeSelectorTerms") or [{}]
    required["nodeSelectorTerms"] = [{**term, "matchFields": fields} for term in terms]
    meta.setdefault("labels", {})[HASH_LABEL] = hashed
    if generation := objects.annotations(daemon_set).get(_TEMPLATE_GENERATION):
        meta["labels"]["pod-template-generation"] = generation
    return pod


@dataclass(slots=True)
class Plan:
    """What to do: nodes that get a pod, pods that go, and the failed ones among these."""

    create: list[str] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)
    failed: list[Obj] = field(default_factory=list)


def by_node(pods: Iterable[Obj]) -> dict[str, list[Obj]]:
    """Pods by the node they are for."""
    result: dict[str, list[Obj]] = {}
    for pod in pods:
        result.setdefault(target_node(pod), []).append(pod)
    return result


def manage(daemon_set: Obj, nodes: Iterable[Obj], pods: dict[str, list[Obj]], hashed: str) -> Plan:
    """Pods for nodes that lack one; away with the failed, the superfluous and the misplaced."""
    plan = Plan()
    names = set()
    for node in nodes:
        name = node["metadata"]["name"]
        names.add(name)
        should_run, should_stay = wants_node(daemon_set, node)
        present = pods.get(name, [])
        failed = [pod for pod in present if phase(pod) == "Failed"] if should_stay else []
        alive = [pod for pod in present if not is_deleting(pod) and pod not in failed]
        plan.failed += failed
        plan.delete += failed
        if should_run and not present:
            plan.create.append(name)
        elif should_stay and len(alive) > 1 and not _is_surge(alive, hashed):
            plan.delete += sorted(alive, key=lambda pod: (not is_ready(pod), pod["metadata"]["creationTimestamp"]))[1:]
        elif not should_stay:
            plan.delete += alive
    for name, present in pods.items():
        if name and name not in names:
            plan.delete += [pod for pod in present if not pod["spec"].get("nodeName") and not is_deleting(pod)]
    return plan


def _is_surge(alive: list[Obj], hashed: str) -> bool:
    return len(alive) == 2 and len([pod for pod in alive if labels(pod).get(HASH_LABEL) == hashed]) == 1


def roll(daemon_set: Obj, nodes: list[Obj], pods: dict[str, list[Obj]], hashed: str, now: datetime) -> Plan:
    """One step of a rolling update within maxUnavailable or maxSurge (upstream rollingUpdate)."""
    plan = Plan()
    min_ready = int(daemon_set["spec"].get("minReadySeconds") or 0)
    wanted = [node["metadata"]["name"] for node in nodes if wants_node(daemon_set, node)[0]]
    rolling = nested(daemon_set, "spec", "updateStrategy", "rollingUpdate", default={})
    unavailable_limit = resolve(rolling.get("maxUnavailable", 1), len(wanted), up=True)
    surge_limit = resolve(rolling.get("maxSurge", 0), len(wanted), up=True)
    if not surge_limit and not unavailable_limit:
        unavailable_limit = 1
    broken: list[Obj] = []
    working: list[Obj] = []
    unavailable = surging = 0
    for name in wanted:
        alive = [pod for pod in pods.get(name, []) if not is_deleting(pod)]
        new = [pod for pod in alive if labels(pod).get(HASH_LABEL) == hashed]
        old = [pod for pod in alive if labels(pod).get(HASH_LABEL) != hashed]
        available = [pod for pod in alive if is_available(pod, min_ready, now)]
        unavailable += not available
        if surge_limit:
            surging += bool(old and new)
            if new and old and new[0] in available:
                plan.delete += old
            elif old and not new and surging < surge_limit:
                surging += 1
                plan.create.append(name)
        elif old and not new:
            (working if old[0] in available else broken).append(old[0])
    if not surge_limit:
        plan.delete = broken + working[: max(0, unavailable_limit - unavailable)]
    return plan


def daemon_status(daemon_set: Obj, nodes: list[Obj], pods: dict[str, list[Obj]], hashed: str, now: datetime) -> Obj:
    """The status; the oldest pod of a node counts."""
    min_ready = int(daemon_set["spec"].get("minReadySeconds") or 0)
    desired = current = misscheduled = ready = available = updated = 0
    for node in nodes:
        present = pods.get(node["metadata"]["name"], [])
        if not wants_node(daemon_set, node)[0]:
            misscheduled += bool(present)
            continue
        desired += 1
        if not present:
            continue
        current += 1
        pod = min(present, key=lambda item: item["metadata"].get("creationTimestamp") or "")
        ready += is_ready(pod)
        available += is_available(pod, min_ready, now)
        updated += labels(pod).get(HASH_LABEL) == hashed
    status: Obj = {
        "currentNumberScheduled": current,
        "numberMisscheduled": misscheduled,
        "desiredNumberScheduled": desired,
        "numberReady": ready,
        "observedGeneration": daemon_set["metadata"].get("generation", 0),
        "updatedNumberScheduled": updated,
        "numberAvailable": available,
        "numberUnavailable": desired - available,
    }
    always = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
    for name in ("collisionCount", "conditions"):
        if (value := nested(daemon_set, "status", name)) is not None:
            status[name] = value
    return {key: value for key, value in status.items() if value or key in always}


class DaemonSetController(PodOwnerController):
    """The control loop."""

    name = "daemonset-controller"
    account = "daemon-set-controller"
    component = "daemonset-controller"
    workers = 2
    gvr = DAEMON_SETS
    kind = "DaemonSet"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._nodes = context.informers.informer(NODES)
        revisions = context.informers.informer(CONTROLLER_REVISIONS, indexers={"namespace": POD_INDEXERS["namespace"]})
        self._revisions = RevisionKeeper(context.client, revisions, self.gvk)
        self._nodes.add_handler(
            Handler(lambda _, __: self._enqueue_all(), self._node_updated, lambda _: self._enqueue_all())
        )

    def _enqueue_all(self) -> None:
        for daemon_set in self.owners.list():
            self.enqueue(daemon_set)

    def _node_updated(self, old: Obj, node: Obj) -> None:
        """Heartbeats do not matter; labels, taints and cordoning do."""
        if labels(old) != labels(node) or old.get("spec") != node.get("spec"):
            self._enqueue_all()

    async def sync(self, key: str) -> None:
        """See Controller."""
        cached = self.owners.get(key)
        if cached is None:
            self.expectations.forget(key)
            return
        daemon_set = self.typed(cached)
        if self.selector(daemon_set).is_empty() or is_deleting(daemon_set):
            return
        hashed = revision_hash(await self._revisions.current(daemon_set))
        pods = by_node(await self.claim(daemon_set))
        nodes = self._nodes.list()
        failure: Exception | None = None
        if self.expectations.satisfied(key):
            plan = manage(daemon_set, nodes, pods, hashed)
            strategy = nested(daemon_set, "spec", "updateStrategy", "type", default="RollingUpdate")
            if strategy == "RollingUpdate" and not plan.create and not plan.delete:
                plan = roll(daemon_set, nodes, pods, hashed, self.now())
            failure = await self._carry_out(key, daemon_set, plan, hashed)
            live = {labels(pod).get(HASH_LABEL, "") for present in pods.values() for pod in present} | {hashed}
            await self._revisions.truncate(daemon_set, live)
        await self._write_status(daemon_set, daemon_status(daemon_set, nodes, pods, hashed, self.now()))
        min_ready = int(daemon_set["spec"].get("minReadySeconds") or 0)
        waits = [
            wait for listed in pods.values() for pod in listed if (wait := available_in(pod, min_ready, self.now()))
        ]
        if waits:
            self.queue.add_after(key, min(waits) + 0.05)
        if failure is not None:
            raise failure

    async def _carry_out(self, key: str, daemon_set: Obj, plan: Plan, hashed: str) -> Exception | None:
        create, delete = plan.create[:BURST], plan.delete[:BURST]
        if not create and not delete:
            return None
        self.expectations.expect(key, len(create), [pod["metadata"]["uid"] for pod in delete])
        for pod in plan.failed:
            meta = pod["metadata"]
            where = f"Found failed daemon pod {meta['namespace']}/{meta['name']} on node {target_node(pod)}, will try to kill it"
            self.event(daemon_set, "Warning", "FailedDaemonPod", where)
        for pod in delete:
            try:
                await self.control.delete(pod, daemon_set)
            except Exception:
                self.expectations.forget(key)
                raise

        def creation(node: str) -> Obj:
            template = daemon_set["spec"]["template"]
            return daemon_pod(daemon_set, node, pod_from_template(template, daemon_set, self.gvk), hashed)

        made = [creation(node) for node in create]
        successes, failure = await slow_start([lambda pod=pod: self.control.create(pod, daemon_set) for pod in made])  # type: ignore[misc]
        self.expectations.creation_observed(key, len(create) - successes)
        return None if failure is not None and namespace_is_terminating(failure) else failure

    async def _write_status(self, daemon_set: Obj, status: Obj) -> None:
        if status == daemon_set.get("status"):
            return
        try:
            await self.client.update(DAEMON_SETS, {**daemon_set, "status": status}, subresource="status")
        except NotFoundError:
            return
