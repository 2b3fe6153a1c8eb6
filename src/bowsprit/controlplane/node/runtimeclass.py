"""RuntimeClasses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.core.affinityrules import toleration_errors
from bowsprit.controlplane.core.resourcerules import requirements_errors
from bowsprit.controlplane.gostructs import go_value
from bowsprit.controlplane.immutable import immutable_field
from bowsprit.controlplane.labelrules import label_errors, name_errors
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_label


class RuntimeClassStrategy(Strategy):
    """The handler cannot change."""

    allow_create_on_update = True
    allow_unconditional_update = False

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return self.validate(new) + immutable_field(new.get("handler"), old.get("handler"), path("handler"))

    def validate(self, obj: Obj) -> list[FieldError]:
        handler, where = obj.get("handler", ""), path("handler")
        errors = name_errors(handler, where, is_dns1123_label) if handler else [fielderrors.required(where)]
        overhead = (obj.get("overhead") or {}).get("podFixed")
        errors += requirements_errors({"limits": overhead}, path("overhead"))
        return errors + self._scheduling(obj.get("scheduling") or {})

    def _scheduling(self, scheduling: Obj) -> list[FieldError]:
        where = path("scheduling")
        errors = label_errors(scheduling.get("nodeSelector"), where.child("nodeSelector"))
        tolerations, place = scheduling.get("tolerations") or [], where.child("tolerations")
        return errors + toleration_errors(tolerations, place) + _repeated(tolerations, place)


def _repeated(tolerations: list[Obj], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[str, ...]] = set()
    for index, toleration in enumerate(tolerations):
        key = tuple(toleration.get(field) or "" for field in ("key", "operator", "value", "effect"))
        if key in seen:
            errors.append(fielderrors.duplicate(where.index(index), go_value("Toleration", toleration)))
        seen.add(key)
    return errors


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Handler, Age."""
    return [name_of(obj), obj.get("handler", ""), age_of(obj, now)]
