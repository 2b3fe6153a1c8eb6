"""HTTP through the egress selector's dialers, in every mode and transport that an API server can be told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from konnectivity_transcripts import until

from bowsprit.konnectivity.server import ProxyServer
from bowsprit.net.dial import Dialer, DialError
from bowsprit.net.dial_connector import DialConnector
from bowsprit.net.egress.selector import EgressSelector

BIG = os.urandom(5 << 20)


@pytest.fixture
async def website() -> AsyncIterator[int]:
    async def big(request: web.Request) -> web.Response:
        return web.Response(body=BIG)

    async def size(request: web.Request) -> web.Response:
        return web.Response(text=str(len(await request.read())))

    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.get("/big", big), web.post("/size", size)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    yield site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    await runner.cleanup()


def configuration(kind: str, server: ProxyServer, certificates: Path, directory: Path) -> Path:
    uds = f"{{uds: {{udsName: {server.options.uds_name}}}}}"
    files = f"caBundle: {certificates}/ca.crt, clientCert: {certificates}/ag.crt, clientKey: {certificates}/ag.key"
    tls = f"{{{files}, tlsServerName: localhost}}"
    tcp = f'{{tcp: {{url: "https://127.0.0.1:{server.server_port}", tlsConfig: {tls}}}}}'
    protocol = "GRPC" if kind == "grpc" else "HTTPConnect"
    transport = tcp if kind == "tcp" else uds
    file = directory / "egress.yaml"
    file.write_text(
        "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n"
        f"- {{name: cluster, connection: {{proxyProtocol: {protocol}, transport: {transport}}}}}\n"
    )
    return file


async def start(kind: str, start_server: Any, start_agent: Any, certificates: Path, directory: Path) -> Dialer:
    settings: dict[str, Any] = {"mode": "grpc" if kind == "grpc" else "http-connect"}
    if kind == "tcp":
        settings |= {
            "uds_name": "", "server_bind_address": "127.0.0.1", "server_cert": str(certificates / "srv.crt"),
            "server_key": str(certificates / "srv.key"), "server_ca_cert": str(certificates / "ca.crt"),
        }  # fmt: skip
    server = await start_server(**settings)
    await start_agent(server.agent_port)
    await until(lambda: server.backends.ready, lambda: "no agent")
    dialer = EgressSelector.from_file(configuration(kind, server, certificates, directory)).dialer("cluster")
    assert dialer is not None
    return dialer


@pytest.mark.parametrize("kind", ["grpc", "uds", "tcp"])
async def test_http_goes_through(
    kind: str, website: int, start_server: Any, start_agent: Any, certificates: Path, tmp_path: Path
) -> None:
    dialer = await start(kind, start_server, start_agent, certificates, tmp_path)
    async with aiohttp.ClientSession(connector=DialConnector(dialer)) as session:

        async def download() -> bytes:
            async with session.get(f"http://127.0.0.1:{website}/big") as answer:
                return await answer.read()

        assert all(body == BIG for body in await asyncio.gather(*(download() for _ in range(5))))
        async with session.post(f"http://127.0.0.1:{website}/size", data=BIG * 3) as answer:
            assert await answer.text() == str(len(BIG) * 3)


@pytest.mark.parametrize("kind", ["grpc", "uds", "tcp"])
async def test_failures_are_dial_errors_with_the_agents_words(
    kind: str, start_server: Any, start_agent: Any, certificates: Path, tmp_path: Path
) -> None:
    dialer = await start(kind, start_server, start_agent, certificates, tmp_path)
    with pytest.raises(DialError, match=r"connection refused|502"):
        await dialer.open("127.0.0.1", 1)


async def test_a_grpc_frontend_over_mutual_tls(
    start_server: Any, start_agent: Any, certificates: Path, website: int
) -> None:
    """Upstream's server offers it, though no API server uses it yet."""
    from konnectivity_transcripts import GrpcPeer, insecure_client

    from bowsprit.net.egress.packets import PROXY, Packet, PacketType
    from bowsprit.net.grpc.client import Channel
    from bowsprit.net.grpc.status import GrpcError

    server = await start_server(
        uds_name="", server_bind_address="127.0.0.1", server_cert=str(certificates / "srv.crt"),
        server_key=str(certificates / "srv.key"), server_ca_cert=str(certificates / "ca.crt"),
    )  # fmt: skip
    await start_agent(server.agent_port)
    await until(lambda: server.backends.ready, lambda: "no agent")
    peer = GrpcPeer()
    await peer.open(
        await Channel.connect("127.0.0.1", server.server_port, ssl=insecure_client(certificates)), PROXY, []
    )
    peer.send(Packet(PacketType.DIAL_REQ, protocol="tcp", address=f"127.0.0.1:{website}", random=9).encode())
    await until(lambda: len(peer.received) == 1, lambda: "no DIAL_RSP")
    assert peer.received[0].connect_id == 1
    peer.close()
    with pytest.raises(GrpcError):
        await (await Channel.connect("127.0.0.1", server.server_port)).unary(PROXY, b"", timeout=1)


async def test_many_streams_on_one_connection_are_independent(
    start_server: Any, start_agent: Any, website: int
) -> None:
    """As CreateGRPCTunnel of newer clients does: one channel, one stream for each dial."""
    from konnectivity_transcripts import GrpcPeer

    from bowsprit.net.egress.packets import PROXY, Packet, PacketType
    from bowsprit.net.grpc.client import Channel

    server = await start_server()
    await start_agent(server.agent_port)
    await until(lambda: server.backends.ready, lambda: "no agent")
    channel = await Channel.connect_unix(server.options.uds_name)
    peers = []
    for number in range(20):
        peer = GrpcPeer()
        await peer.open(channel, PROXY, [])
        peer.send(
            Packet(PacketType.DIAL_REQ, protocol="tcp", address=f"127.0.0.1:{website}", random=number + 1).encode()
        )
        peers.append(peer)
    await until(lambda: all(peer.received for peer in peers), lambda: "not all dials answered")
    assert len({peer.received[0].connect_id for peer in peers}) == 20
    for number, peer in enumerate(peers):
        request = f"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: {number}\r\n\r\n{'a' * number}".encode()
        peer.send(Packet(PacketType.DATA, connect_id=peer.received[0].connect_id, data=request).encode())
    await until(lambda: all(len(peer.received) > 1 for peer in peers), lambda: "not all answered")
    for number, peer in enumerate(peers):
        assert b"".join(bytes(packet.data) for packet in peer.received[1:]).endswith(f"\r\n\r\n{number}".encode())
    channel.protocol.abort()
