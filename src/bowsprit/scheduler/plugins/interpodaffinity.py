"""InterPodAffinity: pods that want to be, or must not be, near other pods."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import SKIP, CycleState, Ints, Status, unresolvable, unschedulable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podindex import OwnedTerm, PodCounter, TermOwners
from bowsprit.scheduler.podinfo import AffinityTerm, PodInfo

REASON_AFFINITY = "node(s) didn't match pod affinity rules"
REASON_ANTI = "node(s) didn't match pod anti-affinity rules"
REASON_EXISTING = "node(s) didn't satisfy existing pods anti-affinity rules"
_AFFINITY, _ANTI, _EXISTING = 1, 2, 3
_FILTER_KEY, _SCORE_KEY = "PreFilterInterPodAffinity", "PreScoreInterPodAffinity"

Counts = dict[str, Ints]  # by topology key: matches by topology value; the last entry (no label) is always 0


class _FilterState:
    """The three maps of upstream's preFilterState."""

    __slots__ = ("affinity", "anti", "existing", "nodes", "self_matching")

    def __init__(self, nodes: NodeColumns, existing: Counts, affinity: Counts, anti: Counts, self_matching: bool):
        self.nodes = nodes
        self.existing = existing
        self.affinity = affinity
        self.anti = anti
        self.self_matching = self_matching

    def clone(self) -> _FilterState:
        copies = ({k: v.copy() for k, v in m.items()} for m in (self.existing, self.affinity, self.anti))
        existing, affinity, anti = copies
        return _FilterState(self.nodes, existing, affinity, anti, self.self_matching)

    def bootstraps(self) -> bool:
        """Whether the pod may start its own group: nothing matches yet, and it matches all its terms itself."""
        return self.self_matching and not any(counts.any() for counts in self.affinity.values())


class InterPodAffinity:
    name = "InterPodAffinity"
    local = False

    def __init__(self, args: Obj):
        weight = args.get("hardPodAffinityWeight")
        self._hard_weight = 1 if weight is None else int(weight)
        self._ignore_existing = bool(args.get("ignorePreferredTermsOfExistingPods"))

    # counting

    @staticmethod
    def _stamp(term: AffinityTerm, nodes: NodeColumns) -> str:
        """Counters of terms with a namespace selector are made anew when namespaces change."""
        plain = term.namespace_selector.nothing or term.namespace_selector.is_empty()
        return "" if plain else str(nodes.objects.versions["Namespace"])

    def _counter(self, terms: tuple[AffinityTerm, ...], nodes: NodeColumns) -> PodCounter:
        """Pods that match all of the terms."""

        def test(namespace: str, labels: Mapping[str, str], terminating: bool) -> bool:
            namespace_labels = nodes.namespace_labels(namespace)
            return all(term.matches(namespace, labels, namespace_labels) for term in terms)

        name = "&".join(self._stamp(term, nodes) + term.text for term in terms)
        return nodes.index.counter("affinity:" + name, test)

    @staticmethod
    def _add(counts: Counts, key: str, counter: PodCounter, nodes: NodeColumns, weight: int = 1) -> None:
        topology = nodes.topology(key)
        more = counter.by_domain(key, topology.ids, len(topology.values))
        if key in counts:
            counts[key] = counts[key] + more * weight
        else:
            counts[key] = more * weight
        counts[key][-1] = 0

    @staticmethod
    def _matching(owners: TermOwners, pod: PodInfo, nodes: NodeColumns, name: str) -> list[OwnedTerm]:
        """Terms of bound pods that the pod matches."""
        if not owners.terms:
            return []
        stamp = (owners.version, nodes.objects.versions["Namespace"], id(owners))
        known = pod.shape.cache.get(name)
        if known is None or known[0] != stamp:
            labels = nodes.namespace_labels(pod.namespace)
            matching = [o for o in owners.terms.values() if o.term.matches(pod.namespace, pod.shape.labels, labels)]
            known = pod.shape.cache[name] = (stamp, matching)
        found: list[OwnedTerm] = known[1]
        return found

    # Filter

    def pre_filter(
        self, state: CycleState, pod: PodInfo, nodes: NodeColumns
    ) -> tuple[frozenset[str] | None, Status | None]:
        shape = pod.shape
        existing: Counts = {}
        for owned in self._matching(nodes.required_anti, pod, nodes, "ipa-existing"):
            self._add(existing, owned.term.topology_key, owned.counter, nodes)
        existing = {key: counts for key, counts in existing.items() if counts.any()}
        if not existing and not shape.required_affinity and not shape.required_anti:
            return None, SKIP
        affinity: Counts = {}
        if shape.required_affinity:
            counter = self._counter(shape.required_affinity, nodes)
            for term in shape.required_affinity:
                self._add(affinity, term.topology_key, counter, nodes)
        anti: Counts = {}
        for term in shape.required_anti:
            self._add(anti, term.topology_key, self._counter((term,), nodes), nodes)
        self_matching = bool(shape.required_affinity) and all(
            term.matches(pod.namespace, shape.labels, nodes.namespace_labels(pod.namespace))
            for term in shape.required_affinity
        )
        state.data[_FILTER_KEY] = _FilterState(nodes, existing, affinity, anti, self_matching)
        return None, None

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        mine: _FilterState = state.data[_FILTER_KEY]
        nodes, row = mine.nodes, node.row
        found = True
        for key, counts in mine.affinity.items():
            domain = nodes.topology(key).ids[row]
            if domain < 0:
                return unresolvable(REASON_AFFINITY)
            found &= bool(counts[domain] > 0)
        if not found and not mine.bootstraps():
            return unresolvable(REASON_AFFINITY)
        if any(counts[nodes.topology(key).ids[row]] > 0 for key, counts in mine.anti.items()):
            return unschedulable(REASON_ANTI)
        if any(counts[nodes.topology(key).ids[row]] > 0 for key, counts in mine.existing.items()):
            return unschedulable(REASON_EXISTING)
        return None

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints:
        mine: _FilterState = state.data[_FILTER_KEY]
        codes: Ints = np.zeros(nodes.size, dtype=np.int64)
        for counters, code in ((mine.existing, _EXISTING), (mine.anti, _ANTI)):
            for key, counts in counters.items():
                codes[(counts > 0)[nodes.topology(key).ids]] = code
        if mine.affinity:
            bootstraps = mine.bootstraps()
            for key, counts in mine.affinity.items():
                fails = np.zeros(len(counts), dtype=bool) if bootstraps else counts <= 0
                fails[-1] = True
                codes[fails[nodes.topology(key).ids]] = _AFFINITY
        return codes

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        if code == _AFFINITY:
            return unresolvable(REASON_AFFINITY)
        return unschedulable(REASON_ANTI if code == _ANTI else REASON_EXISTING)

    def _update(self, state: CycleState, pod: PodInfo, other: PodInfo, node: NodeInfo, sign: int) -> None:
        mine: _FilterState | None = state.data.get(_FILTER_KEY)
        if mine is None:
            return
        nodes = mine.nodes

        def count(counts: Counts, key: str) -> None:
            topology = nodes.topology(key)
            domain = topology.ids[node.row]
            if domain >= 0:
                if key not in counts:
                    counts[key] = np.zeros(len(topology.values) + 1, dtype=np.int64)
                counts[key][domain] += sign

        def matches(term: AffinityTerm, target: PodInfo) -> bool:
            return term.matches(target.namespace, target.shape.labels, nodes.namespace_labels(target.namespace))

        for term in other.shape.required_anti:
            if matches(term, pod):
                count(mine.existing, term.topology_key)
        if pod.shape.required_affinity and all(matches(term, other) for term in pod.shape.required_affinity):
            for term in pod.shape.required_affinity:
                count(mine.affinity, term.topology_key)
        for term in pod.shape.required_anti:
            if matches(term, other):
                count(mine.anti, term.topology_key)

    def add_pod(self, state: CycleState, pod: PodInfo, added: PodInfo, node: NodeInfo) -> None:
        self._update(state, pod, added, node, 1)

    def remove_pod(self, state: CycleState, pod: PodInfo, removed: PodInfo, node: NodeInfo) -> None:
        self._update(state, pod, removed, node, -1)

    # Score

    def pre_score(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Status | None:
        shape = pod.shape
        own = bool(shape.preferred_affinity or shape.preferred_anti)
        if self._ignore_existing and not own:
            return SKIP
        scores: Counts = {}
        for weight, term in shape.preferred_affinity:
            self._accumulate(scores, term.topology_key, self._counter((term,), nodes), weight, nodes)
        for weight, term in shape.preferred_anti:
            self._accumulate(scores, term.topology_key, self._counter((term,), nodes), -weight, nodes)
        if self._hard_weight > 0:
            for owned in self._matching(nodes.required_affinity, pod, nodes, "ipa-required"):
                self._accumulate(scores, owned.term.topology_key, owned.counter, self._hard_weight, nodes)
        for owned in self._matching(nodes.preferred_affinity, pod, nodes, "ipa-preferred"):
            self._accumulate(scores, owned.term.topology_key, owned.counter, owned.weight, nodes)
        for owned in self._matching(nodes.preferred_anti, pod, nodes, "ipa-avoided"):
            self._accumulate(scores, owned.term.topology_key, owned.counter, -owned.weight, nodes)
        if not scores:
            return SKIP
        state.data[_SCORE_KEY] = scores
        return None

    @staticmethod
    def _accumulate(scores: Counts, key: str, counter: PodCounter, weight: int, nodes: NodeColumns) -> None:
        """Add weight x matches by topology value; terms that nothing matches leave no trace."""
        topology = nodes.topology(key)
        counts = counter.by_domain(key, topology.ids, len(topology.values))
        if not counts[:-1].any():
            return
        weighted = counts * weight
        scores[key] = scores[key] + weighted if key in scores else weighted
        scores[key][-1] = 0

    def score_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Ints:
        scores: Counts = state.data[_SCORE_KEY]
        total: Ints = np.zeros(len(rows), dtype=np.int64)
        for key, counts in scores.items():
            total += counts[nodes.topology(key).ids[rows]]
        return total

    def normalize(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints, scores: Ints) -> Ints:
        lowest, highest = int(scores.min()), int(scores.max())
        if lowest == highest:
            return np.zeros_like(scores)
        return (100 * ((scores - lowest) / float(highest - lowest))).astype(np.int64)
