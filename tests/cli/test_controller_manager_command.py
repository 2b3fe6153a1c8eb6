"""``bowsprit controller-manager`` and ``bowsprit kubelet`` as processes, against an API server."""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
from pathlib import Path

import aiohttp
import yaml

from bowsprit.client.config import RestConfig
from bowsprit.client.kubeconfig import render
from bowsprit.client.resources import DEPLOYMENTS, NODES, PODS
from bowsprit.client.rest import RestClient
from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.server import APIServer


async def bowsprit(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bowsprit", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def test_both_commands_make_an_api_server_a_cluster(tmp_path: Path, unused_tcp_port: int) -> None:
    (tmp_path / "tokens").write_text('admin-token,admin,1,"system:masters"\n')
    server = APIServer(
        APIServerOptions(
            secure_port=0, cert_dir=tmp_path, token_auth_file=tmp_path / "tokens", advertise_address="192.0.2.1"
        )
    )
    await server.start()
    url = f"https://127.0.0.1:{server.port}"
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(yaml.safe_dump(render("test", server=url, ca_pem=server.serving_ca, token="admin-token")))
    port = str(unused_tcp_port)
    manager = await bowsprit(
        "controller-manager", "run", "--kubeconfig", str(kubeconfig), "--secure-port", port, "--leader-elect=false"
    )
    nodes = await bowsprit("kubelet", "--kubeconfig", str(kubeconfig), "--nodes", "2", "--node-labels", "tier=test")
    config = RestConfig(server=url, ca_data=server.serving_ca, token="admin-token")
    async with RestClient(config) as client, asyncio.timeout(40):
        while len((await client.list(NODES, label_selector="tier=test"))["items"]) < 2:
            await asyncio.sleep(0.05)
        template = {
            "metadata": {"labels": {"app": "a"}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]},
        }
        spec = {"replicas": 2, "selector": {"matchLabels": {"app": "a"}}, "template": template}
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "a", "namespace": "default"},
            "spec": spec,
        }
        await client.create(DEPLOYMENTS, body)
        phases: list[str] = []
        while phases != ["Running", "Running"]:
            await asyncio.sleep(0.05)
            phases = [pod["status"]["phase"] for pod in (await client.list(PODS, namespace="default"))["items"]]
        insecure = ssl.create_default_context()
        insecure.check_hostname = False
        insecure.verify_mode = ssl.CERT_NONE
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=insecure)) as session:
            answer = await session.get(f"https://127.0.0.1:{port}/healthz?verbose")
            assert "healthz check passed" in await answer.text()
        for process in (manager, nodes):
            process.send_signal(signal.SIGTERM)
            _, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()
            assert b"Traceback" not in errors
    await server.stop()


async def test_wrong_use_is_explained(tmp_path: Path) -> None:
    cases = [
        (["controller-manager", "--kubeconfig", str(tmp_path / "absent")], 1, "does not exist"),
        (["controller-manager", "--leader-elect-lease-duration", "soon"], 2, "soon"),
        (["kubelet", "--nodes", "2", "--node-name", "a"], 2, "exclude each other"),
        (["kubelet", "--kubeconfig", str(tmp_path / "absent")], 1, "does not exist"),
    ]
    for arguments, code, text in cases:
        process = await bowsprit(*arguments)
        _, errors = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == code, errors.decode()
        assert text in errors.decode()
        assert "Traceback" not in errors.decode()
