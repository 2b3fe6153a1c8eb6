"""NodeUnschedulable: cordoned nodes take no pods that do not tolerate it."""

from __future__ import annotations

import numpy as np

from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import CycleState, Ints, Status, unresolvable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.tolerations import UNSCHEDULABLE_TAINT, tolerated

REASON = "node(s) were unschedulable"


class NodeUnschedulable:
    name = "NodeUnschedulable"
    local = True
    static = True  # depends on the node alone, not on its pods

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        if not node.unschedulable or tolerated(pod.shape.tolerations, UNSCHEDULABLE_TAINT):
            return None
        return unresolvable(REASON)

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints:
        if tolerated(pod.shape.tolerations, UNSCHEDULABLE_TAINT):
            return np.zeros(nodes.size, dtype=np.int64)

        def cordoned() -> Ints:
            return np.array([int(info is not None and info.unschedulable) for info in nodes.infos], dtype=np.int64)

        return nodes.derived("unschedulable", cordoned)

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        return unresolvable(REASON)
