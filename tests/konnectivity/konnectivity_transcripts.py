"""Reading the recorded transcripts (tests/golden/konnectivity), and the scripted peers that replay them."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bowsprit.net.egress import packets
from bowsprit.net.egress.packets import Packet, PacketType
from bowsprit.net.grpc.client import Channel
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.status import Status
from bowsprit.net.grpc.stream import Stream

GOLDEN = Path(__file__).parent.parent / "golden" / "konnectivity"
DEADLINE = 15.0
_UNSENT = {"user-agent"}


def load(name: str) -> list[dict[str, Any]]:
    with gzip.open(GOLDEN / f"{name}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def content(spec: dict[str, Any] | None) -> bytes:
    if not spec:
        return b""
    if "utf8" in spec:
        return str(spec["utf8"]).encode()
    if "base64" in spec:
        return base64.b64decode(spec["base64"])
    start, length = int(spec["pattern"]), int(spec["len"])
    first = start // 4
    words = range(first, (start + length) // 4 + 1)
    raw = b"".join(struct.pack(">I", word) for word in words)
    return raw[start - first * 4 :][:length]


def packet_of(step: dict[str, Any], randoms: dict[int, int]) -> Packet:
    recorded = step["packet"]
    kind = PacketType[recorded["type"]] if isinstance(recorded["type"], str) else recorded["type"]
    payload = next((value for key, value in recorded.items() if key != "type"), None)
    if payload is None:
        return Packet(kind, empty=kind not in (PacketType.DRAIN,) and isinstance(kind, PacketType))
    number = int(payload.get("random", 0))
    data = content(payload.get("data"))
    if "repeated" in step:
        data = content({"pattern": payload["data"]["pattern"], "len": step["repeated"]["totalBytes"]})
    return Packet(
        kind,
        connect_id=int(payload.get("connectID", 0)),
        random=randoms.get(number, number),
        error=payload.get("error", ""),
        protocol=payload.get("protocol", ""),
        address=payload.get("address", ""),
        data=data,
    )


def wire(step: dict[str, Any], randoms: dict[int, int]) -> bytes:
    """What the recorded peer sent, byte for byte where that was kept."""
    packet = packet_of(step, randoms)
    if "raw" in step and packet.random not in randoms.values():
        return base64.b64decode(step["raw"])
    return packet.encode()


def shown(packet: Packet) -> tuple[Any, ...]:
    return (
        packet.type, packet.connect_id, packet.random, packet.error, packet.protocol, packet.address, packet.data,
    )  # fmt: skip


async def until(condition: Callable[[], bool], what: Callable[[], str], deadline: float = DEADLINE) -> None:
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline
    while not condition():
        if loop.time() > end:
            raise AssertionError(what())
        await asyncio.sleep(0.001)


async def settle() -> None:
    """Let what was sent arrive and be handled before others act: all peers are on this loop, on loopback."""
    for _ in range(20):
        await asyncio.sleep(0)
    await asyncio.sleep(0.002)


class GrpcPeer:
    """A scripted gRPC client: an agent or an API server."""

    def __init__(self) -> None:
        self.received: list[Packet] = []
        self.headers: Metadata | None = None
        self.status: Status | None = None
        self.taken = 0
        self.channel: Channel | None = None
        self.stream: Stream | None = None

    async def open(self, channel: Channel, path: str, headers: Metadata) -> None:
        self.channel = channel
        self.stream = channel.open(path, self, metadata=[tuple(pair) for pair in headers if pair[0] not in _UNSENT])

    def headers_received(self, stream: Stream, headers: Metadata) -> None:
        self.headers = headers

    def message_received(self, stream: Stream, message: bytes) -> None:
        stream.acknowledge(len(message) + 5)
        self.received.append(packets.decode(message))

    def half_closed(self, stream: Stream) -> None: ...

    def writable(self, stream: Stream) -> None: ...

    def ended(self, stream: Stream, status: Status, trailers: Metadata) -> None:
        self.status = status

    def send(self, message: bytes) -> None:
        assert self.stream is not None
        self.stream.send((message,))

    def close(self) -> None:
        if self.channel is not None:
            self.channel.protocol.abort()


class TcpPeer:
    """A scripted HTTP client."""

    def __init__(self) -> None:
        self.data = b""
        self.taken = 0
        self.eof = False
        self.writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    async def connect(self, path: str) -> None:
        reader, self.writer = await asyncio.open_unix_connection(path)
        self._task = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while chunk := await reader.read(65536):
                self.data += chunk
        except OSError:
            pass
        self.eof = True

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def insecure_client(directory: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.load_cert_chain(directory / "ag.crt", directory / "ag.key")
    context.set_alpn_protocols(["h2"])
    return context
