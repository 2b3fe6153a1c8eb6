"""NodeDeclaredFeatures: what the pod needs must be declared in the node's status."""

from __future__ import annotations

import numpy as np

from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import SKIP, CycleState, Ints, Status, unresolvable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo

REASON = "node(s) didn't match Pod's required features"


class NodeDeclaredFeatures:
    name = "NodeDeclaredFeatures"
    local = True
    static = True  # depends on the node alone, not on its pods

    def pre_filter(
        self, state: CycleState, pod: PodInfo, nodes: NodeColumns
    ) -> tuple[frozenset[str] | None, Status | None]:
        return None, (None if pod.shape.features else SKIP)

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        return None if pod.shape.features <= node.features else unresolvable(REASON)

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints:
        wanted = pod.shape.features
        return np.array([int(i is not None and not wanted <= i.features) for i in nodes.infos], dtype=np.int64)

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        return unresolvable(REASON)
