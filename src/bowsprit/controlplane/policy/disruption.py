"""PodDisruptionBudgets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.controlplane.countrules import not_negative
from bowsprit.controlplane.policy.validation import budget_errors
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.controlplane.statused import StatusedStrategy, StatusStrategy
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_valid_path_segment_name


class DisruptionBudgetStrategy(StatusedStrategy):
    """The main endpoint."""

    allow_unconditional_update = False

    def validate_name(self, name: str) -> list[str]:
        return is_valid_path_segment_name(name)

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}

    def validate(self, obj: Obj) -> list[FieldError]:
        return budget_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return budget_errors(new)


class DisruptionBudgetStatusStrategy(StatusStrategy):
    """``/status``: counts are not negative."""

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        status, where = new.get("status") or {}, path("status")
        errors: list[FieldError] = []
        for field in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
            errors += not_negative(status.get(field, 0), where.child(field))
        return errors


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Min Available, Max Unavailable, Allowed Disruptions, Age."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}

    def shown(field: str) -> str:
        return "N/A" if spec.get(field) is None else str(spec[field])

    return [
        name_of(obj),
        shown("minAvailable"),
        shown("maxUnavailable"),
        status.get("disruptionsAllowed", 0),
        age_of(obj, now),
    ]
