"""SPDY/3.1: frames, streams, and exec and port-forward over them."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.kubelet.multiplex import Multiplexer
from bowsprit.kubelet.spdy import (
    DICTIONARY,
    Data,
    FrameReader,
    FrameWriter,
    GoAway,
    Ping,
    Reset,
    SpdyError,
    SynStream,
    data_frame,
    goaway_frame,
    ping_frame,
    reset_frame,
)

text = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=20)


def test_the_dictionary_is_the_protocols() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


@settings(max_examples=50)
@given(st.lists(st.dictionaries(text, text, max_size=5), max_size=4), st.lists(st.integers(1, 40), max_size=60))
def test_frames_survive_any_cut(headers: list[dict[str, str]], cuts: list[int]) -> None:
    writer, reader = FrameWriter(), FrameReader()
    wire = b"".join(writer.syn_stream(2 * number + 1, fields) for number, fields in enumerate(headers))
    wire += (
        data_frame(1, b"x" * 70) + data_frame(1, b"", fin=True) + ping_frame(7) + reset_frame(3, 5) + goaway_frame(3)
    )
    frames: list[Any] = []
    for cut in cuts:
        frames += reader.feed(wire[:cut])
        wire = wire[cut:]
    frames += reader.feed(wire)
    opened = [SynStream(2 * number + 1, fields) for number, fields in enumerate(headers)]
    assert frames == [*opened, Data(1, b"x" * 70), Data(1, b"", True), Ping(7), Reset(3, 5), GoAway()]


def block(plain: bytes) -> bytes:
    deflate = zlib.compressobj(zdict=DICTIONARY)
    body = struct.pack(">IIH", 1, 0, 0) + deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return struct.pack(">HHI", 0x8003, 1, len(body)) + body


@pytest.mark.parametrize(
    ("wire", "problem"),
    [
        (struct.pack(">II", 1, 2 << 20), "at most"),
        (struct.pack(">HHI", 0x8002, 1, 0), "version 2"),
        (struct.pack(">HHI", 0x8003, 3, 4) + b"\0\0\0\1", "short control frame"),
        (struct.pack(">HHI", 0x8003, 1, 14) + b"\0" * 14, "cannot be decompressed"),
        (block(struct.pack(">I", 1) + b"\0" * (1 << 20)), "bytes of headers"),
        (block(struct.pack(">II", 1, 1000)), "end too early"),
        (block(struct.pack(">I", 1000)), "short control frame"),
    ],
)
def test_what_is_no_spdy_is_refused(wire: bytes, problem: str) -> None:
    with pytest.raises(SpdyError, match=problem):
        FrameReader().feed(wire)


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_an_error(wire: bytes) -> None:
    try:
        FrameReader().feed(wire)
    except SpdyError:
        pass


async def test_a_reader_that_sleeps_stops_the_sender() -> None:
    pauses: list[bool] = []

    async def write(data: bytes) -> None:
        """Nobody reads."""

    connection, writer = Multiplexer(write, pauses.append), FrameWriter()
    connection.feed(writer.syn_stream(1, {"streamtype": "data"}))
    stream = await connection.accept()
    assert stream is not None
    connection.feed(data_frame(1, b"x" * (1 << 20)))
    assert pauses == []
    connection.feed(data_frame(1, b"y"))
    assert pauses == [True]
    assert len(await stream.read()) == (1 << 20) + 1
    assert pauses == [True, False]
    with pytest.raises(SpdyError, match="stream 1 after 1"):
        connection.feed(writer.syn_stream(1, {}))


class Client:
    """What kubectl does, in a few lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        self.head = head
        self._reader, self._writer = reader, writer
        self._frames, self._headers = FrameReader(), FrameWriter()
        self._last = -1
        self.got: dict[int, bytes] = {}
        self.ended: set[int] = set()

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext, path: str, *protocols: str) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        offers = "".join(f"X-Stream-Protocol-Version: {protocol}\r\n" for protocol in protocols)
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: k\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{offers}Content-Length: 0\r\n\r\n".encode()
        )
        return cls(reader, writer, await reader.readuntil(b"\r\n\r\n"))

    def open(self, **headers: str) -> int:
        self._last += 2
        self._writer.write(self._headers.syn_stream(self._last, headers))
        self.got[self._last] = b""
        return self._last

    def send(self, stream: int, data: bytes, *, fin: bool = False) -> None:
        self._writer.write(data_frame(stream, data, fin=fin))

    async def until_ended(self, *streams: int) -> None:
        async with asyncio.timeout(10):
            while not self.ended.issuperset(streams):
                data = await self._reader.read(65536)
                assert data, "the connection has ended"
                for frame in self._frames.feed(data):
                    match frame:
                        case Data(number, piece, fin):
                            self.got[number] += piece
                            self.ended |= {number} if fin else set()
                        case Reset(number):
                            self.ended.add(number)

    async def close(self) -> None:
        self._writer.write(goaway_frame(0))
        self._writer.close()
        await self._writer.wait_closed()


async def test_exec_over_spdy(kubelet: Any) -> None:
    protocols = ("v4.channel.k8s.io", "channel.k8s.io")
    path = "/exec/default/p/web?command=cat&input=1&output=1&error=1"
    client = await Client.connect(kubelet.port, kubelet.context("system:masters"), path, *protocols)
    assert client.head.startswith(b"HTTP/1.1 101 ")
    assert b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n" in client.head
    error, stdin, stdout, stderr = (client.open(streamType=name) for name in ("error", "stdin", "stdout", "stderr"))
    typed = bytes(range(256)) * 1000
    client.send(stdin, typed[:100_000])
    client.send(stdin, typed[100_000:], fin=True)
    await client.until_ended(error, stdout, stderr)
    assert client.got[stdout] == typed
    assert json.loads(client.got[error]) == {"metadata": {}, "status": "Success"}
    await client.close()
    refused = await Client.connect(kubelet.port, kubelet.context("system:masters"), path, "channel.k8s.io")
    assert refused.head.startswith(b"HTTP/1.1 403 ")
    await refused.close()


async def test_ports_are_forwarded_over_spdy(kubelet: Any) -> None:
    client = await Client.connect(
        kubelet.port, kubelet.context("system:masters"), "/portForward/default/p", "portforward.k8s.io"
    )

    def dial(port: str, request: str) -> tuple[int, int]:
        headers = {"port": port, "requestID": request}
        return client.open(streamType="error", **headers), client.open(streamType="data", **headers)

    http_error, http = dial("8080", "0")
    echo_error, echo = dial("8080", "1")
    closed_error, closed = dial("81", "2")
    client.send(http, b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n", fin=True)
    client.send(echo, b"hello", fin=True)
    await client.until_ended(http_error, http, echo_error, echo, closed_error, closed)
    assert client.got[http].count(b"HTTP/1.1 200 OK") == 2
    assert client.got[http].endswith(b"simulated pod default/p port 8080: GET /b\n")
    assert client.got[echo] == b"hello"
    assert client.got[http_error] == client.got[echo_error] == client.got[closed] == b""
    assert b"connection refused (no container declares this port)" in client.got[closed_error]
    await client.close()
