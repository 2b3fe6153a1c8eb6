"""The aggregation layer: requests through the API server against the same requests sent to the extension server directly.

Processes of their own: the core API server, an extension API server with a kind of its own, and a relay that only moves bytes from
one TLS connection to another: what any server in between costs. This one makes the load. Direct requests show a client
certificate of the cluster's authority, as a client that is allowed to goes there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import Row

OBJECTS = 10_000
ROUNDS, GETS = 40, 50
LISTS = 7
PARALLEL, SECONDS = 64, 1.0
EVENTS = 200
GROUP, NAMESPACE = "bench.example.com", "default"
THINGS = f"/apis/{GROUP}/v1/namespaces/{NAMESPACE}/things"


# -- servers (own processes) -----------------------------------------------------------------------------------------------


async def _serve_core(folder: Path) -> None:
    from bowsprit.controlplane.options import APIServerOptions
    from bowsprit.controlplane.server import APIServer

    server = APIServer(
        APIServerOptions(
            secure_port=0,
            store="memory",
            cert_dir=folder / "core",
            client_ca_file=folder / "ca.pem",
            requestheader_client_ca_file=folder / "front-ca.pem",
            proxy_client_cert_file=folder / "front.crt",
            proxy_client_key_file=folder / "front.key",
        )
    )
    await server.start()
    (folder / "core.pem").write_bytes(server.serving_ca)
    await _stay({"port": server.port})


async def _serve_extension(folder: Path, core_port: int) -> None:
    from bowsprit.client.config import RestConfig
    from bowsprit.extension.options import ExtensionOptions
    from bowsprit.extension.server import ExtensionServer
    from bowsprit.machinery.names import GroupResource

    core = RestConfig(
        server=f"https://127.0.0.1:{core_port}",
        insecure_skip_tls_verify=True,
        client_certificate_data=(folder / "admin.crt").read_bytes(),
        client_key_data=(folder / "admin.key").read_bytes(),
    )
    server = ExtensionServer(
        _app(),
        ExtensionOptions(
            bind_address="127.0.0.1",
            secure_port=0,
            core=core,
            tls_cert_file=folder / "serving.crt",
            tls_private_key_file=folder / "serving.key",
        ),
    )
    _, port = await server.start()
    client = server.server.registry.client()
    for number in range(OBJECTS):
        labels = {"app": "bench", "part": str(number % 10)}
        made = {
            "apiVersion": f"{GROUP}/v1",
            "kind": "Thing",
            "metadata": {"name": f"thing-{number:05}", "namespace": NAMESPACE, "labels": labels},
            "spec": {"text": "some text of a usual length " * 8, "size": number},
        }
        await client.create(GroupResource(GROUP, "things"), made)
    await _stay({"port": port})


async def _serve_relay(folder: Path, port: int) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "serving.crt", folder / "serving.key")

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port, ssl=_as_admin(folder))
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=serving)
    await _stay({"port": server.sockets[0].getsockname()[1]})


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


def _app() -> Any:
    from bowsprit.extension import App, Kind, Model

    app = App(GROUP, name="bench")

    class ThingSpec(Model):
        text: str = ""
        size: int = 0

    @app.kind()
    class Thing(Kind):
        spec: ThingSpec = ThingSpec()

    return app


async def _stay(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)
    gc.collect()
    gc.freeze()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextlib.contextmanager
def _process(role: str, *arguments: str) -> Iterator[dict[str, Any]]:
    command = [sys.executable, "-m", "bench.aggregator", role, *arguments]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield json.loads(child.stdout.readline())
    finally:
        child.kill()
        child.wait()


# -- the load --------------------------------------------------------------------------------------------------------------


@dataclass
class _Way:
    """One connection to a server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    host: str

    async def begin(self, method: str, path: str, body: bytes = b"") -> int | None:
        """Send a request and read the answer's head; the length of its body, None for chunks."""
        lines = f"{method} {path} HTTP/1.1\r\nHost: {self.host}\r\nAccept: application/json\r\nAccept-Encoding: identity\r\n"
        lines += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        self.writer.write(lines.encode() + b"\r\n" + body)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = head.split(" ", 2)[1]
        if not status.startswith("2"):
            raise RuntimeError(f"{method} {path}: {head}")
        if "transfer-encoding: chunked" in head:
            return None
        return int(head.partition("content-length:")[2].partition("\r\n")[0])

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        length = await self.begin(method, path, body)
        if length is not None:
            return await self.reader.readexactly(length)
        return b"".join([piece async for piece in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self.reader.readline(), 16):
            piece = await self.reader.readexactly(size + 2)
            yield piece[:-2]
        await self.reader.readline()


def _as_admin(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
    return context


async def _connect(folder: Path, port: int) -> _Way:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_as_admin(folder), limit=1 << 26)
    return _Way(reader, writer, f"127.0.0.1:{port}")


async def _register(folder: Path, core: _Way, port: int) -> None:
    spec = {"type": "ExternalName", "externalName": "127.0.0.1", "ports": [{"port": port}]}
    service = json.dumps({"metadata": {"name": "bench"}, "spec": spec}).encode()
    await core.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/services", service)
    bundle = b64encode((folder / "serving-ca.pem").read_bytes()).decode()
    reference = {"namespace": NAMESPACE, "name": "bench", "port": port}
    about = {"group": GROUP, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100}
    item = {"metadata": {"name": f"v1.{GROUP}"}, "spec": {**about, "caBundle": bundle, "service": reference}}
    services = "/apis/apiregistration.k8s.io/v1/apiservices"
    await core.ask("POST", services, json.dumps(item).encode())
    for _ in range(100):
        found = json.loads(await core.ask("GET", f"{services}/v1.{GROUP}"))
        if "Passed" in json.dumps(found.get("status")):
            return
        await asyncio.sleep(0.1)
    raise RuntimeError(f"the extension server is not available: {found['status']}")


async def _times(way: _Way, path: str, count: int) -> list[float]:
    taken = []
    for _ in range(count):
        begun = time.perf_counter()
        await way.ask("GET", path)
        taken.append(time.perf_counter() - begun)
    return taken


async def _both(direct: _Way, through: _Way, path: str, rounds: int, count: int) -> tuple[float, float]:
    """Median seconds of a request (directly, through the aggregator); in turns, so that both see the same machine."""
    first: list[float] = []
    second: list[float] = []
    for _ in range(rounds):
        first += await _times(direct, path, count)
        second += await _times(through, path, count)
    return statistics.median(first), statistics.median(second)


async def _rate(ways: Sequence[_Way], path: str) -> float:
    """GETs a second that the connections get done together."""
    begun, answered = time.perf_counter(), 0

    async def ask_on(way: _Way) -> None:
        nonlocal answered
        while time.perf_counter() < begun + SECONDS:
            await way.ask("GET", path)
            answered += 1

    await asyncio.gather(*(ask_on(way) for way in ways))
    return answered / (time.perf_counter() - begun)


async def _rates(folder: Path, ports: Sequence[int], path: str, rounds: int) -> list[float]:
    """Medians of the rates of many connections at a time, to each port in turns."""
    groups = [[await _connect(folder, port) for _ in range(PARALLEL)] for port in ports]
    found = [[await _rate(ways, path) for ways in groups] for _ in range(rounds + 1)]
    for ways in groups:
        for way in ways:
            way.writer.close()
    return [statistics.median(rates) for rates in zip(*found[1:], strict=True)]


async def _delays(folder: Path, ports: tuple[int, int], writer: _Way) -> list[float]:
    """How many seconds later each event comes through the aggregator than directly."""
    seen: list[dict[str, float]] = [{}, {}]

    async def follow(position: int) -> None:
        way = await _connect(folder, ports[position])
        await way.begin("GET", f"{THINGS}?watch=1&resourceVersion={revision}")
        async for piece in way.chunks():
            now = time.perf_counter()
            for line in piece.splitlines():
                seen[position][json.loads(line)["object"]["spec"]["text"]] = now
            if len(seen[position]) >= EVENTS:
                way.writer.close()
                return

    revision = json.loads(await writer.ask("GET", f"{THINGS}?limit=1"))["metadata"]["resourceVersion"]
    followers = [asyncio.create_task(follow(position)) for position in (0, 1)]
    await asyncio.sleep(0.3)
    obj = json.loads(await writer.ask("GET", f"{THINGS}/thing-00000"))
    for number in range(EVENTS):
        obj["spec"]["text"] = f"event {number}"
        obj = json.loads(await writer.ask("PUT", f"{THINGS}/thing-00000", json.dumps(obj).encode()))
        await asyncio.sleep(0.002)
    await asyncio.wait_for(asyncio.gather(*followers), 20)
    return [seen[1][text] - seen[0][text] for text in seen[0]]


@contextlib.asynccontextmanager
async def _clients(folder: Path, ports: tuple[int, int]) -> AsyncIterator[list[Any]]:
    from bowsprit.client.config import RestConfig
    from bowsprit.client.rest import RestClient

    certificate, key = (folder / "admin.crt").read_bytes(), (folder / "admin.key").read_bytes()
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                RestClient(
                    RestConfig(
                        server=f"https://127.0.0.1:{port}",
                        insecure_skip_tls_verify=True,
                        client_certificate_data=certificate,
                        client_key_data=key,
                        disable_compression=True,
                        qps=0.0,
                    )
                )
            )
            for port in ports
        ]


async def _by_client(clients: list[Any], rounds: int, count: int, *, name: str) -> list[float]:
    """Median seconds of a get (of a list without a name) with the client library: directly, through the aggregator."""
    from bowsprit.machinery.names import GroupVersionResource

    things = GroupVersionResource(GROUP, "v1", "things")
    taken: list[list[float]] = [[], []]
    for _ in range(rounds):
        for client, times in zip(clients, taken, strict=True):
            for _ in range(count):
                begun = time.perf_counter()
                if name:
                    await client.get(things, name, namespace=NAMESPACE)
                else:
                    await client.list(things, namespace=NAMESPACE)
                times.append(time.perf_counter() - begun)
    return [statistics.median(times) for times in taken]


def _by_official_client(folder: Path, ports: tuple[int, int], rounds: int, count: int, name: str) -> list[float]:
    """As `_by_client`, with the Python client of the Kubernetes project."""
    from kubernetes import client as official

    apis = []
    for port in ports:
        settings = official.Configuration(host=f"https://127.0.0.1:{port}")
        settings.verify_ssl = False
        settings.cert_file, settings.key_file = str(folder / "admin.crt"), str(folder / "admin.key")
        apis.append(official.CustomObjectsApi(official.ApiClient(settings)))
    taken: list[list[float]] = [[], []]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that nobody is verified
        for _ in range(rounds):
            for api, times in zip(apis, taken, strict=True):
                for _ in range(count):
                    begun = time.perf_counter()
                    api.get_namespaced_custom_object(GROUP, "v1", NAMESPACE, "things", name)
                    times.append(time.perf_counter() - begun)
    return [statistics.median(times) for times in taken]


def _row(name: str, seconds: Sequence[float], aim: str, note: str) -> Row:
    direct, through = seconds
    return Row(name, through * 1e3, direct * 1e3, "ms", through / direct, aim, note)


async def _measure(folder: Path, core_port: int, port: int, relay_port: int) -> AsyncIterator[Row]:
    through, direct = await _connect(folder, core_port), await _connect(folder, port)
    await _register(folder, through, port)
    one = "thing-00042"
    await _both(direct, through, f"{THINGS}/{one}", 4, GETS)  # warm up
    async with _clients(folder, (port, core_port)) as clients:
        await _by_client(clients, 4, GETS, name=one)
        got = await _by_client(clients, ROUNDS, GETS, name=one)
        yield _row("aggregated GET against direct", got, "<= 1.6", "median; both with the client library")
        listed = await _by_client(clients, LISTS, 1, name="")
        yield _row(f"aggregated LIST of {OBJECTS}", listed, "<= 1.2", "median; both with the client library")
    got = await asyncio.to_thread(_by_official_client, folder, (port, core_port), 10, GETS, one)
    yield _row("aggregated GET, official client", got, "", "median; with the Kubernetes project's Python client")
    relayed = await _connect(folder, relay_port)
    bare = await _both(relayed, through, f"{THINGS}/{one}", ROUNDS, GETS)
    yield _row(
        "aggregated GET against a relay", bare, "", "bare connections; the relay only moves bytes, TLS on both sides"
    )
    bare = await _both(direct, through, f"{THINGS}/{one}", ROUNDS, GETS)
    yield _row("aggregated GET, bare connections", bare, "", "all that is left is servers")
    bare = await _both(direct, through, THINGS, LISTS, 1)
    yield _row(f"aggregated LIST of {OBJECTS}, bare", bare, "", "all that is left is servers")
    direct_rate, rate = await _rates(folder, (port, core_port), f"{THINGS}/{one}", 5)
    name = f"aggregated GETs of {PARALLEL} connections"
    yield Row(
        name, rate, direct_rate, "/s", direct_rate / rate, "", "bare connections at once; ratio: direct to aggregated"
    )
    delays = await _delays(folder, (port, core_port), direct)
    middle = statistics.median(delays) * 1e3
    yield Row("aggregated watch event, later by", middle, 0.0, "ms", middle, "<= 5", f"median of {len(delays)}")


def _certificates(folder: Path) -> None:
    from bowsprit.pki.authority import Authority

    cluster, front, serving = (Authority.create(name) for name in ("cluster", "front", "serving"))
    (folder / "ca.pem").write_bytes(cluster.ca_pem)
    (folder / "front-ca.pem").write_bytes(front.ca_pem)
    (folder / "serving-ca.pem").write_bytes(serving.ca_pem)
    cluster.issue_client("admin", ["system:masters"]).save(folder / "admin.crt", folder / "admin.key")
    front.issue_client("front-proxy-client").save(folder / "front.crt", folder / "front.key")
    serving.issue_server("bench", [f"bench.{NAMESPACE}.svc"]).save(folder / "serving.crt", folder / "serving.key")


def run() -> Iterable[Row]:
    """The figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _certificates(folder)
        with (
            _process("core", name) as core,
            _process("extension", name, str(core["port"])) as extension,
            _process("relay", name, str(extension["port"])) as relay,
        ):
            yield from asyncio.run(_gathered(folder, core["port"], extension["port"], relay["port"]))


async def _gathered(folder: Path, *ports: int) -> list[Row]:
    return [row async for row in _measure(folder, *ports)]


def _main() -> None:
    import uvloop

    role, folder, *rest = sys.argv[1:]
    roles = {"core": _serve_core, "extension": _serve_extension, "relay": _serve_relay}
    work = roles[role](Path(folder), *map(int, rest))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


if __name__ == "__main__":
    _main()
