"""Pods by row, counted per selector and per affinity term, kept up to date with every placement.

Bound pods are grouped by (namespace, labels, terminating): a selector is matched once per group, not once per pod. A
PodCounter holds, for one selector in use, how many matching pods each row has. TermOwners holds, for one affinity term,
how many pods that carry it each row has: what a newcomer must be checked against.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping

import numpy as np

from bowsprit.scheduler.framework import Ints
from bowsprit.scheduler.podinfo import AffinityTerm, PodInfo

GroupTest = Callable[[str, Mapping[str, str], bool], bool]  # (namespace, labels, terminating)

_GroupKey = tuple[str, tuple[tuple[str, str], ...], bool]


class PodCounter:
    """Matching pods by row. `domains` are the same counts summed by topology value, for keys that were asked for."""

    __slots__ = ("domains", "rows", "test", "version")

    def __init__(self, test: GroupTest, size: int):
        self.test = test
        self.rows: Ints = np.zeros(size, dtype=np.int64)
        self.domains: dict[str, tuple[Ints, Ints]] = {}  # key -> (ids by row, count by id)
        self.version = 0

    def add(self, row: int, count: int) -> None:
        self.rows[row] += count
        self.version += 1
        for ids, counts in self.domains.values():
            counts[ids[row]] += count

    def by_domain(self, key: str, ids: Ints, domains: int) -> Ints:
        """Counts by topology value; the last entry collects rows without the label."""
        known = self.domains.get(key)
        if known is None or known[0] is not ids:
            counts = np.bincount(np.where(ids < 0, domains, ids), self.rows, domains + 1).astype(np.int64)
            known = self.domains[key] = (ids, counts)
        return known[1]


class _Group:
    __slots__ = ("counters", "key", "labels", "namespace", "rows", "terminating")

    def __init__(self, key: _GroupKey):
        self.key = key
        self.namespace, labels, self.terminating = key
        self.labels = dict(labels)
        self.rows: dict[int, int] = {}
        self.counters: list[PodCounter] = []


class PodIndex:
    """All bound pods by group, and the counters over them."""

    MAX_COUNTERS = 2000

    def __init__(self) -> None:
        self._groups: dict[_GroupKey, _Group] = {}
        self._counters: OrderedDict[str, PodCounter] = OrderedDict()
        self.size = 0

    def resize(self, size: int) -> None:
        self.size = size
        for counter in self._counters.values():
            counter.rows = _grown(counter.rows, size)
            counter.domains.clear()

    def _group_of(self, pod: PodInfo) -> _Group:
        cache = pod.shape.cache
        base = cache.get("group")
        if base is None:
            base = cache["group"] = (pod.namespace, tuple(sorted(pod.shape.labels.items())))
        key = (base[0], base[1], pod.terminating)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(key)
            group.counters = [
                c for c in self._counters.values() if c.test(group.namespace, group.labels, group.terminating)
            ]
        return group

    def add(self, row: int, pod: PodInfo, sign: int) -> None:
        """Count a pod on a row (+1) or take it away (-1)."""
        group = self._group_of(pod)
        count = group.rows.get(row, 0) + sign
        if count:
            group.rows[row] = count
        else:
            group.rows.pop(row, None)
        for counter in group.counters:
            counter.add(row, sign)
        if not group.rows:
            del self._groups[group.key]

    def counter(self, name: str, test: GroupTest) -> PodCounter:
        """The counter called `name`, made by `test` when it is not in use yet."""
        counter = self._counters.get(name)
        if counter is not None:
            self._counters.move_to_end(name)
            return counter
        counter = self._counters[name] = PodCounter(test, self.size)
        for group in self._groups.values():
            if test(group.namespace, group.labels, group.terminating):
                group.counters.append(counter)
                for row, count in group.rows.items():
                    counter.rows[row] += count
        if len(self._counters) > self.MAX_COUNTERS:
            _, dropped = self._counters.popitem(last=False)
            for group in self._groups.values():
                group.counters = [c for c in group.counters if c is not dropped]
        return counter


def _grown(rows: Ints, size: int) -> Ints:
    grown: Ints = np.zeros(size, dtype=np.int64)
    grown[: min(len(rows), size)] = rows[:size]
    return grown


class OwnedTerm:
    """One affinity term and how many pods on each row carry it, once per weight."""

    __slots__ = ("counter", "owners", "term", "weight")

    def __init__(self, term: AffinityTerm, weight: int, size: int):
        self.term = term
        self.weight = weight
        self.counter = PodCounter(lambda namespace, labels, terminating: False, size)
        self.owners = 0


class TermOwners:
    """Affinity terms of bound pods of one kind (required anti-affinity, preferred affinity...), by identity and weight."""

    def __init__(self) -> None:
        self.terms: dict[tuple[str, int], OwnedTerm] = {}
        self.version = 0  # grows when the set of terms changes, not with each owner
        self.size = 0

    def resize(self, size: int) -> None:
        self.size = size
        for owned in self.terms.values():
            owned.counter.rows = _grown(owned.counter.rows, size)
            owned.counter.domains.clear()

    def add(self, row: int, term: AffinityTerm, weight: int, sign: int) -> None:
        key = (term.text, weight)
        owned = self.terms.get(key)
        if owned is None:
            owned = self.terms[key] = OwnedTerm(term, weight, self.size)
            self.version += 1
        owned.counter.add(row, sign)
        owned.owners += sign
        if owned.owners <= 0:
            del self.terms[key]
            self.version += 1
