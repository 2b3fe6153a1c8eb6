"""What upstream's server was recorded to do, step by step, is what ours does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from konnectivity_transcripts import (
    GrpcPeer,
    TcpPeer,
    content,
    insecure_client,
    load,
    packet_of,
    settle,
    shown,
    until,
    wire,
)

from bowsprit.konnectivity import goflags
from bowsprit.konnectivity.server import ProxyServer
from bowsprit.konnectivity.serveroptions import SERVER_FLAGS, ServerOptions
from bowsprit.net.egress import packets
from bowsprit.net.egress.packets import PacketType
from bowsprit.net.grpc.client import Channel

# Scenarios whose recording shows what ours does not do on purpose, or that another test replays.
ELSEWHERE = {
    "srv-empty-payloads": "the recorded program crashes; test_packets_without_payload_are_ignored",
    "srv-two-agents-choice": "distribution only; test_dials_are_spread_evenly_over_two_agents",
    "hc-sigterm": "ends processes; test_processes",
}
SCENARIOS = [
    scenario
    for name in ("server-grpc", "server-http-connect")
    for scenario in load(name)
    if scenario["id"] not in ELSEWHERE
]
# (scenario, peer) -> packets that upstream never sends: the dial of an agent that has gone is failed at once (upstream #126);
# a tunnel's late DIAL_RSP is answered (upstream leaks the agent's connection).
BETTER = {
    ("srv-drain", "frontend#9"): [PacketType.DIAL_RSP],
    ("hc-client-close-dialling", "agent"): [PacketType.CLOSE_REQ],
}
UNSENDABLE = "agent#emptytoken"  # "Bearer " ends in a space, which RFC 9113 8.2.1 forbids and h2 does not send
_FOREIGN_TEXT = ("Locally", "Stream removed", "Channel closed")


class Replay:
    def __init__(self, server: ProxyServer, directory: Path, scenario: dict[str, Any]) -> None:
        self.server = server
        self.directory = directory
        self.scenario = scenario
        self.peers: dict[str, GrpcPeer | TcpPeer] = {}
        self.randoms: dict[int, int] = {}

    async def run(self) -> None:
        for step in self.scenario["steps"]:
            if UNSENDABLE in (step["from"], step.get("to")):
                continue
            if step["from"] == "note":
                await self.note(step)
            elif step["from"] == "server":
                await self.expect(self.peers[step["to"]], step)
            else:
                await self.act(step)
        await asyncio.sleep(0.02)
        for name, peer in self.peers.items():
            if isinstance(peer, GrpcPeer):
                better = list(BETTER.get((self.scenario["id"], name), []))
                extra = [packet for packet in peer.received[peer.taken :] if not better or packet.type not in better]
                assert not extra, f"{name} also received {[shown(packet) for packet in extra]}"
            else:
                assert peer.data[peer.taken :] == b"", f"{name} also received {peer.data[peer.taken :]!r}"

    async def note(self, step: dict[str, Any]) -> None:
        matched = re.match(r"nothing received by (\S+) for", step["event"])
        if matched:
            await asyncio.sleep(0.02)
            peer = self.peers[matched[1]]
            if isinstance(peer, GrpcPeer) and (self.scenario["id"], matched[1]) not in BETTER:
                assert not peer.received[peer.taken :], [shown(p) for p in peer.received[peer.taken :]]
        elif step["event"] == "frontend sends message bytes ff ff ff":
            self.grpc("frontend").send(b"\xff\xff\xff")
        elif step["event"] == "agent sends message bytes ff ff ff":
            self.grpc("agent").send(b"\xff\xff\xff")
        elif "still open" in step["event"]:
            await asyncio.sleep(0.02)
            last = [peer for peer in self.peers.values() if isinstance(peer, TcpPeer)][-1]
            assert not last.eof
        else:
            raise AssertionError(f"unknown note {step}")

    def grpc(self, name: str) -> GrpcPeer:
        peer = self.peers[name]
        assert isinstance(peer, GrpcPeer)
        return peer

    async def act(self, step: dict[str, Any]) -> None:
        name, event = step["from"], step.get("event", "")
        if "packet" in step:
            self.grpc(name).send(wire(step, self.randoms))
        elif event.startswith("open stream"):
            await self.open(name, event.split()[-1], step["headers"])
        elif event == "half-close stream":
            stream = self.grpc(name).stream
            assert stream is not None
            stream.end()
        elif event.startswith("cancel stream"):
            stream = self.grpc(name).stream
            assert stream is not None
            stream.reset()
        elif event == "close connection":
            self.grpc(name).close()
        elif event == "connect":
            peer = self.peers[name] = TcpPeer()
            await peer.connect(self.server.options.uds_name)
        else:
            await self.act_http(name, step)
        await settle()

    async def act_http(self, name: str, step: dict[str, Any]) -> None:
        peer = self.peers[name]
        assert isinstance(peer, TcpPeer)
        assert peer.writer is not None
        if "bytes" in step:
            peer.writer.write(http_bytes(step["bytes"]))
        elif step["event"] == "shutdown(SHUT_WR)":
            peer.writer.write_eof()
        elif step["event"] == "close":
            peer.close()
        else:
            raise AssertionError(f"unknown action {step}")

    async def open(self, name: str, path: str, headers: list[list[str]]) -> None:
        if path == packets.CONNECT:
            context = insecure_client(self.directory)
            if self.server.options.token_authentication:
                context.check_hostname = True
            channel = await Channel.connect("127.0.0.1", self.server.agent_port, ssl=context)
        else:
            channel = await Channel.connect_unix(self.server.options.uds_name)
        peer = self.peers[name] = GrpcPeer()
        await peer.open(channel, path, [(key, value) for key, value in headers])

    async def expect(self, peer: GrpcPeer | TcpPeer, step: dict[str, Any]) -> None:
        if isinstance(peer, TcpPeer):
            await self.expect_http(peer, step)
            return
        event = step.get("event", "")
        if "packet" in step:
            await self.expect_packet(peer, step)
        elif event == "initial headers":
            if not any(text in str(s.get("details")) for s in self.scenario["steps"] for text in ("Socket closed",)):
                await until(lambda: peer.headers is not None or peer.status is not None, lambda: f"no headers: {step}")
                if peer.headers is not None:
                    found = sorted(pair for pair in peer.headers if pair[0] != "content-type")
                    assert found == sorted((key, value) for key, value in step["headers"])
        elif event == "stream ended":
            if "Socket closed" in step.get("details", ""):
                return  # the recorded process was ended
            await until(lambda: peer.status is not None, lambda: f"stream has not ended: {step}")
            assert peer.status is not None
            if not any(text in step.get("details", "") for text in _FOREIGN_TEXT):
                assert peer.status.code.name == step["status"]
                assert peer.status.message == step.get("details", "")
        else:
            raise AssertionError(f"unknown expectation {step}")

    async def expect_packet(self, peer: GrpcPeer, step: dict[str, Any]) -> None:
        expected = packet_of(step, self.randoms)
        if "repeated" in step or (self.scenario["mode"] == "http-connect" and expected.type == PacketType.DATA):
            await self.expect_data(peer, expected.connect_id, expected.data)
            return
        await until(lambda: len(peer.received) > peer.taken, lambda: f"not received: {shown(expected)}")
        better = BETTER.get((self.scenario["id"], "agent"), [])
        while (received := peer.received[peer.taken]).type in better and received.type != expected.type:
            peer.taken += 1
            await until(lambda: len(peer.received) > peer.taken, lambda: f"not received: {shown(expected)}")
        if expected.type == PacketType.DIAL_REQ and self.scenario["mode"] == "http-connect":
            self.randoms[expected.random] = expected.random = received.random
        if expected.type == PacketType.CLOSE_RSP:  # connections of one lost agent close in any order
            later = peer.received[peer.taken :]
            received = next((packet for packet in later if shown(packet) == shown(expected)), received)
        assert shown(received) == shown(expected)
        peer.taken += 1

    async def expect_data(self, peer: GrpcPeer, connect_id: int, data: bytes) -> None:
        got = b""
        while len(got) < len(data):
            await until(lambda: len(peer.received) > peer.taken, lambda: f"not all of {len(data)} bytes")
            packet = peer.received[peer.taken]
            assert (packet.type, packet.connect_id) == (PacketType.DATA, connect_id)
            assert len(packet.data) <= 32768
            got += packet.data
            if len(got) > len(data):  # cut differently than recorded: leave the rest
                packet.data = got[len(data) :]
                got = got[: len(data)]
            else:
                peer.taken += 1
        assert got == data

    async def expect_http(self, peer: TcpPeer, step: dict[str, Any]) -> None:
        if "bytes" in step:
            expected = undated(http_bytes(step["bytes"]))
            if "repeated" in step:
                expected = content({"pattern": step["bytes"]["pattern"], "len": step["repeated"]["totalBytes"]})
            end = peer.taken + len(expected)
            await until(
                lambda: len(peer.data) >= end or peer.eof, lambda: f"{expected!r} expected, {peer.data!r} received"
            )
            assert undated(peer.data[peer.taken : end]) == expected
            peer.taken = end
        elif step["event"] == "EOF":
            await until(
                lambda: peer.eof or (peer.writer is not None and peer.writer.is_closing()),
                lambda: f"no EOF, {peer.data!r}",
            )


def http_bytes(spec: dict[str, Any]) -> bytes:
    if "sha256" in spec:  # a header block of 1.1 MB
        head = b"CONNECT 10.0.0.5:1 HTTP/1.1\r\nHost: x\r\nX: "
        return head + b"a" * (int(spec["len"]) - len(head) - 4) + b"\r\n\r\n"
    return content(spec)


def undated(data: bytes) -> bytes:
    return re.sub(rb"Date: [^\r]*\r\n", b"Date: Mon, 01 Jan 2001 00:00:00 GMT\r\n", data)


def options(scenario: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    config = scenario["config"] or {}
    arguments = config.get("server_extra_args") or config.get("server_args") or []
    given = {argument.split("=", 1)[0].removeprefix("--").replace("-", "_") for argument in arguments}
    values = goflags.parse(SERVER_FLAGS, arguments, lambda line: None)
    parsed = ServerOptions.from_flags(values)
    settings = {name: getattr(parsed, name) for name in given}
    if "backend_dial_timeout" in settings:
        settings["backend_dial_timeout"] = 200_000_000  # the recorder waited two seconds
    if settings.get("kubeconfig"):
        path = tmp_path / "kubeconfig"
        path.write_text(KUBECONFIG)
        settings["kubeconfig"] = str(path)
        settings["cluster_ca_cert"] = ""
    return settings


KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario["id"])
async def test_server_replays_the_recording(
    scenario: dict[str, Any], start_server: Any, certificates: Path, tmp_path: Path
) -> None:
    server = await start_server(mode=scenario["mode"], **options(scenario, tmp_path))
    replay = Replay(server, certificates, scenario)
    try:
        await replay.run()
    finally:
        for peer in replay.peers.values():
            peer.close()


async def test_dials_are_spread_evenly_over_two_agents(start_server: Any, certificates: Path) -> None:
    """``srv-two-agents-choice``: upstream throws a coin, 17 to 23 of 40; here the least loaded one is asked."""
    server = await start_server()
    agents = [GrpcPeer(), GrpcPeer()]
    for number, agent in enumerate(agents):
        channel = await Channel.connect("127.0.0.1", server.agent_port, ssl=insecure_client(certificates))
        await agent.open(channel, packets.CONNECT, [("agentid", f"agent-{number}"), ("agentidentifiers", "")])
    await until(lambda: len(server.backends) == 2, lambda: "no agents")
    frontend = GrpcPeer()
    await frontend.open(await Channel.connect_unix(server.options.uds_name), packets.PROXY, [])
    for number in range(40):
        dial = packets.Packet(PacketType.DIAL_REQ, protocol="tcp", address="10.0.0.5:10250", random=60 + number)
        frontend.send(dial.encode())
    await until(lambda: sum(len(agent.received) for agent in agents) == 40, lambda: "dials are missing")
    assert [len(agent.received) for agent in agents] == [20, 20]
    for peer in (*agents, frontend):
        peer.close()


async def test_packets_without_payload_are_ignored(start_server: Any, certificates: Path) -> None:
    """``srv-empty-payloads``: the recorded server ends at the first one, whoever sends it."""
    server = await start_server()
    agent, frontend = GrpcPeer(), GrpcPeer()
    channel = await Channel.connect("127.0.0.1", server.agent_port, ssl=insecure_client(certificates))
    await agent.open(channel, packets.CONNECT, [("agentid", "a"), ("agentidentifiers", "")])
    await until(lambda: server.backends.ready, lambda: "no agent")
    await frontend.open(await Channel.connect_unix(server.options.uds_name), packets.PROXY, [])
    for kind in (*range(8), 100, 101):
        frontend.send(b"\x08" + bytes([kind]))
        agent.send(b"\x08" + bytes([kind]))
    frontend.send(packets.Packet(PacketType.DIAL_REQ, protocol="tcp", address="10.0.0.5:1", random=7).encode())
    await until(lambda: len(agent.received) == 1, lambda: f"{[shown(packet) for packet in agent.received]}")
    assert agent.received[0].random == 7
    assert (frontend.received, frontend.status, agent.status) == ([], None, None)
    for peer in (agent, frontend):
        peer.close()
