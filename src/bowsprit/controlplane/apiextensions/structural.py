"""Rules for the schemas in CustomResourceDefinitions: they must be structural, and their rules and defaults must work.

Upstream: k8s.io/apiextensions-apiserver pkg/apiserver/schema (ValidateStructural) and
pkg/apis/apiextensions/validation (ValidateCustomResourceDefinitionOpenAPISchema).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bowsprit.machinery import cel, fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.regex import RegexError, compile_pattern
from bowsprit.machinery.schema import Schema

if TYPE_CHECKING:
    from bowsprit.machinery.celtypes import RuleTypes

_TYPES = ["array", "boolean", "integer", "number", "object", "string"]
_LIST_TYPES = ["atomic", "set", "map"]
_MAP_TYPES = ["granular", "atomic"]
_UNSUPPORTED = (
    "$ref",
    "definitions",
    "dependencies",
    "deprecated",
    "discriminator",
    "id",
    "patternProperties",
    "readOnly",
    "writeOnly",
    "xml",
)
_NOT_IN_JUNCTORS = ("type", "nullable", "default", "title", "description")
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_JUNCTORS = ("allOf", "anyOf", "oneOf")
_EXTENSIONS = (
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
)
_REASONS = ["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"]


def schema_errors(schema: Obj, where: Path) -> list[FieldError]:
    """All that is wrong with a root schema."""
    errors: list[FieldError] = []
    kind = schema.get("type", "")
    if not kind:
        errors.append(fielderrors.required(where.child("type"), "must not be empty at the root"))
    elif kind != "object":
        errors.append(fielderrors.invalid(where.child("type"), kind, "must be object at the root"))
    errors += _node_errors(schema, where, root=True)
    errors += _completeness_errors(schema, schema, where, where)
    return errors


def _node_errors(schema: Obj, where: Path, *, root: bool = False) -> list[FieldError]:
    """A schema in its place: what it says of itself, then what is below it."""
    errors = _own_errors(schema, where)
    if root or schema.get("x-kubernetes-embedded-resource"):
        errors += _metadata_errors(schema, where)
    errors += _list_errors(schema, where) + _map_errors(schema, where)
    errors += _rule_errors(schema, where, root=root)
    if "default" in schema:
        errors += _default_errors(schema, where.child("default"))
    spared = _spared_types(schema)
    for junctor in _JUNCTORS:
        for index, part in enumerate(schema.get(junctor) or ()):
            if junctor == "anyOf" and spared is schema:
                continue
            errors += _junctor_errors(part, where.child(junctor).index(index), spared)
    if schema.get("not"):
        errors += _junctor_errors(schema["not"], where.child("not"))
    for below, place, noun in _below(schema, where):
        typed = below.get("type") or below.get("x-kubernetes-int-or-string")
        if not typed and not below.get("x-kubernetes-preserve-unknown-fields"):
            detail = f"must not be empty for specified {noun}"
            errors.append(fielderrors.required(place.child("type"), detail))
        errors += _node_errors(below, place)
    return errors


def _below(schema: Obj, where: Path) -> Iterator[tuple[Obj, Path, str]]:
    for name, below in (schema.get("properties") or {}).items():
        yield below, where.child("properties").key(name), "object fields"
    if isinstance(schema.get("additionalProperties"), dict):
        yield schema["additionalProperties"], where.child("additionalProperties"), "object fields"
    if isinstance(schema.get("items"), dict):
        yield schema["items"], where.child("items"), "array items"


def _own_errors(schema: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    kind = schema.get("type")
    if kind == "null":
        errors.append(
            fielderrors.forbidden(where.child("type"), "type cannot be set to null, use nullable as an alternative")
        )
    elif kind and kind not in _TYPES:
        errors.append(fielderrors.not_supported(where.child("type"), kind, _TYPES))
    for field in _UNSUPPORTED:
        if schema.get(field):
            errors.append(fielderrors.forbidden(where.child(field), f"{field} is not supported"))
    if schema.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        errors.append(fielderrors.forbidden(where.child("uniqueItems"), detail))
    additional = schema.get("additionalProperties")
    if schema.get("properties") and (additional is False or isinstance(additional, dict)):
        detail = "additionalProperties and properties are mutual exclusive"
        errors.append(fielderrors.forbidden(where.child("additionalProperties"), detail))
    if isinstance(schema.get("items"), list):
        detail = "items must be a schema object and not an array"
        errors.append(fielderrors.forbidden(where.child("items"), detail))
    elif kind == "array" and schema.get("items") is None:
        errors.append(fielderrors.required(where.child("items"), "must be specified"))
    errors += _pattern_errors(schema, where) + _extension_errors(schema, where)
    return errors


def _pattern_errors(schema: Obj, where: Path) -> list[FieldError]:
    pattern = schema.get("pattern")
    if not pattern:
        return []
    try:
        compile_pattern(pattern)
    except RegexError as problem:
        detail = f"must be a valid regular expression, but isn't: {problem}"
        return [fielderrors.invalid(where.child("pattern"), pattern, detail)]
    return []


def _extension_errors(schema: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    kind = schema.get("type", "")
    if schema.get("x-kubernetes-int-or-string") and kind:
        detail = "must be empty if x-kubernetes-int-or-string is true"
        errors.append(fielderrors.invalid(where.child("type"), kind, detail))
    if schema.get("x-kubernetes-preserve-unknown-fields") and kind not in ("", "object"):
        detail = "must be object if x-kubernetes-preserve-unknown-fields is true"
        errors.append(fielderrors.invalid(where.child("type"), kind, detail))
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        detail = "must be true or undefined"
        errors.append(fielderrors.invalid(where.child("x-kubernetes-preserve-unknown-fields"), False, detail))
    if schema.get("x-kubernetes-embedded-resource"):
        if kind != "object":
            detail = "must be object if x-kubernetes-embedded-resource is true"
            errors.append(fielderrors.invalid(where.child("type"), kind, detail))
        if not schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
            detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
            errors.append(fielderrors.required(where.child("properties"), detail))
    return errors


def _metadata_errors(schema: Obj, where: Path) -> list[FieldError]:
    metadata = (schema.get("properties") or {}).get("metadata")
    if metadata is None or not set(metadata.get("properties") or {}) - {"name", "generateName"}:
        return []
    detail = "must not specify anything other than name and generateName, but metadata is implicitly specified"
    return [fielderrors.forbidden(where.child("properties").key("metadata"), detail)]


def _list_errors(schema: Obj, where: Path) -> list[FieldError]:
    list_type, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or []
    place = where.child("x-kubernetes-list-map-keys")
    errors: list[FieldError] = []
    if list_type is None:
        if keys:
            errors.append(
                fielderrors.required(
                    where.child("x-kubernetes-list-type"), "must be map if x-kubernetes-list-map-keys is non-empty"
                )
            )
        return errors
    if schema.get("type") != "array":
        detail = "must be array if x-kubernetes-list-type is specified"
        errors.append(fielderrors.invalid(where.child("type"), schema.get("type", ""), detail))
    if list_type not in _LIST_TYPES:
        errors.append(fielderrors.not_supported(where.child("x-kubernetes-list-type"), list_type, _LIST_TYPES))
    if list_type != "map":
        if keys:
            detail = "must not be specified unless x-kubernetes-list-type is map"
            errors.append(fielderrors.invalid(place, keys, detail))
        return errors
    items: Obj = schema["items"] if isinstance(schema.get("items"), dict) else {}
    if not keys:
        errors.append(fielderrors.required(place, "must not be empty if x-kubernetes-list-type is map"))
    if len(set(keys)) != len(keys):
        errors.append(fielderrors.invalid(place, keys, "must be unique"))
    properties: Obj = items.get("properties") or {}
    if any(key not in properties for key in keys):
        errors.append(fielderrors.invalid(place, keys, "entries must all be names of item properties"))
    for key in keys:
        below = properties.get(key)
        if below is None:
            continue
        spot = where.child("items", "properties").key(key)
        if below.get("type") in ("array", "object"):
            detail = "must be a scalar type if parent array's x-kubernetes-list-type is map"
            errors.append(fielderrors.invalid(spot.child("type"), below["type"], detail))
        if key not in (items.get("required") or ()) and "default" not in below:
            detail = (
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            )
            errors.append(fielderrors.required(spot.child("default"), detail))
    return errors


def _map_errors(schema: Obj, where: Path) -> list[FieldError]:
    map_type = schema.get("x-kubernetes-map-type")
    if map_type is None:
        return []
    errors: list[FieldError] = []
    if schema.get("type") != "object":
        detail = "must be object if x-kubernetes-map-type is specified"
        errors.append(fielderrors.invalid(where.child("type"), schema.get("type", ""), detail))
    if map_type not in _MAP_TYPES:
        errors.append(fielderrors.not_supported(where.child("x-kubernetes-map-type"), map_type, _MAP_TYPES))
    return errors


def _spared_types(schema: Obj) -> Obj | None:
    """The schema whose anyOf may name types: integer and string, of a value that may be either (upstream's two patterns)."""
    if not schema.get("x-kubernetes-int-or-string"):
        return None
    if schema.get("anyOf") == _INT_OR_STRING:
        return schema
    first: Obj = next(iter(schema.get("allOf") or ()), {})
    return first if first.get("anyOf") == _INT_OR_STRING else None


def _completeness_errors(part: Obj, schema: Obj, where: Path, part_place: Path) -> list[FieldError]:
    """Fields that the root's allOf, anyOf, oneOf and not speak of are specified in the structure, too.

    Args:
        part: what speaks of fields.
        schema: the structure at the same place.
        where: the place in the structure.
        part_place: the place of `part`, for the message.
    """
    errors: list[FieldError] = []
    parts = [
        (below, part_place.child(junctor).index(index))
        for junctor in _JUNCTORS
        for index, below in enumerate(part.get(junctor) or ())
    ]
    if part.get("not"):
        parts.append((part["not"], part_place.child("not")))
    for below, place in parts:
        errors += _fields_complete(below, schema, where, place)
        errors += _completeness_errors(below, schema, where, place)
    return errors


def _fields_complete(part: Obj, schema: Obj, where: Path, part_place: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    fields: list[tuple[Obj, Obj | None, Path, Path]] = [
        (
            below,
            (schema.get("properties") or {}).get(name),
            where.child("properties").key(name),
            part_place.child("properties").key(name),
        )
        for name, below in (part.get("properties") or {}).items()
    ]
    if isinstance(part.get("items"), dict):
        fields.append((part["items"], schema.get("items"), where.child("items"), part_place.child("items")))
    for below, structure, place, told in fields:
        if structure is None:
            errors.append(fielderrors.required(place, f"because it is defined in {told}"))
        else:
            errors += _completeness_errors(below, structure, place, told)
            errors += _fields_complete(below, structure, place, told)
    return errors


def _junctor_errors(schema: Obj, where: Path, spared: Obj | None = None) -> list[FieldError]:
    """Parts of allOf, anyOf, oneOf and not only validate: types and defaults belong to the structure around them.

    `spared`: the schema whose anyOf is not looked at.
    """
    errors: list[FieldError] = []
    for field in _NOT_IN_JUNCTORS:
        if schema.get(field):
            errors.append(fielderrors.forbidden(where.child(field), "must be empty to be structural"))
    if schema.get("additionalProperties") is not None:
        errors.append(fielderrors.forbidden(where.child("additionalProperties"), "must be undefined to be structural"))
    for field in _EXTENSIONS:
        if schema.get(field):
            errors.append(fielderrors.forbidden(where.child(field), "must be false to be structural"))
    errors += _pattern_errors(schema, where)
    for name, below in (schema.get("properties") or {}).items():
        errors += _junctor_errors(below, where.child("properties").key(name))
    if isinstance(schema.get("items"), dict):
        errors += _junctor_errors(schema["items"], where.child("items"))
    for junctor in _JUNCTORS:
        if junctor == "anyOf" and spared is schema:
            continue
        for index, part in enumerate(schema.get(junctor) or ()):
            errors += _junctor_errors(part, where.child(junctor).index(index))
    if schema.get("not"):
        errors += _junctor_errors(schema["not"], where.child("not"))
    return errors


def _default_errors(schema: Obj, where: Path) -> list[FieldError]:
    """A default must be a valid value without fields that pruning would drop."""
    value = schema["default"]
    compiled = Schema({key: part for key, part in schema.items() if key != "x-kubernetes-validations"})
    if compiled.unknown_fields(deep_copy(value), root=False):
        return [fielderrors.invalid(where, value, "must not have unknown fields")]
    return [_moved(error, where) for error in compiled.validate(value)]


def _moved(error: FieldError, where: Path) -> FieldError:
    field = str(where) if error.field == "<nil>" else f"{where}.{error.field}"
    return FieldError(error.type, field, error.bad_value, error.detail)


# --- rules --------------------------------------------------------------------------------------------------------


def _rule_errors(schema: Obj, where: Path, *, root: bool) -> list[FieldError]:
    rules = schema.get("x-kubernetes-validations")
    if not rules:
        return []
    from bowsprit.machinery.celtypes import RuleTypes  # with protobuf, which most servers never need

    types, errors = RuleTypes(schema, root=root), []
    for index, rule in enumerate(rules):
        errors += _one_rule_errors(rule, types, where.child("x-kubernetes-validations").index(index))
    return errors


def _shown(rule: Obj) -> Obj:
    """A rule as upstream shows it."""
    return {
        "Rule": rule.get("rule", ""),
        "Message": rule.get("message", ""),
        "MessageExpression": rule.get("messageExpression", ""),
        "Reason": rule.get("reason"),
        "FieldPath": rule.get("fieldPath", ""),
        "OptionalOldSelf": rule.get("optionalOldSelf"),
    }


def _one_rule_errors(rule: Obj, types: RuleTypes, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    expression, message = rule.get("rule", "").strip(), rule.get("message", "")
    if not expression:
        errors.append(fielderrors.required(where.child("rule"), "rule is not specified"))
    else:
        detail = "cel expression must evaluate to a bool"
        errors += _compile_errors(rule, expression, types, "BOOL", detail, where.child("rule"))
    if message and not message.strip():
        detail = "message must be non-empty if specified"
        errors.append(fielderrors.invalid(where.child("message"), message, detail))
    elif "\n" in message.strip():
        detail = "message must not contain line breaks"
        errors.append(fielderrors.invalid(where.child("message"), message, detail))
    elif "\n" in expression and not message.strip():
        detail = "message must be specified if rule contains line breaks"
        errors.append(fielderrors.required(where.child("message"), detail))
    text = rule.get("messageExpression", "").strip()
    if text:
        place, detail = where.child("messageExpression"), "messageExpression must evaluate to a string"
        errors += _compile_errors(rule, text, types, "STRING", detail, place)
    reason = rule.get("reason")
    if reason is not None and reason not in _REASONS:
        errors.append(fielderrors.not_supported(where.child("reason"), reason, _REASONS))
    return errors


def _compile_errors(
    rule: Obj, expression: str, types: RuleTypes, wanted: str, detail: str, where: Path
) -> list[FieldError]:
    try:
        if rule.get("optionalOldSelf"):
            expression = f"[optional.of(oldSelf)].map(oldSelf, {expression})[0]"
        result = types.result(expression)
    except cel.CelError as problem:
        what = "messageExpression " if wanted == "STRING" else ""
        return [fielderrors.invalid(where, _shown(rule), f"{what}{problem}")]
    return [] if result == wanted else [fielderrors.invalid(where, _shown(rule), detail)]


def correlation_errors(schema: Obj, where: Path, uncorrelated: Path | None = None) -> list[FieldError]:
    """Rules with oldSelf below a list whose items have no identity."""
    errors: list[FieldError] = []
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        expression = rule.get("rule", "")
        if uncorrelated is not None and cel.uses_old_self(expression):
            place = where.child("x-kubernetes-validations").index(index).child("rule")
            detail = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelated}"
            errors.append(fielderrors.invalid(place, expression, detail))
    for below, place, _ in _below(schema, where):
        lost = uncorrelated
        if schema.get("type") == "array" and schema.get("x-kubernetes-list-type") != "map":
            lost = lost or where
        errors += correlation_errors(below, place, lost)
    return errors


def field_schema(schema: Obj, steps: list[str]) -> Obj | None:
    """The schema of a field by its path, None if there is no such field."""
    found: Obj | None = schema
    for name in steps:
        found = ((found or {}).get("properties") or {}).get(name)
    return found
