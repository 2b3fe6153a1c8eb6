"""Programs in networks of their own: the endpoint is reached through the agent or not at all, and the network fails.

here  10.78.N.1 ---veth--- 10.78.N.2  far: the agent, and an echo service on its loopback interface
      the server                      198.18.0.0/24 swallows everything
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from konnectivity_transcripts import until
from test_processes import PROGRAM

from bowsprit.net.dial import DialError
from bowsprit.net.egress.httpconnect import UdsConnectDialer
from bowsprit.net.egress.tunnel import GrpcDialer
from bowsprit.net.ports import free_port
from bowsprit.pki.authority import Authority

ECHO = """
import asyncio, sys
async def echo(reader, writer):
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    writer.close()
async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""


def sh(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)


class Far:
    """Another network, one cable away."""

    def __init__(self) -> None:
        number = os.getpid() % 250
        self.name = f"bwk{os.getpid()}"
        self.here, self.there = f"10.78.{number}.1", f"10.78.{number}.2"
        self._link = f"bwk{os.getpid() % 100_000}h"

    def make(self) -> None:
        sh(f"ip netns add {self.name}")
        sh(f"ip link add {self._link} type veth peer name far0 netns {self.name}")
        sh(f"ip address add {self.here}/30 dev {self._link}")
        sh(f"ip link set {self._link} up")
        inside = f"ip -n {self.name}"
        sh(f"{inside} address add {self.there}/30 dev far0")
        for device in ("lo", "far0"):
            sh(f"{inside} link set {device} up")
        sh(f"{inside} link add void type veth peer name void1")  # whose other end forwards nothing
        sh(f"{inside} address add 198.18.0.1/24 dev void")
        for device in ("void", "void1"):
            sh(f"{inside} link set {device} up")
        sh(f"{inside} link set void arp off")

    def cable(self, plugged: bool) -> None:
        sh(f"ip link set {self._link} {'up' if plugged else 'down'}")

    def command(self, command: list[str]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]

    def remove(self) -> None:
        sh(f"ip netns delete {self.name}")


class Programs:
    """Servers and agents that die and come back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, tuple[subprocess.Popen[bytes], list[str]]] = {}

    def start(self, name: str, command: list[str]) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = (subprocess.Popen(command, stdout=log, stderr=log), command)

    def kill_and_restart(self, name: str) -> None:
        process, command = self._running[name]
        process.kill()
        process.wait()
        self.start(name, command)

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()

    def stop(self) -> None:
        for process, _ in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture
def far() -> Iterator[Far]:
    network = Far()
    try:
        network.make()
        yield network
    finally:
        network.remove()


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    running = Programs(tmp_path)
    yield running
    running.stop()


def server_command(pki: Path, uds: Path, agent_port: int, *extra: str) -> list[str]:
    return [
        *PROGRAM, "proxy_server", f"--uds-name={uds}", "--server-port=0", f"--cluster-cert={pki}/srv.crt",
        f"--cluster-key={pki}/srv.key", f"--cluster-ca-cert={pki}/ca.crt", f"--agent-port={agent_port}",
        f"--admin-port={free_port()}", f"--health-port={free_port()}", *extra,
    ]  # fmt: skip


def agent_command(pki: Path, host: str, port: int, *extra: str) -> list[str]:
    return [
        *PROGRAM, "proxy_agent", f"--ca-cert={pki}/ca.crt", f"--agent-cert={pki}/ag.crt", f"--agent-key={pki}/ag.key",
        f"--proxy-server-host={host}", f"--proxy-server-port={port}", f"--health-server-port={free_port()}",
        f"--admin-server-port={free_port()}", "--sync-interval=200ms", "--sync-interval-cap=1s", *extra,
    ]  # fmt: skip


async def echoes(dialer: GrpcDialer | UdsConnectDialer, port: int, data: bytes = b"there?") -> bool:
    """Whether the endpoint answers; a wrong byte raises."""
    try:
        async with asyncio.timeout(3):
            reader, writer = await asyncio.open_connection(sock=await dialer.open("127.0.0.1", port))
    except (DialError, TimeoutError):
        return False
    try:
        async with asyncio.timeout(3):
            writer.write(data)
            got = b""
            while len(got) < len(data) and (chunk := await reader.read(65536)):
                got += chunk
    except (OSError, TimeoutError):
        return False
    finally:
        writer.transport.abort()
    assert data.startswith(got), "a wrong byte"
    return got == data


async def eventually(dialer: GrpcDialer | UdsConnectDialer, port: int, seconds: float) -> None:
    """Return once the endpoint answers."""
    start = time.monotonic()
    while not await echoes(dialer, port):
        assert time.monotonic() - start < seconds, "no way to the endpoint"
        await asyncio.sleep(0.05)


async def test_a_cut_network_is_noticed_and_used_again(far: Far, programs: Programs, tmp_path: Path) -> None:
    authority = Authority.create("networks")
    (tmp_path / "ca.crt").write_bytes(authority.ca_pem)
    authority.issue_server("server", [], [far.here]).save(tmp_path / "srv.crt", tmp_path / "srv.key")
    authority.issue_client("agent").save(tmp_path / "ag.crt", tmp_path / "ag.key")
    agents, service = free_port(), free_port()
    uds = tmp_path / "s.sock"
    programs.start("server", server_command(tmp_path, uds, agents, "--mode=grpc"))
    programs.start("agent", far.command(agent_command(tmp_path, far.here, agents)))
    programs.start("echo", far.command([sys.executable, "-c", ECHO, str(service)]))
    dialer = GrpcDialer(str(uds))
    await eventually(dialer, service, 30)
    with pytest.raises(OSError, match="refused"):
        await asyncio.open_connection("127.0.0.1", service)  # not of this network

    with pytest.raises(DialError, match=r"dial tcp 198\.18\.0\.254:1234: i/o timeout"):
        await dialer.open("198.18.0.254", 1234)

    reader, writer = await asyncio.open_connection(sock=await dialer.open("127.0.0.1", service))
    far.cable(plugged=False)
    async with asyncio.timeout(10):
        assert await reader.read() == b""  # within the probes' time, not that of TCP
    writer.close()
    with pytest.raises(DialError, match="No agent available"):
        await dialer.open("127.0.0.1", service)
    far.cable(plugged=True)
    await eventually(dialer, service, 15)


async def test_three_servers_and_five_agents_are_killed_at_random(
    certificates: Path, programs: Programs, tmp_path: Path
) -> None:
    rng = random.Random(11)
    ports = [free_port() for _ in range(3)]
    sockets = [tmp_path / f"s{number}.sock" for number in range(3)]

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports.append(ports.pop(0))
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", ports[0])
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            data = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
            writer.write(data[::-1] + hashlib.sha256(data).digest())
            await writer.drain()
        writer.close()

    balancer = await asyncio.start_server(connected, "127.0.0.1", 0)
    service = await asyncio.start_server(digest, "127.0.0.1", 0, limit=1 << 20)
    port = service.sockets[0].getsockname()[1]
    for number, (agents, uds) in enumerate(zip(list(ports), sockets, strict=True)):
        mode = "--mode=grpc" if number else "--mode=http-connect"
        extra = ("--server-count=3", f"--server-id=server-{number}", mode)
        programs.start(f"server-{number}", server_command(certificates, uds, agents, *extra))
    address = balancer.sockets[0].getsockname()[1]
    for number in range(5):
        command = agent_command(certificates, "127.0.0.1", address, f"--agent-id=agent-{number}", "--sync-forever=true")
        programs.start(f"agent-{number}", command)
    dialers = [UdsConnectDialer(str(sockets[0])), GrpcDialer(str(sockets[1])), GrpcDialer(str(sockets[2]))]
    done = {True: 0, False: 0}
    stop = asyncio.Event()

    async def exchange(number: int, data: bytes) -> bool:
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection(sock=await dialers[number].open("127.0.0.1", port))
        except (DialError, TimeoutError):
            await asyncio.sleep(0.02)
            return False
        got = b""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(5):
                writer.write(len(data).to_bytes(4, "big") + data)
                while chunk := await reader.read(65536):
                    got += chunk
        writer.transport.abort()
        whole = data[::-1] + hashlib.sha256(data).digest()
        assert whole.startswith(got), "a wrong byte"
        return got == whole

    async def load(seed: int) -> None:
        own = random.Random(seed)
        while not stop.is_set():
            done[await exchange(own.randrange(3), own.randbytes(own.randrange(1, 200_000)))] += 1

    async def all_work() -> bool:
        return all([await exchange(number, b"x" * 1000) for number in range(3)])

    start = time.monotonic()
    while not await all_work():
        assert time.monotonic() - start < 40, programs.log("agent-0")
    tasks = [asyncio.create_task(load(seed)) for seed in range(4)]
    for _ in range(6):
        before = done[True]
        await until(lambda: done[True] >= before + 3, lambda: f"no traffic: {done}", 30)  # noqa: B023
        programs.kill_and_restart(rng.choice([f"server-{rng.randrange(3)}", f"agent-{rng.randrange(5)}"]))
    stop.set()
    await asyncio.gather(*tasks)
    start = time.monotonic()
    while not await all_work():
        assert time.monotonic() - start < 20, done
    balancer.close()
    service.close()
