"""ComponentStatuses: the old, read-only view of the control plane's health."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.controlplane.printing import name_of
from bowsprit.machinery.objects import Obj


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Status, Message, Error."""
    status, message, error = "Unknown", "", ""
    for condition in obj.get("conditions") or ():
        if condition.get("type") == "Healthy":
            status = "Healthy" if condition.get("status") == "True" else "Unhealthy"
            message, error = condition.get("message", ""), condition.get("error", "")
    return [name_of(obj), status, message, error]
