"""ServiceAccounts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.machinery.objects import Obj


class ServiceAccountStrategy(Strategy):
    """Upstream returns the account that was deleted."""

    deletes_to_object = True


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Age."""
    return [name_of(obj), age_of(obj, now)]
