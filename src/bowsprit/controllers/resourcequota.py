"""ResourceQuota status: the limits in force and what is used of them (upstream pkg/controller/resourcequota).

Admission charges a quota when something is created; this controller counts anew when something goes.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from bowsprit.client.informer import Handler, Informer
from bowsprit.client.resources import PERSISTENT_VOLUME_CLAIMS, PODS, RESOURCE_QUOTAS, SERVICES
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.pods import POD_INDEXERS, phase
from bowsprit.controlplane.admission.quota_usage import evaluator_for, quota_matches
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.names import GroupResource, GroupVersionResource
from bowsprit.machinery.objects import Obj, nested
from bowsprit.machinery.quantity import Quantity

_RESYNC = 300.0
_WHOLE = {gvr.gr: gvr for gvr in (PODS, SERVICES, PERSISTENT_VOLUME_CLAIMS)}
_PLAIN = ("configmaps", "secrets", "replicationcontrollers", "resourcequotas")


def limited_resources(quota: Obj) -> set[GroupResource]:
    """The resources that a quota's names are about."""
    found: set[GroupResource] = set()
    for name in nested(quota, "spec", "hard", default={}):
        if name.startswith("count/"):
            found.add(GroupResource.parse(name.removeprefix("count/")))
        elif name in _PLAIN:
            found.add(GroupResource("", name))
        else:
            found |= {resource for resource in _WHOLE if evaluator_for(resource).covers(name)}
    return found


def used(quota: Obj, objects: dict[GroupResource, list[Obj]]) -> dict[str, str]:
    """What the objects of the quota's namespace add up to, for every name that the quota limits."""
    totals = dict.fromkeys(nested(quota, "spec", "hard", default={}), Quantity.of(0))
    for resource, items in objects.items():
        evaluator = evaluator_for(resource)
        for item in items:
            if not quota_matches(quota, resource, item):
                continue
            for name, amount in evaluator.usage(item).items():
                if name in totals and evaluator.covers(name):
                    totals[name] = totals[name] + amount
    return {name: str(total) for name, total in totals.items()}


class ResourceQuotaController(Controller):
    """Keys are quotas. Kinds are followed from the moment a quota limits them."""

    name = "resourcequota-controller"
    account = "resourcequota-controller"
    workers = 2

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._quotas = context.informers.informer(RESOURCE_QUOTAS)
        self._followed: dict[GroupResource, Informer] = {}
        self.watch(self._quotas)

    async def sync(self, key: str) -> None:
        """See Controller."""
        quota = self._quotas.get(key)
        if quota is None:
            return
        objects: dict[GroupResource, list[Obj]] = {}
        for resource in limited_resources(quota):
            informer = await self._follow(resource)
            if informer is not None:
                objects[resource] = informer.list(quota["metadata"]["namespace"])
        hard = nested(quota, "spec", "hard", default={})
        status = {"hard": hard, "used": used(quota, objects)}
        self.queue.add_after(key, _RESYNC)
        if status != (quota.get("status") or {}):
            body = {**quota, "apiVersion": "v1", "kind": "ResourceQuota", "status": status}
            with suppress(NotFoundError):
                await self.client.update(RESOURCE_QUOTAS, body, subresource="status")

    async def _follow(self, resource: GroupResource) -> Informer | None:
        """The informer of a resource; None if the server has no such resource (now)."""
        if resource not in self._followed:
            gvr = _WHOLE.get(resource) or await self._find(resource)
            if gvr is None:
                return None
            indexers = {"namespace": POD_INDEXERS["namespace"]}
            whole = resource in _WHOLE
            informer = self.context.informers.informer(gvr, metadata_only=not whole, indexers=indexers)
            informer.add_handler(Handler(on_update=self._updated if whole else None, on_delete=self._gone))
            self._followed[resource] = informer
        await self._followed[resource].wait_synced(30)
        return self._followed[resource]

    async def _find(self, resource: GroupResource) -> GroupVersionResource | None:
        for found in (await self.context.discovery.resources()).preferred():
            if found.gvr.gr == resource and found.namespaced and {"list", "watch"} <= found.verbs:
                return found.gvr
        return None

    def _updated(self, old: Obj, new: Obj) -> None:
        """A pod that finishes, or an object whose size changed, frees or takes something."""
        if old["spec"] != new["spec"] or phase(old) != phase(new):
            self._gone(new)

    def _gone(self, obj: Obj) -> None:
        self._enqueue_all(self._quotas.list(obj["metadata"]["namespace"]))

    def _enqueue_all(self, quotas: Iterable[Obj]) -> None:
        for quota in quotas:
            self.enqueue(quota)
