"""Structural schemas: what a CustomResourceDefinition does to its objects.

A Schema prunes unknown fields, fills in defaults and validates; `x-kubernetes-*` extensions are honoured. It is compiled
once and reused for every object. Contract: k8s.io/apiextensions-apiserver/pkg/apiserver/schema and
pkg/registry/customresource.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bowsprit.machinery import builtin, cel, codec, fielderrors, goformat, typed
from bowsprit.machinery.fielderrors import ErrorType, FieldError
from bowsprit.machinery.goformat import json_text
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.schemavalidation import Check, Resolver, Where, compile_schema, render
from bowsprit.machinery.typed import Typed

_META_FIELDS = frozenset({"apiVersion", "kind", "metadata"})
_BLOCKING = frozenset(
    {ErrorType.NOT_SUPPORTED, ErrorType.REQUIRED, ErrorType.TOO_LONG, ErrorType.TOO_MANY, ErrorType.TYPE_INVALID}
)
_NOT_CHECKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)
OBJECT_META = builtin.message_type(typed.OBJECT_META)


class Schema:
    """A compiled schema. `openapi` must not change afterwards."""

    def __init__(self, openapi: Obj, resolver: Resolver | None = None):
        self.openapi = openapi
        self._resolver = resolver
        self._check: Check = compile_schema(openapi, resolver)
        self._rules = cel.Rules(openapi)
        self._typed: Typed | None = None

    # -- reading ---------------------------------------------------------------------------------------------------

    def prune(self, obj: Obj, *, root: bool = True) -> list[str]:
        """Remove fields that the schema does not know, in place; their paths, sorted. `root`: a whole object, whose
        apiVersion, kind and metadata belong to nobody."""
        dropped: list[str] = []
        self._prune(obj, self.openapi, None, dropped, root)
        return sorted(dropped)

    def unknown_fields(self, obj: Obj, *, root: bool = True) -> list[str]:
        """The paths that `prune` would drop; the object stays as it is."""
        return self.prune(deep_copy(obj), root=root)

    def _prune(self, value: Any, schema: Obj | None, where: Where, dropped: list[str], root: bool = False) -> None:
        if isinstance(value, list):
            items = (schema or {}).get("items")
            for index, item in enumerate(value):
                self._prune(item, items, (where, f"[{index}]"), dropped)
        elif isinstance(value, dict):
            schema = self._follow(schema)
            self._prune_object(
                value, schema, where, dropped, root or bool(schema.get("x-kubernetes-embedded-resource"))
            )

    def _prune_object(self, obj: Obj, schema: Obj, where: Where, dropped: list[str], embedded: bool) -> None:
        properties = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        keeps = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
        for name in list(obj):
            place: Where = (where, f".{name}")
            if embedded and name in _META_FIELDS:
                if name == "metadata" and where is not None and isinstance(obj[name], dict):
                    dropped += (f"{render(place)}.{path}" for path in _unknown_metadata(obj[name]))
                    obj[name] = OBJECT_META.round_trip(obj[name])
                continue
            if name in properties:
                self._prune(obj[name], properties[name], place, dropped)
            elif isinstance(additional, dict):
                self._prune(obj[name], additional, place, dropped)
            elif not additional and not keeps:
                del obj[name]
                dropped.append(render(place))

    def _follow(self, schema: Obj | None) -> Obj:
        if schema is not None and "$ref" in schema and self._resolver is not None:
            return self._resolver(schema["$ref"])
        return schema or {}

    def default(self, obj: Any, *, keep_nulls: bool = False) -> None:
        """Fill in defaults in place; nulls that may not be null count as absent and go, if they are not to be kept."""
        _default(obj, self.openapi, keep_nulls)

    # -- judging ---------------------------------------------------------------------------------------------------

    def validate(self, value: Any, old: Any = None, more: Iterable[FieldError] = ()) -> list[FieldError]:
        """All that is wrong with a value, in upstream's order: schema, `more`, embedded objects, lists, then the CEL rules.

        The rules are not run on an object whose shape is wrong; a last error says so.
        """
        errors: list[FieldError] = []
        self._check(value, None, errors)
        errors += more
        _check_embedded(value, self.openapi, None, errors)
        _check_lists(value, self.openapi, None, errors)
        if self._rules:
            if any(error.type in _BLOCKING for error in errors):
                errors.append(fielderrors.invalid(None, None, _NOT_CHECKED))
            else:
                errors += self._rules.validate(value, old)
        return errors

    @property
    def typed(self) -> Typed:
        """The schema as server-side apply sees it."""
        if self._typed is None:
            self._typed = typed.of_custom_resource(self.openapi)
        return self._typed


class CustomResourceSchema:
    """How objects of one version of a custom resource are read and judged (apiserver's TypeSchema).

    `scale` is the version's `subresources.scale`, whose paths must hold sensible numbers; `source` and `selectable` keep
    what the version says of its schema and selectableFields, to be published.
    """

    def __init__(self, openapi: Obj | None, scale: Obj | None = None, selectable: Sequence[Obj] = ()):
        self.source = openapi
        self.selectable = tuple(selectable)
        self.schema = Schema(openapi or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
        self.scale = scale or {}

    def decode(self, obj: Obj, tree: Any, *, applied: bool = False) -> tuple[Obj, list[str]]:
        """The object pruned and defaulted, its metadata read as ObjectMeta; strict decoding's complaints.

        `applied`: what server-side apply made, whose nulls are judged, not dropped.

        Raises DecodeError when the metadata has values of the wrong type.
        """
        metadata = obj.get("metadata") or {}
        dropped = [f"metadata.{path}" for path in _unknown_metadata(metadata)]
        result = {**deep_copy(obj), "metadata": OBJECT_META.round_trip(metadata)}
        dropped += self.schema.prune(result)
        self.schema.default(result, keep_nulls=applied)
        return result, codec.duplicate_fields(tree) + [f'unknown field "{path}"' for path in sorted(dropped)]

    def validate(self, obj: Obj, old: Obj | None = None) -> list[FieldError]:
        return self.schema.validate(obj, old, self._scale_problems(obj))

    def openapi(self) -> Typed:
        return self.schema.typed

    def _scale_problems(self, obj: Obj) -> list[FieldError]:
        errors: list[FieldError] = []
        for name in ("specReplicasPath", "statusReplicasPath"):
            path = self.scale.get(name)
            if not path:
                continue
            found, value, problem = _member_at(obj, path)
            if not found and not problem:
                continue
            if not problem and type(value) is not int:
                shown = goformat.value(value)
                problem = f"{path} accessor error: {shown} is of the type {_go_type(value)}, expected int64"
            if problem:
                errors.append(fielderrors.invalid(path, 0, problem))
            elif value < 0:
                errors.append(fielderrors.invalid(path, value, "should be a non-negative integer"))
            elif value > 2**31 - 1:
                errors.append(fielderrors.invalid(path, value, f"should be less than or equal to {2**31 - 1}"))
        return errors


_GO_TYPES = {
    str: "string",
    bool: "bool",
    int: "int64",
    float: "float64",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}


def _go_type(value: Any) -> str:
    return _GO_TYPES.get(type(value), "<nil>")


def _member_at(obj: Any, path: str) -> tuple[bool, Any, str]:
    """The member at `.spec.replicas`: (found, value, what is in the way)."""
    walked = ""
    for name in path.strip(".").split("."):
        if not isinstance(obj, dict):
            shown = goformat.value(obj)
            return (
                False,
                None,
                f"{walked} accessor error: {shown} is of the type {_go_type(obj)}, expected map[string]interface {{}}",
            )
        if name not in obj:
            return False, None, ""
        obj = obj[name]
        walked += f".{name}"
    return True, obj, ""


def _unknown_metadata(metadata: Any) -> list[str]:
    """Members that no ObjectMeta has."""
    texts = OBJECT_META.strict_errors(metadata) if isinstance(metadata, dict) else []
    return [text[len('unknown field "') : -1] for text in texts if text.startswith("unknown")]


def _default(value: Any, schema: Obj | None, keep_nulls: bool) -> None:
    if schema is None:
        return
    if isinstance(value, dict):
        properties: Obj = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        for name, below in properties.items():
            if "default" in below and (name not in value or _is_missing(value[name], below)):
                value[name] = deep_copy(below["default"])
        for name in list(value):
            member_schema = properties.get(name, additional if isinstance(additional, dict) else None)
            if _is_missing(value[name], member_schema):
                if member_schema is not None and "default" in member_schema:
                    value[name] = deep_copy(member_schema["default"])
                elif keep_nulls:
                    continue
                else:
                    del value[name]
                    continue
            _default(value[name], member_schema, keep_nulls)
    elif isinstance(value, list):
        items = schema.get("items")
        for index, item in enumerate(value):
            if _is_missing(item, items) and items and "default" in items:
                value[index] = deep_copy(items["default"])
            _default(value[index], items, keep_nulls)


def _is_missing(value: Any, schema: Obj | None) -> bool:
    """A null where the schema does not allow null."""
    return value is None and schema is not None and not schema.get("nullable")


def _below(value: Any, schema: Obj, where: Where, visit: Callable[[Any, Obj, Where], None]) -> None:
    """Visit the members or items that the schema describes."""
    if isinstance(value, dict):
        properties: Obj = schema.get("properties") or {}
        additional = schema.get("additionalProperties")
        for name, member in value.items():
            below = properties.get(name, additional)
            if isinstance(below, dict):
                visit(member, below, (where, f".{name}"))
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for index, item in enumerate(value):
            visit(item, schema["items"], (where, f"[{index}]"))


def _check_embedded(value: Any, schema: Obj, where: Where, errors: list[FieldError]) -> None:
    """Embedded objects say what they are (upstream schema/objectmeta)."""
    if schema.get("x-kubernetes-embedded-resource") and isinstance(value, dict):
        for name in ("apiVersion", "kind"):
            if not value.get(name):
                errors.append(fielderrors.required(render((where, f".{name}"))))
    _below(value, schema, where, lambda member, below, place: _check_embedded(member, below, place, errors))


def _check_lists(value: Any, schema: Obj, where: Where, errors: list[FieldError]) -> None:
    """Sets and keyed lists hold each item once (upstream schema/listtype)."""
    list_type = schema.get("x-kubernetes-list-type")
    if isinstance(value, list) and list_type in ("set", "map"):
        keys = schema.get("x-kubernetes-list-map-keys") or ()
        seen: set[str] = set()
        told: set[str] = set()
        for index, item in enumerate(value):
            shown: Any = item
            if list_type == "map":
                shown = {key: item[key] for key in keys if key in item} if isinstance(item, dict) else {}
            text = json_text(shown, sort_keys=True)
            if text in seen and text not in told:
                errors.append(fielderrors.duplicate(render((where, f"[{index}]")), shown))
                told.add(text)
            seen.add(text)
    _below(value, schema, where, lambda member, below, place: _check_lists(member, below, place, errors))
