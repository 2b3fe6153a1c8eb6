"""NodeResourcesFit and NodeResourcesBalancedAllocation: what fits, and which node it suits best."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import SKIP, Code, CycleState, Ints, Status
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.requests import CPU, EPHEMERAL, MEMORY, is_scalar

TOO_MANY_PODS = "Too many pods"
_UNRESOLVABLE_BIT = 1 << 62
Floats = npt.NDArray[np.float64]


class NodeResourcesFit:
    """Filter: requests against what is left. Score: by the profile's strategy."""

    name = "NodeResourcesFit"
    also_at = ("preFilter", "preScore", "placementScore")
    local = True

    def __init__(self, args: Obj, ignored: frozenset[str] = frozenset()):
        self._ignored = frozenset(args.get("ignoredResources") or ()) | ignored
        self._ignored_groups = frozenset(args.get("ignoredResourceGroups") or ())
        strategy = args.get("scoringStrategy") or {}
        self._type = strategy.get("type") or "LeastAllocated"
        resources = strategy.get("resources") or [{"name": CPU, "weight": 1}, {"name": MEMORY, "weight": 1}]
        self._resources = [(str(r["name"]), int(r.get("weight") or 1)) for r in resources]
        shape = (strategy.get("requestedToCapacityRatio") or {}).get("shape") or []
        self._shape = [(int(p.get("utilization") or 0), int(p.get("score") or 0) * 10) for p in shape]

    def _wanted(self, pod: PodInfo) -> list[tuple[str, int]]:
        """Requests to check, in the order cpu, memory, ephemeral storage, scalars."""
        cache = pod.shape.cache
        known: list[tuple[str, int]] | None = cache.get(("fit", id(self)))
        if known is None:
            requests = pod.shape.requests
            first = [(name, requests[name]) for name in (CPU, MEMORY, EPHEMERAL) if requests.get(name)]
            scalars = [
                (name, amount)
                for name, amount in requests.items()
                if is_scalar(name)
                and amount
                and name not in self._ignored
                and name.split("/")[0] not in self._ignored_groups
            ]
            known = cache[("fit", id(self))] = first + scalars
        return known

    # Filter

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        reasons, unresolvable = [], False
        if len(node.pods) + 1 > node.allowed_pods:
            reasons.append(TOO_MANY_PODS)
        allocatable, requested = node.allocatable, node.requested
        for name, amount in self._wanted(pod):
            capacity = allocatable.get(name, 0)
            if amount > capacity - requested.get(name, 0):
                reasons.append(f"Insufficient {name}")
                unresolvable |= amount > capacity
        if not reasons:
            return None
        return Status(Code.UNSCHEDULABLE_AND_UNRESOLVABLE if unresolvable else Code.UNSCHEDULABLE, tuple(reasons))

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints:
        codes = (nodes.pod_count + 1 > nodes.allowed_pods).astype(np.int64)
        zeros = None
        for position, (name, amount) in enumerate(self._wanted(pod)):
            allocatable, requested = nodes.allocatable.get(name), nodes.requested.get(name)
            if allocatable is None or requested is None:
                zeros = np.zeros(nodes.size, dtype=np.int64) if zeros is None else zeros
                allocatable = zeros if allocatable is None else allocatable
                requested = zeros if requested is None else requested
            short = amount > allocatable - requested
            if short.any():
                codes |= np.where(short, 2 << position, 0)
                codes |= np.where(short & (amount > allocatable), _UNRESOLVABLE_BIT, 0)
        return codes

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        reasons = [TOO_MANY_PODS] if code & 1 else []
        reasons += [f"Insufficient {name}" for i, (name, _) in enumerate(self._wanted(pod)) if code & (2 << i)]
        severity = Code.UNSCHEDULABLE_AND_UNRESOLVABLE if code & _UNRESOLVABLE_BIT else Code.UNSCHEDULABLE
        return Status(severity, tuple(reasons))

    # Score

    def _pod_request(self, pod: PodInfo, name: str) -> int:
        if name == CPU:
            return pod.shape.scored[0]
        if name == MEMORY:
            return pod.shape.scored[1]
        return pod.shape.requests.get(name, 0)

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        amounts: list[tuple[int, int, int]] = []  # requested with the pod, capacity, weight
        for name, weight in self._resources:
            capacity = node.allocatable.get(name, 0)
            more = self._pod_request(pod, name)
            if capacity == 0 or (more == 0 and is_scalar(name)):
                continue
            if name == CPU:
                used = node.non_zero_cpu
            elif name == MEMORY:
                used = node.non_zero_memory
            else:
                used = node.requested.get(name, 0)
            amounts.append((used + more, capacity, weight))
        if self._type == "RequestedToCapacityRatio":
            return self._ratio_score(amounts)
        total = weights = 0
        least = self._type == "LeastAllocated"
        for requested, capacity, weight in amounts:
            if least:
                part = 0 if requested > capacity else (capacity - requested) * 100 // capacity
            else:
                part = min(requested, capacity) * 100 // capacity
            total += part * weight
            weights += weight
        return total // weights if weights else 0

    def _ratio_score(self, amounts: Sequence[tuple[int, int, int]]) -> int:
        total = weights = 0
        for requested, capacity, weight in amounts:
            utilization = 100 if requested > capacity else requested * 100 // capacity
            part = piecewise_linear(self._shape, utilization)
            if part > 0:
                total += part * weight
                weights += weight
        return math.floor(total / weights + 0.5) if weights else 0

    def score_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Ints:
        total = np.zeros(len(rows), dtype=np.int64)
        weights = np.zeros(len(rows), dtype=np.int64)
        for name, weight in self._resources:
            more = self._pod_request(pod, name)
            capacities = nodes.allocatable.get(name)
            if capacities is None or (more == 0 and is_scalar(name)):
                continue
            capacity = capacities[rows]
            present = capacity > 0
            divisor = np.where(present, capacity, 1)
            requested = self._used(nodes, name, rows) + more
            if self._type == "LeastAllocated":
                part = np.where(requested > capacity, 0, (capacity - requested) * 100 // divisor)
            elif self._type == "MostAllocated":
                part = np.minimum(requested, capacity) * 100 // divisor
            else:
                utilization = np.where(requested > capacity, 100, requested * 100 // divisor)
                table = [piecewise_linear(self._shape, u) for u in range(101)]
                part = np.array(table, dtype=np.int64)[np.clip(utilization, 0, 100)]
                present &= part > 0
            total += np.where(present, part * weight, 0)
            weights += np.where(present, weight, 0)
        if self._type == "RequestedToCapacityRatio":
            ratio = total / np.maximum(weights, 1)
            return np.floor(ratio + 0.5).astype(np.int64)
        return total // np.maximum(weights, 1)

    @staticmethod
    def _used(nodes: NodeColumns, name: str, rows: Ints) -> Ints:
        if name == CPU:
            return nodes.non_zero_cpu[rows]
        if name == MEMORY:
            return nodes.non_zero_memory[rows]
        used = nodes.requested.get(name)
        return np.zeros(len(rows), dtype=np.int64) if used is None else used[rows]


def piecewise_linear(shape: Sequence[tuple[int, int]], point: int) -> int:
    """helper.BuildBrokenLinearFunction: integer interpolation, flat outside."""
    for position, (utilization, score) in enumerate(shape):
        if point <= utilization:
            if position == 0:
                return shape[0][1]
            before_utilization, before_score = shape[position - 1]
            rise, run = score - before_score, utilization - before_utilization
            # Go's division truncates towards zero
            product = rise * (point - before_utilization)
            return before_score + (product // run if product >= 0 else -(-product // run))
    return shape[-1][1] if shape else 0


class BalancedAllocation:
    """NodeResourcesBalancedAllocation: how much the pod evens out the use of resources on a node."""

    name = "NodeResourcesBalancedAllocation"
    local = True

    def __init__(self, args: Obj):
        resources = args.get("resources") or [{"name": CPU}, {"name": MEMORY}]
        self._resources = [str(r["name"]) for r in resources]

    def pre_score(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Status | None:
        return None if any(pod.shape.requests.get(name) for name in self._resources) else SKIP

    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        before: list[float] = []
        after: list[float] = []
        for name in self._resources:
            capacity = node.allocatable.get(name, 0)
            more = pod.shape.requests.get(name, 0)
            if capacity == 0 or (more == 0 and is_scalar(name)):
                continue
            used = node.requested.get(name, 0)
            before.append(min(1.0, used / capacity))
            after.append(min(1.0, (used + more) / capacity))
        difference = 50 + int((1 - _deviation(after)) * 100) - int((1 - _deviation(before)) * 100)
        return 50 + (difference // 2 if difference >= 0 else -(-difference // 2))

    def score_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Ints:
        before: list[tuple[Floats, npt.NDArray[np.bool_]]] = []
        after: list[tuple[Floats, npt.NDArray[np.bool_]]] = []
        for name in self._resources:
            more = pod.shape.requests.get(name, 0)
            capacities = nodes.allocatable.get(name)
            if capacities is None or (more == 0 and is_scalar(name)):
                continue
            capacity = capacities[rows]
            present = capacity > 0
            divisor = np.where(present, capacity, 1)
            column = nodes.requested.get(name)
            used = np.zeros(len(rows), dtype=np.int64) if column is None else column[rows]
            before.append((np.minimum(1.0, used / divisor), present))
            after.append((np.minimum(1.0, (used + more) / divisor), present))
        change = 50 + _balance(after, len(rows)) - _balance(before, len(rows))
        return 50 + np.where(change >= 0, change // 2, -(-change // 2))


def _deviation(fractions: Sequence[float]) -> float:
    if len(fractions) == 2:
        return abs((fractions[0] - fractions[1]) / 2)
    if len(fractions) > 2:
        mean = sum(fractions) / len(fractions)
        total = 0.0
        for fraction in fractions:
            total += (fraction - mean) * (fraction - mean)
        return math.sqrt(total / len(fractions))
    return 0.0


def _balance(fractions: Sequence[tuple[Floats, npt.NDArray[np.bool_]]], size: int) -> Ints:
    """int64((1 - std) * 100) by row, over the resources that the row has; rows of one pattern are computed together."""
    result: Ints = np.full(size, 100, dtype=np.int64)
    if len(fractions) < 2:
        return result
    pattern = np.zeros(size, dtype=np.int64)
    for position, (_, present) in enumerate(fractions):
        pattern |= present.astype(np.int64) << position
    for bits in np.unique(pattern).tolist():
        values = [value for position, (value, _) in enumerate(fractions) if bits >> position & 1]
        if len(values) >= 2:
            rows = pattern == bits
            result[rows] = ((1 - _deviations([value[rows] for value in values])) * 100).astype(np.int64)
    return result


def _deviations(values: Sequence[Floats]) -> Floats:
    """`_deviation` over columns, in the same order of operations."""
    if len(values) == 2:
        return np.abs((values[0] - values[1]) / 2)
    total = np.zeros(len(values[0]))
    for value in values:
        total = total + value
    mean = total / len(values)
    squares = np.zeros(len(values[0]))
    for value in values:
        squares = squares + (value - mean) * (value - mean)
    return np.asarray(np.sqrt(squares / len(values)))
