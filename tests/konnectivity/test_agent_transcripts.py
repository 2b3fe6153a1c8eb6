"""What upstream's agent was recorded to do, step by step, is what ours does."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from konnectivity_transcripts import content, load, packet_of, shown, until, wire

from bowsprit.konnectivity import godial
from bowsprit.konnectivity.agent import ProxyAgent
from bowsprit.konnectivity.certificates import server_context
from bowsprit.konnectivity.godial import _resolver
from bowsprit.net.egress import packets
from bowsprit.net.egress.packets import Packet, PacketType
from bowsprit.net.grpc import metadata as md
from bowsprit.net.grpc.limits import Options
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.server import Server
from bowsprit.net.grpc.status import OK, Status, StatusCode
from bowsprit.net.grpc.stream import Stream, StreamHandler
from bowsprit.net.grpc.transport import GrpcProtocol

SCENARIOS = [scenario for scenario in load("agent") if scenario["id"] != "agt-meta"]
SILENT = {38653, 38673}  # ports whose SYNs nobody answered
CLOSED = 38999
DIAL_TIMEOUT = 0.4


class ServerPeer:
    """One Connect stream at the scripted server."""

    def __init__(self, stream: Stream, headers: Metadata) -> None:
        self.stream = stream
        self.headers = headers
        self.received: list[Packet] = []
        self.taken = 0
        self.status: Status | None = None

    def headers_received(self, stream: Stream, headers: Metadata) -> None: ...

    def message_received(self, stream: Stream, message: bytes) -> None:
        stream.acknowledge(len(message) + 5)
        self.received.append(packets.decode(message))

    def half_closed(self, stream: Stream) -> None:
        stream.finish(OK)

    def writable(self, stream: Stream) -> None: ...

    def ended(self, stream: Stream, status: Status, trailers: Metadata) -> None:
        self.status = status


class ScriptedServer:
    def __init__(self) -> None:
        self.streams: list[ServerPeer] = []
        self.server = Server({packets.CONNECT: self.connect}, Options(min_ping_interval=0, ping_without_stream=True))

    def connect(self, protocol: GrpcProtocol, stream: Stream, headers: Metadata) -> StreamHandler:
        self.streams.append(ServerPeer(stream, headers))
        return self.streams[-1]

    def named(self, name: str) -> ServerPeer:
        return self.streams[int(name.partition("#")[2] or 1) - 1]


@pytest.fixture
async def scripted(certificates: Path) -> AsyncIterator[tuple[ScriptedServer, int]]:
    scripted = ScriptedServer()
    context = server_context(
        str(certificates / "srv.crt"), str(certificates / "srv.key"), str(certificates / "ca.crt"), alpn=["h2"]
    )
    port = await scripted.server.listen("127.0.0.1", 0, ssl=context)
    yield scripted, port
    await scripted.server.stop()


class Endpoint:
    """A scripted TCP endpoint: its connections in order."""

    def __init__(self) -> None:
        self.connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.data: list[bytes] = []
        self.taken: list[int] = []
        self.eof: list[bool] = []
        self.echo = False

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        index = len(self.connections)
        self.connections.append((reader, writer))
        self.data.append(b"")
        self.taken.append(0)
        self.eof.append(False)
        try:
            while chunk := await reader.read(65536):
                self.data[index] += chunk
                if self.echo:
                    writer.write(chunk)
        except OSError:
            pass
        self.eof[index] = True


class Replay:
    def __init__(self, scenario: dict[str, Any], scripted: ScriptedServer, ports: dict[int, int]) -> None:
        self.scenario = scenario
        self.scripted = scripted
        self.endpoint = Endpoint()
        self.endpoint.echo = scenario["id"] == "agt-drain"  # not noted in the transcript
        self.ports = ports
        self.agent: ProxyAgent | None = None
        self.draining: asyncio.Task[None] | None = None

    def mapped(self, step: dict[str, Any]) -> Packet:
        packet = packet_of(step, {})
        for recorded, port in self.ports.items():
            packet.address = packet.address.replace(str(recorded), str(port))
            packet.error = packet.error.replace(str(recorded), str(port))
        packet.error = packet.error.replace("203.0.113.153:53", _resolver())
        return packet

    async def run(self) -> None:
        for step in self.scenario["steps"]:
            source, target = step["from"], step.get("to", "")
            if source == "note":
                await self.note(step)
            elif source.startswith("server"):
                self.serve(step)
            elif source.startswith("endpoint"):
                self.endpoint_acts(step)
            elif target.startswith("server"):
                await self.expect(step)
            else:
                await self.expect_at_endpoint(step)
        for peer in self.scripted.streams:
            extra = peer.received[peer.taken :]
            assert not extra, [shown(packet) for packet in extra]

    async def note(self, step: dict[str, Any]) -> None:
        event = step["event"]
        assert self.agent is not None
        if event.startswith("nothing received by server"):
            await asyncio.sleep(0.03)
            for peer in self.scripted.streams:
                assert not peer.received[peer.taken :]
        elif event == "SIGTERM to agent":
            self.draining = asyncio.create_task(self.agent.drain())
            await asyncio.sleep(0)
        elif event == "second SIGTERM to agent":
            await self.agent.stop()
        elif event == "readyz":
            await until(
                lambda: self.agent is not None and self.agent.ready == (step["status"] == 200), lambda: str(step)
            )
        elif event.startswith(("no further Connect", "no new Connect")):
            before = len(self.scripted.streams)
            await asyncio.sleep(0.25)
            assert len(self.scripted.streams) == before
            assert self.draining is None or not self.draining.done()
        elif event in ("connects so far", "connects"):
            assert len(self.scripted.streams) >= step["n"]
        elif event == "endpoint total":
            await until(lambda: len(self.endpoint.data[0]) >= step["bytes_total"], lambda: "not all bytes")
            assert hashlib.sha256(self.endpoint.data[0]).hexdigest() == step["sha256"]
        elif event == "agent alive":
            assert self.draining is None or not self.draining.done()
        else:
            assert event in ("pause", "agent exit"), step

    def serve(self, step: dict[str, Any]) -> None:
        peer, event = self.scripted.named(step["from"]), step.get("event", "")
        if "packet" in step:
            packet = self.mapped(step)
            raw = wire(step, {}) if packet.empty or packet.type == PacketType.DATA else packet.encode()
            peer.stream.send((raw,))
        elif event == "initial headers":
            peer.stream.send_headers([(key, value) for key, value in step["headers"]])
        else:
            peer.stream.finish(Status(StatusCode[step["status"]], step.get("details", "")))

    def endpoint_acts(self, step: dict[str, Any]) -> None:
        _, writer = self.endpoint.connections[self.index(step["from"])]
        if "bytes" in step:
            writer.write(content(step["bytes"]))
        elif step["event"] == "close":
            writer.close()
        elif step["event"] == "shutdown(SHUT_WR)":
            writer.write_eof()
        else:
            assert step["event"] == "RST"
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            writer.transport.abort()

    @staticmethod
    def index(name: str) -> int:
        return int(name.partition("-")[2] or 1) - 1

    async def expect(self, step: dict[str, Any]) -> None:
        event = step.get("event", "")
        if event.startswith("open stream"):
            number = int(step["to"].partition("#")[2] or 1)
            await until(lambda: len(self.scripted.streams) >= number, lambda: f"no stream {number}")
            found = self.scripted.named(step["to"]).headers
            for key in {key for key, _ in step["headers"]} - {"user-agent"}:
                assert md.values(found, key) == [value for name, value in step["headers"] if name == key]
            return
        peer = self.scripted.named(step["to"])
        if event and self.scenario["id"] == "agt-dial-bad-address":
            await asyncio.sleep(0.05)
            assert peer.status is None  # the recorded program crashes on a packet without payload
            return
        if event:
            await until(lambda: peer.status is not None, lambda: f"stream goes on: {step}")
            return
        expected = self.mapped(step)
        if expected.type == PacketType.DATA:
            await self.expect_data(peer, expected)
            return
        await until(lambda: len(peer.received) > peer.taken, lambda: f"not received: {shown(expected)}")
        assert shown(peer.received[peer.taken]) == shown(expected)
        peer.taken += 1

    async def expect_data(self, peer: ServerPeer, expected: Packet) -> None:
        await until(lambda: len(peer.received) > peer.taken, lambda: f"not received: {len(expected.data)} bytes")
        got = b""
        while len(got) < len(expected.data):
            await until(lambda: len(peer.received) > peer.taken, lambda: "not all bytes")
            packet = peer.received[peer.taken]
            assert (packet.type, packet.connect_id) == (PacketType.DATA, expected.connect_id)
            wanted = len(expected.data) - len(got)
            got += packet.data[:wanted]
            packet.data = packet.data[wanted:]
            if not packet.data:
                peer.taken += 1
        assert got == expected.data

    async def expect_at_endpoint(self, step: dict[str, Any]) -> None:
        index, endpoint = self.index(step["to"]), self.endpoint
        await until(lambda: len(endpoint.connections) > index, lambda: f"no connection {index + 1}")
        if "bytes" in step:
            data = content(step["bytes"])
            if "repeated" in step:
                data = content({"pattern": step["bytes"]["pattern"], "len": step["repeated"]["totalBytes"]})
            end = endpoint.taken[index] + len(data)
            await until(lambda: len(endpoint.data[index]) >= end, lambda: "not all bytes at the endpoint")
            assert endpoint.data[index][endpoint.taken[index] : end] == data
            endpoint.taken[index] = end
        elif step["event"] == "EOF":
            await until(lambda: endpoint.eof[index], lambda: "no EOF at the endpoint")


def recorded_ports(scenario: dict[str, Any]) -> set[int]:
    text = str([step.get("packet") for step in scenario["steps"]])
    return {int(port) for port in re.findall(r":(38\d{3})\b", text)}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["id"])
async def test_agent_replays_the_recording(
    scenario: dict[str, Any],
    scripted: tuple[ScriptedServer, int],
    start_agent: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = godial.dial

    async def impatient(network: str, address: str, connect: godial.Connect) -> None:
        if "too slow" in address or any(address.endswith(f":{port}") for port in silent):
            await asyncio.sleep(DIAL_TIMEOUT)
            raise godial.DialFailedError(f"dial {network} {address}: i/o timeout", timeout=True)
        await real(network, address, connect)

    monkeypatch.setattr(godial, "dial", impatient)
    server, port = scripted
    replay = Replay(scenario, server, {})
    listener = await asyncio.start_server(replay.endpoint.connected, "127.0.0.1", 0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for recorded in recorded_ports(scenario):
            open_port = listener.sockets[0].getsockname()[1]
            replay.ports[recorded] = closed.getsockname()[1] if recorded == CLOSED else open_port
        silent = {recorded for recorded in replay.ports if recorded in SILENT}
        for recorded in silent:
            replay.ports[recorded] = recorded
        replay.agent = await start_agent(port)
        try:
            await replay.run()
        finally:
            if replay.draining is not None:
                replay.draining.cancel()
            for _, writer in replay.endpoint.connections:
                writer.close()
            listener.close()


async def test_identifiers_and_token_travel_as_recorded(
    scripted: tuple[ScriptedServer, int], start_agent: Any, tmp_path: Path
) -> None:
    recorded = [
        step["headers"]
        for s in load("agent")
        if s["id"] == "agt-meta"
        for step in s["steps"]
        if step["from"] == "agent" and "headers" in step
    ]
    server, port = scripted
    token = tmp_path / "token"
    token.write_text("abc\n")  # with the newline upstream's agent never connects
    identifiers = "ipv4=10.0.0.5&host=node1&default-route=true"
    await start_agent(port, agent_identifiers=identifiers, service_account_token_path=str(token))
    await until(lambda: len(server.streams) > 0, lambda: "no Connect")
    found = server.streams[0].headers
    for key, value in recorded[-1]:
        if key != "user-agent":
            assert md.values(found, key) == [value]


async def test_further_alpn_protocols_come_first(start_agent: Any, certificates: Path) -> None:
    chosen: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not chosen.done():
            chosen.set_result(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        writer.transport.abort()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / "srv.crt", certificates / "srv.key")
    context.set_alpn_protocols(["konnectivity", "h2"])
    balancer = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    await start_agent(balancer.sockets[0].getsockname()[1], alpn_proto=("konnectivity",))
    assert await asyncio.wait_for(chosen, 5) == "konnectivity"
    balancer.close()


async def test_an_endpoint_that_stops_reading_behind_a_plain_server_is_cut_alone(
    scripted: tuple[ScriptedServer, int], start_agent: Any
) -> None:
    server, port = scripted
    agent = await start_agent(port)
    await until(lambda: len(server.streams) > 0, lambda: "no Connect")
    peer = server.streams[0]
    peer.stream.send_headers([("serverid", "plain"), ("servercount", "1")])
    deaf: list[asyncio.StreamWriter] = []

    async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        deaf.append(writer)

    endpoint = Endpoint()
    endpoint.echo = True
    listeners = [
        await asyncio.start_server(never_reads, "127.0.0.1", 0),
        await asyncio.start_server(endpoint.connected, "127.0.0.1", 0),
    ]
    for number, listener in enumerate(listeners):
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        peer.stream.send((Packet(PacketType.DIAL_REQ, protocol="tcp", address=address, random=number).encode(),))
        await until(lambda: len(peer.received) == number + 1, lambda: "no DIAL_RSP")  # noqa: B023
    for _ in range(60):
        peer.stream.send((Packet(PacketType.DATA, connect_id=1, data=bytes(512 * 1024)).encode(),))
    peer.stream.send((Packet(PacketType.DATA, connect_id=2, data=b"fine").encode(),))
    await until(lambda: any(packet.data == b"fine" for packet in peer.received), lambda: "the other connection hangs")
    closes = [packet for packet in peer.received if packet.type == PacketType.CLOSE_RSP and packet.connect_id == 1]
    assert "stopped reading" in closes[0].error
    assert agent.ready
    for writer in deaf:
        writer.transport.abort()
    for listener in listeners:
        listener.close()
