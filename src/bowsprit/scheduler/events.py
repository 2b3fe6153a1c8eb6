"""Cluster events: what happened, in the words that queueing hints match (framework.ClusterEvent)."""

from __future__ import annotations

from dataclasses import dataclass

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo

ASSIGNED_POD, UNSCHEDULED_POD, NODE = "AssignedPod", "UnschedulablePod", "Node"


@dataclass(frozen=True, slots=True)
class Event:
    """`resource` and `action`; the label is what metrics and logs show."""

    resource: str
    action: str  # Add, Delete, Update or Update<property>

    @property
    def label(self) -> str:
        return f"{self.resource}{self.action}"


UNSCHEDULABLE_TIMEOUT = Event("", "UnschedulableTimeout")
FORCE_ACTIVATE = Event("", "ForceActivate")
BACKOFF_COMPLETE = Event("", "BackoffComplete")
ATTEMPT_FAILURE = Event("", "ScheduleAttemptFailure")
POD_ADD = Event(UNSCHEDULED_POD, "Add")


def node_events(old: NodeInfo, new: NodeInfo) -> list[Event]:
    """nodeSchedulingPropertiesChange: one event per property that changed."""
    actions = []
    if old.taints != new.taints or old.unschedulable != new.unschedulable:
        actions.append("UpdateNodeTaint")
    if (old.allocatable, old.allowed_pods) != (new.allocatable, new.allowed_pods):
        actions.append("UpdateNodeAllocatable")
    if old.labels != new.labels:
        actions.append("UpdateNodeLabel")
    if old.features != new.features:
        actions.append("UpdateNodeDeclaredFeature")
    if old.obj["metadata"].get("annotations") != new.obj["metadata"].get("annotations"):
        actions.append("UpdateNodeAnnotation")
    if _conditions(old.obj) != _conditions(new.obj):
        actions.append("UpdateNodeCondition")
    return [Event(NODE, action) for action in actions]


def _conditions(obj: Obj) -> dict[str, str]:
    items = (obj.get("status") or {}).get("conditions") or ()
    return {item.get("type", ""): item.get("status", "") for item in items}


def pod_events(old: PodInfo, new: PodInfo, resource: str) -> list[Event]:
    """PodSchedulingPropertiesChange: specific events, or the plain update when none applies."""
    actions = []
    if old.shape.labels != new.shape.labels:
        actions.append("UpdatePodLabel")
    if _scaled_down(old, new):
        actions.append("UpdatePodScaleDown")
    old_gates, new_gates = (p.obj.get("spec", {}).get("schedulingGates") for p in (old, new))
    if old_gates and not new_gates:
        actions.append("UpdatePodSchedulingGatesEliminated")
    if old.shape.tolerations != new.shape.tolerations:
        actions.append("UpdatePodToleration")
    return [Event(resource, action) for action in actions or ["Update"]]


def _scaled_down(old: PodInfo, new: PodInfo) -> bool:
    before, after = old.shape.requests, new.shape.requests
    return before is not after and any(after.get(name, 0) < amount for name, amount in before.items())
