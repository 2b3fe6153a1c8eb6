"""RuntimeClasses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.immutable import immutable_field
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj


class RuntimeClassStrategy(Strategy):
    """The handler cannot change."""

    allow_unconditional_update = False

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return immutable_field(new.get("handler"), old.get("handler"), path("handler"))


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Handler, Age."""
    return [name_of(obj), obj.get("handler", ""), age_of(obj, now)]
