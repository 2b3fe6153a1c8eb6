"""The built-in types as Go declares them: fields in order, protobuf numbers, pointers, omitempty.

JSON alone does not say whether an absent number is zero, nor whether a written zero was meant; Go's types do, and both
encodings follow from them. The table is data (data/gotypes.json.gz, written by tools/generate_protobuf_tables.py);
here its type expressions become values. What to do with them is in builtin.py (JSON) and protobuf.py.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import orjson

from bowsprit.machinery.names import GroupVersionKind

_META = "k8s.io.apimachinery.pkg.apis.meta.v1."
TIME = _META + "Time"
MICRO_TIME = _META + "MicroTime"
DURATION = _META + "Duration"
FIELDS_V1 = _META + "FieldsV1"
QUANTITY = "k8s.io.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "k8s.io.apimachinery.pkg.util.intstr.IntOrString"
RAW_EXTENSION = "k8s.io.apimachinery.pkg.runtime.RawExtension"
_APIEXTENSIONS = tuple(
    f"k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.{version}." for version in ("v1", "v1beta1")
)
JSON = frozenset(prefix + "JSON" for prefix in _APIEXTENSIONS)
SCHEMA_OR_BOOL = frozenset(prefix + "JSONSchemaPropsOrBool" for prefix in _APIEXTENSIONS)
SCHEMA_OR_ARRAY = frozenset(prefix + "JSONSchemaPropsOrArray" for prefix in _APIEXTENSIONS)
SCHEMA_OR_STRINGS = frozenset(prefix + "JSONSchemaPropsOrStringArray" for prefix in _APIEXTENSIONS)

SPECIAL = (
    frozenset({TIME, MICRO_TIME, DURATION, FIELDS_V1, QUANTITY, INT_OR_STRING, RAW_EXTENSION})
    | JSON
    | SCHEMA_OR_BOOL
    | SCHEMA_OR_ARRAY
    | SCHEMA_OR_STRINGS
)
"""Structs with a JSON form of their own."""

SCALARS = frozenset({"string", "bool", "int32", "int64", "float64"})


@dataclass(frozen=True, slots=True)
class GoType:
    """A type: `kind` is a scalar's name, bytes, struct, special, pointer, slice or map.

    `name` is what Go prints (`[]v1.Container`); `struct` the message name of a struct or special; `element` what a
    pointer, slice or map holds; `boxed` tells a named slice that protobuf wraps in a message of its own (ExtraValue).
    """

    kind: str
    name: str
    struct: str = ""
    element: GoType | None = None
    boxed: bool = False


@dataclass(frozen=True, slots=True)
class GoField:
    """One field. A field without a number is not in protobuf; an inlined one lends its members to the parent in JSON.

    `merging` has what patches and apply must know: patchStrategy, patchMergeKey, listType, listMapKey (a list), mapType,
    structType, as upstream writes them in tags and markers.
    """

    go_name: str
    json_name: str
    number: int
    type: GoType
    omitempty: bool
    omitzero: bool
    inline: bool
    merging: Mapping[str, Any] = field(default_factory=dict)
    embedded: tuple[str, ...] = ()  # the inlined structs that a member of the parent comes from, outermost first


@cache
def _table() -> dict[str, dict[str, Any]]:
    data = resources.files("bowsprit.machinery").joinpath("data/gotypes.json.gz").read_bytes()
    table: dict[str, dict[str, Any]] = orjson.loads(gzip.decompress(data))
    return table


def display_name(message: str) -> str:
    """`v1.Container` for `k8s.io.api.core.v1.Container`."""
    return ".".join(message.rsplit(".", 2)[1:])


@cache
def parse_type(expression: str) -> GoType:
    """The type that an expression of the table stands for."""
    if expression == "[]byte":
        return GoType("bytes", "[]uint8")
    if expression.startswith("*"):
        element = parse_type(expression[1:])
        return GoType("pointer", element.name, element=element)
    if expression.startswith("[]"):
        element = parse_type(expression[2:])
        return GoType("slice", f"[]{_printed(expression[2:])}", element=element)
    if expression.startswith("map["):
        key, _, value = expression[4:].partition("]")
        return GoType("map", f"map[{_printed(key)}]{_printed(value)}", element=parse_type(value))
    if expression in SCALARS:
        return GoType(expression, expression)
    if expression in SPECIAL:
        return GoType("special", display_name(expression), struct=expression)
    if expression in _table()["structs"]:
        return GoType("struct", display_name(expression), struct=expression)
    target = _table()["named"][expression]
    meant = parse_type(target)
    if meant.kind in ("struct", "special"):
        return meant
    boxed = meant.kind == "slice" and expression.endswith((".ExtraValue", ".Verbs"))
    return GoType(meant.kind, display_name(expression), meant.struct, meant.element, boxed)


def _printed(expression: str) -> str:
    """How Go prints a type inside another one."""
    return "*" + _printed(expression[1:]) if expression.startswith("*") else parse_type(expression).name


@cache
def fields_of(message: str) -> tuple[GoField, ...]:
    """The fields of a struct in Go's order, inlined ones not yet flattened."""
    return tuple(
        GoField(go_name, json_name, number, parse_type(expression), "o" in flags, "z" in flags, "i" in flags, *merging)
        for go_name, json_name, number, expression, flags, *merging in _table()["structs"][message]
    )


@cache
def _kinds() -> dict[GroupVersionKind, str]:
    table = _table()
    kinds: dict[GroupVersionKind, str] = {}
    structs = {name: name for name in table["structs"]}
    structs |= {name: target for name, target in table["named"].items() if target in structs}
    for name, message in structs.items():
        package, _, kind = name.rpartition(".")
        if package in table["groups"] and any(entry[0] == "TypeMeta" for entry in table["structs"][message]):
            kinds[GroupVersionKind(table["groups"][package], package.rpartition(".")[2], kind)] = message
    return kinds


def message_of(gvk: GroupVersionKind) -> str | None:
    """The message name of a kind. Kinds of meta/v1 (Status, DeleteOptions, APIGroup…) are known in every group version."""
    return _kinds().get(gvk) or _kinds().get(GroupVersionKind("meta.k8s.io", "v1", gvk.kind))


def merging_of(message: str) -> Mapping[str, Any]:
    """The markers on the type itself, such as structType=atomic."""
    merging: Mapping[str, Any] = _table()["merging"].get(message, {})
    return merging


@cache
def _struct_names() -> frozenset[str]:
    return frozenset(display_name(message) for message in _table()["structs"])


def is_struct(name: str) -> bool:
    """Whether what Go prints as `v1.Container` is a struct."""
    return name in _struct_names()


def has_message(message: str) -> bool:
    return message in _table()["structs"]
