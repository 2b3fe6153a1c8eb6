"""The queue's rules that recorded scripts do not show."""

from __future__ import annotations

import pytest

from bowsprit.scheduler.config.defaults import set_defaults
from bowsprit.scheduler.core import Assigned, Failed, SchedulerCore
from bowsprit.scheduler.framework import Code, Status, failure
from bowsprit.scheduler.registry import registry


class World:
    def __init__(self, **plugins):
        self.now = 1000.0
        profile = {"schedulerName": "default-scheduler"}
        if plugins:
            profile["plugins"] = {"multiPoint": {"enabled": [{"name": name} for name in plugins]}}
        config = set_defaults({"profiles": [profile]})
        extra = {name: lambda args, handle, plugin=plugin: plugin for name, plugin in plugins.items()}
        self.core = SchedulerCore(config, registry(extra), lambda: self.now)

    def node(self, name, cpu="2"):
        status = {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "10"}}
        self.core.set_node({"metadata": {"name": name, "labels": {}}, "status": status})

    def pod(self, name, cpu="1", node="", priority=0, **spec):
        container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": cpu}}}
        meta = {"name": name, "namespace": "d", "uid": name}
        body = {"containers": [container], "priority": priority, **spec}
        obj = {"metadata": meta, "spec": {**body, "nodeName": node} if node else body}
        self.core.set_pod(obj)
        return obj

    def cycle(self):
        queued = self.core.queue.pop()
        return None if queued is None else self.core.run_cycle(queued)


@pytest.fixture
def world():
    return World()


def test_an_event_during_the_attempt_counts_when_the_pod_comes_back(world):
    world.node("a", cpu="500m")
    world.pod("p")
    queued = world.core.queue.pop()
    world.node("b")  # comes while p is being scheduled: the attempt below does see it, so take it away again
    world.core.cache.remove_node("b")
    world.core.run_cycle(queued)
    assert world.core.queue.sizes()["unschedulable"] == 0
    assert world.core.queue.sizes()["backoff"] == 1


def test_an_error_backs_off_and_does_not_leave_early(world):
    class Broken:
        name = "Broken"

        def reserve(self, state, pod, node):
            return failure("out of order")

        def unreserve(self, state, pod, node):
            return None

    world = World(Broken=Broken())
    world.node("a")
    world.pod("p")
    result = world.cycle()
    assert (result.reason, result.message) == ("SchedulerError", "out of order")
    assert world.core.cache.assumed == {}
    assert world.cycle() is None
    world.now += 2
    world.core.queue.flush_backoff()
    assert isinstance(world.cycle(), Failed)


def test_a_pending_rejection_skips_the_backoff():
    class Waits:
        name = "Waits"

        def __init__(self):
            self.ready = False

        def permit(self, state, pod, node):
            return (None if self.ready else Status(Code.PENDING, ("not yet",))), 0

    plugin = Waits()
    world = World(Waits=plugin)
    world.node("a")
    world.pod("p")
    assert isinstance(world.cycle(), Failed)
    plugin.ready = True
    world.node("b")  # an unknown plugin hears every event
    assert world.core.queue.sizes()["active"] == 1
    assert isinstance(world.cycle(), Assigned)


def test_a_preemptor_whose_victims_go_at_once_is_not_forgotten(world):
    world.node("a")
    low = world.pod("low", cpu="2", node="a")
    world.pod("high", cpu="2", priority=10)
    result = world.cycle()
    assert result.nominated == "a"
    world.core.delete_pod(low)  # the deletion is seen before the process has finished preempting
    assert world.cycle() is None
    world.core.end_preemption(result.profile, result.queued.pod)
    assert world.cycle().placement.node == "a"


def test_a_preemptor_whose_victim_stays_tries_again(world):
    world.node("a")
    world.pod("low", cpu="2", node="a")
    world.pod("high", cpu="2", priority=10)
    result = world.cycle()
    world.core.end_preemption(result.profile, result.queued.pod, retry=True)
    again = world.cycle()
    assert again.nominated == "a"


def test_pods_wait_five_minutes_at_most(world):
    world.node("a", cpu="500m")
    world.pod("p")
    world.cycle()
    world.now += 290
    world.core.queue.flush_unschedulable()
    assert world.cycle() is None
    world.now += 20
    world.core.queue.flush_unschedulable()
    assert isinstance(world.cycle(), Failed)


def test_a_pod_deleted_while_it_is_scheduled_does_not_come_back(world):
    world.node("a", cpu="500m")
    obj = world.pod("p")
    queued = world.core.queue.pop()
    world.core.delete_pod(obj)
    assert world.core.run_cycle(queued).__class__.__name__ == "Skipped"
    assert len(world.core.queue) == 0


def test_a_pod_of_higher_priority_goes_first_and_keeps_its_order(world):
    world.node("a", cpu="64")
    for name, priority in (("one", 0), ("two", 5), ("three", 5), ("four", 0)):
        world.pod(name, priority=priority)
        world.now += 0.001
    order = [world.core.queue.pop().pod.name for _ in range(4)]
    assert order == ["two", "three", "one", "four"]


def test_a_nominated_pod_holds_its_room_against_lower_ones(world):
    world.node("a")
    low = world.pod("low", cpu="2", node="a")
    world.pod("high", cpu="2", priority=10)
    result = world.cycle()
    world.core.end_preemption(result.profile, result.queued.pod)
    world.core.queue.delete("high-other")
    world.core.cache.remove_pod(low["metadata"]["uid"])
    world.pod("thief", cpu="1")
    assert isinstance(world.cycle(), Failed)


def test_gated_pods_are_not_tried_until_their_gates_are_gone(world):
    world.node("a")
    obj = world.pod("p", schedulingGates=[{"name": "wait"}])
    assert world.cycle() is None
    assert world.core.queue.sizes()["gated"] == 1
    world.core.set_pod({**obj, "spec": {**obj["spec"], "schedulingGates": []}})
    assert isinstance(world.cycle(), Assigned)


def test_a_pod_with_resource_claims_waits_and_says_why(world):
    world.node("a")
    world.pod("p", resourceClaims=[{"name": "gpu", "resourceClaimName": "g"}])
    result = world.cycle()
    assert "resource claims" in result.message
    assert world.core.queue.sizes()["unschedulable"] == 1


def test_many_candidates_for_preemption_take_turns(world):
    for number in range(150):
        world.node(f"n{number:03}")
        world.pod(f"low-{number}", cpu="2", node=f"n{number:03}")
    chosen = []
    for number in range(3):
        world.pod(f"high-{number}", cpu="2", priority=10)
        result = world.cycle()
        chosen.append(result.nominated)
        world.core.end_preemption(result.profile, result.queued.pod)
    assert len(set(chosen)) == 3
