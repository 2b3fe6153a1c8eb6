"""SchedulingGates, PrioritySort, GangScheduling: who may enter the queue, and in which order it is served."""

from __future__ import annotations

from bowsprit.scheduler.framework import Code, Status
from bowsprit.scheduler.podinfo import PodInfo


class SchedulingGates:
    name = "SchedulingGates"

    def pre_enqueue(self, pod: PodInfo) -> Status | None:
        gates = (pod.obj.get("spec") or {}).get("schedulingGates")
        if not gates:
            return None
        listed = " ".join(gate.get("name", "") for gate in gates)
        return Status(Code.UNSCHEDULABLE_AND_UNRESOLVABLE, (f"waiting for scheduling gates: [{listed}]",))


class PrioritySort:
    name = "PrioritySort"

    def sort_key(self, pod: PodInfo, timestamp: float) -> tuple[int, float]:
        return (-pod.priority, timestamp)


class GangScheduling:
    """Pod groups (alpha, off by default) are not scheduled by this release: with the gate on their pods are held."""

    name = "GangScheduling"

    def __init__(self, enabled: bool):
        self._enabled = enabled

    def pre_enqueue(self, pod: PodInfo) -> Status | None:
        if not self._enabled or not (pod.obj.get("spec") or {}).get("schedulingGroup"):
            return None
        text = "pod belongs to a pod group, and this scheduler does not schedule pod groups (GangScheduling)"
        return Status(Code.UNSCHEDULABLE_AND_UNRESOLVABLE, (text,))
