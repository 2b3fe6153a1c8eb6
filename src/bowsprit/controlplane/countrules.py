"""Rules for counts and int-or-percent values."""

from __future__ import annotations

from typing import Any

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.validation import is_valid_percent

NOT_NEGATIVE = "must be greater than or equal to 0"


def not_negative(value: int | None, where: Path) -> list[FieldError]:
    """A count that may be absent."""
    return [fielderrors.invalid(where, value, NOT_NEGATIVE)] if value is not None and value < 0 else []


def count_or_percent(value: int | str | None, where: Path) -> list[FieldError]:
    """A number that is not negative, or a percentage of any size."""
    if isinstance(value, str):
        return [fielderrors.invalid(where, value, text) for text in is_valid_percent(value)]
    return not_negative(value, where)


def at_most_all(value: int | str | None, where: Path) -> list[FieldError]:
    """A percentage may not be above 100."""
    if isinstance(value, str) and not is_valid_percent(value) and int(value.removesuffix("%")) > 100:
        return [fielderrors.invalid(where, value, "must not be greater than 100%")]
    return []


def is_zero(value: Any) -> bool:
    """0 or 0%."""
    return value in (0, "0%")


def one_of(value: Any, supported: list[str], where: Path, *, required: bool = True) -> list[FieldError]:
    """An enumeration."""
    if value in (None, ""):
        return [fielderrors.required(where)] if required else []
    return [] if value in supported else [fielderrors.not_supported(where, value, supported)]
