"""What to do about one connection that takes too little, when its plain peer cannot be stopped for it alone. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

GRACE = 0.5  # seconds; whoever is healthy takes something in it, on an overloaded machine too


class Cancellable(Protocol):
    """A timer."""

    def cancel(self) -> None:
        """Forget it."""


Schedule = Callable[[float, Callable[[], None]], Cancellable]


class StallGuard:
    """Stops one peer (``hold``) while any of its connections is behind; those that take nothing for a while are cut."""

    def __init__(self, hold: Callable[[bool], None], schedule: Schedule) -> None:
        self._hold = hold
        self._schedule = schedule
        self._behind: set[object] = set()

    def __len__(self) -> int:
        return len(self._behind)

    def watch(self, connection: object, taken: Callable[[], int], cut: Callable[[], None]) -> None:
        """The connection is behind. ``taken`` says how many bytes it has taken since its beginning."""
        if connection in self._behind:
            return
        if not self._behind:
            self._hold(True)
        self._behind.add(connection)
        self._arm(connection, taken, cut)

    def _arm(self, connection: object, taken: Callable[[], int], cut: Callable[[], None]) -> None:
        before = taken()

        def check() -> None:
            if connection not in self._behind:
                return
            if taken() <= before:
                cut()
            else:
                self._arm(connection, taken, cut)

        self._schedule(GRACE, check)

    def release(self, connection: object) -> None:
        """The connection has caught up, or is over."""
        if connection in self._behind:
            self._behind.discard(connection)
            if not self._behind:
                self._hold(False)

    def forget(self) -> None:
        """The peer is gone."""
        self._behind.clear()
