"""Kubelets and pods that cannot be reached: the Status, or the message on the error channel, says which dial failed."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.server import APIServer
from bowsprit.net.dial import DialError

POD = "/api/v1/namespaces/default/pods/web"
KUBELET = "https://192.0.2.7:10250"


class NoWay:
    """A dialer without a tunnel."""

    async def open(self, host: str, port: int) -> Any:
        raise DialError("No agent available")


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("secret,root,1,system:masters\n")
    options = APIServerOptions(secure_port=0, cert_dir=tmp_path, token_auth_file=tokens)
    server = APIServer(options, cluster_dialer=NoWay())
    await server.start()
    context = ssl.create_default_context(cafile=str(tmp_path / "apiserver.crt"))
    headers = {"Authorization": "Bearer secret"}
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(server.url, connector=connector, headers=headers) as session:
        await session.post("/api/v1/nodes", json={"metadata": {"name": "n"}})
        address = {"status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.7"}]}}
        merge = {"Content-Type": "application/merge-patch+json"}
        await session.patch("/api/v1/nodes/n/status", json=address, headers=merge)
        await session.post("/api/v1/namespaces/default/serviceaccounts", json={"metadata": {"name": "default"}})
        spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}
        made = await session.post("/api/v1/namespaces/default/pods", json={"metadata": {"name": "web"}, "spec": spec})
        assert made.status == 201, await made.text()
        await session.patch(f"{POD}/status", json={"status": {"podIP": "192.0.2.8"}}, headers=merge)
        yield session
    await server.stop()


async def test_logs_name_the_kubelets_address(client: aiohttp.ClientSession) -> None:
    async with client.get(f"{POD}/log") as answer:
        status = await answer.json()
    assert (answer.status, status.get("reason")) == (500, None)
    assert status["message"] == f'Get "{KUBELET}/containerLogs/default/web/c": No agent available'


@pytest.mark.parametrize("path", [f"{POD}:8080/proxy/", "/api/v1/nodes/n/proxy/x", f"{POD[:-3]}https:web:443/proxy/"])
async def test_proxies_are_unavailable(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path) as answer:
        assert answer.status == 503
        assert (await answer.json())["message"] == "error trying to reach service: No agent available"


@pytest.mark.parametrize("action", ["exec?command=a", "attach", "portforward"])
async def test_upgrades_are_refused(client: aiohttp.ClientSession, action: str) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "SPDY/3.1"}
    async with client.post(f"{POD}/{action}", headers=headers) as answer:
        assert answer.status == 500
        assert (await answer.json())["message"] == "error dialing backend: No agent available"


async def test_websockets_hear_of_it_on_the_error_channel(client: aiohttp.ClientSession) -> None:
    path = f"{POD}/exec?command=echo&command=a%26b&stdout=1&stderr=1"
    async with client.ws_connect(path, protocols=["v5.channel.k8s.io"]) as socket:
        said = await socket.receive_bytes(timeout=30)
    status = json.loads(said[1:])
    url = f"{KUBELET}/exec/default/web/c?command=echo&command=a%26b&error=1&output=1"
    assert said[0] == 3
    assert status["message"] == f'Internal error occurred: error sending request: Post "{url}": No agent available'
    assert (status["reason"], status["code"]) == ("InternalError", 500)
