"""The schemas in CustomResourceDefinitions as OpenAPI: what may be said in them, their defaults and their rules.

Upstream: k8s.io/apiextensions-apiserver pkg/apis/apiextensions/validation (validateCustomResourceDefinitionValidation and
ValidateCustomResourceDefinitionOpenAPISchema) and pkg/apiserver/schema/defaulting (ValidateDefaults).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from bowsprit.controlplane.apiextensions.rulecost import cost_errors
from bowsprit.controlplane.apiextensions.rules import rule_text_errors, rule_type_errors
from bowsprit.controlplane.apiextensions.structural import conversion_problem, junctor_parts, structural_errors
from bowsprit.controlplane.gostructs import go_value, is_zero, member_values
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.formats import is_known
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.schema import Schema

_TYPES = ["array", "boolean", "integer", "number", "object", "string"]
_LIST_TYPES = ["atomic", "set", "map"]
_MAP_TYPES = ["atomic", "granular"]
_META = frozenset({"metadata", "kind", "apiVersion"})
_UNSUPPORTED = ("id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref")
_AT_ROOT = (
    "Description", "Type", "Format", "Title", "Maximum", "ExclusiveMaximum", "Minimum", "ExclusiveMinimum", "MaxLength",
    "MinLength", "Pattern", "MaxItems", "MinItems", "UniqueItems", "MultipleOf", "Required", "Items", "Properties",
    "ExternalDocs", "Example", "XPreserveUnknownFields", "XValidations",
)  # fmt: skip


def schema_errors(schema: Obj, where: Path, *, with_status: bool) -> list[FieldError]:
    """All that is wrong with a root schema; ``with_status``: the kind has the status subresource."""
    errors = _root_errors(schema, where) if with_status else []
    if schema.get("nullable"):
        errors.append(fielderrors.forbidden(where.child("nullable"), "nullable cannot be true at the root"))
    problem = conversion_problem(schema)
    structure = [] if problem else structural_errors(schema, where)
    if not problem and not structure:
        structure = _default_errors({**schema, "x-kubernetes-embedded-resource": True}, where)
    found = _Findings()
    _walk(schema, where, _Context(root=True, compiles=not problem and not structure), found)
    errors += structure + found.schema + found.rules
    if problem and not errors:
        return [fielderrors.invalid(where, "", problem)]
    return errors if problem or structure or found.schema else errors + cost_errors(schema, where)


def unknown_formats(schema: Obj) -> list[str]:
    """The formats in a schema that nobody checks."""
    name = schema.get("format") or ""
    found = [name] if name and not is_known(name, schema.get("type") or "") else []
    return found + [text for below, _, _ in _below(schema, Path(""), _Context()) for text in unknown_formats(below)]


def _root_errors(schema: Obj, where: Path) -> list[FieldError]:
    """What is said at the root must hold for the status, too, which is checked alone."""
    for name, value in member_values("JSONSchemaProps", schema):
        if is_zero(value):
            continue
        if name == "Type" and value != "object":
            detail = (
                'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
            )
            return [fielderrors.invalid(where.child("type"), value, detail)]
        if name not in _AT_ROOT:
            detail = f"only [{' '.join(_AT_ROOT)}] fields are allowed at the root of the schema if the status subresource is enabled"
            return [fielderrors.invalid(where, go_value("JSONSchemaProps", schema), detail)]
    return []


# -- the walk --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Context:
    """Where a schema stands."""

    root: bool = False
    compiles: bool = True  # rules can be compiled: the structure is sound, and this is no part of a junctor
    no_default: str | None = None  # why there may be no default
    in_metadata: bool = False
    uncorrelated: Path | None = None  # the first schema above whose values cannot be told from their predecessors


@dataclass(slots=True)
class _Findings:
    schema: list[FieldError] = field(default_factory=list)
    rules: list[FieldError] = field(default_factory=list)


def _walk(schema: Obj, where: Path, context: _Context, found: _Findings) -> None:
    before = len(found.schema)
    found.schema += _own_errors(schema, where, context)
    for below, place, inner in _below(schema, where, context):
        _walk(below, place, inner, found)
    found.schema += _list_errors(schema, where) + _map_errors(schema, where) + rule_text_errors(schema, where)
    if context.compiles and len(found.schema) == before:
        found.rules += rule_type_errors(schema, where, root=context.root, uncorrelated=context.uncorrelated)


def _below(schema: Obj, where: Path, context: _Context) -> Iterator[tuple[Obj, Path, _Context]]:
    inner = replace(context, root=False)
    additional, items = schema.get("additionalProperties"), schema.get("items")
    if isinstance(additional, dict):
        reason = "inside additionalProperties applying to object metadata"
        bounded = replace(inner, no_default=reason) if context.in_metadata else inner
        yield additional, where.child("additionalProperties"), bounded
    for name, below in (schema.get("properties") or {}).items():
        changed = inner
        if schema.get("x-kubernetes-map-type") == "atomic":
            changed = replace(changed, uncorrelated=context.uncorrelated or where)
        if name in _META and (context.root or schema.get("x-kubernetes-embedded-resource")):
            changed = replace(changed, in_metadata=True)
            if context.root:
                changed = replace(changed, no_default=f"in top-level {name}")
        yield below, where.child("properties").key(name), changed
    uncompiled = replace(inner, compiles=False)
    for part, place in junctor_parts(schema, where):
        yield part, place, uncompiled
    for name, below in (schema.get("definitions") or {}).items():
        yield below, where.child("definitions").key(name), uncompiled
    if schema.get("x-kubernetes-list-type") != "map":
        inner = replace(inner, uncorrelated=context.uncorrelated or where)
    if isinstance(items, dict):
        yield items, where.child("items"), inner
    elif isinstance(items, list):
        for index, below in enumerate(items):
            yield below, where.child("items").index(index), inner
    for name, below in (schema.get("dependencies") or {}).items():
        if isinstance(below, dict):
            yield below, where.child("dependencies").key(name), uncompiled


def _own_errors(schema: Obj, where: Path, context: _Context) -> list[FieldError]:
    errors: list[FieldError] = []
    kind, additional = schema.get("type") or "", schema.get("additionalProperties")
    if kind and kind not in _TYPES:
        errors.append(fielderrors.not_supported(where.child("type"), kind, _TYPES))
    if schema.get("default") is not None and context.no_default is not None:
        errors.append(fielderrors.forbidden(where.child("default"), f"must not be set {context.no_default}"))
    for name in _UNSUPPORTED:
        if schema.get(name) or (name in ("additionalItems", "dependencies", "$ref") and schema.get(name) is not None):
            errors.append(fielderrors.forbidden(where.child(name), f"{name} is not supported"))
    if kind == "null":
        detail = "type cannot be set to null, use nullable as an alternative"
        errors.append(fielderrors.forbidden(where.child("type"), detail))
    if schema.get("items") and isinstance(schema["items"], list):
        detail = "items must be a schema object and not an array"
        errors.append(fielderrors.forbidden(where.child("items"), detail))
    if context.in_metadata and schema.get("x-kubernetes-embedded-resource"):
        detail = "must not be used inside of resource meta"
        errors.append(fielderrors.forbidden(where.child("x-kubernetes-embedded-resource"), detail))
    if schema.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        errors.append(fielderrors.forbidden(where.child("uniqueItems"), detail))
    if schema.get("properties") and (additional is False or isinstance(additional, dict)):
        detail = "additionalProperties and properties are mutual exclusive"
        errors.append(fielderrors.forbidden(where.child("additionalProperties"), detail))
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        place = where.child("x-kubernetes-preserve-unknown-fields")
        errors.append(fielderrors.invalid(place, False, "must be true or undefined"))
    return errors


def _kind_errors(schema: Obj, extension: str, wanted: str, where: Path) -> list[FieldError]:
    kind, detail = schema.get("type") or "", f"must be {wanted} if {extension} is specified"
    if kind == wanted:
        return []
    place = where.child("type")
    return [fielderrors.invalid(place, kind, detail) if kind else fielderrors.required(place, detail)]


def _map_errors(schema: Obj, where: Path) -> list[FieldError]:
    map_type = schema.get("x-kubernetes-map-type")
    if map_type is None:
        return []
    errors = _kind_errors(schema, "x-kubernetes-map-type", "object", where)
    if map_type not in _MAP_TYPES:
        errors.append(fielderrors.not_supported(where.child("x-kubernetes-map-type"), map_type, _MAP_TYPES))
    return errors


def _list_errors(schema: Obj, where: Path) -> list[FieldError]:
    list_type, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    place, items = where.child("x-kubernetes-list-type"), schema.get("items")
    errors: list[FieldError] = []
    if list_type is not None:
        errors += _kind_errors(schema, "x-kubernetes-list-type", "array", where)
        if not errors and list_type == "set" and isinstance(items, dict):
            errors += _set_item_errors(items, where.child("items"))
        if list_type not in _LIST_TYPES:
            errors.append(fielderrors.not_supported(place, list_type, _LIST_TYPES))
    if keys and list_type != "map":
        detail = "must be map if x-kubernetes-list-map-keys is non-empty"
        missing = list_type is None
        errors.append(fielderrors.required(place, detail) if missing else fielderrors.invalid(place, list_type, detail))
    if list_type == "map":
        errors += _map_list_errors(schema, keys, where)
    if list_type in ("map", "set") and isinstance(items, dict):
        errors += _identity_errors(items, list_type, keys, where.child("items"))
    return errors


def _set_item_errors(items: Obj, where: Path) -> list[FieldError]:
    detail = "must be atomic as item of a list with x-kubernetes-list-type=set"
    own = items.get("x-kubernetes-list-type")
    if items.get("type") == "array" and own not in (None, "atomic"):
        return [fielderrors.invalid(where.child("x-kubernetes-list-type"), own, detail)]
    if items.get("type") == "object" and items.get("x-kubernetes-map-type") != "atomic":
        return [fielderrors.invalid(where.child("x-kubernetes-map-type"), own, detail)]
    return []


def _map_list_errors(schema: Obj, keys: list[str], where: Path) -> list[FieldError]:
    """Lists whose items are told apart by keys."""
    errors: list[FieldError] = []
    place, items = where.child("x-kubernetes-list-map-keys"), schema.get("items")
    if not keys:
        errors.append(fielderrors.required(place, "must not be empty if x-kubernetes-list-type is map"))
    if items is None:
        detail = "must have a schema if x-kubernetes-list-type is map"
        return [*errors, fielderrors.required(where.child("items"), detail)]
    if not isinstance(items, dict):
        detail = "must only have a single schema if x-kubernetes-list-type is map"
        shown = go_value("*JSONSchemaPropsOrArray", items)
        return [*errors, fielderrors.invalid(where.child("items"), shown, detail)]
    if items.get("type") != "object":
        detail = "must be object if parent array's x-kubernetes-list-type is map"
        spot = where.child("items", "type")
        return [*errors, fielderrors.invalid(spot, items.get("type") or "", detail)]
    properties: Obj = items.get("properties") or {}
    for index, key in enumerate(keys):
        if key not in properties:
            errors.append(fielderrors.invalid(place, keys, "entries must all be names of item properties"))
        elif properties[key].get("type") in ("array", "object"):
            detail = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            spot = where.child("items", "properties").key(key).child("type")
            errors.append(fielderrors.invalid(spot, "object", detail))
        if key in keys[:index]:
            errors.append(fielderrors.invalid(place, keys, "must not contain duplicate entries"))
    return errors


def _identity_errors(items: Obj, list_type: str, keys: list[str], where: Path) -> list[FieldError]:
    """What tells items apart is always there."""
    errors: list[FieldError] = []
    if items.get("nullable"):
        detail = f"cannot be nullable when x-kubernetes-list-type is {list_type}"
        errors.append(fielderrors.forbidden(where.child("nullable"), detail))
    for key in keys if list_type == "map" else ():
        below, place = (items.get("properties") or {}).get(key), where.child("properties").key(key)
        if below is None:
            continue
        said = "this property is in x-kubernetes-list-map-keys, so it"
        if key not in (items.get("required") or ()) and below.get("default") is None:
            errors.append(
                fielderrors.required(place.child("default"), f"{said} must have a default or be a required property")
            )
        if below.get("nullable"):
            errors.append(fielderrors.forbidden(place.child("nullable"), f"{said} cannot be nullable"))
    return errors


# -- defaults --------------------------------------------------------------------------------------------------------------


def _default_errors(schema: Obj, where: Path) -> list[FieldError]:
    """Defaults must be valid values without fields that pruning would drop."""
    errors: list[FieldError] = []
    if schema.get("default") is not None:
        errors += _one_default(schema, where.child("default"))
    if isinstance(schema.get("items"), dict):
        errors += _default_errors(schema["items"], where.child("items"))
    for name, below in (schema.get("properties") or {}).items():
        errors += _default_errors(below, where.child("properties").key(name))
    return errors


def _one_default(schema: Obj, where: Path) -> list[FieldError]:
    value = schema["default"]
    compiled = Schema({key: part for key, part in schema.items() if key != "x-kubernetes-validations"})
    if compiled.unknown_fields(deep_copy(value), root=False):
        return [fielderrors.invalid(where, value, "must not have unknown fields")]
    return [_moved(error, where) for error in compiled.validate(value)]


def _moved(error: FieldError, where: Path) -> FieldError:
    place = str(where) if error.field == "<nil>" else f"{where}.{error.field}"
    return FieldError(error.type, place, error.bad_value, error.detail)
