"""Built-in objects through Go's eyes: what is left of a JSON object after Go has read it into its type and written it.

Reading drops unknown members and nulls, refuses wrong types with Go's message, and makes quantities, times and base64
canonical; writing drops zero values of omitempty fields and adds the members that are always there (`status: {}`,
`resources: {}`, `containers: null`). The server does this to every built-in object, so do we. Each type is compiled
once, on first use, into closures over dicts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import orjson

from bowsprit.machinery import gotypes, quantity, time
from bowsprit.machinery.base64text import Base64Error, canonical_base64
from bowsprit.machinery.codec import Pairs
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.gotypes import GoField, GoType
from bowsprit.machinery.jsonsyntax import type_name
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj, deep_copy

_MAX_STRICT_ERRORS = 100

Reader = Callable[[Any], Any]
"""Reads one JSON value (never null) and returns it as Go would write it."""


class MismatchError(DecodeError):
    """A JSON value of the wrong type; learns where it is on its way up."""

    def __init__(self, found: str, wanted: str):
        super().__init__()
        self.found = found
        self.wanted = wanted
        self.struct = ""
        self.path: list[str] = []
        self.special = False  # found by a type that reads itself

    def __str__(self) -> str:
        if not self.struct:
            return f"json: cannot unmarshal {self.found} into Go value of type {self.wanted}"
        field = ".".join(reversed(self.path))
        return f"json: cannot unmarshal {self.found} into Go struct field {self.struct}.{field} of type {self.wanted}"


def _special_mismatch(value: Any, wanted: str) -> MismatchError:
    error = _mismatch(value, wanted)
    error.special = True
    return error


def _mismatch(value: Any, wanted: str) -> MismatchError:
    found = type_name(value)
    if found == "number" and wanted[:3] in {"int", "flo"}:
        found = f"number {orjson.dumps(value).decode()}"
    return MismatchError(found, wanted)


_KINDS = {"object": "map", "array": "slice", "number": "int64"}
_GO_TYPES = {"object": "map[string]interface {}", "array": "[]interface {}", "number": "int64"}


def restore_error(failure: DecodeError) -> str:
    """The same complaint as Go has it where it fills a struct from maps, not from a text (upstream FromUnstructured)."""
    if isinstance(failure, Base64Error):
        return f"error decoding from json: {failure}"
    if not isinstance(failure, MismatchError):
        return str(failure)
    if failure.special:
        return f"json: cannot unmarshal {failure.found} into Go value of type {failure.wanted}"
    found, wanted = failure.found.partition(" ")[0], failure.wanted
    kind = _KINDS.get(found, found)
    if wanted.startswith("[]"):
        return f"cannot restore slice from {kind}"
    if wanted.startswith("map["):
        return f"cannot restore map from {kind}"
    if gotypes.is_struct(wanted):
        return f"cannot restore struct from: {kind}"
    return f"cannot convert {_GO_TYPES.get(found, found)} to {wanted}"


def lookup(gvk: GroupVersionKind) -> Type | None:
    """The type of a built-in kind, or None."""
    message = gotypes.message_of(gvk)
    return None if message is None else message_type(message)


@cache
def message_type(message: str) -> Type:
    """The type with this message name, such as `k8s.io.api.core.v1.PodSpec`. Raises KeyError."""
    if not gotypes.has_message(message):
        raise KeyError(message)
    return Type(message)


class Type:
    """A built-in struct, compiled."""

    def __init__(self, message: str):
        self.message = message
        self.name = message.rpartition(".")[2]

    def round_trip(self, obj: Obj) -> Obj:
        """A new object as the server would show it. Raises DecodeError with Go's text."""
        result: Obj = _struct_reader(self.message)(obj)
        return result

    def strict_errors(self, tree: Any) -> list[str]:
        """Unknown and repeated members of an object (or of Pairs), in the order of the text, each told once."""
        found: dict[str, None] = {}
        for message in _struct_walker(self.message)(tree, ""):
            found[message] = None
            if len(found) >= _MAX_STRICT_ERRORS:
                break
        return list(found)


# --- members ------------------------------------------------------------------------------------------------------


@cache
def members(message: str) -> tuple[GoField, ...]:
    """The JSON members of a struct: its fields with the inlined ones flattened, in Go's order."""
    flat: list[GoField] = []
    for field in gotypes.fields_of(message):
        if field.inline and field.go_name == "TypeMeta":
            flat += [_text_member("Kind", "kind"), _text_member("APIVersion", "apiVersion")]
        elif field.inline:
            flat += [
                replace(member, embedded=(field.go_name, *member.embedded)) for member in members(field.type.struct)
            ]
        elif field.json_name != "-":
            flat.append(field)
    return tuple(flat)


def _text_member(go_name: str, json_name: str) -> GoField:
    return GoField(go_name, json_name, 0, GoType("string", "string"), True, False, False)


def drops_zero(field: GoField) -> bool:
    """Whether omitempty can leave the field out: never for structs, and for pointers only nil counts."""
    return field.omitempty and field.type.kind not in ("struct", "special", "pointer")


@cache
def always_present(message: str) -> tuple[tuple[str, Any], ...]:
    """Members that Go writes even when nobody set them, with their zero values. Copy before use."""
    present = []
    for field in members(message):
        kind = field.type.kind
        if (kind in ("struct", "special") and not field.omitzero) or (
            kind not in ("struct", "special") and not field.omitempty
        ):
            present.append((field.json_name, zero_value(field.type)))
    return tuple(present)


def zero_value(type_: GoType) -> Any:
    """The JSON of Go's zero value."""
    if type_.kind == "struct":
        return {name: deep_copy(value) for name, value in always_present(type_.struct)}
    if type_.kind == "special":
        special: dict[str, Any] = {gotypes.QUANTITY: "0", gotypes.INT_OR_STRING: 0, gotypes.DURATION: "0s"}
        if type_.struct in gotypes.SCHEMA_OR_BOOL:
            return False
        return special.get(type_.struct)
    return {"string": "", "bool": False, "int32": 0, "int64": 0, "float64": 0}.get(type_.kind)


def fill(message: str, obj: Obj) -> Obj:
    """Add the members that are always there to an object that has been read."""
    for name, value in always_present(message):
        if name not in obj:
            obj[name] = deep_copy(value) if isinstance(value, dict) else value
    return obj


# --- reading ------------------------------------------------------------------------------------------------------


@cache
def _struct_reader(message: str) -> Reader:
    name = message.rpartition(".")[2]
    wanted = gotypes.display_name(message)
    table: dict[str, tuple[Reader, bool, bool]] = {}
    embedded: dict[str, tuple[str, ...]] = {}
    present = always_present(message)
    compiled = False

    def read(value: Any) -> Any:
        nonlocal compiled
        if not compiled:  # now, not when the reader is made: types may contain themselves
            for field in members(message):
                # ObjectMeta's only omitzero field is a time, which reads as null when zero
                drop = drops_zero(field) or field.omitzero
                table[field.json_name] = (reader(field.type), drop, not drop and field.type.kind in ("slice", "map"))
                if field.embedded:
                    embedded[field.json_name] = field.embedded
            compiled = True
        if type(value) is not dict:
            raise _mismatch(value, wanted)
        result = {}
        key = ""
        try:
            for key, member in value.items():
                if member is None:
                    continue
                found = table.get(key)
                if found is None:
                    continue
                read_member, drop, stored_as_null = found
                read_value = read_member(member)
                if not read_value:
                    if drop:
                        continue
                    if stored_as_null:  # protobuf, in which the server keeps it, does not tell empty from absent
                        read_value = None
                result[key] = read_value
        except MismatchError as error:
            error.struct = error.struct or name
            error.path += [key, *reversed(embedded.get(key, ()))]
            raise
        for key, zero in present:
            if key not in result:
                result[key] = deep_copy(zero) if type(zero) is dict else zero
        return result

    return read


def reader(type_: GoType) -> Reader:
    """The reader of a type."""
    kind = type_.kind
    if kind == "struct":
        return _struct_reader(type_.struct)
    if kind == "special":
        return _special_reader(type_)
    if kind == "slice" and type_.element:
        return _slice_reader(type_.name, type_.element)
    if kind == "map" and type_.element:
        return _map_reader(type_.name, type_.element)
    if kind == "pointer" and type_.element:
        return reader(type_.element)
    return _scalar_reader(kind, type_.name)


@cache
def _scalar_reader(kind: str, name: str) -> Reader:
    def read_text(value: Any) -> Any:
        if type(value) is not str:
            raise _mismatch(value, name)
        return value

    def read_bool(value: Any) -> Any:
        if type(value) is not bool:
            raise _mismatch(value, name)
        return value

    low, high = (-(2**31), 2**31 - 1) if kind == "int32" else (-(2**63), 2**63 - 1)

    def read_int(value: Any) -> Any:
        if type(value) is not int or not low <= value <= high:
            raise _mismatch(value, name)
        return value

    def read_float(value: Any) -> Any:
        if type(value) is float:
            return int(value) if value.is_integer() and abs(value) < 1e21 else value
        if type(value) is not int:
            raise _mismatch(value, name)
        return value

    def read_bytes(value: Any) -> Any:
        if type(value) is not str:
            raise _mismatch(value, "[]uint8")
        return canonical_base64(value)

    readers = {"string": read_text, "bool": read_bool, "float64": read_float, "bytes": read_bytes}
    return readers.get(kind, read_int)


def _slice_reader(name: str, element: GoType) -> Reader:
    read = reader(element)
    null = zero_value(element)
    plain = element.kind == "string"

    def read_slice(value: Any) -> Any:
        if type(value) is not list:
            raise _mismatch(value, name)
        if plain and all(type(item) is str for item in value):
            return list(value)
        return [deep_copy(null) if item is None else read(item) for item in value]

    return read_slice


def _map_reader(name: str, element: GoType) -> Reader:
    read = reader(element)
    null = zero_value(element)
    plain = element.kind == "string"

    def read_map(value: Any) -> Any:
        if type(value) is not dict:
            raise _mismatch(value, name)
        if plain and all(type(item) is str for item in value.values()):
            return dict(value)
        return {key: deep_copy(null) if item is None else read(item) for key, item in value.items()}

    return read_map


def _special_reader(type_: GoType) -> Reader:
    message = type_.struct
    if message in gotypes.SCHEMA_OR_BOOL | gotypes.SCHEMA_OR_ARRAY | gotypes.SCHEMA_OR_STRINGS:
        return _schema_union_reader(message)
    return {
        gotypes.TIME: _read_time,
        gotypes.MICRO_TIME: _read_micro_time,
        gotypes.DURATION: _read_duration,
        gotypes.QUANTITY: _read_quantity,
        gotypes.INT_OR_STRING: _read_int_or_string,
    }.get(message, lambda value: value)


def _read_time(value: Any) -> Any:
    if type(value) is not str:
        raise _special_mismatch(value, "string")
    text = time.format_time(time.parse_time(value))
    return None if text == "0001-01-01T00:00:00Z" else text


def _read_micro_time(value: Any) -> Any:
    if type(value) is not str:
        raise _special_mismatch(value, "string")
    text = time.format_micro_time(time.parse_micro_time(value))
    return None if text == "0001-01-01T00:00:00.000000Z" else text


def _read_duration(value: Any) -> Any:
    if type(value) is not str:
        raise _special_mismatch(value, "string")
    return time.format_duration(time.parse_duration(value))


def _read_quantity(value: Any) -> Any:
    if type(value) is bool or not isinstance(value, (str, int, float)):
        value = orjson.dumps(value).decode()
    try:
        return quantity.canonical(value.strip() if isinstance(value, str) else value)
    except quantity.QuantityError as error:
        raise DecodeError(str(error)) from None


def _read_int_or_string(value: Any) -> Any:
    if type(value) is str:
        return value
    if type(value) is not int or not -(2**31) <= value < 2**31:
        raise _special_mismatch(value, "int32")
    return value


def _schema_union_reader(message: str) -> Reader:
    schema = message.rpartition(".")[0] + ".JSONSchemaProps"

    def read(value: Any) -> Any:
        if type(value) is dict:
            return _struct_reader(schema)(value)
        if message in gotypes.SCHEMA_OR_BOOL:
            if type(value) is bool:
                return value
            raise DecodeError("boolean or JSON schema expected")
        if type(value) is list:
            if message in gotypes.SCHEMA_OR_ARRAY:
                return [_struct_reader(schema)(item) for item in value]
            return [_scalar_reader("string", "string")(item) for item in value]
        return None

    return read


# --- strictness ---------------------------------------------------------------------------------------------------

Walker = Callable[[Any, str], Iterator[str]]


@cache
def _struct_walker(message: str) -> Walker:
    table: dict[str, Walker | None] = {}
    compiled = False

    def walk(value: Any, where: str) -> Iterator[str]:
        nonlocal compiled
        if not compiled:
            table.update((field.json_name, _walker(field.type)) for field in members(message))
            compiled = True
        seen: set[str] = set()
        for key, member in _items(value):
            path = f"{where}.{key}" if where else key
            if key not in table:
                yield f'unknown field "{path}"'
                continue
            if key in seen:
                yield f'duplicate field "{path}"'
            seen.add(key)
            below = table[key]
            if below is not None and member is not None:
                yield from below(member, path)

    return walk


def _items(value: Any) -> Any:
    if isinstance(value, Pairs):
        return value
    return value.items() if isinstance(value, dict) else ()


def _walker(type_: GoType) -> Walker | None:
    """How to look below a member, or None where nothing can be unknown or repeated."""
    element = type_.element
    if type_.kind == "struct":
        return _struct_walker(type_.struct)
    if type_.kind == "special":
        union = type_.struct in gotypes.SCHEMA_OR_BOOL | gotypes.SCHEMA_OR_ARRAY | gotypes.SCHEMA_OR_STRINGS
        return _schema_union_walker(type_.struct) if union else None
    if element is None:
        return None
    below = _walker(element)
    if type_.kind == "pointer":
        return below
    if type_.kind == "map":
        return _map_walker(below)
    return None if below is None else _slice_walker(below)


def _map_walker(below: Walker | None) -> Walker:
    def walk(value: Any, where: str) -> Iterator[str]:
        seen: set[str] = set()
        for key, member in _items(value):
            path = f"{where}.{key}"
            if key in seen:
                yield f'duplicate field "{path}"'
            seen.add(key)
            if below is not None and member is not None:
                yield from below(member, path)

    return walk


def _slice_walker(below: Walker) -> Walker:
    def walk(value: Any, where: str) -> Iterator[str]:
        if isinstance(value, list) and not isinstance(value, Pairs):
            for index, item in enumerate(value):
                yield from below(item, f"{where}[{index}]")

    return walk


def _schema_union_walker(message: str) -> Walker:
    schema = message.rpartition(".")[0] + ".JSONSchemaProps"

    def walk(value: Any, where: str) -> Iterator[str]:
        if isinstance(value, (dict, Pairs)):
            yield from _struct_walker(schema)(value, where)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from _struct_walker(schema)(item, f"{where}[{index}]")

    return walk
