"""One gRPC call on a connection: messages in and out, and how it ends. No I/O.

Receiving: HTTP/2 DATA payloads are cut into length-prefixed messages and handed to the handler as they complete. The peer's
window grows only when the handler acknowledges, so whoever holds a message back holds the peer back.
Sending: a message becomes one DATA frame where the windows allow it, else it waits in ``backlog`` and leaves as they open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from h2.errors import ErrorCodes

from bowsprit.net.grpc.limits import Options
from bowsprit.net.grpc.metadata import Metadata, trailers_of_status
from bowsprit.net.grpc.request import CONTENT_TYPE
from bowsprit.net.grpc.status import OK, Status, StatusCode

_PREFIX = 5
Part = bytes | bytearray | memoryview


class StreamHandler(Protocol):
    """What an application does with a stream. ``ended`` comes exactly once, last."""

    def headers_received(self, stream: Stream, headers: Metadata) -> None:
        """Client only: the response headers."""

    def message_received(self, stream: Stream, message: bytes) -> None:
        """A whole message; acknowledge ``len(message) + 5`` when it has gone where it had to go."""

    def half_closed(self, stream: Stream) -> None:
        """Server only: the client sends no more messages."""

    def writable(self, stream: Stream) -> None:
        """``backlog`` has fallen below 256 KiB, or is empty."""

    def ended(self, stream: Stream, status: Status, trailers: Metadata) -> None:
        """The call is over, on both sides."""


class StreamOwner(Protocol):
    """What a stream needs of its connection."""

    options: Options
    peer_max_frame: int

    def send_headers(self, stream: Stream, headers: Metadata, *, end_stream: bool = False) -> None:
        """HEADERS: a request, a response or trailers."""

    def send_data_now(self, stream: Stream, prefix: bytes, parts: Sequence[Part], size: int) -> bool:
        """Send a message as one DATA frame if that is possible at once."""

    def emit_data(self, stream: Stream, chunk: memoryview) -> None:
        """One DATA frame; the caller has checked the windows."""

    def enqueue(self, stream: Stream) -> None:
        """The stream has a backlog."""

    def end_stream(self, stream: Stream, trailers: list[tuple[str, str]]) -> None:
        """Our side of the stream is over."""

    def reset_stream(self, stream: Stream, code: ErrorCodes) -> None:
        """RST_STREAM."""

    def refuse(self, stream: Stream, status: Status) -> None:
        """End the call because of what the peer sent on it."""

    def send_window_update(self, stream_id: int, increment: int) -> None:
        """Let the peer send more."""

    def forget(self, stream: Stream) -> None:
        """The stream is closed."""


class Stream:
    """A call. Made by its connection."""

    __slots__ = (
        "_compressed", "_connection", "_early", "_ending", "_have", "_need", "_out", "_out_bytes", "_parts",
        "_prefix", "_unacknowledged", "closed", "content_type", "handler", "headers", "headers_sent", "http_status",
        "local_ended", "receive_window", "remote_ended", "send_window", "stream_id", "timeout",
    )  # fmt: skip

    def __init__(self, connection: StreamOwner, stream_id: int, handler: StreamHandler, send_window: int) -> None:
        self._connection = connection
        self.stream_id = stream_id
        self.handler = handler
        self.headers: Metadata = ()
        self.content_type = CONTENT_TYPE  # server: of the answer
        self.timeout: float | None = None
        self.http_status = 0
        self.headers_sent = False
        self.local_ended = False
        self.remote_ended = False
        self.closed = False
        self.send_window = send_window
        self.receive_window = connection.options.stream_window
        self._unacknowledged = 0
        self._early = 0  # acknowledged before the message was whole, because it is larger than the window
        self._out: deque[memoryview] = deque()
        self._out_bytes = 0
        self._ending: list[tuple[str, str]] | None = None  # trailers (or [] for a client's end) behind the backlog
        self._prefix = b""
        self._compressed = 0
        self._need = -1
        self._have = 0
        self._parts: list[bytes] = []

    # -- sending ------------------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Bytes that wait for the peer's window or for the transport."""
        return self._out_bytes

    def send_headers(self, metadata: Metadata = ()) -> None:
        """Server: the response headers; sent at once, and once."""
        if self.closed or self.headers_sent:
            return
        self.headers_sent = True
        self._connection.send_headers(self, [(":status", "200"), ("content-type", self.content_type), *metadata])

    def send(self, parts: Sequence[Part]) -> None:
        """One message, given in parts; they are copied before the call returns. Ignored once the stream is closed."""
        if self.closed or self.local_ended or self._ending is not None:
            return
        if not self.headers_sent:
            self.send_headers()
        size = sum(map(len, parts))
        prefix = b"\0" + size.to_bytes(4, "big")
        if not self._out and self._connection.send_data_now(self, prefix, parts, size + _PREFIX):
            return
        message = b"".join((prefix, *parts))
        self._out.append(memoryview(message))
        self._out_bytes += len(message)
        self._connection.enqueue(self)

    def end(self) -> None:
        """Client: no more messages (half-close), after the backlog."""
        if not self.closed and not self.local_ended and self._ending is None:
            self._ending = []
            self._finish_if_drained()

    def finish(self, status: Status = OK, metadata: Metadata = ()) -> None:
        """Server: end the call with a status, after the backlog."""
        if self.closed or self.local_ended or self._ending is not None:
            return
        self._ending = trailers_of_status(status, metadata)
        self._finish_if_drained()

    def reset(self, code: ErrorCodes = ErrorCodes.CANCEL, status: Status | None = None) -> None:
        """Abort: RST_STREAM now, whatever waits is dropped; the handler sees ``status`` (default CANCELLED)."""
        if not self.closed:
            self._connection.reset_stream(self, code)
            self.close(status or Status(StatusCode.CANCELLED, "context canceled"))

    def _finish_if_drained(self) -> None:
        if self._ending is None or self._out:
            return
        trailers, self._ending = self._ending, None
        self.local_ended = True
        self._connection.end_stream(self, trailers)

    def pump(self, allowed: int) -> int:
        """Send up to ``allowed`` waiting bytes (the connection's window); returns how many left."""
        sent = 0
        limit = self._connection.peer_max_frame
        while self._out and sent < allowed and self.send_window > 0:
            chunk = self._out[0]
            take = min(len(chunk), limit, allowed - sent, self.send_window)
            self._connection.emit_data(self, chunk[:take])
            if take == len(chunk):
                self._out.popleft()
            else:
                self._out[0] = chunk[take:]
            sent += take
            self._out_bytes -= take
        if not self._out:
            self._finish_if_drained()
        return sent

    @property
    def waiting(self) -> bool:
        """Whether something waits and this stream's window would let it out."""
        return bool(self._out) and self.send_window > 0

    # -- receiving ----------------------------------------------------------------------------------------------------

    def acknowledge(self, size: int) -> None:
        """Let the peer send ``size`` more bytes; told to it in steps of a quarter of the window."""
        if self._early:
            covered = min(self._early, size)
            self._early -= covered
            size -= covered
        self._grant(size)

    def _grant(self, size: int) -> None:
        self._unacknowledged += size
        if self._unacknowledged * 4 >= self._connection.options.stream_window and not self.remote_ended:
            increment, self._unacknowledged = self._unacknowledged, 0
            self.receive_window += increment
            self._connection.send_window_update(self.stream_id, increment)

    def feed(self, view: memoryview) -> None:
        """DATA payload in, whole messages to the handler. Calls ``fail`` for a message that breaks the rules."""
        position, end = 0, len(view)
        while not self.closed:
            if self._need < 0:
                wanted = _PREFIX - len(self._prefix)
                self._prefix += bytes(view[position : position + wanted])
                position += wanted
                if len(self._prefix) < _PREFIX:
                    return
                self._compressed, size = self._prefix[0], int.from_bytes(self._prefix[1:], "big")
                self._prefix = b""
                if size > self._connection.options.max_message:
                    limit = self._connection.options.max_message
                    text = f"grpc: received message larger than max ({size} vs. {limit})"
                    self._refuse(StatusCode.RESOURCE_EXHAUSTED, text)
                    return
                self._need, self._have = size, 0
            take = min(self._need - self._have, end - position)
            if take > 0:
                self._parts.append(bytes(view[position : position + take]))
                self._have += take
                position += take
            if self._have < self._need:
                if take > 0 and self._need * 2 > self._connection.options.stream_window:
                    self._early += take
                    self._grant(take)
                return
            if self._compressed == 1:
                self._refuse(StatusCode.INTERNAL, "grpc: compressed flag set with identity or empty encoding")
                return
            if self._compressed:
                self._refuse(StatusCode.INTERNAL, f"grpc: received unexpected payload format {self._compressed}")
                return
            message = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._need = -1
            self.handler.message_received(self, message)

    @property
    def mid_message(self) -> bool:
        """Whether the peer has begun a message that is not whole."""
        return self._need >= 0

    def _refuse(self, code: StatusCode, message: str) -> None:
        self._connection.refuse(self, Status(code, message))

    def close(self, status: Status, trailers: Metadata = ()) -> None:
        """The call is over: tell the handler, forget what waits. Called once by the connection, or by ``reset``."""
        if self.closed:
            return
        self.closed = self.local_ended = self.remote_ended = True
        self._out.clear()
        self._out_bytes = 0
        self._parts.clear()
        self._connection.forget(self)
        self.handler.ended(self, status, trailers)
