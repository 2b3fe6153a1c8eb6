"""Node state as columns: one numpy array per property, one row per node.

Rows are slots: a node keeps its row while it lives, `order` lists the rows of existing nodes in evaluation order. A
placement changes one row and writes its number to the `touched` log, from which caches of identical pods learn what to
look at again; whatever changes a node itself raises `static_version`, which makes them start afresh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.framework import Ints
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.nodetree import NodeTree
from bowsprit.scheduler.objects import ClusterObjects
from bowsprit.scheduler.podindex import PodIndex, TermOwners
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.requests import CPU, EPHEMERAL, MEMORY

_LOG_LIMIT = 1_000_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Topology:
    """One label as a column: `ids[row]` is a position in `values`, or -1 where the node lacks the label."""

    ids: Ints
    values: list[str]
    index: dict[str, int]


class NodeColumns:
    """The snapshot that cycles work on; changed between them, one event at a time."""

    def __init__(self, objects: ClusterObjects | None = None) -> None:
        self.objects = objects or ClusterObjects()
        self.size = 0
        self.infos: list[NodeInfo | None] = []
        self.row_of: dict[str, int] = {}
        self.static_version = 0
        self.version = 0
        self.touched: list[int] = []
        self.log_epoch = 0
        self.allocatable: dict[str, Ints] = {}
        self.requested: dict[str, Ints] = {}
        self.non_zero_cpu: Ints = np.zeros(0, dtype=np.int64)
        self.non_zero_memory: Ints = np.zeros(0, dtype=np.int64)
        self.pod_count: Ints = np.zeros(0, dtype=np.int64)
        self.allowed_pods: Ints = np.zeros(0, dtype=np.int64)
        self.volume_count: Ints = np.zeros(0, dtype=np.int64)  # volumes (that plugins look at) of the pods on a row
        self.index = PodIndex()
        self.required_anti = TermOwners()
        self.required_affinity = TermOwners()
        self.preferred_affinity = TermOwners()
        self.preferred_anti = TermOwners()
        self.port_users: dict[tuple[str, int], dict[int, int]] = {}
        self.claim_users: dict[str, dict[int, int]] = {}  # "ns/claim" -> pods by row
        self.volume_rows: dict[int, int] = {}  # rows with pods that have volumes -> how many
        self._free: list[int] = []
        self._tree = NodeTree()
        self._order: Ints | None = None
        self._topologies: dict[str, Topology] = {}
        self._derived: dict[str, tuple[int, object]] = {}

    # nodes

    def __len__(self) -> int:
        return len(self.row_of)

    @property
    def order(self) -> Ints:
        """Rows of existing nodes in evaluation order."""
        if self._order is None:
            self._order = np.array([self.row_of[name] for name in self._tree.names()], dtype=np.int64)
        return self._order

    def info(self, row: int) -> NodeInfo:
        info = self.infos[row]
        assert info is not None, f"row {row} has no node"
        return info

    def node(self, name: str) -> NodeInfo | None:
        row = self.row_of.get(name)
        return None if row is None else self.infos[row]

    def set_node(self, obj: Obj) -> NodeInfo:
        """Add a node, or take over a changed one."""
        name = obj["metadata"]["name"]
        row = self.row_of.get(name)
        if row is None:
            row = self._new_row()
            info = self.infos[row] = NodeInfo(obj, row)
            self.row_of[name] = row
        else:
            info = self.info(row)
            info.set_node(obj)
        self._tree.add(name, info.labels)
        for column in self.allocatable.values():
            column[row] = 0
        for resource, amount in info.allocatable.items():
            self._column(self.allocatable, resource)[row] = amount
        self.allowed_pods[row] = info.allowed_pods
        self._static_change()
        return info

    def remove_node(self, name: str) -> list[PodInfo]:
        """Forget a node; returns the pods that were on it."""
        row = self.row_of.get(name)
        if row is None:
            return []
        info = self.info(row)
        pods = list(info.pods.values())
        for pod in pods:
            self.remove_pod(pod, row)
        del self.row_of[name]
        self._tree.remove(name)
        self.infos[row] = None
        for column in self.allocatable.values():
            column[row] = 0
        self.allowed_pods[row] = 0
        self._free.append(row)
        self._static_change()
        return pods

    def _static_change(self) -> None:
        self.static_version += 1
        self.version += 1
        self._order = None
        self._topologies.clear()

    def _new_row(self) -> int:
        if not self._free:
            old, self.size = self.size, max(16, self.size + self.size // 4)
            self.infos += [None] * (self.size - old)
            self._free = list(range(self.size - 1, old - 1, -1))
            for columns in (self.allocatable, self.requested):
                for resource, column in columns.items():
                    columns[resource] = self._grow(column)
            for name in ("non_zero_cpu", "non_zero_memory", "pod_count", "allowed_pods", "volume_count"):
                setattr(self, name, self._grow(getattr(self, name)))
            self.index.resize(self.size)
            for owners in (self.required_anti, self.required_affinity, self.preferred_affinity, self.preferred_anti):
                owners.resize(self.size)
            for resource in (CPU, MEMORY, EPHEMERAL):
                self._column(self.allocatable, resource)
                self._column(self.requested, resource)
        return self._free.pop()

    def _grow(self, column: Ints) -> Ints:
        grown: Ints = np.zeros(self.size, dtype=np.int64)
        grown[: len(column)] = column
        return grown

    def _column(self, columns: dict[str, Ints], resource: str) -> Ints:
        column = columns.get(resource)
        if column is None:
            column = columns[resource] = np.zeros(self.size, dtype=np.int64)
        return column

    # pods

    def add_pod(self, pod: PodInfo, row: int) -> None:
        self.info(row).add_pod(pod)
        self._count(pod, row, 1)

    def remove_pod(self, pod: PodInfo, row: int) -> None:
        info = self.info(row)
        info.move_last(pod.uid)
        known = info.remove_pod(pod)
        if known is not None:
            self._count(known, row, -1)

    def _count(self, pod: PodInfo, row: int, sign: int) -> None:
        info, shape = self.info(row), pod.shape
        for resource in shape.requests:
            self._column(self.requested, resource)[row] = info.requested[resource]
        self.non_zero_cpu[row] = info.non_zero_cpu
        self.non_zero_memory[row] = info.non_zero_memory
        self.pod_count[row] = len(info.pods)
        self.index.add(row, pod, sign)
        if shape.has_affinity:
            self._count_terms(pod, row, sign)
        for protocol, port, _ in shape.ports:
            _tally(self.port_users.setdefault((protocol, port), {}), row, sign)
        if pod.volumes:
            _tally(self.volume_rows, row, sign)
            self.volume_count[row] += sign * len(pod.volumes)
            for claim in pod.claim_names():
                key = f"{pod.namespace}/{claim}"
                users = self.claim_users.setdefault(key, {})
                _tally(users, row, sign)
                if not users:
                    del self.claim_users[key]
        self.touch(row)

    def _count_terms(self, pod: PodInfo, row: int, sign: int) -> None:
        shape = pod.shape
        for term in shape.required_anti:
            self.required_anti.add(row, term, 1, sign)
        for term in shape.required_affinity:
            self.required_affinity.add(row, term, 1, sign)
        for weight, term in shape.preferred_affinity:
            self.preferred_affinity.add(row, term, weight, sign)
        for weight, term in shape.preferred_anti:
            self.preferred_anti.add(row, term, weight, sign)

    def touch(self, row: int) -> None:
        """Say that something about a row has changed."""
        self.version += 1
        self.touched.append(row)
        if len(self.touched) > _LOG_LIMIT:
            self.touched.clear()
            self.log_epoch += 1

    # labels and other things derived from the nodes alone

    def topology(self, key: str) -> Topology:
        """The column of a label (or of the hostname, or of any key that selectors ask about)."""
        known = self._topologies.get(key)
        if known is None:
            index: dict[str, int] = {}
            ids: Ints = np.full(self.size, -1, dtype=np.int64)
            for row, info in enumerate(self.infos):
                if info is not None and key in info.labels:
                    ids[row] = index.setdefault(info.labels[key], len(index))
            known = self._topologies[key] = Topology(ids, list(index), index)
        return known

    def derived(self, name: str, build: Callable[[], T]) -> T:
        """A value that depends on the nodes alone, built once per static version."""
        known = self._derived.get(name)
        if known is None or known[0] != self.static_version:
            known = self._derived[name] = (self.static_version, build())
        return cast(T, known[1])

    def namespace_labels(self, namespace: str) -> dict[str, str]:
        return self.objects.namespace_labels(namespace)


def _tally(counts: dict[int, int], row: int, sign: int) -> None:
    count = counts.get(row, 0) + sign
    if count > 0:
        counts[row] = count
    else:
        counts.pop(row, None)
