"""Rules for FlowSchemas and PriorityLevelConfigurations (upstream pkg/apis/flowcontrol/validation)."""

from __future__ import annotations

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_subdomain

_SPEC = path("spec")
_MOST_PRECEDENCE = 10000
_METHODS = ["ByNamespace", "ByUser"]
_SUBJECTS = ["Group", "ServiceAccount", "User"]


def schema_errors(obj: Obj) -> list[FieldError]:
    """A FlowSchema."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    precedence = spec.get("matchingPrecedence", 0)
    place = _SPEC.child("matchingPrecedence")
    if precedence <= 0:
        errors.append(fielderrors.invalid(place, precedence, "must be a positive value"))
    if precedence > _MOST_PRECEDENCE:
        errors.append(fielderrors.invalid(place, precedence, f"must not be greater than {_MOST_PRECEDENCE}"))
    method = (spec.get("distinguisherMethod") or {}).get("type")
    if spec.get("distinguisherMethod") is not None and method not in _METHODS:
        errors.append(
            fielderrors.not_supported(_SPEC.child("distinguisherMethod"), spec["distinguisherMethod"], _METHODS)
        )
    level = (spec.get("priorityLevelConfiguration") or {}).get("name", "")
    place = _SPEC.child("priorityLevelConfiguration", "name")
    if not level:
        errors.append(fielderrors.required(place, "must reference a priority level"))
    else:
        errors += [fielderrors.invalid(place, level, text) for text in is_dns1123_subdomain(level)]
    for index, rule in enumerate(spec.get("rules") or ()):
        errors += _rule_errors(rule, _SPEC.child("rules").index(index))
    return errors


def _rule_errors(rule: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    subjects = rule.get("subjects") or []
    if not subjects:
        errors.append(fielderrors.required(where.child("subjects"), "subjects must contain at least one value"))
    for index, subject in enumerate(subjects):
        errors += _subject_errors(subject, where.child("subjects").index(index))
    resources, urls = rule.get("resourceRules") or [], rule.get("nonResourceRules") or []
    if not resources and not urls:
        detail = "at least one of resourceRules and nonResourceRules has to be non-empty"
        errors.append(fielderrors.required(where, detail))
    for index, entry in enumerate(resources):
        errors += _resource_errors(entry, where.child("resourceRules").index(index))
    for index, entry in enumerate(urls):
        errors += _url_errors(entry, where.child("nonResourceRules").index(index))
    return errors


def _subject_errors(subject: Obj, where: Path) -> list[FieldError]:
    kind = subject.get("kind", "")
    if kind not in _SUBJECTS:
        return [fielderrors.not_supported(where.child("kind"), kind, _SUBJECTS)]
    field = {"ServiceAccount": "serviceAccount", "User": "user", "Group": "group"}[kind]
    details = subject.get(field)
    if details is None:
        detail = f"{field} is required when subject kind is '{kind}'"
        return [fielderrors.required(where.child(field), detail)]
    fields = ("namespace", "name") if kind == "ServiceAccount" else ("name",)
    return [fielderrors.required(where.child(field, part)) for part in fields if not details.get(part)]


def _verb_errors(rule: Obj, where: Path) -> list[FieldError]:
    verbs = rule.get("verbs") or []
    if not verbs:
        return [fielderrors.required(where.child("verbs"), "verbs must contain at least one value")]
    if "*" in verbs and len(verbs) > 1:
        detail = "if '*' is present, must not specify other verbs"
        return [fielderrors.invalid(where.child("verbs"), verbs, detail)]
    return []


def _resource_errors(rule: Obj, where: Path) -> list[FieldError]:
    errors = _verb_errors(rule, where)
    for field, missing, what in (
        ("apiGroups", "at least one api group", "api groups"),
        ("resources", "at least one resource", "resources"),
    ):
        values = rule.get(field) or []
        if not values:
            errors.append(fielderrors.required(where.child(field), f"resource rules must supply {missing}"))
        elif "*" in values and len(values) > 1:
            detail = f"if '*' is present, must not specify other {what}"
            errors.append(fielderrors.invalid(where.child(field), values, detail))
    namespaces = rule.get("namespaces") or []
    if not namespaces and not rule.get("clusterScope"):
        detail = "resource rules that are not cluster scoped must supply at least one namespace"
        errors.append(fielderrors.required(where.child("namespaces"), detail))
    elif "*" in namespaces and len(namespaces) > 1:
        detail = "if '*' is present, must not specify other namespaces"
        errors.append(fielderrors.invalid(where.child("namespaces"), namespaces, detail))
    return errors


def _url_errors(rule: Obj, where: Path) -> list[FieldError]:
    errors = _verb_errors(rule, where)
    urls, place = rule.get("nonResourceURLs") or [], where.child("nonResourceURLs")
    if not urls:
        errors.append(fielderrors.required(place, "nonResourceURLs must contain at least one value"))
    elif "*" in urls and len(urls) > 1:
        detail = "if '*' is present, must not specify other non-resource URLs"
        errors.append(fielderrors.invalid(place, urls, detail))
    for index, url in enumerate(urls):
        if url != "*" and not url.startswith("/"):
            errors.append(fielderrors.invalid(place.index(index), url, "must start with slash"))
    return errors


def level_errors(obj: Obj) -> list[FieldError]:
    """A PriorityLevelConfiguration."""
    spec = obj.get("spec") or {}
    kind = spec.get("type", "")
    errors: list[FieldError] = []
    if kind == "Exempt":
        if spec.get("limited") is not None:
            detail = "must be nil if the type is not Limited"
            errors.append(fielderrors.forbidden(_SPEC.child("limited"), detail))
    elif kind == "Limited":
        if spec.get("exempt") is not None:
            errors.append(fielderrors.forbidden(_SPEC.child("exempt"), "must be nil if the type is Limited"))
        if spec.get("limited") is None:
            errors.append(fielderrors.required(_SPEC.child("limited"), "must not be empty when type is Limited"))
        else:
            errors += _limited_errors(spec["limited"], _SPEC.child("limited"))
    else:
        errors.append(fielderrors.not_supported(_SPEC.child("type"), kind, ["Exempt", "Limited"]))
    return errors


def _limited_errors(limited: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    shares = limited.get("nominalConcurrencyShares")
    if shares is not None and shares < 0:
        detail = "must be a non-negative integer"
        errors.append(fielderrors.invalid(where.child("nominalConcurrencyShares"), shares, detail))
    response = limited.get("limitResponse") or {}
    kind, queuing, place = response.get("type", ""), response.get("queuing"), where.child("limitResponse")
    if kind == "Reject":
        if queuing is not None:
            detail = "must be nil if limited.limitResponse.type is not Limited"
            errors.append(fielderrors.forbidden(place.child("queuing"), detail))
    elif kind == "Queue":
        if queuing is None:
            detail = "must not be empty if limited.limitResponse.type is Limited"
            errors.append(fielderrors.required(place.child("queuing"), detail))
        else:
            for field in ("queueLengthLimit", "queues", "handSize"):
                if queuing.get(field, 0) <= 0:
                    detail = "must be positive"
                    errors.append(fielderrors.invalid(place.child("queuing", field), queuing.get(field, 0), detail))
            hand, queues = queuing.get("handSize", 0), queuing.get("queues", 0)
            if hand > queues:
                detail = f"should not be greater than queues ({queues})"
                errors.append(fielderrors.invalid(place.child("queuing", "handSize"), hand, detail))
    else:
        errors.append(fielderrors.not_supported(place.child("type"), kind, ["Queue", "Reject"]))
    return errors
