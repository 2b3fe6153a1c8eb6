"""Metadata: header lists, the percent-encoding of messages, the timeout header (grpc/doc/PROTOCOL-HTTP2.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bowsprit.net.grpc.status import GrpcError, Status, StatusCode

Metadata = Sequence[tuple[str, str]]

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_MAX_TIMEOUT = 99_999_999
_VALUE = re.compile(r"[\x20-\x7e]*")
_KEY = re.compile(r"[a-z0-9_.-]+")


def values(metadata: Iterable[tuple[str, str]], key: str) -> list[str]:
    """All values of a key, in order."""
    return [value for name, value in metadata if name == key]


def check(metadata: Metadata) -> None:
    """Refuse what cannot travel in a header: raises GrpcError INTERNAL, as grpc-go does."""
    for key, value in metadata:
        if not _KEY.fullmatch(key) or key.startswith("grpc-"):
            raise GrpcError(StatusCode.INTERNAL, f'header key "{key}" is not allowed')
        if not _VALUE.fullmatch(value):
            text = f'header key "{key}" contains value with non-printable ASCII characters'
            raise GrpcError(StatusCode.INTERNAL, text)


def application(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers that the application set: no pseudo-headers, none of gRPC's own."""
    return [(name, value) for name, value in headers if not name.startswith((":", "grpc-")) and name not in _RESERVED]


_RESERVED = frozenset({"content-type", "te"})


def encode_message(message: str) -> str:
    """Percent-encode a status message: all but printable ASCII, and ``%``."""
    return "".join(
        chr(byte) if 0x20 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}" for byte in message.encode("utf-8")
    )


def decode_message(text: str) -> str:
    """The reverse; an invalid escape stays as it is."""
    raw = re.sub(
        rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), text.encode("utf-8", "surrogateescape")
    )
    return raw.decode("utf-8", "replace")


def encode_timeout(seconds: float) -> str:
    """At most eight digits and a unit; rounded up, never zero."""
    for unit, scale in (("n", 1e9), ("u", 1e6), ("m", 1e3), ("S", 1.0)):
        amount = max(1, -int(-seconds * scale // 1))
        if amount <= _MAX_TIMEOUT:
            return f"{amount}{unit}"
    return f"{min(_MAX_TIMEOUT, int(seconds // 3600) + 1)}H"


def decode_timeout(text: str) -> float:
    """Seconds; raises ValueError, in grpc-go's words, for anything else than 1-8 digits and a unit."""
    if not 2 <= len(text) <= 9:
        raise ValueError(f'transport: timeout string is too {"short" if len(text) < 2 else "long"}: "{text}"')
    if text[-1] not in _UNITS:
        raise ValueError(f'transport: timeout unit is not recognized: "{text}"')
    if not re.fullmatch(r"[0-9]+", text[:-1]):
        raise ValueError(f'strconv.ParseUint: parsing "{text[:-1]}": invalid syntax')
    return int(text[:-1]) * _UNITS[text[-1]]


def status_of_trailers(trailers: Metadata) -> Status | None:
    """The status that a trailer block carries; None without ``grpc-status``."""
    found = values(trailers, "grpc-status")
    if not found:
        return None
    message = decode_message("".join(values(trailers, "grpc-message")[:1]))
    try:
        return Status(StatusCode(int(found[0])), message)
    except ValueError:
        return Status(StatusCode.UNKNOWN, f"malformed grpc-status {found[0]!r}: {message}")


def trailers_of_status(status: Status, extra: Metadata = ()) -> list[tuple[str, str]]:
    """The trailer block of a status."""
    return [("grpc-status", str(int(status.code))), ("grpc-message", encode_message(status.message)), *extra]
