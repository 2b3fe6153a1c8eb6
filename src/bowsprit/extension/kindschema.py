"""How objects of one version of a kind are read and judged: the structural schema first, then the model, then the author.

The schema gives upstream's texts for all that it can say; the model's own validators and what a schema cannot say come
next, translated into the same field errors; the functions that the author registered with `App.validate` come last, and see
only objects that fit their model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from bowsprit.extension.kind import Kind, parse
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.schema import CustomResourceSchema

Judge = Callable[[type[Kind], Kind, Obj | None], list[FieldError]]
"""The author's validation: the class, the new object, and the old one as it is stored."""

_TYPES = ("_type", "_parsing", "_from_float")


class KindSchema(CustomResourceSchema):
    """See the module's docstring; apiserver's TypeSchema."""

    def __init__(
        self,
        openapi: Obj,
        scale: Obj | None,
        selectable: Sequence[Obj],
        model: type[Kind],
        judge: Judge,
        gvk: GroupVersionKind,
    ) -> None:
        super().__init__(openapi, scale, selectable)
        self.model = model
        self.gvk = gvk
        self._judge = judge

    def validate(self, obj: Obj, old: Obj | None = None) -> list[FieldError]:
        """All that is wrong, of the first judge that finds anything."""
        errors = super().validate(obj, old)
        if errors:
            return errors
        try:
            new_model = parse(self.model, obj)
        except ValidationError as failure:
            return model_errors(failure, obj)
        return self._judge(self.model, new_model, old)

    def shape_errors(self, obj: Obj) -> list[FieldError]:
        """What keeps an object from being its model."""
        errors = super().validate(obj, None)
        if errors:
            return errors
        try:
            parse(self.model, obj)
        except ValidationError as failure:
            return model_errors(failure, obj)
        return []


def model_errors(failure: ValidationError, obj: Obj) -> list[FieldError]:
    """A model's complaints as field errors."""
    return [
        _error(error["type"], error["msg"], _steps(error["loc"], obj)) for error in failure.errors(include_url=False)
    ]


def _steps(loc: Iterable[int | str], obj: Any) -> tuple[Path | None, Any]:
    """(the path, the value there): pydantic also names the alternatives of unions, which are no fields."""
    place: Path | None = None
    value = obj
    for step in loc:
        if isinstance(step, int) and isinstance(value, list) and step < len(value):
            place, value = (place or path()).index(step), value[step]
        elif isinstance(step, str) and isinstance(value, dict):
            place = path(step) if place is None else place.child(step)
            value = value.get(step, fielderrors.OMIT)
    return place, value


def _error(sort: str, message: str, where: tuple[Path | None, Any]) -> FieldError:
    place, value = where
    if sort == "missing" or value is fielderrors.OMIT:
        return fielderrors.required(place, "")
    for prefix in ("Value error, ", "Assertion failed, "):
        message = message.removeprefix(prefix)
    shown: Any = "object" if isinstance(value, dict) else "array" if isinstance(value, list) else value
    if sort.endswith(_TYPES):
        return fielderrors.type_invalid(place, shown, message)
    return fielderrors.invalid(place, shown, message)
