"""The head of an HTTP/1.x request, read and judged as Go's net/http server does, and the length of its body. No I/O."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import unquote

CHUNKED = -1
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z ]+")  # a space is complained of later, in other words
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_VERSION = re.compile(r"HTTP/([0-9])\.([0-9])")
_HOST_HEADER = re.compile(r"[!$%&'()*+,\-.:;=\[\]_~0-9A-Za-z]*")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*):")
_USER_INFO = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")
_HOST = re.compile(r"(?:[!\"$&'()*+,\-.0-9:;<=>A-Z\[\]_a-z~\x80-\xff]|%[89A-Fa-f][0-9A-Fa-f])*")
_ZONE = re.compile(r"(?:[!\"$&'()*+,\-.0-9:;<=>A-Z\[\]_a-z~\x80-\xff]|%[0-9A-Fa-f]{2})*")
_PORT = re.compile(r"(?::[0-9]*)?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_USUAL = re.compile(  # what API servers send, for which nothing need be judged
    r"CONNECT ([A-Za-z0-9.\-]+:[0-9]{1,5}) HTTP/1\.1\r\nHost: [A-Za-z0-9.\-:]+\r\n(?:User-Agent: [!-~ ]*\r\n)?\r\n"
)
_FORBIDDEN_TRAILERS = frozenset({"transfer-encoding", "trailer", "content-length"})


class BadRequestError(Exception):
    """``line`` is the status, ``body`` what is said beside it."""

    def __init__(self, line: str = "400 Bad Request", body: str = "") -> None:
        super().__init__(line)
        self.line = line
        self.body = body or line


@dataclass(frozen=True, slots=True)
class Request:
    """``address`` is Go's Request.Host. ``length`` of the body: bytes, or CHUNKED. ``minor`` of the version: 0 or 1."""

    method: str
    target: str
    minor: int
    address: str
    length: int
    expect: str  # the Expect header
    wants_close: bool
    wants_keep_alive: bool  # HTTP/1.0 only


def read_head(head: bytes) -> Request:
    """Judge a header block, its empty line included. Raises BadRequestError."""
    text = head.decode("latin-1")
    usual = _USUAL.fullmatch(text)
    if usual is not None:
        return Request("CONNECT", usual[1], 1, usual[1], 0, "", wants_close=False, wants_keep_alive=False)
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    method, target, version = _request_line(lines[0])
    address = _address(method, target)
    headers = _headers(lines[1:])
    hosts = headers.get("host", [])
    if len(hosts) > 1:
        raise BadRequestError
    length = _length(headers, version)
    upgrade = method == "PRI" and target == "*" and version == (2, 0)  # HTTP/2 without TLS, which is not spoken here
    if version[0] != 1 and not upgrade:
        raise BadRequestError("505 HTTP Version Not Supported: unsupported protocol version")
    upgrade = upgrade and not headers
    if version >= (1, 1) and not hosts and method != "CONNECT" and not upgrade:
        raise BadRequestError("400 Bad Request: missing required Host header")
    if hosts and not _HOST_HEADER.fullmatch(hosts[0]):
        raise BadRequestError("400 Bad Request: malformed Host header")
    if any(" " in name for name in headers):
        raise BadRequestError("400 Bad Request: invalid header name")
    connection = headers.get("connection", [])
    return Request(
        method=method,
        target=target,
        minor=0 if version == (1, 0) else 1,
        address=address or "".join(hosts),
        length=length,
        expect=headers.get("expect", [""])[0],
        wants_close=upgrade or _has_token(connection, "close"),
        wants_keep_alive=version == (1, 0) and _has_token(connection[:1], "keep-alive"),
    )


def check_partial(lines: list[bytes], *, first: bool) -> None:
    """What can be said of complete lines before the head is: Go reads line by line. Raises BadRequestError."""
    if first and lines:
        method, target, _ = _request_line(lines[0].decode("latin-1").removesuffix("\r"))
        _address(method, target)
        lines = lines[1:]
        if lines and lines[0][:1] in (b" ", b"\t"):
            raise BadRequestError
    for line in lines:
        if b":" not in line and line[:1] not in (b" ", b"\t"):
            raise BadRequestError


def _request_line(line: str) -> tuple[str, str, tuple[int, int]]:
    method, space, rest = line.partition(" ")
    target, second, version = rest.partition(" ")
    matched = _VERSION.fullmatch(version)
    if not space or not second or not _TOKEN.fullmatch(method) or matched is None:
        raise BadRequestError
    return method, target, (int(matched[1]), int(matched[2]))


def _headers(lines: list[str]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    fields: list[str] = []
    for line in lines:
        if not line:
            break
        if line[0] not in " \t":
            if ":" not in line:
                raise BadRequestError
            fields.append(line.rstrip(" \t"))
        elif fields:
            fields[-1] += " " + line.strip(" \t")  # obsolete line folding
        else:
            raise BadRequestError
    for field in fields:
        name, _, value = field.partition(":")
        if not _HEADER_NAME.fullmatch(name) or _BAD_VALUE.search(value):
            raise BadRequestError
        result.setdefault(name.lower(), []).append(value.lstrip(" \t"))
    return result


def _length(headers: dict[str, list[str]], version: tuple[int, int]) -> int:
    """The body's length (readTransfer)."""
    encodings = headers.get("transfer-encoding", []) if version >= (1, 1) else []
    if encodings and (len(encodings) > 1 or encodings[0].lower() != "chunked"):
        raise BadRequestError("501 Not Implemented", "Unsupported transfer encoding")
    lengths = {value.strip() for value in headers.get("content-length", [])}
    if len(lengths) > 1 or any(not re.fullmatch(r"[0-9]+", each) or int(each) >= 2**63 for each in lengths):
        raise BadRequestError
    if not encodings:
        return int(next(iter(lengths), "0"))
    trailers = {name.strip().lower() for value in headers.get("trailer", []) for name in value.split(",")}
    if trailers & _FORBIDDEN_TRAILERS:
        raise BadRequestError
    return CHUNKED


def _has_token(values: list[str], token: str) -> bool:
    return any(each.strip(" \t").lower() == token for value in values for each in value.split(","))


def _address(method: str, target: str) -> str:
    """The authority of a request target, "" if it names none (url.ParseRequestURI). Raises BadRequestError."""
    uri = f"http://{target}" if method == "CONNECT" and not target.startswith("/") else target
    if _CONTROL.search(uri) or not uri or uri[0] == ":":
        raise BadRequestError
    if uri == "*":
        return ""
    matched = _SCHEME.match(uri)
    scheme, rest = (matched[1].lower(), uri[matched.end() :]) if matched else ("", uri)
    path = rest.partition("?")[0]
    if not path.startswith("/"):
        if not scheme:
            raise BadRequestError
        return ""
    host = ""
    if scheme and path.startswith("//"):
        authority, slash, path = path[2:].partition("/")
        path = slash + path
        user, at, host = authority.rpartition("@")
        host = _host(scheme, host)
        if at and (not _USER_INFO.fullmatch(user) or _BAD_ESCAPE.search(user)):
            raise BadRequestError
    if _BAD_ESCAPE.search(path):
        raise BadRequestError
    return host


def _host(scheme: str, host: str) -> str:
    """url.parseHost."""
    opening, closing = host.rfind("["), host.rfind("]")
    if opening == 0 < closing:
        name, port = host[1:closing], host[closing + 1 :]
        if not _PORT.fullmatch(port):
            raise BadRequestError
        address, percent, zone = name.partition("%25")
        name = _unescaped(address, _HOST) + (_unescaped(percent + zone, _ZONE) if percent else "")
        try:
            ipaddress.IPv6Address(name)
        except ValueError:
            raise BadRequestError from None
        return f"[{name}]{port}"
    if opening >= 0:
        raise BadRequestError
    colon = host.find(":") if scheme in ("http", "https") else host.rfind(":")
    if colon >= 0 and not _PORT.fullmatch(host[colon:]):
        raise BadRequestError
    return _unescaped(host, _HOST)


def _unescaped(text: str, allowed: re.Pattern[str]) -> str:
    if not allowed.fullmatch(text):
        raise BadRequestError
    return unquote(text)


class Body:
    """A body that nobody wants. It is read past, as far as net/http goes to keep a connection."""

    LIMIT = 256 * 1024
    _LINE_LIMIT = 4096

    def __init__(self, length: int) -> None:
        self._left = max(0, length)  # of the body, or of this chunk and its line end
        self._chunked = length == CHUNKED
        self._trailing = False
        self._read = 0

    def skip(self, buffer: bytearray) -> bool:
        """Take what belongs to the body; True at its end. Raises BadRequestError when it is malformed or too long."""
        while True:
            taken = min(self._left, len(buffer))
            del buffer[:taken]
            self._left -= taken
            self._read += taken
            if self._read > self.LIMIT:
                raise BadRequestError
            if self._left:
                return False
            if not self._chunked:
                return True
            if self._trailing:
                return self._skip_trailer(buffer)
            if not self._next_chunk(buffer):
                return False

    def _next_chunk(self, buffer: bytearray) -> bool:
        end = buffer.find(b"\r\n")
        if end < 0:
            if len(buffer) > self._LINE_LIMIT:
                raise BadRequestError
            return False
        matched = re.fullmatch(rb"([0-9A-Fa-f]{1,15})[ \t]*(;.*)?", bytes(buffer[:end]))
        if matched is None:
            raise BadRequestError
        del buffer[: end + 2]
        size = int(matched[1], 16)
        self._trailing = size == 0
        self._left = size + 2 if size else 0
        return True

    def _skip_trailer(self, buffer: bytearray) -> bool:
        if buffer.startswith(b"\r\n"):
            del buffer[:2]
            return True
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > self._LINE_LIMIT:
                raise BadRequestError
            return False
        if any(b":" not in line for line in bytes(buffer[:end]).split(b"\r\n")):
            raise BadRequestError
        del buffer[: end + 4]
        return True
