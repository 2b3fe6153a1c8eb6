"""Secrets."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.core.datavalidation import secret_errors
from bowsprit.controlplane.immutable import frozen_data_errors, immutable_field
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj


class SecretStrategy(Strategy):
    """stringData is written into data and never stored."""

    def default(self, obj: Obj) -> None:
        _merge_string_data(obj)
        data = obj.get("data") or {}
        data.update({key: "" for key, value in data.items() if value is None})
        if not obj.get("type"):
            obj["type"] = "Opaque"

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        if not new.get("type"):
            new["type"] = old.get("type", "Opaque")

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return [
            *immutable_field(new.get("type"), old.get("type"), path("type")),
            *frozen_data_errors(new, old, ("data",)),
            *secret_errors(new),
        ]

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset({"type"})

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"type": obj.get("type") or ""}

    def validate(self, obj: Obj) -> list[FieldError]:
        return secret_errors(obj)


def _merge_string_data(obj: Obj) -> None:
    """Upstream's conversion of a Secret."""
    texts = obj.pop("stringData", None)
    if texts:
        data = obj.setdefault("data", {})
        for key, text in texts.items():
            data[key] = base64.b64encode(text.encode()).decode()


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Type, Data, Age."""
    return [name_of(obj), obj.get("type", ""), len(obj.get("data") or ()), age_of(obj, now)]
