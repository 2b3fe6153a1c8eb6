"""The scheduling cycle: one pod against the snapshot (upstream: schedule_one.go, schedulePod and what it calls).

Pure: the caller owns the queue, binding and the clock. Results equal those of the sequential algorithm with
parallelism 1: nodes are examined from the rotating start index, as many as percentageOfNodesToScore asks for; exactly one
surplus feasible node is looked at, and the next pod starts there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from bowsprit.scheduler.cache import Cache
from bowsprit.scheduler.framework import (
    MAX_NODE_SCORE,
    SKIP,
    Code,
    CycleError,
    CycleState,
    Ints,
    Mask,
    NodeStatuses,
    Status,
    pre_score_error,
    reasons_text,
    unresolvable,
)
from bowsprit.scheduler.nominator import Nominator
from bowsprit.scheduler.order import NodeHeap, best
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.profile import Profile, status_name
from bowsprit.scheduler.shaperows import ShapeRows

NO_NODES = "no nodes available to schedule pods"
MIN_FEASIBLE_NODES = 100
MIN_PERCENTAGE = 5
MAX_SHAPES = 256  # kinds of pods whose rows are remembered, per profile


@dataclass(slots=True)
class Scores:
    """Weighted, normalised scores of the feasible nodes. None: the plugin gave the node no score."""

    plugins: list[str]
    nodes: dict[str, list[int | None]]
    totals: dict[str, int]


@dataclass(slots=True)
class Placement:
    """A successful cycle."""

    node: str
    evaluated: int
    feasible: int
    scores: Scores | None = None


@dataclass(slots=True)
class FitError(Exception):
    """No node fits: FitError with its Diagnosis."""

    total: int
    statuses: NodeStatuses
    pre_filter_message: str = ""
    post_filter_message: str = ""
    no_nodes: bool = False

    def __str__(self) -> str:
        if self.no_nodes:
            return NO_NODES
        text = f"0/{self.total} nodes are available:"
        if self.pre_filter_message:
            text += f" {self.pre_filter_message}."
        else:
            reasons = reasons_text(self.statuses.reasons(self.total))
            text += f" {reasons}." if reasons else ""
        return f"{text} {self.post_filter_message}" if self.post_filter_message else text

    def rejectors(self) -> set[str]:
        """Plugins whose events may make the pod schedulable."""
        return self.statuses.plugins()


@dataclass(slots=True)
class _Batch:
    """OpportunisticBatching (KEP-5598): the sorted rest of the last scored cycle."""

    signature: Any
    heap: NodeHeap
    rows: list[int]
    last_node: str
    cycle: int
    created: float


@dataclass(slots=True)
class Algorithm:
    """State that lives across pods: the start index and the batch."""

    cache: Cache
    nominator: Nominator
    percentage: int = 0
    batching: bool = False
    keep_scores: bool = False
    start: int = 0
    cycles: int = 0
    _batch: _Batch | None = None
    extenders: list[Any] = field(default_factory=list)

    # entry

    def schedule(self, profile: Profile, pod: PodInfo, state: CycleState, now: float = 0.0) -> Placement:
        """Find a node. Raises FitError when none fits, CycleError when a plugin fails."""
        self.cycles += 1
        nodes = self.cache.nodes
        if not len(nodes):
            self._batch = None
            raise FitError(0, NodeStatuses(), no_nodes=True)
        signature = self._signature(profile, pod) if self.batching else None
        rows, evaluated, hint = self._feasible(profile, pod, state, signature, now)
        if len(rows) == 1:
            name = nodes.info(int(rows[0])).name
            self._remember_hint(hint, name, signature)
            return Placement(name, evaluated, 1)
        totals, scores = self._totals(profile, pod, state, rows)
        if signature is not None:
            heap = NodeHeap([int(total) for total in totals])
            position = heap.pop()
            name = nodes.info(int(rows[position])).name
            self._batch = _Batch(signature, heap, [int(r) for r in rows], name, self.cycles, now)
        else:
            position = best(totals)
            self._batch = None
        return Placement(nodes.info(int(rows[position])).name, evaluated, len(rows), scores)

    # filtering

    def _feasible(
        self, profile: Profile, pod: PodInfo, state: CycleState, signature: Any, now: float
    ) -> tuple[Ints, int, str]:
        nodes = self.cache.nodes
        names, rejection, limiting = profile.run_pre_filter(state, pod)
        if rejection is not None:
            if not rejection.rejected:
                raise CycleError(rejection)
            raise FitError(len(nodes), NodeStatuses(absent=rejection), pre_filter_message=rejection.message)
        hint = self._hint(profile, pod, state, signature, now) if signature is not None else ""
        preferred = pod.nominated or hint
        if preferred:
            info = nodes.node(preferred)
            if info is not None and profile.run_filters_with_nominated(state, pod, info) is None:
                rows = self._extend(profile, pod, np.array([info.row]), NodeStatuses())
                if len(rows):
                    return rows, 1, hint
        order = nodes.order
        if names is not None:
            chosen = {nodes.row_of[name] for name in names if name in nodes.row_of}
            order = np.array([row for row in order.tolist() if row in chosen], dtype=np.int64)
        mask = self._mask(profile, pod, state)
        rows, evaluated = self._window(profile, mask, order)
        statuses = NodeStatuses()
        if self.extenders and len(rows):
            found = len(rows)
            rows = self._extend(profile, pod, rows, statuses)
            if not len(rows) and found:
                self._fill_statuses(profile, pod, state, order, statuses, names, limiting)
        self.start = (self.start + evaluated) % len(nodes)
        if not len(rows):
            if not statuses.groups:
                self._fill_statuses(profile, pod, state, order, statuses, names, limiting)
            raise FitError(len(nodes), statuses)
        return rows, evaluated, hint

    def _fill_statuses(
        self,
        profile: Profile,
        pod: PodInfo,
        state: CycleState,
        order: Ints,
        statuses: NodeStatuses,
        names: frozenset[str] | None,
        limiting: set[str],
    ) -> None:
        self.diagnose(profile, pod, state, order, statuses)
        if names is not None:
            listed = " ".join(sorted(limiting))
            statuses.absent = Status(
                Code.UNSCHEDULABLE_AND_UNRESOLVABLE, (f"node(s) didn't satisfy plugin(s) [{listed}]",), min(limiting)
            )

    def _mask(self, profile: Profile, pod: PodInfo, state: CycleState) -> Mask:
        """Rows that pass every filter."""
        nodes = self.cache.nodes
        shape_rows = self._shape_rows(profile, pod)
        shape_rows.refresh(state, pod, nodes)
        mask = shape_rows.mask
        slow: list[Any] = []
        for plugin in profile.filters:
            if plugin.name in state.skip_filter:
                continue
            profile.evaluations["Filter", plugin.name] += 1
            if not hasattr(plugin, "filter_rows"):
                if not getattr(plugin, "local", False):
                    slow.append(plugin)
            elif not getattr(plugin, "local", False):
                started = perf_counter()
                codes = plugin.filter_rows(state, pod, nodes)
                if codes is not None:
                    mask = mask & (codes == 0)
                if profile.recorder:
                    profile.recorder("Filter", plugin.name, "Success", perf_counter() - started)
        if slow or self.nominator:
            mask = self._scrutinize(profile, pod, state, mask.copy(), slow)
        return mask

    def _scrutinize(self, profile: Profile, pod: PodInfo, state: CycleState, mask: Mask, slow: list[Any]) -> Mask:
        """Per-node plugins on the rows that are left, and nodes that were promised to other pods."""
        nodes = self.cache.nodes
        if slow:
            for row in nodes.order[mask[nodes.order]].tolist():
                info = nodes.info(row)
                for plugin in slow:
                    status = plugin.filter(state, pod, info)
                    if status is not None and status.code == Code.ERROR:
                        raise CycleError(status.of(plugin.name))
                    if status is not None:
                        mask[row] = False
                        break
        for name in self.nominator.nodes():
            row = nodes.row_of.get(name, -1)
            if row >= 0 and mask[row] and self.nominator.rivals(pod, name):
                mask[row] = profile.run_filters_with_nominated(state, pod, nodes.info(row)) is None
        return mask

    @staticmethod
    def _shape_rows(profile: Profile, pod: PodInfo) -> ShapeRows:
        key = pod.shape.local
        known: ShapeRows | None = profile.rows.get(key)
        if known is None:
            known = profile.rows[key] = ShapeRows(profile)
            if len(profile.rows) > MAX_SHAPES:
                profile.rows.popitem(last=False)
        else:
            profile.rows.move_to_end(key)
        return known

    def wanted_feasible(self, profile: Profile, count: int) -> int:
        """numFeasibleNodesToFind: how many feasible nodes end the search among `count` nodes."""
        if not profile.scores and not any(e.is_filter for e in self.extenders):
            return 1
        if count < MIN_FEASIBLE_NODES:
            return count
        percentage = self.percentage if profile.percentage is None else profile.percentage
        if percentage == 0:
            percentage = max(50 - count // 125, MIN_PERCENTAGE)
        if percentage >= 100:
            return count
        return max(MIN_FEASIBLE_NODES, count * percentage // 100)

    def _window(self, profile: Profile, mask: Mask, order: Ints) -> tuple[Ints, int]:
        """Feasible rows in evaluation order from the start index, and how many nodes were examined."""
        count = len(order)
        if not count:
            return order, 0
        start = self.start % count
        positions = np.flatnonzero(mask[order])
        if start:
            split = int(np.searchsorted(positions, start))
            positions = np.concatenate((positions[split:], positions[:split]))
        wanted = self.wanted_feasible(profile, count)
        evaluated = count
        if len(positions) > wanted:
            evaluated = (int(positions[wanted]) - start) % count
            positions = positions[:wanted]
        return order[positions], evaluated

    def diagnose(self, profile: Profile, pod: PodInfo, state: CycleState, order: Ints, statuses: NodeStatuses) -> None:
        """Why each row was turned away: the first rejection in the order of the plugins."""
        nodes = self.cache.nodes
        alive = np.zeros(nodes.size, dtype=bool)
        alive[order] = True
        for name in self.nominator.nodes() if self.nominator else ():
            row = nodes.row_of.get(name, -1)
            if row >= 0 and alive[row] and self.nominator.rivals(pod, name):
                status = profile.run_filters_with_nominated(state, pod, nodes.info(row))
                if status is not None:
                    statuses.add(status, [row])
                alive[row] = False
        for plugin in profile.filters:
            if plugin.name in state.skip_filter or not alive.any():
                continue
            if hasattr(plugin, "filter_rows"):
                codes = plugin.filter_rows(state, pod, nodes)
                if codes is None:
                    continue
                failed = alive & (codes != 0)
                for code in np.unique(codes[failed]).tolist():
                    rows = np.flatnonzero(failed & (codes == code))
                    statuses.add(plugin.explain(state, pod, code).of(plugin.name), rows.tolist())
                alive &= ~failed
            else:
                for row in np.flatnonzero(alive).tolist():
                    status = plugin.filter(state, pod, nodes.info(row))
                    if status is not None:
                        if status.code == Code.ERROR:
                            raise CycleError(status.of(plugin.name))
                        statuses.add(status.of(plugin.name), [row])
                        alive[row] = False

    def _extend(self, profile: Profile, pod: PodInfo, rows: Ints, statuses: NodeStatuses) -> Ints:
        """Extenders' filters, one after the other."""
        nodes = self.cache.nodes
        for extender in self.extenders:
            if not len(rows):
                break
            if not extender.is_filter or not extender.is_interested(pod):
                continue
            names = [nodes.info(int(row)).name for row in rows]
            try:
                kept, failed, unresolved = extender.filter(pod, names)
            except Exception as exc:
                if extender.ignorable:
                    continue
                raise CycleError(Status(Code.ERROR, (str(exc),))) from exc
            for name, message in failed.items():
                if name not in unresolved:
                    statuses.add(Status(Code.UNSCHEDULABLE, (message,), extender.name), [nodes.row_of[name]])
            for name, message in unresolved.items():
                statuses.add(unresolvable(message).of(extender.name), [nodes.row_of[name]])
            allowed = set(kept)
            rows = np.array(
                [r for r, name in zip(rows.tolist(), names, strict=True) if name in allowed], dtype=np.int64
            )
        return rows

    # scoring

    def _totals(self, profile: Profile, pod: PodInfo, state: CycleState, rows: Ints) -> tuple[Ints, Scores | None]:
        nodes = self.cache.nodes
        scores: Scores | None = None
        if self.keep_scores or self.extenders:
            totals, scores = self._all_scores(profile, pod, state, rows)
        else:
            totals = self._fast_totals(profile, pod, state, rows)
        if self.extenders:
            totals = totals + self._extender_scores(pod, [nodes.info(int(row)).name for row in rows])
        return totals, scores

    def _fast_totals(self, profile: Profile, pod: PodInfo, state: CycleState, rows: Ints) -> Ints:
        """Totals up to a constant: plugins that give every node the same score are left out."""
        nodes = self.cache.nodes
        shape_rows = self._shape_rows(profile, pod)
        shape_rows.refresh(state, pod, nodes)
        shape_rows.score(state, pod, nodes)
        for name in shape_rows.scored_by:
            profile.evaluations["Score", name] += 1
        totals: Ints = shape_rows.plain[rows]
        for plugin in profile.scores:
            weight = profile.weights[plugin.name]
            if getattr(plugin, "local", False):
                raw = shape_rows.raw.get(plugin.name)
                if raw is not None:
                    totals = totals + plugin.normalize(state, pod, nodes, rows, raw[rows]) * weight
                continue
            scored = self._score_of(profile, plugin, pod, state, rows)
            if scored is not None:
                totals = totals + scored * weight
        return totals

    def _score_of(self, profile: Profile, plugin: Any, pod: PodInfo, state: CycleState, rows: Ints) -> Ints | None:
        """PreScore, Score and NormalizeScore of one plugin; None when it skips."""
        nodes = self.cache.nodes
        started = perf_counter()
        if plugin.name in profile.pre_scores:
            status = plugin.pre_score(state, pod, nodes, rows)
            if profile.recorder:
                profile.recorder("PreScore", plugin.name, status_name(status), perf_counter() - started)
                started = perf_counter()
            if status is not None:
                if status.code == SKIP.code:
                    return None
                raise pre_score_error(plugin.name, status)
            profile.evaluations["PreScore", plugin.name] += 1
        profile.evaluations["Score", plugin.name] += 1
        if hasattr(plugin, "score_rows"):
            scores: Ints = plugin.score_rows(state, pod, nodes, rows)
        else:
            scores = np.array([plugin.score(state, pod, nodes.info(int(row))) for row in rows], dtype=np.int64)
        if hasattr(plugin, "normalize"):
            scores = plugin.normalize(state, pod, nodes, rows, scores)
        if profile.recorder:
            profile.recorder("Score", plugin.name, "Success", perf_counter() - started)
        if len(scores) and (scores.min() < 0 or scores.max() > MAX_NODE_SCORE):
            bad = int(scores.min() if scores.min() < 0 else scores.max())
            raise CycleError(
                Status(
                    Code.ERROR,
                    (f'plugin "{plugin.name}" returns an invalid score {bad}, it should in the range of [0, 100]',),
                    plugin.name,
                )
            )
        return scores

    def _all_scores(self, profile: Profile, pod: PodInfo, state: CycleState, rows: Ints) -> tuple[Ints, Scores]:
        nodes = self.cache.nodes
        names = [nodes.info(int(row)).name for row in rows]
        totals: Ints = np.zeros(len(rows), dtype=np.int64)
        columns: list[Ints] = []
        plugins: list[str] = []
        for plugin in profile.scores:
            scored = self._score_of(profile, plugin, pod, state, rows)
            if scored is None:
                continue
            weighted = scored * profile.weights[plugin.name]
            plugins.append(plugin.name)
            columns.append(weighted)
            totals = totals + weighted
        by_node = {name: [int(column[i]) for column in columns] for i, name in enumerate(names)}
        listed: dict[str, list[int | None]] = {name: list(values) for name, values in by_node.items()}
        return totals, Scores(plugins, listed, {name: int(totals[i]) for i, name in enumerate(names)})

    def _extender_scores(self, pod: PodInfo, names: list[str]) -> Ints:
        totals: Ints = np.zeros(len(names), dtype=np.int64)
        for extender in self.extenders:
            if extender.is_prioritizer and extender.is_interested(pod):
                try:
                    given = extender.prioritize(pod, names)
                except Exception:  # noqa: S112 - upstream ignores prioritizers that fail
                    continue
                totals += np.array([given.get(name, 0) * extender.weight * 10 for name in names], dtype=np.int64)
        return totals

    # batching

    def _signature(self, profile: Profile, pod: PodInfo) -> Any:
        """Pods with the same signature get the same answers; None when some plugin cannot tell."""
        if self.extenders or pod.has_resource_claims() or pod.shape.spread or pod.shape.has_affinity:
            return None
        if any(getattr(plugin, "has_defaults", False) for plugin in profile.plugins.values()):
            return None
        if any(not getattr(plugin, "signs", True) for plugin in profile.plugins.values()):
            return None
        return profile.scheduler_name, id(pod.shape), str(pod.volumes)

    def _hint(self, profile: Profile, pod: PodInfo, state: CycleState, signature: Any, now: float) -> str:
        batch, self._batch = self._batch, None
        if (
            batch is None
            or batch.signature != signature
            or batch.cycle != self.cycles - 1
            or now - batch.created > 0.5
            or not len(batch.heap)
        ):
            return ""
        last = self.cache.nodes.node(batch.last_node)
        if last is None or profile.run_filters_with_nominated(state, pod, last) is None:
            return ""
        self._batch = batch
        return self.cache.nodes.info(batch.rows[batch.heap.pop()]).name

    def _remember_hint(self, hint: str, chosen: str, signature: Any) -> None:
        """A hinted node that was taken keeps the batch alive; anything else ends it."""
        if self._batch is not None and hint and hint == chosen and self._batch.signature == signature:
            self._batch.last_node = chosen
            self._batch.cycle = self.cycles
        else:
            self._batch = None
