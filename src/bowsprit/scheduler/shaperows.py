"""What is known about every row for one kind of pod in one profile: passes the local filters? with which scores?

Pods that ask the same of a single node (PodShape.local) share this. Between two of them only the rows in the `touched`
log are asked again, per node; when the nodes themselves changed, or too many rows did, everything is computed anew over
the columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import SKIP, CycleState, Ints, Mask, Status, pre_score_error
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.profile import Profile


def _is_local(plugin: Any) -> bool:
    return bool(getattr(plugin, "local", False))


def _is_static(plugin: Any) -> bool:
    return bool(getattr(plugin, "static", False))


class ShapeRows:
    """Local filters and scores by row. `plain` sums the weighted scores that need no normalising."""

    def __init__(self, profile: Profile):
        self._profile = profile
        self._static_version = -1
        self._epoch = -1
        self._position = 0
        self.mask: Mask = np.zeros(0, dtype=bool)
        self.plain: Ints = np.zeros(0, dtype=np.int64)
        self.raw: dict[str, Ints] = {}  # static plugins with normalisation whose scores differ between rows
        self._static_mask: Mask = self.mask
        self._static_plain: Ints = self.plain
        self._filters: list[Any] = []
        self.scored_by: list[str] = []  # the plugins that scored these rows
        self._scores: list[tuple[Any, int]] = []
        self._scored = False

    def refresh(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> None:
        """Bring the mask (and the scores, once they were asked for) up to date."""
        log = nodes.touched
        stale = len(log) - self._position
        if (
            self._static_version != nodes.static_version
            or self._epoch != nodes.log_epoch
            or len(self.mask) != nodes.size
            or stale > nodes.size // 40 + 8  # asking one row costs as much as 40 rows at once
        ):
            self._rebuild(state, pod, nodes)
        elif stale:
            for row in set(log[self._position :]):
                self._refresh_row(state, pod, nodes, row)
        self._position = len(log)

    def _rebuild(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> None:
        if self._static_version != nodes.static_version or len(self._static_mask) != nodes.size:
            self._static_mask = np.ones(nodes.size, dtype=bool)
            self._filters = []
            for plugin in self._profile.filters:
                if not _is_local(plugin) or plugin.name in state.skip_filter or not hasattr(plugin, "filter_rows"):
                    continue
                if _is_static(plugin):
                    self._static_mask &= plugin.filter_rows(state, pod, nodes) == 0
                else:
                    self._filters.append(plugin)
            self._scored = False
        self._static_version, self._epoch = nodes.static_version, nodes.log_epoch
        self.mask = self._static_mask.copy()
        for plugin in self._filters:
            self.mask &= plugin.filter_rows(state, pod, nodes) == 0
        if self._scored:
            self._rescore(state, pod, nodes)

    def _refresh_row(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, row: int) -> None:
        info = nodes.infos[row]
        if info is None:
            self.mask[row] = False
            return
        self.mask[row] = self._static_mask[row] and all(p.filter(state, pod, info) is None for p in self._filters)
        if self._scored:
            total = int(self._static_plain[row])
            for plugin, weight in self._scores:
                total += plugin.score(state, pod, info) * weight
            self.plain[row] = total

    def score(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> None:
        """Compute the scores of all rows, if that has not been done."""
        if self._scored:
            return
        rows = np.arange(nodes.size)
        self._scores = []
        self.scored_by = []
        self._static_plain = np.zeros(nodes.size, dtype=np.int64)
        self.raw = {}
        for plugin in self._profile.scores:
            if not _is_local(plugin) or not hasattr(plugin, "score_rows") or self.skips(state, pod, nodes, plugin):
                continue
            self.scored_by.append(plugin.name)
            weight = self._profile.weights[plugin.name]
            if hasattr(plugin, "normalize"):
                raw = plugin.score_rows(state, pod, nodes, rows)
                if raw.any():
                    self.raw[plugin.name] = raw
            elif _is_static(plugin):
                self._static_plain += plugin.score_rows(state, pod, nodes, rows) * weight
            else:
                self._scores.append((plugin, weight))
        self._scored = True
        self._rescore(state, pod, nodes)

    def _rescore(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> None:
        rows = np.arange(nodes.size)
        self.plain = self._static_plain.copy()
        for plugin, weight in self._scores:
            self.plain += plugin.score_rows(state, pod, nodes, rows) * weight

    def skips(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, plugin: Any) -> bool:
        """Whether PreScore of a local plugin answers Skip: that depends on the shape alone."""
        if plugin.name not in self._profile.pre_scores:
            return False
        status: Status | None = plugin.pre_score(state, pod, nodes, nodes.order)
        if status is not None and status.code != SKIP.code:
            raise pre_score_error(plugin.name, status)
        return status is not None
