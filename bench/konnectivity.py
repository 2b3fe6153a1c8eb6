"""Konnectivity against a plain two-hop asyncio relay (TCP in, TLS between, TCP out) and a direct connection.

Server, agent, both relays and the endpoint are processes of their own; this process is the client. All use uvloop.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import Row

MB = 1_000_000
SIZE = 512 * MB
ECHOES = 3000
DIALS = 1500
TURN = 100
IDLE = 5000


# -- processes ---------------------------------------------------------------------------------------------------------


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _relay(directory: Path, role: str, target: int) -> None:
    """``in``: TCP to TLS; ``out``: TLS to TCP; ``plain``: no TLS."""
    incoming: ssl.SSLContext | None
    if role == "plain":
        incoming = outgoing = None
    elif role == "in":
        outgoing = ssl.create_default_context(cafile=str(directory / "ca.crt"))
        outgoing.load_cert_chain(directory / "ag.crt", directory / "ag.key")
        incoming = None
    else:
        incoming, outgoing = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), None
        incoming.load_cert_chain(directory / "srv.crt", directory / "srv.key")
        incoming.load_verify_locations(directory / "ca.crt")
        incoming.verify_mode = ssl.CERT_REQUIRED

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target, ssl=outgoing)
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=incoming, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


class _Endpoint(asyncio.Protocol):
    """``D`` n: send n bytes. ``U`` n: take n bytes, then answer one. ``E``: echo."""

    chunk = bytes(262_144)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.mode = ""
        self.left = 0
        self.head = b""
        self.paused = False

    def data_received(self, data: bytes) -> None:
        if not self.mode:
            self.head += data
            if len(self.head) < 9:
                return
            self.mode, self.left = chr(self.head[0]), struct.unpack(">Q", self.head[1:9])[0]
            data = self.head[9:]
            if self.mode == "D":
                self.send()
        if self.mode == "E" and data:
            self.transport.write(data)
        elif self.mode == "U":
            self.left -= len(data)
            if self.left == 0:
                self.transport.write(b"!")

    def send(self) -> None:
        while self.left > 0 and not self.paused:
            piece = self.chunk[: min(self.left, len(self.chunk))]
            self.left -= len(piece)
            self.transport.write(piece)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self.mode == "D":
            self.send()


async def _endpoint() -> None:
    server = await asyncio.get_running_loop().create_server(_Endpoint, "127.0.0.1", 0, backlog=4096)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


async def _server(directory: Path, mode: str, transport: str) -> None:
    from bowsprit.konnectivity.server import ProxyServer
    from bowsprit.konnectivity.serveroptions import ServerOptions

    tls = {"server_cert": "srv.crt", "server_key": "srv.key", "server_ca_cert": "ca.crt"} if transport == "tcp" else {}
    options = ServerOptions(
        mode=mode, uds_name=str(directory / f"{mode}.sock") if transport == "uds" else "",
        server_port=0, agent_port=0, admin_port=0, health_port=0,
        cluster_cert=str(directory / "srv.crt"), cluster_key=str(directory / "srv.key"),
        cluster_ca_cert=str(directory / "ca.crt"), agent_bind_address="127.0.0.1",
        **{name: str(directory / file) for name, file in tls.items()},
    )  # fmt: skip
    server = ProxyServer(options, validate=False)
    await server.start()
    print(json.dumps({"port": server.agent_port, "frontend": server.server_port}), flush=True)
    await asyncio.Event().wait()


async def _agent(directory: Path, port: int) -> None:
    from bowsprit.konnectivity.agent import ProxyAgent
    from bowsprit.konnectivity.agentoptions import AgentOptions

    options = AgentOptions(
        agent_cert=str(directory / "ag.crt"), agent_key=str(directory / "ag.key"), ca_cert=str(directory / "ca.crt"),
        proxy_server_port=port, health_server_port=0, admin_server_port=0,
    )  # fmt: skip
    agent = ProxyAgent(options, validate=False)
    await agent.start()
    while not agent.ready:
        await asyncio.sleep(0.01)
    print(json.dumps({"port": 0}), flush=True)
    await asyncio.Event().wait()


def _child(arguments: list[str]) -> None:
    import uvloop

    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    role, *rest = arguments
    mains: dict[str, Callable[[], object]] = {
        "endpoint": _endpoint,
        "relay": lambda: _relay(Path(rest[0]), rest[1], int(rest[2])),
        "server": lambda: _server(Path(rest[0]), rest[1], rest[2]),
        "agent": lambda: _agent(Path(rest[0]), int(rest[1])),
    }
    uvloop.run(mains[role]())  # type: ignore[arg-type]


class Process:
    """A child and what it said."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "bench.konnectivity", *map(str, arguments)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        said: dict[str, int] = json.loads(self._process.stdout.readline())
        self.port, self.frontend = said["port"], said.get("frontend", 0)

    def cpu(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


# -- the client --------------------------------------------------------------------------------------------------------

Connect = Callable[[], socket.socket]


def _tcp(port: int) -> Connect:
    def connect() -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    return connect


def _http_connect(path: str, target: int) -> Connect:
    request = f"CONNECT 127.0.0.1:{target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

    def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        sock.sendall(request)
        answer = sock.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(answer)
        return sock

    return connect


def _tls_connect(directory: Path, port: int, target: int) -> Connect:
    """As an API server over TCP: a handshake for each connection."""
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.load_cert_chain(directory / "ag.crt", directory / "ag.key")
    request = f"CONNECT 127.0.0.1:{target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()

    def connect() -> socket.socket:
        sock = context.wrap_socket(_tcp(port)(), server_hostname="127.0.0.1")
        sock.sendall(request)
        answer = sock.recv(4096)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(answer)
        return sock

    return connect


class Grpc:
    """Dials as the embedded API server does in gRPC mode; its event loop is a thread of this process."""

    def __init__(self, path: str, target: int) -> None:
        import uvloop

        from bowsprit.net.egress.tunnel import GrpcDialer

        self._dialer, self._target = GrpcDialer(path), target
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def connect(self) -> socket.socket:
        opening = self._dialer.open("127.0.0.1", self._target)
        sock = asyncio.run_coroutine_threadsafe(opening, self._loop).result(30)
        sock.setblocking(True)
        return sock

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def _download(connect: Connect, size: int) -> None:
    with connect() as sock:
        sock.sendall(b"D" + struct.pack(">Q", size))
        buffer = bytearray(1 << 18)
        while size:
            size -= sock.recv_into(buffer) or sys.exit("connection closed")


def _upload(connect: Connect, size: int) -> None:
    with connect() as sock:
        sock.sendall(b"U" + struct.pack(">Q", size))
        chunk = bytes(1 << 18)
        while size:
            size -= sock.send(chunk[: min(size, len(chunk))])
        if sock.recv(1) != b"!":
            sys.exit("upload not acknowledged")


def _throughput(action: Callable[[Connect, int], None], connect: Connect, parallel: int) -> float:
    each = SIZE // parallel
    threads = [threading.Thread(target=action, args=(connect, each)) for _ in range(parallel)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return each * parallel / (time.perf_counter() - start) / MB


def _echo(*ways: Connect) -> list[float]:
    """The median round trips; the ways take turns, so that what else the machine does hits all alike."""
    times: list[list[float]] = [[] for _ in ways]
    sockets = [connect() for connect in ways]
    for sock in sockets:
        sock.sendall(b"E" + bytes(8))
    for _ in range(ECHOES // TURN):
        for sock, mine in zip(sockets, times, strict=True):
            for _ in range(TURN):
                start = time.perf_counter()
                sock.sendall(bytes(64))
                left = 64
                while left:
                    left -= len(sock.recv(64))
                mine.append(time.perf_counter() - start)
    for sock in sockets:
        sock.close()
    return [sorted(mine)[len(mine) // 2] * 1e6 for mine in times]


def _dials(*ways: Connect) -> list[float]:
    """Connect, one echoed byte (a relay has not reached the endpoint before), close; one after the other, in turns."""
    seconds = [0.0] * len(ways)
    for _ in range(DIALS // TURN):
        for number, connect in enumerate(ways):
            start = time.perf_counter()
            for _ in range(TURN):
                with connect() as sock:
                    sock.sendall(b"E" + bytes(8) + b"x")
                    sock.recv(1)
            seconds[number] += time.perf_counter() - start
    return [DIALS // TURN * TURN / each for each in seconds]


def _certificates(directory: Path) -> None:
    from bowsprit.pki.authority import Authority

    authority = Authority.create("bench")
    (directory / "ca.crt").write_bytes(authority.ca_pem)
    authority.issue_server("server", ["localhost"], ["127.0.0.1"]).save(directory / "srv.crt", directory / "srv.key")
    authority.issue_client("agent").save(directory / "ag.crt", directory / "ag.key")


def run() -> Iterator[Row]:
    """All figures; about a minute."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        _certificates(directory)
        processes: list[Process] = []

        def start(*arguments: object) -> Process:
            processes.append(Process(*arguments))
            return processes[-1]

        try:
            endpoint = start("endpoint")
            far = start("relay", directory, "out", endpoint.port)
            near = start("relay", directory, "in", far.port)
            server = start("server", directory, "http-connect", "uds")
            agent = start("agent", directory, server.port)
            ours = _http_connect(str(directory / "http-connect.sock"), endpoint.port)
            yield from _figures(_tcp(endpoint.port), _tcp(near.port), ours, (near, far), (server, agent))
            plain = start("relay", directory, "plain", start("relay", directory, "plain", endpoint.port).port)
            secure = start("server", directory, "http-connect", "tcp")
            start("agent", directory, secure.port)
            over_tls = _tls_connect(directory, secure.frontend, endpoint.port)
            yield _dial_row("dials", ours, _tcp(near.port), "the relay shakes hands for each")
            yield _dial_row("dials, relay without TLS", ours, _tcp(plain.port), "no handshake on either side", aim="")
            yield _dial_row("dials over mTLS", over_tls, _tcp(near.port), "one handshake per dial on both sides")
            start("agent", directory, start("server", directory, "grpc", "uds").port)
            grpc = Grpc(str(directory / "grpc.sock"), endpoint.port)
            yield from _grpc_figures(grpc.connect, _tcp(near.port), _tcp(plain.port))
            grpc.stop()
        finally:
            for process in processes:
                process.stop()


def _dial_row(name: str, ours: Connect, relay: Connect, note: str, aim: str = ">= 0.5") -> Row:
    floor, rate = _dials(relay, ours)
    return Row(f"konnectivity {name}", rate, floor, "1/s", rate / floor, aim, note)


def _grpc_figures(ours: Connect, relay: Connect, plain: Connect) -> Iterator[Row]:
    """The gRPC frontend, the API server's half of the work included."""
    note = "with the API server's own tunnel, in this process"
    for action, name in ((_download, "download"), (_upload, "upload")):
        for parallel in (1, 10):
            floor, rate = _throughput(action, relay, parallel), _throughput(action, ours, parallel)
            yield Row(f"konnectivity gRPC {name} x{parallel}", rate, floor, "MB/s", rate / floor, "", note)
    floor, echo = _echo(relay, ours)
    yield Row("konnectivity gRPC 64-byte echo p50", echo, floor, "us", echo / floor, "", note)
    yield _dial_row("gRPC dials", ours, plain, note, aim="")


def _figures(
    direct: Connect, relay: Connect, ours: Connect, relays: tuple[Process, Process], pair: tuple[Process, Process]
) -> Iterator[Row]:
    for action, name in ((_download, "download"), (_upload, "upload")):
        for parallel in (1, 10):
            through = _throughput(action, direct, parallel)
            before = [process.cpu() for process in (*relays, *pair)]
            floor = _throughput(action, relay, parallel)
            middle = [process.cpu() for process in (*relays, *pair)]
            rate = _throughput(action, ours, parallel)
            after = [process.cpu() for process in (*relays, *pair)]
            per_gb = [sum(after[2:]) - sum(middle[2:]), sum(middle[:2]) - sum(before[:2])]
            title = f"konnectivity {name} x{parallel}"
            yield Row(title, rate, floor, "MB/s", rate / floor, ">= 0.6", f"direct {through:.0f} MB/s")
            ours_gb, relay_gb = (each / (SIZE / 1000 / MB) for each in per_gb)
            yield Row(f"{title} CPU", ours_gb, relay_gb, "s/GB", ours_gb / relay_gb)
    through, floor, echo = _echo(direct, relay, ours)
    yield Row("konnectivity 64-byte echo p50", echo, floor, "us", echo / floor, "<= 2.5", f"direct {through:.0f} us")
    stalled = ours()
    stalled.sendall(b"D" + struct.pack(">Q", 1 << 40))  # never read
    time.sleep(0.5)
    (beside,) = _echo(ours)
    stalled.close()
    (echo,) = _echo(ours)
    yield Row(
        "konnectivity echo beside a stalled download", beside, echo, "us", beside / echo, "<= 1.1", "floor: without it"
    )
    before_memory = sum(process.memory() for process in pair)
    held = []
    for _ in range(IDLE):
        sock = ours()
        held.append(sock)
    for sock in held:
        sock.sendall(b"E" + bytes(8) + b"x")
    alive = sum(sock.recv(1) == b"x" for sock in held)
    per_connection = (sum(process.memory() for process in pair) - before_memory) / IDLE / 1024
    for sock in held:
        sock.close()
    yield Row(
        "konnectivity memory per idle connection",
        per_connection,
        40,
        "KiB",
        per_connection / 40,
        "<= 1",
        "server + agent",
    )
    yield Row("konnectivity connections held", alive, IDLE, "", alive / IDLE, ">= 1")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _child(sys.argv[1:])
    else:
        for row in run():
            mark = {True: "ok", False: "MISSED", None: ""}[row.reached]
            print(
                f"{row.name:45} {row.ours:10.1f} {row.floor:10.1f} {row.unit:5} {row.ratio:6.2f} {row.aim:8} {mark} {row.note}"
            )
