"""A scripted API server with one collection: for what a well-behaved server does not do on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from bowsprit.client.config import RestConfig
from bowsprit.client.rest import RestClient

Obj = dict[str, Any]


class FakeServer:
    """ConfigMaps with history, watches, and faults that a test switches on."""

    def __init__(self) -> None:
        self.revision = 10
        self.compacted = 0
        self.objects: dict[str, Obj] = {}
        self.history: list[tuple[int, str, Obj]] = []
        self.knows_watch_list = True
        self.ignores_watch_list = False
        self.requests: list[web.BaseRequest] = []
        self.answers: list[web.Response] = []
        self.changed = asyncio.Condition()
        self.generation = 0
        self.url = ""

    def put(self, name: str, **data: str) -> None:
        self.revision += 1
        obj = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": self.objects.get(name, {}).get("metadata", {}).get("uid", f"uid-{self.revision}"),
                "resourceVersion": str(self.revision),
                "managedFields": [{"manager": "x"}],
            },
            "data": data,
        }
        self.history.append((self.revision, "MODIFIED" if name in self.objects else "ADDED", obj))
        self.objects[name] = obj

    def remove(self, name: str) -> None:
        self.revision += 1
        obj = self.objects.pop(name)
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.revision)}}
        self.history.append((self.revision, "DELETED", obj))

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def drop_watches(self) -> None:
        self.generation += 1
        await self.notify()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requests.append(request)
        if self.answers:
            return self.answers.pop(0)
        if request.query.get("watch") == "true":
            return await self.watch(request)
        if request.method == "GET" and request.path.endswith("/configmaps"):
            return self.list(request)
        return status(404, "NotFound", "not found")

    def list(self, request: web.BaseRequest) -> web.Response:
        limit = int(request.query.get("limit", "0")) or len(self.objects) + 1
        start = int(request.query.get("continue", "0"))
        names = sorted(self.objects)
        meta: Obj = {"resourceVersion": str(self.revision)}
        if start + limit < len(names):
            meta["continue"] = str(start + limit)
        items = []
        for name in names[start : start + limit]:
            item = dict(self.objects[name])
            del item["apiVersion"], item["kind"]
            items.append(item)
        return web.json_response({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": meta, "items": items})

    async def watch(self, request: web.BaseRequest) -> web.StreamResponse:
        initial = request.query.get("sendInitialEvents") == "true"
        if initial and not self.knows_watch_list:
            return status(422, "Invalid", "sendInitialEvents is forbidden")
        response = web.StreamResponse()
        await response.prepare(request)

        async def send(kind: str, obj: Obj) -> None:
            await response.write(orjson.dumps({"type": kind, "object": obj}) + b"\n")

        if initial and not self.ignores_watch_list:
            position = self.revision
            for obj in self.objects.values():
                await send("ADDED", obj)
            mark = {"resourceVersion": str(position), "annotations": {"k8s.io/initial-events-end": "true"}}
            await send("BOOKMARK", {"kind": "ConfigMap", "apiVersion": "v1", "metadata": mark})
        else:
            position = int(request.query.get("resourceVersion") or self.revision)
            if position < self.compacted:
                gone = {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}
                await send("ERROR", gone)
                return response
        generation = self.generation
        while generation == self.generation:
            for revision, kind, obj in self.history:
                if revision > position:
                    await send(kind, obj)
                    position = revision
            async with self.changed:
                await self.changed.wait()
        return response


def status(code: int, reason: str, message: str, **headers: str) -> web.Response:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
    }
    return web.json_response(body, status=code, headers=headers)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    runner = web.ServerRunner(web.Server(fake.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    fake.url = f"http://{host}:{port}"
    yield fake
    await runner.cleanup()


@pytest.fixture
async def client(server: FakeServer) -> AsyncIterator[RestClient]:
    async with RestClient(RestConfig(server=server.url, timeout=5)) as made:
        yield made


@pytest.fixture
def eventually() -> Callable[[Callable[[], Any]], Awaitable[None]]:
    async def wait(condition: Callable[[], Any], timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.005)

    return wait
