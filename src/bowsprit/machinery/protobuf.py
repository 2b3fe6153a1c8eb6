"""The Kubernetes protobuf encoding: envelope, watch frames, and every built-in message, both ways.

An object travels as `k8s\\0` and a runtime.Unknown that names its type and holds the message
(k8s.io/apimachinery/pkg/runtime/serializer/protobuf). Messages follow the Go types (gotypes.py): fields that are no
pointers are always written, and JSON's omitempty is applied again when they are read. Decoding trusts nothing: lengths are
checked against their frame, nesting is bounded, and whatever is wrong raises DecodeError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from bowsprit.machinery import builtin, gotypes
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.protobufdecoding import MAX_DEPTH, message_decoder, read_fields
from bowsprit.machinery.protobufencoding import length_delimited, message_encoder

__all__ = [
    "MAGIC",
    "MAX_DEPTH",
    "decode",
    "decode_watch_events",
    "encode",
    "encode_watch_event",
    "is_supported",
]

MAGIC = b"k8s\x00"


def is_supported(gvk: GroupVersionKind) -> bool:
    """Whether the kind has a protobuf form: built-in kinds but Table."""
    message = gotypes.message_of(gvk)
    return message is not None and any(field.number for field in builtin.members(message))


def decode(data: bytes, default_gvk: GroupVersionKind | None = None) -> Obj:
    """The object in an envelope, as JSON values with kind and apiVersion.

    The type in the envelope wins over `default_gvk`, which stands in where it is empty. An object of a type that is not built
    in is answered with its kind and apiVersion alone: whoever knows what was expected tells the client.
    """
    if not data:
        raise DecodeError("empty data")
    if not data.startswith(MAGIC):
        raise DecodeError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    if len(data) == len(MAGIC):
        raise DecodeError("empty body")
    api_version, kind, start, end = _envelope(data)
    if default_gvk is not None:
        api_version, kind = api_version or default_gvk.api_version, kind or default_gvk.kind
    try:
        gvk = GroupVersionKind.parse(api_version, kind)
    except ValueError as error:
        raise DecodeError(str(error)) from None
    obj: Obj = {"kind": kind, "apiVersion": api_version}
    message = gotypes.message_of(gvk)
    if message is not None:
        obj.update(message_decoder(message)(data, start, end, 0))
        obj["kind"], obj["apiVersion"] = kind, api_version
    if not api_version:
        del obj["apiVersion"]  # discovery documents have none
    return obj


def _envelope(data: bytes) -> tuple[str, str, int, int]:
    """apiVersion, kind and where the message lies in the data."""
    api_version = kind = ""
    start = end = 0
    for number, wire, value, stop in read_fields(data, len(MAGIC), len(data)):
        if number == 1 and wire == 2:
            for inner, inner_wire, text, text_end in read_fields(data, value, stop):
                if inner_wire != 2:
                    continue
                if inner == 1:
                    api_version = data[text:text_end].decode("utf-8", "replace")
                elif inner == 2:
                    kind = data[text:text_end].decode("utf-8", "replace")
        elif number == 2 and wire == 2:
            start, end = value, stop
    return api_version, kind, start, end


def encode(obj: Obj) -> bytes:
    """An object in its envelope. Raises KeyError for a kind that is not built in (ask `is_supported` first)."""
    api_version, kind = obj.get("apiVersion") or "", obj.get("kind") or ""
    message = gotypes.message_of(GroupVersionKind.parse(api_version, kind))
    if message is None:
        raise KeyError(f"{api_version}, Kind={kind}")
    type_meta = length_delimited(1, api_version.encode()) + length_delimited(2, kind.encode())
    raw = message_encoder(message)(obj)
    # contentEncoding and contentType are written though empty, as upstream does
    return MAGIC + length_delimited(1, type_meta) + length_delimited(2, raw) + b"\x1a\x00\x22\x00"


def encode_watch_event(type_: str, encoded: bytes) -> bytes:
    """One frame of a watch stream: length, then a bare WatchEvent around an object from `encode`."""
    event = length_delimited(1, type_.encode()) + length_delimited(2, length_delimited(1, encoded))
    return struct.pack(">I", len(event)) + event


def decode_watch_events(buffer: bytes, limit: int = 64 << 20) -> tuple[list[tuple[str, Obj]], bytes]:
    """The events of all complete frames and the rest of the buffer. A frame larger than `limit` is a DecodeError."""
    events: list[tuple[str, Obj]] = []
    at = 0
    while len(buffer) - at >= 4:
        (length,) = struct.unpack_from(">I", buffer, at)
        if length > limit:
            raise DecodeError(f"a watch frame of {length} bytes is larger than the limit of {limit}")
        if len(buffer) - at - 4 < length:
            break
        events.append(_watch_event(buffer, at + 4, at + 4 + length))
        at += 4 + length
    return events, buffer[at:]


def _watch_event(data: bytes, start: int, end: int) -> tuple[str, Obj]:
    type_, obj = "", None
    for number, wire, value, stop in read_fields(data, start, end):
        if number == 1 and wire == 2:
            type_ = data[value:stop].decode("utf-8", "replace")
        elif number == 2 and wire == 2:
            for raw in _raw_extensions(data, value, stop):
                obj = decode(raw)
    if obj is None:
        raise DecodeError("a watch event without an object")
    return type_, obj


def _raw_extensions(data: bytes, start: int, end: int) -> Iterator[bytes]:
    for number, wire, value, stop in read_fields(data, start, end):
        if number == 1 and wire == 2:
            yield data[value:stop]
