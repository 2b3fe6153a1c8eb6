"""ClusterRoles with an aggregationRule get the rules of those it selects (upstream clusterroleaggregation)."""

from __future__ import annotations

from collections.abc import Iterable

from bowsprit.client.resources import CLUSTER_ROLES
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.machinery.objects import Obj, labels, nested
from bowsprit.machinery.selectors import LabelSelector


def aggregated_rules(role: Obj, roles: Iterable[Obj]) -> list[Obj]:
    """The union of the selected roles' rules: by role name within each selector, each rule once."""
    rules: list[Obj] = []
    ordered = sorted(roles, key=lambda item: item["metadata"]["name"])
    for selector in nested(role, "aggregationRule", "clusterRoleSelectors", default=()):
        wanted = LabelSelector.from_obj(selector)
        for other in ordered:
            if other["metadata"]["name"] != role["metadata"]["name"] and wanted.matches(labels(other)):
                rules.extend(rule for rule in other.get("rules") or () if rule not in rules)
    return rules


class ClusterRoleAggregationController(Controller):
    """Every change of any role may change every aggregating one: there are few of those."""

    name = "clusterrole-aggregation-controller"
    account = "clusterrole-aggregation-controller"
    workers = 1

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._roles = context.informers.informer(CLUSTER_ROLES)
        self.watch(self._roles, lambda _: self._enqueue_aggregating())

    def _enqueue_aggregating(self) -> None:
        for role in self._roles.list():
            if role.get("aggregationRule"):
                self.enqueue(role)

    async def sync(self, key: str) -> None:
        """See Controller."""
        role = self._roles.get(key)
        if role is None or not role.get("aggregationRule"):
            return
        rules = aggregated_rules(role, self._roles.list())
        if rules == (role.get("rules") or []):
            return
        applied = {
            "apiVersion": CLUSTER_ROLES.api_version,
            "kind": "ClusterRole",
            "metadata": {"name": key},
            "rules": rules,
        }
        await self.client.apply(CLUSTER_ROLES, applied, field_manager=self.name, force=True)
