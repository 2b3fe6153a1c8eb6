"""PriorityClasses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.immutable import immutable_field
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
    spec_bumps_generation = False  # the first generation is the only one

    def default(self, obj: Obj) -> None:
        if not obj.get("preemptionPolicy"):
            obj["preemptionPolicy"] = "PreemptLowerPriority"

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = immutable_field(new.get("preemptionPolicy"), old.get("preemptionPolicy"), path("preemptionPolicy"))
        if new.get("value") != old.get("value"):
            errors.append(fielderrors.forbidden(path("value"), "may not be changed in an update."))
        return errors

    def validate_delete(self, obj: Obj, ctx: RequestContext) -> None:
        if name_of(obj).startswith("system-"):
            raise forbidden(
                GroupResource(GROUP, "priorityclasses"),
                name_of(obj),
                "this is a system priority class and cannot be deleted",
            )

    def validate(self, obj: Obj) -> list[FieldError]:
        return priority_class_errors(obj)


_SYSTEM = {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}
_HIGHEST = 1000000000


def priority_class_errors(obj: Obj) -> list[FieldError]:
    """Upstream ValidatePriorityClass."""
    errors: list[FieldError] = []
    name, value = name_of(obj), obj.get("value", 0)
    if name.startswith("system-"):
        if _SYSTEM.get(name) != value:
            known = f"{name} is not a known system priority class"
            if name in _SYSTEM:
                known = f"value of {name} PriorityClass must be {_SYSTEM[name]}"
            detail = f"priority class names with 'system-' prefix are reserved for system use only. error: {known}"
            errors.append(fielderrors.forbidden(path("metadata", "name"), detail))
    elif value > _HIGHEST:
        detail = f"maximum allowed value of a user defined priority is {_HIGHEST}"
        errors.append(fielderrors.forbidden(path("value"), detail))
    policy = obj.get("preemptionPolicy")
    if policy not in (None, "", "PreemptLowerPriority", "Never"):
        errors.append(fielderrors.not_supported(path("preemptionPolicy"), policy, ["PreemptLowerPriority", "Never"]))
    return errors


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Value, Global-Default, Age, PreemptionPolicy."""
    return [
        name_of(obj),
        obj.get("value", 0),
        bool(obj.get("globalDefault")),
        age_of(obj, now),
        obj.get("preemptionPolicy"),
    ]
