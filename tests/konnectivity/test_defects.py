"""What is wrong with upstream's programs, and not with ours: one test each."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from konnectivity_transcripts import GrpcPeer, insecure_client, until

from bowsprit.konnectivity.agentoptions import SECOND
from bowsprit.konnectivity.server import ProxyServer
from bowsprit.net.dial import DialError
from bowsprit.net.egress.httpconnect import UdsConnectDialer
from bowsprit.net.egress.packets import CONNECT, PROXY, Packet, PacketType
from bowsprit.net.egress.tunnel import GrpcDialer
from bowsprit.net.grpc.client import Channel

MODES = ["grpc", "http-connect"]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def dialer(server: ProxyServer) -> GrpcDialer | UdsConnectDialer:
    kind = GrpcDialer if server.options.mode == "grpc" else UdsConnectDialer
    return kind(server.options.uds_name)


async def connect(server: ProxyServer, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(sock=await dialer(server).open("127.0.0.1", port))


@pytest.fixture
async def listen() -> AsyncIterator[Callable[[Handler], Awaitable[int]]]:
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def start(handler: Handler) -> int:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            try:
                await handler(reader, writer)
            except OSError:
                pass
            finally:
                writer.close()

        servers.append(await asyncio.start_server(connected, "127.0.0.1", 0))
        return int(servers[-1].sockets[0].getsockname()[1])

    yield start
    for server in servers:
        server.close()
    for writer in writers:
        writer.transport.abort()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65536):
        writer.write(chunk)
        await writer.drain()


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    chunk = bytes(65536)
    while True:
        writer.write(chunk)
        await writer.drain()


async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(60)


async def pair(start_server: Any, start_agent: Any, mode: str, **settings: Any) -> ProxyServer:
    server: ProxyServer = await start_server(mode=mode, **settings)
    await start_agent(server.agent_port)
    await until(lambda: server.backends.ready, lambda: "no agent")
    return server


async def echoes(server: ProxyServer, port: int) -> bool:
    """Whether a hundred round trips on a fresh connection come to an end."""
    async with asyncio.timeout(10):
        reader, writer = await connect(server, port)
        for _ in range(100):
            writer.write(b"ping" * 16)
            assert await reader.readexactly(64) == b"ping" * 16
        writer.close()
    return True


@pytest.mark.parametrize("mode", MODES)
async def test_1_a_frontend_that_does_not_read_stops_itself_alone(
    mode: str, start_server: Any, start_agent: Any, listen: Any
) -> None:
    server = await pair(start_server, start_agent, mode)
    echo_port, flood_port = await listen(echo), await listen(flood)
    stalled = await dialer(server).open("127.0.0.1", flood_port)
    await asyncio.sleep(0.3)  # until what is in flight for it is at its bound
    assert await echoes(server, echo_port)  # upstream's do not
    assert sum(link.undelivered for backend in server.backends.all() for link in backend.links.values()) < 16 << 20
    stalled.close()


@pytest.mark.parametrize("mode", MODES)
async def test_2_an_endpoint_that_does_not_read_stops_itself_alone(
    mode: str, start_server: Any, start_agent: Any, listen: Any
) -> None:
    server = await pair(start_server, start_agent, mode)
    echo_port, deaf_port = await listen(echo), await listen(never_reads)
    _, writer = await connect(server, deaf_port)
    writer.write(bytes(24 << 20))
    await asyncio.sleep(0.3)
    assert writer.transport.get_write_buffer_size() > 0  # the uploader itself is held back
    assert await echoes(server, echo_port)
    writer.transport.abort()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [65_536, 1_048_576, 8_388_608])
async def test_3_what_was_written_before_a_close_arrives_whole(
    mode: str, size: int, start_server: Any, start_agent: Any, listen: Any
) -> None:
    server = await pair(start_server, start_agent, mode)
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def slow_sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        digest = hashlib.sha256()
        while chunk := await reader.read(65536):
            digest.update(chunk)
        got.set_result(digest.digest())

    data = os.urandom(size)
    _, writer = await connect(server, await listen(slow_sink))
    writer.write(data)
    writer.close()
    assert await asyncio.wait_for(got, 10) == hashlib.sha256(data).digest()


async def test_3_also_from_a_client_of_the_tls_port(
    start_server: Any, start_agent: Any, listen: Any, certificates: Path
) -> None:
    """The endpoint reads so slowly that the client is held back until it has gone."""
    server = await pair(
        start_server, start_agent, "http-connect", uds_name="", server_bind_address="127.0.0.1",
        server_cert=str(certificates / "srv.crt"), server_key=str(certificates / "srv.key"),
        server_ca_cert=str(certificates / "ca.crt"),
    )  # fmt: skip
    got: asyncio.Future[bytes]

    async def slow_sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        digest = hashlib.sha256()
        while chunk := await reader.read(65536):
            digest.update(chunk)
            await asyncio.sleep(0.002)
        got.set_result(digest.digest())

    port = await listen(slow_sink)

    def upload(data: bytes) -> None:
        context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        context.load_cert_chain(certificates / "ag.crt", certificates / "ag.key")
        plain = socket.create_connection(("127.0.0.1", server.server_port))
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            client.sendall(data)

    for size in (9_000_000, 9_100_000):
        data = os.urandom(size)
        got = asyncio.get_running_loop().create_future()
        await asyncio.to_thread(upload, data)
        assert await asyncio.wait_for(got, 20) == hashlib.sha256(data).digest()


async def test_4_half_close_reaches_the_endpoint_and_the_answer_comes_back(
    start_server: Any, start_agent: Any, listen: Any
) -> None:
    server = await pair(start_server, start_agent, "http-connect")

    async def answers_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        writer.write(b"got %d" % len(data))
        await writer.drain()

    reader, writer = await connect(server, await listen(answers_at_the_end))
    writer.write(bytes(1000))
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b"got 1000"
    await until(lambda: server.router.established == 0, lambda: "the connection stays")


async def test_4_half_close_of_the_endpoint_leaves_the_other_direction_open(
    start_server: Any, start_agent: Any, listen: Any
) -> None:
    server = await pair(start_server, start_agent, "http-connect")
    late: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def speaks_then_listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.write_eof()
        late.set_result(await reader.read())

    reader, writer = await connect(server, await listen(speaks_then_listens))
    assert await asyncio.wait_for(reader.read(), 5) == b"hello"
    writer.write(b"still here")
    writer.close()
    assert await asyncio.wait_for(late, 5) == b"still here"


async def test_5_the_200_line_precedes_a_banner(start_server: Any, start_agent: Any, listen: Any) -> None:
    server = await pair(start_server, start_agent, "http-connect")

    async def banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 banner\r\n")
        await writer.drain()

    port = await listen(banner)
    for _ in range(100):
        reader, writer = await asyncio.open_unix_connection(server.options.uds_name)
        writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert await reader.read() == b"HTTP/1.1 200 Connection Established\r\n\r\n220 banner\r\n"
        writer.close()


@pytest.mark.parametrize("mode", MODES)
async def test_6_a_server_with_open_connections_stops_at_once_without_grace(
    mode: str, start_server: Any, start_agent: Any, listen: Any
) -> None:
    server = await pair(start_server, start_agent, mode)
    reader, _ = await connect(server, await listen(echo))
    await asyncio.wait_for(server.stop(), 5)
    assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_6_and_lets_them_go_on_within_its_grace(start_server: Any, start_agent: Any, listen: Any) -> None:
    server = await pair(start_server, start_agent, "http-connect", graceful_shutdown_timeout=60 * SECOND)
    reader, writer = await connect(server, await listen(echo))
    stopping = asyncio.create_task(server.stop())
    await asyncio.sleep(0.1)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    assert not stopping.done()
    writer.close()
    await asyncio.wait_for(stopping, 10)


async def test_6_but_no_longer(start_server: Any, start_agent: Any, listen: Any) -> None:
    server = await pair(start_server, start_agent, "http-connect", graceful_shutdown_timeout=SECOND // 4)
    reader, _ = await connect(server, await listen(echo))
    start = time.monotonic()
    await asyncio.wait_for(server.stop(), 10)
    assert time.monotonic() - start > 0.2
    assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_7_a_draining_agent_ends_with_its_grace_period(start_server: Any, start_agent: Any, listen: Any) -> None:
    server = await start_server()
    agent = await start_agent(server.agent_port, graceful_shutdown_timeout=SECOND // 4)
    await until(lambda: server.backends.ready, lambda: "no agent")
    await connect(server, await listen(echo))
    start = time.monotonic()
    await asyncio.wait_for(agent.drain(), 10)
    assert time.monotonic() - start > 0.2
    assert server.backends.all()[0].draining


async def test_9_any_strategy_with_an_agent_makes_the_server_ready(start_server: Any, start_agent: Any) -> None:
    server = await start_server(proxy_strategies="destHost,default")
    await start_agent(server.agent_port)
    await until(lambda: server.backends.ready, lambda: "not ready, though `default` could serve")


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 5, 100, 101])
async def test_10_a_packet_without_payload_is_ignored(
    kind: int, start_server: Any, start_agent: Any, listen: Any
) -> None:
    server = await pair(start_server, start_agent, "grpc")
    port = await listen(echo)
    raw = b"" if kind == 0 else bytes([8, kind])
    frontend = GrpcPeer()
    await frontend.open(await Channel.connect_unix(server.options.uds_name), PROXY, [])
    frontend.send(Packet(PacketType.DIAL_REQ, protocol="tcp", address=f"127.0.0.1:{port}", random=1).encode())
    frontend.send(raw)
    server.backends.all()[0].port.send(Packet(kind, raw=raw or b"\x08\x00"))
    await until(lambda: len(frontend.received) == 1, lambda: "no DIAL_RSP")
    frontend.send(Packet(PacketType.DATA, connect_id=1, data=b"x").encode())
    await until(lambda: [packet.data for packet in frontend.received[1:]] == [b"x"], lambda: f"{frontend.received}")
    frontend.close()


async def test_10_nor_does_an_agents_stop_the_server(start_server: Any, certificates: Any) -> None:
    server = await start_server()
    agent = GrpcPeer()
    channel = await Channel.connect("127.0.0.1", server.agent_port, ssl=insecure_client(certificates))
    await agent.open(channel, CONNECT, [("agentid", "a")])
    for raw in (b"", b"\x08\x01", b"\x08\x03", b"\x08\x04", b"\x08\x05", b"\x08\x06"):
        agent.send(raw)
    await asyncio.sleep(0.05)
    assert agent.status is None
    assert server.backends.ready
    agent.close()


async def test_11_a_client_that_leaves_while_dialling_leaks_no_connection(start_server: Any, certificates: Any) -> None:
    server = await start_server(mode="http-connect")
    agent = GrpcPeer()
    channel = await Channel.connect("127.0.0.1", server.agent_port, ssl=insecure_client(certificates))
    await agent.open(channel, CONNECT, [("agentid", "a")])
    await until(lambda: server.backends.ready, lambda: "no agent")
    _, writer = await asyncio.open_unix_connection(server.options.uds_name)
    writer.write(b"CONNECT 10.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: len(agent.received) == 1, lambda: "no DIAL_REQ")
    writer.close()
    await writer.wait_closed()
    await until(lambda: not server.router.dials, lambda: "the dial is kept")
    await until(lambda: "server_http_connections 0" in server.metrics.registry.render(), lambda: "the client is kept")
    agent.send(Packet(PacketType.DIAL_RSP, connect_id=7, random=agent.received[0].random).encode())
    await until(lambda: PacketType.CLOSE_REQ in [packet.type for packet in agent.received], lambda: "leaked")
    agent.close()


@pytest.mark.parametrize("mode", MODES)
async def test_the_dials_and_connections_of_an_agent_that_dies_fail_at_once(
    mode: str, start_server: Any, certificates: Any
) -> None:
    """Upstream #126: gRPC clients wait for thirty seconds."""
    server = await start_server(mode=mode)
    agent = GrpcPeer()
    channel = await Channel.connect("127.0.0.1", server.agent_port, ssl=insecure_client(certificates))
    await agent.open(channel, CONNECT, [("agentid", "a")])
    await until(lambda: server.backends.ready, lambda: "no agent")
    dialling = asyncio.create_task(dialer(server).open("10.0.0.1", 1))
    await until(lambda: len(agent.received) == 1, lambda: "no DIAL_REQ")
    agent.close()
    with pytest.raises(DialError):
        await asyncio.wait_for(dialling, 5)
    assert not server.router.dials


async def test_a_plain_agents_stalled_connection_is_cut_alone_and_with_a_reason(
    start_server: Any, certificates: Any
) -> None:
    server = await start_server(mode="http-connect")
    agent = GrpcPeer()
    channel = await Channel.connect("127.0.0.1", server.agent_port, ssl=insecure_client(certificates))
    await agent.open(channel, CONNECT, [("agentid", "plain")])
    await until(lambda: server.backends.ready, lambda: "no agent")
    clients = []
    for number in (1, 2):
        reader, writer = await asyncio.open_unix_connection(server.options.uds_name)
        writer.write(b"CONNECT 10.0.0.1:1 HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: len(agent.received) == number, lambda: "no DIAL_REQ")  # noqa: B023
        agent.send(Packet(PacketType.DIAL_RSP, connect_id=number, random=agent.received[-1].random).encode())
        await reader.readuntil(b"\r\n\r\n")
        clients.append((reader, writer))
    clients[0][1].transport.pause_reading()
    for _ in range(40):
        agent.send(Packet(PacketType.DATA, connect_id=1, data=bytes(512 * 1024)).encode())
    await until(
        lambda: any(p.connect_id == 1 and p.type == PacketType.CLOSE_REQ for p in agent.received), lambda: "not cut"
    )
    assert "stopped reading" in server.router.last_errors[-1]
    agent.send(Packet(PacketType.DATA, connect_id=2, data=b"fine").encode())
    assert await asyncio.wait_for(clients[1][0].readexactly(4), 5) == b"fine"
    for _, writer in clients:
        writer.transport.abort()
    agent.close()


def test_sockets_are_for_owner_and_group_only(tmp_path: Any) -> None:
    from bowsprit.konnectivity.server import _unix_socket

    path = str(tmp_path / "s.sock")
    with _unix_socket(path, True):
        assert os.stat(path).st_mode & 0o777 == 0o770
    stale = _unix_socket(path, True)
    stale.close()
    (tmp_path / "file").write_text("not a socket")
    with pytest.raises(OSError, match="address already in use"):
        _unix_socket(str(tmp_path / "file"), True)
    assert isinstance(stale, socket.socket)
