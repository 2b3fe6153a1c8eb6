"""The scheduler's view of the cluster: nodes, bound and assumed pods (k8s.io/kubernetes/pkg/scheduler/backend/cache).

A pod is assumed when a cycle has chosen its node; it stays so until the API confirms the binding or it is forgotten.
Pods may be seen before their node; they wait here and join it when it comes.
"""

from __future__ import annotations

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.objects import ClusterObjects
from bowsprit.scheduler.podinfo import PodInfo, ShapeTable


class Cache:
    def __init__(self, objects: ClusterObjects | None = None) -> None:
        self.objects = objects or ClusterObjects()
        self.nodes = NodeColumns(self.objects)
        self.shapes = ShapeTable()
        self.pods: dict[str, PodInfo] = {}  # by uid: bound or assumed
        self.assumed: dict[str, str] = {}  # uid -> node
        self._homeless: dict[str, dict[str, PodInfo]] = {}  # node name -> pods whose node is not known (yet)

    def pod_info(self, obj: Obj) -> PodInfo:
        return PodInfo.from_obj(obj, self.shapes)

    # nodes

    def set_node(self, obj: Obj) -> NodeInfo:
        info = self.nodes.set_node(obj)
        for pod in self._homeless.pop(info.name, {}).values():
            self.nodes.add_pod(pod, info.row)
        return info

    def remove_node(self, name: str) -> None:
        for pod in self.nodes.remove_node(name):
            self._homeless.setdefault(name, {})[pod.uid] = pod

    # pods

    def _attach(self, pod: PodInfo) -> None:
        self.pods[pod.uid] = pod
        row = self.nodes.row_of.get(pod.node_name)
        if row is None:
            self._homeless.setdefault(pod.node_name, {})[pod.uid] = pod
        else:
            self.nodes.add_pod(pod, row)

    def _detach(self, uid: str) -> PodInfo | None:
        pod = self.pods.pop(uid, None)
        if pod is None:
            return None
        row = self.nodes.row_of.get(pod.node_name)
        if row is None:
            waiting = self._homeless.get(pod.node_name, {})
            waiting.pop(uid, None)
            if not waiting:
                self._homeless.pop(pod.node_name, None)
        else:
            self.nodes.remove_pod(pod, row)
        return pod

    def set_pod(self, pod: PodInfo) -> PodInfo | None:
        """A bound pod as the API has it (new, changed, or the confirmation of an assumed one); returns the old one."""
        self.assumed.pop(pod.uid, None)
        known = self.pods.get(pod.uid)
        if (
            known is not None
            and known.node_name == pod.node_name
            and known.shape is pod.shape
            and known.terminating == pod.terminating
            and known.start_time == pod.start_time
        ):
            known.obj = pod.obj
            known.nominated = pod.nominated
            if (node := self.nodes.node(pod.node_name)) is not None:
                node.move_last(pod.uid)
            return known
        self._detach(pod.uid)
        self._attach(pod)
        return known

    def remove_pod(self, uid: str) -> PodInfo | None:
        self.assumed.pop(uid, None)
        return self._detach(uid)

    def assume(self, pod: PodInfo, node_name: str) -> None:
        """Count a pod on the node that a cycle has chosen, before it is bound."""
        pod.node_name = node_name
        self.assumed[pod.uid] = node_name
        self._attach(pod)

    def forget(self, pod: PodInfo) -> None:
        """Take an assumed pod back: its binding has failed. A confirmed pod stays."""
        if self.assumed.pop(pod.uid, None) is not None:
            self._detach(pod.uid)
            pod.node_name = ""

    def is_assumed(self, uid: str) -> bool:
        return uid in self.assumed
