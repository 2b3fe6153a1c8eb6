"""Leases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.countrules import not_negative
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj

_NOT_YET = ("strategy", "preferredHolder")  # of coordinated leader election, which is off unless it is asked for


class LeaseStrategy(Strategy):
    """A PUT of an absent lease creates it; one without resourceVersion is refused."""

    allow_create_on_update = True
    allow_unconditional_update = False

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        for field in _NOT_YET:
            (obj.get("spec") or {}).pop(field, None)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        self.prepare_for_create(new, ctx)

    def validate(self, obj: Obj) -> list[FieldError]:
        spec, where = obj.get("spec") or {}, path("spec")
        errors: list[FieldError] = []
        duration = spec.get("leaseDurationSeconds")
        if duration is not None and duration <= 0:
            errors.append(fielderrors.invalid(where.child("leaseDurationSeconds"), duration, "must be greater than 0"))
        return errors + not_negative(spec.get("leaseTransitions"), where.child("leaseTransitions"))

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return self.validate(new)


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Holder, Age."""
    return [name_of(obj), (obj.get("spec") or {}).get("holderIdentity") or "", age_of(obj, now)]
