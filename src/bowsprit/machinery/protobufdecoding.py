"""Protobuf messages of the built-in types to JSON values, each type compiled once into closures over a tag table."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import orjson

from bowsprit.machinery import builtin, gotypes, quantity, time
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.gotypes import GoField, GoType
from bowsprit.machinery.objects import Obj, deep_copy

MAX_DEPTH = 250
"""Deepest nesting of messages, as codec.MAX_DEPTH: schemas of CustomResourceDefinitions nest without end."""

Decoder = Callable[[bytes, int, int, int], Any]
"""Decodes data[start:end], which is length-delimited, at a depth of nesting."""

_EOF = "unexpected EOF"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """An unsigned 64-bit number and where it ends."""
    result = shift = 0
    while True:
        if at >= end:
            raise DecodeError(_EOF)
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift >= 64:
            raise DecodeError("proto: integer overflow")


def _length(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Start and end of a length-delimited value."""
    length, at = read_varint(data, at, end)
    if at + length > end:
        raise DecodeError(_EOF)
    return at, at + length


def read_fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """All fields as (number, wire type, start of the value or the number itself, end of the value)."""
    while at < end:
        tag, at = read_varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if number == 0 or tag > 0xFFFFFFFF:
            raise DecodeError(f"proto: illegal tag {number} (wire type {wire})")
        if wire == 2:
            start, stop = _length(data, at, end)
            yield number, wire, start, stop
        elif wire == 0:
            value, stop = read_varint(data, at, end)
            yield number, wire, value, stop
        elif wire in (1, 5):
            stop = at + (8 if wire == 1 else 4)
            if stop > end:
                raise DecodeError(_EOF)
            yield number, wire, at, stop
        else:
            raise DecodeError(f"proto: illegal wireType {wire}")
        at = stop


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF  # as Go's int32() of the varint
    return value - (1 << 32) if value >> 31 else value


def _text(data: bytes, start: int, end: int, depth: int) -> str:
    del depth
    try:
        return data[start:end].decode()
    except UnicodeDecodeError:
        return data[start:end].decode("utf-8", "replace")


def _base64(data: bytes, start: int, end: int, depth: int) -> str:
    del depth
    return base64.b64encode(data[start:end]).decode()


_VARINTS: dict[str, Callable[[int], Any]] = {"bool": bool, "int32": _int32, "int64": _signed}

# How a field is stored into the object.
_NUMBER, _DOUBLE, _APPEND, _VALUE, _LIST, _NUMBERS, _MAP, _INLINE = range(8)


@cache
def message_decoder(message: str) -> Decoder:
    """The decoder of a message: bytes to the JSON object that Go would write for it (without kind and apiVersion)."""
    table: dict[int, tuple[int, str, Any, bool]] = {}
    names: dict[int, str] = {}
    present: tuple[tuple[str, Any], ...] = ()
    compiled = False

    def compile_table() -> None:  # on first use: types may contain themselves
        nonlocal compiled, present
        for field in gotypes.fields_of(message):
            if field.number:
                names[field.number] = field.go_name
                for tag, entry in _entries(field):
                    table[tag] = entry
        present = builtin.always_present(message)
        compiled = True

    def decode(data: bytes, at: int, end: int, depth: int) -> Obj:
        if not compiled:
            compile_table()
        if depth > MAX_DEPTH:
            raise DecodeError("exceeded max depth")
        result: Obj = {}
        while at < end:
            tag = data[at]
            at += 1
            if tag >= 0x80:
                tag, at = read_varint(data, at - 1, end)
            entry = table.get(tag)
            if entry is None:
                at = _skip(data, tag, at, end, names)
                continue
            action, name, convert, drop = entry
            if action == _NUMBER:
                number, at = read_varint(data, at, end)
                value = convert(number)
                if value or not drop:
                    result[name] = value
                else:
                    result.pop(name, None)
                continue
            if action == _APPEND:
                number, at = read_varint(data, at, end)
                result.setdefault(name, []).append(convert(number))
                continue
            if action == _DOUBLE:
                value, at = _double(data, at, end)
                if value or not drop:
                    result[name] = value
                continue
            if at < end and data[at] < 0x80:
                start = at + 1
                at = start + data[at]
                if at > end:
                    raise DecodeError(_EOF)
            else:
                start, at = _length(data, at, end)
            if action == _VALUE:
                value = convert(data, start, at, depth + 1)
                if value or not drop:
                    result[name] = value
            elif action == _LIST:
                result.setdefault(name, []).append(convert(data, start, at, depth + 1))
            elif action == _MAP:
                key, value = convert(data, start, at, depth + 1)
                result.setdefault(name, {})[key] = value
            elif action == _INLINE:
                result.update(convert(data, start, at, depth + 1))
            else:
                result.setdefault(name, []).extend(_packed(data, start, at, convert))
        for name, zero in present:
            if name not in result:
                result[name] = deep_copy(zero) if type(zero) is dict else zero
        return result

    return decode


def _skip(data: bytes, tag: int, at: int, end: int, names: dict[int, str]) -> int:
    """Pass over a field that the type does not know."""
    number, wire = tag >> 3, tag & 7
    if number == 0 or tag > 0xFFFFFFFF:
        raise DecodeError(f"proto: illegal tag {number} (wire type {wire})")
    if number in names:
        raise DecodeError(f"proto: wrong wireType = {wire} for field {names[number]}")
    if wire == 0:
        return read_varint(data, at, end)[1]
    if wire == 2:
        return _length(data, at, end)[1]
    if wire in (1, 5):
        at += 8 if wire == 1 else 4
        if at > end:
            raise DecodeError(_EOF)
        return at
    raise DecodeError(f"proto: illegal wireType {wire}")


def _double(data: bytes, at: int, end: int) -> tuple[int | float, int]:
    if at + 8 > end:
        raise DecodeError(_EOF)
    (value,) = struct.unpack_from("<d", data, at)
    if not math.isfinite(value):
        raise DecodeError("json: unsupported value")
    return (int(value) if value.is_integer() and abs(value) < 1e21 else value), at + 8


def _packed(data: bytes, at: int, end: int, convert: Callable[[int], Any]) -> Iterator[Any]:
    while at < end:
        value, at = read_varint(data, at, end)
        yield convert(value)


def _entries(field: GoField) -> Iterator[tuple[int, tuple[int, str, Any, bool]]]:
    """The tags under which a field may arrive, and what to do with each."""
    name, drop = field.json_name, builtin.drops_zero(field) or field.omitzero
    type_ = field.type.element if field.type.kind == "pointer" and field.type.element else field.type
    base = field.number << 3
    if field.inline:
        yield base | 2, (_INLINE, name, decoder(type_), drop)
    elif type_.kind in _VARINTS:
        yield base, (_NUMBER, name, _VARINTS[type_.kind], drop)
    elif type_.kind == "float64":
        yield base | 1, (_DOUBLE, name, None, drop)
    elif type_.kind == "map" and type_.element:
        yield base | 2, (_MAP, name, _entry_decoder(type_.element), drop)
    elif type_.kind == "slice" and type_.element and not type_.boxed:
        if type_.element.kind in _VARINTS:
            convert = _VARINTS[type_.element.kind]
            yield base | 2, (_NUMBERS, name, convert, drop)
            yield base, (_APPEND, name, convert, drop)
        else:
            yield base | 2, (_LIST, name, decoder(type_.element), drop)
    else:
        yield base | 2, (_VALUE, name, decoder(type_), drop)


def decoder(type_: GoType) -> Decoder:
    """The decoder of a length-delimited type."""
    kind = type_.kind
    if kind == "pointer" and type_.element:
        return decoder(type_.element)
    if kind == "struct":
        return message_decoder(type_.struct)
    if kind == "string":
        return _text
    if kind == "bytes":
        return _base64
    if kind == "slice":  # boxed: a message of its own with repeated items = 1
        return _decode_items
    return _special_decoder(type_.struct)


def _decode_items(data: bytes, start: int, end: int, depth: int) -> list[str]:
    return [
        _text(data, value, stop, depth)
        for number, wire, value, stop in read_fields(data, start, end)
        if number == 1 and wire == 2
    ]


def _entry_decoder(element: GoType) -> Callable[[bytes, int, int, int], tuple[str, Any]]:
    """A map entry: 1 is the key, 2 the value."""
    read = decoder(element)
    zero = builtin.zero_value(element)

    def decode(data: bytes, start: int, end: int, depth: int) -> tuple[str, Any]:
        key, value = "", deep_copy(zero)
        for number, wire, at, stop in read_fields(data, start, end):
            if number == 1 and wire == 2:
                key = _text(data, at, stop, depth)
            elif number == 2 and wire == 2:
                value = read(data, at, stop, depth + 1)
        return key, value

    return decode


# --- types with a JSON form of their own --------------------------------------------------------------------------


def _special_decoder(message: str) -> Decoder:
    if message in gotypes.SCHEMA_OR_BOOL | gotypes.SCHEMA_OR_ARRAY | gotypes.SCHEMA_OR_STRINGS:
        return _schema_union_decoder(message)
    return {
        gotypes.TIME: _decode_time,
        gotypes.MICRO_TIME: _decode_micro_time,
        gotypes.DURATION: _decode_duration,
        gotypes.QUANTITY: _decode_quantity,
        gotypes.INT_OR_STRING: _decode_int_or_string,
    }.get(message, _decode_raw)


def _moment(data: bytes, start: int, end: int) -> datetime | None:
    seconds = nanos = 0
    for number, wire, value, _ in read_fields(data, start, end):
        if wire == 0 and number == 1:
            seconds = _signed(value)
        elif wire == 0 and number == 2:
            nanos = _int32(value)
    if start == end:
        return None
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError:
        raise DecodeError("Time.MarshalJSON: year outside of range [0,9999]") from None


def _decode_time(data: bytes, start: int, end: int, depth: int) -> str | None:
    del depth
    moment = _moment(data, start, end)
    return None if moment is None else time.format_time(moment)


def _decode_micro_time(data: bytes, start: int, end: int, depth: int) -> str | None:
    del depth
    moment = _moment(data, start, end)
    return None if moment is None else time.format_micro_time(moment)


def _decode_duration(data: bytes, start: int, end: int, depth: int) -> str:
    del depth
    nanoseconds = 0
    for number, wire, value, _ in read_fields(data, start, end):
        if wire == 0 and number == 1:
            nanoseconds = _signed(value)
    return time.format_duration(nanoseconds)


def _decode_quantity(data: bytes, start: int, end: int, depth: int) -> str:
    text = "0"
    for number, wire, value, stop in read_fields(data, start, end):
        if wire == 2 and number == 1:
            text = _text(data, value, stop, depth)
    try:
        return quantity.canonical(text)
    except quantity.QuantityError as error:
        raise DecodeError(str(error)) from None


def _decode_int_or_string(data: bytes, start: int, end: int, depth: int) -> int | str:
    kind, number_value, text = 0, 0, ""
    for number, wire, value, stop in read_fields(data, start, end):
        if number == 1 and wire == 0:
            kind = value
        elif number == 2 and wire == 0:
            number_value = _int32(value)
        elif number == 3 and wire == 2:
            text = _text(data, value, stop, depth)
    return text if kind == 1 else number_value


def _decode_raw(data: bytes, start: int, end: int, depth: int) -> Any:
    """RawExtension, FieldsV1 and JSON: field 1 is JSON text (or, in a RawExtension, an object in its envelope)."""
    raw = b""
    for number, wire, value, stop in read_fields(data, start, end):
        if number == 1 and wire == 2:
            raw = data[value:stop]
    if not raw:
        return None
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise DecodeError(f"json: error calling MarshalJSON: {error}") from None
    if depth + raw.count(b"{") + raw.count(b"[") > MAX_DEPTH:
        _check_depth(value, MAX_DEPTH - depth)
    return value


def _check_depth(value: Any, allowed: int) -> None:
    if isinstance(value, (dict, list)):
        if allowed <= 0:
            raise DecodeError("exceeded max depth")
        for child in value.values() if isinstance(value, dict) else value:
            _check_depth(child, allowed - 1)


def _schema_union_decoder(message: str) -> Decoder:
    schema = message.rpartition(".")[0] + ".JSONSchemaProps"

    def decode(data: bytes, start: int, end: int, depth: int) -> Any:
        allows, found, listed = False, None, []
        for number, wire, value, stop in read_fields(data, start, end):
            if number == 1 and wire == 0:
                allows = bool(value)
            elif wire == 2 and number == (2 if message in gotypes.SCHEMA_OR_BOOL else 1):
                found = message_decoder(schema)(data, value, stop, depth + 1)
            elif wire == 2 and number == 2 and message in gotypes.SCHEMA_OR_ARRAY:
                listed.append(message_decoder(schema)(data, value, stop, depth + 1))
            elif wire == 2 and number == 2:
                listed.append(_text(data, value, stop, depth))
        if message in gotypes.SCHEMA_OR_BOOL:
            return allows if found is None else found
        return listed or found or None

    return decode
