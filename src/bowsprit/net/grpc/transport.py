"""The driver: an asyncio protocol that carries a Connection over TCP, TLS or a unix socket.

Reads go into one buffer that all connections of a thread share: a connection consumes it before the next one reads, so an
idle connection costs no buffer. Writes are collected and leave once per turn of the event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import cast

from h2.errors import ErrorCodes

from bowsprit.net.grpc.connection import Connection
from bowsprit.net.grpc.limits import KIB, Options
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.status import Status, StatusCode
from bowsprit.net.grpc.stream import Stream, StreamHandler

READ_SIZE = 256 * KIB
_JOIN_BELOW = 64 * KIB
_CLOSE_DEADLINE = 5.0  # for the peer to take our last bytes

_local = threading.local()


def shared_buffer() -> memoryview:
    """The thread's read buffer. Valid between ``get_buffer`` and the end of ``buffer_updated``, for whoever reads."""
    view: memoryview | None = getattr(_local, "view", None)
    if view is None:
        view = _local.view = memoryview(bytearray(READ_SIZE))
    return view


StreamOpener = Callable[["GrpcProtocol", Stream, Metadata], "StreamHandler | None"]


class GrpcProtocol(asyncio.BufferedProtocol):
    """One connection. ``on_closed`` is called once, with the reason."""

    def __init__(
        self,
        options: Options,
        *,
        client: bool,
        opener: StreamOpener | None = None,
        on_closed: Callable[[GrpcProtocol, str], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._client = client
        self._opener = opener
        self._on_closed = on_closed
        self._flush_scheduled = False
        self._reading = False
        self._last_read = self._loop.time()
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._keepalive: asyncio.TimerHandle | None = None
        self._keepalive_time = options.keepalive_time
        self._keepalive_timeout = options.keepalive_timeout
        self._ping_sent = False
        self._closing: asyncio.TimerHandle | None = None
        self._draining = False
        self.transport: asyncio.Transport | None = None
        self.closed_reason: str | None = None
        self.connection = Connection(self, options, self._loop.time, client=client)

    # -- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses
        self.transport.set_write_buffer_limits(high=self._options.high_water)
        if self._keepalive_time > 0:
            self._keepalive = self._loop.call_later(self._keepalive_time, self._check_alive)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return shared_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._last_read = self._loop.time()
        self._reading = True
        try:
            self.connection.receive(shared_buffer()[:nbytes])
        finally:
            self._reading = False
        self._flush()

    def pause_writing(self) -> None:
        self.connection.blocked = True

    def resume_writing(self) -> None:
        self.connection.unblock()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        reason = self.closed_reason or (
            f"error reading from the peer: {exc}" if exc else "connection closed by the peer"
        )
        self.closed_reason = reason
        for handle in (self._keepalive, self._closing, *self._timers.values()):
            if handle is not None:
                handle.cancel()
        self._timers.clear()
        self.connection.lost(reason)
        if self._on_closed is not None:
            self._on_closed(self, reason)

    # -- ConnectionHandler --------------------------------------------------------------------------------------------

    def wants_flush(self) -> None:
        if not self._reading and not self._flush_scheduled and self.transport is not None:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)

    def stream_opened(self, stream: Stream, headers: Metadata) -> StreamHandler | None:
        if self._draining or self._opener is None:
            stream.reset(ErrorCodes.REFUSED_STREAM, Status(StatusCode.UNAVAILABLE, "the server is stopping"))
            return None
        if stream.timeout is not None:
            self.deadline(stream, stream.timeout)
        return self._opener(self, stream, headers)

    def connection_failed(self, reason: str) -> None:
        self.closed_reason = reason
        self.close()

    def ping_acknowledged(self) -> None:
        self._ping_sent = False

    @property
    def unwritten(self) -> int:
        """Bytes that the transport holds because the peer does not take them."""
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    # -- for users ----------------------------------------------------------------------------------------------------

    def deadline(self, stream: Stream, seconds: float) -> None:
        """End the call with DEADLINE_EXCEEDED after so many seconds.

        A server says so where it can: clients read a bare RST_STREAM that beats their own timer as CANCELLED.
        """

        def expire() -> None:
            self._timers.pop(stream.stream_id, None)
            status = Status(StatusCode.DEADLINE_EXCEEDED, "context deadline exceeded")
            if self.connection.client or stream.backlog:
                stream.reset(ErrorCodes.CANCEL, status)
            else:
                stream.finish(status)

        self._timers[stream.stream_id] = self._loop.call_later(seconds, expire)

    def stream_done(self, stream: Stream) -> None:
        """Forget the deadline of a call that has ended."""
        handle = self._timers.pop(stream.stream_id, None)
        if handle is not None:
            handle.cancel()

    def probe(self, interval: float, timeout: float) -> None:
        """Ping after ``interval`` seconds of silence, close after another ``timeout``; the peer has agreed, and may too."""
        self._keepalive_time, self._keepalive_timeout = interval, timeout
        self.connection.pings.allowed = True
        if self._keepalive is not None:
            self._keepalive.cancel()
        self._keepalive = self._loop.call_later(interval, self._check_alive)

    def drain(self, debug: str = "graceful_stop") -> None:
        """GOAWAY: no new calls; those open go on."""
        self._draining = True
        self.connection.go_away(ErrorCodes.NO_ERROR, debug)

    def close(self) -> None:
        """Write what is collected, then close; a peer that does not take it is cut off after five seconds."""
        if self.transport is None or self.transport.is_closing():
            return
        self._flush()
        self.transport.close()
        self._closing = self._loop.call_later(_CLOSE_DEADLINE, self.abort)

    def abort(self) -> None:
        """Close now."""
        if self.transport is not None:
            self.transport.abort()

    def _flush(self) -> None:
        self._flush_scheduled = False
        chunks = self.connection.take_output()
        if not chunks or self.transport is None or self.transport.is_closing():
            return
        if len(chunks) == 1:
            self.transport.write(chunks[0])
        elif sum(map(len, chunks)) < _JOIN_BELOW:
            self.transport.write(b"".join(chunks))
        else:
            self.transport.writelines(_coalesced(chunks))

    def _check_alive(self) -> None:
        """Ping a silent peer; close when the answer does not come in time (gRPC keepalive, A8)."""
        silent = self._loop.time() - self._last_read
        if self._ping_sent and silent >= self._keepalive_timeout:
            self.closed_reason = "keepalive ping failed to receive ACK within timeout"
            self.abort()
            return
        if silent + 0.001 < self._keepalive_time:
            self._ping_sent = False
            wait = self._keepalive_time - silent
        elif self._client and not self.connection.streams and not self._options.ping_without_stream:
            wait = self._keepalive_time
        else:
            self._ping_sent = True
            self.connection.ping()
            wait = self._keepalive_timeout
            self._last_read = self._loop.time()  # the timeout runs from here
        self._keepalive = self._loop.call_later(wait, self._check_alive)


def _coalesced(chunks: list[bytes]) -> list[bytes]:
    """Small neighbours joined, so that TLS makes no record of a few bytes; large ones stay uncopied."""
    result: list[bytes] = []
    small: list[bytes] = []
    for chunk in chunks:
        if len(chunk) < 16 * KIB:
            small.append(chunk)
            continue
        if small:
            result.append(b"".join(small))
            small = []
        result.append(chunk)
    if small:
        result.append(b"".join(small))
    return result
