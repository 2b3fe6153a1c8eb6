"""Upgrades, and what happens when backends die, hang, dawdle or change their certificates: as upstream, and no request hangs."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from backends import GoodServer, Listener, bundle, issue, serving_context

from bowsprit.controlplane.server import APIServer
from bowsprit.pki.authority import Authority

GROUP = "one.example.com"
THINGS = f"/apis/{GROUP}/v1/namespaces/agg/things"
API_SERVICE = f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{GROUP}"


class Lively(GoodServer):
    """A good server with streams: `watch` sends what is put into `events`, `ws` echoes, `raw` upgrades to an unknown protocol."""

    def __init__(self, group: str) -> None:
        super().__init__(group)
        self.events: asyncio.Queue[str] = asyncio.Queue()
        self.protocols: list[str] = []
        self.asleep = False

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.asleep and not request.path.endswith("/t"):
            await self.release.wait()
        return await super()._answer(request)

    async def _thing(self, request: web.Request, name: str) -> web.StreamResponse:
        match name:
            case "watch":
                answer = web.StreamResponse(headers={"Content-Type": "application/json"})
                await answer.prepare(request)
                while event := await self.events.get():
                    await answer.write(event.encode() + b"\n")
                return answer
            case "ws":
                self.protocols = request.headers.get("Sec-WebSocket-Protocol", "").split(", ")
                socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",))
                await socket.prepare(request)
                async for message in socket:
                    await socket.send_str(f"echo {message.data}")
                return socket
            case "raw":
                assert request.transport is not None
                request.transport.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
                )
                request.transport.set_protocol(_Shout(request.transport))
                await asyncio.sleep(3600)
            case "flood" | "last-flood":
                answer = web.StreamResponse()
                if name == "last-flood":
                    answer.force_close()
                await answer.prepare(request)
                for _ in range(64):
                    await answer.write(b"z" * (1 << 18))
                return answer
        return await super()._thing(request, name)


class _Shout(asyncio.Protocol):
    """Answers in capitals."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data.upper())


class Stage:
    """One backend behind a server."""

    def __init__(self, server: APIServer, session: aiohttp.ClientSession, folder: Path) -> None:
        self.server, self.session, self.folder = server, session, folder
        self.backend = Lively(GROUP)
        self.listener = Listener(self.backend, serving_context(folder, "one", folder / "front-ca.crt"))

    async def set_up(self) -> None:
        await self.listener.start()
        await self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "agg"}})
        ports = [{"port": self.listener.port}]
        spec = {"type": "ExternalName", "externalName": "localhost", "ports": ports}
        await self.ask("POST", "/api/v1/namespaces/agg/services", {"metadata": {"name": "one"}, "spec": spec})
        about = {"group": GROUP, "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}
        service = {"namespace": "agg", "name": "one", "port": self.listener.port}
        made = {**about, "caBundle": bundle(self.folder, "ca"), "service": service}
        await self.ask("POST", API_SERVICE.rpartition("/")[0], {"metadata": {"name": f"v1.{GROUP}"}, "spec": made})
        await self.until("True")

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        headers = {"Authorization": "Bearer admin-token"}
        async with self.session.request(method, self.server.url + path, json=body, headers=headers, **more) as answer:
            text = await answer.text()
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text

    async def until(self, status: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while True:
                _, item = await self.ask("GET", API_SERVICE)
                condition: dict[str, Any] = ((item.get("status") or {}).get("conditions") or [{}])[0]
                if condition.get("status") == status:
                    return condition
                await asyncio.sleep(0.05)

    def open(self, path: str, **more: Any) -> Any:
        headers = {"Authorization": "Bearer admin-token"}
        return self.session.get(self.server.url + path, headers=headers, **more)


@pytest.fixture
async def stage(server: APIServer, session: aiohttp.ClientSession, tmp_path: Path) -> AsyncIterator[Stage]:
    ca = issue(tmp_path, "ca", [])
    issue(tmp_path, "one", ["one.agg.svc"], ca=ca)
    made = Stage(server, session, tmp_path)
    await made.set_up()
    yield made
    made.backend.release.set()
    await made.listener.stop()


async def _eventually(check: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.02)


# -- upgrades --------------------------------------------------------------------------------------------------------------


async def test_a_websocket_goes_through_and_tokens_do_not(stage):
    token = "base64url.bearer.authorization.k8s.io.YWRtaW4tdG9rZW4"
    async with stage.session.ws_connect(
        stage.server.url + f"{THINGS}/ws", protocols=(token, "v5.channel.k8s.io")
    ) as socket:
        assert socket.protocol == "v5.channel.k8s.io"
        for number in range(3):
            await socket.send_str(f"{number}" * 70_000)
            assert (await socket.receive_str()) == "echo " + f"{number}" * 70_000
    assert stage.backend.protocols == ["v5.channel.k8s.io"]
    seen = stage.backend.seen[-1]["headers"]
    assert (seen["X-Remote-User"], seen["Upgrade"]) == ("admin", "websocket")
    assert "Authorization" not in seen


async def test_other_protocols_are_copied_byte_for_byte(stage):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.server.port, ssl=context)
    writer.write(
        f"POST {THINGS}/raw HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin-token\r\nConnection: Upgrade\r\n"
        "Upgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n".encode()
    )
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        for piece in (b"\x80\x03abc", b"x" * 200_000):
            writer.write(piece)
            assert await reader.readexactly(len(piece)) == piece.upper()
        await stage.listener.stop()
        assert await reader.read() == b""  # the end of one side is the end of the other
    writer.close()


async def test_an_upgrade_ends_with_its_client(stage):
    socket = await stage.session.ws_connect(
        stage.server.url + f"{THINGS}/ws", headers={"Authorization": "Bearer admin-token"}
    )
    await socket.send_str("a")
    await socket.receive_str()
    assert stage.server.server._http is not None
    before = len(stage.server.server._http.connections)
    await socket.close()
    await _eventually(lambda: len(stage.server.server._http.connections) < before)  # type: ignore[union-attr]


# -- backends that go ------------------------------------------------------------------------------------------------------


async def test_events_come_one_by_one(stage):
    async with stage.open(f"{THINGS}/watch?watch=1") as answer:
        for number in range(3):
            await stage.backend.events.put(f"event {number}")
            async with asyncio.timeout(5):
                assert (await answer.content.readline()) == f"event {number}\n".encode()
        await stage.backend.events.put("")
        assert await answer.content.read() == b""


async def test_a_killed_backend_breaks_its_watches_and_then_answers_503(stage):
    async with stage.open(f"{THINGS}/watch?watch=1") as answer:
        await stage.backend.events.put("one")
        assert await answer.content.readline() == b"one\n"
        await stage.listener.stop()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.read()
    status, text = await stage.ask("POST", THINGS, {"a": 1})
    assert status == 503
    assert text.startswith("error trying to reach service: dial tcp ")
    assert text.endswith(": connect: connection refused\n")
    # Whoever asks about it next finds it gone; nobody waits for it.
    _, item = await stage.ask("GET", API_SERVICE)
    item["metadata"]["labels"] = {"a": "b"}
    await stage.ask("PUT", API_SERVICE, item)
    condition = await stage.until("False")
    assert condition["reason"] == "FailedDiscoveryCheck"
    assert await stage.ask("GET", THINGS) == (503, "service unavailable\n")
    await stage.listener.start()
    await stage.until("True")  # it is looked for again and again
    assert (await stage.ask("GET", f"{THINGS}/t"))[0] == 200
    metrics = (await stage.ask("GET", "/metrics"))[1]
    assert f'aggregator_unavailable_apiservice{{name="v1.{GROUP}"}} 0' in metrics
    assert f'aggregator_unavailable_apiservice_total{{name="v1.{GROUP}",reason="FailedDiscoveryCheck"}} 1' in metrics


async def test_a_hanging_backend_is_left_after_the_requests_time(stage):
    stage.server.server.options = replace(stage.server.server.options, request_timeout=0.3)
    status, answer = await stage.ask("GET", f"{THINGS}/hang")
    assert (status, answer["reason"], answer["message"]) == (
        504,
        "Timeout",
        "Timeout: request did not complete within the allotted timeout",
    )
    status, answer = await stage.ask("POST", f"{THINGS}/hang", {"a": 1})
    assert status == 504
    pool = stage.server._aggregator._backends[f"v1.{GROUP}"].pool  # type: ignore[union-attr]
    assert pool is not None
    await _eventually(lambda: len(pool._open) == len(pool._idle))  # nothing is left behind


async def test_slow_discovery_is_cut_short(stage):
    stage.backend.asleep = True
    begun = asyncio.get_running_loop().time()
    status, text = await stage.ask("GET", f"/apis/{GROUP}/v1")
    assert (status, text) == (503, "error trying to reach service: context deadline exceeded\n")
    assert asyncio.get_running_loop().time() - begun < 15
    assert (await stage.ask("GET", "/apis/apps/v1"))[0] == 200


async def test_a_client_that_goes_takes_its_request_along(stage):
    answer = await stage.open(f"{THINGS}/watch?watch=1")
    pool = stage.server._aggregator._backends[f"v1.{GROUP}"].pool  # type: ignore[union-attr]
    assert pool is not None
    await _eventually(lambda: len(pool._open) > len(pool._idle))
    answer.close()
    await _eventually(lambda: len(pool._open) == len(pool._idle))


@pytest.mark.parametrize("name", ["flood", "last-flood"])
async def test_a_slow_client_holds_the_backend_back_and_gets_everything(stage, name):
    async with stage.open(f"{THINGS}/{name}", read_bufsize=1 << 12) as answer:
        await asyncio.sleep(0.3)
        size = 0
        async for piece in answer.content.iter_chunked(1 << 14):
            size += len(piece)
            await asyncio.sleep(0.001)  # still slow when the backend has sent the last and closes
    assert size == 64 << 18


async def test_an_idle_connection_that_was_closed_is_not_noticed(stage):
    for _ in range(5):
        assert (await stage.ask("GET", f"{THINGS}/t"))[0] == 200
        pool = stage.server._aggregator._backends[f"v1.{GROUP}"].pool  # type: ignore[union-attr]
        assert pool is not None
        for connection in list(stage.listener._server.connections):
            if connection.transport is not None:
                connection.transport.abort()


async def test_big_bodies_pass_in_pieces(stage):
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(18):
            yield b"y" * 50_000

    headers = {"Authorization": "Bearer admin-token"}
    async with stage.session.post(stage.server.url + THINGS, data=pieces(), headers=headers) as answer:
        assert answer.status == 200
    assert stage.backend.seen[-1]["body"] == "y" * 900_000


# -- certificates ----------------------------------------------------------------------------------------------------------


async def test_a_new_proxy_certificate_is_shown_without_a_restart(stage, front_proxy):
    assert (await stage.ask("GET", f"{THINGS}/t"))[0] == 200
    assert stage.backend.seen[-1]["clientCert"] == "front-proxy-client"
    stop = asyncio.Event()
    bad: list[Any] = []

    async def load() -> None:
        while not stop.is_set():
            answer = await stage.ask("GET", f"{THINGS}/t")
            if answer[0] != 200:
                bad.append(answer)

    loads = [asyncio.create_task(load()) for _ in range(4)]
    front_proxy.issue_client("front-proxy-second").save(stage.folder / "front.crt", stage.folder / "front.key")
    await _eventually(lambda: stage.backend.seen[-1]["clientCert"] == "front-proxy-second")
    stop.set()
    await asyncio.gather(*loads)
    assert bad == []


async def test_a_new_authority_of_the_backend_is_followed(stage):
    other = issue(stage.folder, "ca2", [])
    issue(stage.folder, "one", ["one.agg.svc"], ca=other)
    port = stage.listener.port
    await stage.listener.stop()
    stage.listener = Listener(stage.backend, serving_context(stage.folder, "one", stage.folder / "front-ca.crt"))
    stage.listener.port = port
    await stage.listener.start()
    status, text = await stage.ask("GET", f"{THINGS}/t")
    assert status == 503
    assert "tls: failed to verify certificate: x509: certificate signed by unknown authority" in text
    _, item = await stage.ask("GET", API_SERVICE)
    item["spec"]["caBundle"] = bundle(stage.folder, "ca2")
    assert (await stage.ask("PUT", API_SERVICE, item))[0] == 200
    async with asyncio.timeout(20):
        while (await stage.ask("GET", f"{THINGS}/t"))[0] != 200:
            await asyncio.sleep(0.05)


async def test_a_certificate_of_the_wrong_authority_is_refused_by_the_backend(stage, tmp_path):
    Authority.create("impostor").issue_client("front-proxy-client").save(tmp_path / "front.crt", tmp_path / "front.key")
    async with asyncio.timeout(20):
        while (await stage.ask("GET", f"{THINGS}/t"))[0] == 200:
            await asyncio.sleep(0.05)
    status, text = await stage.ask("GET", f"{THINGS}/t")
    assert status == 503
    assert text.startswith(("error trying to reach service: ", "service unavailable"))


async def test_a_connection_that_was_busy_while_the_certificate_changed_is_not_used_again(stage, tmp_path):
    busy = asyncio.create_task(stage.ask("GET", f"{THINGS}/hang"))
    await _eventually(lambda: any(item["path"].endswith("/hang") for item in stage.backend.seen))
    Authority.create("impostor").issue_client("front-proxy-client").save(tmp_path / "front.crt", tmp_path / "front.key")
    async with asyncio.timeout(20):
        while (await stage.ask("GET", f"{THINGS}/t"))[0] == 200:
            await asyncio.sleep(0.05)
    stage.backend.release.set()
    assert (await busy)[0] == 200
    assert (await stage.ask("GET", f"{THINGS}/t"))[0] == 503


async def test_a_client_that_is_slower_than_the_backend_holds_up_nobody_after_it(stage):
    """Each answer pauses and resumes the connection to the backend many times, which must not stay paused when it is kept."""
    async with asyncio.timeout(60):
        for _ in range(12):
            async with stage.open(f"{THINGS}/flood") as answer:
                size = 0
                while piece := await answer.content.read(1 << 20):
                    size += len(piece)
                    await asyncio.sleep(0.001)
            assert size == 64 << 18
            assert (await stage.ask("GET", f"{THINGS}/t"))[0] == 200
