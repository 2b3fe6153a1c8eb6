"""The watch cache: the current state of one collection in memory, and the recent changes to it.

Theory. A Cacher mirrors the store below its prefix. The state is a dict of Items (the stored bytes, never decoded unless a
selector asks); `_changes` is the recent past in revision order, each change with the item it replaced, so that any state
since `oldest` can be reconstructed by undoing (`overlay`), and any watch that has seen everything up to a revision
>= `oldest` can continue. Watchers hold no queues: each has a position, and what it missed is read from `_changes`; one that
fell behind `oldest` is ended. A change is encoded once per representation, whoever watches.

Reads are consistent: a store delivers a write's event before the write returns; for a store that others write to as well
`wait_until` waits for the revision that the store names.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from bowsprit.machinery.codec import decode_json
from bowsprit.store.protocol import Event, Store, Subscription

if TYPE_CHECKING:
    from bowsprit.machinery.objects import Obj

EVENT_SIZES = tuple(float(1024 << power) for power in range(8))  # upstream's buckets of apiserver_watch_events_sizes
HISTORY_SECONDS = 300.0  # as long as continue tokens and resource versions stay good (upstream's compaction interval)
HISTORY_EVENTS = 20_000
HISTORY_BYTES = 32 << 20
HISTORY_KEPT = 100  # changes that stay however old they are

Attributes = tuple[Mapping[str, str], Mapping[str, str]]  # labels, selectable fields


class Item:
    """One object as it is stored. `attributes` are decoded when a selector first asks."""

    __slots__ = ("attributes", "key", "revision", "value")

    def __init__(self, key: str, value: bytes, revision: int) -> None:
        self.key = key
        self.value = value
        self.revision = revision
        self.attributes: Attributes | None = None


class Change:
    """One event of the cache. `item` of a deletion is the last state, stamped with the deletion's revision.

    `lines` holds the event's encodings, made on demand and shared by all watchers: (encoder's key, event type) -> bytes.
    """

    __slots__ = ("deleted", "item", "lines", "previous", "time")

    def __init__(self, item: Item, previous: Item | None, deleted: bool, time: float) -> None:
        self.item = item
        self.previous = previous
        self.deleted = deleted
        self.time = time
        self.lines: dict[tuple[object, str], bytes] = {}

    @property
    def revision(self) -> int:
        return self.item.revision


class Watcher(Protocol):
    """Whoever follows a cacher. `namespace` None = all."""

    namespace: str | None

    @property
    def count(self) -> int:
        """How many clients it stands for."""
        ...

    def push(self, changes: Sequence[Change]) -> None:
        """New changes, all of them in order; called on the event loop, must not block."""
        ...

    def end(self) -> None:
        """The collection is gone (its CRD was removed) or the server stops."""
        ...


class TooOldError(Exception):
    """The revision asked for is older than what is remembered; `oldest` is the first good one."""

    def __init__(self, revision: int, oldest: int) -> None:
        super().__init__(f"too old resource version: {revision} ({oldest})")
        self.revision = revision
        self.oldest = oldest


class Cacher:
    """See the module's docstring. One per Resource; used on one event loop."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        attributes: Callable[[Obj], Attributes],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._attributes = attributes
        self._clock = clock
        self._items: dict[str, Item] = {}
        self._keys: list[str] = []  # sorted
        self._changes: list[Change] = []
        self._first = 0  # where the remembered changes begin in `_changes`; what lies before is dropped now and then
        self._bytes = 0
        self._seen = 0  # the newest revision delivered here
        self.received = 0  # how many changes were
        self.sent = 0  # how many events watches have been sent
        self.sent_sizes = [0] * (len(EVENT_SIZES) + 1)  # how many up to each size
        self.sent_bytes = 0
        self.oldest = 0  # every change with a revision > oldest is remembered
        self._watchers: dict[str | None, set[Watcher]] = {}
        self.audiences: dict[object, object] = {}  # watchers that stand for many; kept for whoever joins one
        self._subscription: Subscription | None = None
        self._arrival: asyncio.Future[None] | None = None
        self.ended = False

    async def start(self) -> None:
        """Loads the state and follows the store from then on. Raises StoreError."""
        since = self._store.compacted
        page = await self._store.list(self._prefix, revision=since)
        for key, value, revision in page.entries:
            self._items[key] = Item(key, value, revision)
            self._keys.append(key)
        self.oldest = self._seen = since
        self._subscription = await self._store.watch(self._prefix, since, self._deliver)

    def stop(self) -> None:
        """Ends every watch."""
        self.ended = True
        if self._subscription is not None:
            self._subscription.cancel()
        for watcher in [watcher for group in self._watchers.values() for watcher in group]:
            watcher.end()
        self._watchers.clear()

    # -- reading -----------------------------------------------------------------------------------------------------

    def count_sent(self, lines: Iterable[bytes], watches: int = 1) -> None:
        """Events that so many watches have been sent."""
        for line in lines:
            size = len(line)
            self.sent += watches
            self.sent_bytes += size * watches
            self.sent_sizes[bisect_left(EVENT_SIZES, size)] += watches

    @property
    def revision(self) -> int:
        """The revision that the state stands for. Nothing below the prefix happened between `_seen` and the store's."""
        return self._store.revision if not self._store.shared else max(self._seen, 0)

    @property
    def seen(self) -> int:
        """The revision of the newest change below the prefix."""
        return self._seen

    @property
    def bytes_held(self) -> int:
        """The size of the remembered changes' objects."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> Item | None:
        return self._items.get(key)

    def keys(self, prefix: str, after: str | None = None) -> Sequence[str]:
        """The keys that begin with `prefix`, in order, those behind `after`."""
        keys = self._keys
        if prefix == self._prefix and after is None:
            return keys
        begin = bisect_left(keys, prefix) if after is None else bisect_right(keys, max(after, prefix))
        end = bisect_left(keys, prefix + "\U0010ffff")
        return keys[begin:end]

    def items(self, prefix: str, after: str | None = None) -> list[Item]:
        """The current items below `prefix`, in key order."""
        items = self._items
        return [items[key] for key in self.keys(prefix, after)]

    def items_at(self, prefix: str, revision: int, after: str | None = None) -> list[Item]:
        """The items as they were at `revision`. Raises TooOldError."""
        if revision < self.oldest:
            raise TooOldError(revision, self.oldest)
        overlay = self._overlay(prefix, revision)
        if not overlay:
            return self.items(prefix, after)
        vanished = [key for key in overlay if key not in self._items and (after is None or key > after)]
        keys = self.keys(prefix, after)
        found = []
        for key in sorted([*keys, *vanished]) if vanished else keys:
            item = overlay[key] if key in overlay else self._items[key]
            if item is not None:
                found.append(item)
        return found

    def _overlay(self, prefix: str, revision: int) -> dict[str, Item | None]:
        overlay: dict[str, Item | None] = {}
        changes = self._changes
        for position in range(len(changes) - 1, self._first - 1, -1):
            change = changes[position]
            if change.item.revision <= revision:
                break
            if change.item.key.startswith(prefix):
                overlay[change.item.key] = change.previous
        return overlay

    def attributes(self, item: Item) -> Attributes:
        """Labels and selectable fields of an item."""
        if item.attributes is None:
            item.attributes = self._attributes(decode_json(item.value))
        return item.attributes

    async def wait_until(self, revision: int, seconds: float) -> bool:
        """Waits until the state is at least as new as `revision`; False if that takes too long."""
        if revision <= self.revision:
            return True
        deadline = self._clock() + seconds
        while revision > self.revision:
            left = deadline - self._clock()
            if left <= 0:
                return False
            if self._arrival is None or self._arrival.done():
                self._arrival = asyncio.get_running_loop().create_future()
            # A local store tells nobody of writes below other prefixes: look again soon.
            await asyncio.wait([self._arrival], timeout=min(left, 0.1))
        return True

    # -- changes -----------------------------------------------------------------------------------------------------

    def changes_since(self, revision: int) -> Iterator[Change]:
        """The remembered changes behind `revision`, in order. Raises TooOldError at once if some are forgotten."""
        if revision < self.oldest:
            raise TooOldError(revision, self.oldest)
        position = bisect_right(self._changes, revision, lo=self._first, key=_revision_of)
        return iter(self._changes[position:])

    def _deliver(self, events: Sequence[Event]) -> None:
        now = self._clock()
        fresh: list[Change] = []
        for entry, deleted in events:
            previous = self._items.get(entry.key)
            item = Item(previous.key if previous else entry.key, entry.value, entry.revision)
            if deleted:
                if previous is None:
                    continue
                del self._items[item.key]
                del self._keys[bisect_left(self._keys, item.key)]
            else:
                if previous is None:
                    insort(self._keys, item.key)
                self._items[item.key] = item
            change = Change(item, previous, deleted, now)
            fresh.append(change)
            self._bytes += len(item.value)
        if events:
            self._seen = events[-1].entry.revision
            self.received += len(events)
        self._changes.extend(fresh)
        self._forget(now)
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)
        if fresh and self._watchers:
            self._dispatch(fresh)

    def _forget(self, now: float) -> None:
        changes = self._changes
        first = self._first
        count = len(changes) - first
        while count and (
            count > HISTORY_EVENTS
            or self._bytes > HISTORY_BYTES
            or (count > HISTORY_KEPT and changes[first].time < now - HISTORY_SECONDS)
        ):
            change = changes[first]
            self._bytes -= len(change.item.value)
            self.oldest = change.item.revision
            first += 1
            count -= 1
        if first > 1024 and first * 2 > len(changes):
            del changes[:first]
            first = 0
        elif first > self._first:
            changes[self._first : first] = [_FORGOTTEN] * (first - self._first)
        self._first = first

    def _dispatch(self, changes: list[Change]) -> None:
        everywhere = self._watchers.get(None)
        if everywhere:
            for watcher in tuple(everywhere):
                watcher.push(changes)
        if len(self._watchers) == (everywhere is not None):
            return
        by_namespace: dict[str, list[Change]] = {}
        for change in changes:
            by_namespace.setdefault(self.namespace_of(change.item.key), []).append(change)
        for namespace, those in by_namespace.items():
            for watcher in tuple(self._watchers.get(namespace, ())):
                watcher.push(those)

    def namespace_of(self, key: str) -> str:
        """The namespace in a key, "" for cluster-scoped objects."""
        return key[len(self._prefix) :].rpartition("/")[0]

    def add(self, watcher: Watcher) -> None:
        """Pushes new changes to the watcher from now on."""
        self._watchers.setdefault(watcher.namespace, set()).add(watcher)

    def remove(self, watcher: Watcher) -> None:
        group = self._watchers.get(watcher.namespace)
        if group is not None:
            group.discard(watcher)
            if not group:
                del self._watchers[watcher.namespace]

    @property
    def watcher_count(self) -> int:
        return sum(watcher.count for group in self._watchers.values() for watcher in group)


def _revision_of(change: Change) -> int:
    return change.item.revision


_FORGOTTEN = Change(Item("", b"", -1), None, True, 0.0)
