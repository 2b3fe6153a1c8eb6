"""Queueing hints: may this event make that rejected pod schedulable? (EventsToRegister of the default plugins.)

A hint takes the snapshot, the pod, and the changed object before and after (None: it did not exist or exists no more);
pods come as PodInfo, nodes as NodeInfo, everything else as the object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.events import ASSIGNED_POD, NODE, UNSCHEDULED_POD, Event
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.plugins.volumezone import TOPOLOGY_LABELS
from bowsprit.scheduler.podinfo import AffinityTerm, PodInfo, SpreadConstraint, ports_conflict, spread_constraint
from bowsprit.scheduler.requests import is_scalar
from bowsprit.scheduler.tolerations import SCHEDULING_EFFECTS, UNSCHEDULABLE_TAINT, first_untolerated, tolerated

Hint = Callable[[NodeColumns, PodInfo, Any, Any], bool]


def _always(nodes: NodeColumns, pod: PodInfo, old: Any, new: Any) -> bool:
    return True


def _own_pod(nodes: NodeColumns, pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    return new is not None and new.uid == pod.uid


# NodeResourcesFit


def _fits_total(pod: PodInfo, node: NodeInfo) -> bool:
    if node.allowed_pods < 1:
        return False
    return all(not amount or amount <= node.allocatable.get(name, 0) for name, amount in pod.shape.requests.items())


def _fit_node(nodes: NodeColumns, pod: PodInfo, old: NodeInfo | None, new: NodeInfo | None) -> bool:
    if new is None or not _fits_total(pod, new):
        return False
    if old is None or new.allowed_pods > old.allowed_pods:
        return True
    names = [n for n, amount in pod.shape.requests.items() if amount or not is_scalar(n)]
    return any(new.allocatable.get(n, 0) > old.allocatable.get(n, 0) for n in names) or not _fits_total(pod, old)


def _fit_scale_down(nodes: NodeColumns, pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    if old is None or new is None:
        return False
    if new.uid == pod.uid:
        return True
    before, after = old.shape.requests, new.shape.requests
    return any(amount and after.get(name, 0) < before.get(name, 0) for name, amount in pod.shape.requests.items())


# node plugins


def _node_affinity(nodes: NodeColumns, pod: PodInfo, old: NodeInfo | None, new: NodeInfo | None) -> bool:
    affinity = pod.shape.node_affinity
    if new is None or not affinity.matches(new.name, new.labels):
        return False
    return old is None or not affinity.matches(old.name, old.labels)


def _tolerates(pod: PodInfo, node: NodeInfo) -> bool:
    return first_untolerated(node.taints, pod.shape.tolerations, SCHEDULING_EFFECTS) is None


def _taints(nodes: NodeColumns, pod: PodInfo, old: NodeInfo | None, new: NodeInfo | None) -> bool:
    return new is not None and _tolerates(pod, new) and (old is None or not _tolerates(pod, old))


def _uncordoned(nodes: NodeColumns, pod: PodInfo, old: NodeInfo | None, new: NodeInfo | None) -> bool:
    return new is not None and not new.unschedulable and (old is None or old.unschedulable)


def _own_toleration(nodes: NodeColumns, pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    return new is not None and new.uid == pod.uid


def _tolerates_cordon(nodes: NodeColumns, pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    return new is not None and new.uid == pod.uid and tolerated(new.shape.tolerations, UNSCHEDULABLE_TAINT)


def _node_name(nodes: NodeColumns, pod: PodInfo, old: NodeInfo | None, new: NodeInfo | None) -> bool:
    return new is not None and new.name == (pod.obj.get("spec") or {}).get("nodeName")


def _port_freed(nodes: NodeColumns, pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    if old is None or not old.node_name:
        return False
    return any(ports_conflict(mine, theirs) for mine in pod.shape.ports for theirs in old.shape.ports)


def _features(nodes: NodeColumns, pod: PodInfo, old: NodeInfo | None, new: NodeInfo | None) -> bool:
    wanted = pod.shape.features
    return new is not None and wanted <= new.features and (old is None or not wanted <= old.features)


# InterPodAffinity


def _matches(nodes: NodeColumns, term: AffinityTerm, target: PodInfo) -> bool:
    return term.matches(target.namespace, target.shape.labels, nodes.namespace_labels(target.namespace))


def _affinity_pod(nodes: NodeColumns, pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    terms, anti = pod.shape.required_affinity, pod.shape.required_anti

    def near(other: PodInfo) -> bool:
        return bool(terms) and all(_matches(nodes, term, other) for term in terms)

    def unwanted(other: PodInfo) -> bool:
        return any(_matches(nodes, term, other) for term in anti)

    if old is not None and new is not None:
        return (near(new) and not near(old)) or (unwanted(old) and not unwanted(new))
    if new is not None:
        return near(new)
    if old is None:
        return False
    return unwanted(old) or any(_matches(nodes, term, pod) for term in old.shape.required_anti)


def _affinity_node(nodes: NodeColumns, pod: PodInfo, old: NodeInfo | None, new: NodeInfo | None) -> bool:
    if new is None:
        return False
    if old is None:
        return all(term.topology_key in new.labels for term in pod.shape.required_affinity)
    for term in (*pod.shape.required_affinity, *pod.shape.required_anti):
        if old.labels.get(term.topology_key) != new.labels.get(term.topology_key):
            return True
    return False


# PodTopologySpread


def _constraints(pod: PodInfo) -> list[SpreadConstraint]:
    hard = (c for c in pod.shape.spread if c.get("whenUnsatisfiable") == "DoNotSchedule")
    return [spread_constraint(c, pod.shape.labels) for c in hard]


def _spread_pod(nodes: NodeColumns, pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    other = new or old
    if other is None or other.namespace != pod.namespace:
        return False
    selectors = [constraint.selector for constraint in _constraints(pod)]
    if old is not None and new is not None:
        return any(s.matches(old.shape.labels) != s.matches(new.shape.labels) for s in selectors)
    return any(selector.matches(other.shape.labels) for selector in selectors)


def _spread_node(nodes: NodeColumns, pod: PodInfo, old: NodeInfo | None, new: NodeInfo | None) -> bool:
    constraints = _constraints(pod)
    keys = [constraint.topology_key for constraint in constraints]

    def keyed(node: NodeInfo | None) -> bool:
        return node is not None and all(key in node.labels for key in keys)

    if old is None or new is None:
        return keyed(new or old)
    if keyed(old) != keyed(new):
        return True
    if keyed(new) and any(old.labels[key] != new.labels[key] for key in keys):
        return True
    return any(c.honor_taints for c in constraints) and _tolerates(pod, old) != _tolerates(pod, new)


# volumes


def _own_claim(nodes: NodeColumns, pod: PodInfo, old: Obj | None, new: Obj | None) -> bool:
    claim = new or old
    if claim is None or claim["metadata"].get("namespace") != pod.namespace:
        return False
    return claim["metadata"]["name"] in pod.claim_names()


def _volume_zone_changed(nodes: NodeColumns, pod: PodInfo, old: Obj | None, new: Obj | None) -> bool:
    def zones(volume: Obj | None) -> dict[str, str]:
        labels = ((volume or {}).get("metadata") or {}).get("labels") or {}
        return {key: labels[key] for key in TOPOLOGY_LABELS if key in labels}

    return old is None or zones(old) != zones(new)


def _shares_volume(nodes: NodeColumns, pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    if old is None or old.namespace != pod.namespace or not old.volumes:
        return False
    if set(old.claim_names()) & set(pod.claim_names()):
        return True
    disks = ("gcePersistentDisk", "awsElasticBlockStore", "rbd", "iscsi")
    return any(kind in mine and kind in theirs for mine in pod.volumes for theirs in old.volumes for kind in disks)


def _frees_claims(nodes: NodeColumns, pod: PodInfo, old: PodInfo | None, new: PodInfo | None) -> bool:
    return old is not None and bool(old.claim_names())


def _limit_raised(nodes: NodeColumns, pod: PodInfo, old: Obj | None, new: Obj | None) -> bool:
    def limits(csi_node: Obj | None) -> dict[str, int | None]:
        drivers = ((csi_node or {}).get("spec") or {}).get("drivers") or ()
        return {d["name"]: (d.get("allocatable") or {}).get("count") for d in drivers}

    if old is None:
        return True
    before, after = limits(old), limits(new)
    return any(name not in after or (after[name] or 0) > (count or 0) for name, count in before.items())


Registered = list[tuple[str, frozenset[str], Hint]]


def _on(resource: str, actions: str, hint: Hint) -> tuple[str, frozenset[str], Hint]:
    return resource, frozenset(actions.split()), hint


_CLAIM, _VOLUME = "PersistentVolumeClaim", "PersistentVolume"
HINTS: dict[str, Registered] = {
    "SchedulingGates": [_on(UNSCHEDULED_POD, "UpdatePodSchedulingGatesEliminated", _own_pod)],
    "NodeUnschedulable": [
        _on(NODE, "Add UpdateNodeTaint", _uncordoned),
        _on(UNSCHEDULED_POD, "UpdatePodToleration", _tolerates_cordon),
    ],
    "NodeName": [_on(NODE, "Add", _node_name)],
    "TaintToleration": [
        _on(NODE, "Add UpdateNodeTaint", _taints),
        _on(UNSCHEDULED_POD, "UpdatePodToleration", _own_toleration),
    ],
    "NodeAffinity": [_on(NODE, "Add UpdateNodeLabel", _node_affinity)],
    "NodePorts": [_on(ASSIGNED_POD, "Delete", _port_freed), _on(NODE, "Add", _always)],
    "NodeResourcesFit": [
        _on(ASSIGNED_POD, "Delete", _always),
        _on(ASSIGNED_POD, "UpdatePodScaleDown", _fit_scale_down),
        _on(UNSCHEDULED_POD, "UpdatePodScaleDown", _fit_scale_down),
        _on(NODE, "Add UpdateNodeAllocatable", _fit_node),
    ],
    "VolumeRestrictions": [
        _on(ASSIGNED_POD, "Delete", _shares_volume),
        _on(_CLAIM, "Add Update", _own_claim),
        _on(NODE, "Add", _always),
    ],
    "NodeVolumeLimits": [
        _on("CSINode", "Add Update", _limit_raised),
        _on(ASSIGNED_POD, "Delete", _frees_claims),
        _on(_CLAIM, "Add", _own_claim),
        _on("VolumeAttachment", "Delete", _always),
    ],
    "VolumeBinding": [
        _on(_CLAIM, "Add Update", _own_claim),
        _on(_VOLUME, "Add Update", _always),
        _on("StorageClass", "Add Update", _always),
        _on("CSINode", "Add Update", _always),
        _on("CSIDriver", "Update", _always),
        _on("CSIStorageCapacity", "Add Update", _always),
        _on(NODE, "Add UpdateNodeLabel", _always),
    ],
    "VolumeZone": [
        _on(_CLAIM, "Add Update", _own_claim),
        _on(_VOLUME, "Add Update", _volume_zone_changed),
        _on("StorageClass", "Add", _always),
        _on(NODE, "Add UpdateNodeLabel", _always),
    ],
    "PodTopologySpread": [
        _on(ASSIGNED_POD, "Add Delete UpdatePodLabel", _spread_pod),
        _on(NODE, "Add Delete UpdateNodeLabel UpdateNodeTaint", _spread_node),
        _on(UNSCHEDULED_POD, "UpdatePodToleration", _own_toleration),
    ],
    "InterPodAffinity": [
        _on(ASSIGNED_POD, "Add Delete UpdatePodLabel", _affinity_pod),
        _on(NODE, "Add UpdateNodeLabel", _affinity_node),
    ],
    "DynamicResources": [],
    "DefaultPreemption": [],
    "NodeDeclaredFeatures": [
        _on(NODE, "Add UpdateNodeDeclaredFeature", _features),
        _on(UNSCHEDULED_POD, "Update", _own_pod),
    ],
}


def helps(plugin: str, event: Event, nodes: NodeColumns, pod: PodInfo, old: Any, new: Any) -> bool:
    """Whether the event may undo the rejection by the plugin; plugins that register nothing hear every event."""
    registered = HINTS.get(plugin)
    if registered is None:
        return True
    for resource, actions, hint in registered:
        if resource == event.resource and event.action in actions:
            try:
                if hint(nodes, pod, old, new):
                    return True
            except Exception:  # upstream: an error in a hint queues the pod
                return True
    return False


_REGISTERED = {
    (resource, action) for entries in HINTS.values() for resource, actions, _ in entries for action in actions
}


def of_interest(event: Event) -> bool:
    """Whether any default plugin registers the event. Plain pod updates count: they stand for all kinds of updates."""
    return (
        (event.resource, event.action) in _REGISTERED or event.resource == ASSIGNED_POD or event.resource not in _KNOWN
    )


_KNOWN = {resource for resource, _ in _REGISTERED}
