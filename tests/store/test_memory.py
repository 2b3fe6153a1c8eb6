"""The in-memory store keeps the Store contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bowsprit.store.memory import MemoryStore
from bowsprit.store.protocol import CompactedError, Store, Value
from bowsprit.testing.conformance.store import StoreConformance


class TestMemoryStore(StoreConformance):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        store = MemoryStore()
        yield store
        await store.close()


async def test_history_is_bounded_by_count_and_by_bytes() -> None:
    store = MemoryStore(history_events=10, history_bytes=1000)
    for number in range(30):
        await store.put("/r/a", Value(b"x" * 10), expected=number + 1 if number else 0)
    assert store.compacted == 21
    for _ in range(5):
        await store.put("/r/a", Value(b"x" * 400))
    assert store.compacted == 34
    with pytest.raises(CompactedError):
        await store.list("/r/", revision=33)
