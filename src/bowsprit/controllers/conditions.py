"""Status conditions: setting one keeps the time of its last transition unless the status changes."""

from __future__ import annotations

from datetime import datetime

from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import format_time


def condition(type_: str, status: str, reason: str, message: str, now: datetime, **extra: str) -> Obj:
    """A condition that changes now."""
    return {
        "type": type_,
        "status": status,
        "lastTransitionTime": format_time(now),
        "reason": reason,
        "message": message,
        **extra,
    }


def find(conditions: list[Obj], type_: str) -> Obj | None:
    """The condition of a type."""
    return next((item for item in conditions if item.get("type") == type_), None)


def with_condition(conditions: list[Obj], new: Obj) -> list[Obj]:
    """The list with ``new`` in it: as it was when status and reason are the same, else replaced at the end."""
    current = find(conditions, new["type"])
    if current is not None and (current.get("status"), current.get("reason")) == (new["status"], new["reason"]):
        return conditions
    if current is not None and current.get("status") == new["status"]:
        new = {**new, "lastTransitionTime": current.get("lastTransitionTime")}
    return [*without_condition(conditions, new["type"]), new]


def without_condition(conditions: list[Obj], type_: str) -> list[Obj]:
    """The list without a type."""
    return [item for item in conditions if item.get("type") != type_]
