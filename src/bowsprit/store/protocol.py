"""The Store protocol: keys, bytes and revisions.

Every write gets the next revision of one store-wide counter. A value is given as a `Value` with a hole for that revision,
so that an object's bytes contain their own resourceVersion although nobody knows it before the write is ordered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

FIRST_REVISION = 1  # of an empty store: clients take 0 for "any"


class StoreError(Exception):
    """The store cannot serve: disk full, file damaged, peer unreachable. The message says what, why and what to do."""


class StoreDamagedError(StoreError):
    """The file at hand is not a store we can read (torn, foreign, or written by a newer version)."""


class CompactedError(StoreError):
    """The revision asked for is older than what the store keeps; `oldest` is the first one that can be read."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(f"revision {revision} has been compacted, the oldest kept is {oldest}")
        self.revision = revision
        self.oldest = oldest


class FutureRevisionError(StoreError):
    """The revision asked for has not been written yet."""

    def __init__(self, revision: int, current: int) -> None:
        super().__init__(f"revision {revision} is in the future, the current one is {current}")
        self.revision = revision
        self.current = current


class RevisionMismatchError(StoreError):
    """A compare-and-set lost; `current` is the entry that is there now (None: no such key)."""

    def __init__(self, key: str, current: Entry | None) -> None:
        super().__init__(f"{key} is at revision {current.revision if current else 0}")
        self.key = key
        self.current = current


@dataclass(frozen=True, slots=True)
class Value:
    """Bytes with a hole for the revision: the stored bytes are `head + decimal revision + tail`.

    A value without a hole has `tail=None` and is stored as `head`.
    """

    head: bytes
    tail: bytes | None = None

    def at(self, revision: int) -> bytes:
        return self.head if self.tail is None else b"%b%d%b" % (self.head, revision, self.tail)


class Entry(NamedTuple):
    """A key's state: its bytes and the revision that wrote them."""

    key: str
    value: bytes
    revision: int


class Page(NamedTuple):
    """Entries in key order as they were at `revision`; `remaining` counts those behind the last one."""

    entries: Sequence[Entry]
    revision: int
    remaining: int = 0


class Event(NamedTuple):
    """One change. `entry.value` of a deletion is the last state, stamped with the deletion's revision."""

    entry: Entry
    deleted: bool = False

    @property
    def revision(self) -> int:
        return self.entry.revision


Deliver = Callable[[Sequence[Event]], None]


class Subscription(Protocol):
    """A running watch; `cancel` stops deliveries at once."""

    def cancel(self) -> None: ...


class Store(Protocol):
    """What the API server asks of storage. Implementations: `store.memory`, `store.sqlite`."""

    @property
    def revision(self) -> int:
        """The newest committed revision known here."""
        ...

    @property
    def compacted(self) -> int:
        """The oldest revision that can still be listed or watched from."""
        ...

    @property
    def shared(self) -> bool:
        """True when other processes may write too, so that `revision` may lag behind `latest_revision()`."""
        ...

    async def latest_revision(self) -> int:
        """The newest committed revision anywhere (one round trip for a shared store)."""
        ...

    async def get(self, key: str) -> Entry | None: ...

    async def list(self, prefix: str, *, revision: int | None = None, limit: int = 0, after: str | None = None) -> Page:
        """Entries below `prefix` in key order, at `revision` (default: now), beginning behind the key `after`.

        Raises CompactedError, FutureRevisionError.
        """
        ...

    async def put(self, key: str, value: Value, *, expected: int | None = None) -> Entry:
        """Write; durable (as far as the store is) before it returns.

        expected: None = whatever is there, 0 = the key must not exist, n = the key must be at revision n.
        Raises RevisionMismatchError, StoreError.
        """
        ...

    async def delete(self, key: str, value: Value | None = None, *, expected: int | None = None) -> Entry | None:
        """Remove; returns the tombstone (last value, or `value`, at the deletion's revision), None if there was nothing.

        `value` is the last state as watchers shall see it. `expected` as in `put` (never 0).
        """
        ...

    async def watch(self, prefix: str, since: int, deliver: Deliver) -> Subscription:
        """Every change below `prefix` with a revision > `since`, in order, in batches, on the event loop.

        History has been delivered when the call returns; from then on a write's events are delivered before the write
        returns to its caller (on the store that made it). Raises CompactedError.
        """
        ...

    async def compact(self, revision: int) -> None:
        """Forget what was overwritten or deleted at or before `revision`; later reads below it raise CompactedError."""
        ...

    async def close(self) -> None: ...
