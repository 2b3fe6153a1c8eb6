"""MemoryStore: the whole store in dicts. Nothing survives the process."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from typing import NamedTuple

from bowsprit.store.protocol import (
    FIRST_REVISION,
    CompactedError,
    Deliver,
    Entry,
    Event,
    FutureRevisionError,
    Page,
    RevisionMismatchError,
    Subscription,
    Value,
)
from bowsprit.store.subscription import Subscribers

HISTORY_EVENTS = 50_000
HISTORY_BYTES = 64 << 20


class _Change(NamedTuple):
    event: Event
    previous: Entry | None


class MemoryStore:
    """The reference implementation of `Store`. History is bounded: what falls out of it counts as compacted."""

    shared = False

    def __init__(
        self,
        *,
        history_events: int = HISTORY_EVENTS,
        history_bytes: int = HISTORY_BYTES,
        first_revision: int = FIRST_REVISION,
    ) -> None:
        self._entries: dict[str, Entry] = {}
        self._keys: list[str] = []  # sorted
        self._history: deque[_Change] = deque()
        self._history_events = history_events
        self._history_bytes = history_bytes
        self._bytes = 0
        self._subscribers = Subscribers()
        self.revision = self.compacted = first_revision

    async def latest_revision(self) -> int:
        return self.revision

    async def get(self, key: str) -> Entry | None:
        return self._entries.get(key)

    async def list(self, prefix: str, *, revision: int | None = None, limit: int = 0, after: str | None = None) -> Page:
        at = self.revision if revision is None else revision
        self._check_readable(at)
        overlay = self._overlay(prefix, at)
        keys = self._keys
        begin = bisect_left(keys, prefix) if after is None else bisect_right(keys, max(after, prefix))
        end = bisect_left(keys, _after_prefix(prefix))
        selected = keys[begin:end]
        if overlay:
            vanished = [key for key in overlay if key not in self._entries and (after is None or key > after)]
            selected = sorted(selected + vanished)
        entries = []
        for key in selected:
            entry = overlay[key] if key in overlay else self._entries[key]
            if entry is not None:
                entries.append(entry)
        if limit and len(entries) > limit:
            return Page(entries[:limit], at, len(entries) - limit)
        return Page(entries, at, 0)

    def _overlay(self, prefix: str, revision: int) -> dict[str, Entry | None]:
        """What the keys changed since `revision` held then."""
        overlay: dict[str, Entry | None] = {}
        for change in reversed(self._history):
            if change.event.revision <= revision:
                break
            if change.event.entry.key.startswith(prefix):
                overlay[change.event.entry.key] = change.previous
        return overlay

    def _check_readable(self, revision: int) -> None:
        if revision > self.revision:
            raise FutureRevisionError(revision, self.revision)
        if revision < self.compacted:
            raise CompactedError(revision, self.compacted)

    async def put(self, key: str, value: Value, *, expected: int | None = None) -> Entry:
        current = self._entries.get(key)
        self._check_expected(key, current, expected)
        self.revision += 1
        entry = Entry(current.key if current else key, value.at(self.revision), self.revision)
        if current is None:
            insort(self._keys, key)
        self._entries[entry.key] = entry
        self._record(Event(entry), current)
        return entry

    async def delete(self, key: str, value: Value | None = None, *, expected: int | None = None) -> Entry | None:
        current = self._entries.get(key)
        if current is None and expected is None:
            return None
        self._check_expected(key, current, expected)
        assert current is not None
        self.revision += 1
        tombstone = Entry(key, value.at(self.revision) if value else current.value, self.revision)
        del self._entries[key]
        del self._keys[bisect_left(self._keys, key)]
        self._record(Event(tombstone, True), current)
        return tombstone

    @staticmethod
    def _check_expected(key: str, current: Entry | None, expected: int | None) -> None:
        if expected is not None and expected != (current.revision if current else 0):
            raise RevisionMismatchError(key, current)

    def _record(self, event: Event, previous: Entry | None) -> None:
        self._history.append(_Change(event, previous))
        self._bytes += len(event.entry.value)
        while len(self._history) > self._history_events or (
            self._bytes > self._history_bytes and len(self._history) > 1
        ):
            self._forget_oldest()
        self._subscribers.publish((event,))

    def _forget_oldest(self) -> None:
        change = self._history.popleft()
        self._bytes -= len(change.event.entry.value)
        self.compacted = change.event.revision

    async def watch(self, prefix: str, since: int, deliver: Deliver) -> Subscription:
        if since < self.compacted:
            raise CompactedError(since, self.compacted)
        subscriber = self._subscribers.add(prefix, deliver)
        missed = [
            change.event
            for change in self._history
            if change.event.revision > since and change.event.entry.key.startswith(prefix)
        ]
        if missed:
            deliver(missed)
        subscriber.active = True
        return subscriber

    async def compact(self, revision: int) -> None:
        if revision > self.revision:
            raise FutureRevisionError(revision, self.revision)
        while self._history and self._history[0].event.revision <= revision:
            self._forget_oldest()
        self.compacted = max(self.compacted, revision)

    async def close(self) -> None:
        self._subscribers.clear()


def _after_prefix(prefix: str) -> str:
    """The smallest string behind all that begin with `prefix`."""
    return prefix + "\U0010ffff"
