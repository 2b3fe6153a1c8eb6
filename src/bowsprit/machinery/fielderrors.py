"""Errors that name a field, and paths to fields, with upstream's texts.

Upstream: k8s.io/apimachinery/pkg/util/validation/field. `str(error)` is what clients see inside an Invalid status.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bowsprit.machinery import goformat


class Path:
    """A path to a field, printed as `spec.containers[0].env[A]`. Immutable; the same object may be extended many times."""

    __slots__ = ("_parent", "_text")

    def __init__(self, text: str, parent: Path | None = None):
        self._text = text
        self._parent = parent

    def child(self, *names: str) -> Path:
        node = self
        for name in names:
            node = Path(f".{name}", node)
        return node

    def index(self, position: int) -> Path:
        return Path(f"[{position}]", self)

    def key(self, key: str) -> Path:
        return Path(f"[{key}]", self)

    def __str__(self) -> str:
        parts: list[str] = []
        node: Path | None = self
        while node is not None:
            parts.append(node._text)
            node = node._parent
        parts.reverse()
        text = "".join(parts)
        # A path that begins with an empty root has no leading dot, as in upstream, where the root is nil.
        return text.removeprefix(".") if parts[0] == "" else text

    def __repr__(self) -> str:
        return f"Path({str(self)!r})"


def path(name: str = "", *more: str) -> Path:
    """The path that begins with a field name; `path()` is the root, whose children print without a leading dot."""
    return Path(name).child(*more)


class ErrorType(Enum):
    """What is wrong, as (reason of the status cause, text in the message)."""

    NOT_FOUND = ("FieldValueNotFound", "Not found")
    REQUIRED = ("FieldValueRequired", "Required value")
    DUPLICATE = ("FieldValueDuplicate", "Duplicate value")
    INVALID = ("FieldValueInvalid", "Invalid value")
    NOT_SUPPORTED = ("FieldValueNotSupported", "Unsupported value")
    FORBIDDEN = ("FieldValueForbidden", "Forbidden")
    TOO_LONG = ("FieldValueTooLong", "Too long")
    TOO_MANY = ("FieldValueTooMany", "Too many")
    INTERNAL = ("InternalError", "Internal error")
    TYPE_INVALID = ("FieldValueTypeInvalid", "Invalid value")

    @property
    def reason(self) -> str:
        return self.value[0]

    @property
    def text(self) -> str:
        return self.value[1]


class _Omit:
    """Marks a bad value that is not shown (upstream's omitValue)."""

    def __repr__(self) -> str:
        return "OMIT"


OMIT = _Omit()
_WITHOUT_VALUE = frozenset({ErrorType.REQUIRED, ErrorType.FORBIDDEN, ErrorType.TOO_LONG, ErrorType.INTERNAL})


@dataclass(frozen=True, slots=True)
class FieldError:
    """One problem with one field. `bad_value` is any JSON value, or OMIT."""

    type: ErrorType
    field: str
    bad_value: Any
    detail: str

    def error_body(self) -> str:
        """The message without the field, as it stands in a status cause."""
        if self.type in _WITHOUT_VALUE or self.bad_value is OMIT:
            text = self.type.text
        else:
            text = f"{self.type.text}: {_value_text(self.bad_value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.field}: {self.error_body()}"


def _value_text(bad_value: Any) -> str:
    if isinstance(bad_value, str):
        return goformat.quote(bad_value)
    if isinstance(bad_value, float):
        return goformat.float_text(bad_value)
    return goformat.json_text(bad_value)


Where = Path | str | None
"""Where an error is: None prints `<nil>`, as upstream does for a nil path."""


def _where(where: Where) -> str:
    return "<nil>" if where is None else str(where)


def required(where: Where, detail: str = "") -> FieldError:
    return FieldError(ErrorType.REQUIRED, _where(where), "", detail)


def invalid(where: Where, value: Any, detail: str) -> FieldError:
    return FieldError(ErrorType.INVALID, _where(where), value, detail)


def type_invalid(where: Where, value: Any, detail: str) -> FieldError:
    return FieldError(ErrorType.TYPE_INVALID, _where(where), value, detail)


def duplicate(where: Where, value: Any) -> FieldError:
    return FieldError(ErrorType.DUPLICATE, _where(where), value, "")


def not_found(where: Where, value: Any) -> FieldError:
    return FieldError(ErrorType.NOT_FOUND, _where(where), value, "")


def forbidden(where: Where, detail: str) -> FieldError:
    return FieldError(ErrorType.FORBIDDEN, _where(where), "", detail)


def internal(where: Where, detail: str) -> FieldError:
    return FieldError(ErrorType.INTERNAL, _where(where), None, detail)


def not_supported(where: Where, value: Any, valid: Sequence[str]) -> FieldError:
    """`valid` is listed in the given order: upstream's callers sort it themselves."""
    detail = "supported values: " + ", ".join(goformat.quote(item) for item in valid) if valid else ""
    return FieldError(ErrorType.NOT_SUPPORTED, _where(where), value, detail)


def too_long(where: Where, max_length: int) -> FieldError:
    """More bytes than `max_length`; a negative limit is not told."""
    if max_length < 0:
        detail = "value is too long"
    else:
        detail = f"may not be more than {max_length} {'byte' if max_length == 1 else 'bytes'}"
    return FieldError(ErrorType.TOO_LONG, _where(where), "", detail)


def too_many(where: Where, actual: int, maximum: int) -> FieldError:
    """More items than `maximum`; a negative number (of either) is not told."""
    if maximum < 0:
        detail = "has too many items"
    else:
        detail = f"must have at most {maximum} {'item' if maximum == 1 else 'items'}"
    return FieldError(ErrorType.TOO_MANY, _where(where), OMIT if actual < 0 else actual, detail)


def aggregate(errors: Iterable[FieldError]) -> str:
    """All messages in one: as is when there is one, else `[a, b]`; equal ones are told once (upstream ToAggregate)."""
    texts = list(dict.fromkeys(map(str, errors)))
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
