"""Rules for admission policies and their bindings; expressions must compile and have the right type.

Upstream: pkg/apis/admissionregistration/validation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bowsprit.apiserver.admission.conditions import VARIABLES, expression_errors
from bowsprit.apiserver.admission.mutation_policy import as_maps
from bowsprit.controlplane.admissionregistration.webhookvalidation import condition_errors, rule_errors
from bowsprit.controlplane.countrules import one_of
from bowsprit.controlplane.labelrules import selector_errors
from bowsprit.machinery import cel, fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import (
    is_dns1035_label,
    is_dns1123_subdomain,
    is_qualified_name,
    is_valid_path_segment_name,
)

_REASONS = ["Forbidden", "Invalid", "RequestEntityTooLarge"]
_MUTABLE_OPERATIONS = ["*", "CONNECT", "CREATE", "UPDATE"]
_PATCHES = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}
_MOST_ANNOTATIONS = 20
_LONGEST_ANNOTATION = 5 * 1024
_IDENTIFIER = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")


def validating_policy_errors(obj: Obj) -> list[FieldError]:
    """A ValidatingAdmissionPolicy."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = _policy_errors(spec, where)
    validations, annotations = spec.get("validations") or [], spec.get("auditAnnotations") or []
    if not validations and not annotations:
        detail = "validations or auditAnnotations must contain at least one item"
        return errors + [
            fielderrors.required(where.child(field), detail) for field in ("validations", "auditAnnotations")
        ]
    for index, validation in enumerate(validations):
        errors += _validation_errors(validation, where.child("validations").index(index))
    place = where.child("auditAnnotations")
    if len(annotations) > _MOST_ANNOTATIONS:
        detail = f"must not have more than {_MOST_ANNOTATIONS} auditAnnotations"
        errors.append(fielderrors.invalid(place, annotations, detail))
    keys: set[str] = set()
    for index, annotation in enumerate(annotations):
        errors += _annotation_errors(annotation, (obj.get("metadata") or {}).get("name", ""), place.index(index))
        key = annotation.get("key", "")
        if key in keys:
            errors.append(fielderrors.duplicate(place.index(index).child("key"), key))
        keys.add(key)
    return errors


def mutating_policy_errors(obj: Obj) -> list[FieldError]:
    """A MutatingAdmissionPolicy."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = _policy_errors(spec, where)
    errors += _mutable_errors(spec.get("matchConstraints"), where.child("matchConstraints"))
    if not spec.get("mutations"):
        errors.append(fielderrors.required(where.child("mutations"), "mutations must contain at least one item"))
    for index, mutation in enumerate(spec.get("mutations") or ()):
        errors += _mutation_errors(mutation, where.child("mutations").index(index))
    return errors + one_of(spec.get("reinvocationPolicy"), ["IfNeeded", "Never"], where.child("reinvocationPolicy"))


def validating_binding_errors(obj: Obj) -> list[FieldError]:
    """A ValidatingAdmissionPolicyBinding."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = _binding_errors(spec, where)
    actions = spec.get("validationActions") or []
    place = where.child("validationActions")
    if not actions:
        errors.append(fielderrors.required(place, "at least one validation action is required"))
    for index, action in enumerate(actions):
        if action not in ("Deny", "Warn", "Audit"):
            errors.append(fielderrors.not_supported(place.index(index), action, ["Audit", "Deny", "Warn"]))
        if action in actions[:index]:
            errors.append(fielderrors.duplicate(place.index(index), action))
    if {"Deny", "Warn"} <= set(actions):
        detail = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API response "
            "and headers serves no purpose)"
        )
        errors.append(fielderrors.invalid(place, actions, detail))
    return errors


def mutating_binding_errors(obj: Obj) -> list[FieldError]:
    """A MutatingAdmissionPolicyBinding."""
    spec, where = obj.get("spec") or {}, path("spec")
    return _binding_errors(spec, where) + _mutable_errors(spec.get("matchResources"), where.child("matchResources"))


# --- what policies of both sorts have ---------------------------------------------------------------------------------


def _policy_errors(spec: Obj, where: Path) -> list[FieldError]:
    errors = _defaulted(spec.get("failurePolicy"), ["Fail", "Ignore"], where.child("failurePolicy"))
    if spec.get("paramKind") is not None:
        errors += _param_kind_errors(spec["paramKind"], where.child("paramKind"))
    constraints, place = spec.get("matchConstraints"), where.child("matchConstraints")
    if constraints is None:
        errors.append(fielderrors.required(place))
    else:
        errors += _match_errors(constraints, place)
        if not constraints.get("resourceRules"):
            errors.append(fielderrors.required(place.child("resourceRules")))
    errors += condition_errors(spec.get("matchConditions") or [], where.child("matchConditions"))
    for index, variable in enumerate(spec.get("variables") or ()):
        place, name = where.child("variables").index(index), variable.get("name", "")
        if not name.strip():
            errors.append(fielderrors.required(place.child("name"), "name is not specified"))
        elif not _IDENTIFIER.fullmatch(name) or name in cel.KEYWORDS:
            errors.append(fielderrors.invalid(place.child("name"), name, "must be a valid CEL identifier"))
        errors += expression_errors(variable.get("expression", ""), place.child("expression"))
    return errors


def _defaulted(value: str | None, supported: list[str], where: Path) -> list[FieldError]:
    """An enumeration with a default: the empty string is a wrong value."""
    return [] if value in supported else [fielderrors.not_supported(where, value, supported)]


def _param_kind_errors(kind: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    api_version, name = kind.get("apiVersion", ""), kind.get("kind", "")
    place = where.child("apiVersion")
    group, _, version = api_version.rpartition("/")
    if not api_version:
        errors.append(fielderrors.required(place))
    elif "/" in group:
        errors.append(fielderrors.invalid(place, api_version, f"unexpected GroupVersion string: {api_version}"))
    else:
        if group and (problems := is_dns1123_subdomain(group)):
            errors.append(fielderrors.invalid(place, group, ",".join(problems)))
        if not version:
            errors.append(fielderrors.invalid(place, api_version, "version must be specified"))
        elif problems := is_dns1035_label(version):
            errors.append(fielderrors.invalid(place, version, ",".join(problems)))
    if not name:
        errors.append(fielderrors.required(where.child("kind")))
    elif problems := is_dns1035_label(name.lower()):
        detail = "may have mixed case, but should otherwise match: " + ",".join(problems)
        errors.append(fielderrors.invalid(where.child("kind"), name, detail))
    return errors


def _validation_errors(validation: Obj, where: Path) -> list[FieldError]:
    errors = expression_errors(validation.get("expression", ""), where.child("expression"), "BOOL")
    for field in ("messageExpression", "message"):
        text, place = validation.get(field, ""), where.child(field)
        if text and not text.strip():
            errors.append(fielderrors.invalid(place, text, "must be non-empty if specified"))
        elif text and field == "messageExpression":
            errors += expression_errors(text, place, "STRING")
        elif "\n" in text.strip():
            errors.append(fielderrors.invalid(place, text, "must not contain line breaks"))
    return errors + one_of(validation.get("reason"), _REASONS, where.child("reason"), required=False)


def _annotation_errors(annotation: Obj, policy: str, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    key, text, place = annotation.get("key", ""), annotation.get("valueExpression", ""), where.child("valueExpression")
    if policy:
        full = f"{policy}/{key}"
        errors += [fielderrors.invalid(where.child("key"), full, problem) for problem in is_qualified_name(full)]
    else:
        errors.append(fielderrors.invalid(where.child("key"), key, "requires metadata.name be non-empty"))
    if not text.strip():
        errors.append(fielderrors.required(place, "valueExpression is not specified"))
    elif len(text.strip().encode()) > _LONGEST_ANNOTATION:
        errors.append(fielderrors.required(place, f"must not exceed {_LONGEST_ANNOTATION} bytes in length"))
    else:
        errors += expression_errors(text, place, "STRING", "NULL")
    return errors


def _mutation_errors(mutation: Obj, where: Path) -> list[FieldError]:
    kind = mutation.get("patchType", "")
    if kind not in _PATCHES:
        return one_of(kind, sorted(_PATCHES), where.child("patchType"))
    errors: list[FieldError] = []
    for name, field in _PATCHES.items():
        given, place = mutation.get(field), where.child(field)
        if name == kind and given is None:
            errors.append(fielderrors.required(place, f"must be specified when patchType is {kind}"))
        elif name == kind:
            errors += _patch_errors((given or {}).get("expression", ""), place.child("expression"))
        elif given is not None:
            errors.append(fielderrors.invalid(place, f"{{{field}}}", f"must not be specified when patchType is {kind}"))
    return errors


def _patch_errors(expression: str, where: Path) -> list[FieldError]:
    """Objects and patches are written as literals of types, which are read as maps."""
    if not expression.strip():
        return [fielderrors.required(where)]
    try:
        cel.compile_expression(as_maps(expression), VARIABLES)
    except cel.CelError as error:
        return [fielderrors.invalid(where, expression, str(error))]
    return []


# --- which requests are meant -----------------------------------------------------------------------------------------


def _binding_errors(spec: Obj, where: Path) -> list[FieldError]:
    policy, place = spec.get("policyName", ""), where.child("policyName")
    if policy:
        errors = [fielderrors.invalid(place, policy, problem) for problem in is_dns1123_subdomain(policy)]
    else:
        errors = [fielderrors.required(place)]
    if spec.get("paramRef") is not None:
        errors += _param_errors(spec["paramRef"], where.child("paramRef"))
    if spec.get("matchResources") is not None:
        errors += _match_errors(spec["matchResources"], where.child("matchResources"))
    return errors


def _param_errors(reference: Obj, where: Path) -> list[FieldError]:
    name, selector = reference.get("name", ""), reference.get("selector")
    exclusive = "name and selector are mutually exclusive"
    errors = [fielderrors.invalid(where.child("name"), name, problem) for problem in is_valid_path_segment_name(name)]
    if name and selector is not None:
        errors.append(fielderrors.forbidden(where.child("name"), exclusive))
    if selector is not None:
        errors += selector_errors(selector, where.child("selector"))
        if name:
            errors.append(fielderrors.forbidden(where.child("selector"), exclusive))
    elif not name:
        errors.append(fielderrors.required(where, "one of name or selector must be specified"))
    action = reference.get("parameterNotFoundAction")
    return errors + one_of(action, ["Deny", "Allow"], where.child("parameterNotFoundAction"))


def _match_errors(match: Obj, where: Path) -> list[FieldError]:
    """MatchResources; the selectors have defaults."""
    errors = _defaulted(match.get("matchPolicy"), ["Equivalent", "Exact"], where.child("matchPolicy"))
    for field in ("namespaceSelector", "objectSelector"):
        errors += selector_errors(match.get(field), where.child(field))
    for field in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(field) or ()):
            place = where.child(field).index(index)
            errors += _resource_name_errors(rule.get("resourceNames") or [], place.child("resourceNames"))
            errors += rule_errors(rule, place)
    return errors


def _resource_name_errors(names: list[str], where: Path) -> Iterable[FieldError]:
    for index, name in enumerate(names):
        for problem in is_valid_path_segment_name(name):
            yield fielderrors.invalid(where.index(index), name, problem)
        if name in names[:index]:
            yield fielderrors.duplicate(where.index(index), name)


def _mutable_errors(match: Obj | None, where: Path) -> list[FieldError]:
    """Deletions cannot be mutated."""
    place = where.child("resourceRules", "operations")
    return [
        fielderrors.not_supported(place, operation, _MUTABLE_OPERATIONS)
        for rule in (match or {}).get("resourceRules") or ()
        for operation in rule.get("operations") or ()
        if operation not in _MUTABLE_OPERATIONS
    ]
