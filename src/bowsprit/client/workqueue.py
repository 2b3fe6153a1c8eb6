"""A work queue that deduplicates, delays and backs off (client-go util/workqueue).

A key is in at most one worker's hands: added while being worked on, it is queued again when the worker says ``done``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")


class ShutDown(Exception):
    """The queue is shut down and drained; workers leave their loop."""


class WorkQueue(Generic[Key]):
    """Keys to work on. Delays are seconds; the back-off doubles from ``base_delay`` to ``max_delay`` per key.

    ``call_later`` is the event loop's, unless a test passes its own.
    """

    def __init__(
        self,
        name: str = "",
        *,
        base_delay: float = 0.005,
        max_delay: float = 1000.0,
        clock: Callable[[], float] | None = None,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle] | None = None,
    ) -> None:
        self.name = name
        self._base_delay = base_delay
        self._max_delay = max_delay
        self._clock = clock
        self._call_later = call_later
        self._ready: deque[Key] = deque()
        self._dirty: set[Key] = set()
        self._processing: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._waiting: dict[Key, tuple[float, asyncio.TimerHandle]] = {}
        self._wakeups: deque[asyncio.Future[None]] = deque()
        self._closing = False

    def __len__(self) -> int:
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Nothing queued and nothing being worked on (delayed keys do not count)."""
        return not self._ready and not self._processing

    def add(self, key: Key) -> None:
        """Queue a key, unless it is queued already."""
        if self._closing or key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._push(key)

    def add_after(self, key: Key, delay: float) -> None:
        """Queue a key in ``delay`` seconds; of several such calls the earliest time counts."""
        if self._closing:
            return
        if delay <= 0:
            self.add(key)
            return
        due = self._now() + delay
        if waiting := self._waiting.get(key):
            if waiting[0] <= due:
                return
            waiting[1].cancel()
        later = self._call_later or asyncio.get_running_loop().call_later
        self._waiting[key] = (due, later(delay, lambda: self._due(key)))

    def add_rate_limited(self, key: Key) -> None:
        """Queue a key that failed, after its back-off."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, min(self._max_delay, self._base_delay * 2 ** min(failures, 60)))

    def forget(self, key: Key) -> None:
        """The key succeeded: its back-off starts anew."""
        self._failures.pop(key, None)

    def num_requeues(self, key: Key) -> int:
        """How often the key failed since it last succeeded."""
        return self._failures.get(key, 0)

    async def get(self) -> Key:
        """The next key, marked as being worked on. Raises ShutDown."""
        while not self._ready:
            if self._closing:
                raise ShutDown
            wakeup: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._wakeups.append(wakeup)
            try:
                await wakeup
            except asyncio.CancelledError:
                if wakeup in self._wakeups:
                    self._wakeups.remove(wakeup)
                elif self._ready:
                    self._wake()  # the key that woke us goes to another worker
                raise
        key = self._ready.popleft()
        self._processing.add(key)
        self._dirty.discard(key)
        return key

    def done(self, key: Key) -> None:
        """The worker is through with the key."""
        self._processing.discard(key)
        if key in self._dirty:
            self._push(key)

    def shut_down(self) -> None:
        """Take no more keys; workers get what is queued, then ShutDown."""
        self._closing = True
        for _, handle in self._waiting.values():
            handle.cancel()
        self._waiting.clear()
        while self._wakeups:
            self._wake()

    def _due(self, key: Key) -> None:
        self._waiting.pop(key, None)
        self.add(key)

    def _push(self, key: Key) -> None:
        self._ready.append(key)
        self._wake()

    def _wake(self) -> None:
        while self._wakeups:
            wakeup = self._wakeups.popleft()
            if not wakeup.done():
                wakeup.set_result(None)
                return

    def _now(self) -> float:
        return self._clock() if self._clock else asyncio.get_running_loop().time()
