"""NodeAffinity: nodeSelector, required and preferred node affinity, and the affinity that the profile adds."""

from __future__ import annotations

import numpy as np

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import SKIP, CycleState, Ints, Status, default_normalize, failure, unresolvable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.nodeselector import NodeSelector, PreferredTerms
from bowsprit.scheduler.podinfo import PodInfo

REASON_POD = "node(s) didn't match Pod's node affinity/selector"
REASON_ENFORCED = "node(s) didn't match scheduler-enforced node affinity"
REASON_CONFLICT = "pod affinity terms conflict"
_ENFORCED, _POD = 1, 2


class NodeAffinity:
    name = "NodeAffinity"
    local = True
    static = True  # depends on the node alone, not on its pods

    def __init__(self, added: Obj | None = None):
        required = (added or {}).get("requiredDuringSchedulingIgnoredDuringExecution")
        self._added = NodeSelector.from_obj(required) if required is not None else None
        self._added_preferred = PreferredTerms.from_obj(
            (added or {}).get("preferredDuringSchedulingIgnoredDuringExecution")
        )

    def pre_filter(
        self, state: CycleState, pod: PodInfo, nodes: NodeColumns
    ) -> tuple[frozenset[str] | None, Status | None]:
        affinity = pod.shape.node_affinity
        if affinity.is_empty and self._added is None:
            return None, SKIP
        if affinity.selector is None or not affinity.selector.terms:
            return None, None
        names = affinity.selector.node_names()
        if names is not None and not names:
            return None, unresolvable(REASON_CONFLICT)
        return names, None

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        if self._added is not None and not self._added.matches(node.name, node.labels):
            return unresolvable(REASON_ENFORCED)
        if not pod.shape.node_affinity.matches(node.name, node.labels):
            return unresolvable(REASON_POD)
        return None

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints:
        codes = np.where(pod.shape.node_affinity.rows(nodes), 0, _POD)
        if self._added is not None:
            codes = np.where(self._added.rows(nodes), codes, _ENFORCED)
        return codes

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        return unresolvable(REASON_ENFORCED if code == _ENFORCED else REASON_POD)

    def pre_score(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Status | None:
        if pod.shape.preferred_nodes.problem:
            return failure(pod.shape.preferred_nodes.problem)
        return None if pod.shape.preferred_nodes.terms or self._added_preferred.terms else SKIP

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        return pod.shape.preferred_nodes.score(node.name, node.labels) + self._added_preferred.score(
            node.name, node.labels
        )

    def score_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Ints:
        scores = np.zeros(nodes.size, dtype=np.int64)
        for weight, term in (*self._added_preferred.terms, *pod.shape.preferred_nodes.terms):
            scores[term.rows(nodes)] += weight
        return scores[rows]

    def normalize(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints, scores: Ints) -> Ints:
        return default_normalize(scores, reverse=False)
