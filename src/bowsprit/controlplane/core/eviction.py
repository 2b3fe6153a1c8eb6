"""``pods/eviction``: deletion that respects PodDisruptionBudgets (upstream pkg/registry/core/pod/storage/eviction.go)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bowsprit.apiserver.collection import Collection
from bowsprit.apiserver.lookup import Listers
from bowsprit.apiserver.request import RequestContext
from bowsprit.controlplane.core.binding import PODS, SUCCESS
from bowsprit.controlplane.storedupdate import update_stored
from bowsprit.machinery.errors import StatusError, bad_request, cause, not_found, too_many_requests, unknown
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, find_condition
from bowsprit.machinery.selectors import LabelSelector

BUDGETS = GroupResource("policy", "poddisruptionbudgets")
_BLOCKED = "Cannot evict pod as it would violate the pod's disruption budget."
_MOST_DISRUPTED = 2000

Delete = Callable[[RequestContext, str, str, Obj], Awaitable[None]]
"""Deletes a pod: context, namespace, name, DeleteOptions."""


class PodEviction:
    """Evicts pods."""

    def __init__(
        self, listers: Listers, pods: Callable[[], Collection], budgets: Callable[[], Collection], delete: Delete
    ) -> None:
        self._listers = listers
        self._pods = pods
        self._budgets = budgets
        self._delete = delete

    async def evict(self, ctx: RequestContext, name: str, body: Obj) -> Obj:
        """Answer an Eviction."""
        namespace = ctx.info.namespace
        if (body.get("metadata") or {}).get("name", "") != name:
            raise bad_request("name in URL does not match name in Eviction object")
        options = body.get("deleteOptions") or {}
        dry_run = ctx.dry_run or options.get("dryRun") == ["All"]
        pod = self._listers(PODS).get(namespace, name)
        if pod is None:
            raise not_found(PODS, name)
        budget = None if _ignores_budgets(pod) else self._budget(pod)
        if budget is not None and not _already_unhealthy(pod, budget):
            await self._take(ctx, pod, budget, dry_run=dry_run)
        if not dry_run:
            if options.get("gracePeriodSeconds") != 0:
                await update_stored(
                    self._pods(), namespace, name, lambda live: _mark_target(live, options, ctx.timestamp)
                )
            await self._delete(ctx, namespace, name, options)
        return dict(SUCCESS)

    def _budget(self, pod: Obj) -> Obj | None:
        meta = pod["metadata"]
        matching = [
            budget
            for budget in self._listers(BUDGETS).list(meta["namespace"])
            if _selects((budget.get("spec") or {}).get("selector"), meta.get("labels") or {})
        ]
        if len(matching) > 1:
            raise unknown(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        return matching[0] if matching else None

    async def _take(self, ctx: RequestContext, pod: Obj, budget: Obj, *, dry_run: bool) -> None:
        """Use one of the allowed disruptions, before the pod goes."""
        name, pod_name = budget["metadata"]["name"], pod["metadata"]["name"]

        def change(current: Obj) -> None:
            check_allowed(current)
            status = current["status"]
            status["disruptionsAllowed"] -= 1
            if status["disruptionsAllowed"] == 0:
                _set_insufficient(current, ctx.timestamp)
            status.setdefault("disruptedPods", {})[pod_name] = ctx.timestamp

        if dry_run:
            check_allowed(budget)
            return
        await update_stored(self._budgets(), budget["metadata"]["namespace"], name, change)


def check_allowed(budget: Obj) -> None:
    """Whether one more pod may go.

    Raises:
        TooManyRequests: not now.
        Forbidden-like failures of upstream for impossible states.
    """
    name, status = budget["metadata"]["name"], budget.get("status") or {}
    if (status.get("observedGeneration") or 0) < (budget["metadata"].get("generation") or 0):
        raise _refusal(f"The disruption budget {name} is still being processed by the server.", 10)
    if (status.get("disruptionsAllowed") or 0) < 0:
        raise _refusal("pdb disruptions allowed is negative", 0)
    if len(status.get("disruptedPods") or ()) > _MOST_DISRUPTED:
        raise _refusal("DisruptedPods map too big - too many evictions not confirmed by PDB controller", 0)
    if not status.get("disruptionsAllowed"):
        needed, healthy = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
        condition = find_condition(budget, "DisruptionAllowed") or {}
        if condition.get("status") == "False" and condition.get("reason") == "SyncFailed":
            message = f"The disruption budget {name} does not allow evicting pods currently because it failed sync: "
            raise _refusal(message + str(condition.get("message", "")), 0)
        raise _refusal(f"The disruption budget {name} needs {needed} healthy pods and has {healthy} currently", 0)


def _refusal(message: str, retry_after: int) -> StatusError:
    return too_many_requests(_BLOCKED, retry_after, causes=[cause("DisruptionBudget", message)])


def _ignores_budgets(pod: Obj) -> bool:
    """Finished, pending and already leaving pods are not protected (upstream canIgnorePDB)."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or bool(pod["metadata"].get("deletionTimestamp"))


def _already_unhealthy(pod: Obj, budget: Obj) -> bool:
    """A pod that is not ready costs nothing when the budget is met without it (KEP-3017)."""
    if (find_condition(pod, "Ready") or {}).get("status") == "True":
        return False
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    needed, healthy = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
    return bool(healthy >= needed > 0)


def _mark_target(pod: Obj, options: Obj, now: str) -> None:
    """Why the pod goes, for its owner to read (KEP-3329). What the client demands of the pod is checked by the deletion."""
    wanted, meta = options.get("preconditions") or {}, pod["metadata"]
    if any(wanted.get(field) not in (None, meta[field]) for field in ("uid", "resourceVersion")):
        return
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": now,
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    conditions = pod.setdefault("status", {}).setdefault("conditions", [])
    conditions[:] = [known for known in conditions if known.get("type") != condition["type"]] + [condition]


def _selects(selector: Obj | None, labels: dict[str, str]) -> bool:
    return selector is not None and LabelSelector.from_obj(selector).matches(labels)


def _set_insufficient(budget: Obj, now: str) -> None:
    condition = {
        "type": "DisruptionAllowed",
        "status": "False",
        "observedGeneration": budget["status"].get("observedGeneration", 0),
        "lastTransitionTime": now,
        "reason": "InsufficientPods",
        "message": "",
    }
    conditions = budget["status"].setdefault("conditions", [])
    for index, known in enumerate(conditions):
        if known.get("type") == "DisruptionAllowed":
            if known.get("status") == "False":
                condition["lastTransitionTime"] = known.get("lastTransitionTime")
            conditions[index] = condition
            return
    conditions.append(condition)
