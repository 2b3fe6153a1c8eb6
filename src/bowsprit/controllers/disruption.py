"""PodDisruptionBudget status: how many pods may be evicted now (upstream pkg/controller/disruption)."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from bowsprit.client.informer import Handler
from bowsprit.client.resources import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
)
from bowsprit.controllers import conditions
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.deployment_rollout import resolve
from bowsprit.controllers.pods import POD_INDEXERS, is_active, is_deleting, is_ready
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.objects import Obj, controller_of, labels, nested
from bowsprit.machinery.selectors import LabelSelector
from bowsprit.machinery.time import parse_time

_DISRUPTION_TIMEOUT = timedelta(minutes=2)


def expected(budget: Obj, pods: list[Obj], scales: dict[str, int | None]) -> tuple[int, int] | str:
    """``(expected pods, desired healthy)``, or why they cannot be told; ``scales`` are by controller uid."""
    spec = budget["spec"]
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if isinstance(least, int):
        return len(pods), least
    if least is None and most is None:
        return len(pods), 0
    unmanaged = [uid for uid, scale in scales.items() if scale is None]
    if unmanaged:
        return "found no controllers with a scale for some pods of the budget"
    total = sum(scale or 0 for scale in scales.values())
    if least is not None:
        return total, resolve(least, total, up=True)
    return total, max(0, total - resolve(most, total, up=True))


def budget_status(budget: Obj, pods: list[Obj], scales: dict[str, int | None], now: datetime) -> Obj:
    """The status that the budget's pods add up to."""
    current: Obj = budget.get("status") or {}
    present = {pod["metadata"]["name"]: pod for pod in pods}
    disrupted = {
        name: since
        for name, since in (current.get("disruptedPods") or {}).items()
        if name in present and not is_deleting(present[name]) and parse_time(since) + _DISRUPTION_TIMEOUT > now
    }
    healthy = sum(
        1 for pod in pods if is_ready(pod) and not is_deleting(pod) and pod["metadata"]["name"] not in disrupted
    )
    generation = budget["metadata"].get("generation", 0)
    outcome = expected(budget, pods, scales)
    status: Obj = {"currentHealthy": healthy, "observedGeneration": generation}
    if isinstance(outcome, str):
        status |= {"disruptionsAllowed": 0, "desiredHealthy": 0, "expectedPods": len(pods)}
        new = conditions.condition("DisruptionAllowed", "False", "SyncFailed", outcome, now)
    else:
        count, desired = outcome
        allowed = max(0, healthy - desired) if count > 0 else 0
        status |= {"disruptionsAllowed": allowed, "desiredHealthy": desired, "expectedPods": count}
        reason = "SufficientPods" if allowed else "InsufficientPods"
        new = conditions.condition("DisruptionAllowed", "True" if allowed else "False", reason, "", now)
    new["observedGeneration"] = generation
    if disrupted:
        status["disruptedPods"] = disrupted
    listed = list(current.get("conditions") or [])
    old = conditions.find(listed, "DisruptionAllowed")
    if old is not None and all(old.get(name) == new[name] for name in ("status", "reason", "observedGeneration")):
        status["conditions"] = listed
    else:
        if old is not None and old["status"] == new["status"]:
            new["lastTransitionTime"] = old["lastTransitionTime"]
        status["conditions"] = [*conditions.without_condition(listed, "DisruptionAllowed"), new]
    return status


class DisruptionController(Controller):
    """Keys are budgets."""

    name = "disruption-controller"
    account = "disruption-controller"
    component = "controllermanager"
    workers = 1

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        informers = context.informers
        self._budgets = informers.informer(POD_DISRUPTION_BUDGETS)
        self._pods = informers.informer(PODS, indexers=POD_INDEXERS)
        self._scalable = {
            "ReplicaSet": informers.informer(REPLICA_SETS),
            "ReplicationController": informers.informer(REPLICATION_CONTROLLERS),
            "StatefulSet": informers.informer(STATEFUL_SETS),
            "Deployment": informers.informer(DEPLOYMENTS),
        }
        self.watch(self._budgets)
        self._pods.add_handler(Handler(lambda pod, _: self._pod(pod), self._pod_updated, self._pod))
        for informer in self._scalable.values():
            informer.add_handler(Handler(on_update=self._scaled))

    def _pod(self, pod: Obj) -> None:
        for budget in self._budgets.list(pod["metadata"]["namespace"]):
            if LabelSelector.from_obj(budget["spec"].get("selector")).matches(labels(pod)):
                self.enqueue(budget)

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        self._pod(pod)
        if labels(old) != labels(pod):
            self._pod(old)

    def _scaled(self, old: Obj, new: Obj) -> None:
        if nested(old, "spec", "replicas") != nested(new, "spec", "replicas"):
            for budget in self._budgets.list(new["metadata"]["namespace"]):
                self.enqueue(budget)

    async def sync(self, key: str) -> None:
        """See Controller."""
        budget = self._budgets.get(key)
        if budget is None:
            return
        budget = {**budget, "apiVersion": "policy/v1", "kind": "PodDisruptionBudget"}
        selector = LabelSelector.from_obj(budget["spec"].get("selector"))
        namespace = budget["metadata"]["namespace"]
        pods = [pod for pod in self._pods.by_index("namespace", namespace) if is_active(pod) or is_deleting(pod)]
        pods = [pod for pod in pods if selector.matches(labels(pod))]
        if not pods:
            self.event(budget, "Normal", "NoPods", "No matching pods found")
        status = budget_status(budget, pods, self._scales(pods), self.now())
        if status.get("disruptedPods"):
            self.queue.add_after(key, _DISRUPTION_TIMEOUT.total_seconds())
        if status != budget.get("status"):
            with suppress(NotFoundError):
                await self.client.update(POD_DISRUPTION_BUDGETS, {**budget, "status": status}, subresource="status")

    def _scales(self, pods: list[Obj]) -> dict[str, int | None]:
        scales: dict[str, int | None] = {}
        for pod in pods:
            owner, reference = pod, controller_of(pod)
            while reference is not None:
                found = self._scalable.get(reference.get("kind") or "")
                above = found.get(f"{pod['metadata']['namespace']}/{reference['name']}") if found else None
                if above is None or above["metadata"]["uid"] != reference["uid"]:
                    break
                owner, reference = above, controller_of(above)
            if owner is pod:
                scales[pod["metadata"]["uid"]] = None
            else:
                replicas = nested(owner, "spec", "replicas")
                scales[owner["metadata"]["uid"]] = 1 if replicas is None else int(replicas)
        return scales
