"""How a client's streams get here: SPDY/3.1 after an upgrade, the same inside a WebSocket (KEP-4006), or WebSocket channels."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, cast

from aiohttp import WSMessage, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from bowsprit.kubelet.multiplex import Multiplexer, Stream
from bowsprit.kubelet.spdy import LARGEST_FRAME, SpdyError
from bowsprit.machinery.objects import Obj
from bowsprit.net.valve import Valve

STDIN, STDOUT, STDERR, ERROR, RESIZE = 0, 1, 2, 3, 4
CHANNEL_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
TUNNEL_PROTOCOL = "SPDY/3.1+portforward.k8s.io"
PROTOCOL_HEADER = "X-Stream-Protocol-Version"
_CLOSE = 255  # v5: the next byte names the channel that its sender has closed
_CREATION_SECONDS = 30.0  # within which the client must have opened its streams (upstream DefaultStreamCreationTimeout)
_MAX_MESSAGE = LARGEST_FRAME + 8

Work = Callable[[Multiplexer], Awaitable[None]]


class Refused(Exception):
    """An upgrade that is not done; `status` and the text are the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Channels(Protocol):
    """The streams of an exec or attach."""

    async def read(self) -> bytes:
        """More of standard input; b"" at its end."""
        ...

    async def write(self, channel: int, data: bytes) -> None:
        """Send to STDOUT or STDERR."""
        ...

    async def finish(self, status: Obj) -> None:
        """Tell how it ended; nothing may be written afterwards."""
        ...


def is_spdy(request: web.BaseRequest) -> bool:
    """Whether the client wants the connection for SPDY."""
    return request.headers.get("Upgrade", "").lower() == "spdy/3.1"


def is_websocket(request: web.BaseRequest) -> bool:
    """Whether the client wants a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def chosen_protocol(request: web.BaseRequest, known: Sequence[str]) -> str:
    """The first of the client's stream protocols that is known. Raises Refused (upstream httpstream.Handshake)."""
    offered = [
        word.strip() for value in request.headers.getall(PROTOCOL_HEADER, []) for word in value.split(",") if word
    ]
    for protocol in offered:
        if protocol in known:
            return protocol
    said, ours = " ".join(f'"{word}"' for word in offered), " ".join(f'"{word}"' for word in known)
    raise Refused(
        403, f"unable to upgrade: unable to negotiate protocol: client supports [{said}], server accepts [{ours}]"
    )


class Finished(web.StreamResponse):
    """Stands for an answer that was written without aiohttp."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing is left to write."""
        self.force_close()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """See prepare."""


class _Raw(asyncio.Protocol):
    """A client's connection once HTTP is over."""

    def __init__(self, http: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self._http = http
        self._transport = transport
        self._valve = Valve(transport)
        self._writable = asyncio.Event()
        self._writable.set()
        self.streams = Multiplexer(self._write, self._pause)
        self.gone = asyncio.Event()

    async def _write(self, data: bytes) -> None:
        self._transport.write(data)
        await self._writable.wait()

    def _pause(self, rest: bool) -> None:
        self._valve.close() if rest else self._valve.open()

    def data_received(self, data: bytes) -> None:
        try:
            answer = self.streams.feed(data)
        except SpdyError:
            self._transport.close()
            return
        if answer:
            self._transport.write(answer)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        self.streams.end()
        self.gone.set()
        self._http.connection_lost(exc)


async def serve_spdy(request: web.BaseRequest, protocol: str, work: Work) -> web.StreamResponse:
    """Answer 101, then let `work` have the streams until it ends or the client goes; the connection is closed then."""
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the client is gone")
    raw = _Raw(cast("asyncio.Protocol", request.protocol), transport)
    transport.set_protocol(raw)
    transport.write(
        f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n{PROTOCOL_HEADER}: {protocol}\r\n\r\n".encode()
    )
    try:
        await work(raw.streams)
        await raw.streams.go_away()
    finally:
        transport.close()
    return Finished()


async def serve_tunnel(request: web.BaseRequest, work: Work) -> web.StreamResponse:
    """As serve_spdy, with the frames inside a WebSocket's messages."""
    socket = web.WebSocketResponse(protocols=(TUNNEL_PROTOCOL,), max_msg_size=_MAX_MESSAGE, heartbeat=30.0)
    await socket.prepare(request)
    room = asyncio.Event()
    room.set()
    streams = Multiplexer(socket.send_bytes, lambda rest: room.clear() if rest else room.set())

    async def receive() -> None:
        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY and (answer := streams.feed(message.data)):
                    await socket.send_bytes(answer)
                await room.wait()
        except (SpdyError, ConnectionError):
            pass
        finally:
            streams.end()

    receiver = asyncio.ensure_future(receive())
    try:
        await work(streams)
    finally:
        receiver.cancel()
        await asyncio.gather(receiver, return_exceptions=True)
        await socket.close()
    return socket


# -- exec and attach ----------------------------------------------------------------------------------------------------


class SpdyChannels:
    """Streams named by their header `streamType` (upstream cri-streaming remotecommand)."""

    def __init__(self, streams: Mapping[str, Stream]) -> None:
        self._streams = streams

    @classmethod
    async def accept(cls, connection: Multiplexer, names: Sequence[str]) -> SpdyChannels | None:
        """Wait until the client has opened the named streams; None if it goes or takes too long."""
        found: dict[str, Stream] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CREATION_SECONDS):
                while any(name not in found for name in names):
                    stream = await connection.accept()
                    if stream is None:
                        return None
                    found[stream.headers.get("streamtype", "")] = stream
                return cls(found)
        return None

    async def read(self) -> bytes:
        stdin = self._streams.get("stdin")
        return await stdin.read() if stdin is not None else b""

    async def write(self, channel: int, data: bytes) -> None:
        stream = self._streams.get("stdout" if channel == STDOUT else "stderr")
        if stream is not None:
            await stream.write(data)

    async def finish(self, status: Obj) -> None:
        error = self._streams["error"]
        await error.write(json.dumps(status).encode())
        for stream in self._streams.values():
            await stream.close()


def payload(message: WSMessage) -> bytes:
    """A message's bytes; some clients (Python's) send text."""
    if message.type is WSMsgType.BINARY:
        return bytes(message.data)
    return str(message.data).encode() if message.type is WSMsgType.TEXT else b""


class SocketChannels:
    """Messages that begin with the number of their channel."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    @classmethod
    async def accept(cls, request: web.BaseRequest) -> SocketChannels:
        """Shake hands."""
        socket = web.WebSocketResponse(protocols=CHANNEL_PROTOCOLS, max_msg_size=_MAX_MESSAGE, heartbeat=30.0)
        await socket.prepare(request)
        return cls(socket)

    @property
    def socket(self) -> web.WebSocketResponse:
        """The WebSocket, which is the answer to the request."""
        return self._socket

    async def read(self) -> bytes:
        async for message in self._socket:
            data = payload(message)
            if not data:
                continue
            if data[0] == _CLOSE and data[1:2] == bytes([STDIN]):
                return b""
            if data[0] == STDIN and (len(data) > 1 or self._socket.ws_protocol != CHANNEL_PROTOCOLS[0]):
                return data[1:]
        return b""

    async def write(self, channel: int, data: bytes) -> None:
        for start in range(0, len(data), 32 << 10):
            await self._socket.send_bytes(bytes([channel]) + data[start : start + (32 << 10)])

    async def finish(self, status: Obj) -> None:
        await self.write(ERROR, json.dumps(status).encode())
        await self._socket.close()
