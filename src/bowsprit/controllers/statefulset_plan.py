"""StatefulSets: which pod comes or goes next. No I/O.

Upstream: pkg/controller/statefulset stateful_set_control.go. With OrderedReady one thing happens at a time: pods start in
order, each after the one before is available, and stop in reverse; updates go from the highest ordinal down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from bowsprit.controllers.pods import available_in, is_available, is_deleting, is_ready, phase
from bowsprit.controllers.revisions import HASH_LABEL
from bowsprit.machinery.objects import Obj, labels, nested

_NAME = re.compile(r"^(.*)-(\d+)$")


@dataclass(slots=True)
class Plan:
    """Ordinals to create, pods to delete, and when to look again."""

    create: list[int] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)
    wake: float | None = None


def ordinal(pod: Obj) -> int:
    """The number at the end of the pod's name, -1 if there is none."""
    match = _NAME.match(pod["metadata"]["name"])
    return int(match.group(2)) if match else -1


def belongs(stateful_set: Obj, pod: Obj) -> bool:
    """Whether the pod's name is one of the set's."""
    match = _NAME.match(pod["metadata"]["name"])
    return match is not None and match.group(1) == stateful_set["metadata"]["name"]


def ordinals(stateful_set: Obj) -> range:
    """The ordinals that are to exist."""
    spec = stateful_set["spec"]
    start = int(nested(spec, "ordinals", "start", default=0))
    count = spec.get("replicas")
    return range(start, start + (1 if count is None else int(count)))


def partition(stateful_set: Obj) -> int:
    """The first ordinal that updates apply to."""
    start = int(nested(stateful_set, "spec", "ordinals", "start", default=0))
    return start + int(nested(stateful_set, "spec", "updateStrategy", "rollingUpdate", "partition", default=0))


def revision_of(pod: Obj) -> str:
    """The revision a pod was made from."""
    return labels(pod).get(HASH_LABEL, "")


def plan(stateful_set: Obj, pods: Iterable[Obj], update_revision: str, now: datetime) -> Plan:
    """The next steps."""
    result = Plan()
    min_ready = int(stateful_set["spec"].get("minReadySeconds") or 0)
    one_at_a_time = stateful_set["spec"].get("podManagementPolicy") != "Parallel"
    wanted = ordinals(stateful_set)
    known = {ordinal(pod): pod for pod in pods}

    def healthy(pod: Obj) -> bool:
        wait = available_in(pod, min_ready, now)
        if wait:
            result.wake = wait if result.wake is None else min(wait, result.wake)
        return phase(pod) == "Running" and wait == 0.0 and not is_deleting(pod)

    for number in wanted:
        pod = known.get(number)
        if pod is None:
            result.create.append(number)
        elif is_deleting(pod):
            pass
        elif phase(pod) in ("Failed", "Succeeded"):
            result.delete.append(pod)
        elif healthy(pod):
            continue
        if one_at_a_time:
            return result
    for number in sorted((number for number in known if number not in wanted), reverse=True):
        pod = known[number]
        if not is_deleting(pod):
            result.delete.append(pod)
        if one_at_a_time:
            return result
    if nested(stateful_set, "spec", "updateStrategy", "type", default="RollingUpdate") != "RollingUpdate":
        return result
    if result.create or result.delete:
        return result
    for number in reversed(wanted):
        pod = known[number]
        if number < partition(stateful_set):
            break
        if is_deleting(pod):
            return result
        if revision_of(pod) != update_revision:
            result.delete.append(pod)
            return result
        if not healthy(pod):
            return result
    return result


def needs_current(stateful_set: Obj, number: int) -> bool:
    """Whether a new pod of this ordinal still gets the old template (it lies below the partition)."""
    return number < partition(stateful_set)


def status_of(stateful_set: Obj, pods: list[Obj], current_revision: str, update_revision: str, now: datetime) -> Obj:
    """Counts, and the revisions; the update revision becomes the current one when all pods have it and are ready."""
    min_ready = int(stateful_set["spec"].get("minReadySeconds") or 0)
    alive = [pod for pod in pods if not is_deleting(pod)]
    updated = sum(1 for pod in alive if revision_of(pod) == update_revision)
    current = sum(1 for pod in alive if revision_of(pod) == current_revision)
    ready = sum(1 for pod in alive if phase(pod) == "Running" and is_ready(pod))
    replicas = len(ordinals(stateful_set))
    rolling = nested(stateful_set, "spec", "updateStrategy", "type", default="RollingUpdate") == "RollingUpdate"
    if rolling and updated == len(pods) == ready == replicas:
        current_revision, current = update_revision, updated
    status: Obj = {
        "observedGeneration": stateful_set["metadata"].get("generation", 0),
        "replicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": sum(1 for pod in alive if is_available(pod, min_ready, now)),
        "currentReplicas": current,
        "updatedReplicas": updated,
        "currentRevision": current_revision,
        "updateRevision": update_revision,
        "collisionCount": nested(stateful_set, "status", "collisionCount", default=0),
    }
    always = ("replicas", "availableReplicas", "collisionCount")
    return {key: value for key, value in status.items() if value or key in always}
