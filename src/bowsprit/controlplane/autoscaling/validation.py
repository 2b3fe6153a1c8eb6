"""Rules for HorizontalPodAutoscalers (upstream pkg/apis/autoscaling/validation)."""

from __future__ import annotations

from bowsprit.controlplane.labelrules import selector_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import is_valid_path_segment_name

_SOURCES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_POSITIVE = "must be greater than 0"


def autoscaler_errors(obj: Obj) -> list[FieldError]:
    """A HorizontalPodAutoscaler (v2)."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    low, high = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    if low is not None and low < 1:
        errors.append(fielderrors.invalid(where.child("minReplicas"), low, "must be greater than or equal to 1"))
    if high < 1:
        errors.append(fielderrors.invalid(where.child("maxReplicas"), high, _POSITIVE))
    if low is not None and high < low:
        detail = "must be greater than or equal to `minReplicas`"
        errors.append(fielderrors.invalid(where.child("maxReplicas"), high, detail))
    errors += _reference(spec.get("scaleTargetRef") or {}, where.child("scaleTargetRef"))
    for index, metric in enumerate(spec.get("metrics") or ()):
        errors += _metric(metric, where.child("metrics").index(index))
    for direction in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(direction)
        if rules is not None:
            errors += _rules(rules, where.child("behavior", direction))
    return errors


def _reference(reference: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("kind", "name"):
        value = reference.get(field, "")
        if not value:
            errors.append(fielderrors.required(where.child(field)))
        else:
            errors += [
                fielderrors.invalid(where.child(field), value, text) for text in is_valid_path_segment_name(value)
            ]
    return errors


def _metric(metric: Obj, where: Path) -> list[FieldError]:
    kind = metric.get("type", "")
    if not kind:
        return [fielderrors.required(where.child("type"), "must specify a metric source type")]
    if kind not in _SOURCES:
        return [fielderrors.not_supported(where.child("type"), kind, sorted(_SOURCES))] * 2
    field = _SOURCES[kind]
    source = metric.get(field)
    if source is None:
        return [fielderrors.required(where.child(field), "must populate information for the given metric source")]
    errors = [
        fielderrors.forbidden(where.child(other), "must populate the given metric source only")
        for other in _SOURCES.values()
        if other != field and metric.get(other) is not None
    ]
    place = where.child(field)
    if kind in ("Resource", "ContainerResource"):
        if not source.get("name"):
            errors.append(fielderrors.required(place.child("name"), "must specify a resource name"))
        if kind == "ContainerResource" and not source.get("container"):
            errors.append(fielderrors.required(place.child("container"), "must specify a container"))
    else:
        named = source.get("metric") or {}
        if not named.get("name"):
            errors.append(fielderrors.required(place.child("metric", "name"), "must specify a metric name"))
        errors += selector_errors(named.get("selector"), place.child("metric", "selector"))
        if kind == "Object":
            errors += _reference(source.get("describedObject") or {}, place.child("describedObject"))
    return errors + _target(source.get("target") or {}, place.child("target"), kind)


def _target(target: Obj, where: Path, kind: str) -> list[FieldError]:
    errors: list[FieldError] = []
    form = target.get("type", "")
    if not form:
        errors.append(fielderrors.required(where.child("type"), "must specify a metric target type"))
    elif form not in ("Utilization", "Value", "AverageValue"):
        errors.append(
            fielderrors.invalid(where.child("type"), form, "must be either Utilization, Value, or AverageValue")
        )
    percent, value, average = target.get("averageUtilization"), target.get("value"), target.get("averageValue")
    if percent is not None and percent < 1:
        errors.append(fielderrors.invalid(where.child("averageUtilization"), percent, _POSITIVE))
    for field, text in (("value", value), ("averageValue", average)):
        if text is not None and Quantity.parse(text).sign() != 1:
            errors.append(fielderrors.invalid(where.child(field), text, "must be positive"))
    if kind in ("Resource", "ContainerResource"):
        if percent is None and average is None:
            detail = "must set either a target raw value or a target utilization"
            errors.append(fielderrors.required(where.child("averageUtilization"), detail))
        elif percent is not None and average is not None:
            detail = "may not set both a target raw value and a target utilization"
            errors.append(fielderrors.forbidden(where.child("averageValue"), detail))
    elif kind == "Pods" and average is None:
        errors.append(fielderrors.required(where.child("averageValue"), "must specify a positive target averageValue"))
    elif kind in ("Object", "External") and value is None and average is None:
        detail = "must set either a target value or averageValue"
        errors.append(fielderrors.required(where.child("averageValue" if kind == "Object" else "value"), detail))
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
    return errors
