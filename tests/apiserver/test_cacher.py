"""The watch cache against a model: states at any remembered revision, watches from anywhere, bounded memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.apiserver import cacher as cacher_module
from bowsprit.apiserver.cacher import Attributes, Cacher, Change, TooOldError
from bowsprit.store.memory import MemoryStore
from bowsprit.store.protocol import Value
from bowsprit.store.sqlite import SQLiteStore

PREFIX = "/registry/things/"
KEYS = [f"{PREFIX}{namespace}/{name}" for namespace in ("a", "b") for name in ("x", "y", "z")]


def _attributes(obj: Any) -> Attributes:
    return obj.get("labels", {}), {}


class Follower:
    count = 1

    def __init__(self, namespace: str | None) -> None:
        self.namespace = namespace
        self.revisions: list[int] = []
        self.ended = False

    def push(self, changes: Sequence[Change]) -> None:
        self.revisions += [change.revision for change in changes]

    def end(self) -> None:
        self.ended = True


operations = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(["put", "put", "delete"])), max_size=60)


@settings(max_examples=60, deadline=None)
@given(operations, st.integers(0, 40))
def test_states_and_changes_agree_with_a_model(writes: list[tuple[str, str]], started_after: int) -> None:
    asyncio.run(_check(writes, started_after))


async def _check(writes: list[tuple[str, str]], started_after: int) -> None:
    store = MemoryStore()
    cacher = Cacher(store, PREFIX, _attributes, lambda: 0.0)
    states: dict[int, dict[str, bytes]] = {store.revision: {}}
    changes: list[tuple[int, str, bool]] = []
    followers = [Follower(None), Follower("a")]
    current: dict[str, bytes] = {}
    started = False
    for number, (key, operation) in enumerate(writes):
        if number == started_after:
            await cacher.start()
            started = True
            for follower in followers:
                cacher.add(follower)
        if operation == "put":
            entry = await store.put(key, Value(b'{"n":"', b'"}'))
            current[key] = entry.value
            changes.append((entry.revision, key, False))
        elif key in current:
            gone = await store.delete(key)
            assert gone is not None
            del current[key]
            changes.append((gone.revision, key, True))
        states[store.revision] = dict(current)
    if not started:
        await cacher.start()
    assert cacher.oldest == 1
    for revision, state in states.items():
        for prefix in (PREFIX, f"{PREFIX}a/"):
            expected = {key: value for key, value in sorted(state.items()) if key.startswith(prefix)}
            assert {item.key: item.value for item in cacher.items_at(prefix, revision)} == expected
        behind = [item.key for item in cacher.items_at(PREFIX, revision, KEYS[2])]
        assert behind == [key for key in sorted(state) if key > KEYS[2]]
        since = [(change.revision, change.item.key, change.deleted) for change in cacher.changes_since(revision)]
        assert since == [change for change in changes if change[0] > revision]
    if started:
        tail = [change for change in changes if change[0] > 1][-len(followers[0].revisions) or len(changes) :]
        assert followers[0].revisions == [change[0] for change in tail]
        assert followers[1].revisions == [change[0] for change in tail if change[1].startswith(f"{PREFIX}a/")]
    previous: dict[str, int] = {}
    for change in cacher.changes_since(1):
        assert (change.previous.revision if change.previous else None) == previous.get(change.item.key)
        previous[change.item.key] = change.revision
        if change.deleted:
            del previous[change.item.key]


async def test_history_is_bounded_by_count_bytes_and_age(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    store = MemoryStore()
    cacher = Cacher(store, PREFIX, _attributes, lambda: now)
    await cacher.start()

    async def write(count: int, size: int = 10) -> None:
        for _ in range(count):
            await store.put(KEYS[0], Value(b"x" * size))

    monkeypatch.setattr(cacher_module, "HISTORY_EVENTS", 500)
    await write(2000)
    assert len(list(cacher.changes_since(cacher.oldest))) == 500
    with pytest.raises(TooOldError):
        cacher.changes_since(cacher.oldest - 1)
    now = 1000.0
    await write(1)
    assert len(list(cacher.changes_since(cacher.oldest))) == 100
    monkeypatch.setattr(cacher_module, "HISTORY_BYTES", 5000)
    await write(20, 1000)
    assert cacher.bytes_held <= 5000
    assert len(list(cacher.changes_since(cacher.oldest))) == 5


async def test_waiting_for_a_revision() -> None:
    store = MemoryStore()
    cacher = Cacher(store, PREFIX, _attributes, asyncio.get_running_loop().time)
    await cacher.start()
    waiting = asyncio.ensure_future(cacher.wait_until(3, 5.0))
    await asyncio.sleep(0)
    await store.put(KEYS[0], Value(b"1"))
    await store.put("/registry/others/x", Value(b"1"))
    assert await waiting
    assert not await cacher.wait_until(9, 0.01)


async def test_a_restart_continues_where_watches_were(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "state.db")
    entries = [await store.put(key, Value(b'{"labels":{},"v":"', b'"}')) for key in KEYS]
    await store.delete(KEYS[0])
    await store.close()
    again = await SQLiteStore.open(tmp_path / "state.db")
    cacher = Cacher(again, PREFIX, _attributes, lambda: 0.0)
    await cacher.start()
    assert [change.revision for change in cacher.changes_since(entries[3].revision)] == [6, 7, 8]
    assert [item.key for item in cacher.items(PREFIX)] == sorted(KEYS[1:])
    assert json.loads(cacher.items(PREFIX)[0].value)["v"] == "3"
    await again.compact(again.revision)
    fresh = Cacher(again, PREFIX, _attributes, lambda: 0.0)
    await fresh.start()
    with pytest.raises(TooOldError):
        fresh.changes_since(entries[3].revision)
    await again.close()


async def test_stopping_ends_the_watchers() -> None:
    cacher = Cacher(MemoryStore(), PREFIX, _attributes, lambda: 0.0)
    await cacher.start()
    follower = Follower(None)
    cacher.add(follower)
    assert cacher.watcher_count == 1
    cacher.stop()
    assert follower.ended
    assert cacher.watcher_count == 0
