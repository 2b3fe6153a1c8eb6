"""How long ago, as kubectl and the API server print ages (upstream k8s.io/apimachinery/pkg/util/duration)."""

from __future__ import annotations

from datetime import datetime

from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.time import parse_time

UNKNOWN = "<unknown>"
_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


def human_duration(seconds: float) -> str:
    """``5s``, ``3m10s``, ``2h``, ``4d3h``, ``1y40d``: two digits of precision, growing coarser with age."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    total = max(total, 0)
    for limit, unit, name, part, part_name in (
        (2 * _MINUTE, 1, "s", 0, ""),
        (10 * _MINUTE, _MINUTE, "m", 1, "s"),
        (3 * _HOUR, _MINUTE, "m", 0, ""),
        (8 * _HOUR, _HOUR, "h", _MINUTE, "m"),
        (2 * _DAY, _HOUR, "h", 0, ""),
        (8 * _DAY, _DAY, "d", _HOUR, "h"),
        (2 * _YEAR, _DAY, "d", 0, ""),
        (8 * _YEAR, _YEAR, "y", _DAY, "d"),
    ):
        if total < limit:
            whole, rest = divmod(total, unit)
            smaller = rest // part if part else 0
            return f"{whole}{name}{smaller}{part_name}" if smaller else f"{whole}{name}"
    return f"{total // _YEAR}y"


def age(timestamp: str | None, now: datetime) -> str:
    """The time since a metav1.Time, ``<unknown>`` without one (upstream translateTimestampSince)."""
    if not timestamp:
        return UNKNOWN
    try:
        moment = parse_time(timestamp)
    except DecodeError:
        return UNKNOWN
    return human_duration((now - moment).total_seconds())


def until(timestamp: str | None, now: datetime) -> str:
    """The time until a metav1.Time (upstream translateTimestampUntil)."""
    if not timestamp:
        return UNKNOWN
    try:
        moment = parse_time(timestamp)
    except DecodeError:
        return UNKNOWN
    return human_duration((moment - now).total_seconds())
