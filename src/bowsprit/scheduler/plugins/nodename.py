"""NodeName: spec.nodeName of a pending pod, where something set it by hand."""

from __future__ import annotations

import numpy as np

from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import CycleState, Ints, Status, unresolvable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo

REASON = "node(s) didn't match the requested node name"


class NodeName:
    name = "NodeName"
    local = False
    static = True  # depends on the node alone, not on its pods

    @staticmethod
    def _wanted(pod: PodInfo) -> str:
        return (pod.obj.get("spec") or {}).get("nodeName") or ""

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        wanted = self._wanted(pod)
        return None if not wanted or wanted == node.name else unresolvable(REASON)

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints | None:
        wanted = self._wanted(pod)
        if not wanted:
            return None
        codes = np.ones(nodes.size, dtype=np.int64)
        row = nodes.row_of.get(wanted)
        if row is not None:
            codes[row] = 0
        return codes

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        return unresolvable(REASON)
