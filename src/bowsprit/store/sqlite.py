"""SQLiteStore: the store in one file, durable before the answer.

The file holds a log of revisions; a key's state is its newest row. Writes are ordered and compared on the event loop (in
`_index`, the revision of every key including those on their way to the disk) and written by one thread, which takes
whatever has gathered while it was waiting for the disk and commits it as one transaction (group commit). A write becomes
visible, in its turn, when its transaction is on the disk. When a commit fails, everything not yet on the disk fails with
it: later writes may have been compared with what is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from sys import intern
from threading import Thread
from typing import Any, TypeVar

from bowsprit.store import sqlitefile
from bowsprit.store.protocol import (
    CompactedError,
    Deliver,
    Entry,
    Event,
    FutureRevisionError,
    Page,
    RevisionMismatchError,
    StoreError,
    Subscription,
    Value,
)
from bowsprit.store.subscription import Subscribers

T = TypeVar("T")
MAX_BATCH = 512  # writes of one transaction
MAX_PENDING = 20_000  # writes waiting for the disk, beyond which new ones are refused
COMPACTION_STEP = 5_000  # revisions forgotten in one transaction, so that writes get their turn


class _Write:
    """One write on its way to the disk."""

    __slots__ = ("done", "event", "generation", "previous")

    def __init__(self, event: Event, previous: int, generation: int, done: asyncio.Future[None]) -> None:
        self.event = event
        self.previous = previous
        self.generation = generation
        self.done = done


class _Job:
    """A piece of work other than a write for the thread that owns the connection."""

    __slots__ = ("result", "work")

    def __init__(
        self, work: Callable[[sqlite3.Connection], Any], result: Callable[[Any, BaseException | None], None]
    ) -> None:
        self.work = work
        self.result = result


class SQLiteStore:
    """See the module's docstring. Made by `await SQLiteStore.open(path)`."""

    shared = False

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop, state: sqlitefile.State) -> None:
        self._path = path
        self._loop = loop
        self._index: dict[str, int] = state.index
        self._assigned = state.revision
        self.revision = state.revision
        self.compacted = state.compacted
        self._pending: deque[_Write] = deque()
        self._pending_by_key: dict[str, _Write] = {}
        self._generation = 0
        self._failed_generation = -1  # the thread's: writes up to this generation are lost
        self._subscribers = Subscribers()
        self._queue: SimpleQueue[_Write | _Job | None] = SimpleQueue()
        self._thread = Thread(target=self._run, args=(state.connection,), name="sqlite-writer", daemon=True)
        self._closed = False

    @classmethod
    async def open(cls, path: str | os.PathLike[str]) -> SQLiteStore:
        """Opens or creates the file (mode 0600). Raises StoreDamagedError, StoreError."""
        where = Path(path)
        state = await asyncio.to_thread(sqlitefile.open_file, where)
        store = cls(where, asyncio.get_running_loop(), state)
        store._thread.start()
        return store

    # -- reading -----------------------------------------------------------------------------------------------------

    async def latest_revision(self) -> int:
        return self.revision

    async def get(self, key: str) -> Entry | None:
        return await self._in_thread(lambda connection: sqlitefile.get(connection, key))

    async def list(self, prefix: str, *, revision: int | None = None, limit: int = 0, after: str | None = None) -> Page:
        at = self.revision if revision is None else revision
        if at > self.revision:
            raise FutureRevisionError(at, self.revision)
        self._check_kept(at)
        entries, remaining = await self._in_thread(
            lambda connection: sqlitefile.list_at(connection, prefix, at, limit, after)
        )
        self._check_kept(at)  # a compaction may have overtaken us
        return Page(entries, at, remaining)

    def _check_kept(self, revision: int) -> None:
        if revision < self.compacted:
            raise CompactedError(revision, self.compacted)

    async def watch(self, prefix: str, since: int, deliver: Deliver) -> Subscription:
        self._check_kept(since)
        subscriber = self._subscribers.add(prefix, deliver)
        caught_up: asyncio.Future[None] = self._loop.create_future()

        def arrived(events: list[Event] | None, failure: BaseException | None) -> None:
            # Runs between the callbacks of two commits, so that no event is missed or delivered twice.
            if failure is not None or events is None:
                subscriber.cancel()
                if not caught_up.done():
                    caught_up.set_exception(failure or StoreError("the store is closed"))
                return
            if since < self.compacted:
                subscriber.cancel()
                caught_up.set_exception(CompactedError(since, self.compacted))
                return
            if events:
                subscriber.deliver(events)
            subscriber.active = True
            if not caught_up.done():
                caught_up.set_result(None)

        self._submit(_Job(lambda connection: sqlitefile.history(connection, prefix, since), arrived))
        await caught_up
        return subscriber

    # -- writing -----------------------------------------------------------------------------------------------------

    async def put(self, key: str, value: Value, *, expected: int | None = None) -> Entry:
        current = self._index.get(key, 0)
        if expected is not None and expected != current:
            await self._refuse(key)
        revision = self._next_revision()
        entry = Entry(intern(key), value.at(revision), revision)
        await self._write(Event(entry), current)
        return entry

    async def delete(self, key: str, value: Value | None = None, *, expected: int | None = None) -> Entry | None:
        current = self._index.get(key, 0)
        if not current and expected is None:
            return None
        if expected is not None and expected != current:
            await self._refuse(key)
        if value is None:
            last = await self.get(key)
            if self._index.get(key, 0) != current or last is None:
                return await self.delete(key, value, expected=expected)
            value = Value(last.value)
        revision = self._next_revision()
        tombstone = Entry(intern(key), value.at(revision), revision)
        await self._write(Event(tombstone, True), current)
        return tombstone

    async def _refuse(self, key: str) -> None:
        """Raises the mismatch, with the state that the caller will find when it looks again."""
        pending = self._pending_by_key.get(key)
        if pending is not None:
            with contextlib.suppress(StoreError):
                await asyncio.shield(pending.done)
        raise RevisionMismatchError(key, await self.get(key))

    def _next_revision(self) -> int:
        if self._closed:
            raise StoreError(f"{self._path}: the store is closed")
        if len(self._pending) >= MAX_PENDING:
            raise StoreError(f"{self._path}: {MAX_PENDING} writes are waiting for the disk; try again later")
        self._assigned += 1
        return self._assigned

    async def _write(self, event: Event, previous: int) -> None:
        write = _Write(event, previous, self._generation, self._loop.create_future())
        key = event.entry.key
        if event.deleted:
            self._index.pop(key, None)
        else:
            self._index[key] = event.entry.revision
        self._pending.append(write)
        self._pending_by_key[key] = write
        self._queue.put(write)
        await asyncio.shield(write.done)  # a caller that goes away does not take the write back

    def _committed(self, batch: Sequence[_Write]) -> None:
        """On the event loop: the batch, the oldest of what was pending, is on the disk."""
        for write in batch:
            self._pending.popleft()
            if self._pending_by_key.get(write.event.entry.key) is write:
                del self._pending_by_key[write.event.entry.key]
        self.revision = batch[-1].event.revision
        self._subscribers.publish([write.event for write in batch])
        for write in batch:
            write.done.set_result(None)

    def _failed(self, generation: int, failure: BaseException) -> None:
        """On the event loop: a commit failed; nothing that is pending will be written."""
        if generation != self._generation:
            return
        self._generation += 1
        error = StoreError(f"{self._path}: cannot write: {failure}; check the disk's free space and permissions")
        lost = list(self._pending)
        self._pending.clear()
        self._pending_by_key.clear()
        for write in reversed(lost):
            if write.previous:
                self._index[write.event.entry.key] = write.previous
            else:
                self._index.pop(write.event.entry.key, None)
        for write in lost:
            write.done.set_exception(error)
            write.done.exception()  # retrieved: the caller may be gone

    # -- keeping house -------------------------------------------------------------------------------------------------

    async def compact(self, revision: int) -> None:
        if revision > self.revision:
            raise FutureRevisionError(revision, self.revision)
        while self.compacted < revision:
            begin, end = self.compacted, min(self.compacted + COMPACTION_STEP, revision)
            self.compacted = end  # before the rows vanish: readers check it when they come back
            await self._in_thread(lambda connection, b=begin, e=end: sqlitefile.compact(connection, b, e))  # type: ignore[misc]

    async def close(self) -> None:
        """Waits for pending writes, then closes the file."""
        if self._closed:
            return
        self._closed = True
        while self._pending:
            with contextlib.suppress(StoreError):
                await asyncio.shield(self._pending[-1].done)
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._subscribers.clear()

    async def _in_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        answer: asyncio.Future[T] = self._loop.create_future()

        def arrived(value: T, failure: BaseException | None) -> None:
            if answer.done():
                return
            if failure is None:
                answer.set_result(value)
            else:
                answer.set_exception(failure)

        self._submit(_Job(work, arrived))
        return await answer

    def _submit(self, job: _Job) -> None:
        if self._closed:
            raise StoreError(f"{self._path}: the store is closed")
        self._queue.put(job)

    # -- the thread ----------------------------------------------------------------------------------------------------

    def _run(self, connection: sqlite3.Connection) -> None:
        ahead: deque[_Write | _Job | None] = deque()
        while True:
            item = ahead.popleft() if ahead else self._queue.get()
            if item is None:
                break
            if isinstance(item, _Job):
                self._run_job(connection, item)
                continue
            batch = [item]
            with contextlib.suppress(Empty):
                while len(batch) < MAX_BATCH and not ahead:
                    following = self._queue.get_nowait()
                    if isinstance(following, _Write):
                        batch.append(following)
                    else:
                        ahead.append(following)
            self._commit(connection, batch)
        with contextlib.suppress(sqlite3.Error):
            sqlitefile.close_file(connection)

    def _commit(self, connection: sqlite3.Connection, batch: Sequence[_Write]) -> None:
        live = [write for write in batch if write.generation > self._failed_generation]
        if not live:
            return
        try:
            sqlitefile.append(connection, [(write.event, write.previous) for write in live])
        except (sqlite3.Error, OSError, MemoryError) as failure:
            self._failed_generation = live[0].generation
            self._tell(self._failed, live[0].generation, failure)
        else:
            self._tell(self._committed, live)

    def _run_job(self, connection: sqlite3.Connection, job: _Job) -> None:
        try:
            value = job.work(connection)
        except sqlite3.Error as failure:
            self._tell(job.result, None, StoreError(f"{self._path}: cannot read: {failure}"))
        except Exception as failure:
            self._tell(job.result, None, failure)
        else:
            self._tell(job.result, value, None)

    def _tell(self, callback: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, *arguments)
