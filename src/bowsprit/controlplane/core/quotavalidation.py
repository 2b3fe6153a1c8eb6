"""Rules for LimitRanges and ResourceQuotas (upstream ValidateLimitRange, ValidateResourceQuota)."""

from __future__ import annotations

from bowsprit.controlplane.core.resourcerules import amount_errors, container_name_errors, is_hugepages
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import is_qualified_name

_QUOTA_RESOURCES = frozenset(
    {
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "persistentvolumeclaims",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
    }
)
_STANDARD = _QUOTA_RESOURCES | {"storage"}
_POD_SCOPES = {"Terminating", "NotTerminating", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity"}
_SCOPES = frozenset({*_POD_SCOPES, "BestEffort", "VolumeAttributesClass"})
_EXISTING_ONLY = _POD_SCOPES - {"PriorityClass"} | {"BestEffort"}
_EXISTS = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)
_POD_RESOURCES = frozenset(
    {
        "pods",
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
    }
)
_LIMIT_TYPES = frozenset({"Pod", "Container", "PersistentVolumeClaim"})


def limit_range_errors(obj: Obj) -> list[FieldError]:
    """Each type once; minimum, maximum and defaults in order."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, limit in enumerate((obj.get("spec") or {}).get("limits") or ()):
        place = path("spec", "limits").index(index)
        kind = limit.get("type", "")
        errors += _type_errors(kind, place.child("type"))
        if kind in seen:
            errors.append(fielderrors.duplicate(place.child("type"), kind))
        seen.add(kind)
        errors += _limit_errors(limit, kind, place)
    return errors


def _type_errors(kind: str, where: Path) -> list[FieldError]:
    errors = [fielderrors.invalid(where, kind, text) for text in is_qualified_name(kind)]
    if not errors and "/" not in kind and kind not in _LIMIT_TYPES:
        errors.append(fielderrors.invalid(where, kind, "must be a standard limit type or fully qualified"))
    return errors


def _limit_errors(limit: Obj, kind: str, where: Path) -> list[FieldError]:
    parts = {
        name: limit.get(name) or {} for name in ("min", "max", "default", "defaultRequest", "maxLimitRequestRatio")
    }
    errors: list[FieldError] = []
    for part, values in parts.items():
        if kind != "Pod" or part not in ("default", "defaultRequest"):
            for name in values:
                errors += _limited_name_errors(kind, name, where.child(part).key(name))
    if kind == "Pod":
        detail = "may not be specified when `type` is 'Pod'"
        errors += [
            fielderrors.forbidden(where.child(name), detail) for name in ("default", "defaultRequest") if parts[name]
        ]
    if kind == "PersistentVolumeClaim" and "storage" not in parts["min"] and "storage" not in parts["max"]:
        detail = "either minimum or maximum storage value is required, but neither was provided"
        errors.append(fielderrors.required(where.child("limits"), detail))
    for name in dict.fromkeys(key for part in parts.values() for key in part):
        amounts = {part: Quantity.parse(values[name]) for part, values in parts.items() if name in values}
        errors += _order_errors(name, amounts, where)
    return errors


def _limited_name_errors(kind: str, name: str, where: Path) -> list[FieldError]:
    """Of pods and containers what containers can ask for, of the rest any resource."""
    if kind in ("Pod", "Container"):
        return container_name_errors(name, where)
    errors = [fielderrors.invalid(where, name, text) for text in is_qualified_name(name)]
    if not errors and "/" not in name and name not in _STANDARD and not is_hugepages(name):
        errors.append(fielderrors.invalid(where, name, "must be a standard resource type or fully qualified"))
    return errors


def _order_errors(name: str, amounts: dict[str, Quantity], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []

    def ordered(low: str, low_text: str, high: str, high_text: str, field: str, shown: str) -> None:
        if low in amounts and high in amounts and amounts[low] > amounts[high]:
            detail = f"{low_text} value {amounts[low]} is greater than {high_text} value {amounts[high]}"
            errors.append(fielderrors.invalid(where.child(field).key(name), str(amounts[shown]), detail))

    ordered("min", "min", "max", "max", "min", "min")
    ordered("min", "min", "defaultRequest", "default request", "defaultRequest", "defaultRequest")
    ordered("defaultRequest", "default request", "max", "max", "defaultRequest", "defaultRequest")
    ordered("defaultRequest", "default request", "default", "default limit", "defaultRequest", "defaultRequest")
    ordered("min", "min", "default", "default", "default", "min")
    ordered("default", "default", "max", "max", "default", "max")
    ratio = amounts.get("maxLimitRequestRatio")
    if ratio is not None and ratio < Quantity.of(1):
        place = where.child("maxLimitRequestRatio").key(name)
        errors.append(fielderrors.invalid(place, str(ratio), f"ratio {ratio} is less than 1"))
    if ratio is not None and "min" in amounts and "max" in amounts:
        least, most = amounts["min"].milli_value(), amounts["max"].milli_value()
        limit = most / least if least else float("inf")
        if ratio.milli_value() / 1000 > limit:
            place = where.child("maxLimitRequestRatio").key(name)
            detail = f"ratio {ratio} is greater than max/min = {limit:f}"
            errors.append(fielderrors.invalid(place, str(ratio), detail))
    return errors


def quota_errors(obj: Obj) -> list[FieldError]:
    """Known resources, amounts that are not negative, scopes that fit together."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    for name, amount in (spec.get("hard") or {}).items():
        place = where.child("hard").key(name)
        errors += _resource_errors(name, place)
        errors += amount_errors(name, amount, place)
    errors += _scope_errors(spec, where)
    for part in ("hard", "used"):
        for name, amount in ((obj.get("status") or {}).get(part) or {}).items():
            place = path("status", part).key(name)
            errors += _resource_errors(name, place) + amount_errors(name, amount, place)
    return errors


def _resource_errors(name: str, where: Path) -> list[FieldError]:
    errors = [fielderrors.invalid(where, name, text) for text in is_qualified_name(name)]
    if "/" in name:
        return errors
    huge = is_hugepages(name) or name.startswith("requests.hugepages-")
    if not errors and name not in _STANDARD and not huge:
        errors.append(fielderrors.invalid(where, name, "must be a standard resource type or fully qualified"))
    if name not in _QUOTA_RESOURCES and not huge:
        errors.append(fielderrors.invalid(where, name, "must be a standard resource for quota"))
    return errors


def _scope_errors(spec: Obj, where: Path) -> list[FieldError]:
    scopes = spec.get("scopes") or []
    errors: list[FieldError] = []
    place = where.child("scopes")
    hard = sorted(name for name in spec.get("hard") or {} if name in _QUOTA_RESOURCES)
    for scope in scopes:
        if scope not in _SCOPES:
            errors.append(fielderrors.invalid(place, scopes, "unsupported scope"))
        detail = "unsupported scope applied to resource"
        errors += [fielderrors.invalid(place, scopes, detail) for name in hard if not _applies(scope, name)]
    errors += _conflicts(scopes, place, scopes)
    selector, place = spec.get("scopeSelector"), where.child("scopeSelector", "matchExpressions")
    if selector is not None:
        terms = selector.get("matchExpressions") or []
        shown = {
            "MatchExpressions": [
                {
                    "ScopeName": term.get("scopeName", ""),
                    "Operator": term.get("operator", ""),
                    "Values": term.get("values"),
                }
                for term in terms
            ]
        }
        for term in terms:
            errors += _term_errors(term, place)
            detail = "unsupported scope applied to resource"
            unfit = [name for name in hard if not _applies(term.get("scopeName", ""), name)]
            errors += [fielderrors.invalid(place, shown, detail)] * len(unfit)
        errors += _conflicts([term.get("scopeName", "") for term in terms], place, spec.get("scopes"))
    return errors


def _applies(scope: str, resource: str) -> bool:
    """Whether a scope can limit what a quota of this resource counts (upstream IsResourceQuotaScopeValidForResource)."""
    if scope in ("Terminating", "NotTerminating", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity"):
        return resource in _POD_RESOURCES
    if scope == "BestEffort":
        return resource == "pods"
    if scope == "VolumeAttributesClass":
        return resource in ("persistentvolumeclaims", "requests.storage")
    return True


def _conflicts(scopes: list[str], where: Path, shown: list[str] | None) -> list[FieldError]:
    return [
        fielderrors.invalid(where, shown, "conflicting scopes")
        for pair in (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))
        if all(scope in scopes for scope in pair)
    ]


def _term_errors(term: Obj, where: Path) -> list[FieldError]:
    """One requirement; upstream tells nobody which of them is meant."""
    errors: list[FieldError] = []
    scope, operator, values = term.get("scopeName", ""), term.get("operator", ""), term.get("values") or []
    if scope not in _SCOPES:
        errors.append(fielderrors.invalid(where.child("scopeName"), scope, "unsupported scope"))
    if scope in _EXISTING_ONLY and operator != "Exists":
        errors.append(fielderrors.invalid(where.child("operator"), operator, _EXISTS))
    if operator in ("In", "NotIn"):
        if not values:
            detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
            errors.append(fielderrors.required(where.child("values"), detail))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
            errors.append(fielderrors.invalid(where.child("values"), values, detail))
    else:
        errors.append(fielderrors.invalid(where.child("operator"), operator, "not a valid selector operator"))
    return errors


def quota_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """The scopes of a quota stay."""
    errors = quota_errors(new)
    after, before = (new.get("spec") or {}).get("scopes") or [], (old.get("spec") or {}).get("scopes") or []
    if sorted(after) != sorted(before):
        errors.append(fielderrors.invalid(path("spec", "scopes"), after or None, "field is immutable"))
    return errors
