"""Agents and servers die under load, certificates change, thousands of dials: traffic resumes, nothing leaks or strays."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import random
import resource
import shutil
import ssl
from pathlib import Path
from typing import Any

import pytest
from konnectivity_transcripts import until

from bowsprit.konnectivity.agent import ProxyAgent
from bowsprit.konnectivity.agentoptions import SECOND
from bowsprit.konnectivity.server import ProxyServer
from bowsprit.net.dial import DialError
from bowsprit.net.egress.httpconnect import UdsConnectDialer
from bowsprit.net.egress.tunnel import GrpcDialer
from bowsprit.pki.authority import Authority


async def digest_service(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads a length and so many bytes, answers their checksum and the bytes reversed in order of chunks."""
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        data = await reader.readexactly(size)
        writer.write(hashlib.sha256(data).digest() + data)
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def exchange(uds: str, mode: str, port: int, data: bytes) -> bool:
    """Whether a whole exchange went through; a wrong byte raises, a broken connection does not."""
    dialer = GrpcDialer(uds, timeout=10) if mode == "grpc" else UdsConnectDialer(uds, timeout=10)
    try:
        reader, writer = await asyncio.open_connection(sock=await dialer.open("127.0.0.1", port))
    except DialError:
        return False
    try:
        async with asyncio.timeout(10):
            writer.write(len(data).to_bytes(4, "big") + data)
            got = await reader.read(32)
            while len(got) < 32 + len(data) and (chunk := await reader.read(65536)):
                got += chunk
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()
    whole = hashlib.sha256(data).digest() + data
    assert whole.startswith(got), "a wrong byte"
    return got == whole


class Balancer:
    """One address in front of servers that come and go: each connection to another one."""

    def __init__(self) -> None:
        self.ports: list[int] = []
        self._next = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            self._next += 1
            port = self.ports[self._next % len(self.ports)]
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except (OSError, ZeroDivisionError):
            writer.close()
            return
        self._writers.add(far_writer)
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


async def test_three_servers_and_five_agents_survive_random_deaths(start_server: Any, start_agent: Any) -> None:
    rng = random.Random(7)
    balancer = Balancer()
    address = await balancer.start()
    servers: dict[int, ProxyServer] = {}

    async def new_server(number: int) -> None:
        mode = "grpc" if number else "http-connect"
        servers[number] = await start_server(server_id=f"server-{number}", server_count=3, mode=mode)
        balancer.ports = [server.agent_port for server in servers.values()]

    for number in range(3):
        await new_server(number)
    fast = {"sync_forever": True, "sync_interval": SECOND // 20, "sync_interval_cap": SECOND // 2}
    agents: list[ProxyAgent] = [await start_agent(address, agent_id=f"agent-{number}", **fast) for number in range(5)]
    await until(lambda: all(len(server.backends) == 5 for server in servers.values()), lambda: "not all connected", 10)
    service = await asyncio.start_server(digest_service, "127.0.0.1", 0, limit=1 << 20)
    port = service.sockets[0].getsockname()[1]
    done = {"good": 0, "broken": 0}
    stop = asyncio.Event()

    async def load(seed: int) -> None:
        own = random.Random(seed)
        while not stop.is_set():
            server = servers.get(own.randrange(3))
            if server is None:
                await asyncio.sleep(0.01)
                continue
            good = await exchange(
                server.options.uds_name, server.options.mode, port, own.randbytes(own.randrange(1, 200_000))
            )
            done["good" if good else "broken"] += 1

    tasks = [asyncio.create_task(load(seed)) for seed in range(6)]
    for _ in range(8):
        await asyncio.sleep(0.25)
        if rng.random() < 0.5:
            victim = rng.randrange(5)
            await agents[victim].stop()
            agents[victim] = await start_agent(address, agent_id=f"agent-{victim}", **fast)
        else:
            number = rng.randrange(3)
            await servers.pop(number).stop(force=True)
            await new_server(number)
    stop.set()
    await asyncio.gather(*tasks)
    await until(
        lambda: all(len(server.backends) == 5 for server in servers.values()), lambda: "agents do not return", 15
    )
    for server in servers.values():
        assert await exchange(server.options.uds_name, server.options.mode, port, bytes(1000))
    assert done["good"] > 5
    await until(
        lambda: all(not s.router.established and not s.router.dials for s in servers.values()),
        lambda: "connections leak",
    )
    await until(lambda: all(not agent.connections for agent in agents), lambda: "endpoint connections leak")
    balancer.stop()
    service.close()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(("mode", "dials"), [("http-connect", 10_000), ("grpc", 1500)])
async def test_thousands_of_dials_leak_nothing(mode: str, dials: int, start_server: Any, start_agent: Any) -> None:
    server = await start_server(mode=mode)
    agent = await start_agent(server.agent_port)
    await until(lambda: server.backends.ready, lambda: "no agent")

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x")
        writer.close()

    service = await asyncio.start_server(hello, "127.0.0.1", 0, backlog=1000)
    port = service.sockets[0].getsockname()[1]
    dialer = GrpcDialer(server.options.uds_name) if mode == "grpc" else UdsConnectDialer(server.options.uds_name)
    loop = asyncio.get_running_loop()

    async def many(count: int) -> None:
        for _ in range(count):
            sock = await dialer.open("127.0.0.1", port)
            assert await loop.sock_recv(sock, 1) == b"x"
            sock.close()

    await asyncio.gather(*(many(dials // 80) for _ in range(4)))
    await until(lambda: not server.router.established and not agent.connections, lambda: "connections stay")
    gc.collect()
    files, tasks = open_files(), len(asyncio.all_tasks())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await asyncio.gather(*(many(dials // 8) for _ in range(8)))
    await until(lambda: not server.router.established and not agent.connections, lambda: "connections stay")
    await until(lambda: open_files() <= files + 4, lambda: f"{open_files() - files} files leak")
    assert len(asyncio.all_tasks()) <= tasks + 4
    gc.collect()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 40_000  # KiB
    assert not server.router.dials
    service.close()


async def test_certificates_are_read_again_when_they_change(
    start_server: Any, start_agent: Any, tmp_path: Path
) -> None:
    old, new = Authority.create("old"), Authority.create("new")

    def install(authority: Authority, moment: int) -> None:
        (tmp_path / "ca.crt").write_bytes(authority.ca_pem)
        authority.issue_server("server", ["localhost"], ["127.0.0.1"]).save(tmp_path / "srv.crt", tmp_path / "srv.key")
        authority.issue_client("agent").save(tmp_path / "ag.crt", tmp_path / "ag.key")
        for file in tmp_path.iterdir():
            if file.suffix in (".crt", ".key"):
                os.utime(file, (moment, moment))

    install(old, 1000)
    shutil.copy(tmp_path / "ca.crt", tmp_path / "old.crt")
    files = {"cluster_cert": "srv.crt", "cluster_key": "srv.key", "cluster_ca_cert": "ca.crt"}
    server = await start_server(**{name: str(tmp_path / file) for name, file in files.items()})
    own = {"ca_cert": "ca.crt", "agent_cert": "ag.crt", "agent_key": "ag.key"}
    paths = {name: str(tmp_path / file) for name, file in own.items()}
    agent = await start_agent(server.agent_port, sync_interval_cap=SECOND // 5, **paths)
    await until(lambda: agent.ready, lambda: "no connection with the first certificates")
    install(new, 2000)
    for connection in list(agent.servers.values()):
        connection.close()
    await until(lambda: not agent.ready, lambda: "still connected")
    await until(lambda: agent.ready, lambda: f"no connection with the new ones: {agent.status()['lastError']}")
    stranger = await start_agent(server.agent_port, **{**paths, "ca_cert": str(tmp_path / "old.crt")})
    await asyncio.sleep(0.2)
    assert not stranger.ready  # it trusts the old authority only


async def test_an_expired_client_certificate_is_refused(start_server: Any, start_agent: Any, tmp_path: Path) -> None:
    import datetime

    authority = Authority.create("clock")
    (tmp_path / "ca.crt").write_bytes(authority.ca_pem)
    authority.issue_server("server", [], ["127.0.0.1"]).save(tmp_path / "srv.crt", tmp_path / "srv.key")
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30)
    authority.issue_client("agent", days=1, now=past).save(tmp_path / "ag.crt", tmp_path / "ag.key")
    files = {"cluster_cert": "srv.crt", "cluster_key": "srv.key", "cluster_ca_cert": "ca.crt"}
    server = await start_server(**{name: str(tmp_path / file) for name, file in files.items()})
    own = {"ca_cert": "ca.crt", "agent_cert": "ag.crt", "agent_key": "ag.key"}
    agent = await start_agent(server.agent_port, **{name: str(tmp_path / file) for name, file in own.items()})
    await until(lambda: bool(agent.status()["lastError"]), lambda: "no failure")
    assert not agent.ready
    assert len(server.backends) == 0


async def test_agents_without_a_certificate_of_the_ca_are_refused(start_server: Any, certificates: Path) -> None:
    server = await start_server()
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", server.agent_port, ssl=context, server_hostname="localhost"
    )
    with pytest.raises((ssl.SSLError, ConnectionError)):
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        if not await reader.read(1):
            raise ConnectionResetError
    writer.transport.abort()


class Switch:
    """A TCP relay that can silently stop carrying bytes, as a network that drops packets."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.open = asyncio.Event()
        self.open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self.open.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.ensure_future(self._pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                await self.open.wait()
                writer.write(chunk)
            await self.open.wait()
        except OSError:
            pass
        finally:
            writer.close()


async def test_a_network_that_drops_everything_is_noticed_and_traffic_resumes(
    start_server: Any, start_agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bowsprit.konnectivity import agent as agent_module
    from bowsprit.konnectivity import server as server_module

    for module in (agent_module, server_module):
        monkeypatch.setattr(module, "_PROBE_TIMEOUT", 0.8)
    monkeypatch.setattr(agent_module, "_NEXT_ATTEMPT", 0.2)
    server = await start_server(mode="http-connect")
    switch = Switch(server.agent_port)
    relay = await asyncio.start_server(switch.connected, "127.0.0.1", 0)
    agent = await start_agent(relay.sockets[0].getsockname()[1], probe_interval=SECOND // 10)
    service = await asyncio.start_server(digest_service, "127.0.0.1", 0)
    port = service.sockets[0].getsockname()[1]
    await until(lambda: server.backends.ready, lambda: "no agent")
    await asyncio.sleep(1.0)
    assert agent.ready  # probing does not end a quiet connection
    switch.open.clear()
    await until(lambda: not agent.ready and not server.backends.ready, lambda: "the loss is not noticed", 10)
    switch.open.set()
    await until(lambda: server.backends.ready, lambda: "no way back")
    assert await exchange(server.options.uds_name, "http-connect", port, bytes(5000))
    relay.close()
    service.close()
