"""Flags of the cluster file, laid over a component's options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from bowsprit.cluster.errors import ClusterError
from bowsprit.machinery.time import parse_duration

Options = TypeVar("Options")


def with_flags(component: str, options: Options, flags: Mapping[str, Any], known: Sequence[str]) -> Options:
    """The options with the flags' values.

    Args:
        component: its name in the cluster file, for messages.
        options: a dataclass whose fields are named after the flags; a field's present value tells its kind. Numbers with a
            fraction are durations in seconds.
        flags: names without dashes in front, and values as YAML has them.
        known: the flags that may be given.

    Raises:
        ClusterError: an unknown flag, or a value that is not of its kind.
    """
    changes = {}
    for flag, value in flags.items():
        if flag not in known:
            raise ClusterError(
                f"components.{component}.flags: unknown flag: {flag}",
                reason="InvalidConfig",
                hint=f"known flags: {', '.join(sorted(known))}",
            )
        name = flag.replace("-", "_")
        try:
            changes[name] = _converted(getattr(options, name), value)
        except ValueError as exc:
            raise ClusterError(f"components.{component}.flags.{flag}: {exc}", reason="InvalidConfig") from exc
    return dataclasses.replace(options, **changes)  # type: ignore[type-var]


def _converted(present: Any, value: Any) -> Any:
    if isinstance(present, bool):
        if str(value).lower() not in ("true", "false"):
            raise ValueError(f"{value!r} is not true or false")
        return str(value).lower() == "true"
    if isinstance(present, float):
        return parse_duration(str(value)) / 1e9
    if isinstance(present, int):
        return int(value)
    if isinstance(present, tuple):
        parts = value if isinstance(value, list) else str(value).split(",")
        return tuple(str(part).strip() for part in parts)
    return str(value)
