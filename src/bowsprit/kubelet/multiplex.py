"""Many streams over one connection, in SPDY/3.1; the client opens them, as it does with a kubelet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from bowsprit.kubelet.spdy import (
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

MAX_STREAMS = 256
_HIGH_WATER = 1 << 20  # unread bytes of all streams beyond which nothing more is read
_PIECE = 32 << 10
_REFUSED_STREAM, _CANCEL = 3, 5


class Stream:
    """One stream. Reading gives b"" at its end; writing waits while the connection is full."""

    def __init__(self, number: int, headers: Mapping[str, str], connection: Multiplexer) -> None:
        self.number = number
        self.headers = headers
        self._connection = connection
        self._pieces: list[bytes] = []
        self._news = asyncio.Event()
        self._ended = False
        self._closed = False

    async def read(self) -> bytes:
        """The next bytes."""
        while not self._pieces:
            if self._ended:
                return b""
            self._news.clear()
            await self._news.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._connection.consumed(len(data))
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes; what comes after `close` or the connection's end is dropped."""
        for start in range(0, len(data), _PIECE):
            if self._closed:
                return
            await self._connection.send(data_frame(self.number, data[start : start + _PIECE]))

    async def close(self) -> None:
        """Nothing more will be written."""
        if not self._closed:
            self._closed = True
            await self._connection.send(data_frame(self.number, b"", fin=True))
            self._connection.forget(self)

    async def reset(self) -> None:
        """End both directions at once."""
        if not self._closed:
            self._closed = True
            await self._connection.send(reset_frame(self.number, _CANCEL))
        self.end()
        self._connection.forget(self)

    # Called by the connection

    def received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    @property
    def over(self) -> bool:
        """Whether both sides have ended it."""
        return self._ended and self._closed


class Multiplexer:
    """A connection.

    Args:
        write: sends bytes, waiting while the peer does not read.
        pause: told whether reading from the peer should rest.
    """

    def __init__(self, write: Callable[[bytes], Awaitable[None]], pause: Callable[[bool], None]) -> None:
        self._write = write
        self._pause = pause
        self._reader = FrameReader()
        self._writer = FrameWriter()
        self._streams: dict[int, Stream] = {}
        self._opened: asyncio.Queue[Stream | None] = asyncio.Queue(MAX_STREAMS + 1)
        self._replies: list[bytes] = []
        self._unread = 0
        self._paused = False
        self._last = 0
        self.lost = False

    async def accept(self) -> Stream | None:
        """The next stream that the client opens; None when there will be no more."""
        return await self._opened.get()

    def feed(self, data: bytes) -> bytes:
        """Take what has arrived; gives what must be answered. Raises SpdyError."""
        for frame in self._reader.feed(data):
            self._take(frame)
        answer, self._replies = b"".join(self._replies), []
        return answer

    def _take(self, frame: SynStream | Data | Reset | Ping | GoAway) -> None:
        match frame:
            case SynStream(number, headers, fin):
                self._open(number, headers, fin)
            case Data(number, data, fin):
                stream = self._streams.get(number)
                if stream is None:
                    return
                if data:
                    stream.received(data)
                    self.consumed(-len(data))
                if fin:
                    stream.end()
                    self.forget(stream)
            case Reset(number):
                if (stream := self._streams.pop(number, None)) is not None:
                    stream._closed = True
                    stream.end()
            case Ping(number):
                self._replies.append(ping_frame(number))
            case GoAway():
                self._announce(None)

    def _open(self, number: int, headers: Mapping[str, str], fin: bool) -> None:
        if number <= self._last or number % 2 == 0:
            raise SpdyError(f"stream {number} after {self._last}")
        self._last = number
        if len(self._streams) >= MAX_STREAMS:
            self._replies.append(reset_frame(number, _REFUSED_STREAM))
            return
        stream = Stream(number, headers, self)
        self._streams[number] = stream
        self._replies.append(self._writer.syn_reply(number))
        if fin:
            stream.end()
        self._announce(stream)

    def _announce(self, stream: Stream | None) -> None:
        if not self._opened.full():
            self._opened.put_nowait(stream)

    def consumed(self, count: int) -> None:
        """Bytes were read from a stream (or, negative, have come for one)."""
        self._unread -= count
        if self._paused != (self._unread > _HIGH_WATER):
            self._paused = not self._paused
            self._pause(self._paused)

    def forget(self, stream: Stream) -> None:
        """Let go of a stream that both sides have ended."""
        if stream.over:
            self._streams.pop(stream.number, None)

    async def send(self, data: bytes) -> None:
        """Write a frame; nothing once the connection is lost."""
        if not self.lost:
            await self._write(data)

    async def go_away(self) -> None:
        """Tell the client that this is all."""
        await self.send(goaway_frame(self._last))

    def end(self) -> None:
        """The connection is lost: every stream ends."""
        self.lost = True
        for stream in tuple(self._streams.values()):
            stream._closed = True
            stream.end()
        self._streams.clear()
        self._announce(None)
