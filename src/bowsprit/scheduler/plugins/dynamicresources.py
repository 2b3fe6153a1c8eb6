"""DynamicResources: pods without resource claims pass; pods with claims are held with a reason that says so.

The structured allocator is not part of this release. What a pod without claims meets of the plugin upstream (a score of
zero for every node, a PostFilter that has nothing to deallocate) is kept, because messages and totals show it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import SKIP, CycleState, Ints, Status, failure, unresolvable, unschedulable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo

NOTHING_TO_FREE = "no new claims to deallocate"
UNSUPPORTED = "pod has resource claims, and this scheduler does not allocate devices (DynamicResources)"
_KEY = "DynamicResources"


class DynamicResources:
    name = "DynamicResources"
    also_at = ("preEnqueue", "reserve", "preBind")
    local = True
    static = True  # depends on the node alone, not on its pods

    def pre_filter(
        self, state: CycleState, pod: PodInfo, nodes: NodeColumns
    ) -> tuple[frozenset[str] | None, Status | None]:
        state.data[_KEY] = True
        if pod.has_resource_claims():
            return None, unresolvable(UNSUPPORTED)
        return None, SKIP

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        return None

    def post_filter(self, state: CycleState, pod: PodInfo, statuses: Any) -> tuple[str | None, Status | None]:
        if _KEY not in state.data:
            # upstream reads its state, which PreFilter did not get to write: the error text is all that users see
            return None, failure("not found")
        return None, unschedulable(NOTHING_TO_FREE)

    def score_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Ints:
        return np.zeros(len(rows), dtype=np.int64)

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        return 0
