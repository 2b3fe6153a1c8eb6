"""Answers: what goes onto the wire, written with as few steps as possible.

aiohttp reads requests and keeps the connection; it writes what a handler returns by calling `prepare` and `write_eof`. An
Answer puts head and body together itself: one write for a small answer, slices of about 1 MiB with flow control for a big one.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import TYPE_CHECKING

from bowsprit.apiserver.negotiation import JSON

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

TEXT = "text/plain; charset=utf-8"
NOSNIFF = ("X-Content-Type-Options", "nosniff")
GZIP_THRESHOLD = 128 << 10  # upstream defaultGzipThresholdBytes
_GZIP_LEVEL = 1
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
_date: tuple[int, bytes] = (0, b"")


def date_header() -> bytes:
    """The Date header's line, made once a second."""
    global _date
    now = int(time())
    if _date[0] != now:
        _date = (now, f"Date: {formatdate(now, usegmt=True)}\r\n".encode())
    return _date[1]


def status_line(status: int) -> bytes:
    return _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n".encode()


def header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header lines; line breaks within a value become spaces."""
    return "".join(f"{name}: {value.translate(_NO_BREAKS)}\r\n" for name, value in headers).encode("utf-8", "replace")


_NO_BREAKS = {ord("\r"): " ", ord("\n"): " ", 0: " "}


class Answer:
    """A complete answer. `body` is bytes, or a sequence of slices with their total `length`.

    `common` are the header lines that the server adds to every answer of a request.
    """

    __slots__ = ("body", "common", "content_type", "gzip", "headers", "keep_alive", "length", "status")

    def __init__(
        self,
        status: int,
        body: bytes | Iterable[bytes] = b"",
        content_type: str = JSON,
        headers: Sequence[tuple[str, str]] = (),
        length: int | None = None,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers
        self.length = len(body) if isinstance(body, bytes) else length
        self.common = b""
        self.gzip = False
        self.keep_alive = True

    @property
    def body_length(self) -> int:
        return self.length or 0

    async def prepare(self, request: BaseRequest) -> None:
        """Part of what aiohttp expects; everything happens in `send`, which `write_eof` completes."""
        protocol = request.protocol
        self.keep_alive = request.keep_alive
        transport = protocol.transport
        if transport is None:
            raise ConnectionResetError("the client is gone")
        head_only = request.method == "HEAD"
        body = self.body
        head = [status_line(self.status), self.common]
        if self.content_type:
            head.append(b"Content-Type: %b\r\n" % self.content_type.encode())
        if self.headers:
            head.append(header_lines(self.headers))
        if not self.keep_alive:
            head.append(b"Connection: close\r\n")
        head.append(date_header())
        if self.gzip and self.status == 200 and self.body_length > GZIP_THRESHOLD and not head_only:
            head.append(b"Content-Encoding: gzip\r\n")
            if ("Vary", "Accept-Encoding") not in self.headers:
                head.append(b"Vary: Accept-Encoding\r\n")
            if isinstance(body, bytes):
                body = await asyncio.to_thread(_compress, body) if len(body) > (1 << 20) else _compress(body)
            else:
                head.append(b"Transfer-Encoding: chunked\r\n\r\n")
                transport.write(b"".join(head))
                await self._send_compressed(request, body)
                return
        if isinstance(body, bytes):
            if self.status not in (204, 304):
                head.append(b"Content-Length: %d\r\n\r\n" % len(body))
            else:
                head.append(b"\r\n")
            if not head_only:
                head.append(body)
            transport.write(b"".join(head))
            return
        head.append(b"Content-Length: %d\r\n\r\n" % self.body_length)
        transport.write(b"".join(head))
        if head_only:
            return
        for piece in body:
            if protocol.transport is None:
                raise ConnectionResetError("the client is gone")
            transport.write(piece)
            if protocol.writing_paused:
                await protocol._drain_helper()

    async def _send_compressed(self, request: BaseRequest, body: Iterable[bytes]) -> None:
        protocol = request.protocol
        compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
        loop = asyncio.get_running_loop()
        for piece in body:
            data = await loop.run_in_executor(None, compressor.compress, piece)
            if protocol.transport is None:
                raise ConnectionResetError("the client is gone")
            if data:
                protocol.transport.write(chunk(data))
                await protocol._drain_helper()
        if protocol.transport is not None:
            protocol.transport.write(chunk(compressor.flush()) + b"0\r\n\r\n")

    async def write_eof(self) -> None:
        """Everything has been written by `prepare`."""


class Sent:
    """Stands for an answer that a handler has written itself."""

    def __init__(self, status: int, length: int, *, keep_alive: bool) -> None:
        self.status = status
        self.body_length = length
        self.keep_alive = keep_alive

    async def prepare(self, request: BaseRequest) -> None:
        return None

    async def write_eof(self) -> None:
        return None


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _compress(data: bytes) -> bytes:
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 31)
    return compressor.compress(data) + compressor.flush()


def text_answer(status: int, text: str, headers: Sequence[tuple[str, str]] = (NOSNIFF,)) -> Answer:
    """Plain text, as Go's http.Error writes it."""
    return Answer(status, text.encode(), TEXT, headers)


def not_found_answer() -> Answer:
    """Go's http.NotFound."""
    return text_answer(404, "404 page not found\n")
