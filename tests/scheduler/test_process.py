"""The process against a real API server of our own: several schedulers, preemption, leader election, HTTPS."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from pathlib import Path

import aiohttp
import pytest

from bowsprit.cli.main import main
from bowsprit.client.config import RestConfig
from bowsprit.client.resources import EVENTS_V1, NODES, PODS, SERVICE_ACCOUNTS
from bowsprit.client.rest import PatchType, RestClient
from bowsprit.cluster.embedded import AsyncCluster
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.net.ports import free_port
from bowsprit.scheduler.config import default_config, load
from bowsprit.scheduler.core import SchedulerCore
from bowsprit.scheduler.driver.watching import Watcher
from bowsprit.scheduler.process import Scheduler, SchedulerOptions
from bowsprit.scheduler.registry import registry

CLUSTER_ROLE_BINDINGS = GroupVersionResource("rbac.authorization.k8s.io", "v1", "clusterrolebindings")
GROUP = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"


@pytest.fixture
async def cluster():
    async with AsyncCluster(components=("apiserver",)) as running:
        client = running.client()
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": "default"},
        }
        await client.create(SERVICE_ACCOUNTS, account, namespace="default")
        for number in range(2):
            await add_node(client, f"n{number}")
        running.api = client
        yield running
        await client.close()


async def add_node(client, name, cpu="2"):
    labels = {"kubernetes.io/hostname": name}
    resources = {"cpu": cpu, "memory": "8Gi", "pods": "10"}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    await client.create(NODES, {**node, "status": {"allocatable": resources, "capacity": resources}})
    body = {"status": {"allocatable": resources, "capacity": resources}}
    await client.patch(NODES, name, body, patch_type=PatchType.STRATEGIC, subresource="status")
    await client.patch(NODES, name, {"spec": {"taints": None}}, patch_type=PatchType.MERGE)


def pod(name, cpu="100m", **spec):
    container = {"name": "c", "image": "pause", "resources": {"requests": {"cpu": cpu}}}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container], **spec}}


async def create(client, *pods):
    for obj in pods:
        await client.create(PODS, obj, namespace="default")


async def until(question, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not (answer := await question()):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)
    return answer


async def node_of(client, name):
    return (await client.get(PODS, name, namespace="default"))["spec"].get("nodeName")


async def condition(client, name):
    status = (await client.get(PODS, name, namespace="default")).get("status") or {}
    return next((c for c in status.get("conditions") or () if c["type"] == "PodScheduled"), None)


def scheduler(cluster, text="", **options):
    config = load(GROUP + text)[0] if text else None
    options = {"secure_port": -1, "leader_elect": False, **options}
    return Scheduler(lambda agent: cluster.client(), SchedulerOptions(config=config, **options))


async def test_two_schedulers_take_their_own_pods(cluster):
    client = cluster.api
    await create(client, pod("mine"), pod("other", schedulerName="my-scheduler"))
    first, second = scheduler(cluster), scheduler(cluster, "profiles: [{schedulerName: my-scheduler}]")
    await first.start()
    try:
        await until(lambda: node_of(client, "mine"))
        assert await node_of(client, "other") is None
        await second.start()
        await until(lambda: node_of(client, "other"))

        async def events():
            items = (await client.list(EVENTS_V1, namespace="default"))["items"]
            return {e["regarding"]["name"]: e for e in items if e.get("reason") == "Scheduled"}

        async def both():
            found = await events()
            return found if len(found) == 2 else None

        found = await until(both)
        assert found["other"]["reportingController"] == "my-scheduler"
        node = await node_of(client, "mine")
        assert found["mine"]["note"] == f"Successfully assigned default/mine to {node}"
        assert (found["mine"]["action"], found["mine"]["type"]) == ("Binding", "Normal")
    finally:
        await first.stop()
        await second.stop()


async def test_a_pod_that_does_not_fit_is_told_why_and_waits_for_room(cluster):
    client, running = cluster.api, scheduler(cluster)
    await running.start()
    try:
        await create(client, pod("big", cpu="3"))
        found = await until(lambda: condition(client, "big"))
        assert found["reason"] == "Unschedulable"
        assert found["message"].startswith("0/2 nodes are available: 2 Insufficient cpu.")
        await add_node(client, "n9", cpu="4")
        assert await until(lambda: node_of(client, "big")) == "n9"
    finally:
        await running.stop()


async def test_preemption_evicts_the_lower_pod(cluster):
    client, running = cluster.api, scheduler(cluster)
    await running.start()
    try:
        await create(client, *(pod(f"low-{i}", cpu="1500m") for i in range(2)))
        for i in range(2):
            await until(lambda i=i: node_of(client, f"low-{i}"))
        await create(client, pod("high", cpu="1500m", priorityClassName="system-cluster-critical"))
        high = await until(lambda: nominated(client))
        victim = await until(lambda: terminating(client))
        assert victim["spec"]["nodeName"] == high
        disruption = next(c for c in victim["status"]["conditions"] if c["type"] == "DisruptionTarget")
        assert disruption["reason"] == "PreemptionByScheduler"
        await client.delete(PODS, victim["metadata"]["name"], namespace="default", grace_period_seconds=0)
        assert await until(lambda: node_of(client, "high")) == high
    finally:
        await running.stop()


async def nominated(client):
    return ((await client.get(PODS, "high", namespace="default")).get("status") or {}).get("nominatedNodeName")


async def terminating(client):
    items = (await client.list(PODS, namespace="default"))["items"]
    return next((item for item in items if item["metadata"].get("deletionTimestamp")), None)


async def test_replicas_hand_over(cluster):
    client = cluster.api
    text = "leaderElection: {leaseDuration: 3s, renewDeadline: 2s, retryPeriod: 500ms}"
    one, two = (scheduler(cluster, text, leader_elect=True, identity=name) for name in ("one", "two"))
    await one.start()
    await create(client, pod("first"))
    await until(lambda: node_of(client, "first"))
    await two.start()
    await one.stop()
    started = time.monotonic()
    await create(client, pod("second"))
    await until(lambda: node_of(client, "second"))
    assert time.monotonic() - started < 15
    await two.stop()


async def token_of_admin(client):
    """A token of a service account that may read everything."""
    meta = {"name": "default", "namespace": "default"}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", **meta}],
    }
    await client.create(CLUSTER_ROLE_BINDINGS, binding)
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await client.create(SERVICE_ACCOUNTS, request, name="default", namespace="default", subresource="token")
    return answer["status"]["token"]


async def test_https_serves_health_to_all_and_metrics_to_those_allowed(cluster):
    running = scheduler(cluster, secure_port=0)
    await running.start()
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    try:
        async with aiohttp.ClientSession(base_url=f"https://127.0.0.1:{running.port}") as session:
            for path, code, text in (
                ("/healthz", 200, "ok"),
                ("/readyz?verbose", 200, "[+]sched-handler-sync ok"),
                ("/healthz?verbose&exclude=leaderElection", 200, "[+]leaderElection excluded: ok"),
                ("/livez?verbose", 200, "[+]ping ok\nlivez check passed"),
                ("/readyz/shutdown", 200, "ok"),
                ("/metrics", 403, 'User \\"system:anonymous\\" cannot get path \\"/metrics\\"'),
                ("/configz", 403, "Forbidden"),
            ):
                async with session.get(path, ssl=trusting) as answer:
                    assert answer.status == code, path
                    assert text in await answer.text(), path
            async with session.get("/metrics", ssl=trusting, headers={"Authorization": "Bearer nonsense"}) as answer:
                assert answer.status == 401
            await create(cluster.api, pod("seen"), pod("too-big", cpu="9"))
            await until(lambda: condition(cluster.api, "too-big"))
            admin = {"Authorization": f"Bearer {await token_of_admin(cluster.api)}"}
            for path, text in (
                ("/metrics", 'scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} 1.0'),
                ("/metrics", 'scheduler_cache_size{type="nodes"} 2.0'),
                ("/metrics", 'scheduler_plugin_evaluation_total{extension_point="Filter",plugin="NodeResourcesFit"'),
                ("/metrics/resources", 'pod="too-big",priority="0",resource="cpu",scheduler="default-scheduler"'),
                ("/metrics/slis", 'kubernetes_healthcheck{name="sched-handler-sync",type="readyz"} 1'),
                ("/statusz", "kube-scheduler statusz"),
                ("/flagz", "kube-scheduler flagz"),
                ("/configz", '"componentconfig"'),
            ):
                async with session.get(path, ssl=trusting, headers=admin) as answer:
                    assert (answer.status, text in await answer.text()) == (200, True), path
    finally:
        await running.stop()


async def test_a_pod_deleted_while_it_waits_is_forgotten(cluster):
    client, running = cluster.api, scheduler(cluster)
    await running.start()
    try:
        await create(client, pod("big", cpu="3"))
        await until(lambda: condition(client, "big"))
        await client.delete(PODS, "big", namespace="default", grace_period_seconds=0)

        async def gone():
            try:
                await client.get(PODS, "big", namespace="default")
            except NotFoundError:
                return len(running.core.queue) == 0
            return False

        await until(gone)
    finally:
        await running.stop()


async def test_explain_and_simulate_look_at_the_live_cluster(cluster, capsys):
    client = cluster.api
    await create(client, pod("small"), pod("big", cpu="3"))

    def command(*args):
        with pytest.raises(SystemExit) as stop:
            main(["scheduler", *args])
        return stop.value.code

    config = str(cluster.kubeconfig)
    assert await asyncio.to_thread(command, "explain", "big", "--kubeconfig", config) == 0
    out = capsys.readouterr().out
    assert "0/2 nodes are available: 2 Insufficient cpu." in out
    assert "free 1000m cpu on n0, or request 2000m" in out
    assert await asyncio.to_thread(command, "explain", "small", "--kubeconfig", config, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["best"] in ("n0", "n1")
    assert await asyncio.to_thread(command, "explain", "none", "--kubeconfig", config) == 1
    assert 'pods "none" not found' in capsys.readouterr().err


async def test_example_plugins_schedule_on_a_cluster(cluster, monkeypatch):
    client, folder = cluster.api, Path(__file__).parents[2] / "examples" / "scheduler"
    monkeypatch.syspath_prepend(str(folder))
    for name, zone in (("n0", "zone-b"), ("n1", "zone-a")):
        labels = {"metadata": {"labels": {"topology.kubernetes.io/zone": zone}}}
        await client.patch(NODES, name, labels, patch_type=PatchType.MERGE)
    config, _ = load((folder / "config.yaml").read_text())
    running = Scheduler(
        lambda agent: cluster.client(), SchedulerOptions(config=config, secure_port=-1, leader_elect=False)
    )
    await running.start()
    try:
        await create(client, pod("cheap", schedulerName="cheap"))
        assert await until(lambda: node_of(client, "cheap")) == "n1"
        members = [pod(f"member-{i}", schedulerName="gang") for i in range(3)]
        for member in members:
            member["metadata"] |= {"labels": {"gang": "g"}, "annotations": {"gang/size": "3"}}
        await create(client, *members[:2])
        await until(lambda: waiting(running, 2))
        assert await node_of(client, "member-0") is None
        await create(client, members[2])
        for i in range(3):
            await until(lambda i=i: node_of(client, f"member-{i}"))
        await create(client, *(pod(f"packed-{i}", schedulerName="packed") for i in range(4)))
        packed = {await until(lambda i=i: node_of(client, f"packed-{i}")) for i in range(4)}
        assert len(packed) == 1
    finally:
        await running.stop()


async def waiting(running, count):
    return len(running.core.cache.assumed) == count


async def test_a_server_that_does_not_answer_is_named():
    client = RestClient(RestConfig(server=f"http://127.0.0.1:{free_port()}"))
    watcher = Watcher(client, SchedulerCore(default_config(), registry(), time.monotonic), lambda: None)
    try:
        with pytest.raises(TimeoutError, match=r"no list of namespaces, .*, pods: .*connection refused"):
            await watcher.start(2.0)
    finally:
        await watcher.stop()
        await client.close()
