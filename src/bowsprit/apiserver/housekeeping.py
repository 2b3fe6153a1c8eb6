"""What a server does in the background: compaction of the store, and objects that vanish some time after their last write
(Events: --event-ttl), as etcd's leases make them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

from bowsprit.apiserver.cacher import HISTORY_SECONDS, Change
from bowsprit.apiserver.collection import Collection
from bowsprit.apiserver.registry import Registry
from bowsprit.store.protocol import RevisionMismatchError, Store, StoreError

logger = logging.getLogger("bowsprit.apiserver")

CHECK_SECONDS = 10.0


class Expiry:
    """Follows one collection: every write starts the object's time anew. What was there before the start begins then."""

    namespace: str | None = None
    count = 0

    def __init__(self, collection: Collection, ttl_seconds: float, clock: Callable[[], float]) -> None:
        self._collection = collection
        self._ttl = ttl_seconds
        self._clock = clock
        self._due: deque[tuple[float, str, int]] = deque()  # (when, key, revision), in order
        now = clock()
        for item in collection.cacher.items(collection.resource.key_prefix):
            self._due.append((now + ttl_seconds, item.key, item.revision))
        collection.cacher.add(self)

    def push(self, changes: Sequence[Change]) -> None:
        now = self._clock()
        for change in changes:
            if not change.deleted:
                self._due.append((now + self._ttl, change.item.key, change.item.revision))

    def end(self) -> None:
        self._due.clear()

    async def remove_due(self) -> int:
        """Removes what has had its time; gives how many objects that were."""
        now = self._clock()
        removed = 0
        while self._due and self._due[0][0] <= now:
            _, key, revision = self._due.popleft()
            item = self._collection.cacher.get(key)
            if item is None or item.revision != revision:
                continue
            with contextlib.suppress(RevisionMismatchError):
                await self._collection.remove(self._collection.decode(item), revision)
                removed += 1
        return removed


class Compactor:
    """Forgets what is older than the resource versions that clients may still use (upstream's compaction, 5 minutes)."""

    def __init__(self, store: Store, clock: Callable[[], float], keep_seconds: float = HISTORY_SECONDS) -> None:
        self._store = store
        self._clock = clock
        self._keep = keep_seconds
        self._marks: deque[tuple[float, int]] = deque([(clock(), store.revision)])

    async def compact(self) -> None:
        """Notes the current revision, and compacts to the newest one noted that is old enough."""
        now = self._clock()
        target = 0
        while self._marks and self._marks[0][0] <= now - self._keep:
            target = self._marks.popleft()[1]
        self._marks.append((now, self._store.revision))
        if target > self._store.compacted:
            await self._store.compact(target)


async def keep_house(registry: Registry) -> None:
    """Runs until it is cancelled."""
    clock = registry.world.monotonic
    compactor = Compactor(registry.store, clock)
    expiries: WeakKeyDictionary[Collection, Expiry] = WeakKeyDictionary()
    last_compaction = clock()
    while True:
        try:
            for collection in registry.collections():
                ttl = collection.resource.ttl_seconds
                if ttl is not None:
                    if collection not in expiries:
                        expiries[collection] = Expiry(collection, ttl, clock)
                    await expiries[collection].remove_due()
            if clock() - last_compaction >= HISTORY_SECONDS / 5:
                last_compaction = clock()
                await compactor.compact()
        except StoreError as failure:
            logger.warning("housekeeping: %s", failure)
        await asyncio.sleep(CHECK_SECONDS)
