"""The manager as a whole: a restarted API server, two managers and one lease, health, stopping."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from bowsprit.client.config import RestConfig
from bowsprit.client.errors import ClientError
from bowsprit.client.resources import DEPLOYMENTS, LEASES, PODS, REPLICA_SETS
from bowsprit.client.rest import RestClient
from bowsprit.controllers.health import HealthServer, report
from bowsprit.controllers.manager import ControllerManager, ControllerManagerOptions
from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.server import APIServer
from bowsprit.machinery.errors import StatusError

Obj = dict[str, Any]


class Server:
    """An API server on SQLite that can be stopped and started again at its address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = 0
        self._server: APIServer | None = None
        (folder / "tokens").write_text('admin-token,admin,1,"system:masters"\n')

    async def start(self) -> None:
        self._server = APIServer(
            APIServerOptions(
                secure_port=self._port,
                cert_dir=self._folder,
                token_auth_file=self._folder / "tokens",
                store=f"sqlite:{self._folder / 'state.db'}",
                advertise_address="192.0.2.1",
            )
        )
        await self._server.start()
        self._port = self._server.port

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop()

    def client(self) -> RestClient:
        assert self._server is not None
        url = f"https://127.0.0.1:{self._port}"
        return RestClient(RestConfig(server=url, ca_data=self._server.serving_ca, token="admin-token", qps=0))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path)
    await made.start()
    yield made
    await made.stop()


def deployment(name: str, replicas: int) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    }


async def count(client: RestClient, name: str, expected: int, timeout: float = 20.0) -> None:
    """Wait until there are so many pods, and see that there are no more a little later."""
    number = -1
    async with asyncio.timeout(timeout):
        while number != expected:
            await asyncio.sleep(0.05)
            with suppress(StatusError, ClientError):
                number = len((await client.list(PODS, namespace="default", label_selector=f"app={name}"))["items"])
    await asyncio.sleep(0.3)
    assert len((await client.list(PODS, namespace="default", label_selector=f"app={name}"))["items"]) == expected


async def test_controllers_go_on_after_a_restart_of_the_api_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bowsprit.client.reflector._BACKOFF_BASE", 0.1)
    monkeypatch.setattr("bowsprit.client.reflector._BACKOFF_MAX", 0.5)
    manager = ControllerManager(server.client(), ControllerManagerOptions(root_ca=b"ca"))
    await manager.start()
    await manager.wait_synced(20)
    async with server.client() as client:
        await client.create(DEPLOYMENTS, deployment("before", 3))
        await count(client, "before", 3)
        await server.stop()
        await asyncio.sleep(0.5)
        await server.start()
        await client.patch(DEPLOYMENTS, "before", {"spec": {"replicas": 5}}, namespace="default")
        await client.create(DEPLOYMENTS, deployment("after", 2))
        await count(client, "after", 2)
        await count(client, "before", 5)
        assert len((await client.list(REPLICA_SETS, namespace="default"))["items"]) == 2
    await manager.stop()


async def test_one_of_two_managers_acts_and_the_other_takes_over(server: Server) -> None:
    options = ControllerManagerOptions(
        controllers=("deployment-controller", "replicaset-controller", "serviceaccount-controller"),
        leader_elect=True,
        leader_elect_lease_duration=2.0,
        leader_elect_renew_deadline=1.0,
        leader_elect_retry_period=0.1,
    )
    one = ControllerManager(server.client(), replace(options, identity="one"))
    two = ControllerManager(server.client(), replace(options, identity="two"))
    await one.start()
    await one.wait_synced(20)
    await two.start()
    async with server.client() as client:
        await client.create(DEPLOYMENTS, deployment("a", 1))
        await count(client, "a", 1)
        lease = await client.get(LEASES, "kube-controller-manager", namespace="kube-system")
        assert lease["spec"]["holderIdentity"] == "one"
        assert not two.controllers
        await one.stop()
        await two.wait_synced(20)
        await client.create(DEPLOYMENTS, deployment("b", 1))
        await count(client, "b", 1)
        lease = await client.get(LEASES, "kube-controller-manager", namespace="kube-system")
        assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("two", 1)
    await two.stop()


async def test_nothing_is_left_behind_after_a_stop(server: Server) -> None:
    before = asyncio.all_tasks()
    manager = ControllerManager(server.client(), ControllerManagerOptions(use_service_account_credentials=True))
    await manager.start()
    await manager.wait_synced(20)
    await manager.stop()
    await asyncio.sleep(0.05)
    left = [
        task.get_name()
        for task in asyncio.all_tasks() - before
        if "manager" in task.get_name() or "controller" in task.get_name() or "informer" in task.get_name()
    ]
    assert left == []


def test_health_reports_look_like_every_component_s() -> None:
    checks = {"a": lambda: None, "b": lambda: "broken"}
    assert report({"a": lambda: None}, verbose=False, exclude=set(), path="healthz") == (200, "ok")
    assert report(checks, verbose=False, exclude=set(), path="healthz") == (
        500,
        "[+]a ok\n[-]b failed: reason withheld\nhealthz check failed\n",
    )
    assert report(checks, verbose=True, exclude={"b"}, path="livez") == (
        200,
        "[+]a ok\n[+]b excluded: ok\nlivez check passed\n",
    )


async def test_health_over_https() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    server = HealthServer({"a": lambda: None}, context)
    port = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=aiohttp.TCPConnector(ssl=trust)) as client:
        assert await (await client.get("/healthz")).text() == "ok"
        assert (await client.get("/readyz/a")).status == 200
        assert (await client.get("/readyz/nope")).status == 404
        assert (await client.get("/metrics")).status == 404
    await server.stop()
