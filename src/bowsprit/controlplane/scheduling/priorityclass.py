"""PriorityClasses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.machinery import fielderrors
from bowsprit.machinery.errors import forbidden
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj

GROUP = "scheduling.k8s.io"


class PriorityClassStrategy(Strategy):
    """Value and preemption policy cannot change; the system's classes cannot go."""

    has_generation = True

    def default(self, obj: Obj) -> None:
        if not obj.get("preemptionPolicy"):
            obj["preemptionPolicy"] = "PreemptLowerPriority"

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return [
            fielderrors.forbidden(path(field), "may not be changed in an update.")
            for field in ("value", "preemptionPolicy")
            if new.get(field) != old.get(field)
        ]

    def validate_delete(self, obj: Obj, ctx: RequestContext) -> None:
        if name_of(obj).startswith("system-"):
            raise forbidden(
                GroupResource(GROUP, "priorityclasses"),
                name_of(obj),
                "this is a system priority class and cannot be deleted",
            )


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Value, Global-Default, Age, PreemptionPolicy."""
    return [
        name_of(obj),
        obj.get("value", 0),
        bool(obj.get("globalDefault")),
        age_of(obj, now),
        obj.get("preemptionPolicy"),
    ]
