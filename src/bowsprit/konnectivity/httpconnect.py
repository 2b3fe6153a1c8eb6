"""HTTP CONNECT as Go's net/http server reads it, and the replies of pkg/server/tunnel.go. No I/O.

A connection starts as HTTP/1.x: anything but CONNECT is answered and, as HTTP wants it, the next request is read. With
CONNECT the parser is done: what follows the header block is the client's first data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from bowsprit.konnectivity.httprequest import BadRequestError, Body, Request, check_partial, read_head
from bowsprit.konnectivity.links import DialFailure

MAX_HEAD = (1 << 20) + 4096  # net/http DefaultMaxHeaderBytes and its slop
HEADER_TIMEOUT = 60.0
ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
_ERROR_HEADERS = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_REASONS = {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout"}
_NOT_CONNECT = b"this proxy only supports CONNECT passthrough\n"


@dataclass(frozen=True, slots=True)
class Connect:
    """The client wants to reach ``address``; ``rest`` is what it has sent behind the header block."""

    address: str
    rest: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes for the client; ``close`` ends the connection after them."""

    data: bytes
    close: bool


class HttpConnectParser:
    """Feed it bytes, act on what it answers. ``date`` gives the Date header (an IMF-fixdate)."""

    def __init__(self, date: Callable[[], str]) -> None:
        self._date = date
        self._buffer = bytearray()
        self._scanned = 0  # no header block ends before
        self._checked = 0  # the lines before are well-formed
        self._previous = ""  # the method of the request before
        self._waiting: tuple[Request, Body] | None = None  # answered behind its body

    def feed(self, data: bytes | memoryview) -> list[Connect | Reply]:
        """What to do, in order. After Connect or a closing Reply the parser takes no more."""
        self._buffer += data
        result: list[Connect | Reply] = []
        action = self._next()
        while action is not None:
            result.append(action)
            if isinstance(action, Connect) or action.close:
                break
            action = self._next()
        return result

    def end(self) -> list[Reply]:
        """What to answer to a client that sends no more: something only within a request."""
        if self._waiting is not None:
            return [self._refusal(self._waiting[0], broken=True)]
        return [_error(BadRequestError())] if len(self._buffer) >= self._least else []

    @property
    def _least(self) -> int:
        """Go looks at a further request on a connection once there are four bytes of it."""
        return 4 if self._previous else 1

    def _next(self) -> Connect | Reply | None:
        if self._waiting is not None:
            request, body = self._waiting
            try:
                if not body.skip(self._buffer):
                    return None
            except BadRequestError:
                return self._refusal(request, broken=True)
            self._waiting = None
            return self._refusal(request)
        if len(self._buffer) < self._least:
            return None
        if self._previous == "POST":  # RFC 9112 section 2.2: old clients end a POST with an empty line
            self._buffer[:4] = self._buffer[:4].lstrip(b"\r\n")
            self._previous = "-"
        try:
            return self._request()
        except BadRequestError as exc:
            return _error(exc)

    def _request(self) -> Connect | Reply | None:
        matched = _END_OF_HEAD.search(self._buffer, max(0, self._scanned - 3))
        self._scanned = len(self._buffer)
        if len(self._buffer) > MAX_HEAD and (matched is None or matched.end() > MAX_HEAD):
            raise BadRequestError("431 Request Header Fields Too Large")
        if matched is None:
            self._check_lines()
            return None
        head = bytes(self._buffer[: matched.end()])
        del self._buffer[: matched.end()]
        self._scanned = self._checked = 0
        request = read_head(head)
        self._previous = request.method
        if request.expect and not _expects_continue(request):
            return self._expectation_failed(request)
        if request.method == "CONNECT":
            rest, self._buffer = bytes(self._buffer), bytearray()
            return Connect(request.address, rest)
        if not request.length or self._ends(request):
            return self._refusal(request)
        if request.length > Body.LIMIT - 1 or _expects_continue(request):
            return self._refusal(request, broken=True)
        self._waiting = (request, Body(request.length))
        return self._next()

    def _check_lines(self) -> None:
        end = self._buffer.rfind(b"\n") + 1
        if end > self._checked:
            lines = bytes(self._buffer[self._checked : end]).split(b"\n")[:-1]
            check_partial(lines, first=self._checked == 0)
            self._checked = end

    def _ends(self, request: Request) -> bool:
        """Whether the connection ends with this request's answer."""
        if request.wants_keep_alive:
            return False
        return request.wants_close or request.minor == 0

    def _refusal(self, request: Request, *, broken: bool = False) -> Reply:
        """To anything but CONNECT. ``broken``: there is no way past the body."""
        close = broken or self._ends(request)
        connection = ""
        if close and request.minor:
            connection = "Connection: close\r\n"
        elif not close and request.minor == 0:
            connection = "Connection: keep-alive\r\n"
        if request.method == "OPTIONS" and request.target == "*":
            text = f"HTTP/1.{request.minor} 200 OK\r\nContent-Length: 0\r\nDate: {self._date()}\r\n{connection}\r\n"
            return Reply(text.encode("latin-1"), close)
        text = (
            f"HTTP/1.{request.minor} 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"X-Content-Type-Options: nosniff\r\nDate: {self._date()}\r\nContent-Length: {len(_NOT_CONNECT)}\r\n"
            f"{connection}\r\n"
        )
        body = b"" if request.method == "HEAD" else _NOT_CONNECT
        return Reply(text.encode("latin-1") + body, close)

    def _expectation_failed(self, request: Request) -> Reply:
        length = "" if request.method == "HEAD" else "Content-Length: 0\r\n"
        text = f"HTTP/1.{request.minor} 417 Expectation Failed\r\nConnection: close\r\nDate: {self._date()}\r\n{length}\r\n"
        return Reply(text.encode("latin-1"), True)


def _expects_continue(request: Request) -> bool:
    return any(each.strip().lower() == "100-continue" for each in request.expect.split(","))


def _error(exc: BadRequestError) -> Reply:
    return Reply(f"HTTP/1.1 {exc.line}{_ERROR_HEADERS}{exc.body}".encode("latin-1"), True)


def status_of(error: str) -> int:
    """The HTTP status of an agent's dial error (mapDialErrorToHTTPStatus)."""
    lower = error.lower()
    if "timeout" in lower or "deadline exceeded" in lower:
        return 504
    return 503 if "too many open files" in lower else 502


def refusal(failure: DialFailure, error: str) -> bytes:
    """The reply to a CONNECT whose dial failed, byte for byte upstream's."""
    if failure is DialFailure.NO_AGENT:
        return (
            "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/plain\r\n\r\n"
            f"currently no tunnels available: {error}"
        ).encode()
    plain = "Content-Type: text/plain; charset=utf-8\r\n\r\n"
    if failure is DialFailure.BACKEND_DIAL_TIMEOUT:
        return f"HTTP/1.1 504 {_REASONS[504]}\r\n{plain}Backend dial timeout: {error}\r\n".encode()
    if failure is DialFailure.BACKEND_CLOSE:  # the text scripts know; which agent it was is in the log and in `status`
        return f"HTTP/1.1 502 {_REASONS[502]}\r\n{plain}Backend context error: context canceled\r\n".encode()
    status = status_of(error)
    return f"HTTP/1.1 {status} {_REASONS[status]}\r\nConnection: close\r\n{plain}{error}".encode()
