"""Whether a rule may run too long: loops within loops over lists that the schema does not bound.

Upstream estimates a cost for every operation (CEL cost estimation, KEP-2876) and refuses what exceeds its budget. We count
only what dominates it, how often the innermost loop may turn, and refuse what is beyond the budget a hundredfold: nothing
that upstream accepts is refused, though it refuses more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj

_BUDGET = 10_000_000  # cost units of one rule; a turn of a loop costs at least one
_TOO_MUCH = 100
_REQUEST_BYTES = 3 * 1024 * 1024
_MACRO = re.compile(r"(?<![\w.)\]])([A-Za-z_][\w.]*)\.(?:all|exists|exists_one|map|filter)\(\s*([A-Za-z_]\w*)\s*,")
_SMALLEST = {"string": 2, "boolean": 4, "array": 2, "object": 2}  # bytes of JSON; numbers take one
_SMALLEST_STRINGS = {"duration": 3, "date": 12, "date-time": 21}
_HINT = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"


def cost_errors(schema: Obj, where: Path) -> list[FieldError]:
    """The rules of a root schema that are too costly, and then the whole."""
    errors = _node_errors(schema, where, 1)
    if errors:
        detail = (
            "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of "
            f"more than {_TOO_MUCH}x {_HINT}"
        )
        errors.append(fielderrors.forbidden(where, detail))
    return errors


def _node_errors(schema: Obj, where: Path, limit: int | None) -> list[FieldError]:
    """`limit`: how many values of this schema one object may have by the limits declared above it; None: no limit."""
    errors: list[FieldError] = []
    times = _REQUEST_BYTES // (_smallest(schema) + 1) if limit is None else limit
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        if times * _turns(rule.get("rule", ""), {"self": schema}) > _BUDGET * _TOO_MUCH:
            place = where.child("x-kubernetes-validations").index(index).child("rule")
            errors += [
                fielderrors.forbidden(
                    place, f"estimated rule cost exceeds budget by factor of more than {_TOO_MUCH}x {_HINT}"
                ),
                fielderrors.forbidden(
                    place, "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
                ),
            ]
    for name, below in (schema.get("properties") or {}).items():
        errors += _node_errors(below, where.child("properties").key(name), limit)
    for field, declared in (("items", schema.get("maxItems")), ("additionalProperties", schema.get("maxProperties"))):
        if isinstance(schema.get(field), dict):
            inner = None if limit is None or declared is None else limit * int(declared)
            errors += _node_errors(schema[field], where.child(field), inner)
    return errors


def _smallest(schema: Obj) -> int:
    """Bytes of JSON that a value takes at least (upstream DeclType.MinSerializedSize)."""
    kind = schema.get("type", "")
    if kind == "string" and schema.get("format") in _SMALLEST_STRINGS:
        return _SMALLEST_STRINGS[schema["format"]]
    if kind != "object" or "properties" not in schema:
        return _SMALLEST.get(kind, 1)
    needed = set(schema.get("required") or ())
    return 2 + sum(
        len(name) + _smallest(below) + 4
        for name, below in schema["properties"].items()
        if name in needed and below.get("default") is None
    )


def _most(schema: Obj) -> int:
    """How many items or members a value may have: what the schema says, or what a request can hold."""
    limit = schema.get("maxItems", schema.get("maxProperties"))
    if limit is not None:
        return int(limit)
    items = schema.get("items") or schema.get("additionalProperties")
    if not isinstance(items, dict):
        return 1
    key = 6 if schema.get("additionalProperties") else 1  # quotes, colon, comma and a letter, or the comma alone
    return (_REQUEST_BYTES - 2) // (_smallest(items) + key)


def _turns(expression: str, variables: Mapping[str, Obj]) -> int:
    """How often the innermost loop of an expression turns, as far as its lists are known."""
    most, at = 1, 0
    while match := _MACRO.search(expression, at):
        end = _closing(expression, match.end())
        schema = _resolve(match.group(1), variables)
        size = 1 if schema is None else _most(schema)
        element: Obj = {}
        if schema is not None:
            element = schema["items"] if isinstance(schema.get("items"), dict) else {"type": "string"}
        inner = _turns(expression[match.end() : end], {**variables, match.group(2): element})
        most = max(most, size * inner)
        at = end
    return most


def _closing(expression: str, at: int) -> int:
    """Where the parenthesis ends that is open at a place."""
    depth = 1
    while at < len(expression) and depth:
        depth += {"(": 1, ")": -1}.get(expression[at], 0)
        at += 1
    return at


def _resolve(path: str, variables: Mapping[str, Obj]) -> Obj | None:
    """The schema of `self.a.b` or of a loop's variable."""
    root, *names = path.split(".")
    schema = variables.get(root)
    for name in names:
        schema = ((schema or {}).get("properties") or {}).get(name)
    return schema
