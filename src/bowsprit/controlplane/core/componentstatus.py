"""ComponentStatuses: the old, read-only view of the control plane's health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import aiohttp

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


_PORTS = {"scheduler": 10259, "controller-manager": 10257}
_DEADLINE = 2.0


async def probe_all(store: Callable[[], Awaitable[object]]) -> list[Obj]:
    """Ask the scheduler and controller manager on this host, and the store, how they are.

    Args:
        store: raises when the store does not answer.
    """
    found = []
    for name, port in _PORTS.items():
        url = f"https://127.0.0.1:{port}/healthz"
        try:
            text = await _get(url)
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            cause = getattr(exc, "os_error", None) or exc
            refused = isinstance(cause, ConnectionRefusedError)
            why = f"dial tcp 127.0.0.1:{port}: connect: connection refused" if refused else str(cause)
            found.append(_status(name, "False", f'Get "{url}": {why}'))
        else:
            found.append(_status(name, "True" if text == "ok" else "False", text))
    try:
        await store()
    except Exception as exc:
        found.append(_status("etcd-0", "False", str(exc)))
    else:
        found.append(_status("etcd-0", "True", "ok"))
    return found


async def _get(url: str) -> str:
    timeout = aiohttp.ClientTimeout(total=_DEADLINE)
    # Self-signed certificates are usual here; nothing secret is sent, and only "ok" is believed.
    async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, ssl=False) as answer:
        return (await answer.content.read(4096)).decode(errors="replace")


def _status(name: str, status: str, message: str) -> Obj:
    condition = {"type": "Healthy", "status": status, "message": message}
    return {"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": [condition]}
