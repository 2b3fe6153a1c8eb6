"""One node with the pods on it: framework.NodeInfo."""

from __future__ import annotations

from collections.abc import Iterator

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.podinfo import HostPort, PodInfo, normalized_image
from bowsprit.scheduler.requests import Amounts, amounts_of
from bowsprit.scheduler.tolerations import Taint


class NodeInfo:
    """A node's fixed properties and the sums over its pods. `row` is its place in the columns."""

    __slots__ = (
        "allocatable", "allowed_pods", "features", "images", "labels", "name", "non_zero_cpu", "non_zero_memory", "obj",
        "pods", "ports", "requested", "row", "taints", "unschedulable",
    )  # fmt: skip

    def __init__(self, obj: Obj, row: int):
        self.row = row
        self.pods: dict[str, PodInfo] = {}
        self.requested: Amounts = {}
        self.non_zero_cpu = 0
        self.non_zero_memory = 0
        self.ports: set[HostPort] = set()
        self.set_node(obj)

    def set_node(self, obj: Obj) -> None:
        """Take over the node object; the pods stay."""
        meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
        self.obj = obj
        self.name: str = meta["name"]
        self.labels: dict[str, str] = meta.get("labels") or {}
        self.taints = tuple(Taint.from_obj(t) for t in spec.get("taints") or ())
        self.unschedulable = bool(spec.get("unschedulable"))
        self.allocatable = amounts_of(status.get("allocatable"))
        self.allowed_pods = self.allocatable.pop("pods", 0)
        self.features = frozenset(status.get("declaredFeatures") or ())
        self.images: dict[str, int] = {
            name: int(image.get("sizeBytes") or 0)
            for image in status.get("images") or ()
            for name in map(normalized_image, image.get("names") or ())
        }

    def add_pod(self, pod: PodInfo) -> None:
        self.pods[pod.uid] = pod
        self._count(pod, 1)

    def remove_pod(self, pod: PodInfo) -> PodInfo | None:
        """Take a pod away; returns the one that was counted (an older version perhaps)."""
        known = self.pods.pop(pod.uid, None)
        if known is not None:
            self._count(known, -1)
        return known

    def move_last(self, uid: str) -> None:
        """Swap a pod with the last one: the order that taking it away and putting it back leaves in a slice.

        The order decides among victims of equal importance (NodeInfo.RemovePod and AddPod, which updates go through).
        """
        pods = self.pods
        last, pod = next(reversed(pods), uid), pods.get(uid)
        if pod is None or last == uid:
            return
        moved = pods.pop(last)
        self.pods = {(last if key == uid else key): (moved if key == uid else p) for key, p in pods.items()}
        self.pods[uid] = pod

    def _count(self, pod: PodInfo, sign: int) -> None:
        shape, requested = pod.shape, self.requested
        for name, amount in shape.requests.items():
            requested[name] = requested.get(name, 0) + sign * amount
        self.non_zero_cpu += sign * shape.non_zero[0]
        self.non_zero_memory += sign * shape.non_zero[1]
        # a set as upstream has it: of two pods with one port (bound by hand), the first that goes frees it
        (self.ports.update if sign > 0 else self.ports.difference_update)(shape.ports)

    def clone(self) -> NodeInfo:
        """A copy for a dry run: adding and removing pods leaves the original alone."""
        copy = NodeInfo.__new__(NodeInfo)
        for name in NodeInfo.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.pods = dict(self.pods)
        copy.requested = dict(self.requested)
        copy.ports = set(self.ports)
        return copy

    def lower_priority_pods(self, priority: int) -> Iterator[PodInfo]:
        return (pod for pod in self.pods.values() if pod.priority < priority)

    def same_scheduling_state(self, obj: Obj) -> bool:
        """Whether another version of the node changes nothing that plugins of ours look at."""
        old = self.obj
        meta, old_meta = obj["metadata"], old["metadata"]
        status, old_status = obj.get("status") or {}, old.get("status") or {}
        return (
            (meta.get("labels") or {}) == self.labels
            and (obj.get("spec") or {}) == (old.get("spec") or {})
            and meta.get("annotations") == old_meta.get("annotations")
            and all(status.get(k) == old_status.get(k) for k in ("allocatable", "images", "declaredFeatures"))
        )
