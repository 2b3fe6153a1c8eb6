"""The SQLite store keeps the Store contract, survives, and says what is wrong with a file."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from bowsprit.store import sqlitefile
from bowsprit.store.protocol import CompactedError, Event, Store, StoreDamagedError, StoreError, Value
from bowsprit.store.spec import open_store
from bowsprit.store.sqlite import SQLiteStore
from bowsprit.testing.conformance.store import Recorder, StoreConformance


class TestSQLiteStore(StoreConformance):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        store = await SQLiteStore.open(tmp_path / "state.db")
        yield store
        await store.close()


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state.db"
    store = await SQLiteStore.open(path)
    first = await store.put("/r/a", Value(b"1"))
    second = await store.put("/r/b", Value(b"2"))
    gone = await store.delete("/r/a")
    await store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600

    again = await SQLiteStore.open(path)
    assert again.revision == store.revision
    assert (await again.list("/r/")).entries == [second]
    assert (await again.list("/r/", revision=first.revision)).entries == [first]
    recorder = Recorder()
    await again.watch("/r/", first.revision, recorder)
    assert gone is not None
    assert recorder.events == [Event(second), Event(gone, True)]
    third = await again.put("/r/a", Value(b"3"), expected=0)
    assert third.revision > store.revision
    await again.close()


async def test_revisions_never_go_back_after_compacting_everything_away(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "state.db")
    await store.put("/r/a", Value(b"1"))
    await store.delete("/r/a")
    revision = store.revision
    await store.compact(revision)
    await store.close()
    again = await SQLiteStore.open(tmp_path / "state.db")
    assert again.revision == again.compacted == revision
    with pytest.raises(CompactedError):
        await again.watch("/r/", revision - 1, Recorder())
    await again.close()


async def test_writes_that_gather_are_committed_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    append = sqlitefile.append

    def counting(connection: sqlite3.Connection, events: list[tuple[Event, int]]) -> None:
        batches.append(len(events))
        append(connection, events)

    monkeypatch.setattr(sqlitefile, "append", counting)
    store = await SQLiteStore.open(tmp_path / "state.db")
    entries = await asyncio.gather(*(store.put(f"/r/{number}", Value(b"v")) for number in range(300)))
    assert [entry.revision for entry in entries] == list(range(2, 302))
    assert sum(batches) == 300
    assert len(batches) < 100
    await store.close()


async def test_a_failed_commit_loses_nothing_that_was_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await SQLiteStore.open(tmp_path / "state.db")
    kept = await store.put("/r/a", Value(b"1"))
    append = sqlitefile.append
    recorder = Recorder()
    await store.watch("/r/", store.revision, recorder)

    def full(connection: sqlite3.Connection, events: list[tuple[Event, int]]) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlitefile, "append", full)
    results = await asyncio.gather(
        store.put("/r/a", Value(b"2"), expected=kept.revision),
        store.put("/r/b", Value(b"2"), expected=0),
        store.delete("/r/a", Value(b"x")),
        return_exceptions=True,
    )
    assert all(isinstance(result, StoreError) for result in results)
    assert "disk is full" in str(results[0])
    monkeypatch.setattr(sqlitefile, "append", append)
    assert recorder.events == []
    assert (await store.list("/r/")).entries == [kept]
    again = await store.put("/r/a", Value(b"3"), expected=kept.revision)
    assert await store.get("/r/a") == again
    assert recorder.events == [Event(again)]
    await store.close()


async def test_a_second_process_is_turned_away(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "state.db")
    await store.put("/r/a", Value(b"1"))
    with pytest.raises(StoreError, match="another process has the store open"):
        await SQLiteStore.open(tmp_path / "state.db")
    await store.close()


async def test_a_closed_store_refuses(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "state.db")
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.put("/r/a", Value(b"1"))
    with pytest.raises(StoreError, match="closed"):
        await store.get("/r/a")


async def _filled(path: Path, size: int = 400) -> None:
    store = await SQLiteStore.open(path)
    await asyncio.gather(*(store.put(f"/r/{number}", Value(b"payload%03d" % number * 50)) for number in range(size)))
    await store.close()


async def test_garbage_is_not_a_store(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"these are not the bytes you are looking for" * 100)
    with pytest.raises(StoreDamagedError, match="damaged: file is not a database; restore a copy"):
        await SQLiteStore.open(path)


async def test_a_torn_file_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await _filled(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(StoreDamagedError, match="damaged"):
        await SQLiteStore.open(path)


async def test_overwritten_pages_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await _filled(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = b"\xa5" * 8192
    path.write_bytes(content)
    with pytest.raises(StoreDamagedError, match="damaged"):
        await SQLiteStore.open(path)


async def test_a_flipped_bit_in_a_value_is_detected_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    await _filled(path, 3)
    content = path.read_bytes()
    assert content.count(b"payload001") == 50
    path.write_bytes(content.replace(b"payload001", b"payload0X1", 1))
    store = await SQLiteStore.open(path)
    with pytest.raises(StoreDamagedError, match="/r/1 fails its checksum"):
        await store.list("/r/")
    await store.close()


async def test_files_of_other_programs_and_of_newer_versions_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE t (a)")
    with pytest.raises(StoreDamagedError, match="another program"):
        await SQLiteStore.open(foreign)
    newer = tmp_path / "newer.db"
    await _filled(newer, 1)
    with closing(sqlite3.connect(newer)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreDamagedError, match="format 99"):
        await SQLiteStore.open(newer)


async def test_stores_are_named_on_the_command_line(tmp_path: Path) -> None:
    memory = await open_store("memory")
    await memory.close()
    for spec, default in ((f"sqlite:{tmp_path}/a.db", None), ("sqlite", tmp_path / "b.db")):
        store = await open_store(spec, default)
        await store.put("/r/a", Value(b"1"))
        await store.close()
    assert (tmp_path / "a.db").exists()
    assert (tmp_path / "b.db").exists()
    with pytest.raises(StoreError, match="use memory, sqlite or sqlite:PATH"):
        await open_store("etcd:http://x")
