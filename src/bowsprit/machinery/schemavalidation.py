"""OpenAPI v3 schemas of custom resources compiled to validators, with upstream's messages and oddities.

The rules and texts are those of k8s.io/kube-openapi/pkg/validation/validate, as the API server shows them: the type and
the format are checked first, then the combinations (allOf, anyOf, oneOf, not), then the type's own limits. All problems
are collected, not only the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from bowsprit.machinery import fielderrors, formats
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.goformat import float_text, json_text, quote
from bowsprit.machinery.jsonpatch import equal
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.regex import RegexError, compile_pattern

Where = tuple[Any, str] | None
"""A place as (parent place, text): rendered only when something is wrong."""

Check = Callable[[Any, Where, list[FieldError]], None]
"""Appends what is wrong with a value."""

Resolver = Callable[[str], Obj]


def render(where: Where) -> str:
    """`spec.tags[0]`; "" for the root."""
    parts: list[str] = []
    while where is not None:
        parts.append(where[1])
        where = where[0]
    return "".join(reversed(parts)).removeprefix(".")


def field_of(where: Where) -> str | None:
    return render(where) or None


def compile_schema(schema: Obj, resolver: Resolver | None = None) -> Check:
    """The validator of a schema; `$ref` is followed through the resolver, on first use."""
    reference = schema.get("$ref")
    if reference is not None and resolver is not None:
        return _reference(reference, resolver)
    checks: list[Check] = []
    types = _types(schema)
    if types:
        checks.append(_type_check(types, schema.get("format", "")))
    checks += _combinations(schema, resolver)
    checks += _string_checks(schema)
    if "integer" in types or "number" in types:
        checks += _number_checks(schema, types)
    checks += _list_checks(schema, resolver)
    if "enum" in schema:
        checks.append(_enum_check(schema["enum"]))
    checks += _object_checks(schema, resolver)
    nullable = bool(schema.get("nullable"))

    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        if value is None and nullable:
            return
        for step in checks:
            step(value, where, errors)

    return check


def _reference(reference: str, resolver: Resolver) -> Check:
    compiled: list[Check] = []

    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        if not compiled:
            compiled.append(compile_schema(resolver(reference), resolver))
        compiled[0](value, where, errors)

    return check


def _types(schema: Obj) -> list[str]:
    if schema.get("x-kubernetes-int-or-string"):
        return ["integer", "string"]
    kind = schema.get("type")
    return [kind] if kind else []


def _kind(value: Any) -> tuple[str, str]:
    """Type and format of a value as upstream's schemaInfoForType has them."""
    if isinstance(value, bool):
        return "boolean", ""
    if isinstance(value, int):
        return "integer", "int64"
    if isinstance(value, float):
        return "number", "float64"
    if isinstance(value, str):
        return "string", ""
    if value is None:
        return "null", ""
    return ("array", "") if isinstance(value, list) else ("object", "")


def _type_check(types: list[str], format_: str) -> Check:
    joined = ",".join(types)
    numeric = "number" in types or "integer" in types
    format_check = formats.check_of(format_)

    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        kind, own_format = _kind(value)
        whole = kind == "number" and "integer" in types and math.isfinite(value) and float(value).is_integer()
        fits = kind in types or whole or (kind == "integer" and "number" in types)
        if fits:
            if format_check is not None and kind == "string" and not format_check(value):
                errors.append(_type_error(where, format_, value))
        elif format_ and kind not in ("string", "array", "null"):
            errors.append(_type_error(where, format_, own_format))
        elif numeric or not format_ or kind not in ("string", "array"):
            errors.append(_type_error(where, joined, kind))

    return check


def _type_error(where: Where, wanted: str, found: str) -> FieldError:
    return fielderrors.type_invalid(
        field_of(where), found, f"{render(where)} in body must be of type {wanted}: {quote(found)}"
    )


def _invalid(where: Where, value: Any, problem: str) -> FieldError:
    return fielderrors.invalid(field_of(where), value, f"{render(where)} in body {problem}")


def _plain(where: Where, problem: str) -> FieldError:
    """A problem that upstream reports without a field."""
    del where
    return fielderrors.invalid(None, "", problem)


# --- combinations -------------------------------------------------------------------------------------------------


def _combinations(schema: Obj, resolver: Resolver | None) -> list[Check]:
    checks: list[Check] = []
    if schema.get("anyOf") and not schema.get("x-kubernetes-int-or-string"):
        checks.append(_any_of([compile_schema(part, resolver) for part in schema["anyOf"]]))
    if schema.get("oneOf"):
        checks.append(_one_of([compile_schema(part, resolver) for part in schema["oneOf"]]))
    if schema.get("allOf") and not schema.get("x-kubernetes-int-or-string"):
        checks.append(_all_of([compile_schema(part, resolver) for part in schema["allOf"]]))
    if schema.get("not"):
        checks.append(_not(compile_schema(schema["not"], resolver)))
    return checks


def _outcomes(parts: list[Check], value: Any, where: Where) -> list[list[FieldError]]:
    outcomes = []
    for part in parts:
        problems: list[FieldError] = []
        part(value, where, problems)
        outcomes.append(problems)
    return outcomes


def _any_of(parts: list[Check]) -> Check:
    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        outcomes = _outcomes(parts, value, where)
        if all(outcomes):
            errors.append(_plain(where, f"{quote(render(where))} must validate at least one schema (anyOf)"))
            errors.extend(outcomes[0])

    return check


def _one_of(parts: list[Check]) -> Check:
    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        outcomes = _outcomes(parts, value, where)
        valid = outcomes.count([])
        if valid == 1:
            return
        found = f"Found {valid} valid alternatives" if valid else "Found none valid"
        errors.append(_plain(where, f"{quote(render(where))} must validate one and only one schema (oneOf). {found}"))
        if not valid:
            errors.extend(outcomes[0])

    return check


def _all_of(parts: list[Check]) -> Check:
    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        outcomes = _outcomes(parts, value, where)
        for problems in outcomes:
            errors.extend(problems)
        if any(outcomes):
            none = ". None validated" if all(outcomes) else ""
            errors.append(_plain(where, f"{quote(render(where))} must validate all the schemas (allOf){none}"))

    return check


def _not(part: Check) -> Check:
    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        problems: list[FieldError] = []
        part(value, where, problems)
        if not problems:
            errors.append(_plain(where, f"{quote(render(where))} must not validate the schema (not)"))

    return check


def _enum_check(allowed: list[Any]) -> Check:
    texts = [item if isinstance(item, str) else json_text(item) for item in allowed]

    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        if not any(equal(value, item) for item in allowed):
            errors.append(fielderrors.not_supported(field_of(where), value, texts))

    return check


# --- strings ------------------------------------------------------------------------------------------------------


def _string_checks(schema: Obj) -> list[Check]:
    longest, shortest, pattern = schema.get("maxLength"), schema.get("minLength"), schema.get("pattern")
    if longest is None and shortest is None and not pattern:
        return []
    try:
        search = compile_pattern(pattern).search if pattern else None
    except RegexError:
        search = None  # refused when the schema was stored; an old one must not stop writes

    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        if not isinstance(value, str):
            return
        if longest is not None and len(value) > longest:  # the first problem ends this check
            errors.append(fielderrors.too_long(field_of(where), longest))
        elif shortest is not None and len(value) < shortest:
            errors.append(_invalid(where, value, f"should be at least {shortest} chars long"))
        elif search is not None and not search(value):
            errors.append(_invalid(where, value, f"should match '{pattern}'"))

    return [check]


# --- numbers ------------------------------------------------------------------------------------------------------


def _number_checks(schema: Obj, types: list[str]) -> list[Check]:
    low, high, factor = schema.get("minimum"), schema.get("maximum"), schema.get("multipleOf")
    above, below = bool(schema.get("exclusiveMinimum")), bool(schema.get("exclusiveMaximum"))
    integer, format_ = "integer" in types, schema.get("format", "")
    bits = 31 if format_ == "int32" else 63

    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return
        if integer and not (float(value).is_integer() and -(2**bits) <= value < 2**bits):
            shape = f"with format {format_}" if format_ else "(default format)"
            errors.append(_plain(where, f"Checked value must be of type integer {shape} in {render(where)}"))
        if factor is not None:
            _check_multiple(value, factor, where, errors)
        if high is not None and (value >= high if below else value > high):
            relation = "less than" if below else "less than or equal to"
            errors.append(_invalid(where, value, f"should be {relation} {_number(high)}"))
        if low is not None and (value <= low if above else value < low):
            relation = "greater than" if above else "greater than or equal to"
            errors.append(_invalid(where, value, f"should be {relation} {_number(low)}"))

    return [check]


def _check_multiple(value: float, factor: float, where: Where, errors: list[FieldError]) -> None:
    # Whole values are divided by the whole part of the factor (MultipleOfInt): 0.5 becomes 0, which is no factor.
    divisor = int(factor) if isinstance(value, int) else factor
    if divisor <= 0:
        problem = f"factor MultipleOf declared for {render(where)} must be positive: {_number(divisor)}"
        errors.append(fielderrors.invalid(field_of(where), divisor, problem))
        return
    quotient = value % divisor == 0 if isinstance(value, int) else float(value / divisor).is_integer()
    if not quotient:
        errors.append(_invalid(where, value, f"should be a multiple of {_number(factor)}"))


def _number(value: float) -> str:
    return float_text(float(value)) if isinstance(value, float) else str(value)


# --- arrays and objects -------------------------------------------------------------------------------------------


def _list_checks(schema: Obj, resolver: Resolver | None) -> list[Check]:
    most, least = schema.get("maxItems"), schema.get("minItems")
    unique = bool(schema.get("uniqueItems"))
    items = schema.get("items")
    check_item = compile_schema(items, resolver) if isinstance(items, dict) else None
    if most is None and least is None and check_item is None and not unique:
        return []

    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        if not isinstance(value, list):
            return
        if check_item is not None:
            for index, item in enumerate(value):
                check_item(item, (where, f"[{index}]"), errors)
        if least is not None and len(value) < least:
            errors.append(_invalid(where, len(value), f"should have at least {least} items"))
        if most is not None and len(value) > most:
            errors.append(fielderrors.too_many(field_of(where), len(value), most))
        if unique and any(equal(item, other) for index, item in enumerate(value) for other in value[:index]):
            errors.append(_invalid(where, "", "shouldn't contain duplicates"))

    return [check]


def _object_checks(schema: Obj, resolver: Resolver | None) -> list[Check]:
    properties = {name: compile_schema(below, resolver) for name, below in (schema.get("properties") or {}).items()}
    additional = schema.get("additionalProperties")
    check_other = compile_schema(additional, resolver) if isinstance(additional, dict) else None
    required: list[str] = schema.get("required") or []
    most, least = schema.get("maxProperties"), schema.get("minProperties")
    if not properties and check_other is None and not required and most is None and least is None:
        return []

    def check(value: Any, where: Where, errors: list[FieldError]) -> None:
        if not isinstance(value, dict):
            return
        if least is not None and len(value) < least:
            errors.append(_invalid(where, len(value), f"should have at least {least} properties"))
        if most is not None and len(value) > most:
            errors.append(fielderrors.too_many(field_of(where), len(value), most))
        for name in required:
            if name not in value:
                errors.append(fielderrors.required(render((where, f".{name}"))))
        for name, member in value.items():
            below = properties.get(name, check_other)
            if below is not None:
                below(member, (where, f".{name}"), errors)

    return [check]
