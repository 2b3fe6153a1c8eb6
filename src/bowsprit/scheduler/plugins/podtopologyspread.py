"""PodTopologySpread: even spreading over zones, hosts or any label. Hard constraints filter, soft ones score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bowsprit.machinery.objects import Obj
from bowsprit.machinery.selectors import LabelSelector
from bowsprit.scheduler.columns import NodeColumns, Topology
from bowsprit.scheduler.framework import (
    MAX_NODE_SCORE,
    SKIP,
    CycleState,
    Ints,
    Mask,
    Status,
    unresolvable,
    unschedulable,
)
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podindex import PodCounter
from bowsprit.scheduler.podinfo import PodInfo, SpreadConstraint, spread_constraint
from bowsprit.scheduler.tolerations import SCHEDULING_EFFECTS, first_untolerated

REASON = "node(s) didn't match pod topology spread constraints"
REASON_LABEL = REASON + " (missing required label)"
HOSTNAME = "kubernetes.io/hostname"
_MISSING, _SKEW = 1, 2
_FILTER_KEY, _SCORE_KEY = "PreFilterPodTopologySpread", "PreScorePodTopologySpread"

SYSTEM_DEFAULTS: list[Obj] = [
    {"topologyKey": HOSTNAME, "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 3},
    {"topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "ScheduleAnyway", "maxSkew": 5},
]


def default_selector(pod: PodInfo, nodes: NodeColumns) -> LabelSelector:
    """helper.DefaultSelector: what the services and the controller of a pod select, together."""
    objects, labels = nodes.objects, pod.shape.labels
    wanted: dict[str, str] = {}
    for service in objects.list("Service", pod.namespace):
        selector = (service.get("spec") or {}).get("selector")
        if selector is not None and all(labels.get(key) == value for key, value in selector.items()):
            wanted.update(selector)
    owner = pod.owner
    if owner is None:
        return LabelSelector.from_labels(wanted)
    kind, name = (owner.get("apiVersion"), owner.get("kind")), owner.get("name", "")
    if kind == ("v1", "ReplicationController"):
        controller = objects.get("ReplicationController", name, pod.namespace)
        if controller is not None:
            wanted.update((controller.get("spec") or {}).get("selector") or {})
    elif kind in (("apps/v1", "ReplicaSet"), ("apps/v1", "StatefulSet")):
        controller = objects.get(str(owner["kind"]), name, pod.namespace)
        if controller is not None:
            other = LabelSelector.from_obj((controller.get("spec") or {}).get("selector"))
            if not other.nothing:
                return LabelSelector(LabelSelector.from_labels(wanted).requirements + other.requirements)
    return LabelSelector.from_labels(wanted)


@dataclass(slots=True)
class _Domains:
    """One hard constraint in a cycle: counts by topology value of the eligible nodes."""

    constraint: SpreadConstraint
    topology: Topology
    counts: Ints
    present: Mask
    self_match: int

    def clone(self) -> _Domains:
        return _Domains(self.constraint, self.topology, self.counts.copy(), self.present.copy(), self.self_match)

    def minimum(self) -> int:
        counts = self.counts[self.present]
        return 0 if len(counts) < self.constraint.min_domains else int(counts.min())

    def limit(self) -> int:
        """The highest count with which one more pod keeps the skew."""
        return self.constraint.max_skew + self.minimum() - self.self_match


class _FilterState(list[_Domains]):
    def clone(self) -> _FilterState:
        return _FilterState(domains.clone() for domains in self)


@dataclass(slots=True)
class _ScoreState:
    constraints: list[SpreadConstraint]
    weights: list[float]
    counters: list[PodCounter]
    counts: list[Ints | None]  # by topology value; None for the hostname, whose counts are the rows' own
    ignored: Mask  # over the feasible rows


class PodTopologySpread:
    name = "PodTopologySpread"
    local = False

    def __init__(self, args: Obj):
        self._system = (args.get("defaultingType") or "System") == "System"
        self._defaults: list[Obj] = SYSTEM_DEFAULTS if self._system else list(args.get("defaultConstraints") or ())

    @property
    def has_defaults(self) -> bool:
        return bool(self._defaults)

    def constraints(self, pod: PodInfo, nodes: NodeColumns, action: str) -> list[SpreadConstraint]:
        """The pod's own constraints of an action, or the default ones when it has none at all."""
        shape = pod.shape
        if shape.spread:
            key = ("spread", action)
            known: list[SpreadConstraint] | None = shape.cache.get(key)
            if known is None:
                known = shape.cache[key] = [
                    spread_constraint(c, shape.labels) for c in shape.spread if c.get("whenUnsatisfiable") == action
                ]
            return known
        defaults = [c for c in self._defaults if c.get("whenUnsatisfiable") == action]
        if not defaults:
            return []
        selector = self._selector(pod, nodes)
        if selector.is_empty():
            return []
        return [spread_constraint(c, shape.labels, selector) for c in defaults]

    @staticmethod
    def _selector(pod: PodInfo, nodes: NodeColumns) -> LabelSelector:
        versions = nodes.objects.versions
        owner = (pod.owner or {}).get("kind"), (pod.owner or {}).get("name")
        stamp = (
            owner,
            versions["Service"],
            versions["ReplicationController"],
            versions["ReplicaSet"],
            versions["StatefulSet"],
        )
        known = pod.shape.cache.get("default-selector")
        if known is None or known[0] != stamp:
            known = pod.shape.cache["default-selector"] = (stamp, default_selector(pod, nodes))
        selector: LabelSelector = known[1]
        return selector

    # which nodes count

    @staticmethod
    def _counter(pod: PodInfo, constraint: SpreadConstraint, nodes: NodeColumns) -> PodCounter:
        namespace, selector = pod.namespace, constraint.selector

        def test(other: str, labels: Mapping[str, str], terminating: bool) -> bool:
            return other == namespace and not terminating and selector.matches(labels)

        if selector.is_empty():
            return nodes.index.counter("spread:none", lambda other, labels, terminating: False)
        return nodes.index.counter(f"spread:{namespace}:{constraint.text}", test)

    @staticmethod
    def _has_keys(constraints: list[SpreadConstraint], nodes: NodeColumns) -> Mask | None:
        """Rows that carry every key; None when all nodes do."""
        mask: Mask | None = None
        for key in {c.topology_key for c in constraints}:
            have = nodes.topology(key).ids >= 0
            if have[nodes.order].all():
                continue
            mask = have if mask is None else mask & have
        return mask

    @staticmethod
    def _admitted(pod: PodInfo, constraint: SpreadConstraint, nodes: NodeColumns) -> Mask | None:
        """Rows that pass the node inclusion policies of a constraint; None when all do."""
        affinity = constraint.honor_affinity and not pod.shape.node_affinity.is_empty
        if not affinity and not constraint.honor_taints:
            return None
        key = ("spread-nodes", affinity, constraint.honor_taints)
        known = pod.shape.cache.get(key)
        if known is None or known[0] != nodes.static_version:
            mask = pod.shape.node_affinity.rows(nodes) if affinity else np.ones(nodes.size, dtype=bool)
            if constraint.honor_taints:
                for info in nodes.infos:
                    if info is not None and info.taints:
                        mask[info.row] &= not _blocked(pod, info)
            known = pod.shape.cache[key] = (nodes.static_version, mask)
        admitted: Mask = known[1]
        return admitted

    def _eligible(
        self, pod: PodInfo, constraint: SpreadConstraint, keys: Mask | None, nodes: NodeColumns
    ) -> Mask | None:
        admitted = self._admitted(pod, constraint, nodes)
        if admitted is None:
            return keys
        return admitted if keys is None else admitted & keys

    @staticmethod
    def _domain_counts(
        counter: PodCounter, topology: Topology, key: str, eligible: Mask | None, nodes: NodeColumns
    ) -> tuple[Ints, Mask]:
        """Counts by topology value over eligible rows, and which values occur there. Last entry: no label."""
        domains = len(topology.values)
        if eligible is None:
            present = np.ones(domains + 1, dtype=bool)
            present[domains] = False
            return counter.by_domain(key, topology.ids, domains), present
        rows = nodes.order[eligible[nodes.order]]
        ids = topology.ids[rows]
        ids = np.where(ids < 0, domains, ids)
        counts = np.bincount(ids, counter.rows[rows], domains + 1).astype(np.int64)
        present = np.bincount(ids, minlength=domains + 1) > 0
        present[domains] = False
        return counts, present

    # Filter

    def pre_filter(
        self, state: CycleState, pod: PodInfo, nodes: NodeColumns
    ) -> tuple[frozenset[str] | None, Status | None]:
        constraints = self.constraints(pod, nodes, "DoNotSchedule")
        if not constraints:
            return None, SKIP
        keys = self._has_keys(constraints, nodes)
        result = _FilterState()
        for constraint in constraints:
            topology = nodes.topology(constraint.topology_key)
            counter = self._counter(pod, constraint, nodes)
            eligible = self._eligible(pod, constraint, keys, nodes)
            counts, present = self._domain_counts(counter, topology, constraint.topology_key, eligible, nodes)
            self_match = int(constraint.selector.matches(pod.shape.labels))
            result.append(_Domains(constraint, topology, counts, present, self_match))
        state.data[_FILTER_KEY] = result
        return None, None

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        for domains in state.data[_FILTER_KEY]:
            domain = domains.topology.ids[node.row]
            if domain < 0:
                return unresolvable(REASON_LABEL)
            if domains.counts[domain] > domains.limit():
                return unschedulable(REASON)
        return None

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints:
        codes: Ints | None = None
        for domains in state.data[_FILTER_KEY]:
            by_domain = np.where(domains.counts > domains.limit(), _SKEW, 0)
            by_domain[-1] = _MISSING
            mine = by_domain[domains.topology.ids]
            codes = mine if codes is None else np.where(codes == 0, mine, codes)
        assert codes is not None
        return codes

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        return unresolvable(REASON_LABEL) if code == _MISSING else unschedulable(REASON)

    def _update(self, state: CycleState, pod: PodInfo, other: PodInfo, node: NodeInfo, sign: int) -> None:
        every: list[_Domains] | None = state.data.get(_FILTER_KEY)
        if every is None or other.namespace != pod.namespace:
            return
        if any(domains.topology.ids[node.row] < 0 for domains in every):
            return
        for domains in every:
            constraint = domains.constraint
            if constraint.honor_affinity and not pod.shape.node_affinity.matches(node.name, node.labels):
                continue
            if constraint.honor_taints and _blocked(pod, node):
                continue
            if constraint.selector.matches(other.shape.labels):
                domain = domains.topology.ids[node.row]
                domains.counts[domain] += sign
                domains.present[domain] = True

    def add_pod(self, state: CycleState, pod: PodInfo, added: PodInfo, node: NodeInfo) -> None:
        self._update(state, pod, added, node, 1)

    def remove_pod(self, state: CycleState, pod: PodInfo, removed: PodInfo, node: NodeInfo) -> None:
        self._update(state, pod, removed, node, -1)

    # Score

    def pre_score(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Status | None:
        constraints = self.constraints(pod, nodes, "ScheduleAnyway")
        if not constraints:
            return SKIP
        require_all = bool(pod.shape.spread) or not self._system
        keys = self._has_keys(constraints, nodes) if require_all else None
        ignored = np.zeros(len(rows), dtype=bool) if keys is None else ~keys[rows]
        candidates = rows if keys is None else rows[~ignored]
        score = _ScoreState(constraints, [], [], [], ignored)
        for constraint in constraints:
            counter = self._counter(pod, constraint, nodes)
            score.counters.append(counter)
            if constraint.topology_key == HOSTNAME:
                score.weights.append(math.log(len(candidates) + 2))
                score.counts.append(None)
                continue
            topology = nodes.topology(constraint.topology_key)
            eligible = self._eligible(pod, constraint, keys, nodes)
            counts, _ = self._domain_counts(counter, topology, constraint.topology_key, eligible, nodes)
            # a missing label is a value of its own ("") where not all keys are required
            size = np.count_nonzero(np.bincount(topology.ids[candidates] + 1, minlength=1))
            score.weights.append(math.log(size + 2))
            score.counts.append(counts)
        state.data[_SCORE_KEY] = score
        return None

    def score_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Ints:
        score: _ScoreState = state.data[_SCORE_KEY]
        total = np.zeros(len(rows))
        for constraint, weight, counter, counts in zip(
            score.constraints, score.weights, score.counters, score.counts, strict=True
        ):
            ids = nodes.topology(constraint.topology_key).ids[rows]
            matching = counter.rows[rows] if counts is None else counts[ids]
            total += np.where(ids >= 0, matching * weight + float(constraint.max_skew - 1), 0.0)
        scores = np.floor(total + 0.5).astype(np.int64)  # math.Round: half away from zero, and nothing is negative
        scores[score.ignored] = 0
        return scores

    def normalize(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints, scores: Ints) -> Ints:
        ignored = state.data[_SCORE_KEY].ignored
        counted = scores[~ignored]
        highest = int(counted.max()) if len(counted) else 0
        if highest == 0:
            result = np.full_like(scores, MAX_NODE_SCORE)
        else:
            result = MAX_NODE_SCORE * (highest + int(counted.min()) - scores) // highest
        result[ignored] = 0
        return result


def _blocked(pod: PodInfo, node: NodeInfo) -> bool:
    return first_untolerated(node.taints, pod.shape.tolerations, SCHEDULING_EFFECTS) is not None
