"""The API server against bare floors: requests/s, a big list, watch fan-out, memory.

The servers run in processes of their own, pinned to one core; the load comes from this process on another one. Floors send
the same bytes over the same TLS: a bare aiohttp handler (with a durable SQLite insert for POST), a raw TLS socket for the
list, one write per socket for the fan-out.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench import Row

CONNECTIONS = 16
SECONDS = 3.0
PODS = 10_000
WATCHERS = 200
EVENTS = 100
NAMESPACE = "/api/v1/namespaces/default"


def pod(name: str) -> dict[str, Any]:
    """A pod of about 2 KiB, like those of a Deployment."""
    env = [{"name": f"SETTING_{number}", "value": "some value of usual length"} for number in range(12)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "bench", "tier": "web"}},
        "spec": {
            "automountServiceAccountToken": False,
            "nodeName": "node-1",
            "containers": [
                {"name": "c", "image": "registry.example/app:1", "env": env, "ports": [{"containerPort": 80}]}
            ],
        },
    }


# -- servers (own processes) -----------------------------------------------------------------------------------------------


async def _serve_ours(folder: Path, store: str) -> None:
    from bowsprit.controlplane.options import APIServerOptions
    from bowsprit.controlplane.server import APIServer

    options = APIServerOptions(secure_port=0, store=store, cert_dir=folder / "certs", client_ca_file=folder / "ca.pem")
    server = APIServer(options)
    await server.start()
    print(json.dumps({"port": server.port}), flush=True)
    gc.collect()
    gc.freeze()
    registry = server.server.registry
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command, _, argument = line.strip().partition(" ")
        answer: Any = None
        if command == "fill":
            await _fill(registry, int(argument))
            answer = _stored(registry)
        elif command == "rss":
            gc.collect()
            answer = _rss()
        elif command == "touch":
            await _touch(registry, int(argument))
        print(json.dumps(answer), flush=True)


async def _fill(registry: Any, count: int) -> None:
    from bowsprit.machinery.names import GroupResource

    client = registry.client()
    existing = len(registry.collection(GroupResource("", "pods")).cacher)
    for number in range(existing, existing + count):
        await client.create(GroupResource("", "pods"), pod(f"filler-{number:06}"))


def _stored(registry: Any) -> int:
    from bowsprit.machinery.names import GroupResource

    cacher = registry.collection(GroupResource("", "pods")).cacher
    return sum(len(cacher.get(key).value) for key in cacher.keys("/registry/pods/"))


async def _touch(registry: Any, count: int) -> None:
    """Changes one ConfigMap so many times, as fast as possible."""
    from bowsprit.machinery.names import GroupResource

    client = registry.client()
    resource = GroupResource("", "configmaps")
    text = "x" * 1000

    for _ in range(count):

        def change(live: dict[str, Any]) -> None:
            live["data"] = {"n": live["metadata"]["resourceVersion"], "text": text}

        await client.change(resource, "default", "fan", change)
        await asyncio.sleep(0)


async def _serve_floor(folder: Path, body: bytes) -> None:
    from aiohttp import web

    connection = sqlite3.connect(folder / "floor.db", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)")
    from concurrent.futures import ThreadPoolExecutor

    thread = ThreadPoolExecutor(1)
    loop = asyncio.get_running_loop()

    def insert(data: bytes) -> None:
        connection.execute("INSERT INTO t (v) VALUES (?)", (data,))

    async def handle(request: web.BaseRequest) -> web.Response:
        if request.method == "POST":
            data = await request.read()
            await loop.run_in_executor(thread, insert, data)
            return web.Response(status=201, body=data, content_type="application/json")
        return web.Response(body=body, content_type="application/json")

    server = web.Server(handle)
    listener = await loop.create_server(server, "127.0.0.1", 0, ssl=_server_context(folder))
    print(json.dumps({"port": listener.sockets[0].getsockname()[1]}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)


async def _serve_raw(folder: Path, size: int) -> None:
    """Sends `size` bytes in 1 MiB writes to whoever sends a line; on stdin `fan <bytes> <times>` writes to all sockets."""
    loop = asyncio.get_running_loop()
    writers: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line == b"list\n":
            slice_ = b"x" * (1 << 20)
            left = size
            while left > 0:
                writer.write(slice_[:left])
                left -= len(slice_)
                await writer.drain()
            writer.close()
        else:
            writers.append(writer)

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=_server_context(folder))
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _, length, times = line.split()
        data = b"y" * int(length)
        for _ in range(int(times)):
            for writer in writers:
                writer.transport.write(data)
            await asyncio.sleep(0)
        print("null", flush=True)


def _server_context(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context


def _rss() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# -- load (this process) -----------------------------------------------------------------------------------------------------


class Process:
    """A server process and its port."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.apiserver", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with contextlib.suppress(OSError):
            os.sched_setaffinity(self._process.pid, {0})
        self.port = int(self._answer()["port"])

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the server process died")
        return json.loads(line)

    def tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def ask(self, command: str) -> Any:
        self.tell(command)
        return self._answer()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def _client_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    return context


class Load(asyncio.Protocol):
    """Sends requests one after the other and counts answers by their Content-Length."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self.requests = requests
        self.count = 0
        self.codes: dict[bytes, int] = {}
        self._buffer = b""
        self._missing = 0
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def go(self) -> None:
        self.transport.write(next(self.requests))

    def data_received(self, data: bytes) -> None:
        if self._missing:
            if len(data) < self._missing:
                self._missing -= len(data)
                return
            self._missing = 0
        else:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end]
            at = head.find(b"Content-Length: ") + 16
            length = int(head[at : head.find(b"\r", at) if head.find(b"\r", at) >= 0 else None])
            code = head[9:12]
            self.codes[code] = self.codes.get(code, 0) + 1
            rest = length - (len(self._buffer) - end - 4)
            self._buffer = b""
            if rest > 0:
                self._missing = rest
                return
        self.count += 1
        self.transport.write(next(self.requests))


async def _rate(port: int, context: ssl.SSLContext, requests: Any) -> tuple[float, dict[bytes, int]]:
    loop = asyncio.get_running_loop()
    loads = [Load(requests(number)) for number in range(CONNECTIONS)]
    for load in loads:
        await loop.create_connection(lambda load=load: load, "127.0.0.1", port, ssl=context)  # type: ignore[misc]
    for load in loads:
        load.go()
    await asyncio.sleep(0.5)  # warm
    begin = sum(load.count for load in loads)
    started = time.perf_counter()
    await asyncio.sleep(SECONDS)
    done = sum(load.count for load in loads) - begin
    rate = done / (time.perf_counter() - started)
    codes: dict[bytes, int] = {}
    for load in loads:
        load.transport.abort()
        for code, count in load.codes.items():
            codes[code] = codes.get(code, 0) + count
    return rate, codes


def _gets(path: str) -> Any:
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: bench\r\nAccept: application/json\r\n\r\n".encode()

    def requests(number: int) -> Iterator[bytes]:
        while True:
            yield request

    return requests


def _posts(path: str) -> Any:
    def requests(number: int) -> Iterator[bytes]:
        sequence = 0
        while True:
            sequence += 1
            body = json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": f"c-{os.getpid()}-{number}-{sequence}"},
                    "data": {"text": "x" * 500},
                }
            ).encode()
            head = (
                f"POST {path} HTTP/1.1\r\nHost: x\r\nUser-Agent: bench\r\nAccept: application/json\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            yield head.encode() + body

    return requests


async def _read_all(port: int, context: ssl.SSLContext, request: bytes, until: int | None) -> tuple[int, float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, limit=1 << 22)
    started = time.perf_counter()
    writer.write(request)
    size = 0
    while until is None or size < until:
        data = await reader.read(1 << 20)
        if not data:
            break
        size += len(data)
        if until is None and size == len(data):
            head, _, _ = data.partition(b"\r\n\r\n")
            at = head.find(b"Content-Length: ") + 16
            until = int(head[at:].partition(b"\r")[0]) + len(head) + 4
    seconds = time.perf_counter() - started
    writer.close()
    return size, seconds


class Watcher(asyncio.Protocol):
    """Counts bytes and tells when there are enough."""

    def __init__(self) -> None:
        self.size = 0
        self.wanted = 1 << 62
        self.enough: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.size += len(data)
        if self.size >= self.wanted and not self.enough.done():
            self.enough.set_result(None)


async def _watchers(port: int, context: ssl.SSLContext, request: bytes) -> list[Watcher]:
    loop = asyncio.get_running_loop()
    watchers = []
    for _ in range(WATCHERS):
        watcher = Watcher()
        await loop.create_connection(lambda watcher=watcher: watcher, "127.0.0.1", port, ssl=context)  # type: ignore[misc]
        watcher.transport.write(request)
        watchers.append(watcher)
    await asyncio.sleep(1.0)
    return watchers


async def _fan(process: Process, watchers: list[Watcher], command: str, size: int) -> float:
    loop = asyncio.get_running_loop()
    for watcher in watchers:
        watcher.size = 0
        watcher.wanted = size
        watcher.enough = loop.create_future()
    started = time.perf_counter()
    process.tell(command)
    await asyncio.gather(*(watcher.enough for watcher in watchers))
    seconds = time.perf_counter() - started
    process._answer()
    return seconds


def _prepare(folder: Path) -> None:
    from bowsprit.pki.authority import Authority

    authority = Authority.create("bench")
    (folder / "ca.pem").write_bytes(authority.ca_pem)
    authority.issue_server("localhost", ["localhost"], ["127.0.0.1"]).save(folder / "server.pem", folder / "server.key")
    authority.issue_client("admin", ["system:masters"]).save(folder / "client.pem", folder / "client.key")


def run() -> Iterable[Row]:
    """Every figure of the API server."""
    import uvloop

    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        context = _client_context(folder)
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        with runner:
            yield from _requests(folder, context, runner)
            yield from _big_list_and_memory(folder, context, runner)
            yield from _fan_out(folder, context, runner)


def _requests(folder: Path, context: ssl.SSLContext, runner: asyncio.Runner) -> Iterable[Row]:
    ours = Process("_ours", str(folder), f"sqlite:{folder}/state.db")
    try:
        rate, codes = runner.run(_rate(ours.port, context, _gets("/api/v1/namespaces/default")))
        assert set(codes) == {b"200"}, codes
        size, _ = runner.run(_read_all(ours.port, context, next(_gets("/api/v1/namespaces/default")(0)), None))
        (folder / "body").write_bytes(b"x" * (size - 400))
        floor = Process("_floor", str(folder))
        try:
            floor_rate, _ = runner.run(_rate(floor.port, context, _gets("/")))
            yield Row(
                "GET over mTLS keep-alive",
                rate,
                floor_rate,
                "req/s",
                rate / floor_rate,
                ">= 0.5",
                "bare aiohttp handler",
            )
            post_rate, codes = runner.run(_rate(ours.port, context, _posts(f"{NAMESPACE}/configmaps")))
            assert set(codes) == {b"201"}, codes
            floor_post, _ = runner.run(_rate(floor.port, context, _posts("/")))
            yield Row(
                "POST, durable",
                post_rate,
                floor_post,
                "req/s",
                post_rate / floor_post,
                ">= 0.35",
                "handler + SQLite insert",
            )
        finally:
            floor.stop()
    finally:
        ours.stop()


def _big_list_and_memory(folder: Path, context: ssl.SSLContext, runner: asyncio.Runner) -> Iterable[Row]:
    ours = Process("_ours", str(folder), "memory")
    try:
        before = ours.ask("rss")
        stored = ours.ask(f"fill {PODS}")
        after = ours.ask("rss")
        request = b"GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nUser-Agent: bench\r\nAccept: application/json\r\n\r\n"
        size, seconds = min(
            (runner.run(_read_all(ours.port, context, request, None)) for _ in range(5)), key=lambda r: r[1]
        )
        raw = Process("_raw", str(folder), str(size))
        try:
            floor = min(runner.run(_read_all(raw.port, context, b"list\n", size))[1] for _ in range(5))
        finally:
            raw.stop()
        yield Row(
            f"LIST of {PODS} pods, {size >> 20} MiB",
            size / seconds / 1e6,
            size / floor / 1e6,
            "MB/s",
            floor / seconds,
            ">= 0.6",
            "raw TLS socket",
        )
        yield Row(
            "memory per stored object",
            (after - before) / 1e6,
            stored / 1e6,
            "MB",
            (after - before) / stored,
            "<= 4",
            "RSS growth / JSON",
        )
    finally:
        ours.stop()


def _fan_out(folder: Path, context: ssl.SSLContext, runner: asyncio.Runner) -> Iterable[Row]:
    ours = Process("_ours", str(folder), "memory")
    try:
        body = json.dumps({"metadata": {"name": "fan"}}).encode()
        head = f"POST {NAMESPACE}/configmaps HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n"
        runner.run(_read_all(ours.port, context, request.encode() + body, None))
        watch = (
            f"GET {NAMESPACE}/configmaps?watch=1&fieldSelector=metadata.name%3Dfan HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        watchers = runner.run(_watchers(ours.port, context, watch))
        size = min(watcher.size for watcher in watchers)
        seconds = runner.run(_fan(ours, watchers, "touch 1", 1000))
        sizes = {watcher.size for watcher in watchers}
        per_event = min(sizes)
        wanted = per_event * EVENTS
        seconds = min(runner.run(_fan(ours, watchers, f"touch {EVENTS}", wanted)) for _ in range(3))
        raw = Process("_raw", str(folder), "0")
        try:
            plain = runner.run(_watchers(raw.port, context, b"fan\n"))
            floor = min(runner.run(_fan(raw, plain, f"fan {per_event} {EVENTS}", wanted)) for _ in range(3))
        finally:
            raw.stop()
        rate, floor_rate = (WATCHERS * EVENTS / each for each in (seconds, floor))
        note = f"{per_event} B each, first answer {size} B"
        yield Row(f"watch fan-out to {WATCHERS}", rate, floor_rate, "events/s", floor / seconds, ">= 0.6", note)
    finally:
        ours.stop()


def main() -> None:
    """Runs a server process, or all figures."""
    import uvloop

    role, *rest = sys.argv[1:] or ["run"]
    if role == "run":
        for row in run():
            mark = {True: "ok", False: "MISSED", None: ""}[row.reached]
            print(
                f"{row.name}: {row.ours:,.0f} against {row.floor:,.0f} {row.unit}: {row.ratio:.2f} ({row.aim}) {mark} {row.note}"
            )
        return
    folder = Path(rest[0])
    if role == "_ours":
        work = _serve_ours(folder, rest[1])
    elif role == "_floor":
        work = _serve_floor(folder, (folder / "body").read_bytes())
    else:
        work = _serve_raw(folder, int(rest[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


if __name__ == "__main__":
    main()
