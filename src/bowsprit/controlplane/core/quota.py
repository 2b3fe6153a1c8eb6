"""ResourceQuotas and LimitRanges."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.core.quotavalidation import limit_range_errors, quota_errors, quota_update_errors
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj


class QuotaStrategy(StatusedStrategy):
    """Quotas have no generation."""

    deletes_to_object = True
    has_generation = False

    def validate(self, obj: Obj) -> list[FieldError]:
        return quota_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return quota_update_errors(new, old)


class LimitRangeStrategy(Strategy):
    """Defaults follow from limits (upstream SetDefaults_LimitRangeItem)."""

    allow_create_on_update = True

    def default(self, obj: Obj) -> None:
        for item in (obj.get("spec") or {}).get("limits") or ():
            if item.get("type") != "Container":
                continue
            default = item.setdefault("default", {})
            for name, value in (item.get("max") or {}).items():
                default.setdefault(name, value)
            request = item.setdefault("defaultRequest", {})
            for source in (default, item.get("min") or {}):
                for name, value in source.items():
                    request.setdefault(name, value)
            for field in ("default", "defaultRequest"):
                if not item[field]:
                    del item[field]

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["metadata"]["name"] = obj["metadata"].get("name") or str(uuid4())  # the only kind that needs no name

    def validate(self, obj: Obj) -> list[FieldError]:
        return limit_range_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return limit_range_errors(new)


def quota_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Request, Limit, Age."""
    status = obj.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    names = sorted(hard)
    texts = {name: f"{name}: {used.get(name, '0')}/{hard[name]}" for name in names}
    requests = ", ".join(texts[name] for name in names if not name.startswith("limits."))
    limits = ", ".join(texts[name] for name in names if name.startswith("limits."))
    return [name_of(obj), requests, limits, age_of(obj, now)]


def limit_range_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Created At."""
    return [name_of(obj), obj["metadata"].get("creationTimestamp", "")]
