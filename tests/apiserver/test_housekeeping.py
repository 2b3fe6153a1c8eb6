"""What a server does in the background: expiry and compaction."""

from __future__ import annotations

import asyncio

from apiserver_toys import WIDGETS, Client, widget

from bowsprit.apiserver.housekeeping import Compactor, Expiry
from bowsprit.apiserver.server import Server
from bowsprit.machinery.names import GroupResource
from bowsprit.store.memory import MemoryStore
from bowsprit.store.protocol import Value


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_objects_vanish_some_time_after_their_last_write(server: Server, client: Client) -> None:
    clock = Clock()
    collection = server.registry.collection(GroupResource("toys.example", "widgets"))
    assert collection is not None
    for name in ("before", "kept"):
        await client.post(WIDGETS, widget(name))
    expiry = Expiry(collection, 60, clock)
    clock.now += 30
    await client.post(WIDGETS, widget("late"))
    await client.merge(f"{WIDGETS}/kept", {"spec": {"size": 2}})
    clock.now += 31
    assert await expiry.remove_due() == 1
    assert (await client.get(f"{WIDGETS}/before")).status == 404
    assert (await client.get(f"{WIDGETS}/kept")).status == 200
    clock.now += 30
    assert await expiry.remove_due() == 2


async def test_compaction_keeps_what_clients_may_still_ask_for() -> None:
    clock = Clock()
    store = MemoryStore()
    compactor = Compactor(store, clock, keep_seconds=300)
    revisions = []
    for _ in range(12):
        revisions.append((await store.put("/r/a", Value(b"x"))).revision)
        clock.now += 60
        await compactor.compact()
    assert store.compacted == revisions[6]
    assert (await store.list("/r/", revision=revisions[7])).entries[0].revision == revisions[7]


async def test_stopping_ends_the_housekeeping(server: Server, client: Client) -> None:
    await client.get(WIDGETS)
    await server.stop()
    assert "housekeeping" not in {task.get_name() for task in asyncio.all_tasks()}
