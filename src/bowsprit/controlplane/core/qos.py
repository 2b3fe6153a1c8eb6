"""The quality-of-service class of a pod (upstream pkg/apis/core/helper/qos)."""

from __future__ import annotations

from bowsprit.controlplane.core.podspec import containers_of
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity

_COMPUTE = ("cpu", "memory")


def qos_class(spec: Obj) -> str:
    """Guaranteed, Burstable or BestEffort."""
    pod_level = spec.get("resources")
    holders = [pod_level] if pod_level else [container.get("resources") or {} for container in containers_of(spec)]
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}
    guaranteed = True
    for resources in holders:
        _add(requests, resources.get("requests"))
        found = _add(limits, resources.get("limits"))
        if found != set(_COMPUTE):
            guaranteed = False
    if not requests and not limits:
        return "BestEffort"
    if (
        guaranteed
        and len(requests) == len(limits)
        and all(limits.get(name) == value for name, value in requests.items())
    ):
        return "Guaranteed"
    return "Burstable"


def _add(total: dict[str, Quantity], amounts: Obj | None) -> set[str]:
    found = set()
    for name in _COMPUTE:
        text = (amounts or {}).get(name)
        if text is None:
            continue
        amount = Quantity.parse(text)
        if amount.is_zero():
            continue
        found.add(name)
        total[name] = total[name] + amount if name in total else amount
    return found
