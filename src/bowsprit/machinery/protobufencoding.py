"""JSON values of the built-in types to protobuf messages, each type compiled once into a list of field writers.

As upstream's generated code: fields in the order of their numbers, map entries sorted by key, and every field that is no
pointer written even when it is zero.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import orjson

from bowsprit.machinery import gotypes, time
from bowsprit.machinery.gotypes import GoField, GoType
from bowsprit.machinery.objects import Obj

Encoder = Callable[[Any], bytes]
"""Encodes a value without its tag and length; null stands for Go's zero value."""

Writer = Callable[[Obj, list[bytes]], None]
"""Appends a field of an object, tag and all, if it has to be written."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SMALL = [bytes([number]) for number in range(128)]


def varint(number: int) -> bytes:
    """A varint; negative numbers take ten bytes."""
    if 0 <= number < 128:
        return _SMALL[number]
    number &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def length_delimited(number: int, value: bytes) -> bytes:
    """A field that holds text, bytes or a message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


@cache
def message_encoder(message: str) -> Encoder:
    """The encoder of a message."""
    writers: list[Writer] = []
    compiled = False

    def encode(obj: Any) -> bytes:
        nonlocal compiled
        if not compiled:  # on first use: types may contain themselves
            fields = sorted(gotypes.fields_of(message), key=lambda field: field.number)
            writers.extend(_writer(field) for field in fields if field.number)
            compiled = True
        out: list[bytes] = []
        members = obj or {}
        for write in writers:
            write(members, out)
        return b"".join(out)

    return encode


def _writer(field: GoField) -> Writer:
    name, type_ = field.json_name, field.type
    if field.inline:
        return _inline_writer(varint(field.number << 3 | 2), encoder(type_))
    optional = type_.kind == "pointer"
    if optional and type_.element:
        type_ = type_.element
    if type_.kind in ("bool", "int32", "int64"):
        return _number_writer(name, varint(field.number << 3), optional)
    if type_.kind == "float64":
        return _double_writer(name, varint(field.number << 3 | 1), optional)
    tag = varint(field.number << 3 | 2)
    if type_.kind == "map" and type_.element:
        return _map_writer(name, tag, encoder(type_.element))
    if type_.kind == "slice" and type_.element and not type_.boxed:
        if type_.element.kind in ("bool", "int32", "int64"):
            return _numbers_writer(name, varint(field.number << 3))
        return _list_writer(name, tag, encoder(type_.element))
    return _value_writer(name, tag, encoder(type_), optional or type_.kind in ("bytes", "slice"))


def _inline_writer(tag: bytes, encode: Encoder) -> Writer:
    def write(obj: Obj, out: list[bytes]) -> None:
        value = encode(obj)
        out += (tag, varint(len(value)), value)

    return write


def _number_writer(name: str, tag: bytes, optional: bool) -> Writer:
    def write(obj: Obj, out: list[bytes]) -> None:
        value = obj.get(name)
        if value is not None or not optional:
            out += (tag, varint(int(value or 0)))

    return write


def _double_writer(name: str, tag: bytes, optional: bool) -> Writer:
    def write(obj: Obj, out: list[bytes]) -> None:
        value = obj.get(name)
        if value is not None or not optional:
            out += (tag, struct.pack("<d", value or 0))

    return write


def _numbers_writer(name: str, tag: bytes) -> Writer:
    def write(obj: Obj, out: list[bytes]) -> None:
        for value in obj.get(name) or ():
            out += (tag, varint(int(value)))

    return write


def _value_writer(name: str, tag: bytes, encode: Encoder, optional: bool) -> Writer:
    def write(obj: Obj, out: list[bytes]) -> None:
        value = obj.get(name)
        if value is not None or not optional:
            data = encode(value)
            out += (tag, varint(len(data)), data)

    return write


def _list_writer(name: str, tag: bytes, encode: Encoder) -> Writer:
    def write(obj: Obj, out: list[bytes]) -> None:
        for value in obj.get(name) or ():
            data = encode(value)
            out += (tag, varint(len(data)), data)

    return write


def _map_writer(name: str, tag: bytes, encode: Encoder) -> Writer:
    def write(obj: Obj, out: list[bytes]) -> None:
        entries = obj.get(name)
        if not entries:
            return
        for key in sorted(entries):
            data = length_delimited(1, _text(key)) + length_delimited(2, encode(entries[key]))
            out += (tag, varint(len(data)), data)

    return write


def encoder(type_: GoType) -> Encoder:
    """The encoder of a length-delimited type."""
    kind = type_.kind
    if kind == "pointer" and type_.element:
        return encoder(type_.element)
    if kind == "struct":
        return message_encoder(type_.struct)
    if kind == "string":
        return _text
    if kind == "bytes":
        return _bytes
    if kind == "slice":  # boxed: a message of its own with repeated items = 1
        return _items
    return _special_encoder(type_.struct)


def _text(value: Any) -> bytes:
    return value.encode("utf-8", "replace") if value else b""


def _bytes(value: Any) -> bytes:
    return base64.b64decode(value) if value else b""


def _items(value: Any) -> bytes:
    return b"".join(length_delimited(1, _text(item)) for item in value or ())


# --- types with a JSON form of their own --------------------------------------------------------------------------


def _special_encoder(message: str) -> Encoder:
    if message in gotypes.SCHEMA_OR_BOOL | gotypes.SCHEMA_OR_ARRAY | gotypes.SCHEMA_OR_STRINGS:
        return _schema_union_encoder(message)
    return {
        gotypes.TIME: _time,
        gotypes.MICRO_TIME: _micro_time,
        gotypes.DURATION: _duration,
        gotypes.QUANTITY: _quantity,
        gotypes.INT_OR_STRING: _int_or_string,
    }.get(message, _raw)


def _timestamp(moment: datetime, nanos: int) -> bytes:
    seconds = (moment.replace(microsecond=0) - _EPOCH) // timedelta(seconds=1)
    return b"\x08" + varint(seconds) + b"\x10" + varint(nanos)


def _time(value: Any) -> bytes:
    return _timestamp(time.parse_time(value), 0) if value else b""


def _micro_time(value: Any) -> bytes:
    if not value:
        return b""
    moment = time.parse_micro_time(value)
    return _timestamp(moment, moment.microsecond * 1000)


def _duration(value: Any) -> bytes:
    return b"\x08" + varint(time.parse_duration(value) if value else 0)


def _quantity(value: Any) -> bytes:
    return length_delimited(1, str("0" if value is None else value).encode())


def _int_or_string(value: Any) -> bytes:
    if isinstance(value, str):
        return b"\x08\x01\x10\x00" + length_delimited(3, _text(value))
    return b"\x08\x00\x10" + varint(value or 0) + b"\x1a\x00"


def _raw(value: Any) -> bytes:
    return b"" if value is None else length_delimited(1, orjson.dumps(value))


def _schema_union_encoder(message: str) -> Encoder:
    schema = message.rpartition(".")[0] + ".JSONSchemaProps"

    def encode(value: Any) -> bytes:
        if message in gotypes.SCHEMA_OR_BOOL:
            if isinstance(value, dict):  # Go keeps allows=true beside a schema
                return b"\x08\x01" + length_delimited(2, message_encoder(schema)(value))
            return b"\x08" + varint(int(bool(value)))
        if isinstance(value, dict):
            return length_delimited(1, message_encoder(schema)(value))
        item = message_encoder(schema) if message in gotypes.SCHEMA_OR_ARRAY else _text
        return b"".join(length_delimited(2, item(entry)) for entry in value or ())

    return encode
