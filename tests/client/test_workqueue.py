"""Work queues deduplicate, delay and back off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.client.ratelimit import TokenBucket
from bowsprit.client.workqueue import ShutDown, WorkQueue


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        entry = (self.now + delay, callback)
        self.timers.append(entry)

        class Handle:
            def cancel(_) -> None:
                self.timers.remove(entry)

        return Handle()

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for due, callback in sorted(self.timers, key=lambda entry: entry[0]):
            if due <= self.now:
                self.timers.remove((due, callback))
                callback()


def make(clock: Clock) -> WorkQueue[str]:
    return WorkQueue("test", base_delay=1, max_delay=60, clock=clock, call_later=clock.call_later)


async def test_a_key_is_queued_once_and_worked_on_by_one() -> None:
    queue = make(Clock())
    for _ in range(3):
        queue.add("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.add("a")
    assert len(queue) == 0
    assert not queue.idle
    queue.done("a")
    assert len(queue) == 1
    assert await queue.get() == "a"
    queue.done("a")
    assert queue.idle


async def test_of_several_delays_the_earliest_counts() -> None:
    clock = Clock()
    queue = make(clock)
    queue.add_after("a", 10)
    queue.add_after("a", 5)
    queue.add_after("a", 20)
    clock.advance(4)
    assert len(queue) == 0
    clock.advance(1)
    assert len(queue) == 1
    clock.advance(100)
    assert len(queue) == 1
    queue.add_after("b", 0)
    assert len(queue) == 2


async def test_failures_back_off_until_success() -> None:
    clock = Clock()
    queue = make(clock)
    for delay in (1, 2, 4, 8, 16, 32, 60, 60):
        queue.add_rate_limited("a")
        clock.advance(delay - 0.5)
        assert len(queue) == 0
        clock.advance(0.5)
        assert await queue.get() == "a"
        queue.done("a")
    assert queue.num_requeues("a") == 8
    queue.forget("a")
    queue.add_rate_limited("a")
    clock.advance(1)
    assert len(queue) == 1


async def test_shutting_down_lets_the_queue_drain() -> None:
    queue = make(Clock())
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    queue.add("b")
    queue.add_after("c", 5)
    queue.shut_down()
    queue.add("d")
    assert await waiting == "a"
    assert await queue.get() == "b"
    with pytest.raises(ShutDown):
        await queue.get()


async def test_a_cancelled_worker_loses_no_key() -> None:
    queue = make(Clock())
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    first.cancel()
    assert await asyncio.wait_for(second, 1) == "a"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ad"), st.sampled_from("xyz")), max_size=60))
def test_no_key_is_lost_or_given_to_two(steps: list[tuple[str, str]]) -> None:
    async def play() -> None:
        queue: WorkQueue[str] = make(Clock())
        owed: set[str] = set()
        working: set[str] = set()
        for action, key in steps:
            if action == "a":
                queue.add(key)
                owed.add(key)
            elif key in working:
                queue.done(key)
                working.discard(key)
            while len(queue):
                got = await queue.get()
                assert got not in working
                working.add(got)
                owed.discard(got)
        for key in list(working):
            queue.done(key)
        while len(queue):
            owed.discard(await queue.get())
        assert not owed

    asyncio.run(play())


def test_a_token_bucket_lets_bursts_through_and_then_keeps_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(10, 3, clock)
    assert [bucket.reserve() for _ in range(5)] == pytest.approx([0, 0, 0, 0.1, 0.2])
    clock.now = 10
    assert [bucket.reserve() for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])
    spam = TokenBucket(1 / 300, 2, clock)
    assert [spam.try_take() for _ in range(3)] == [True, True, False]
    clock.now += 300
    assert spam.try_take()
