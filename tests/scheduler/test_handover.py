"""Two replicas on one lease; the leader is killed (SIGKILL) while pods stream in."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import aclosing

from bowsprit.client.resources import LEASES, NODES, PODS, SERVICE_ACCOUNTS
from bowsprit.client.rest import PatchType
from bowsprit.cluster.embedded import AsyncCluster
from bowsprit.machinery.errors import NotFoundError

CONFIG = """
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
leaderElection: {leaderElect: true, leaseDuration: 4s, renewDeadline: 3s, retryPeriod: 1s}
"""
COUNT, BEFORE = 60, 20


async def replica(config, kubeconfig):
    code = "from bowsprit.cli.main import main; main()"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, "scheduler", "--config", str(config), "--kubeconfig", str(kubeconfig),
        "--secure-port", "0", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip


async def prepare(client):
    meta = {"name": "default", "namespace": "default"}
    await client.create(
        SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}, namespace="default"
    )
    amounts = {"cpu": "4", "memory": "8Gi", "pods": "40"}
    for name in ("n0", "n1"):
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"allocatable": amounts}}
        await client.create(NODES, {**node, "status": {"allocatable": amounts, "capacity": amounts}})
        await client.patch(NODES, name, {"spec": {"taints": None}}, patch_type=PatchType.MERGE)


async def holder(client):
    try:
        lease = await client.get(LEASES, "kube-scheduler", namespace="kube-system")
    except NotFoundError:
        return ""
    return lease["spec"].get("holderIdentity") or ""


async def test_a_killed_leader_is_replaced_and_no_pod_is_bound_twice(tmp_path):
    config = tmp_path / "config.yaml"
    placements: dict[str, list[str]] = {}
    watching, reached, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def follow(client):
        async with aclosing(client.watch(PODS, namespace="default", resource_version="0")) as events:
            watching.set()
            async for event in events:
                node = (event.object.get("spec") or {}).get("nodeName")
                seen = placements.setdefault(event.object["metadata"].get("name", ""), [])
                if node and node not in seen:
                    seen.append(node)
                bound = sum(bool(nodes) for nodes in placements.values())
                if bound >= BEFORE:
                    reached.set()
                if bound == COUNT:
                    done.set()
                    return

    async with AsyncCluster(components=("apiserver",)) as cluster:
        client = cluster.client()
        await prepare(client)
        config.write_text(CONFIG)
        replicas = {}
        for _ in range(2):
            process = await replica(config, cluster.kubeconfig)
            replicas[process.pid] = process
            async with asyncio.timeout(60):
                while not (first := await holder(client)):
                    await asyncio.sleep(0.05)
        follower = asyncio.create_task(follow(client))
        try:
            await watching.wait()
            for number in range(COUNT):
                container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}}
                meta = {"name": f"p{number}", "namespace": "default"}
                pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}}
                await client.create(PODS, pod, namespace="default")
                if number == BEFORE + 5:
                    async with asyncio.timeout(60):
                        await reached.wait()
                    leader = next(iter(replicas.values()))  # only it ran when the lease was taken
                    leader.send_signal(signal.SIGKILL)
                    await leader.wait()
            async with asyncio.timeout(60):
                await done.wait()
            assert await holder(client) != first
            assert all(len(nodes) == 1 for nodes in placements.values()), placements
            used = {node: sum(nodes == [node] for nodes in placements.values()) for node in ("n0", "n1")}
            assert max(used.values()) <= 40
        finally:
            follower.cancel()
            for process in replicas.values():
                if process.returncode is None:
                    process.terminate()
                await process.wait()
            await asyncio.gather(follower, return_exceptions=True)
            await client.close()
