"""Rules for affinity, tolerations and topology spreading (upstream validateAffinity and neighbours)."""

from __future__ import annotations

from bowsprit.controlplane.labelrules import name_errors, selector_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import (
    is_dns1123_label,
    is_dns1123_subdomain,
    is_qualified_name,
    is_valid_label_value,
)

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"]
_WHEN = ["DoNotSchedule", "ScheduleAnyway"]
_HONOR = ["Honor", "Ignore"]


def affinity_errors(affinity: Obj | None, where: Path) -> list[FieldError]:
    """An Affinity."""
    if affinity is None:
        return []
    errors: list[FieldError] = []
    if (node := affinity.get("nodeAffinity")) is not None:
        errors += _node_affinity(node, where.child("nodeAffinity"))
    for kind in ("podAffinity", "podAntiAffinity"):
        if (pod := affinity.get(kind)) is not None:
            errors += _pod_affinity(pod, where.child(kind))
    return errors


def _node_affinity(affinity: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    if (required := affinity.get(_REQUIRED)) is not None:
        errors += node_selector_errors(required, where.child(_REQUIRED))
    for index, term in enumerate(affinity.get(_PREFERRED) or ()):
        place = where.child(_PREFERRED).index(index)
        errors += _weight(term.get("weight", 0), place.child("weight"))
        errors += _node_term(term.get("preference") or {}, place.child("preference"), any_value=True)
    return errors


def node_selector_errors(selector: Obj, where: Path) -> list[FieldError]:
    """A NodeSelector."""
    place = where.child("nodeSelectorTerms")
    terms = selector.get("nodeSelectorTerms") or []
    if not terms:
        return [fielderrors.required(place, "must have at least one node selector term")]
    return [error for index, term in enumerate(terms) for error in _node_term(term, place.index(index))]


def _node_term(term: Obj, where: Path, *, any_value: bool = False) -> list[FieldError]:
    """`any_value`: values need not be label values (in preferences, where they never were judged)."""
    errors: list[FieldError] = []
    for index, requirement in enumerate(term.get("matchExpressions") or ()):
        place = where.child("matchExpressions").index(index)
        errors += _node_requirement(requirement, place)
        if not any_value:
            for position, value in enumerate(requirement.get("values") or ()):
                errors += name_errors(value, place.child("values").index(position), is_valid_label_value)
    for index, requirement in enumerate(term.get("matchFields") or ()):
        place = where.child("matchFields").index(index)
        values = requirement.get("values") or []
        if requirement.get("operator") in ("In", "NotIn"):
            if len(values) != 1:
                detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
                errors.append(fielderrors.required(place.child("values"), detail))
        else:
            errors.append(
                fielderrors.invalid(
                    place.child("operator"), requirement.get("operator", ""), "not a valid selector operator"
                )
            )
        if requirement.get("key") != "metadata.name":
            errors.append(
                fielderrors.invalid(place.child("key"), requirement.get("key", ""), "not a valid field selector key")
            )
        else:
            for position, value in enumerate(values):
                errors += name_errors(value, place.child("values").index(position), is_dns1123_subdomain)
    return errors


def _node_requirement(requirement: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values = requirement.get("operator", ""), requirement.get("values") or []
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(
                fielderrors.required(where.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
            )
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(fielderrors.forbidden(where.child("values"), detail))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            errors.append(fielderrors.required(where.child("values"), detail))
    else:
        errors.append(fielderrors.invalid(where.child("operator"), operator, "not a valid selector operator"))
    key = requirement.get("key", "")
    return errors + [fielderrors.invalid(where.child("key"), key, text) for text in is_qualified_name(key)]


def _pod_affinity(affinity: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, term in enumerate(affinity.get(_REQUIRED) or ()):
        errors += _pod_term(term, where.child(_REQUIRED).index(index))
    for index, weighted in enumerate(affinity.get(_PREFERRED) or ()):
        place = where.child(_PREFERRED).index(index)
        errors += _weight(weighted.get("weight", 0), place.child("weight"))
        errors += _pod_term(weighted.get("podAffinityTerm") or {}, place.child("podAffinityTerm"))
    return errors


def _pod_term(term: Obj, where: Path) -> list[FieldError]:
    errors = selector_errors(term.get("labelSelector"), where.child("labelSelector"))
    errors += selector_errors(term.get("namespaceSelector"), where.child("namespaceSelector"))
    for index, namespace in enumerate(term.get("namespaces") or ()):
        errors += name_errors(namespace, where.child("namespace").index(index), is_dns1123_label)
    key = term.get("topologyKey", "")
    if not key:
        errors.append(fielderrors.required(where.child("topologyKey"), "can not be empty"))
    errors += [fielderrors.invalid(where.child("topologyKey"), key, text) for text in is_qualified_name(key)]
    for field in ("matchLabelKeys", "mismatchLabelKeys"):
        for index, name in enumerate(term.get(field) or ()):
            place = where.child(field).index(index)
            errors += [fielderrors.invalid(place, name, text) for text in is_qualified_name(name)]
            if term.get("labelSelector") is None:
                errors.append(
                    fielderrors.forbidden(where.child(field), "must not be specified when labelSelector is not set")
                )
                break
    return errors


def _weight(weight: int, where: Path) -> list[FieldError]:
    return [] if 1 <= weight <= 100 else [fielderrors.invalid(where, weight, "must be in the range 1-100")]


def toleration_errors(tolerations: list[Obj], where: Path) -> list[FieldError]:
    """The tolerations of a pod."""
    errors: list[FieldError] = []
    for index, toleration in enumerate(tolerations):
        place = where.index(index)
        key, operator = toleration.get("key", ""), toleration.get("operator", "")
        value, effect = toleration.get("value", ""), toleration.get("effect", "")
        if key:
            errors += [fielderrors.invalid(place.child("key"), key, text) for text in is_qualified_name(key)]
        elif operator != "Exists":
            detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errors.append(fielderrors.invalid(place.child("operator"), operator, detail))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(fielderrors.invalid(place.child("effect"), effect, detail))
        if operator in ("Equal", ""):
            if problems := is_valid_label_value(value):
                errors.append(fielderrors.invalid(place.child("operator"), value, ";".join(problems)))
        elif operator == "Exists":
            if value:
                errors.append(
                    fielderrors.invalid(
                        place.child("operator"), value, "value must be empty when `operator` is 'Exists'"
                    )
                )
        else:
            errors.append(fielderrors.not_supported(place.child("operator"), operator, ["Equal", "Exists"]))
        if effect and effect not in _EFFECTS:
            errors.append(fielderrors.not_supported(place.child("effect"), effect, _EFFECTS))
    return errors


def spreading_errors(constraints: list[Obj], where: Path) -> list[FieldError]:
    """topologySpreadConstraints."""
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for index, constraint in enumerate(constraints):
        place = where.index(index)
        skew, key, when = (
            constraint.get("maxSkew", 0),
            constraint.get("topologyKey", ""),
            constraint.get("whenUnsatisfiable", ""),
        )
        if skew <= 0:
            errors.append(fielderrors.invalid(place.child("maxSkew"), skew, "must be greater than zero"))
        if not key:
            errors.append(fielderrors.required(place.child("topologyKey"), "can not be empty"))
        if when not in _WHEN:
            errors.append(fielderrors.not_supported(place.child("whenUnsatisfiable"), when, _WHEN))
        if (key, when) in seen:
            errors.append(fielderrors.duplicate(place.child("{topologyKey, whenUnsatisfiable}"), f"{{{key}, {when}}}"))
        seen.add((key, when))
        domains = constraint.get("minDomains")
        if domains is not None:
            if domains <= 0:
                errors.append(fielderrors.invalid(place.child("minDomains"), domains, "must be greater than zero"))
            if when != "DoNotSchedule":
                detail = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}"
                errors.append(fielderrors.invalid(place.child("minDomains"), domains, detail))
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if constraint.get(field) not in (None, *_HONOR):
                errors.append(fielderrors.not_supported(place.child(field), constraint[field], _HONOR))
        errors += _label_keys(constraint, place)
        errors += selector_errors(constraint.get("labelSelector"), place.child("labelSelector"))
    return errors


def _label_keys(constraint: Obj, where: Path) -> list[FieldError]:
    """`matchLabelKeys` of a constraint."""
    keys, selector, place = (
        constraint.get("matchLabelKeys") or [],
        constraint.get("labelSelector"),
        where.child("matchLabelKeys"),
    )
    if not keys:
        return []
    if selector is None:
        return [fielderrors.forbidden(place, "must not be specified when labelSelector is not set")]
    selected = {
        *(selector.get("matchLabels") or {}),
        *(term.get("key") for term in selector.get("matchExpressions") or ()),
    }
    errors: list[FieldError] = []
    for index, key in enumerate(keys):
        errors += [fielderrors.invalid(place.index(index), key, text) for text in is_qualified_name(key)]
        if key in selected:
            detail = "exists in both matchLabelKeys and labelSelector"
            errors.append(fielderrors.invalid(place.index(index), key, detail))
    return errors
