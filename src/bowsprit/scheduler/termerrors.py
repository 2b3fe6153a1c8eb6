"""What is wrong with a node selector term (upstream: component-helpers, nodeaffinity.newNodeSelectorTerm).

The API server accepts some terms that cannot be evaluated (a Gt with a word, say): they match no node.
"""

from __future__ import annotations

from bowsprit.machinery.fielderrors import FieldError, Path, invalid, not_supported
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_qualified_name, is_valid_label_value

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")


def term_errors(where: Path, term: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for i, expression in enumerate(term.get("matchExpressions") or ()):
        errors += _requirement(where.child("matchExpressions").index(i), expression)
    for i, expression in enumerate(term.get("matchFields") or ()):
        errors += _field(where.child("matchFields").index(i), expression)
    return errors


def _requirement(where: Path, expression: Obj) -> list[FieldError]:
    operator, values = expression.get("operator", ""), expression.get("values") or []
    if operator not in _OPERATORS:
        return [not_supported(where.child("operator"), operator, list(_OPERATORS))]
    problems = is_qualified_name(expression.get("key", ""))
    if problems:
        return [invalid(where.child("key"), expression.get("key", ""), "; ".join(problems))]
    at = where.child("values")
    if operator in ("In", "NotIn") and not values:
        return [invalid(at, expression.get("values"), "for 'in', 'notin' operators, values set can't be empty")]
    if operator in ("Exists", "DoesNotExist") and values:
        return [invalid(at, values, "values set must be empty for exists and does not exist")]
    if operator in ("Gt", "Lt"):
        if len(values) != 1:
            return [invalid(at, expression.get("values"), "for 'Gt', 'Lt' operators, exactly one value is required")]
        if not values[0].lstrip("+-").isdigit():
            return [invalid(at.index(0), values[0], "for 'Gt', 'Lt' operators, the value must be an integer")]
    return [
        invalid(at.index(i), value, "; ".join(bad))
        for i, value in enumerate(values)
        if (bad := is_valid_label_value(value))
    ]


def _field(where: Path, expression: Obj) -> list[FieldError]:
    operator, values = expression.get("operator", ""), expression.get("values") or []
    if operator not in ("In", "NotIn"):
        return [not_supported(where.child("operator"), operator, ["In", "NotIn"])]
    if len(values) != 1:
        return [invalid(where.child("values"), expression.get("values"), "must have one element")]
    return []
