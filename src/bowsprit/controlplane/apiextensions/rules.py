"""The rules (x-kubernetes-validations) in the schemas of CustomResourceDefinitions: their texts, and whether they compile."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bowsprit.controlplane.apiextensions.fieldpaths import FieldPathError, follow
from bowsprit.controlplane.apiextensions.structural import conversion_problem
from bowsprit.controlplane.gostructs import go_value
from bowsprit.machinery import cel, fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj

if TYPE_CHECKING:
    from bowsprit.machinery.celtypes import RuleTypes

_RULES = "x-kubernetes-validations"
_REASONS = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"]
_BREAKS = re.compile(r"[\n\r]")


def rule_text_errors(schema: Obj, where: Path) -> list[FieldError]:
    """What is wrong with the rules of one schema before anybody compiles them."""
    errors: list[FieldError] = []
    for index, rule in enumerate(schema.get(_RULES) or ()):
        errors += _text_errors(rule, schema, where.child(_RULES).index(index))
    return errors


def _text_errors(rule: Obj, schema: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    expression, message = (rule.get("rule") or "").strip(), rule.get("message") or ""
    text, field_path = rule.get("messageExpression") or "", rule.get("fieldPath") or ""
    if not expression:
        errors.append(fielderrors.required(where.child("rule"), "rule is not specified"))
    elif message and not message.strip():
        detail = "must be non-empty if specified"
        errors.append(fielderrors.invalid(where.child("message"), message, detail))
    elif _BREAKS.search(message.strip()):
        errors.append(fielderrors.invalid(where.child("message"), message, "must not contain line breaks"))
    elif _BREAKS.search(expression) and not message.strip():
        detail = "message must be specified if rule contains line breaks"
        errors.append(fielderrors.required(where.child("message"), detail))
    if text and not text.strip():
        detail = "messageExpression must be non-empty if specified"
        errors.append(fielderrors.required(where.child("messageExpression"), detail))
    reason = rule.get("reason")
    if reason is not None and reason not in _REASONS:
        errors.append(fielderrors.not_supported(where.child("reason"), reason, _REASONS))
    if field_path:
        place = where.child("fieldPath")
        if not field_path.strip():
            errors.append(fielderrors.invalid(place, field_path, "must be non-empty if specified"))
        if _BREAKS.search(field_path):
            errors.append(fielderrors.invalid(place, field_path, "must not contain line breaks"))
        if not _leads_somewhere(field_path, schema):
            errors.append(fielderrors.invalid(place, field_path, "must be a valid path"))
    return errors


def _leads_somewhere(text: str, schema: Obj) -> bool:
    if conversion_problem(schema):
        return True
    try:
        follow(text, schema, arrays=True)
    except FieldPathError:
        return False
    return True


def rule_type_errors(schema: Obj, where: Path, *, root: bool, uncorrelated: Path | None) -> list[FieldError]:
    """What the compiler says of the rules of one schema.

    Args:
        schema: a sound schema.
        where: its place.
        root: whether its values are whole objects.
        uncorrelated: the schema above whose values cannot be told from their predecessors, so that there is no oldSelf.
    """
    rules = schema.get(_RULES)
    if not rules:
        return []
    from bowsprit.machinery.celtypes import RuleTypes  # with protobuf, which most servers never need

    types, errors = RuleTypes(schema, root=root), []
    for index, rule in enumerate(rules):
        errors += _type_errors(rule, types, where.child(_RULES).index(index), uncorrelated)
    return errors


def _type_errors(rule: Obj, types: RuleTypes, where: Path, uncorrelated: Path | None) -> list[FieldError]:
    expression, text = rule["rule"].strip(), (rule.get("messageExpression") or "").strip()
    detail = "cel expression must evaluate to a bool"
    errors = _compile_errors(rule, expression, types, "BOOL", detail, where.child("rule"))
    if text:
        place, detail = where.child("messageExpression"), "messageExpression must evaluate to a string"
        errors += _compile_errors(rule, text, types, "STRING", detail, place)
    if cel.uses_old_self(expression):
        if uncorrelated is not None:
            detail = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelated}"
            errors.append(fielderrors.invalid(where.child("rule"), rule["rule"], detail))
    elif (optional := rule.get("optionalOldSelf")) is not None:
        detail = "may not be set if oldSelf is not used in rule"
        errors.append(fielderrors.invalid(where.child("optionalOldSelf"), optional, detail))
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
        return [fielderrors.invalid(where, go_value("ValidationRule", rule), f"{what}{problem}")]
    return [] if result == wanted else [fielderrors.invalid(where, go_value("ValidationRule", rule), detail)]
