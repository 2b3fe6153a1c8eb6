"""Rules for HorizontalPodAutoscalers (upstream pkg/apis/autoscaling/validation)."""

from __future__ import annotations

from bowsprit.controlplane.core.resourcerules import container_name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import is_dns1123_label, is_valid_path_segment_name

_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_ORDER = ("object", "external", "pods", "resource", "containerResource")
_POSITIVE = "must be greater than 0"


def autoscaler_errors(obj: Obj) -> list[FieldError]:
    """A HorizontalPodAutoscaler (v2)."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    low, high = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    if low is not None and low < 1:
        errors.append(fielderrors.invalid(where.child("minReplicas"), low, "must be greater than or equal to 1"))
    if high == 0:
        errors.append(fielderrors.required(where.child("maxReplicas"), "must be set and greater than 0"))
    elif high < 0:
        errors.append(fielderrors.invalid(where.child("maxReplicas"), high, "must be greater than or equal to 1"))
    if low is not None and high < low:
        detail = "must be greater than or equal to `minReplicas`"
        errors.append(fielderrors.invalid(where.child("maxReplicas"), high, detail))
    errors += _reference(spec.get("scaleTargetRef") or {}, where.child("scaleTargetRef"), grouped=True)
    for index, metric in enumerate(spec.get("metrics") or ()):
        errors += _metric(metric, where.child("metrics").index(index))
    for direction in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(direction)
        if rules is not None:
            errors += _rules(rules, where.child("behavior", direction))
    return errors


def _reference(reference: Obj, where: Path, *, grouped: bool = False) -> list[FieldError]:
    """`grouped`: it must be in a group, for nothing of the core group is scaled so."""
    errors: list[FieldError] = []
    for field in ("kind", "name"):
        value = reference.get(field, "")
        if not value:
            errors.append(fielderrors.required(where.child(field)))
        else:
            errors += [
                fielderrors.invalid(where.child(field), value, text) for text in is_valid_path_segment_name(value)
            ]
    version, place = reference.get("apiVersion", ""), where.child("apiVersion")
    if version.count("/") > 1:
        errors.append(fielderrors.invalid(place, version, f"unexpected GroupVersion string: {version}"))
    elif grouped and not version.partition("/")[2]:
        errors.append(fielderrors.invalid(place, version, "apiVersion must specify API group"))
    return errors


def _metric(metric: Obj, where: Path) -> list[FieldError]:
    kind, place = metric.get("type", ""), where.child("type")
    errors: list[FieldError] = []
    if not kind:
        errors.append(fielderrors.required(place, "must specify a metric source type"))
    if kind not in _SOURCES:
        errors.append(fielderrors.not_supported(place, kind, sorted(_SOURCES)))
    present = [field for field in _ORDER if metric.get(field) is not None]
    if present:
        errors += _source(present[0], metric[present[0]], where.child(present[0]))
    expected = _SOURCES.get(kind)
    if expected is None:
        errors.append(fielderrors.not_supported(place, kind, sorted(_SOURCES)))
    elif expected not in present:
        detail = "must populate information for the given metric source"
        errors.append(fielderrors.required(where.child(expected), detail))
    if len(present) != 1:
        detail = "must populate the given metric source only"
        errors += [fielderrors.forbidden(where.child(field), detail) for field in present if field != expected]
    return errors


def _source(kind: str, source: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    target, place = source.get("target") or {}, where.child("target")
    if kind in ("resource", "containerResource"):
        errors += _resource(kind, source, where)
    else:
        if kind == "object":
            errors += _reference(source.get("describedObject") or {}, where.child("describedObject"))
        errors += _identifier(source.get("metric") or {}, where.child("metric"))
    errors += _target(target, place)
    percent, value, average = target.get("averageUtilization"), target.get("value"), target.get("averageValue")
    if kind in ("resource", "containerResource"):
        if percent is None and average is None:
            detail = "must set either a target raw value or a target utilization"
            errors.append(fielderrors.required(place.child("averageUtilization"), detail))
        elif percent is not None and average is not None:
            detail = "may not set both a target raw value and a target utilization"
            errors.append(fielderrors.forbidden(place.child("averageValue"), detail))
    elif kind == "pods":
        if average is None:
            detail = "must specify a positive target averageValue"
            errors.append(fielderrors.required(place.child("averageValue"), detail))
    elif value is None and average is None:
        per_pod = "must set either a target value for metric or a per-pod target"
        detail = per_pod if kind == "external" else "must set either a target value or averageValue"
        errors.append(fielderrors.required(place.child("averageValue"), detail))
    elif kind == "external" and value is not None and average is not None:
        detail = "may not set both a target value for metric and a per-pod target"
        errors.append(fielderrors.forbidden(place.child("value"), detail))
    return errors


def _resource(kind: str, source: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    name, container = source.get("name", ""), source.get("container", "")
    if not name:
        errors.append(fielderrors.required(where.child("name"), "must specify a resource name"))
    elif kind == "containerResource":
        errors += container_name_errors(name, where.child("name"))
    if kind == "containerResource":
        if not container:
            errors.append(fielderrors.required(where.child("container"), "must specify a container"))
        else:
            errors += [
                fielderrors.invalid(where.child("container"), container, text) for text in is_dns1123_label(container)
            ]
    return errors


def _identifier(metric: Obj, where: Path) -> list[FieldError]:
    name = metric.get("name", "")
    if not name:
        return [fielderrors.required(where.child("name"), "must specify a metric name")]
    return [fielderrors.invalid(where.child("name"), name, text) for text in is_valid_path_segment_name(name)]


def _target(target: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    form = target.get("type", "")
    if not form:
        errors.append(fielderrors.required(where.child("type"), "must specify a metric target type"))
    if form not in ("Utilization", "Value", "AverageValue"):
        detail = "must be either Utilization, Value, or AverageValue"
        errors.append(fielderrors.invalid(where.child("type"), form, detail))
    for field in ("value", "averageValue"):
        text = target.get(field)
        if text is not None and Quantity.parse(text).sign() != 1:
            errors.append(fielderrors.invalid(where.child(field), text, "must be positive"))
    percent = target.get("averageUtilization")
    if percent is not None and percent < 1:
        errors.append(fielderrors.invalid(where.child("averageUtilization"), percent, _POSITIVE))
    return errors


def _rules(rules: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and window < 0:
        detail = "must be greater than or equal to zero"
        errors.append(fielderrors.invalid(where.child("stabilizationWindowSeconds"), window, detail))
    if window is not None and window > 3600:
        detail = "must be less than or equal to 3600"
        errors.append(fielderrors.invalid(where.child("stabilizationWindowSeconds"), window, detail))
    select = rules.get("selectPolicy")
    if select is not None and select not in ("Max", "Min", "Disabled"):
        errors.append(fielderrors.not_supported(where.child("selectPolicy"), select, ["Disabled", "Max", "Min"]))
    policies = rules.get("policies") or []
    if not policies:
        errors.append(fielderrors.required(where.child("policies"), "must specify at least one Policy"))
    for index, policy in enumerate(policies):
        place = where.child("policies").index(index)
        if policy.get("type") not in ("Pods", "Percent"):
            errors.append(fielderrors.not_supported(place.child("type"), policy.get("type", ""), ["Percent", "Pods"]))
        for field, most in (("value", 0), ("periodSeconds", 1800)):
            number = policy.get(field, 0)
            if number <= 0:
                errors.append(fielderrors.invalid(place.child(field), number, "must be greater than zero"))
            elif most and number > most:
                errors.append(fielderrors.invalid(place.child(field), number, f"must be less than or equal to {most}"))
    if (tolerance := rules.get("tolerance")) is not None and Quantity.parse(tolerance).sign() < 0:
        place = where.child("tolerance")
        errors.append(fielderrors.invalid(place, tolerance, "must be greater than or equal to 0"))
    return errors
