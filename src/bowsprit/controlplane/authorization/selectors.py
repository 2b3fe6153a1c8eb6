"""Field and label selectors inside access reviews: their checks.

Upstream: pkg/apis/authorization/validation.
"""

from __future__ import annotations

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj

_WITH_VALUES = ("In", "NotIn")
_WITHOUT_VALUES = ("Exists", "DoesNotExist")


def check_selector(selector: Obj | None, where: Path) -> list[FieldError]:
    """What is wrong with a fieldSelector or labelSelector; operators that nobody knows are let pass, for later versions."""
    if selector is None:
        return []
    raw, requirements = selector.get("rawSelector") or "", selector.get("requirements") or []
    if raw and requirements:
        text = "may not specified at the same time as requirements"
        return [fielderrors.invalid(where.child("rawSelector"), raw, text)]
    if not raw and not requirements:
        text = f"when {where} is specified, requirements or rawSelector is required"
        return [fielderrors.required(where.child("requirements"), text)]
    errors: list[FieldError] = []
    for position, requirement in enumerate(requirements):
        errors += _check_requirement(requirement, where.child("requirements").index(position))
    return errors


def _check_requirement(requirement: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values = requirement.get("operator") or "", requirement.get("values") or []
    if not requirement.get("key"):
        errors.append(fielderrors.required(where.child("key"), "must be specified"))
    if operator in _WITH_VALUES and not values:
        text = "must be specified when `operator` is 'In' or 'NotIn'"
        errors.append(fielderrors.required(where.child("values"), text))
    if operator in _WITHOUT_VALUES and values:
        text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        errors.append(fielderrors.forbidden(where.child("values"), text))
    return errors


def selector_text(selector: Obj | None) -> str:
    """The selector as authorizers see it: raw text, or its requirements joined."""
    if not selector:
        return ""
    if raw := selector.get("rawSelector"):
        return str(raw)
    words = {"In": "in", "NotIn": "notin"}
    parts = []
    for requirement in selector.get("requirements") or ():
        key, operator = requirement.get("key", ""), requirement.get("operator", "")
        if operator in words:
            parts.append(f"{key} {words[operator]} ({','.join(requirement.get('values') or ())})")
        elif operator in _WITHOUT_VALUES:
            parts.append(key if operator == "Exists" else f"!{key}")
    return ",".join(parts)
