"""The scheduling queue: active, backoff and unschedulable pods (backend/queue.PriorityQueue). No I/O, clock injected.

- active: ready, ordered by the QueueSort plugin.
- backoff: failed a short while ago; returns when its time is over, or at once when active is empty (PopFromBackoffQ).
- unschedulable: waits for an event that a plugin which rejected it calls useful, or for the timeout.
While a pod is being scheduled, events are kept; when it comes back they are asked as if they had just happened.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.events import (
    ATTEMPT_FAILURE,
    BACKOFF_COMPLETE,
    FORCE_ACTIVATE,
    POD_ADD,
    UNSCHEDULABLE_TIMEOUT,
    UNSCHEDULED_POD,
    Event,
    pod_events,
)
from bowsprit.scheduler.framework import Status
from bowsprit.scheduler.hints import helps, of_interest
from bowsprit.scheduler.nominator import Nominator
from bowsprit.scheduler.podinfo import PodInfo

ACTIVE, BACKOFF, UNSCHEDULABLE = "Active", "Backoff", "Unschedulable"
_SKIP, _AFTER_BACKOFF, _AT_ONCE = 0, 1, 2
_MAX_EVENTS = 100_000

Observer = Callable[[str, PodInfo, Event, str], None]  # ("queued"|"notQueued", pod, event, queue)


@dataclass(slots=True, eq=False)
class QueuedPod:
    """A pod with its history in the queue (QueuedPodInfo)."""

    pod: PodInfo
    timestamp: float
    added: float
    attempts: int = 0
    unschedulable_count: int = 0
    errors: int = 0
    rejectors: set[str] = field(default_factory=set)
    pending: set[str] = field(default_factory=set)
    gated_by: str = ""
    expires: float | None = None  # end of the backoff
    where: str = ""
    ticket: int = 0  # heap entries with an older ticket are stale
    seen: int = 0  # position in the event log when it was popped


@dataclass(slots=True)
class QueueOptions:
    initial_backoff: float = 1.0
    max_backoff: float = 10.0
    max_unschedulable: float = 300.0
    pop_from_backoff: bool = True


class SchedulingQueue:
    """`sort_key(pod, timestamp)` is the QueueSort plugin's; `pre_enqueue(pod)` runs the PreEnqueue plugins."""

    def __init__(
        self,
        nodes: NodeColumns,
        nominator: Nominator,
        clock: Callable[[], float],
        sort_key: Callable[[PodInfo, float], Any],
        pre_enqueue: Callable[[PodInfo], Status | None],
        options: QueueOptions | None = None,
        observer: Observer | None = None,
    ):
        self._nodes = nodes
        self._nominator = nominator
        self._clock = clock
        self._sort_key = sort_key
        self._pre_enqueue = pre_enqueue
        self._options = options or QueueOptions()
        self._observer = observer
        self._pods: dict[str, QueuedPod] = {}  # by uid: everything that waits
        self._unschedulable: dict[str, QueuedPod] = {}
        self._attentive: dict[str, QueuedPod] = {}  # those of them that other objects' events may help: not the gated
        self._active: list[tuple[Any, int, QueuedPod]] = []
        self._backoff: list[tuple[float, Any, int, QueuedPod]] = []
        self._tickets = itertools.count(1)
        self._counts = {ACTIVE: 0, BACKOFF: 0}
        self._in_flight: dict[str, QueuedPod] = {}
        self._events: list[tuple[Event, Any, Any]] = []
        self._events_start = 0

    # looking

    def __len__(self) -> int:
        return len(self._pods)

    def sizes(self) -> dict[str, int]:
        """Pods by queue, as the metric pending_pods names them."""
        gated = sum(1 for queued in self._unschedulable.values() if queued.gated_by)
        return {
            "active": self._counts[ACTIVE],
            "backoff": self._counts[BACKOFF],
            "unschedulable": len(self._unschedulable) - gated,
            "gated": gated,
        }

    def rejections(self) -> Counter[tuple[str, str]]:
        """Unschedulable pods by (plugin that rejected them, scheduler name)."""
        found: Counter[tuple[str, str]] = Counter()
        for queued in self._unschedulable.values():
            found.update((plugin, queued.pod.scheduler_name) for plugin in queued.rejectors | queued.pending)
        return found

    @property
    def in_flight(self) -> int:
        """Pods that are being scheduled or bound."""
        return len(self._in_flight)

    def pods(self) -> list[PodInfo]:
        """All pods that wait or are being scheduled."""
        return [queued.pod for queued in (*self._pods.values(), *self._in_flight.values())]

    def get(self, uid: str) -> QueuedPod | None:
        return self._pods.get(uid) or self._in_flight.get(uid)

    def has_waiting(self) -> bool:
        """Whether events can matter to anyone: someone is unschedulable or being scheduled."""
        return bool(self._attentive or self._in_flight)

    @property
    def empty(self) -> bool:
        return not self._counts[ACTIVE] and not (self._options.pop_from_backoff and self._poppable_backoff())

    # moving

    def _report(self, what: str, pod: PodInfo, event: Event, queue: str = "") -> None:
        if self._observer is not None:
            self._observer(what, pod, event, queue)

    def _leave(self, queued: QueuedPod) -> None:
        if queued.where in self._counts:
            self._counts[queued.where] -= 1
        queued.where = ""
        queued.ticket = 0
        self._unschedulable.pop(queued.pod.uid, None)
        self._attentive.pop(queued.pod.uid, None)

    def _park(self, queued: QueuedPod, event: Event) -> str:
        self._leave(queued)
        queued.where = UNSCHEDULABLE
        self._pods[queued.pod.uid] = self._unschedulable[queued.pod.uid] = queued
        self._sort_out(queued)
        self._report("queued", queued.pod, event, UNSCHEDULABLE)
        return UNSCHEDULABLE

    def _sort_out(self, queued: QueuedPod) -> None:
        if queued.gated_by in ("", "DefaultPreemption"):
            self._attentive[queued.pod.uid] = queued
        else:
            self._attentive.pop(queued.pod.uid, None)

    def _gated(self, queued: QueuedPod) -> bool:
        status = self._pre_enqueue(queued.pod)
        queued.gated_by = "" if status is None else status.plugin or "SchedulingGates"
        if status is not None:
            (queued.pending if status.code.name == "PENDING" else queued.rejectors).add(queued.gated_by)
        if queued.where == UNSCHEDULABLE:
            self._sort_out(queued)
        return status is not None

    def _activate(self, queued: QueuedPod, event: Event) -> str:
        was_gated = queued.gated_by
        if self._gated(queued):
            return queued.where if was_gated and queued.where == UNSCHEDULABLE else self._park(queued, event)
        self._leave(queued)
        queued.where, queued.ticket = ACTIVE, next(self._tickets)
        self._pods[queued.pod.uid] = queued
        self._counts[ACTIVE] += 1
        heapq.heappush(self._active, (self._sort_key(queued.pod, queued.timestamp), queued.ticket, queued))
        self._report("queued", queued.pod, event, ACTIVE)
        return ACTIVE

    def _back_off(self, queued: QueuedPod, event: Event) -> str:
        if self._gated(queued):
            return self._park(queued, event)
        self._leave(queued)
        queued.where, queued.ticket = BACKOFF, next(self._tickets)
        self._pods[queued.pod.uid] = queued
        self._counts[BACKOFF] += 1
        key = self._sort_key(queued.pod, queued.timestamp)
        heapq.heappush(self._backoff, (self._expiry(queued), key, queued.ticket, queued))
        self._report("queued", queued.pod, event, BACKOFF)
        return BACKOFF

    # backoff

    def _expiry(self, queued: QueuedPod) -> float:
        """End of the backoff, at the next whole second: pods of one window leave together, by priority."""
        if queued.expires is None:
            queued.expires = float(math.ceil(queued.timestamp + self.backoff_of(queued)))
        return queued.expires

    def backoff_of(self, queued: QueuedPod) -> float:
        """initial x 2^(count - 1), at most the maximum; nothing before the first failure."""
        count = queued.errors or queued.unschedulable_count
        if count == 0 or self._options.max_backoff == 0:
            return 0.0
        return float(min(self._options.initial_backoff * 2.0 ** min(count - 1, 62), self._options.max_backoff))

    def _backing_off(self, queued: QueuedPod) -> bool:
        return math.floor(self._clock()) < self._expiry(queued)

    def _poppable_backoff(self) -> QueuedPod | None:
        """The first pod in backoff that may leave early: pods that failed with an error may not."""
        self._drop_stale_backoff()
        errors = []
        found = None
        while self._backoff:
            entry = self._backoff[0]
            if entry[3].errors:
                errors.append(heapq.heappop(self._backoff))
                self._drop_stale_backoff()
                continue
            found = entry[3]
            break
        for entry in errors:
            heapq.heappush(self._backoff, entry)
        return found

    def _drop_stale_backoff(self) -> None:
        while self._backoff and self._backoff[0][3].ticket != self._backoff[0][2]:
            heapq.heappop(self._backoff)

    def flush_backoff(self) -> None:
        """Each second: pods whose backoff is over become active."""
        self._drop_stale_backoff()
        while self._backoff and not self._backing_off(self._backoff[0][3]):
            queued = heapq.heappop(self._backoff)[3]
            self._activate(queued, BACKOFF_COMPLETE)
            self._drop_stale_backoff()

    def flush_unschedulable(self) -> None:
        """Every 30 seconds: pods that have waited longer than the limit are tried again."""
        now = self._clock()
        for queued in list(self._unschedulable.values()):
            if now - queued.timestamp > self._options.max_unschedulable and not queued.gated_by:
                self._requeue(queued, _AFTER_BACKOFF, UNSCHEDULABLE_TIMEOUT)

    # adding, changing, removing

    def add(self, pod: PodInfo) -> None:
        """A pod that nobody has tried yet."""
        if pod.uid in self._pods or pod.uid in self._in_flight:
            self.update(pod)
            return
        now = self._clock()
        if pod.nominated:
            self._nominator.add(pod, pod.nominated)
        self._activate(QueuedPod(pod, now, now), POD_ADD)

    def update(self, pod: PodInfo) -> None:
        """A pending pod has changed."""
        queued = self._pods.get(pod.uid)
        if queued is None:
            flying = self._in_flight.get(pod.uid)
            if flying is None:
                self.add(pod)
            else:
                for event in pod_events(flying.pod, pod, UNSCHEDULED_POD):
                    self._log(event, flying.pod, pod)
                flying.pod = pod
            return
        old, queued.pod = queued.pod, pod
        if self._nominator.node_of(pod.uid) or pod.nominated:
            if pod.nominated:
                self._nominator.add(pod, pod.nominated)
            else:
                self._nominator.remove(pod.uid)
        if queued.where == ACTIVE and old.shape is not pod.shape:
            self._counts[ACTIVE] -= 1
            queued.where = ""
            observer, self._observer = self._observer, None
            self._activate(queued, POD_ADD)
            self._observer = observer
            return
        if queued.where != UNSCHEDULABLE:
            return
        for event in pod_events(old, pod, UNSCHEDULED_POD):
            strategy = self._worth(queued, event, old, pod)
            if strategy != _SKIP and self._requeue(queued, strategy, event) != UNSCHEDULABLE:
                return

    def delete(self, uid: str) -> None:
        self._nominator.remove(uid)
        queued = self._pods.pop(uid, None)
        if queued is not None:
            self._leave(queued)
        flying = self._in_flight.get(uid)
        if flying is not None:
            flying.where = "deleted"

    def was_deleted(self, queued: QueuedPod) -> bool:
        """Whether the pod was deleted while it was being scheduled."""
        return queued.where == "deleted"

    # the cycle's side

    def pop(self) -> QueuedPod | None:
        """The next pod to schedule; None when there is none now."""
        queued = None
        while self._active:
            _, ticket, candidate = heapq.heappop(self._active)
            if candidate.ticket == ticket:
                queued = candidate
                break
        if queued is None and self._options.pop_from_backoff:
            queued = self._poppable_backoff()
        if queued is None:
            return None
        self._leave(queued)
        del self._pods[queued.pod.uid]
        queued.attempts += 1
        queued.expires = None
        queued.rejectors, queued.pending = set(), set()
        queued.seen = self._events_start + len(self._events)
        self._in_flight[queued.pod.uid] = queued
        return queued

    def done(self, uid: str) -> None:
        """The pod is bound or gone: its events need not be kept."""
        self._in_flight.pop(uid, None)
        if not self._in_flight:
            self._events_start += len(self._events)
            self._events.clear()

    def add_unschedulable(self, queued: QueuedPod) -> str:
        """A pod comes back from a failed attempt with its rejectors set; returns where it waits."""
        events = self._events[max(0, queued.seen - self._events_start) :]
        deleted = queued.where == "deleted"
        self.done(queued.pod.uid)
        if deleted:
            return ""
        if queued.rejectors or queued.pending:
            queued.unschedulable_count += bool(queued.rejectors)
            queued.errors = 0
        else:
            queued.errors += 1
        queued.timestamp, queued.expires, queued.where = self._clock(), None, ""
        strategy = _SKIP if queued.rejectors or queued.pending else _AFTER_BACKOFF
        for event, old, new in events:
            strategy = max(strategy, self._worth(queued, event, old, new))
        if strategy == _SKIP:
            return self._park(queued, ATTEMPT_FAILURE)
        return self._requeue(queued, strategy, ATTEMPT_FAILURE)

    def ungate(self, uid: str, plugin: str, *, force: bool = False) -> None:
        """A PreEnqueue plugin holds the pod no longer: events that it missed meanwhile count now."""
        queued = self._unschedulable.get(uid)
        if queued is not None and (force or queued.gated_by == plugin):
            queued.rejectors.discard(plugin)
            self._requeue(queued, _AFTER_BACKOFF, FORCE_ACTIVATE)

    # events

    def _log(self, event: Event, old: Any, new: Any) -> None:
        if self._in_flight and len(self._events) < _MAX_EVENTS:
            self._events.append((event, old, new))

    def move(self, event: Event, old: Any = None, new: Any = None) -> None:
        """Something happened: pods that it may help leave the unschedulable pool."""
        if not of_interest(event):
            return
        self._log(event, old, new)
        own = event.resource == UNSCHEDULED_POD
        for queued in list((self._unschedulable if own else self._attentive).values()):
            strategy = self._worth(queued, event, old, new)
            if strategy == _SKIP:
                self._report("notQueued", queued.pod, event)
            else:
                self._requeue(queued, strategy, event)

    def _worth(self, queued: QueuedPod, event: Event, old: Any, new: Any) -> int:
        """isPodWorthRequeuing."""
        if not queued.rejectors and not queued.pending:
            return _AFTER_BACKOFF
        strategy = _SKIP
        for plugin in queued.rejectors | queued.pending:
            if helps(plugin, event, self._nodes, queued.pod, old, new):
                if plugin in queued.pending:
                    return _AT_ONCE
                strategy = _AFTER_BACKOFF
        return strategy

    def _requeue(self, queued: QueuedPod, strategy: int, event: Event) -> str:
        if strategy == _AFTER_BACKOFF and self._backing_off(queued):
            return self._back_off(queued, event)
        return self._activate(queued, event)
