"""Types as server-side apply sees them: scalars, lists that are atomic, sets or keyed, maps that are atomic or granular.

Built-in kinds get theirs from the Go types' markers, custom resources from their structural schema (`x-kubernetes-list-type`,
`-list-map-keys`, `-map-type`). Where a schema says nothing the type is deduced from the value: lists atomic, maps granular.
Contract: sigs.k8s.io/structured-merge-diff/schema and k8s.io/kube-openapi/pkg/schemaconv.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from bowsprit.machinery import builtin, gotypes
from bowsprit.machinery.gotypes import GoType
from bowsprit.machinery.objects import Obj

SCALAR, LIST, MAP, DEDUCED = "scalar", "list", "map", "deduced"
STRING, NUMERIC, BOOLEAN, UNTYPED = "string", "numeric", "boolean", "untyped"

_NO_DEFAULT: Any = object()


@dataclass(slots=True, eq=False)
class Typed:
    """One type.

    `kind` is scalar, list, map or deduced. A list has `keys` when it is keyed and is a set when it is neither atomic nor
    keyed. A map has named `fields`, an `element` type for other members, or both; members that fit neither are refused.
    Fields are made on first use, since types may contain themselves.
    """

    kind: str
    scalar: str = ""
    atomic: bool = False
    keys: tuple[str, ...] = ()
    key_defaults: Mapping[str, Any] = field(default_factory=dict)
    element: Typed | None = None
    make_fields: Callable[[], dict[str, Typed]] | None = None
    _fields: dict[str, Typed] | None = None
    _make_element: Callable[[], Typed] | None = None

    @property
    def fields(self) -> dict[str, Typed]:
        if self._fields is None:
            self._fields = self.make_fields() if self.make_fields else {}
        return self._fields

    def member(self, name: str) -> Typed | None:
        """The type of a map's member, None if there must be none."""
        return self.fields.get(name) or self.item

    @property
    def item(self) -> Typed | None:
        """The type of a list's items or a map's unnamed members."""
        if self.element is None and self._make_element is not None:
            self.element = self._make_element()
        return self.element

    def resolve(self, value: Any) -> Typed:
        """The type itself, or what a value makes of a deduced one."""
        if self.kind != DEDUCED:
            return self
        if value is None or isinstance(value, dict):
            return DEDUCED_MAP
        return DEDUCED_LIST if isinstance(value, list) else ANY_SCALAR


ANY_SCALAR = Typed(SCALAR, UNTYPED)
ANY = Typed(DEDUCED)
DEDUCED_LIST = Typed(LIST, atomic=True, element=ANY)
DEDUCED_MAP = Typed(MAP, element=ANY)
ATOMIC_ANY = Typed(MAP, atomic=True, element=ANY)
_TEXT = Typed(SCALAR, STRING)

_TEXTS = frozenset({gotypes.TIME, gotypes.MICRO_TIME, gotypes.DURATION})
OBJECT_META = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta"


# --- built-in kinds -----------------------------------------------------------------------------------------------


@cache
def of_message(message: str) -> Typed:
    """The type of a built-in struct."""
    return _of_struct(message, gotypes.merging_of(message).get("structType") == "atomic")


def _of_struct(message: str, atomic: bool) -> Typed:
    def make_fields() -> dict[str, Typed]:
        return {
            member.json_name: _of_go(member.type, {**gotypes.merging_of(member.type.struct), **member.merging})
            for member in builtin.members(message)
        }

    return Typed(MAP, atomic=atomic, make_fields=make_fields)


def _of_go(type_: GoType, merging: Mapping[str, Any]) -> Typed:
    kind = type_.kind
    if kind == "pointer" and type_.element:
        return _of_go(type_.element, {**gotypes.merging_of(type_.element.struct), **merging})
    if kind == "struct":
        atomic = merging.get("structType", merging.get("mapType")) == "atomic"
        own = gotypes.merging_of(type_.struct).get("structType") == "atomic"
        return of_message(type_.struct) if atomic == own else _of_struct(type_.struct, atomic)
    if kind == "map" and type_.element:
        return Typed(MAP, atomic=merging.get("mapType") == "atomic", element=_of_go(type_.element, {}))
    if kind == "slice" and type_.element:
        return _of_slice(type_.element, merging)
    if type_.struct == gotypes.RAW_EXTENSION:
        return ATOMIC_ANY
    if kind == "special" and type_.struct not in _TEXTS:
        return ANY_SCALAR if type_.struct == gotypes.QUANTITY else ANY
    scalars = {"bool": BOOLEAN, "int32": NUMERIC, "int64": NUMERIC, "float64": NUMERIC}
    return Typed(SCALAR, scalars.get(kind, STRING))


def _of_slice(element: GoType, merging: Mapping[str, Any]) -> Typed:
    list_type = merging.get("listType", "atomic")
    keys = tuple(merging.get("listMapKey", ())) if list_type == "map" else ()
    defaults = {}
    for member in builtin.members(element.struct) if keys else ():
        if member.json_name in keys:
            if "default" in member.merging:
                defaults[member.json_name] = member.merging["default"]
            elif not member.omitempty and member.type.kind != "pointer":
                defaults[member.json_name] = builtin.zero_value(member.type)
    return Typed(
        LIST,
        atomic=list_type == "atomic",
        keys=keys,
        key_defaults=defaults,
        _make_element=lambda: _of_go(element, gotypes.merging_of(element.struct)),
    )


# --- schemas ------------------------------------------------------------------------------------------------------

Resolver = Callable[[str], Obj]
"""The schema behind a `$ref`."""


def of_custom_resource(schema: Obj | None) -> Typed:
    """The type of a custom resource with this structural schema (None: anything but the usual metadata)."""
    root = of_schema(schema) if schema else Typed(MAP, element=ANY)

    def make_fields() -> dict[str, Typed]:
        return {**root.fields, "apiVersion": _TEXT, "kind": _TEXT, "metadata": of_message(OBJECT_META)}

    element = ANY if root.kind == DEDUCED else root.item
    return Typed(MAP, element=element, make_fields=make_fields)


def of_schema(schema: Obj, resolver: Resolver | None = None) -> Typed:
    """The type that an OpenAPI schema describes."""
    target = _referenced(schema)
    if target is not None and resolver is not None:
        merged = {
            **resolver(target),
            **{key: value for key, value in schema.items() if key.startswith("x-kubernetes-")},
        }
        return of_schema(merged, resolver)
    if schema.get("x-kubernetes-int-or-string"):
        return ANY_SCALAR
    preserves = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return _of_object_schema(schema, preserves, resolver)
    if kind == "array":
        return _of_array_schema(schema, resolver)
    if kind in ("integer", "number"):
        return Typed(SCALAR, NUMERIC)
    if kind == "string":
        return _TEXT
    return Typed(SCALAR, BOOLEAN) if kind == "boolean" else ANY


def _referenced(schema: Obj) -> str | None:
    """The target of a `$ref`, also of one wrapped in allOf for the sake of its siblings."""
    if "$ref" in schema:
        return str(schema["$ref"])
    parts: list[Obj] = schema.get("allOf") or []
    if len(parts) == 1 and "$ref" in parts[0] and "type" not in schema:
        return str(parts[0]["$ref"])
    return None


def _of_object_schema(schema: Obj, preserves: bool, resolver: Resolver | None) -> Typed:
    properties: Obj = schema.get("properties") or {}
    additional = schema.get("additionalProperties")
    embedded = bool(schema.get("x-kubernetes-embedded-resource"))
    atomic = schema.get("x-kubernetes-map-type") == "atomic"
    if preserves and schema.get("type") != "object" and not properties and not embedded and not atomic:
        return ANY

    def make_fields() -> dict[str, Typed]:
        fields = {name: of_schema(below, resolver) for name, below in properties.items()}
        if embedded:
            fields |= {"apiVersion": _TEXT, "kind": _TEXT, "metadata": of_message(OBJECT_META)}
        return fields

    element = ANY if preserves or additional is True else None
    if isinstance(additional, dict):
        return Typed(MAP, atomic=atomic, make_fields=make_fields, _make_element=lambda: of_schema(additional, resolver))
    return Typed(MAP, atomic=atomic, make_fields=make_fields, element=element)


def _of_array_schema(schema: Obj, resolver: Resolver | None) -> Typed:
    list_type = schema.get("x-kubernetes-list-type", "atomic")
    items: Obj = schema.get("items") or {}
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ()) if list_type == "map" else ()
    properties = items.get("properties") or {}
    defaults = {key: properties[key]["default"] for key in keys if "default" in properties.get(key, {})}
    return Typed(
        LIST,
        atomic=list_type == "atomic",
        keys=keys,
        key_defaults=defaults,
        _make_element=lambda: of_schema(items, resolver) if items else ANY,
    )
