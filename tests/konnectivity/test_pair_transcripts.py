"""Server and agent together, as the recorded pair: what frontends and endpoints see."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from konnectivity_transcripts import GrpcPeer, TcpPeer, content, load, packet_of, shown, until

from bowsprit.konnectivity.agent import ProxyAgent
from bowsprit.konnectivity.godial import _resolver
from bowsprit.konnectivity.server import ProxyServer
from bowsprit.net.egress.packets import Packet, PacketType
from bowsprit.net.grpc.client import Channel

SCENARIOS = load("pair")
CLOSED = 38999
ECHO = {"pair-grpc-echo", "pair-http-echo", "pair-drain-two-agents"}
# Ours half-closes: the endpoint's answer still comes, the client's EOF when the endpoint closes too.
HALF_CLOSE = ("pair-http-endpoint-close", "frontend#2")


class Endpoint:
    def __init__(self, echo: bool) -> None:
        self.echo = echo
        self.data: list[bytes] = []
        self.taken: list[int] = []
        self.eof: list[bool] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        index = len(self.data)
        self.writers.append(writer)
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
        writer.close()


class Replay:
    def __init__(self, scenario: dict[str, Any], server: ProxyServer, agents: list[ProxyAgent]) -> None:
        self.scenario = scenario
        self.server = server
        self.agents = agents
        self.peers: dict[str, GrpcPeer | TcpPeer] = {}
        self.endpoint = Endpoint(scenario["id"] in ECHO)
        self.ports: dict[str, str] = {}
        self.ids: dict[str, int] = {}
        self.draining: list[asyncio.Task[None]] = []

    def text(self, data: bytes) -> bytes:
        for recorded, port in self.ports.items():
            data = data.replace(recorded.encode(), port.encode())
        data = data.replace(b"203.0.113.153:53", _resolver().encode())
        return re.sub(rb"Date: [^\r]*", b"Date: -", data)

    def mapped(self, step: dict[str, Any]) -> Packet:
        packet = packet_of(step, {})
        packet.address = self.text(packet.address.encode()).decode()
        packet.error = self.text(packet.error.encode()).decode()
        return packet

    async def run(self) -> None:
        for step in self.scenario["steps"]:
            source, target = step["from"], step.get("to", "")
            if source == "note":
                await self.note(step)
            elif source.startswith("frontend"):
                await self.act(source, step)
            elif source.startswith("endpoint"):
                writer = self.endpoint.writers[int(source.partition("-")[2] or 1) - 1]
                if "bytes" in step:
                    if not self.endpoint.echo:
                        writer.write(content(step["bytes"]))
                else:
                    writer.close()
            elif target.startswith("endpoint"):
                await self.expect_at_endpoint(target, step)
            elif target.startswith("frontend"):
                await self.expect(target, step)

    async def note(self, step: dict[str, Any]) -> None:
        if step["event"] == "SIGTERM to agent-a":
            self.draining.append(asyncio.create_task(self.agents[0].drain()))
            await until(lambda: any(each.draining for each in self.server.backends.all()), lambda: "not draining")

    async def act(self, name: str, step: dict[str, Any]) -> None:
        event = step.get("event", "")
        if event == "connect":
            peer = self.peers[name] = TcpPeer()
            await peer.connect(self.server.options.uds_name)
            return
        if event.startswith("open stream"):
            grpc = self.peers[name] = GrpcPeer()
            await grpc.open(await Channel.connect_unix(self.server.options.uds_name), "/ProxyService/Proxy", [])
            return
        target = self.peers[name]
        if isinstance(target, GrpcPeer):
            assert target.stream is not None
            if event:
                target.stream.end()
            else:
                packet = self.mapped(step)
                packet.connect_id = self.ids.get(name, packet.connect_id)
                target.send(packet.encode())
            return
        assert target.writer is not None
        if "bytes" in step:
            target.writer.write(self.text(content(step["bytes"])))
        elif event == "shutdown(SHUT_WR)":
            target.writer.write_eof()
        else:
            target.close()

    async def expect(self, name: str, step: dict[str, Any]) -> None:
        peer, event = self.peers[name], step.get("event", "")
        if isinstance(peer, TcpPeer):
            if "bytes" in step:
                data = self.text(content(step["bytes"]))
                if "repeated" in step:
                    data = content({"pattern": step["bytes"]["pattern"], "len": step["repeated"]["totalBytes"]})
                end = peer.taken + len(data)
                await until(
                    lambda: len(self.text(peer.data)) >= end, lambda: f"{data[:200]!r} expected, got {peer.data!r}"
                )
                assert self.text(peer.data)[peer.taken : end] == data
                peer.taken = end
            elif event == "EOF" and (self.scenario["id"], name) != HALF_CLOSE:
                await until(
                    lambda: peer.eof or (peer.writer is not None and peer.writer.is_closing()), lambda: "no EOF"
                )
        elif event == "stream ended":
            await until(lambda: peer.status is not None, lambda: "stream goes on")
            assert peer.status is not None
            assert peer.status.code.name == step["status"]
        elif "packet" in step:
            await self.expect_packet(peer, self.mapped(step), step)

    async def expect_packet(self, peer: GrpcPeer, expected: Packet, step: dict[str, Any]) -> None:
        if expected.type != PacketType.DATA:
            await until(lambda: len(peer.received) > peer.taken, lambda: f"not received: {shown(expected)}")
            found = peer.received[peer.taken]
            if self.scenario["id"] == "pair-drain-two-agents":  # which agent was asked is chance
                self.ids[step["to"]] = expected.connect_id = found.connect_id
            assert shown(found) == shown(expected)
            peer.taken += 1
            return
        got = b""
        while len(got) < len(expected.data):
            await until(lambda: len(peer.received) > peer.taken, lambda: "not all bytes")
            packet = peer.received[peer.taken]
            assert packet.type == PacketType.DATA
            wanted = len(expected.data) - len(got)
            got, packet.data = got + packet.data[:wanted], packet.data[wanted:]
            peer.taken += not packet.data
        assert got == expected.data

    async def expect_at_endpoint(self, target: str, step: dict[str, Any]) -> None:
        index, endpoint = int(target.partition("-")[2] or 1) - 1, self.endpoint
        await until(lambda: len(endpoint.data) > index, lambda: f"no connection {index + 1}")
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


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["id"])
async def test_the_pair_replays_the_recording(
    scenario: dict[str, Any], start_server: Any, start_agent: Any, tmp_path: Path
) -> None:
    server = await start_server(mode=scenario["mode"])
    names = ["agent-a", "agent-b"] if "two-agents" in scenario["id"] else ["agent-a"]
    agents = [await start_agent(server.agent_port, agent_id=name) for name in names]
    await until(lambda: len(server.backends) == len(names), lambda: "agents do not connect")
    replay = Replay(scenario, server, agents)
    listener = await asyncio.start_server(replay.endpoint.connected, "127.0.0.1", 0)
    closed = await asyncio.start_server(replay.endpoint.connected, "127.0.0.1", 0)
    free = str(closed.sockets[0].getsockname()[1])
    closed.close()
    for recorded in set(re.findall(r":(38\d{3})\b", str(scenario["steps"]))):
        replay.ports[recorded] = free if int(recorded) == CLOSED else str(listener.sockets[0].getsockname()[1])
    try:
        await replay.run()
    finally:
        for task in replay.draining:
            task.cancel()
        for peer in replay.peers.values():
            peer.close()
        listener.close()
