"""What a controller has asked for and its informer has not shown yet (upstream ControllerExpectations).

A controller that created pods must not count its cache before the cache knows of them, or it creates them twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

TIMEOUT = 300.0  # seconds after which a missing observation no longer holds a sync back


@dataclass(slots=True)
class _Expectation:
    since: float
    creations: int = 0
    deletions: set[str] = field(default_factory=set)


class Expectations:
    """Outstanding creations (a number) and deletions (by uid) per controller key."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[str, _Expectation] = {}

    def satisfied(self, key: str) -> bool:
        """Whether the cache can be believed."""
        entry = self._entries.get(key)
        if entry is None:
            return True
        return (entry.creations <= 0 and not entry.deletions) or self._clock() - entry.since > TIMEOUT

    def expect_creations(self, key: str, count: int) -> None:
        """``count`` objects are about to be created; forgets earlier expectations."""
        self._entries[key] = _Expectation(self._clock(), creations=count)

    def expect_deletions(self, key: str, uids: Iterable[str]) -> None:
        """These objects are about to be deleted; forgets earlier expectations."""
        self._entries[key] = _Expectation(self._clock(), deletions=set(uids))

    def expect(self, key: str, creations: int, uids: Iterable[str]) -> None:
        """Both at once."""
        self._entries[key] = _Expectation(self._clock(), creations, set(uids))

    def creation_observed(self, key: str, count: int = 1) -> None:
        """The informer showed a new object, or a creation failed."""
        if (entry := self._entries.get(key)) is not None:
            entry.creations -= count

    def deletion_observed(self, key: str, uid: str) -> None:
        """The informer showed the deletion (or its beginning), or the deletion failed."""
        if (entry := self._entries.get(key)) is not None:
            entry.deletions.discard(uid)

    def forget(self, key: str) -> None:
        """The controller's object is gone."""
        self._entries.pop(key, None)
