"""Rules for FlowSchemas and PriorityLevelConfigurations."""

from __future__ import annotations

from math import ceil, log2

from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_label, is_dns1123_subdomain

_MOST_QUEUES = 10_000_000
_MOST_BITS = 60
_METHODS = ["ByNamespace", "ByUser"]
_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"]


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
    elif precedence == 1 and obj["metadata"].get("name") != "exempt":
        detail = "only the schema named 'exempt' may have matchingPrecedence 1"
        errors.append(fielderrors.invalid(where.child("matchingPrecedence"), precedence, detail))
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in _METHODS:
        place = where.child("distinguisherMethod", "type")
        errors.append(fielderrors.not_supported(place, {"Type": method.get("type", "")}, _METHODS))
    level, place = spec.get("priorityLevelConfiguration") or {}, where.child("priorityLevelConfiguration", "name")
    if level.get("name"):
        errors += name_errors(level["name"], place, is_dns1123_subdomain)
    else:
        errors.append(fielderrors.required(place, "must reference a priority level"))
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


def _verbs(rule: Obj, where: Path) -> list[FieldError]:
    verbs = rule.get("verbs") or []
    if not verbs:
        return [fielderrors.required(where, "verbs must contain at least one value")]
    if "*" not in verbs and not set(verbs) <= set(_VERBS):
        return [fielderrors.not_supported(where, verbs, _VERBS)]
    return _lonely_star(verbs, where, "verbs")


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
        errors += _verbs(item, place.child("verbs")) + _urls(item, place.child("nonResourceURLs"))
    return errors


def _urls(rule: Obj, where: Path) -> list[FieldError]:
    urls = rule.get("nonResourceURLs") or []
    if not urls:
        return [fielderrors.required(where, "nonResourceURLs must contain at least one value")]
    if "*" in urls:
        return _lonely_star(urls, where, "non-resource URLs")
    return [error for index, url in enumerate(urls) for error in _url(url, where.index(index))]


def _url(url: str, where: Path) -> list[FieldError]:
    if not url:
        return [fielderrors.invalid(where, url, "must not be empty")]
    if url == "/":
        return []
    if not url.startswith("/"):
        return [fielderrors.invalid(where, url, "must start with slash")]
    if " " in url:
        return [fielderrors.invalid(where, url, "must not contain white-space")]
    if "//" in url:
        return [fielderrors.invalid(where, url, "must not contain double slash")]
    if "*" in url and (url.count("*") > 1 or not url.endswith("/*")):
        return [fielderrors.invalid(where, url, "wildcard can only do suffix matching")]
    return []


def _resource_rule(rule: Obj, where: Path) -> list[FieldError]:
    errors = _verbs(rule, where.child("verbs"))
    for field, sort, others in (("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")):
        if not rule.get(field):
            detail = f"resource rules must supply at least one {sort}"
            errors.append(fielderrors.required(where.child(field), detail))
        errors += _lonely_star(rule.get(field) or [], where.child(field), others)
    namespaces, place = rule.get("namespaces") or [], where.child("namespaces")
    if not namespaces and not rule.get("clusterScope"):
        detail = "resource rules that are not cluster scoped must supply at least one namespace"
        errors.append(fielderrors.required(place, detail))
    elif "*" in namespaces:
        errors += _lonely_star(namespaces, place, "namespaces")
    else:
        intro = "each member of this list must be '*' or a DNS-1123 label; "
        for index, name in enumerate(namespaces):
            errors += [fielderrors.invalid(place.index(index), name, intro + text) for text in is_dns1123_label(name)]
    return errors


def priority_level_errors(obj: Obj) -> list[FieldError]:
    """A PriorityLevelConfiguration."""
    spec, where = obj.get("spec") or {}, path("spec")
    kind, limited, exempt = spec.get("type", ""), spec.get("limited"), spec.get("exempt")
    errors: list[FieldError] = []
    if (obj["metadata"].get("name") == "exempt") != (kind == "Exempt"):
        detail = "must be 'Exempt' if and only if `name` is 'exempt'"
        errors.append(fielderrors.invalid(where.child("type"), kind, detail))
    if kind == "Exempt":
        if limited is not None:
            errors.append(fielderrors.forbidden(where.child("limited"), "must be nil if the type is not Limited"))
        place = where.child("exempt")
        return errors + (_shares_errors(exempt, place) + _lendable_errors(exempt, place) if exempt is not None else [])
    if kind != "Limited":
        return [*errors, fielderrors.not_supported(where.child("type"), kind, ["Exempt", "Limited"])]
    if exempt is not None:
        errors.append(fielderrors.forbidden(where.child("exempt"), "must be nil if the type is Limited"))
    if limited is None:
        return [*errors, fielderrors.required(where.child("limited"), "must not be empty when type is Limited")]
    return errors + _limited_errors(limited, where.child("limited"))


def _lendable_errors(level: Obj, where: Path) -> list[FieldError]:
    percent, place = level.get("lendablePercent"), where.child("lendablePercent")
    if percent is None or 0 <= percent <= 100:
        return []
    return [fielderrors.invalid(place, percent, "must be between 0 and 100, inclusive")]


def _shares_errors(level: Obj, where: Path) -> list[FieldError]:
    shares, place = level.get("nominalConcurrencyShares") or 0, where.child("nominalConcurrencyShares")
    return [fielderrors.invalid(place, shares, "must be a non-negative integer")] if shares < 0 else []


def _limited_errors(limited: Obj, where: Path) -> list[FieldError]:
    errors = _shares_errors(limited, where)
    response, place = limited.get("limitResponse") or {}, where.child("limitResponse")
    queuing, kind = response.get("queuing"), response.get("type", "")
    if kind == "Reject":
        if queuing is not None:
            detail = "must be nil if limited.limitResponse.type is not Limited"
            errors.append(fielderrors.forbidden(place.child("queuing"), detail))
    elif kind != "Queue":
        errors.append(fielderrors.not_supported(place.child("type"), kind, ["Queue", "Reject"]))
    elif queuing is None:
        detail = "must not be empty if limited.limitResponse.type is Limited"
        errors.append(fielderrors.required(place.child("queuing"), detail))
    else:
        errors += _queuing_errors(queuing, place.child("queuing"))
    errors += _lendable_errors(limited, where)
    borrowed = limited.get("borrowingLimitPercent")
    if borrowed is not None and borrowed < 0:
        detail = "if specified, must be a non-negative integer"
        errors.append(fielderrors.invalid(where.child("borrowingLimitPercent"), borrowed, detail))
    return errors


def _queuing_errors(queuing: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    length, queues, hand = (queuing.get(field, 0) for field in ("queueLengthLimit", "queues", "handSize"))
    if length <= 0:
        errors.append(fielderrors.invalid(where.child("queueLengthLimit"), length, "must be positive"))
    if queues <= 0:
        errors.append(fielderrors.invalid(where.child("queues"), queues, "must be positive"))
    elif queues > _MOST_QUEUES:
        errors.append(fielderrors.invalid(where.child("queues"), queues, f"must not be greater than {_MOST_QUEUES}"))
    detail = ""
    if hand <= 0:
        detail = "must be positive"
    elif hand > queues:
        detail = f"should not be greater than queues ({queues})"
    elif ceil(log2(queues) * hand) > _MOST_BITS:
        detail = (
            f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {_MOST_BITS}"
        )
    return errors + ([fielderrors.invalid(where.child("handSize"), hand, detail)] if detail else [])
