"""An extension API server behind ours: who it is told is asking, and what happens when it goes."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.server import APIServer
from bowsprit.pki.authority import Authority

GROUP = "back.example.com"
RESOURCES = [{"name": "things", "singularName": "thing", "namespaced": True, "kind": "Thing", "verbs": ["get", "list"]}]


class Extension:
    """An HTTPS server that demands the front proxy's certificate and tells what it has seen."""

    def __init__(self, folder: Path, ca: Authority, front_proxy: Authority) -> None:
        self.seen: list[web.Request] = []
        ca.issue_server("back", ["back.demo.svc"]).save(folder / "b.crt", folder / "b.key")
        (folder / "front.crt").write_bytes(front_proxy.ca_pem)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(folder / "b.crt", folder / "b.key")
        self.context.load_verify_locations(folder / "front.crt")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.runner = web.AppRunner(self._app())
        self.port = 0

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    async def start(self) -> None:
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port, ssl_context=self.context, reuse_address=True)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.path == f"/apis/{GROUP}/v1":
            return web.json_response({"kind": "APIResourceList", "groupVersion": f"{GROUP}/v1", "resources": RESOURCES})
        if not request.path.startswith(f"/apis/{GROUP}/"):
            return web.Response(status=404)
        self.seen.append(request)
        if request.path.endswith("/moved"):
            return web.Response(status=302, headers={"Location": "https://elsewhere/"})
        if request.path.endswith("/stream"):
            answer = web.StreamResponse()
            await answer.prepare(request)
            for number in range(3):
                await answer.write(json.dumps({"n": number}).encode() + b"\n")
            return answer
        body = await request.text()
        return web.json_response({"kind": "Thing", "path": request.path_qs, "body": body}, headers={"X-Backend": "yes"})


class Stage:
    """Our server, the extension server, and a client."""

    def __init__(self, server: APIServer, extension: Extension, session: aiohttp.ClientSession) -> None:
        self.server, self.extension, self.session = server, extension, session

    async def ask(
        self, method: str, path: str, body: Any = None, token: str = "admin", **headers: str
    ) -> tuple[int, Any]:
        sent = {"Authorization": f"Bearer {token}", **{key.replace("_", "-"): value for key, value in headers.items()}}
        async with self.session.request(
            method, self.server.url + path, json=body, headers=sent, allow_redirects=False
        ) as answer:
            text = await answer.text()
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text

    async def register(self, ca: Authority) -> None:
        await self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "demo"}})
        ports = [{"port": self.extension.port}]
        spec = {"type": "ExternalName", "externalName": "localhost", "ports": ports}
        await self.ask("POST", "/api/v1/namespaces/demo/services", {"metadata": {"name": "back"}, "spec": spec})
        api_service = {
            "metadata": {"name": f"v1.{GROUP}"},
            "spec": {
                "group": GROUP,
                "version": "v1",
                "groupPriorityMinimum": 100,
                "versionPriority": 10,
                "caBundle": base64.b64encode(ca.ca_pem).decode(),
                "service": {"namespace": "demo", "name": "back", "port": self.extension.port},
            },
        }
        status, answer = await self.ask("POST", "/apis/apiregistration.k8s.io/v1/apiservices", api_service)
        assert status == 201, answer

    async def until_available(self, status: str) -> dict[str, Any]:
        condition: dict[str, Any] = {}
        for _ in range(400):
            _, item = await self.ask("GET", f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{GROUP}")
            condition = ((item.get("status") or {}).get("conditions") or [{}])[0]
            if condition.get("status") == status:
                return condition
            await asyncio.sleep(0.05)
        raise AssertionError(condition)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[tuple[Stage, Authority]]:
    front_proxy, ca = Authority.create("front"), Authority.create("backend-ca")
    front_proxy.issue_client("front-proxy-client").save(tmp_path / "p.crt", tmp_path / "p.key")
    (tmp_path / "t.csv").write_text('admin,root,1,"system:masters"\nnobody,mallory,2\n')
    extension = Extension(tmp_path, ca, front_proxy)
    await extension.start()
    server = APIServer(
        APIServerOptions(
            secure_port=0,
            cert_dir=tmp_path / "state",
            token_auth_file=tmp_path / "t.csv",
            proxy_client_cert_file=tmp_path / "p.crt",
            proxy_client_key_file=tmp_path / "p.key",
        )
    )
    await server.start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        yield Stage(server, extension, session), ca
    await server.stop()
    await extension.runner.cleanup()


THING = f"/apis/{GROUP}/v1/namespaces/demo/things/t"


async def test_requests_are_passed_on_in_the_users_name(stage):
    here, ca = stage
    await here.register(ca)
    assert (await here.until_available("True"))["reason"] == "Passed"
    status, answer = await here.ask(
        "POST",
        f"{THING}?limit=5&x=y",
        {"a": 1},
        X_Remote_User="evil",
        X_Remote_Group="system:masters",
        X_Custom="kept",
    )
    assert (status, answer["path"]) == (200, f"{THING}?limit=5&x=y")
    assert json.loads(answer["body"]) == {"a": 1}
    headers = here.extension.seen[-1].headers
    assert headers.getall("X-Remote-User") == ["root"]
    assert headers.getall("X-Remote-Group") == ["system:masters", "system:authenticated"]
    assert "Authorization" not in headers
    assert headers["X-Custom"] == "kept"
    assert headers["X-Forwarded-For"] == "127.0.0.1"


async def test_nobody_gets_through_without_the_right(stage):
    here, ca = stage
    await here.register(ca)
    await here.until_available("True")
    status, answer = await here.ask("GET", THING, token="nobody")
    assert status == 403
    assert answer["message"].startswith(f'things.{GROUP} "t" is forbidden: User "mallory" cannot get resource "things"')
    assert here.extension.seen == []


async def test_redirects_end_here_and_streams_flow(stage):
    here, ca = stage
    await here.register(ca)
    await here.until_available("True")
    assert await here.ask("GET", f"/apis/{GROUP}/v1/namespaces/demo/things/moved") == (
        502,
        "the backend attempted to redirect this request, which is not permitted",
    )
    status, text = await here.ask("GET", f"/apis/{GROUP}/v1/namespaces/demo/things/stream")
    assert (status, text) == (200, '{"n": 0}\n{"n": 1}\n{"n": 2}\n')


async def test_discovery_tells_of_it_and_of_its_going(stage):
    here, ca = stage
    await here.register(ca)
    await here.until_available("True")
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

    async def discovered() -> Any:
        _, groups = await here.ask("GET", "/apis", Accept=accept)
        return next(item for item in groups["items"] if item["metadata"]["name"] == GROUP)["versions"][0]

    async with asyncio.timeout(20):
        while not (version := await discovered()).get("resources"):
            await asyncio.sleep(0.05)
    assert (version["freshness"], version["resources"][0]["resource"]) == ("Current", "things")
    await here.ask("DELETE", "/api/v1/namespaces/demo/services/back")
    assert (await here.until_available("False"))["reason"] == "ServiceNotFound"
    async with asyncio.timeout(20):
        while (await discovered())["freshness"] != "Stale":
            await asyncio.sleep(0.05)
    assert await here.ask("GET", THING) == (503, "service unavailable\n")
    await here.ask("DELETE", f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{GROUP}")
    async with asyncio.timeout(20):
        while (await here.ask("GET", THING))[0] != 404:
            await asyncio.sleep(0.05)


async def test_a_certificate_of_another_authority_is_not_believed(stage):
    here, _ = stage
    await here.register(Authority.create("wrong"))
    condition = await here.until_available("False")
    assert condition["reason"] == "FailedDiscoveryCheck"
    assert "tls: failed to verify certificate: x509: certificate signed by unknown authority" in condition["message"]
