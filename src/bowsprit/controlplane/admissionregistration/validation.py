"""Rules for admission policies and their bindings; expressions must compile and have the right type."""

from __future__ import annotations

from bowsprit.apiserver.admission.conditions import expression_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj


def validating_policy_errors(obj: Obj) -> list[FieldError]:
    """A ValidatingAdmissionPolicy."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    constraints = spec.get("matchConstraints")
    if constraints is None:
        errors.append(fielderrors.required(where.child("matchConstraints")))
    elif not constraints.get("resourceRules"):
        errors.append(fielderrors.required(where.child("matchConstraints", "resourceRules")))
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        detail = "validations or auditAnnotations must contain at least one item"
        errors += [fielderrors.required(where.child(field), detail) for field in ("validations", "auditAnnotations")]
    return errors + _expressions(spec, where)


def _expressions(spec: Obj, where: Path) -> list[FieldError]:
    """Every expression of a policy, compiled."""
    errors: list[FieldError] = []
    for field, member, wanted in (
        ("matchConditions", "expression", ("BOOL",)),
        ("variables", "expression", ()),
        ("validations", "expression", ("BOOL",)),
        ("validations", "messageExpression", ("STRING",)),
        ("auditAnnotations", "valueExpression", ("STRING", "NULL")),
    ):
        for index, item in enumerate(spec.get(field) or ()):
            if member != "messageExpression" or item.get(member):
                place = where.child(field).index(index).child(member)
                errors += expression_errors(str(item.get(member) or ""), place, *wanted)
    return errors


def validating_binding_errors(obj: Obj) -> list[FieldError]:
    """A ValidatingAdmissionPolicyBinding."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    if not spec.get("policyName"):
        errors.append(fielderrors.required(where.child("policyName")))
    if obj.get("kind") != "ValidatingAdmissionPolicyBinding":
        return errors
    actions = spec.get("validationActions") or []
    place = where.child("validationActions")
    if not actions:
        errors.append(fielderrors.required(place, "at least one validation action is required"))
    for index, action in enumerate(actions):
        if action not in ("Deny", "Warn", "Audit"):
            errors.append(fielderrors.not_supported(place.index(index), action, ["Audit", "Deny", "Warn"]))
        elif action in actions[:index]:
            errors.append(fielderrors.duplicate(place.index(index), action))
    if {"Deny", "Warn"} <= set(actions):
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response "
            "and headers serves no purpose)"
        )
        errors.append(fielderrors.invalid(place, actions, detail))
    return errors
