"""Rules about what an update may not change."""

from __future__ import annotations

from typing import Any

from bowsprit.controlplane.gostructs import go_value
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj

FIELD_IS_IMMUTABLE = "field is immutable"


def immutable_field(new: Any, old: Any, where: Path) -> list[FieldError]:
    """The value must not change (upstream ValidateImmutableField)."""
    return [] if (new or None) == (old or None) else [fielderrors.invalid(where, new, FIELD_IS_IMMUTABLE)]


def immutable_struct(struct: str, new: Obj | None, old: Obj | None, where: Path) -> list[FieldError]:
    """The same for objects, which messages show as Go's internal struct of that name."""
    shown, before = (go_value(f"*{struct}", each) for each in (new, old))
    return [] if shown == before else [fielderrors.invalid(where, shown, FIELD_IS_IMMUTABLE)]


def frozen_data_errors(new: Obj, old: Obj, fields: tuple[str, ...]) -> list[FieldError]:
    """The data of an object with ``immutable: true`` must not change, nor may that be taken back."""
    if not old.get("immutable"):
        return []
    detail = "field is immutable when `immutable` is set"
    errors = [] if new.get("immutable") else [fielderrors.forbidden(path("immutable"), detail)]
    return errors + [
        fielderrors.forbidden(path(field), detail)
        for field in fields
        if (new.get(field) or {}) != (old.get(field) or {})
    ]
