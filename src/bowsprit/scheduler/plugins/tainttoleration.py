"""TaintToleration: NoSchedule and NoExecute taints filter, PreferNoSchedule taints score."""

from __future__ import annotations

import numpy as np

from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import CycleState, Ints, Status, default_normalize, unresolvable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.tolerations import SCHEDULING_EFFECTS, Taint, first_untolerated, tolerated

REASON = "node(s) had untolerated taint(s)"


def taint_sets(nodes: NodeColumns) -> tuple[Ints, list[tuple[Taint, ...]]]:
    """Interned taints: an id per row and the distinct lists of taints."""

    def build() -> tuple[Ints, list[tuple[Taint, ...]]]:
        index: dict[tuple[Taint, ...], int] = {(): 0}
        ids = [0 if info is None else index.setdefault(info.taints, len(index)) for info in nodes.infos]
        return np.array(ids, dtype=np.int64), list(index)

    return nodes.derived("taints", build)


class TaintToleration:
    name = "TaintToleration"
    also_at = ("preScore",)
    local = True
    static = True  # depends on the node alone, not on its pods

    def __init__(self, comparisons: bool = False):
        self._comparisons = comparisons  # gate TaintTolerationComparisonOperators

    def _blocked(self, pod: PodInfo, taints: tuple[Taint, ...]) -> bool:
        return first_untolerated(taints, pod.shape.tolerations, SCHEDULING_EFFECTS, self._comparisons) is not None

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        return unresolvable(REASON) if node.taints and self._blocked(pod, node.taints) else None

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints:
        ids, sets = taint_sets(nodes)
        return np.array([int(self._blocked(pod, taints)) for taints in sets], dtype=np.int64)[ids]

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        return unresolvable(REASON)

    def _intolerable(self, pod: PodInfo, taints: tuple[Taint, ...]) -> int:
        tolerations = [t for t in pod.shape.tolerations if t.effect in ("", "PreferNoSchedule")]
        return sum(
            1 for t in taints if t.effect == "PreferNoSchedule" and not tolerated(tolerations, t, self._comparisons)
        )

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        return self._intolerable(pod, node.taints) if node.taints else 0

    def score_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Ints:
        ids, sets = taint_sets(nodes)
        return np.array([self._intolerable(pod, taints) for taints in sets], dtype=np.int64)[ids[rows]]

    def normalize(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints, scores: Ints) -> Ints:
        return default_normalize(scores, reverse=True)
