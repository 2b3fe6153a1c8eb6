"""A long randomised run with faults, judged from the API server's log alone.

Bindings are refused (409, 500, lost answers), plugins raise and hang, nodes vanish between the choice and the binding,
pods are deleted, schedulers are killed and started anew with what the API has. In the end: no pod lost, none bound
twice, no node over-committed at any moment.
"""

from __future__ import annotations

import asyncio
import random

from bowsprit.client.errors import ConnectionFailed
from bowsprit.machinery.errors import conflict, internal_error, not_found
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import deep_copy
from bowsprit.scheduler.config.defaults import set_defaults
from bowsprit.scheduler.core import Assigned, SchedulerCore
from bowsprit.scheduler.driver.binding import Binder
from bowsprit.scheduler.driver.writing import Writer
from bowsprit.scheduler.framework import Status, failure
from bowsprit.scheduler.registry import registry

PODS_GR = GroupResource("", "pods")


class API:
    """Pods and nodes with a log; refuses what an API server refuses, and fails at random."""

    def __init__(self, rng):
        self.rng = rng
        self.nodes = {}
        self.pods = {}
        self.log = []
        self.bound = {}
        self.violations = []
        self.lost_answers = 0
        self.faults = True

    def events(self):
        log, self.log = self.log, []
        return log

    def add_node(self, name, cpu):
        labels = {"kubernetes.io/hostname": name}
        self.nodes[name] = {
            "metadata": {"name": name, "labels": labels},
            "status": {"allocatable": {"cpu": str(cpu), "memory": "64Gi", "pods": "20"}},
        }
        self.log.append(("node", deep_copy(self.nodes[name])))

    def remove_node(self, name):
        del self.nodes[name]
        self.log.append(("node gone", name))
        for pod in [p for p in self.pods.values() if p["spec"].get("nodeName") == name]:
            self.delete_pod(pod["metadata"]["name"])

    def add_pod(self, name, cpu, priority):
        container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": f"{cpu}m"}}}
        meta = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
        self.pods[name] = {"metadata": meta, "spec": {"containers": [container], "priority": priority}, "status": {}}
        self.log.append(("pod", deep_copy(self.pods[name])))

    def delete_pod(self, name):
        pod = self.pods.pop(name)
        self.log.append(("pod gone", pod))

    def used(self, node):
        pods = [p for p in self.pods.values() if p["spec"].get("nodeName") == node]
        amounts = [int(p["spec"]["containers"][0]["resources"]["requests"]["cpu"][:-1]) for p in pods]
        return sum(amounts), len(pods)

    # the client's side

    async def create(self, gvr, obj, *, namespace, name, subresource):
        await asyncio.sleep(0)
        fault = self.rng.random() if self.faults else 1.0
        if fault < 0.05:
            raise conflict(PODS_GR, name, "the object has been modified")
        if fault < 0.08:
            raise internal_error("etcd is away")
        pod = self.pods.get(name)
        if pod is None or pod["metadata"]["uid"] != obj["metadata"]["uid"]:
            raise not_found(PODS_GR, name)
        if pod["spec"].get("nodeName"):
            raise conflict(PODS_GR, name, f"pod {name} is already assigned to node")
        node = obj["target"]["name"]
        pod["spec"]["nodeName"] = node
        if name in self.bound:
            self.violations.append(f"{name} is bound twice")
        self.bound[name] = node
        self.log.append(("pod", deep_copy(pod)))
        cpu, count = self.used(node)
        if node in self.nodes:
            limit = int(self.nodes[node]["status"]["allocatable"]["cpu"]) * 1000
            if cpu > limit or count > 20:
                self.violations.append(f"{node} is over-committed: {cpu}m of {limit}m, {count} pods")
        if fault < 0.11:
            self.lost_answers += 1
            raise ConnectionFailed("the answer was lost")
        return {}

    async def get(self, gvr, name, *, namespace):
        await asyncio.sleep(0)
        if self.faults and self.rng.random() < 0.3:
            raise ConnectionFailed("not reachable")
        if name not in self.pods:
            raise not_found(PODS_GR, name)
        return deep_copy(self.pods[name])

    async def patch(self, gvr, name, patch, *, patch_type, namespace, subresource):
        await asyncio.sleep(0)
        if self.faults and self.rng.random() < 0.1:
            raise internal_error("etcd is away")
        pod = self.pods.get(name)
        if pod is None:
            raise not_found(PODS_GR, name)
        pod["status"].update({k: v for k, v in patch["status"].items() if v is not None})
        self.log.append(("pod", deep_copy(pod)))
        return pod

    async def delete(self, gvr, name, *, namespace, uid):
        await asyncio.sleep(0)
        if name not in self.pods:
            raise not_found(PODS_GR, name)
        self.delete_pod(name)
        return {}


class Flaky:
    """A plugin that raises, turns away, or hangs at any point."""

    name = "Flaky"

    def __init__(self, rng):
        self.rng = rng
        self.on = True

    def filter(self, state, pod, node):
        if self.on and self.rng.random() < 0.001:
            raise RuntimeError("filter failed")

    def reserve(self, state, pod, node_name):
        return failure("reserve failed") if self.on and self.rng.random() < 0.03 else None

    def unreserve(self, state, pod, node_name):
        return None

    def permit(self, state, pod, node_name):
        if self.on and self.rng.random() < 0.03:
            raise RuntimeError("permit failed")
        if self.on and self.rng.random() < 0.03:
            return Status(4, ()), 0.001  # WAIT: nobody allows it, the wait runs out
        return None, 0

    async def pre_bind(self, state, pod, node_name):
        if self.on and self.rng.random() < 0.03:
            raise RuntimeError("pre-bind failed")
        if self.on and self.rng.random() < 0.02:
            await asyncio.sleep(3600)


class _Watcher:
    def hold(self):
        pass

    def release(self):
        pass


class Instance:
    """A scheduler that can be killed: only what the API has survives it."""

    def __init__(self, api, flaky, clock):
        self.api = api
        self.tasks = set()
        writer = Writer(api, None, retry=0.0)
        plugins = {"multiPoint": {"enabled": [{"name": "Flaky"}]}}
        config = set_defaults({"profiles": [{"schedulerName": "default-scheduler", "plugins": plugins}]})
        self.core = SchedulerCore(
            config, registry({"Flaky": lambda args, handle: flaky}), clock, binder=writer.bind, client=writer
        )
        self.writer = writer
        self.binder = Binder(self.core, [], _Watcher(), timeout=0.01)
        for node in api.nodes.values():
            self.core.set_node(deep_copy(node))
        for pod in api.pods.values():
            self.core.set_pod(deep_copy(pod))

    def see(self, events):
        for kind, obj in events:
            if kind == "node":
                self.core.set_node(obj)
            elif kind == "node gone":
                self.core.delete_node(obj)
            elif kind == "pod":
                self.core.set_pod(obj)
            else:
                self.core.delete_pod(obj)

    def step(self):
        queued = self.core.queue.pop()
        if queued is None:
            return
        result = self.core.run_cycle(queued)
        if isinstance(result, Assigned):
            self.spawn(self.bind(result))
        elif getattr(result, "preemption", None) is not None:
            self.spawn(self.preempt(result))

    def spawn(self, work):
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def bind(self, assigned):
        await self.binder.bind(assigned)

    async def preempt(self, failed):
        for victim in failed.preemption.candidate.victims:
            try:
                await self.writer.evict(victim, "default-scheduler")
            except Exception:
                continue
        self.core.end_preemption(failed.profile, failed.queued.pod)

    async def kill(self):
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_nothing_is_lost_bound_twice_or_over_committed():
    apis = [await run(seed) for seed in range(12)]
    assert sum(api.lost_answers for api in apis) > 5, "the faults did not happen"


async def run(seed):
    rng = random.Random(seed)
    now = [1000.0]
    api, flaky = API(rng), Flaky(rng)
    for number in range(8):
        api.add_node(f"n{number}", 4)
    instance = Instance(api, flaky, lambda: now[0])
    api.events()
    made = 0
    for tick in range(900):
        if made < 120 and rng.random() < 0.3:
            api.add_pod(f"p{made}", rng.choice((100, 250, 900)), rng.choice((0, 0, 0, 10)))
            made += 1
        if rng.random() < 0.01 and len(api.nodes) > 5:
            api.remove_node(rng.choice(sorted(api.nodes)))
        if rng.random() < 0.02:
            api.add_node(f"m{tick}", 4)
        if rng.random() < 0.02 and api.pods:
            api.delete_pod(rng.choice(sorted(api.pods)))
        if rng.random() < 0.01:
            await instance.kill()
            api.events()
            instance = Instance(api, flaky, lambda: now[0])
        if rng.random() < 0.7:  # events arrive late now and then
            instance.see(api.events())
        instance.step()
        now[0] += rng.choice((0.0, 0.1, 1.0, -0.5 if rng.random() < 0.05 else 0.2))
        instance.core.queue.flush_backoff()
        await asyncio.sleep(0)
    api.faults = flaky.on = False
    for _ in range(3000):
        if (
            not instance.tasks
            and not any(kind for kind in api.log)
            and all(p["spec"].get("nodeName") for p in api.pods.values())
        ):
            break
        instance.see(api.events())
        instance.step()
        now[0] += 1.0
        instance.core.queue.flush_backoff()
        instance.core.queue.flush_unschedulable()
        await asyncio.sleep(0.0005 if instance.tasks else 0)
    waiting = [name for name, pod in api.pods.items() if not pod["spec"].get("nodeName")]
    capacity = 4000 * len(api.nodes)
    wanted = sum(int(p["spec"]["containers"][0]["resources"]["requests"]["cpu"][:-1]) for p in api.pods.values())
    known = {queued.pod.name for queued in instance.core.queue._pods.values()}
    assert api.violations == []
    assert len(api.bound) > 60
    assert all(name in known for name in waiting), "a pod is lost"
    if wanted < capacity * 0.7:
        assert waiting == []
    return api
