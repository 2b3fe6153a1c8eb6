"""The types of CEL expressions in CustomResourceDefinitions: schemas as protobuf messages, which the compiler understands.

Rules are evaluated on plain maps and lists; they are checked against these types first, so that a field that the schema does
not have, an operator that does not take such values or a rule that is no bool are found when the definition is written.
Contract: k8s.io/apiserver/pkg/cel/common/schemas.go (SchemaDeclType).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool

from bowsprit.machinery import cel
from bowsprit.machinery.objects import Obj

_PACKAGE = "object"
_ANY = "google.protobuf.Value"  # what the checker takes for a value of any type
_TIMES = {"date-time": "google.protobuf.Timestamp", "date": "google.protobuf.Timestamp"}
_RESOURCE: Obj = {
    "kind": {"type": "string"},
    "apiVersion": {"type": "string"},
    "metadata": {"type": "object", "properties": {"name": {"type": "string"}, "generateName": {"type": "string"}}},
}
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "string": ("STRING", _Field.TYPE_STRING),
    "integer": ("INT", _Field.TYPE_INT64),
    "number": ("DOUBLE", _Field.TYPE_DOUBLE),
    "boolean": ("BOOL", _Field.TYPE_BOOL),
    "bytes": ("BYTES", _Field.TYPE_BYTES),
}


# Numbers of different types can be compared in Kubernetes; the library's checker refuses what its evaluation understands.
_NUMBERS = r"(?:int|uint|double)"
_COMPARED_NUMBERS = re.compile(rf"found no matching overload for '_[<>]=?_' applied to '\({_NUMBERS}, {_NUMBERS}\)'")


class RuleTypes:
    """Checks the expressions over values of one schema."""

    def __init__(self, schema: Obj, *, root: bool = False, variables: tuple[str, ...] = ("self", "oldSelf")) -> None:
        """Args:
        root: whether they are whole objects, which have apiVersion, kind and the names of their metadata.
        variables: what expressions call such values.
        """
        types = _SchemaTypes({**schema, "x-kubernetes-embedded-resource": True} if root else schema)
        self._environment = cel.environment(dict.fromkeys(variables, types.own), types.pool)

    def result(self, expression: str) -> str:
        """The declared type of an expression's value: BOOL, STRING, DYN… Raises CelError."""
        try:
            return str(cel.compile_in(self._environment, expression).return_type().name())
        except cel.CelError as error:
            problems = str(error).split("ERROR: ")[1:]
            if problems and all(map(_COMPARED_NUMBERS.search, problems)):
                return cel.compile_expression(expression).result
            raise


class _SchemaTypes:
    """The types of one schema: `own` is that of its values, `pool` holds the messages."""

    def __init__(self, schema: Obj) -> None:
        self._file = descriptor_pb2.FileDescriptorProto(name="schema.proto", package=_PACKAGE, syntax="proto3")
        self._messages: dict[int, str] = {}
        signature = self._signature(schema)
        self.pool = descriptor_pool.DescriptorPool()
        for module in _well_known():
            self._file.dependency.append(module.DESCRIPTOR.name)
            self.pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        self.pool.AddSerializedFile(self._file.SerializeToString())
        self.own = signature()

    def _signature(self, schema: Any) -> Callable[[], Any]:
        """Makes the type of a variable; its messages are in the file already, and must be in the pool before the type is made."""
        from cel_expr_python.cel import Type

        kind = _kind(schema)
        if kind in _SCALARS:
            return lambda: getattr(Type, _SCALARS[kind][0])
        if kind == "list":
            items = self._signature(schema["items"])
            return lambda: Type.List(items())
        if kind == "map":
            values = self._signature(schema["additionalProperties"])
            return lambda: Type.Map(Type.STRING, values())
        if kind == "any":
            return lambda: Type.DYN
        name = self._message(schema) if kind == "message" else kind
        return lambda: Type(name)

    def _message(self, schema: Obj) -> str:
        """The full name of the message of an object's schema."""
        if id(schema) in self._messages:
            return self._messages[id(schema)]
        name = f"T{len(self._messages)}"
        self._messages[id(schema)] = f"{_PACKAGE}.{name}"
        message = self._file.message_type.add(name=name)
        properties: Obj = schema.get("properties") or {}
        if schema.get("x-kubernetes-embedded-resource"):
            properties = {**properties, **_RESOURCE}
        for property_name, below in properties.items():
            escaped = cel.escaped(property_name, properties)
            if not (escaped.isidentifier() and escaped.isascii()):
                continue  # cannot be written in expressions
            field = message.field.add(name=escaped, number=len(message.field) + 1, label=_Field.LABEL_OPTIONAL)
            field.json_name = escaped
            self._fill(field, below, message)
        return f"{_PACKAGE}.{message.name}"

    def _fill(self, field: Any, schema: Any, owner: Any) -> None:
        kind = _kind(schema)
        if kind == "list":
            inner = _kind(schema["items"])
            if inner in ("list", "map"):  # protobuf has no lists of lists
                kind = "any"
            else:
                field.label = _Field.LABEL_REPEATED
                self._fill(field, schema["items"], owner)
                return
        if kind == "map":
            inner = _kind(schema["additionalProperties"])
            taken = {entry.name for entry in owner.nested_type}
            if inner in ("list", "map") or _entry_name(field.name) in taken:
                kind = "any"
            else:
                self._fill_map(field, schema["additionalProperties"], owner)
                return
        if kind in _SCALARS:
            field.type = _SCALARS[kind][1]
        else:
            field.type = _Field.TYPE_MESSAGE
            field.type_name = "." + (_ANY if kind == "any" else self._message(schema) if kind == "message" else kind)

    def _fill_map(self, field: Any, values: Any, owner: Any) -> None:
        entry = owner.nested_type.add(name=_entry_name(field.name))
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
        value = entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL)
        self._fill(value, values, entry)
        field.label = _Field.LABEL_REPEATED
        field.type = _Field.TYPE_MESSAGE
        field.type_name = f".{_PACKAGE}.{owner.name}.{entry.name}"


def _entry_name(field: str) -> str:
    """How protobuf insists on naming the message of a map's entries."""
    return "".join(part[:1].upper() + part[1:] for part in field.split("_")) + "Entry"


def _kind(schema: Any) -> str:
    """A scalar's kind, "list", "map", "message", "any", or the name of a well-known message."""
    if not isinstance(schema, dict) or schema.get("x-kubernetes-int-or-string"):
        return "any"
    kind = schema.get("type")
    if kind == "array":
        return "list" if isinstance(schema.get("items"), dict) else "any"
    if kind == "object":
        return "map" if isinstance(schema.get("additionalProperties"), dict) else "message"
    if kind == "string":
        form = schema.get("format", "")
        if form == "byte":
            return "bytes"
        return "google.protobuf.Duration" if form == "duration" else _TIMES.get(form, "string")
    return str(kind) if kind in _SCALARS else "any"


def _well_known() -> tuple[Any, ...]:
    from google.protobuf import duration_pb2, struct_pb2, timestamp_pb2

    return duration_pb2, struct_pb2, timestamp_pb2
