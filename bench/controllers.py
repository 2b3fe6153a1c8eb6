"""Controllers, kubelet and informers against the bare requests that they must make in any case."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import uvloop

from bench import Row
from bowsprit.client.config import RestConfig
from bowsprit.client.informer import Informer
from bowsprit.client.resources import CONFIG_MAPS, DEPLOYMENTS, PODS
from bowsprit.client.rest import PatchType, RestClient
from bowsprit.controllers.manager import ControllerManager, ControllerManagerOptions
from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.server import APIServer
from bowsprit.kubelet.kubelet import Kubelet, KubeletOptions

_PODS = 200
_OBJECTS = 5000
_PARALLEL = 16


def run() -> Iterable[Row]:
    """All figures; about half a minute."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield from runner.run(_measure())


async def _measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tokens").write_text('admin-token,admin,1,"system:masters"\n')
        server = APIServer(
            APIServerOptions(
                secure_port=0, cert_dir=folder, token_auth_file=folder / "tokens", advertise_address="192.0.2.1"
            )
        )
        await server.start()
        url = f"https://127.0.0.1:{server.port}"
        config = RestConfig(server=url, ca_data=server.serving_ca, token="admin-token", qps=0, disable_compression=True)
        try:
            async with RestClient(config) as client:
                return [await _informer(client), await _rollout(client, config)]
        finally:
            await server.stop()


async def _all(work: Iterable[Any]) -> None:
    slots = asyncio.Semaphore(_PARALLEL)

    async def one(item: Any) -> None:
        async with slots:
            await item

    await asyncio.gather(*(one(item) for item in work))


async def _informer(client: RestClient) -> Row:
    """The first copy of a collection, against receiving and decoding the same list."""

    def body(number: int) -> Any:
        meta = {"name": f"c{number}", "namespace": "default", "labels": {"app": "bench"}}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"key": "x" * 500}}

    await _all(client.create(CONFIG_MAPS, body(number)) for number in range(_OBJECTS))
    started = time.perf_counter()
    answer = await client.raw("GET", "/api/v1/namespaces/default/configmaps")
    orjson.loads(answer.body)
    floor = time.perf_counter() - started
    started = time.perf_counter()
    informer = Informer(client, CONFIG_MAPS, namespace="default")
    informer.start()
    await informer.wait_synced(60)
    ours = time.perf_counter() - started
    assert len(informer.list()) >= _OBJECTS
    await informer.stop()
    await client.delete_collection(CONFIG_MAPS, namespace="default", label_selector="app=bench")
    rate = _OBJECTS / ours, _OBJECTS / floor
    note = "WatchList into the cache, against one LIST and its decoding; server in the same process"
    return Row("informer: first copy", rate[0], rate[1], "objects/s", rate[0] / rate[1], note=note)


async def _rollout(client: RestClient, config: RestConfig) -> Row:
    """A deployment's pods from nothing to Running, against the bare writes: create, and two statuses."""
    manager = ControllerManager(RestClient(replace(config)), ControllerManagerOptions(root_ca=b"ca"))
    kubelet = Kubelet(lambda _: RestClient(replace(config)), KubeletOptions(nodes=("bench-node",)))
    await manager.start()
    await kubelet.start()
    await kubelet.wait_ready(30)
    await manager.wait_synced(30)
    await asyncio.sleep(0.5)
    spec = {"nodeName": "elsewhere", "containers": [{"name": "c", "image": "i"}]}

    async def bare(number: int) -> None:
        meta = {"name": f"bare-{number}", "namespace": "default", "labels": {"app": "bare"}}
        await client.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        for phase in ("Pending", "Running"):
            status = {"status": {"phase": phase, "message": "x" * 1000}}
            await client.patch(
                PODS, meta["name"], status, namespace="default", subresource="status", patch_type=PatchType.STRATEGIC
            )

    started = time.perf_counter()
    await _all(bare(number) for number in range(_PODS))
    floor = _PODS / (time.perf_counter() - started)
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {**spec, "nodeName": "bench-node"}}
    wanted = {"replicas": _PODS, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    meta = {"name": "web", "namespace": "default"}
    started = time.perf_counter()
    await client.create(DEPLOYMENTS, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": wanted})
    while (await client.get(DEPLOYMENTS, "web", namespace="default")).get("status", {}).get(
        "availableReplicas"
    ) != _PODS:
        await asyncio.sleep(0.05)
    ours = _PODS / (time.perf_counter() - started)
    await manager.stop()
    await kubelet.stop()
    note = "with 3 events and 2 statuses per pod, conditions, endpoints; everything in one process"
    return Row("deployment: pods to Running", ours, floor, "pods/s", ours / floor, note=note)
