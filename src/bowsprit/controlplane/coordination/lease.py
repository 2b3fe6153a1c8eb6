"""Leases."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.machinery.objects import Obj


class LeaseStrategy(Strategy):
    """A PUT of an absent lease creates it; one without resourceVersion is refused."""

    allow_create_on_update = True
    allow_unconditional_update = False


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Holder, Age."""
    return [name_of(obj), (obj.get("spec") or {}).get("holderIdentity") or "", age_of(obj, now)]
