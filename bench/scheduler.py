"""The scheduler on the workloads of kube-scheduler's performance suite, 5,000 nodes: the engine, then end to end.

Each figure is pods per second, beside the same plugins in a plain per-node Python loop (every filter and every score of
every node, each time). `BOWSPRIT_BENCH_NODES` changes the number of nodes; a note gives the published bar where there is one.
"""

from __future__ import annotations

import asyncio
import copy
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from bench import Row
from bowsprit.scheduler.config import default_config
from bowsprit.scheduler.core import Assigned, SchedulerCore
from bowsprit.scheduler.framework import CycleState
from bowsprit.scheduler.registry import registry

Obj = dict[str, Any]
NODES = int(os.environ.get("BOWSPRIT_BENCH_NODES", "5000"))
PODS = 3000
ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"
CONTAINERS = [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}}}]


def node(number: int, **status: Any) -> Obj:
    return {
        "metadata": {"name": f"n{number}", "labels": {HOST: f"n{number}", ZONE: f"z{number % 3}"}},
        "status": {"allocatable": {"cpu": "4", "memory": "32Gi", "pods": "110"}, **status},
    }


def pod(number: int, labels: Obj | None = None, namespace: str = "default", **spec: Any) -> Obj:
    meta = {"name": f"p{number}", "namespace": namespace, "uid": f"u-{namespace}-{number}", "labels": labels or {}}
    return {"metadata": meta, "spec": {"containers": CONTAINERS, **spec}}


def _term(labels: Obj, key: str, **more: Any) -> Obj:
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": key, **more}


def _affinity(kind: str, *, required: Obj | None = None, preferred: Obj | None = None) -> Obj:
    rules: Obj = {}
    if required:
        rules["requiredDuringSchedulingIgnoredDuringExecution"] = [required]
    if preferred:
        rules["preferredDuringSchedulingIgnoredDuringExecution"] = [{"weight": 1, "podAffinityTerm": preferred}]
    return {kind: rules}


def basic(i: int) -> Obj:
    return pod(i)


def daemonset(i: int) -> Obj:
    expression = {"key": "metadata.name", "operator": "In", "values": [f"n{i % NODES}"]}
    required = {"nodeSelectorTerms": [{"matchFields": [expression]}]}
    return pod(i, affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})


def node_affinity(i: int) -> Obj:
    required = {"nodeSelectorTerms": [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["z0", "z1"]}]}]}
    return pod(i, affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}})


def _spread(i: int, action: str) -> Obj:
    selector = {"matchLabels": {"color": "blue"}}
    constraint = {"maxSkew": 5, "topologyKey": ZONE, "whenUnsatisfiable": action, "labelSelector": selector}
    return pod(i, {"color": "blue"}, topologySpreadConstraints=[constraint])


def spread_hard(i: int) -> Obj:
    return _spread(i, "DoNotSchedule")


def spread_soft(i: int) -> Obj:
    return _spread(i, "ScheduleAnyway")


def affinity_required(i: int) -> Obj:
    return pod(i, {"color": "blue"}, affinity=_affinity("podAffinity", required=_term({"color": "blue"}, ZONE)))


def anti_required(i: int) -> Obj:
    return pod(i, {"color": "green"}, affinity=_affinity("podAntiAffinity", required=_term({"color": "green"}, HOST)))


def affinity_preferred(i: int) -> Obj:
    return pod(i, {"color": "red"}, affinity=_affinity("podAffinity", preferred=_term({"color": "red"}, HOST)))


def anti_preferred(i: int) -> Obj:
    term = _term({"color": "yellow"}, HOST)
    return pod(i, {"color": "yellow"}, affinity=_affinity("podAntiAffinity", preferred=term))


def anti_required_namespaces(i: int) -> Obj:
    term = _term({"color": "green"}, HOST, namespaceSelector={"matchLabels": {"team": "devops"}})
    return pod(i, {"color": "green"}, f"ns-{i % 100}", affinity=_affinity("podAntiAffinity", required=term))


def affinity_preferred_namespaces(i: int) -> Obj:
    term = _term({"color": "red"}, HOST, namespaceSelector={"matchLabels": {"team": "devops"}})
    return pod(i, {"color": "red"}, f"ns-{i % 100}", affinity=_affinity("podAffinity", preferred=term))


def unschedulable(i: int) -> Obj:
    big = [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": "9"}}}]
    return pod(i) if i % 2 else {**pod(i), "spec": {"containers": big}}


def mixed(i: int) -> Obj:
    kinds = (basic, spread_hard, affinity_required, affinity_preferred, anti_preferred)
    return kinds[i % 5](i)


def volumes(i: int) -> Obj:
    return pod(i, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": f"c{i}"}}])


def _claims(core: SchedulerCore) -> None:
    core.set_object(
        "StorageClass", {"metadata": {"name": "std"}, "provisioner": "csi", "volumeBindingMode": "Immediate"}
    )
    for i in (*range(PODS), *range(10**6, 10**6 + 1000)):
        spec = {"csi": {"driver": "csi", "volumeHandle": f"h{i}"}, "storageClassName": "std"}
        core.set_object(
            "PersistentVolume", {"metadata": {"name": f"pv{i}"}, "spec": spec, "status": {"phase": "Bound"}}
        )
        claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "std", "volumeName": f"pv{i}"}
        marks = {"pv.kubernetes.io/bind-completed": "yes"}
        meta = {"name": f"c{i}", "namespace": "default", "annotations": marks}
        core.set_object("PersistentVolumeClaim", {"metadata": meta, "spec": claim, "status": {"phase": "Bound"}})
    for i in range(NODES):
        driver = {"name": "csi", "nodeID": f"n{i}", "allocatable": {"count": 39}}
        core.set_object("CSINode", {"metadata": {"name": f"n{i}"}, "spec": {"drivers": [driver]}})


def _namespaces(core: SchedulerCore) -> None:
    for i in range(100):
        core.set_object("Namespace", {"metadata": {"name": f"ns-{i}", "labels": {"team": "devops"}}})


def build(nodes: int, setup: Callable[[SchedulerCore], None] | None = None) -> SchedulerCore:
    core = SchedulerCore(default_config(), registry(), time.time)
    if setup is not None:
        setup(core)
    for i in range(nodes):
        core.set_node(node(i))
    return core


def schedule(core: SchedulerCore, make: Callable[[int], Obj], count: int, first: int = 0) -> float:
    """Seconds to decide `count` pods, from the queue to the assumed (or parked) pod."""
    for i in range(first, first + count):
        core.set_pod(make(i))
    started = time.perf_counter()
    while (queued := core.queue.pop()) is not None:
        if isinstance(core.run_cycle(queued), Assigned):
            core.queue.done(queued.pod.uid)
    return time.perf_counter() - started


def plain_loop(core: SchedulerCore, make: Callable[[int], Obj], seconds: float = 1.0) -> float:
    """Pods per second when every filter and score is called for every node, without placing anything."""
    profile = next(iter(core.profiles.values()))
    nodes, number, started = core.cache.nodes, 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        info = core.cache.pod_info(make(number % PODS))
        state = CycleState()
        profile.run_pre_filter(state, info)
        fitting = [row for row in nodes.order.tolist() if profile.run_filters(state, info, nodes.info(row)) is None]
        rows = np.array(fitting, dtype=np.int64)
        for plugin in profile.scores:
            if not fitting:
                break
            if plugin.name in profile.pre_scores and plugin.pre_score(state, info, nodes, rows) is not None:
                continue
            if hasattr(plugin, "score"):
                for row in fitting:
                    plugin.score(state, info, nodes.info(row))
            else:
                plugin.score_rows(state, info, nodes, rows)
        number += 1
    return number / (time.perf_counter() - started)


WORKLOADS: tuple[tuple[Callable[[int], Obj], float, str, Callable[[SchedulerCore], None] | None], ...] = (
    (basic, 10_000, "kube-scheduler bar 680/s", None),
    (daemonset, 2_000, "bar 1100/s at 15,000 nodes", None),
    (node_affinity, 2_000, "bar 220/s", None),
    (spread_hard, 2_000, "bar 460/s", None),
    (spread_soft, 2_000, "bar 340/s", None),
    (affinity_required, 2_000, "bar 35/s", None),
    (anti_required, 2_000, "bar 60/s", None),
    (affinity_preferred, 2_000, "bar 90/s", None),
    (anti_preferred, 2_000, "bar 90/s", None),
    (anti_required_namespaces, 2_000, "bar 24/s", _namespaces),
    (affinity_preferred_namespaces, 2_000, "bar 90/s", _namespaces),
    (mixed, 2_000, "bar 140/s", None),
    (unschedulable, 2_000, "bar 590/s", None),
    (volumes, 0, "bar 100/s (CSI volumes)", _claims),
)


def run() -> Iterable[Row]:
    """Throughput by workload, preemption, gated pods, growth with the number of nodes, memory."""
    for make, aim, bar, setup in WORKLOADS:
        core = build(NODES, setup)
        schedule(core, make, 1000, 10**6)
        ours = PODS / schedule(core, make, PODS)
        floor = plain_loop(core, make)
        note = f"{bar}; aim {aim:g}/s {'reached' if ours >= aim else 'missed'}" if aim else bar
        yield Row(f"{make.__name__} {NODES} nodes", ours, floor, "pods/s", ours / floor, ">= 1", note)
    yield preemption()
    yield churn()
    yield gated()
    yield from growth()
    yield memory()
    yield from asyncio.run(end_to_end())


def preemption(nodes: int = 1000, pods: int = 500) -> Row:
    """4 low pods on each node; each newcomer needs the room of several."""
    core = build(nodes)
    low = [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": "900m", "memory": "500Mi"}}}]
    high = [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": "3000m", "memory": "500Mi"}}}]
    schedule(core, lambda i: {**pod(i), "spec": {"containers": low, "priority": 0}}, 4 * nodes, 10**6)

    def make(i: int) -> Obj:
        return {**pod(i), "spec": {"containers": high, "priority": 10}}

    for i in range(pods):
        core.set_pod(make(i))
    started = time.perf_counter()
    decided = 0
    while (queued := core.queue.pop()) is not None and decided < pods:
        result = core.run_cycle(queued)
        decided += 1
        if not isinstance(result, Assigned):
            core.end_preemption(result.profile, queued.pod)  # type: ignore[union-attr]
    ours = decided / (time.perf_counter() - started)
    floor = plain_loop(core, make)
    return Row(
        f"preemption {nodes} nodes",
        ours,
        floor,
        "pods/s",
        ours / floor,
        "",
        "floor only filters; kube-scheduler 45/s on 2 cores",
    )


def churn(pods: int = 2000) -> Row:
    """Every twentieth decision, a node comes or goes."""
    core = build(NODES)
    schedule(core, basic, 1000, 10**6)
    started = time.perf_counter()
    for i in range(pods // 20):
        core.set_node(node(10**6 + i)) if i % 2 == 0 else core.delete_node(f"n{10**6 + i - 1}")
        schedule(core, basic, 20, i * 20)
    ours = pods / (time.perf_counter() - started)
    floor = plain_loop(core, basic)
    return Row(f"churn {NODES} nodes", ours, floor, "pods/s", ours / floor, ">= 1", "bar 710/s")


def gated(waiting: int = 10_000, pods: int = 5000) -> Row:
    """10,000 gated pods wait while others are scheduled and bound pods are deleted, each deletion an event for the queue."""
    core = build(NODES)
    for i in range(waiting):
        made = pod(2 * 10**6 + i)
        core.set_pod({**made, "spec": {**made["spec"], "schedulingGates": [{"name": "g"}]}})
    schedule(core, basic, 1000, 10**6)
    started = time.perf_counter()
    for batch in range(pods // 100):
        schedule(core, basic, 100, batch * 100)
        for i in range(100):
            core.delete_pod({**pod(batch * 100 + i), "spec": {**pod(0)["spec"], "nodeName": "n0"}})
    ours = pods / (time.perf_counter() - started)
    assert core.queue.sizes()["gated"] == waiting
    floor = plain_loop(core, basic)
    return Row(f"gated {waiting} pods, {NODES} nodes", ours, floor, "pods/s", ours / floor, ">= 1", "bar 910/s")


def growth() -> Iterable[Row]:
    """Cost per pod as the cluster grows; the floor is the cost at 100 nodes."""
    base = 0.0
    for nodes in (100, 1000, 5000, 20_000, 50_000):
        core = build(nodes)
        schedule(core, spread_hard, 50, 10**6)
        cost = schedule(core, spread_hard, 500) / 500 * 1e6
        base = base or cost
        yield Row(f"spread_hard cost at {nodes} nodes", cost, base, "us/pod", cost / base)


def memory() -> Row:
    """Resident memory of a process with 5,000 nodes and 50,000 bound pods (each pod an object of its own)."""
    code = "from bench.scheduler import fill; fill()"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    used = float(output)
    return Row("memory 5000 nodes 50000 pods", used, 600.0, "MiB", used / 600, "<= 1", "whole process")


def fill() -> None:
    """Print the resident MiB of this process with a full cluster."""
    core = build(5000)
    for i in range(50_000):
        core.set_pod({**copy.deepcopy(pod(i)), "spec": {**copy.deepcopy(pod(i))["spec"], "nodeName": f"n{i % 5000}"}})
    assert len(core.cache.pods) == 50_000
    print(_resident() / 2**20)


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


SERVER = """
import asyncio
from bowsprit.cluster.embedded import AsyncCluster
async def main():
    async with AsyncCluster(components=("apiserver",)) as cluster:
        print(cluster.kubeconfig, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


async def end_to_end(nodes: int = 5000, pods: int = 5000) -> list[Row]:
    """Basic pods through an API server in a process of its own; the floor is how fast it takes the pods themselves."""
    from dataclasses import replace
    from pathlib import Path

    from bowsprit.client.kubeconfig import Kubeconfig
    from bowsprit.client.resources import NODES as NODES_GVR
    from bowsprit.client.resources import PODS as PODS_GVR
    from bowsprit.client.resources import SERVICE_ACCOUNTS
    from bowsprit.client.rest import PatchType, RestClient
    from bowsprit.scheduler.process import Scheduler, SchedulerOptions

    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stdout=pipe)
    assert server.stdout is not None
    try:
        path = Path((await server.stdout.readline()).decode().strip())
        rest = replace(Kubeconfig.load(path).rest_config(), qps=0.0)
        client = RestClient(rest)
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "default"},
        }
        await client.create(SERVICE_ACCOUNTS, account, namespace="default")
        gate = asyncio.Semaphore(32)

        async def add_node(i: int) -> None:
            async with gate:
                await client.create(NODES_GVR, {"apiVersion": "v1", "kind": "Node", **node(i)})
                await client.patch(NODES_GVR, f"n{i}", {"spec": {"taints": None}}, patch_type=PatchType.MERGE)

        async def add_pod(i: int) -> None:
            async with gate:
                made = pod(i)
                del made["metadata"]["uid"]
                await client.create(PODS_GVR, {"apiVersion": "v1", "kind": "Pod", **made}, namespace="default")

        await asyncio.gather(*map(add_node, range(nodes)))
        started = time.perf_counter()
        await asyncio.gather(*map(add_pod, range(pods)))
        floor = pods / (time.perf_counter() - started)
        await client.close()
        process = Scheduler(lambda agent: RestClient(rest), SchedulerOptions(secure_port=-1, leader_elect=False))
        begun = time.perf_counter()
        await process.start()
        started, first = time.perf_counter(), 0.0
        cache = process.core.cache
        async with asyncio.timeout(120):
            while (bound := len(cache.pods) - len(cache.assumed)) < pods:
                first = first or (time.perf_counter() - begun if bound else 0.0)
                await asyncio.sleep(0.005)
        ours = pods / (time.perf_counter() - started)
        await process.stop()
    finally:
        server.terminate()
        await server.wait()
    note = f"aim 1500/s {'reached' if ours >= 1500 else 'missed'}; floor: creating the pods"
    return [
        Row(f"end to end {nodes} nodes", ours, floor, "pods/s", ours / floor, ">= 0.5", note),
        Row("start to first binding", first, 3.0, "s", first / 3.0, "<= 1", f"{nodes} nodes, {pods} pods wait"),
    ]
