"""SPDY/3.1 frames, as kubectl before 1.30 and API servers use them for exec, attach and port-forward. No I/O.

Source: the SPDY protocol, draft 3.1 (chromium.org/spdy). Kubernetes uses it without flow control: SETTINGS, HEADERS and
WINDOW_UPDATE are read and ignored.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

VERSION = 3
LARGEST_FRAME = 1 << 20
LARGEST_HEADERS = 64 << 10
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING, _GOAWAY = 1, 2, 3, 6, 7
_FIN = 1
_LONG = struct.Struct(">I")
_WORDS = (
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|a"
    "ge|allow|authorization|cache-control|connection|content-base|content-encoding|content-language|content-l"
    "ength|content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-matc"
    "h|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragm"
    "a|proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|u"
    "pgrade|user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public"
    "|set-cookie|keep-alive|origin"
)
_TAIL = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Author"
    "itative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 No"
    "t Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Au"
    "g Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,"
    "image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,def"
    "late,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
# What both sides' compressors start with (draft 3, 2.6.10.1).
DICTIONARY = b"".join(_LONG.pack(len(word)) + word.encode() for word in _WORDS.split("|")) + _TAIL.encode()


class SpdyError(ValueError):
    """Bytes that are no SPDY, or more than this side takes."""


@dataclass(frozen=True, slots=True)
class SynStream:
    """The peer opens a stream."""

    stream: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; `fin`: the last ones."""

    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """A stream ends at once."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Ping:
    """To be sent back as it is."""

    number: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer opens no more streams."""


Frame = SynStream | Data | Reset | Ping | GoAway


class FrameReader:
    """Cuts bytes into frames. The header compression is one for the whole connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now. Raises SpdyError; the connection is of no use then."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        while len(buffer) >= 8:
            first, second = struct.unpack_from(">II", buffer)
            flags, length = second >> 24, second & 0xFFFFFF
            if length > LARGEST_FRAME:
                raise SpdyError(f"frame of {length} bytes: at most {LARGEST_FRAME} are taken")
            if len(buffer) < 8 + length:
                break
            body = bytes(buffer[8 : 8 + length])
            del buffer[: 8 + length]
            if first >> 31:
                frame = self._control(first >> 16 & 0x7FFF, first & 0xFFFF, flags, body)
                if frame is not None:
                    frames.append(frame)
            else:
                frames.append(Data(first, body, bool(flags & _FIN)))
        return frames

    def _control(self, version: int, kind: int, flags: int, body: bytes) -> Frame | None:
        if version != VERSION:
            raise SpdyError(f"version {version} of SPDY: only 3 is spoken")
        try:
            if kind == _SYN_STREAM:
                headers = self._headers(body[10:])
                return SynStream(_LONG.unpack_from(body)[0] & 0x7FFFFFFF, headers, bool(flags & _FIN))
            if kind == _RST_STREAM:
                stream, status = struct.unpack_from(">II", body)
                return Reset(stream & 0x7FFFFFFF, status)
            if kind == _PING:
                return Ping(_LONG.unpack_from(body)[0])
            if kind in (_SYN_REPLY, 8):  # HEADERS; both go through the decompressor, whose state they change
                self._headers(body[4:])
        except struct.error as exc:
            raise SpdyError(f"short control frame of type {kind}") from exc
        return GoAway() if kind == _GOAWAY else None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, LARGEST_HEADERS)
        except zlib.error as exc:
            raise SpdyError(f"headers that cannot be decompressed: {exc}") from exc
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"more than {LARGEST_HEADERS} bytes of headers")
        fields: list[str] = []
        position = 4
        (count,) = _LONG.unpack_from(plain)
        for _ in range(2 * count):
            (length,) = _LONG.unpack_from(plain, position)
            position += 4
            if position + length > len(plain):
                raise SpdyError("headers that end too early")
            fields.append(plain[position : position + length].decode("latin-1"))
            position += length
        return {name.lower(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}


class FrameWriter:
    """Writes this side's frames."""

    def __init__(self) -> None:
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def syn_stream(self, stream: int, headers: Mapping[str, str]) -> bytes:
        """Open a stream."""
        return _control(_SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self._block(headers))

    def syn_reply(self, stream: int) -> bytes:
        """Accept a stream."""
        return _control(_SYN_REPLY, _LONG.pack(stream) + self._block({}))

    def _block(self, headers: Mapping[str, str]) -> bytes:
        plain = [_LONG.pack(len(headers))]
        for field in (part for item in headers.items() for part in item):
            data = field.encode("latin-1")
            plain += (_LONG.pack(len(data)), data)
        return self._deflate.compress(b"".join(plain)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def data_frame(stream: int, data: bytes, *, fin: bool = False) -> bytes:
    """Bytes of a stream, at most LARGEST_FRAME."""
    return struct.pack(">II", stream, (_FIN << 24 if fin else 0) | len(data)) + data


def reset_frame(stream: int, status: int) -> bytes:
    """End a stream at once."""
    return _control(_RST_STREAM, struct.pack(">II", stream, status))


def ping_frame(number: int) -> bytes:
    """An answer to a ping."""
    return _control(_PING, _LONG.pack(number))


def goaway_frame(last: int) -> bytes:
    """No more streams after this one."""
    return _control(_GOAWAY, struct.pack(">II", last, 0))


def _control(kind: int, body: bytes) -> bytes:
    return struct.pack(">HHI", 0x8000 | VERSION, kind, len(body)) + body
