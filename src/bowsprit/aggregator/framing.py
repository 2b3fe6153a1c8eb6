"""HTTP/1.1 answers on the wire: where the head ends, what it says, where the body ends (RFC 9112).

The aggregator passes bodies on as they come, so it parses no more than it must: the head once, and of a chunked body only the
lines between the chunks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LARGEST_HEAD = 1 << 20
_LONGEST_LINE = 16 << 10  # of a chunk's size with its extensions, or of a trailer
_FIELD = re.compile(rb"\r\n([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([^\x00\r\n]*)(?=\r\n|\Z)")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\x00]*)?")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")


class MalformedAnswerError(Exception):
    """What the backend sent is no HTTP answer."""


@dataclass(slots=True)
class Head:
    """Status and fields of an answer. `length` is None for a body that ends with the connection, unless `chunked`."""

    status: int
    fields: list[tuple[bytes, bytes, bytes]]  # (name in lower case, name, value)
    first: dict[bytes, bytes]  # name in lower case -> first value
    chunked: bool = False
    length: int | None = None
    keep_alive: bool = True

    def get(self, name: bytes) -> bytes:
        """The first value of a field; the name is in lower case."""
        return self.first.get(name, b"")


def parse_head(data: bytes, *, bodiless: bool) -> Head:
    """A head without its empty line. `bodiless`: the request was a HEAD.

    Raises:
        MalformedAnswerError.
    """
    first, _, _ = data.partition(b"\r\n")
    match = _STATUS.fullmatch(first)
    if match is None:
        raise MalformedAnswerError(f'malformed HTTP response "{first[:64].decode("latin-1")}"')
    fields = _FIELD.findall(data, len(first))
    if len(fields) != data.count(b"\r\n"):
        raise MalformedAnswerError(f"malformed MIME header line: {_bad_line(data)}")
    head = Head(int(match.group(2)), [], {}, keep_alive=match.group(1) == b"1")
    lengths: set[bytes] = set()
    for name, value in fields:
        value = value.rstrip(b" \t")
        lower = name.lower()
        head.fields.append((lower, name, value))
        head.first.setdefault(lower, value)
        if lower == b"content-length":
            lengths.add(value)
        elif lower == b"transfer-encoding":
            if value.lower() != b"chunked" or head.chunked:
                raise MalformedAnswerError(f'unsupported transfer encoding: "{value.decode("latin-1")}"')
            head.chunked = True
        elif lower == b"connection":
            words = value.lower()
            head.keep_alive = b"close" not in words and (head.keep_alive or b"keep-alive" in words)
    if bodiless or head.status in (204, 304) or 100 <= head.status < 200:
        head.chunked, head.length = False, 0
    elif not head.chunked and lengths:
        text = lengths.pop()
        if lengths or not text.isdigit() or len(text) > 18:
            raise MalformedAnswerError("http: message cannot contain multiple Content-Length headers or a bad one")
        head.length = int(text)
    return head


def _bad_line(data: bytes) -> str:
    """The first line of a head that is no field, cut short."""
    lines = data.split(b"\r\n")[1:]
    return next(line for line in lines if not _FIELD.fullmatch(b"\r\n" + line))[:64].decode("latin-1")


class Chunks:
    """Follows a chunked body; `done` once its last line has been seen."""

    __slots__ = ("_left", "_line", "_place", "done")

    def __init__(self) -> None:
        self._place = "size"
        self._left = 0
        self._line = b""
        self.done = False

    def feed(self, data: bytes, payload: list[bytes] | None = None) -> int:
        """How many of the bytes belong to the body; its content is added to `payload`.

        Raises:
            MalformedAnswerError.
        """
        position, end = 0, len(data)
        while position < end and not self.done:
            if self._place == "data":
                take = min(self._left, end - position)
                if payload is not None:
                    payload.append(data[position : position + take])
                position += take
                self._left -= take
                if not self._left:
                    self._place = "after"
                continue
            line_end = data.find(b"\n", position)
            if line_end < 0:
                self._line += data[position:]
                position = end
            else:
                line = self._line + data[position : line_end + 1]
                self._line = b""
                position = line_end + 1
                self._take(line)
            if len(self._line) > _LONGEST_LINE:
                raise MalformedAnswerError("header line too long")
        return position

    def _take(self, line: bytes) -> None:
        if not line.endswith(b"\r\n"):
            raise MalformedAnswerError("malformed chunked encoding")
        line = line[:-2]
        if self._place == "after":
            if line:
                raise MalformedAnswerError("malformed chunked encoding")
            self._place = "size"
        elif self._place == "size":
            size = line.partition(b";")[0].strip(b" \t")
            if _SIZE.fullmatch(size) is None:
                raise MalformedAnswerError("invalid byte in chunk length")
            self._left = int(size, 16)
            self._place = "data" if self._left else "trailer"
        elif not line:
            self.done = True
