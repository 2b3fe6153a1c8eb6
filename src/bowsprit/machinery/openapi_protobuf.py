"""OpenAPI v2 documents as protobuf: what kubectl up to 1.26 asks for, and newer ones when they must do without v3.

The messages are gnostic's openapi.v2 (media type application/com.github.proto-openapi.spec.v2.v1.0+protobuf): JSON objects
with free names become repeated (name, value) pairs, untyped values their YAML text, and choices a message with one field.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from bowsprit.machinery.objects import Obj
from bowsprit.machinery.protobufencoding import length_delimited, varint
from bowsprit.machinery.yamlcodec import encode_yaml

Writer = Callable[[int, Any], bytes]
"""Writes a value as a field of a number; b"" for what proto3 leaves out."""

Message = Mapping[str, tuple[int, Writer]]
"""JSON member to field number and writer."""


def _text(number: int, value: Any) -> bytes:
    return length_delimited(number, str(value).encode()) if value else b""


def _flag(number: int, value: Any) -> bytes:
    return varint(number << 3) + b"\x01" if value else b""


def _whole(number: int, value: Any) -> bytes:
    return varint(number << 3) + varint(int(value)) if value else b""


def _double(number: int, value: Any) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value) if value else b""


def _texts(number: int, values: Any) -> bytes:
    return b"".join(length_delimited(number, str(value).encode()) for value in values or ())


def _any(number: int, value: Any) -> bytes:
    """An Any holds the value's YAML in field 2."""
    return length_delimited(number, length_delimited(2, encode_yaml(value).encode()))


def _anys(number: int, values: Any) -> bytes:
    return b"".join(_any(number, value) for value in values or ())


def _encode(message: Message, obj: Obj) -> bytes:
    """The fields of an object in the order of their numbers, its x- members as vendor extensions."""
    parts = []
    for name, (number, write) in message.items():
        if name == _EXTENSIONS:
            for key in sorted(obj):
                if key.startswith("x-"):
                    parts.append(length_delimited(number, length_delimited(1, key.encode()) + _any(2, obj[key])))
        elif name in obj and obj[name] is not None:
            parts.append(write(number, obj[name]))
    return b"".join(parts)


_EXTENSIONS = "x-*"


def _ext(number: int) -> tuple[int, Writer]:
    return number, _text  # the writer is not used: see _encode


def _one(message: Message) -> Writer:
    return lambda number, value: length_delimited(number, _encode(message, value))


def _named(write: Writer) -> Writer:
    """A JSON object with free names: a message whose field 1 repeats (name, value)."""

    def encode(number: int, values: Any) -> bytes:
        return length_delimited(number, _pairs(1, values, write))

    return encode


def _pairs(number: int, values: Any, write: Writer) -> bytes:
    return b"".join(
        length_delimited(number, length_delimited(1, name.encode()) + write(2, value))
        for name, value in sorted(values.items())
    )


# --- schemas ------------------------------------------------------------------------------------------------------


def _schema(number: int, value: Any) -> bytes:
    return length_delimited(number, _encode(_SCHEMA, value))


def _schemas(number: int, values: Any) -> bytes:
    return b"".join(_schema(number, value) for value in values or ())


def _additional(number: int, value: Any) -> bytes:
    if isinstance(value, bool):  # the member of a choice is written though false
        return length_delimited(number, b"\x10" + bytes([value]))
    return length_delimited(number, _schema(1, value))


def _type(number: int, value: Any) -> bytes:
    return length_delimited(number, _texts(1, [value] if isinstance(value, str) else value))


def _items(number: int, value: Any) -> bytes:
    return length_delimited(number, _schemas(1, value if isinstance(value, list) else [value]))


_DOCS: Message = {"description": (1, _text), "url": (2, _text), _EXTENSIONS: _ext(3)}
_SCHEMA: Message = {
    "$ref": (1, _text),
    "format": (2, _text),
    "title": (3, _text),
    "description": (4, _text),
    "default": (5, _any),
    "multipleOf": (6, _double),
    "maximum": (7, _double),
    "exclusiveMaximum": (8, _flag),
    "minimum": (9, _double),
    "exclusiveMinimum": (10, _flag),
    "maxLength": (11, _whole),
    "minLength": (12, _whole),
    "pattern": (13, _text),
    "maxItems": (14, _whole),
    "minItems": (15, _whole),
    "uniqueItems": (16, _flag),
    "maxProperties": (17, _whole),
    "minProperties": (18, _whole),
    "required": (19, _texts),
    "enum": (20, _anys),
    "additionalProperties": (21, _additional),
    "type": (22, _type),
    "items": (23, _items),
    "allOf": (24, _schemas),
    "properties": (25, _named(_schema)),
    "discriminator": (26, _text),
    "readOnly": (27, _flag),
    "externalDocs": (29, _one(_DOCS)),
    "example": (30, _any),
    _EXTENSIONS: _ext(31),
}

# --- parameters ---------------------------------------------------------------------------------------------------

_LIMITS: tuple[tuple[str, Writer], ...] = (
    ("type", _text),
    ("format", _text),
    ("items", lambda number, value: length_delimited(number, _encode(_PRIMITIVES, value))),
    ("collectionFormat", _text),
    ("default", _any),
    ("maximum", _double),
    ("exclusiveMaximum", _flag),
    ("minimum", _double),
    ("exclusiveMinimum", _flag),
    ("maxLength", _whole),
    ("minLength", _whole),
    ("pattern", _text),
    ("maxItems", _whole),
    ("minItems", _whole),
    ("uniqueItems", _flag),
    ("enum", _anys),
    ("multipleOf", _double),
)


def _limited(*first: tuple[str, Writer]) -> Message:
    """Messages that begin with own fields and go on with the limits of primitive values."""
    fields = [*first, *_LIMITS]
    return {name: (number, write) for number, (name, write) in enumerate(fields, 1)} | {
        _EXTENSIONS: _ext(len(fields) + 1)
    }


_PRIMITIVES: Message = _limited()
_HEADER_FIELDS: tuple[tuple[str, Writer], ...] = (
    ("required", _flag),
    ("in", _text),
    ("description", _text),
    ("name", _text),
)
_PLACES: Mapping[str, tuple[int, Message]] = {
    "header": (1, _limited(*_HEADER_FIELDS)),
    "formData": (2, _limited(*_HEADER_FIELDS, ("allowEmptyValue", _flag))),
    "query": (3, _limited(*_HEADER_FIELDS, ("allowEmptyValue", _flag))),
    "path": (4, _limited(*_HEADER_FIELDS)),
}
_BODY: Message = {
    "description": (1, _text),
    "name": (2, _text),
    "in": (3, _text),
    "required": (4, _flag),
    "schema": (5, _schema),
    _EXTENSIONS: _ext(6),
}


def _parameter(number: int, value: Any) -> bytes:
    if value.get("in") == "body":
        return length_delimited(number, length_delimited(1, _encode(_BODY, value)))
    place, message = _PLACES[value["in"]]
    return length_delimited(number, length_delimited(2, length_delimited(place, _encode(message, value))))


def _parameter_items(number: int, values: Any) -> bytes:
    return b"".join(
        length_delimited(
            number, length_delimited(2, _text(1, value["$ref"])) if "$ref" in value else _parameter(1, value)
        )
        for value in values or ()
    )


# --- operations ---------------------------------------------------------------------------------------------------


def _schema_item(number: int, value: Any) -> bytes:
    return length_delimited(number, _schema(1, value))


_HEADER: Message = {
    **{name: (number, write) for number, (name, write) in enumerate(_LIMITS, 1)},
    "description": (18, _text),
    _EXTENSIONS: _ext(19),
}
_RESPONSE: Message = {
    "description": (1, _text),
    "schema": (2, _schema_item),
    "headers": (3, _named(_one(_HEADER))),
    "examples": (4, _named(_any)),
    _EXTENSIONS: _ext(5),
}


def _response_value(number: int, value: Any) -> bytes:
    if "$ref" in value:
        return length_delimited(number, length_delimited(2, _text(1, value["$ref"])))
    return length_delimited(number, length_delimited(1, _encode(_RESPONSE, value)))


def _responses(number: int, values: Any) -> bytes:
    return length_delimited(number, _pairs(1, values, _response_value))


def _security(number: int, values: Any) -> bytes:
    return b"".join(
        length_delimited(number, _pairs(1, value, lambda place, names: length_delimited(place, _texts(1, names))))
        for value in values or ()
    )


_OPERATION: Message = {
    "tags": (1, _texts),
    "summary": (2, _text),
    "description": (3, _text),
    "externalDocs": (4, _one(_DOCS)),
    "operationId": (5, _text),
    "produces": (6, _texts),
    "consumes": (7, _texts),
    "parameters": (8, _parameter_items),
    "responses": (9, _responses),
    "schemes": (10, _texts),
    "deprecated": (11, _flag),
    "security": (12, _security),
    _EXTENSIONS: _ext(13),
}
_PATH_ITEM: Message = {
    "$ref": (1, _text),
    **{
        verb: (number, _one(_OPERATION))
        for number, verb in enumerate(("get", "put", "post", "delete", "options", "head", "patch"), 2)
    },
    "parameters": (9, _parameter_items),
    _EXTENSIONS: _ext(10),
}


def _paths(number: int, values: Any) -> bytes:
    return length_delimited(number, _pairs(2, values, _one(_PATH_ITEM)))


# --- the document -------------------------------------------------------------------------------------------------

_API_KEY: Message = {
    "type": (1, _text),
    "name": (2, _text),
    "in": (3, _text),
    "description": (4, _text),
    _EXTENSIONS: _ext(5),
}
_BASIC: Message = {"type": (1, _text), "description": (2, _text), _EXTENSIONS: _ext(3)}


def _security_definition(number: int, value: Any) -> bytes:
    """Kubernetes has bearer tokens as API keys; OAuth flows are not described."""
    basic = value.get("type") == "basic"
    return length_delimited(number, length_delimited(1 if basic else 2, _encode(_BASIC if basic else _API_KEY, value)))


_INFO: Message = {
    "title": (1, _text),
    "version": (2, _text),
    "description": (3, _text),
    "termsOfService": (4, _text),
    "contact": (5, _one({"name": (1, _text), "url": (2, _text), "email": (3, _text), _EXTENSIONS: _ext(4)})),
    "license": (6, _one({"name": (1, _text), "url": (2, _text), _EXTENSIONS: _ext(3)})),
    _EXTENSIONS: _ext(7),
}
_TAG: Message = {"name": (1, _text), "description": (2, _text), "externalDocs": (3, _one(_DOCS)), _EXTENSIONS: _ext(4)}
_DOCUMENT: Message = {
    "swagger": (1, _text),
    "info": (2, _one(_INFO)),
    "host": (3, _text),
    "basePath": (4, _text),
    "schemes": (5, _texts),
    "consumes": (6, _texts),
    "produces": (7, _texts),
    "paths": (8, _paths),
    "definitions": (9, _named(_schema)),
    "parameters": (10, _named(_parameter)),
    "responses": (11, _named(_one(_RESPONSE))),
    "security": (12, _security),
    "securityDefinitions": (13, _named(_security_definition)),
    "tags": (14, lambda number, values: b"".join(_one(_TAG)(number, value) for value in values)),
    "externalDocs": (15, _one(_DOCS)),
    _EXTENSIONS: _ext(16),
}


def encode_v2(document: Obj) -> bytes:
    """The protobuf form of an OpenAPI v2 document."""
    return _encode(_DOCUMENT, document)
