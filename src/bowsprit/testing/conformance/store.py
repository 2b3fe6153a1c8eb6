"""What every Store must do. Subclass StoreConformance in a test module and give it a `store` fixture:

class TestMine(StoreConformance):
    @pytest.fixture
    async def store(self): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from bowsprit.store.protocol import (
    CompactedError,
    Event,
    FutureRevisionError,
    RevisionMismatchError,
    Store,
    Value,
)


def _value(text: str) -> Value:
    return Value(text.encode() + b"@", b"!")


class Recorder:
    """Collects what a watch delivers."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, events: Sequence[Event]) -> None:
        self.events.extend(events)

    def short(self) -> list[tuple[str, bytes, bool]]:
        return [(event.entry.key, event.entry.value, event.deleted) for event in self.events]


class StoreConformance:
    """The suite. Every test gets an empty store whose first revision it does not assume."""

    async def test_a_value_holds_its_own_revision(self, store: Store) -> None:
        entry = await store.put("/r/a", _value("x"), expected=0)
        assert entry.value == b"x@%d!" % entry.revision
        assert await store.get("/r/a") == entry
        assert store.revision == entry.revision == await store.latest_revision()

    async def test_a_value_without_a_hole_is_stored_as_it_is(self, store: Store) -> None:
        await store.put("/r/a", Value(b"plain"))
        entry = await store.get("/r/a")
        assert entry is not None
        assert entry.value == b"plain"

    async def test_revisions_grow_with_every_write(self, store: Store) -> None:
        first = await store.put("/r/a", _value("1"))
        second = await store.put("/s/b", _value("2"))
        third = await store.delete("/r/a")
        assert third is not None
        assert first.revision < second.revision < third.revision

    async def test_create_fails_where_something_is(self, store: Store) -> None:
        entry = await store.put("/r/a", _value("1"), expected=0)
        with pytest.raises(RevisionMismatchError) as failure:
            await store.put("/r/a", _value("2"), expected=0)
        assert failure.value.current == entry

    async def test_update_fails_on_another_revision(self, store: Store) -> None:
        first = await store.put("/r/a", _value("1"))
        second = await store.put("/r/a", _value("2"), expected=first.revision)
        with pytest.raises(RevisionMismatchError) as failure:
            await store.put("/r/a", _value("3"), expected=first.revision)
        assert failure.value.current == second
        assert await store.get("/r/a") == second

    async def test_update_and_delete_fail_where_nothing_is(self, store: Store) -> None:
        with pytest.raises(RevisionMismatchError) as failure:
            await store.put("/r/a", _value("1"), expected=7)
        assert failure.value.current is None
        with pytest.raises(RevisionMismatchError):
            await store.delete("/r/a", expected=7)
        assert await store.delete("/r/a") is None

    async def test_of_concurrent_compare_and_sets_one_wins(self, store: Store) -> None:
        base = await store.put("/r/a", _value("0"))
        results = await asyncio.gather(
            *(store.put("/r/a", _value(str(number)), expected=base.revision) for number in range(8)),
            return_exceptions=True,
        )
        won = [result for result in results if not isinstance(result, BaseException)]
        lost = [result for result in results if isinstance(result, RevisionMismatchError)]
        assert len(won) == 1
        assert len(lost) == 7
        assert {failure.current for failure in lost} == {won[0]}

    async def test_delete_gives_the_tombstone(self, store: Store) -> None:
        await store.put("/r/a", _value("1"))
        tombstone = await store.delete("/r/a", _value("last"))
        assert tombstone is not None
        assert tombstone.value == b"last@%d!" % tombstone.revision
        assert await store.get("/r/a") is None
        again = await store.put("/r/a", _value("2"), expected=0)
        assert again.revision > tombstone.revision

    async def test_delete_without_a_value_keeps_the_last_bytes(self, store: Store) -> None:
        entry = await store.put("/r/a", _value("1"))
        tombstone = await store.delete("/r/a", expected=entry.revision)
        assert tombstone is not None
        assert tombstone.value == entry.value

    async def test_list_is_in_key_order_below_the_prefix(self, store: Store) -> None:
        for key in ("/r/b", "/r/a/y", "/r/a/x", "/rr/z", "/q/z"):
            await store.put(key, _value(key))
        page = await store.list("/r/")
        assert [entry.key for entry in page.entries] == ["/r/a/x", "/r/a/y", "/r/b"]
        assert page.revision == store.revision
        assert (await store.list("/nothing/")).entries == []

    async def test_pages_join_to_the_list(self, store: Store) -> None:
        for number in range(7):
            await store.put(f"/r/{number}", _value("v"))
        first = await store.list("/r/", limit=3)
        assert ([entry.key for entry in first.entries], first.remaining) == (["/r/0", "/r/1", "/r/2"], 4)
        await store.delete("/r/4")
        await store.put("/r/45", _value("new"))
        second = await store.list("/r/", revision=first.revision, limit=3, after="/r/2")
        assert ([entry.key for entry in second.entries], second.remaining) == (["/r/3", "/r/4", "/r/5"], 1)
        third = await store.list("/r/", revision=first.revision, limit=3, after="/r/5")
        assert ([entry.key for entry in third.entries], third.remaining) == (["/r/6"], 0)

    async def test_list_at_a_revision_shows_that_state(self, store: Store) -> None:
        one = await store.put("/r/a", _value("1"))
        two = await store.put("/r/a", _value("2"))
        await store.delete("/r/a")
        assert (await store.list("/r/", revision=one.revision)).entries == [one]
        assert (await store.list("/r/", revision=two.revision)).entries == [two]
        assert (await store.list("/r/")).entries == []
        with pytest.raises(FutureRevisionError):
            await store.list("/r/", revision=store.revision + 1)

    async def test_a_watch_sees_everything_behind_its_start(self, store: Store) -> None:
        first = await store.put("/r/a", _value("1"))
        second = await store.put("/r/a", _value("2"))
        await store.put("/s/other", _value("x"))
        recorder = Recorder()
        await store.watch("/r/", first.revision, recorder)
        assert [event.entry for event in recorder.events] == [second]
        third = await store.put("/r/b", _value("3"))
        fourth = await store.delete("/r/a")
        assert fourth is not None
        assert recorder.events == [Event(second), Event(third), Event(fourth, True)]

    async def test_a_cancelled_watch_is_silent(self, store: Store) -> None:
        recorder = Recorder()
        subscription = await store.watch("/r/", store.revision, recorder)
        await store.put("/r/a", _value("1"))
        subscription.cancel()
        await store.put("/r/a", _value("2"))
        assert len(recorder.events) == 1

    async def test_watches_started_while_writing_miss_and_repeat_nothing(self, store: Store) -> None:
        start = store.revision
        recorders = [Recorder() for _ in range(4)]

        async def write() -> None:
            for number in range(40):
                await store.put(f"/r/{number % 5}", _value(str(number)))

        async def watch(recorder: Recorder) -> None:
            await store.watch("/r/", start, recorder)

        writing = asyncio.ensure_future(write())
        for recorder in recorders:
            await watch(recorder)
            await asyncio.sleep(0)
        await writing
        for recorder in recorders:
            revisions = [event.revision for event in recorder.events]
            assert revisions == sorted(set(revisions))
            assert len(revisions) == 40

    async def test_compaction_forgets_the_past_and_keeps_the_present(self, store: Store) -> None:
        one = await store.put("/r/a", _value("1"))
        await store.put("/r/gone", _value("x"))
        await store.delete("/r/gone")
        two = await store.put("/r/a", _value("2"))
        kept = await store.put("/r/old", _value("old"))
        await store.compact(kept.revision)
        assert (await store.list("/r/")).entries == [two, kept]
        assert (await store.list("/r/", revision=kept.revision)).entries == [two, kept]
        with pytest.raises(CompactedError) as failure:
            await store.list("/r/", revision=one.revision)
        assert failure.value.oldest == kept.revision == store.compacted
        with pytest.raises(CompactedError):
            await store.watch("/r/", one.revision, Recorder())
        recorder = Recorder()
        await store.watch("/r/", kept.revision, recorder)
        three = await store.put("/r/a", _value("3"))
        assert recorder.events == [Event(three)]
        with pytest.raises(FutureRevisionError):
            await store.compact(store.revision + 1)

    async def test_big_and_odd_values_come_back(self, store: Store) -> None:
        big = bytes(range(256)) * 8192
        await store.put("/r/big", Value(big))
        await store.put("/r/ünï/\N{SNOWMAN}", Value(b""))
        entry = await store.get("/r/big")
        odd = await store.get("/r/ünï/\N{SNOWMAN}")
        assert entry is not None
        assert odd is not None
        assert entry.value == big
        assert odd.value == b""
