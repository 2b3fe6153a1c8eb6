"""ConfigMaps."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.core.datavalidation import config_map_errors
from bowsprit.controlplane.immutable import frozen_data_errors
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj


class ConfigMapStrategy(Strategy):
    """Data, and nothing else."""

    def default(self, obj: Obj) -> None:
        data = obj.get("binaryData") or {}
        data.update({key: "" for key, value in data.items() if value is None})

    def validate(self, obj: Obj) -> list[FieldError]:
        return config_map_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return config_map_errors(new) + frozen_data_errors(new, old, ("data", "binaryData"))


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Data, Age."""
    return [name_of(obj), len(obj.get("data") or ()) + len(obj.get("binaryData") or ()), age_of(obj, now)]
