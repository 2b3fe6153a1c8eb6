"""One leader at a time, on a lease that a fake server keeps."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from bowsprit.client.leaderelection import (
    LeaderElectionConfig,
    LeaderElector,
    LeadershipLost,
    next_record,
    released_record,
)
from bowsprit.client.rest import WatchEvent
from bowsprit.machinery.errors import conflict, forbidden, internal_error, not_found
from bowsprit.machinery.names import GroupResource

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASES = GroupResource("coordination.k8s.io", "leases")


class LeaseServer:
    """The three verbs on one Lease, with optimistic locking; ``down`` makes it fail."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.down = False
        self.may_watch = True
        self.changed = asyncio.Event()

    async def get(self, gvr: Any, name: str, **_: Any) -> Any:
        self._check()
        if self.lease is None:
            raise not_found(LEASES, name)
        return {**self.lease}

    async def create(self, gvr: Any, obj: Any, **_: Any) -> Any:
        self._check()
        assert self.lease is None
        return self._store(obj)

    async def update(self, gvr: Any, obj: Any, **_: Any) -> Any:
        self._check()
        if obj["metadata"]["resourceVersion"] != str(self.version):
            raise conflict(LEASES, "l", "changed")
        return self._store(obj)

    async def watch(self, gvr: Any, *, resource_version: str, **_: Any) -> Any:
        self._check()
        if not self.may_watch:
            raise forbidden(LEASES, "l", "no")
        seen = resource_version
        while True:
            self._check()
            assert self.lease is not None
            if self.lease["metadata"]["resourceVersion"] != seen:
                seen = self.lease["metadata"]["resourceVersion"]
                yield WatchEvent("MODIFIED", {**self.lease})
            self.changed.clear()
            await self.changed.wait()

    def _check(self) -> None:
        if self.down:
            raise internal_error("down")

    def _store(self, obj: Any) -> Any:
        self.version += 1
        self.lease = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        self.changed.set()
        return {**self.lease}


def config(identity: str, **changes: Any) -> LeaderElectionConfig:
    return LeaderElectionConfig(
        "kube-system", "l", identity, **{"lease_duration": 0.5, "renew_deadline": 0.3, "retry_period": 0.05, **changes}
    )


def elector(server: LeaseServer, identity: str, **changes: Any) -> LeaderElector:
    return LeaderElector(server, config(identity, **changes))  # type: ignore[arg-type]


async def lead_until(stop: asyncio.Event) -> None:
    await stop.wait()


def test_settings_that_cannot_work_are_refused() -> None:
    for changes in ({"lease_duration": 0.2}, {"retry_period": 0.26}, {"retry_period": 0.0}):
        with pytest.raises(ValueError):
            config("a", **changes)
    with pytest.raises(ValueError, match="identity"):
        config("")


def test_records() -> None:
    first = next_record(None, config("a"), NOW)
    assert (first["holderIdentity"], first["leaseTransitions"]) == ("a", 0)
    assert first["acquireTime"] == first["renewTime"] == "2026-01-01T00:00:00.000000Z"
    kept = next_record(first, config("a"), datetime(2026, 1, 2, tzinfo=UTC))
    assert kept["acquireTime"] == first["acquireTime"]
    assert kept["leaseTransitions"] == 0
    taken = next_record(kept, config("b"), NOW)
    assert (taken["holderIdentity"], taken["leaseTransitions"]) == ("b", 1)
    assert released_record(taken, NOW)["holderIdentity"] == ""


async def test_the_second_takes_over_when_the_first_lets_go() -> None:
    server = LeaseServer()
    one, two = elector(server, "one"), elector(server, "two")
    stop = asyncio.Event()
    first = asyncio.create_task(one.run(lambda: lead_until(stop)))
    await asyncio.sleep(0.02)
    assert one.is_leader
    second = asyncio.create_task(two.run(lambda: lead_until(asyncio.Event())))
    await asyncio.sleep(0.2)
    assert not two.is_leader
    assert two.leader == "one"
    stop.set()
    await first
    assert server.lease is not None
    assert server.lease["spec"]["holderIdentity"] in ("", "two")
    async with asyncio.timeout(2):
        while not two.is_leader:
            await asyncio.sleep(0.01)
    assert server.lease["spec"]["leaseTransitions"] == 1
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)


@pytest.mark.parametrize("may_watch", [True, False])
async def test_a_dead_leader_is_replaced_after_its_lease_has_run_out(may_watch: bool) -> None:
    server = LeaseServer()
    server.may_watch = may_watch
    dead = elector(server, "dead", release_on_cancel=False)
    first = asyncio.create_task(dead.run(lambda: lead_until(asyncio.Event())))
    await asyncio.sleep(0.02)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    heir = elector(server, "heir")
    started = asyncio.get_running_loop().time()
    task = asyncio.create_task(heir.run(lambda: lead_until(asyncio.Event())))
    async with asyncio.timeout(3):
        while not heir.is_leader:
            await asyncio.sleep(0.01)
    assert asyncio.get_running_loop().time() - started >= 0.5
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_leader_that_cannot_renew_stops_leading() -> None:
    server = LeaseServer()
    one = elector(server, "one")
    led = asyncio.Event()

    async def lead() -> None:
        led.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(one.run(lead))
    await led.wait()
    server.down = True
    with pytest.raises(LeadershipLost):
        await asyncio.wait_for(task, 3)


async def test_a_leader_that_finds_another_holder_stops_at_once() -> None:
    server = LeaseServer()
    one = elector(server, "one")
    task = asyncio.create_task(one.run(lambda: lead_until(asyncio.Event())))
    await asyncio.sleep(0.02)
    assert server.lease is not None
    server._store({**server.lease, "spec": {**server.lease["spec"], "holderIdentity": "usurper"}})
    with pytest.raises(LeadershipLost, match="usurper"):
        await asyncio.wait_for(task, 3)
    assert server.lease["spec"]["holderIdentity"] == "usurper"


async def test_who_watches_takes_over_when_the_lease_runs_out_not_at_the_next_poll() -> None:
    """The dead leader's last renewal is seen at once, however long the pauses between polls are."""
    server = LeaseServer()
    slow = {"lease_duration": 2.5, "renew_deadline": 2.4, "retry_period": 1.9}
    dead = elector(server, "dead", lease_duration=2.5, renew_deadline=2.4, retry_period=0.05, release_on_cancel=False)
    first = asyncio.create_task(dead.run(lambda: lead_until(asyncio.Event())))
    while not dead.is_leader:
        await asyncio.sleep(0.001)
    heir = elector(server, "heir", **slow)
    task = asyncio.create_task(heir.run(lambda: lead_until(asyncio.Event())))
    while server.version < 8:  # the heir is waiting while the leader renews
        await asyncio.sleep(0.005)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    died = asyncio.get_running_loop().time()
    assert heir._observed is not None
    left = heir._observed.at + 2.5 - died
    async with asyncio.timeout(10):
        while not heir.is_leader:
            await asyncio.sleep(0.005)
    taken = asyncio.get_running_loop().time() - died
    assert left <= taken < left + 1.9
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_lease_that_is_let_go_is_taken_at_once() -> None:
    server = LeaseServer()
    one = elector(server, "one")
    two = elector(server, "two", lease_duration=60.0, renew_deadline=50.0, retry_period=20.0)
    stop = asyncio.Event()
    first = asyncio.create_task(one.run(lambda: lead_until(stop)))
    while not one.is_leader:
        await asyncio.sleep(0.001)
    second = asyncio.create_task(two.run(lambda: lead_until(asyncio.Event())))
    while two.leader != "one":
        await asyncio.sleep(0.001)
    stop.set()
    await first
    async with asyncio.timeout(5):
        while not two.is_leader:
            await asyncio.sleep(0.005)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
