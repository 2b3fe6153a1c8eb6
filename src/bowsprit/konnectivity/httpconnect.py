"""HTTP CONNECT as Go's net/http server reads it, and the replies of pkg/server/tunnel.go. No I/O.

A connection starts as HTTP/1.x: anything but CONNECT is answered and, as HTTP wants it, the next request is read. With
CONNECT the parser is done: what follows the header block is the client's first data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from bowsprit.konnectivity.links import DialFailure

MAX_HEAD = (1 << 20) + 4096  # net/http DefaultMaxHeaderBytes and its slop
HEADER_TIMEOUT = 60.0
ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"
_MAX_BODY = 256 * 1024  # what net/http reads of a body that the handler left, to keep the connection
_ERROR_HEADERS = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VERSION = re.compile(r"HTTP/([0-9])\.([0-9])")
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


class _BadRequestError(Exception):
    def __init__(self, line: str = "400 Bad Request") -> None:
        self.line = line


class HttpConnectParser:
    """Feed it bytes, act on what it answers. ``date`` gives the Date header (an IMF-fixdate)."""

    def __init__(self, date: Callable[[], str]) -> None:
        self._date = date
        self._buffer = bytearray()
        self._scanned = 0
        self._skip = 0  # body bytes of a request that was refused

    def feed(self, data: bytes | memoryview) -> list[Connect | Reply]:
        """What to do, in order. After Connect or a closing Reply the parser takes no more."""
        self._buffer += data
        result: list[Connect | Reply] = []
        while True:
            if self._skip:
                skipped = min(self._skip, len(self._buffer))
                del self._buffer[:skipped]
                self._skip -= skipped
            end = self._end_of_head() if self._buffer and not self._skip else -1
            if end < 0:
                if len(self._buffer) > MAX_HEAD:
                    result.append(_error("431 Request Header Fields Too Large"))
                return result
            head = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._scanned = 0
            try:
                action = self._request(head)
            except _BadRequestError as exc:
                action = _error(exc.line)
            result.append(action)
            if isinstance(action, Connect) or action.close:
                return result

    def end(self) -> list[Reply]:
        """What to answer to a client that sends no more: nothing between requests, 400 within a header block."""
        return [_error("400 Bad Request")] if self._buffer else []

    def _end_of_head(self) -> int:
        """The length of the header block; a malformed request line ends it early, as Go reads line by line."""
        first = self._buffer.find(b"\n")
        if first >= 0 and self._scanned == 0:
            line = bytes(self._buffer[:first]).removesuffix(b"\r").decode("latin-1")
            if len(line.split(" ", 2)) < 3:
                return first + 1
        start = max(0, self._scanned - 3)
        match = re.compile(rb"\n\r?\n").search(self._buffer, start)
        self._scanned = len(self._buffer)
        if match is None:
            return -1
        return match.end() if match.end() <= MAX_HEAD else -1

    def _request(self, head: bytes) -> Connect | Reply:
        lines = head.decode("latin-1").split("\n")
        method, target, minor = _request_line(lines[0].removesuffix("\r"))
        headers = _headers(lines[1:])
        hosts = headers.get("host", [])
        if len(hosts) > 1:
            raise _BadRequestError
        address = _target(method, target)
        if not hosts and minor >= 1 and method != "CONNECT":
            raise _BadRequestError("400 Bad Request: missing required Host header")
        if hosts and not re.fullmatch(r"[!$%&'()*+,\-.:;=@A-Z\[\]_a-z~0-9\\/#?]*", hosts[0]):
            raise _BadRequestError("400 Bad Request: malformed Host header")
        chunked = self._body(headers, method)
        if method == "CONNECT":
            rest, self._buffer = bytes(self._buffer), bytearray()
            return Connect(address or "".join(hosts), rest)
        return self._refuse(method, target, minor, headers, chunked)

    def _body(self, headers: dict[str, list[str]], method: str) -> bool:
        """How much body follows; True if it is chunked, which ends the connection here."""
        encodings = headers.get("transfer-encoding", [])
        if encodings:
            if len(encodings) > 1 or encodings[0].lower() != "chunked":
                raise _BadRequestError("501 Not Implemented")
            return True
        lengths = set(headers.get("content-length", []))
        if lengths:
            if len(lengths) > 1 or not re.fullmatch(r"[0-9]{1,18}", next(iter(lengths))):
                raise _BadRequestError
            if method != "CONNECT":
                self._skip = int(next(iter(lengths)))
        return False

    def _refuse(self, method: str, target: str, minor: int, headers: dict[str, list[str]], chunked: bool) -> Reply:
        tokens = {token.strip().lower() for value in headers.get("connection", []) for token in value.split(",")}
        close = "close" in tokens or (minor == 0 and "keep-alive" not in tokens)
        unread = chunked or self._skip > _MAX_BODY
        extra = "Connection: close\r\n" if (close and minor >= 1) or unread else ""
        extra = "Connection: keep-alive\r\n" if minor == 0 and not close and not unread else extra
        if method == "OPTIONS" and target == "*":
            text = f"HTTP/1.{minor} 200 OK\r\nContent-Length: 0\r\nDate: {self._date()}\r\n{extra}\r\n"
            return Reply(text.encode("latin-1"), close or unread)
        text = (
            f"HTTP/1.{minor} 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"X-Content-Type-Options: nosniff\r\nDate: {self._date()}\r\nContent-Length: {len(_NOT_CONNECT)}\r\n{extra}\r\n"
        )
        body = b"" if method == "HEAD" else _NOT_CONNECT
        return Reply(text.encode("latin-1") + body, close or unread)


def _request_line(line: str) -> tuple[str, str, int]:
    method, space, rest = line.partition(" ")
    target, second, version = rest.partition(" ")
    matched = _VERSION.fullmatch(version)
    if not space or not second or not _TOKEN.fullmatch(method) or matched is None:
        raise _BadRequestError
    if matched[1] != "1":
        raise _BadRequestError("505 HTTP Version Not Supported: unsupported protocol version")
    return method, target, 1 if int(matched[2]) >= 1 else 0


def _headers(lines: list[str]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    last: list[str] | None = None
    for raw in lines:
        line = raw.removesuffix("\r")
        if not line:
            continue
        if line[0] in " \t":  # obsolete line folding
            if last is None:
                raise _BadRequestError
            last[-1] += " " + line.strip(" \t")
            continue
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.rstrip(" \t"):
            raise _BadRequestError
        if not _TOKEN.fullmatch(name):
            raise _BadRequestError("400 Bad Request: invalid header name")
        value = value.strip(" \t")
        if any((ord(char) < 0x20 and char != "\t") or ord(char) == 0x7F for char in value):
            raise _BadRequestError("400 Bad Request: invalid header value")
        last = result.setdefault(name.lower(), [])
        last.append(value)
    return result


def _target(method: str, target: str) -> str:
    """The authority to connect to, or "" for requests that name none (url.ParseRequestURI). Raises for bad URIs."""
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in target) or not target:
        raise _BadRequestError
    if method == "CONNECT" and not target.startswith("/"):
        authority = re.split(r"[/?#]", target, maxsplit=1)[0]
    elif target == "*" or target.startswith("/"):
        return ""
    else:
        matched = re.match(r"[A-Za-z][A-Za-z0-9+.\-]*:(//([^/?#]*))?", target)
        if matched is None:
            raise _BadRequestError
        authority = matched[2] or ""
    host = authority.rpartition("@")[2]
    literal = re.fullmatch(r"(\[[^\]\[]*\]|[^:\[\]]*)(:[0-9]*)?", host)
    if literal is None or " " in host or re.search(r"%(?![0-9A-Fa-f]{2})|[<>\"{}|\\^`]", host):
        raise _BadRequestError
    return unquote(host)


def _error(line: str) -> Reply:
    body = "Unsupported transfer encoding" if line.startswith("501") else line
    return Reply(f"HTTP/1.1 {line}{_ERROR_HEADERS}{body}".encode("latin-1"), True)


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
