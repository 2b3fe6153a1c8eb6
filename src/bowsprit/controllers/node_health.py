"""What a node's heartbeats and conditions mean: readiness, taints, evictions. No I/O.

Upstream: pkg/controller/nodelifecycle, pkg/controller/tainteviction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from bowsprit.controllers.node_fit import tolerates
from bowsprit.machinery.objects import Obj, find_condition, nested
from bowsprit.machinery.time import format_time

NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_PRESSURE = {
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
}
_CONDITION_TAINTS = frozenset({*_PRESSURE.values(), UNSCHEDULABLE})


@dataclass(slots=True)
class Heartbeat:
    """The last sign of life seen (lease and Ready heartbeat together), and when, by our clock, it changed."""

    mark: tuple[str, str]
    at: float


def mark_of(node: Obj, lease: Obj | None) -> tuple[str, str]:
    """What changes with each heartbeat."""
    ready = find_condition(node, "Ready") or {}
    return (str(ready.get("lastHeartbeatTime") or ""), str(nested(lease or {}, "spec", "renewTime", default="")))


def unknown_conditions(node: Obj, now: datetime) -> list[Obj] | None:
    """The conditions of a node that has gone silent; None if they say so already."""
    known = {item["type"]: item for item in nested(node, "status", "conditions", default=())}
    changed = False
    result = list(known.values())
    for type_ in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure"):
        current = known.get(type_)
        if current is not None and current.get("status") == "Unknown":
            continue
        changed = True
        reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
        if current is None:
            reason, message = "NodeStatusNeverUpdated", "Kubelet never posted node status."
        new = {
            "type": type_,
            "status": "Unknown",
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": (current or {}).get("lastHeartbeatTime"),
            "lastTransitionTime": format_time(now),
        }
        result = [item for item in result if item["type"] != type_] + [new]
    return result if changed else None


def wanted_taints(node: Obj, now: datetime) -> list[Obj]:
    """The node's taints with those that its conditions and cordoning call for, and without those they no longer do."""
    current = nested(node, "spec", "taints", default=[])
    conditions = {(item["type"], item.get("status")) for item in nested(node, "status", "conditions", default=())}
    wanted: dict[tuple[str, str], Obj] = {}
    for condition, key in _PRESSURE.items():
        if condition in conditions:
            wanted[key, "NoSchedule"] = {"key": key, "effect": "NoSchedule"}
            if key in (NOT_READY, UNREACHABLE):
                wanted[key, "NoExecute"] = {"key": key, "effect": "NoExecute", "timeAdded": format_time(now)}
    if nested(node, "spec", "unschedulable"):
        wanted[UNSCHEDULABLE, "NoSchedule"] = {"key": UNSCHEDULABLE, "effect": "NoSchedule"}
    result = []
    for taint in current:
        name = (taint["key"], taint["effect"])
        ours = taint["key"] in _CONDITION_TAINTS and taint["effect"] in ("NoSchedule", "NoExecute")
        if not ours:
            result.append(taint)
        elif name in wanted:
            result.append(taint)
            del wanted[name]
    return [*result, *wanted.values()]


def eviction_delay(pod: Obj, taints: Iterable[Obj]) -> float | None:
    """Seconds after which NoExecute taints evict the pod: 0 at once, None never (upstream getMinTolerationTime)."""
    tolerations = pod["spec"].get("tolerations") or ()
    delays: list[float] = []
    for taint in taints:
        if taint.get("effect") != "NoExecute":
            continue
        covering = [item for item in tolerations if tolerates(item, taint)]
        if not covering:
            return 0.0
        delays += [float(item["tolerationSeconds"]) for item in covering if item.get("tolerationSeconds") is not None]
    return max(0.0, min(delays)) if delays else None
