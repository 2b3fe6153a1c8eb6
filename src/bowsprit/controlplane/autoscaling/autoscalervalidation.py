"""Rules for HorizontalPodAutoscalers and Scales (upstream pkg/apis/autoscaling/validation)."""

from __future__ import annotations

from bowsprit.controlplane.labelrules import selector_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import is_valid_path_segment_name

_SPEC = path("spec")
_TYPES = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_TARGETS = ["Utilization", "Value", "AverageValue"]


def autoscaler_errors(obj: Obj) -> list[FieldError]:
    """An autoscaler in the shape of autoscaling/v2."""
    spec = obj.get("spec") or {}
    least, most = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    errors: list[FieldError] = []
    if least is not None and least < 1:
        detail = "must be greater than or equal to 1"
        errors.append(fielderrors.invalid(_SPEC.child("minReplicas"), least, detail))
    if most < 1:
        errors.append(fielderrors.invalid(_SPEC.child("maxReplicas"), most, "must be greater than 0"))
    if least is not None and most < least:
        detail = "must be greater than or equal to `minReplicas`"
        errors.append(fielderrors.invalid(_SPEC.child("maxReplicas"), most, detail))
    errors += _reference_errors(spec.get("scaleTargetRef") or {}, _SPEC.child("scaleTargetRef"))
    for index, metric in enumerate(spec.get("metrics") or ()):
        errors += _metric_errors(metric, _SPEC.child("metrics").index(index))
    behavior = spec.get("behavior") or {}
    for direction in ("scaleUp", "scaleDown"):
        if behavior.get(direction) is not None:
            errors += _rules_errors(behavior[direction], _SPEC.child("behavior", direction))
    return errors


def _reference_errors(reference: Obj, where: Path) -> list[FieldError]:
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


def _metric_errors(metric: Obj, where: Path) -> list[FieldError]:
    kind = metric.get("type", "")
    if not kind:
        return [fielderrors.required(where.child("type"), "must specify a metric source type")]
    if kind not in _TYPES:
        # Upstream tells it twice: once for the type, once for the source that is missing.
        return [fielderrors.not_supported(where.child("type"), kind, list(_TYPES))] * 2
    errors: list[FieldError] = []
    for other, field in _TYPES.items():
        if other != kind and metric.get(field) is not None:
            detail = "must populate the given metric source only"
            errors.append(fielderrors.forbidden(where.child(field), detail))
    field = _TYPES[kind]
    source, place = metric.get(field), where.child(field)
    if source is None:
        detail = "must populate information for the given metric source"
        return [*errors, fielderrors.required(place, detail)]
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
        errors += _reference_errors(source.get("describedObject") or {}, place.child("describedObject"))
    return errors + _target_errors(source.get("target") or {}, place.child("target"), kind)


def _target_errors(target: Obj, where: Path, kind: str) -> list[FieldError]:
    errors: list[FieldError] = []
    shape = target.get("type", "")
    if not shape:
        errors.append(fielderrors.required(where.child("type"), "must specify a metric target type"))
    elif shape not in _TARGETS:
        detail = "must be either Utilization, Value, or AverageValue"
        errors.append(fielderrors.invalid(where.child("type"), shape, detail))
    for field in ("value", "averageValue"):
        amount = target.get(field)
        if amount is not None and Quantity.parse(amount).sign() != 1:
            errors.append(fielderrors.invalid(where.child(field), amount, "must be positive"))
    utilization, average = target.get("averageUtilization"), target.get("averageValue")
    if utilization is not None and utilization < 1:
        detail = "must be greater than 0"
        errors.append(fielderrors.invalid(where.child("averageUtilization"), utilization, detail))
    if kind in ("Resource", "ContainerResource"):
        if utilization is None and average is None:
            detail = "must set either a target raw value or a target utilization"
            errors.append(fielderrors.required(where.child("averageUtilization"), detail))
        if utilization is not None and average is not None:
            detail = "may not set both a target raw value and a target utilization"
            errors.append(fielderrors.forbidden(where.child("averageValue"), detail))
    elif kind == "Pods" and average is None:
        detail = "must specify a positive target averageValue"
        errors.append(fielderrors.required(where.child("averageValue"), detail))
    elif kind in ("Object", "External") and target.get("value") is None and average is None:
        detail = "must set either a target value for metric or a per-pod target"
        errors.append(fielderrors.required(where.child("averageValue"), detail))
    return errors


def _rules_errors(rules: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    window = rules.get("stabilizationWindowSeconds")
    if window is not None and window < 0:
        detail = "must be greater than or equal to zero"
        errors.append(fielderrors.invalid(where.child("stabilizationWindowSeconds"), window, detail))
    if window is not None and window > 3600:
        detail = "must be less than or equal to 3600"
        errors.append(fielderrors.invalid(where.child("stabilizationWindowSeconds"), window, detail))
    choice = rules.get("selectPolicy")
    if choice is not None and choice not in ("Max", "Min", "Disabled"):
        errors.append(fielderrors.not_supported(where.child("selectPolicy"), choice, ["Disabled", "Max", "Min"]))
    policies, place = rules.get("policies") or [], where.child("policies")
    if not policies:
        errors.append(fielderrors.required(place, "must specify at least one Policy"))
    for index, policy in enumerate(policies):
        spot = place.index(index)
        if policy.get("type") not in ("Percent", "Pods"):
            errors.append(fielderrors.not_supported(spot.child("type"), policy.get("type", ""), ["Percent", "Pods"]))
        for field in ("value", "periodSeconds"):
            if policy.get(field, 0) <= 0:
                detail = "must be greater than zero"
                errors.append(fielderrors.invalid(spot.child(field), policy.get(field, 0), detail))
        if policy.get("periodSeconds", 0) > 1800:
            detail = "must be less than or equal to 1800"
            errors.append(fielderrors.invalid(spot.child("periodSeconds"), policy["periodSeconds"], detail))
    return errors
