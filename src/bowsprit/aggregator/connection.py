"""Connections to one backend: HTTP/1.1 over TLS, kept for reuse; answers go to whoever asked as they arrive.

Nothing is queued between the backend's socket and the client's: an `Exchange` is called from the connection's own
`data_received`, so an event of a watch passes in the same turn of the event loop in which it comes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from bowsprit.aggregator.framing import LARGEST_HEAD, Chunks, Head, MalformedAnswerError, parse_head
from bowsprit.net.valve import Valve

IDLE_SECONDS = 90.0  # Go's IdleConnTimeout
MAX_IDLE = (
    256  # a Go client carries all requests on one HTTP/2 connection; ours need as many as there are clients at a time
)


class BackendError(Exception):
    """The backend gave no answer; the text is what Go's client says. `unanswered`: not a byte came back."""

    def __init__(self, text: str, *, unanswered: bool = False) -> None:
        super().__init__(text)
        self.unanswered = unanswered


class Exchange(Protocol):
    """Whoever gets an answer. All calls come from the event loop; none may block."""

    def on_head(self, head: Head, *, more: bool) -> None:
        """The head has come; `more`: data or the end follow in the same turn."""
        ...

    def on_data(self, wire: bytes, payload: list[bytes]) -> None:
        """More of the body: as it was on the wire, and its content (filled only where `wants_payload`)."""
        ...

    def on_end(self, error: BackendError | None) -> None:
        """The answer is complete, or will never be."""
        ...

    @property
    def wants_payload(self) -> bool:
        """Whether the content of a chunked body is needed."""
        ...


class Connection(asyncio.Protocol):
    """One connection; carries one exchange at a time.

    Args:
        released: called when the exchange is over and another one may begin.
        lost: called when the connection is gone.
    """

    def __init__(self, released: Callable[[Connection], None], lost: Callable[[Connection], None]) -> None:
        self._released = released
        self._lost = lost
        self.transport: asyncio.Transport | None = None
        self.used = False  # an exchange has been carried before
        self.idle_since = 0.0
        self.throttle: Callable[[bool], None] | None = (
            None  # told when the backend cannot take more, and when it can again
        )
        self._exchange: Exchange | None = None
        self._bodiless = False
        self._head: Head | None = None
        self._buffer = b""
        self._left: int | None = 0
        self._chunks: Chunks | None = None
        self._valve: Valve | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    # -- asking --------------------------------------------------------------------------------------------------------

    def begin(self, exchange: Exchange, request: bytes, *, bodiless: bool) -> None:
        """Send a request's head, with as much of its body as there is; `bodiless`: it is a HEAD."""
        transport = self.transport
        if transport is None or transport.is_closing():
            exchange.on_end(BackendError("http: server closed idle connection", unanswered=True))
            return
        self._exchange = exchange
        self._bodiless = bodiless
        self._head = None
        self._buffer = b""
        self._chunks = None
        transport.write(request)

    async def write(self, data: bytes) -> None:
        """Send more of the body, when there is room for it. Raises BackendError."""
        await self._writable.wait()
        if self.transport is None or self.transport.is_closing():
            raise BackendError("write: broken pipe")
        self.transport.write(data)

    def hold(self) -> None:
        """Take no more of the answer for now."""
        if self._valve is not None:
            self._valve.close()

    @property
    def held(self) -> bool:
        """Whether nothing more is taken for now."""
        return self._valve is not None and self._valve.closed

    def proceed(self) -> None:
        """Take more of it again."""
        if self._valve is not None:
            self._valve.open()

    def abort(self) -> None:
        """Give up: the connection is closed, the exchange hears no more."""
        self._exchange = None
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """As `abort`, once what was written has been sent."""
        self._exchange = None
        if self.transport is not None:
            self.transport.close()

    # -- asyncio.Protocol ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's TLS transport does not inherit from it
        self._valve = Valve(self.transport)

    def pause_writing(self) -> None:
        self._writable.clear()
        if self.throttle is not None:
            self.throttle(True)

    def resume_writing(self) -> None:
        self._writable.set()
        if self.throttle is not None:
            self.throttle(False)

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            if self.transport is not None:
                self.transport.abort()  # nobody asked
            return
        try:
            head, rest = (self._head, data) if self._head is not None else self._take_head(exchange, data)
            if head is not None and self._exchange is exchange:
                self._take_body(exchange, head, rest)
        except MalformedAnswerError as failure:
            self._finish(BackendError(f"net/http: HTTP/1.x transport connection broken: {failure}"), reusable=False)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._writable.set()
        self._lost(self)
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        head = self._head
        if head is not None and head.length is None and not head.chunked and exc is None:
            exchange.on_end(None)
            return
        text = "EOF" if head is None and not self._buffer else "unexpected EOF"
        if isinstance(exc, ConnectionResetError):
            text = "read: connection reset by peer"
        elif isinstance(exc, ssl.SSLError):
            text = tls_failure(exc)
        exchange.on_end(BackendError(text, unanswered=head is None and not self._buffer))

    # -- answers -------------------------------------------------------------------------------------------------------

    def _take_head(self, exchange: Exchange, data: bytes) -> tuple[Head | None, bytes]:
        """The head and what follows it, once it is complete."""
        buffer = self._buffer + data if self._buffer else data
        while True:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(buffer) > LARGEST_HEAD:
                    raise MalformedAnswerError(f"server response headers exceeded {LARGEST_HEAD} bytes; aborted")
                if not b"HTTP/1.".startswith(buffer[:7]):
                    raise MalformedAnswerError(f'malformed HTTP response "{buffer[:64].decode("latin-1")}"')
                self._buffer = buffer
                return None, b""
            head = parse_head(buffer[:end], bodiless=self._bodiless)
            buffer = buffer[end + 4 :]
            if head.status == 101 or head.status >= 200:
                break
        self._buffer = b""
        self._head = head
        self._left = head.length
        self._chunks = Chunks() if head.chunked else None
        exchange.on_head(head, more=bool(buffer) or head.length == 0)
        return head, buffer

    def _take_body(self, exchange: Exchange, head: Head, data: bytes) -> None:
        if head.status == 101:
            if data:
                exchange.on_data(data, [])
            return
        if self._chunks is not None:
            payload: list[bytes] = []
            taken = self._chunks.feed(data, payload if exchange.wants_payload else None)
            if taken:
                exchange.on_data(data if taken == len(data) else data[:taken], payload)
            if self._chunks.done:
                self._finish(None, reusable=head.keep_alive and taken == len(data))
            return
        left = self._left
        if left is None:
            if data:
                exchange.on_data(data, [data])
            return
        surplus = len(data) > left
        if surplus:
            data = data[:left]
        if data:
            exchange.on_data(data, [data])
            self._left = left = left - len(data)
        if not left:
            self._finish(None, reusable=head.keep_alive and not surplus)

    def _finish(self, error: BackendError | None, *, reusable: bool) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        self.used = True
        if reusable and error is None:
            self.proceed()  # the next exchange, and the end of the connection, want to be heard
            self._released(self)
        elif self.transport is not None:
            self.transport.abort() if error is not None else self.transport.close()
        exchange.on_end(error)


def tls_failure(exc: ssl.SSLError) -> str:
    """A failed handshake or a broken stream in Go's words."""
    reason = (exc.reason or "").upper()
    if reason == "WRONG_VERSION_NUMBER":  # what OpenSSL makes of letters; next to nobody else sends any here
        return "http: server gave HTTP response to HTTPS client"
    if reason in ("HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"):
        return "tls: first record does not look like a TLS handshake"
    if "ALERT" in reason:
        words = reason.partition("ALERT_")[2].replace("_", " ").lower() or reason.replace("_", " ").lower()
        alerts = {
            "certificate required": "certificate required",
            "unknown ca": "unknown certificate authority",
            "bad certificate": "bad certificate",
            "handshake failure": "handshake failure",
        }
        return f"remote error: tls: {alerts.get(words, words)}"
    return f"tls: {exc.reason or exc}"
