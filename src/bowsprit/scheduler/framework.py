"""What plugins see: statuses, the state of one cycle, and the extension points as small Protocols.

A plugin is an object with a `name`; the methods it has decide at which points it can run, as in
k8s.io/kube-scheduler/framework. Filter and Score come in two forms: per node (`filter`, `score`), simple; and per
column (`filter_rows`, `score_rows`), where numpy arrays over all nodes are answered at once. A plugin that has the column
form must have the per-node form of Filter too: dry runs of preemption look at one node at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from bowsprit.scheduler.columns import NodeColumns
    from bowsprit.scheduler.nodeinfo import NodeInfo
    from bowsprit.scheduler.podinfo import PodInfo

MAX_NODE_SCORE = 100
MIN_NODE_SCORE = 0

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Code(IntEnum):
    """fwk.Code: how an extension point answered."""

    SUCCESS = 0
    ERROR = 1
    UNSCHEDULABLE = 2
    UNSCHEDULABLE_AND_UNRESOLVABLE = 3
    WAIT = 4
    SKIP = 5
    PENDING = 6


@dataclass(frozen=True, slots=True)
class Status:
    """The answer of an extension point; None stands for success."""

    code: Code
    reasons: tuple[str, ...] = ()
    plugin: str = ""

    @property
    def message(self) -> str:
        return ", ".join(self.reasons)

    @property
    def rejected(self) -> bool:
        """Whether the pod was turned away (as opposed to success, skip, wait or an error)."""
        return self.code in (Code.UNSCHEDULABLE, Code.UNSCHEDULABLE_AND_UNRESOLVABLE, Code.PENDING)

    def of(self, plugin: str) -> Status:
        return self if self.plugin else Status(self.code, self.reasons, plugin)


def unschedulable(*reasons: str) -> Status:
    """The node does not fit now; removing pods may help."""
    return Status(Code.UNSCHEDULABLE, reasons)


def unresolvable(*reasons: str) -> Status:
    """The node does not fit and preemption cannot help."""
    return Status(Code.UNSCHEDULABLE_AND_UNRESOLVABLE, reasons)


def failure(reason: str) -> Status:
    """An internal error: the attempt is given up and retried later."""
    return Status(Code.ERROR, (reason,))


class CycleError(Exception):
    """An internal error (a plugin failed): the attempt ends with reason SchedulerError."""

    def __init__(self, status: Status):
        super().__init__(status.message)
        self.status = status


def pre_score_error(plugin: str, status: Status) -> CycleError:
    """RunPreScorePlugins' error."""
    return CycleError(failure(f'running PreScore plugin "{plugin}": {status.message}').of(plugin))


SKIP = Status(Code.SKIP)
WAIT = Status(Code.WAIT)


class CycleState:
    """What plugins leave for each other during one scheduling cycle, by key."""

    __slots__ = ("data", "skip_filter", "skip_score")

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.skip_filter: set[str] = set()
        self.skip_score: set[str] = set()

    def clone(self) -> CycleState:
        """A copy for a dry run: values with a clone() method are cloned, others are shared."""
        copy = CycleState()
        copy.data = {key: value.clone() if hasattr(value, "clone") else value for key, value in self.data.items()}
        copy.skip_filter = set(self.skip_filter)
        copy.skip_score = set(self.skip_score)
        return copy


class Plugin(Protocol):
    """Anything that is registered: `name` is what configurations call it."""

    @property
    def name(self) -> str: ...


class PreEnqueuePlugin(Plugin, Protocol):
    def pre_enqueue(self, pod: PodInfo) -> Status | None: ...


class QueueSortPlugin(Plugin, Protocol):
    def sort_key(self, pod: PodInfo, timestamp: float) -> Any:
        """A key in ascending order (where upstream has Less)."""


class PreFilterPlugin(Plugin, Protocol):
    def pre_filter(
        self, state: CycleState, pod: PodInfo, nodes: NodeColumns
    ) -> tuple[frozenset[str] | None, Status | None]:
        """Node names to look at (None: all) and a status; SKIP turns this plugin's Filter off."""


class PreFilterExtensions(Plugin, Protocol):
    def add_pod(self, state: CycleState, pod: PodInfo, added: PodInfo, node: NodeInfo) -> None: ...
    def remove_pod(self, state: CycleState, pod: PodInfo, removed: PodInfo, node: NodeInfo) -> None: ...


class FilterPlugin(Plugin, Protocol):
    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None: ...


class FilterColumnsPlugin(Plugin, Protocol):
    """Answers all rows at once: 0 passes, any other code is turned into a Status by `explain`.

    `local` says that the answer for a row depends on that row and on nothing of the pod but its requests, containers
    (images, ports), tolerations and node affinity - not on labels, namespace or other pods. The framework then keeps the
    answers for pods that are equal in these and asks again (per node) only for rows that changed.
    """

    local: bool

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints: ...
    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status: ...


class PostFilterPlugin(Plugin, Protocol):
    def post_filter(self, state: CycleState, pod: PodInfo, statuses: Any) -> tuple[str | None, Status | None]:
        """The nominated node ("" clears the nomination, None leaves it) and a status."""


class PreScorePlugin(Plugin, Protocol):
    def pre_score(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Status | None: ...


class ScorePlugin(Plugin, Protocol):
    def score(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int: ...


class ScoreColumnsPlugin(Plugin, Protocol):
    local: bool

    def score_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Ints: ...


class NormalizePlugin(Plugin, Protocol):
    def normalize(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints, scores: Ints) -> Ints: ...


class ReservePlugin(Plugin, Protocol):
    def reserve(self, state: CycleState, pod: PodInfo, node_name: str) -> Status | None: ...
    def unreserve(self, state: CycleState, pod: PodInfo, node_name: str) -> None: ...


class PermitPlugin(Plugin, Protocol):
    def permit(self, state: CycleState, pod: PodInfo, node_name: str) -> tuple[Status | None, float]:
        """A status and, with WAIT, how many seconds at most to wait."""


class PreBindPlugin(Plugin, Protocol):
    async def pre_bind(self, state: CycleState, pod: PodInfo, node_name: str) -> Status | None: ...


class BindPlugin(Plugin, Protocol):
    async def bind(self, state: CycleState, pod: PodInfo, node_name: str) -> Status | None: ...


class PostBindPlugin(Plugin, Protocol):
    def post_bind(self, state: CycleState, pod: PodInfo, node_name: str) -> None: ...


@dataclass(slots=True)
class NodeStatuses:
    """Why nodes were turned away: rows by status, and one status for all nodes that are not listed."""

    groups: list[tuple[Status, list[int]]] = field(default_factory=list)
    absent: Status | None = None

    def add(self, status: Status, rows: Iterable[int]) -> None:
        self.groups.append((status, list(rows)))

    def rows_with(self, code: Code) -> list[int]:
        return [row for status, rows in self.groups if status.code == code for row in rows]

    def of_row(self, row: int) -> Status | None:
        for status, rows in self.groups:
            if row in rows:
                return status
        return self.absent

    def listed(self) -> int:
        return sum(len(rows) for _, rows in self.groups)

    def reasons(self, total: int) -> dict[str, int]:
        """Nodes by reason, as FitError counts them. `total` is the number of nodes in the snapshot."""
        counts: dict[str, int] = {}
        for status, rows in self.groups:
            for reason in status.reasons:
                counts[reason] = counts.get(reason, 0) + len(rows)
        missing = total - self.listed()
        if self.absent is not None and missing > 0:
            for reason in self.absent.reasons:
                counts[reason] = counts.get(reason, 0) + missing
        return counts

    def plugins(self) -> set[str]:
        names = {status.plugin for status, rows in self.groups if status.plugin and rows}
        if self.absent is not None and self.absent.plugin:
            names.add(self.absent.plugin)
        return names


def default_normalize(scores: Ints, reverse: bool) -> Ints:
    """helper.DefaultNormalizeScore: scale to 0..100 by the highest score."""
    highest = int(scores.max()) if len(scores) else 0
    if highest == 0:
        return np.full_like(scores, MAX_NODE_SCORE) if reverse else scores
    scaled: Ints = MAX_NODE_SCORE * scores // highest
    return MAX_NODE_SCORE - scaled if reverse else scaled


def reasons_text(counts: dict[str, int]) -> str:
    """`1 a, 2 b` in the lexical order of the joined strings, as FitError prints it."""
    return ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
