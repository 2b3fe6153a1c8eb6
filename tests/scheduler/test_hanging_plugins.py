"""A plugin that hangs costs its pod an attempt, not the scheduler."""

from __future__ import annotations

import asyncio
import threading

import pytest

from bowsprit.scheduler.config.defaults import set_defaults
from bowsprit.scheduler.core import Assigned, Failed, SchedulerCore
from bowsprit.scheduler.driver.binding import Binder
from bowsprit.scheduler.driver.guard import MAX_HANGING, Guard, Overdue
from bowsprit.scheduler.driver.metrics import Metrics
from bowsprit.scheduler.registry import registry


class Events:
    def __init__(self):
        self.held = 0

    def hold(self):
        self.held += 1

    def release(self):
        self.held -= 1


class Sleeper:
    """Hangs at one method for pods called `stuck`, until it is told to go on."""

    name = "Sleeper"

    def __init__(self, method):
        self.go_on = threading.Event()
        self.came_back = threading.Event()
        self.after = []

        def hang(state, pod, *rest):
            self.after.append(pod.name)
            if pod.name == "stuck":
                self.go_on.wait(30)
                self.came_back.set()
            return (None, 0.0) if method == "permit" else None

        setattr(self, method, hang)


def pod(name):
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}
    return {"metadata": {"name": name, "namespace": "d", "uid": name}, "spec": {"containers": [container]}}


def build(plugin):
    bound = []

    async def bind(pod, node):
        bound.append(pod.name)

    profile = {"plugins": {"multiPoint": {"enabled": [{"name": "Sleeper"}]}}}
    core = SchedulerCore(
        set_defaults({"profiles": [profile]}),
        registry({"Sleeper": lambda args, handle: plugin}),
        lambda: 0.0,
        binder=bind,
    )
    amounts = {"cpu": "2", "memory": "8Gi", "pods": "10"}
    core.set_node({"metadata": {"name": "n"}, "status": {"allocatable": amounts}})
    metrics, events = Metrics(), Events()
    return core, Binder(core, [], events, metrics, plugin_timeout=0.2), metrics, events, bound


@pytest.mark.parametrize("method", ["filter", "reserve", "permit"])
async def test_other_pods_go_on_and_nothing_stays_assumed(method):
    plugin = Sleeper(method)
    core, binder, metrics, events, bound = build(plugin)
    core.set_pod(pod("stuck"))
    core.set_pod(pod("fine-1"))
    core.set_pod(pod("fine-2"))
    result = await binder.cycle(core.queue.pop())
    assert isinstance(result, Failed)
    assert (result.reason, result.message) == (
        "SchedulerError",
        f'plugin "Sleeper" has not answered at {method} within 0.2s',
    )
    assert not core.cache.assumed
    assert events.held == 0
    assert f'plugin_timeouts_total{{method="{method}",plugin="Sleeper"}} 1.0' in metrics.text().decode()
    for _ in range(2):
        placed = await binder.cycle(core.queue.pop())
        assert isinstance(placed, Assigned)
        assert await binder.bind(placed) is None
    assert bound == ["fine-1", "fine-2"]
    before = dict(core.cache.nodes.node("n").requested)
    plugin.go_on.set()  # it comes back after all: the abandoned cycle must not go on
    await asyncio.to_thread(plugin.came_back.wait, 10)
    while binder._guard.hanging:
        await asyncio.sleep(0.001)
    assert core.cache.nodes.node("n").requested == before
    assert set(core.cache.pods) == {"fine-1", "fine-2"}
    assert core.queue.get("stuck") is not None
    binder.close()


async def test_threads_that_plugins_hold_are_bounded():
    guard, stop = Guard(0.01), threading.Event()
    plugin = Sleeper("filter")
    plugin.go_on = stop

    class Holder:
        plugins = {"Sleeper": plugin}

    class Stuck:
        name = "stuck"

    guard.watch(Holder())
    for _ in range(MAX_HANGING + 3):
        with pytest.raises(Overdue):
            await guard.run(lambda: plugin.filter(None, Stuck))
    assert guard.hanging == MAX_HANGING
    assert len(plugin.after) == MAX_HANGING
    stop.set()
    while guard.hanging:
        await asyncio.sleep(0.001)
    assert await guard.run(lambda: 7) == 7
    guard.close()


async def test_what_a_plugin_raises_is_told():
    guard = Guard(5)

    def work():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await guard.run(work)
    guard.close()
