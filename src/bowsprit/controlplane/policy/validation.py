"""Rules for PodDisruptionBudgets."""

from __future__ import annotations

from bowsprit.controlplane.countrules import at_most_all, count_or_percent, one_of
from bowsprit.controlplane.labelrules import selector_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj


def budget_errors(obj: Obj) -> list[FieldError]:
    """A PodDisruptionBudget."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        fields = {"MinAvailable": "minAvailable", "Selector": "selector", "MaxUnavailable": "maxUnavailable"}
        shown = {go: spec.get(name) for go, name in fields.items()}
        shown["UnhealthyPodEvictionPolicy"] = spec.get("unhealthyPodEvictionPolicy")
        errors.append(fielderrors.invalid(where, shown, "minAvailable and maxUnavailable cannot be both set"))
    for field in ("minAvailable", "maxUnavailable"):
        value = spec.get(field)
        errors += count_or_percent(value, where.child(field)) + at_most_all(value, where.child(field))
    supported = ["AlwaysAllow", "IfHealthyBudget"]
    place = where.child("unhealthyPodEvictionPolicy")
    errors += one_of(spec.get("unhealthyPodEvictionPolicy"), supported, place, required=False)
    return errors + selector_errors(spec.get("selector"), where.child("selector"))
