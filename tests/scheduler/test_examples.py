"""The example plugins, in the engine and (the gang) through the binding cycle."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from bowsprit.scheduler.config import load
from bowsprit.scheduler.core import Assigned, SchedulerCore
from bowsprit.scheduler.driver.binding import Binder
from bowsprit.scheduler.registry import registry

FOLDER = Path(__file__).parents[2] / "examples" / "scheduler"


@pytest.fixture
def core(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    config, _ = load((FOLDER / "config.yaml").read_text())
    bound = []

    async def bind(pod, node):
        bound.append((pod.name, node))

    core = SchedulerCore(config, registry(), lambda: 0.0, binder=bind)
    core.bound = bound
    for number, zone in enumerate(("zone-a", "zone-a", "zone-b", "zone-b")):
        labels = {"topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": f"n{number}"}
        status = {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}
        core.set_node({"metadata": {"name": f"n{number}", "labels": labels}, "status": status})
    yield core
    for name in ("cheapest_zone", "gang", "bin_packing"):
        sys.modules.pop(name, None)


def place(core, name, scheduler, cpu="1", **meta):
    container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}
    spec = {"containers": [container], "schedulerName": scheduler}
    core.set_pod({"metadata": {"name": name, "namespace": "default", "uid": name, **meta}, "spec": spec})
    return core.run_cycle(core.queue.pop())


def test_the_cheapest_zone_is_filled_first(core):
    nodes = {place(core, f"p{i}", "cheap").placement.node for i in range(8)}
    assert nodes == {"n0", "n1"}
    assert place(core, "late", "cheap").placement.node in ("n2", "n3")


def test_the_example_is_short():
    assert len((FOLDER / "cheapest_zone.py").read_text().splitlines()) <= 25


def test_bin_packing_fills_node_after_node(core):
    nodes = [place(core, f"p{i}", "packed").placement.node for i in range(8)]
    assert nodes == [nodes[0]] * 4 + [nodes[4]] * 4


class _Watcher:
    def hold(self):
        pass

    def release(self):
        pass


async def test_a_gang_is_bound_together_or_not_at_all(core):
    binder = Binder(core, [], _Watcher())
    gang = {"labels": {"gang": "g"}, "annotations": {"gang/size": "3"}}
    first = [place(core, f"g{i}", "gang", **gang) for i in range(2)]
    assert all(isinstance(result, Assigned) and result.waits for result in first)
    tasks = [asyncio.create_task(binder.bind(result)) for result in first]
    await asyncio.sleep(0)
    assert core.bound == []
    last = place(core, "g2", "gang", **gang)
    assert not last.waits
    assert await binder.bind(last) is None
    assert await asyncio.gather(*tasks) == [None, None]
    assert sorted(name for name, _ in core.bound) == ["g0", "g1", "g2"]


async def test_a_gang_that_does_not_fit_gives_its_room_back(core):
    binder = Binder(core, [], _Watcher())
    gang = {"labels": {"gang": "g"}, "annotations": {"gang/size": "2"}}
    waiting = place(core, "g0", "gang", cpu="4", **gang)
    task = asyncio.create_task(binder.bind(waiting))
    await asyncio.sleep(0)
    binder.waiting["g0"].reject("Gang", "another pod of the group was turned away")
    failed = await task
    assert failed.message == "0/4 nodes are available: 1 another pod of the group was turned away."
    assert core.cache.assumed == {}
    assert core.bound == []
