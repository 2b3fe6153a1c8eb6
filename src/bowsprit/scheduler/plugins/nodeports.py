"""NodePorts: host ports must be free."""

from __future__ import annotations

import numpy as np

from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import SKIP, CycleState, Ints, Status, unschedulable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo, ports_conflict

REASON = "node(s) didn't have free ports for the requested pod ports"


class NodePorts:
    name = "NodePorts"
    local = True

    def pre_filter(
        self, state: CycleState, pod: PodInfo, nodes: NodeColumns
    ) -> tuple[frozenset[str] | None, Status | None]:
        return None, (None if pod.shape.ports else SKIP)

    @staticmethod
    def _fits(pod: PodInfo, node: NodeInfo) -> bool:
        return not any(ports_conflict(wanted, used) for wanted in pod.shape.ports for used in node.ports)

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        return None if self._fits(pod, node) else unschedulable(REASON)

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints:
        codes = np.zeros(nodes.size, dtype=np.int64)
        for protocol, port, _ in pod.shape.ports:
            for row in nodes.port_users.get((protocol, port), ()):
                if not self._fits(pod, nodes.info(row)):
                    codes[row] = 1
        return codes

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        return unschedulable(REASON)
