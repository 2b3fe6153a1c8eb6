"""How upstream judges lists and maps of the resource group: the size first, then each entry, then that none is there twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path

T = TypeVar("T")
_SHORTEST_CUT = 16


def list_errors(
    items: Sequence[T],
    where: Path,
    judge: Callable[[T, Path], list[FieldError]],
    *,
    most: int | None = None,
    key: Callable[[T], Any] | None = None,
) -> list[FieldError]:
    """Args:
    most: how many there may be; entries of a longer list are not looked at.
    key: what must differ between the entries.
    """
    if most is not None and len(items) > most:
        return [fielderrors.too_many(where, len(items), most)]
    errors = [error for index, item in enumerate(items) for error in judge(item, where.index(index))]
    if key is None:
        return errors
    seen: set[Any] = set()
    for index, item in enumerate(items):
        shown = key(item)
        if shown in seen:
            errors.append(fielderrors.duplicate(where.index(index), shown))
        seen.add(shown)
    return errors


def map_errors(
    items: Mapping[str, T],
    where: Path,
    judge_key: Callable[[str, Path], list[FieldError]],
    judge: Callable[[T, Path], list[FieldError]],
    *,
    longest_key: int,
    most: int | None = None,
) -> list[FieldError]:
    """Keys beyond `longest_key` are cut in the paths of errors."""
    if most is not None and len(items) > most:
        return [fielderrors.too_many(where, len(items), most)]
    errors: list[FieldError] = []
    for name, item in sorted(items.items()):
        errors += judge_key(name, where)
        errors += judge(item, where.key(_cut(name, max(longest_key, _SHORTEST_CUT))))
    return errors


def _cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    left = length - len("...")
    return f"{text[: (left + 1) // 2]}...{text[len(text) - left // 2 :]}"
