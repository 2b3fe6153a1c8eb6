"""Rules for FlowSchemas and PriorityLevelConfigurations."""

from __future__ import annotations

from bowsprit.controlplane.countrules import one_of
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_label, is_dns1123_subdomain


def flow_schema_errors(obj: Obj) -> list[FieldError]:
    """A FlowSchema."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    precedence = spec.get("matchingPrecedence", 0)
    if precedence <= 0:
        errors.append(fielderrors.invalid(where.child("matchingPrecedence"), precedence, "must be a positive value"))
    elif precedence > 10000:
        errors.append(
            fielderrors.invalid(where.child("matchingPrecedence"), precedence, "must not be greater than 10000")
        )
    if not (spec.get("priorityLevelConfiguration") or {}).get("name"):
        place = where.child("priorityLevelConfiguration", "name")
        errors.append(fielderrors.required(place, "must reference a priority level"))
    method = (spec.get("distinguisherMethod") or {}).get("type")
    if spec.get("distinguisherMethod") is not None:
        errors += one_of(method, ["ByNamespace", "ByUser"], where.child("distinguisherMethod", "type"))
    for index, rule in enumerate(spec.get("rules") or ()):
        errors += _rule(rule, where.child("rules").index(index))
    return errors


_SUBJECTS = {"User": "user", "Group": "group", "ServiceAccount": "serviceAccount"}


def _subject(subject: Obj | None, kind: str, where: Path) -> list[FieldError]:
    if subject is None:
        detail = f"{_SUBJECTS[kind]} is required when subject kind is '{kind}'"
        return [fielderrors.required(where, detail)]
    errors: list[FieldError] = []
    name, namespace = subject.get("name", ""), subject.get("namespace", "")
    if not name:
        errors.append(fielderrors.required(where.child("name")))
    elif kind == "ServiceAccount" and name != "*":
        errors += [fielderrors.invalid(where.child("name"), name, text) for text in is_dns1123_subdomain(name)]
    if kind == "ServiceAccount":
        if not namespace:
            detail = "must specify namespace for service account"
            errors.append(fielderrors.required(where.child("namespace"), detail))
        else:
            place = where.child("namespace")
            errors += [fielderrors.invalid(place, namespace, text) for text in is_dns1123_label(namespace)]
    return errors


def _lonely_star(values: list[str], where: Path, others: str) -> list[FieldError]:
    if "*" in values and len(values) > 1:
        return [fielderrors.invalid(where, values, f"if '*' is present, must not specify other {others}")]
    return []


def _rule(rule: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    if not rule.get("subjects"):
        errors.append(fielderrors.required(where.child("subjects"), "subjects must contain at least one value"))
    for index, subject in enumerate(rule.get("subjects") or ()):
        place, kind = where.child("subjects").index(index), subject.get("kind", "")
        field = _SUBJECTS.get(kind)
        if field is None:
            errors.append(fielderrors.not_supported(place.child("kind"), kind, ["Group", "ServiceAccount", "User"]))
            continue
        for other, name in _SUBJECTS.items():
            if name != field and subject.get(name) is not None:
                detail = f"{name} is forbidden when subject kind is not '{other}'"
                errors.append(fielderrors.forbidden(place.child(name), detail))
        errors += _subject(subject.get(field), kind, place.child(field))
    resources, paths = rule.get("resourceRules") or [], rule.get("nonResourceRules") or []
    if not resources and not paths:
        detail = "at least one of resourceRules and nonResourceRules has to be non-empty"
        errors.append(fielderrors.required(where, detail))
    for index, item in enumerate(resources):
        errors += _resource_rule(item, where.child("resourceRules").index(index))
    for index, item in enumerate(paths):
        place = where.child("nonResourceRules").index(index)
        if not item.get("verbs"):
            errors.append(fielderrors.required(place.child("verbs"), "verbs must contain at least one value"))
        errors += _lonely_star(item.get("verbs") or [], place.child("verbs"), "verbs")
        urls, others = item.get("nonResourceURLs") or [], "non-resource URLs"
        errors += _lonely_star(urls, place.child("nonResourceURLs"), others)
        if not item.get("nonResourceURLs"):
            detail = "nonResourceURLs must contain at least one value"
            errors.append(fielderrors.required(place.child("nonResourceURLs"), detail))
    return errors


def _resource_rule(rule: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for field, detail in (
        ("verbs", "verbs must contain at least one value"),
        ("apiGroups", "resource rules must supply at least one api group"),
        ("resources", "resource rules must supply at least one resource"),
    ):
        if not rule.get(field):
            errors.append(fielderrors.required(where.child(field), detail))
    for field, others in (
        ("verbs", "verbs"),
        ("apiGroups", "api groups"),
        ("resources", "resources"),
        ("namespaces", "namespaces"),
    ):
        errors += _lonely_star(rule.get(field) or [], where.child(field), others)
    if not rule.get("namespaces") and not rule.get("clusterScope"):
        detail = "resource rules that are not cluster scoped must supply at least one namespace"
        errors.append(fielderrors.required(where.child("namespaces"), detail))
    return errors


def priority_level_errors(obj: Obj) -> list[FieldError]:
    """A PriorityLevelConfiguration."""
    spec, where = obj.get("spec") or {}, path("spec")
    kind, limited = spec.get("type", ""), spec.get("limited")
    errors: list[FieldError] = []
    if kind not in ("Exempt", "Limited"):
        return [fielderrors.not_supported(where.child("type"), kind, ["Exempt", "Limited"])]
    if kind == "Exempt":
        detail = "must be nil if the type is not Limited"
        return [fielderrors.forbidden(where.child("limited"), detail)] if limited is not None else []
    if spec.get("exempt") is not None:
        errors.append(fielderrors.forbidden(where.child("exempt"), "must be nil if the type is Limited"))
    if limited is None:
        return [*errors, fielderrors.required(where.child("limited"), "must not be empty when type is Limited")]
    place = where.child("limited")
    if limited.get("nominalConcurrencyShares", 0) < 0:
        spot = place.child("nominalConcurrencyShares")
        errors.append(fielderrors.invalid(spot, limited["nominalConcurrencyShares"], "must be a non-negative integer"))
    response = limited.get("limitResponse") or {}
    spot = place.child("limitResponse")
    if response.get("type") == "Reject":
        if response.get("queuing") is not None:
            detail = "must be nil if limited.limitResponse.type is not Limited"
            errors.append(fielderrors.forbidden(spot.child("queuing"), detail))
    elif response.get("type") == "Queue":
        if response.get("queuing") is None:
            detail = "must not be empty if limited.limitResponse.type is Limited"
            errors.append(fielderrors.required(spot.child("queuing"), detail))
    else:
        errors.append(fielderrors.not_supported(spot.child("type"), response.get("type", ""), ["Queue", "Reject"]))
    return errors
