"""Structural schemas: the structure of a value stands outside allOf, anyOf, oneOf and not, which only add conditions.

Upstream: k8s.io/apiextensions-apiserver pkg/apiserver/schema (NewStructural, ValidateStructural).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.regex import RegexError, compile_pattern

Level = Literal["root", "item", "field"]
JUNCTORS = ("allOf", "anyOf", "oneOf")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_TYPE_MISSING = {
    "root": "must not be empty at the root",
    "item": "must not be empty for specified array items",
    "field": "must not be empty for specified object fields",
}
_FORBIDDEN_IN_JUNCTORS = {
    "type": "empty",
    "title": "empty",
    "description": "empty",
    "nullable": "false",
    "x-kubernetes-preserve-unknown-fields": "false",
    "x-kubernetes-embedded-resource": "false",
    "x-kubernetes-int-or-string": "false",
    "x-kubernetes-list-map-keys": "empty",
    "x-kubernetes-validations": "empty",
}
_UNDEFINED_IN_JUNCTORS = ("default", "x-kubernetes-list-type", "x-kubernetes-map-type")


def conversion_problem(schema: Obj) -> str | None:
    """Why a schema has parts that no structural schema can have, None if it has none."""
    for field in ("id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"):
        if schema.get(field) or (field == "additionalItems" and schema.get(field) is not None):
            return f"OpenAPIV3Schema '{'schema' if field == '$schema' else field}' is not supported"
    for part, _ in junctor_parts(schema, None):
        if problem := conversion_problem(part):
            return problem
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        return "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined"
    if schema.get("items") and isinstance(schema["items"], list):
        return "OpenAPIV3Schema 'items' must be a schema, but is an array"
    below = [schema.get("items"), *(schema.get("properties") or {}).values(), schema.get("additionalProperties")]
    return next((problem for part in below if isinstance(part, dict) and (problem := conversion_problem(part))), None)


def junctor_parts(schema: Obj, where: Path | None) -> Iterator[tuple[Obj, Path]]:
    """The schemas in not, allOf, anyOf and oneOf, with their places."""
    place = where or Path("")
    if schema.get("not") is not None:
        yield schema["not"], place.child("not")
    for junctor in JUNCTORS:
        for index, part in enumerate(schema.get(junctor) or ()):
            yield part, place.child(junctor).index(index)


def structural_errors(schema: Obj, where: Path) -> list[FieldError]:
    """What keeps a root schema from being structural."""
    errors = _invariants(schema, "root", where)
    for part, place in junctor_parts(schema, where):
        errors += _completeness(part, schema, where, place)
    return sorted(errors, key=str)


# -- the structure ---------------------------------------------------------------------------------------------------------


def _invariants(schema: Obj, level: Level, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    kind, items, additional = schema.get("type") or "", schema.get("items"), schema.get("additionalProperties")
    if kind == "array" and items is None:
        errors.append(fielderrors.required(where.child("items"), "must be specified"))
    if items is not None:
        errors += _invariants(items, "item", where.child("items"))
    for name, below in (schema.get("properties") or {}).items():
        errors += _invariants(below, "field", where.child("properties").key(name))
    if additional is not None and level == "root":
        errors.append(fielderrors.forbidden(where.child("additionalProperties"), "must not be used at the root"))
    if isinstance(additional, dict):
        errors += _invariants(additional, "field", where.child("additionalProperties"))
    for field in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"):
        if schema.get("x-kubernetes-int-or-string") and schema.get(field):
            detail = "must be false if x-kubernetes-int-or-string is true"
            errors.append(fielderrors.invalid(where.child(field), True, detail))
    first: Obj = next(iter(schema.get("allOf") or ()), {})
    errors += _conditions(schema, where, spared=_spared(schema) or _spared(first))
    errors += _type_errors(schema, kind, level, where)
    return errors + _resource_errors(schema, level, where)


def _type_errors(schema: Obj, kind: str, level: Level, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    place, embedded = where.child("type"), schema.get("x-kubernetes-embedded-resource")
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if embedded and kind != "object":
        detail = "must be object if x-kubernetes-embedded-resource is true"
        errors.append(fielderrors.invalid(place, kind, detail) if kind else fielderrors.required(place, detail))
    elif not kind and not free:
        errors.append(fielderrors.required(place, _TYPE_MISSING[level]))
    if embedded and schema.get("additionalProperties") is not None:
        detail = "must not be used if x-kubernetes-embedded-resource is set"
        errors.append(fielderrors.forbidden(where.child("additionalProperties"), detail))
    if level == "root" and kind not in ("", "object"):
        errors.append(fielderrors.invalid(place, kind, "must be object at the root"))
    if embedded and not schema.get("x-kubernetes-preserve-unknown-fields") and not schema.get("properties"):
        detail = (
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        )
        errors.append(fielderrors.required(where.child("properties"), detail))
    return errors


def _resource_errors(schema: Obj, level: Level, where: Path) -> list[FieldError]:
    """What a schema says of the fields that every object has."""
    properties, place = schema.get("properties") or {}, where.child("properties")
    is_resource = level == "root" or schema.get("x-kubernetes-embedded-resource")
    errors = [
        fielderrors.invalid(place.key(name).child("type"), properties[name].get("type") or "", f"must be {wanted}")
        for name, wanted in (("kind", "string"), ("apiVersion", "string"), ("metadata", "object"))
        if is_resource and name in properties and properties[name].get("type") != wanted
    ]
    if level == "root" and "metadata" in properties:
        metadata = properties["metadata"]
        said = {field for field, value in metadata.items() if value} - {"type", "default"}
        if not set(metadata.get("properties") or {}) - {"name", "generateName"}:
            said.discard("properties")
        if said:
            detail = "must not specify anything other than name and generateName, but metadata is implicitly specified"
            errors.append(fielderrors.forbidden(place.key("metadata"), detail))
    return errors


# -- conditions ------------------------------------------------------------------------------------------------------------


def _spared(schema: Obj) -> Obj | None:
    """The schema if its anyOf may name types: those of a value that is an integer or a string."""
    return schema if schema.get("anyOf") == _INT_OR_STRING else None


def _conditions(schema: Obj, where: Path, spared: Obj | None = None) -> list[FieldError]:
    """`spared`: whose anyOf is not looked at."""
    errors: list[FieldError] = []
    for junctor in JUNCTORS:
        for index, part in enumerate(schema.get(junctor) or ()):
            if junctor != "anyOf" or spared is not schema:
                errors += _condition(part, where.child(junctor).index(index), spared)
    if schema.get("not") is not None:
        errors += _condition(schema["not"], where.child("not"))
    if pattern := schema.get("pattern"):
        try:
            compile_pattern(pattern)
        except RegexError as problem:
            detail = f"must be a valid regular expression, but isn't: {problem}"
            errors.append(fielderrors.invalid(where.child("pattern"), pattern, detail))
    return errors


def _condition(schema: Obj, where: Path, spared: Obj | None = None) -> list[FieldError]:
    """A schema below a junctor."""
    errors = _conditions(schema, where, spared)
    if isinstance(schema.get("items"), dict):
        errors += _condition(schema["items"], where.child("items"))
    for name, below in (schema.get("properties") or {}).items():
        errors += _condition(below, where.child("properties").key(name))
    for field, state in _FORBIDDEN_IN_JUNCTORS.items():
        if schema.get(field):
            errors.append(fielderrors.forbidden(where.child(field), f"must be {state} to be structural"))
    undefined = [field for field in _UNDEFINED_IN_JUNCTORS if schema.get(field) is not None]
    if schema.get("additionalProperties") not in (None, False):
        undefined.append("additionalProperties")
    errors += [fielderrors.forbidden(where.child(field), "must be undefined to be structural") for field in undefined]
    if "metadata" in (schema.get("properties") or {}):
        place = where.child("properties").key("metadata")
        errors.append(fielderrors.forbidden(place, "must not be specified in a nested context"))
    return errors


def _completeness(part: Obj, schema: Obj | None, where: Path, part_place: Path) -> list[FieldError]:
    """Fields that conditions speak of are specified in the structure, too.

    Args:
        part: a condition.
        schema: the structure at the same place.
        where: the place in the structure.
        part_place: the place of `part`, for the message.
    """
    if schema is None:
        return [fielderrors.required(where, f"because it is defined in {part_place}")]
    errors: list[FieldError] = []
    for below, place in junctor_parts(part, part_place):
        errors += _completeness(below, schema, where, place)
    if isinstance(part.get("items"), dict):
        errors += _completeness(part["items"], schema.get("items"), where.child("items"), part_place.child("items"))
    for name, below in (part.get("properties") or {}).items():
        place, told = (each.child("properties").key(name) for each in (where, part_place))
        errors += _completeness(below, (schema.get("properties") or {}).get(name), place, told)
    return errors
