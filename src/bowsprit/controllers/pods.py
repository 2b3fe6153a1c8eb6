"""Questions about pods that several controllers ask (upstream pkg/api/v1/pod and controller_utils)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bowsprit.machinery import objects
from bowsprit.machinery.objects import Obj, find_condition, nested, owner_references
from bowsprit.machinery.time import parse_time

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # k8s.io/apimachinery/pkg/util/rand


def is_active(pod: Obj) -> bool:
    """Neither finished nor being deleted."""
    return phase(pod) not in ("Succeeded", "Failed") and not is_deleting(pod)


def is_deleting(obj: Obj) -> bool:
    """Whether the object has a deletionTimestamp."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def phase(pod: Obj) -> str:
    """``status.phase``."""
    return str(nested(pod, "status", "phase", default=""))


def is_ready(pod: Obj) -> bool:
    """Whether the Ready condition is True."""
    condition = find_condition(pod, "Ready")
    return condition is not None and condition.get("status") == "True"


def available_in(pod: Obj, min_ready_seconds: int, now: datetime) -> float | None:
    """0 if the pod is available, the seconds until it will be if it stays ready, None if it is not ready."""
    condition = find_condition(pod, "Ready")
    if condition is None or condition.get("status") != "True":
        return None
    if not min_ready_seconds:
        return 0.0
    since = condition.get("lastTransitionTime")
    if not since:
        return None
    return max(0.0, min_ready_seconds - (now - parse_time(since)).total_seconds())


def is_available(pod: Obj, min_ready_seconds: int, now: datetime) -> bool:
    """Ready for at least ``min_ready_seconds``."""
    return available_in(pod, min_ready_seconds, now) == 0.0


def restarts(pod: Obj) -> int:
    """The largest restart count of its containers."""
    statuses = nested(pod, "status", "containerStatuses", default=())
    return max((int(status.get("restartCount") or 0) for status in statuses), default=0)


def deletion_rank(pod: Obj, colocated: Mapping[str, int] | None = None) -> tuple[Any, ...]:
    """Sort key: what to delete first when scaling down comes first (upstream ActivePodsWithRanks).

    Unassigned, pending, not ready, cheap to delete, doubled up on its node (``colocated``: pods per node), ready for a
    short time, often restarted, young.
    """
    node = nested(pod, "spec", "nodeName", default="")
    condition = find_condition(pod, "Ready") or {}
    ready = condition.get("status") == "True"
    try:
        cost = int(objects.annotations(pod).get(DELETION_COST, "0"))
    except ValueError:
        cost = 0
    return (
        bool(node),
        {"Pending": 0, "Unknown": 1, "Running": 2}.get(phase(pod), 2),
        ready,
        cost,
        -(colocated or {}).get(node, 0),
        _newest_first(condition.get("lastTransitionTime") if ready else None),
        -restarts(pod),
        _newest_first(pod["metadata"].get("creationTimestamp")),
    )


def _newest_first(stamp: str | None) -> float:
    return -parse_time(stamp).timestamp() if stamp else float("-inf")


def owner_uids(obj: Obj) -> list[str]:
    """Index function: the uid of the controlling owner."""
    return [reference["uid"] for reference in owner_references(obj) if reference.get("controller")]


def node_names(pod: Obj) -> list[str]:
    """Index function: the node the pod is bound to."""
    name = nested(pod, "spec", "nodeName")
    return [name] if name else []


def namespaces(obj: Obj) -> list[str]:
    """Index function: the object's namespace."""
    return [obj["metadata"].get("namespace") or ""]


POD_INDEXERS = {"owner": owner_uids, "node": node_names, "namespace": namespaces}


def normalised(value: Any) -> Any:
    """A JSON value without what an API server may leave out: nulls, empty maps and lists."""
    if isinstance(value, dict):
        cleaned = {key: normalised(item) for key, item in value.items()}
        return {key: item for key, item in cleaned.items() if item not in (None, {}, [])}
    if isinstance(value, list):
        return [normalised(item) for item in value]
    return value


def template_hash(template: Any, collisions: int | None = None) -> str:
    """A stable hash of a JSON value in the alphabet that upstream uses for pod-template-hash.

    Upstream hashes Go's dump of its structs with FNV-1a; ours hashes canonical JSON with it.
    """
    text = json.dumps(normalised(template), sort_keys=True, separators=(",", ":"))
    if collisions is not None:
        text += str(collisions)
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_SAFE_ALPHABET[ord(digit) % len(_SAFE_ALPHABET)] for digit in str(value))
