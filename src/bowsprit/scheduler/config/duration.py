"""Durations of configurations: Go's text form, in seconds."""

from __future__ import annotations

from bowsprit.machinery.time import parse_duration


def seconds(value: str | int | float) -> float:
    """`15s` -> 15.0; a number is seconds already."""
    return parse_duration(value) / 1e9 if isinstance(value, str) else float(value)
