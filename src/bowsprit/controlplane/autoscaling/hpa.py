"""HorizontalPodAutoscalers: stored as v2, also served as v1.

What v1 cannot say travels in annotations, as upstream's conversion has it (pkg/apis/autoscaling/v1/conversion.go).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from bowsprit.apiserver.request import RequestContext
from bowsprit.controlplane.autoscaling.validation import autoscaler_errors
from bowsprit.controlplane.printing import UNSET, age_of, name_of
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.quantity import Quantity

_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
_CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
_CURRENT = "autoscaling.alpha.kubernetes.io/current-metrics"


class AutoscalerStrategy(StatusedStrategy):
    """The main endpoint."""

    has_generation = False

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("minReplicas") is None:
            spec["minReplicas"] = 1
        if obj.get("apiVersion") == "autoscaling/v1":
            return
        if not spec.get("metrics"):
            target = {"type": "Utilization", "averageUtilization": 80}
            spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
        if (behavior := spec.get("behavior")) is not None:
            _default_rules(behavior, "scaleUp", 0, [("Pods", 4, 15), ("Percent", 100, 15)])
            _default_rules(behavior, "scaleDown", None, [("Percent", 100, 15)])

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {"desiredReplicas": 0, "currentMetrics": None}

    def validate(self, obj: Obj) -> list[FieldError]:
        return autoscaler_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return autoscaler_errors(new)


def _default_rules(behavior: Obj, direction: str, window: int | None, policies: list[tuple[str, int, int]]) -> None:
    rules = behavior.get(direction)
    if rules is None:
        rules = behavior[direction] = {}
    if rules.get("stabilizationWindowSeconds") is None and window is not None:
        rules["stabilizationWindowSeconds"] = window
    if rules.get("selectPolicy") is None:
        rules["selectPolicy"] = "Max"
    if rules.get("policies") is None:
        rules["policies"] = [
            {"type": kind, "value": value, "periodSeconds": period} for kind, value, period in policies
        ]


def from_v1(obj: Obj) -> Obj:
    """v1 to the stored v2."""
    new: Obj = deep_copy(obj)
    new["apiVersion"] = "autoscaling/v2"
    spec, annotations = new.setdefault("spec", {}), dict(new["metadata"].get("annotations") or {})
    metrics: list[Obj] = []
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        metrics.append({"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if text := annotations.pop(_METRICS, None):
        metrics += [_metric_from_v1(metric) for metric in _load(text) or ()]
    if text := annotations.pop(_BEHAVIOR, None):
        spec["behavior"] = _lower_keys(_load(text))
    if metrics:
        spec["metrics"] = metrics
    status = new.get("status") or {}
    current = status.pop("currentCPUUtilizationPercentage", None)
    new["status"] = {"currentMetrics": None, "desiredReplicas": 0, **status}
    if current is not None:
        now = {"averageUtilization": current, "averageValue": "0"}
        new["status"]["currentMetrics"] = [{"type": "Resource", "resource": {"name": "cpu", "current": now}}]
    if text := annotations.pop(_CONDITIONS, None):
        new["status"]["conditions"] = _load(text)
    annotations.pop(_CURRENT, None)
    _set_annotations(new, annotations)
    return new


def to_v1(obj: Obj) -> Obj:
    """The stored v2 as v1."""
    new: Obj = deep_copy(obj)
    new["apiVersion"] = "autoscaling/v1"
    spec, annotations = new.setdefault("spec", {}), dict(new["metadata"].get("annotations") or {})
    others: list[Obj] = []
    for metric in spec.pop("metrics", None) or ():
        resource = metric.get("resource") or {}
        utilization = (resource.get("target") or {}).get("averageUtilization")
        if metric.get("type") == "Resource" and resource.get("name") == "cpu" and utilization is not None:
            spec["targetCPUUtilizationPercentage"] = utilization
        else:
            others.append(_metric_to_v1(metric))
    if others:
        annotations[_METRICS] = _dump(others)
    if behavior := spec.pop("behavior", None):
        annotations[_BEHAVIOR] = _dump(_go_behavior(behavior))
    status = new.get("status") or {}
    for metric in status.pop("currentMetrics", None) or ():
        resource = metric.get("resource") or {}
        if metric.get("type") == "Resource" and resource.get("name") == "cpu":
            current = (resource.get("current") or {}).get("averageUtilization")
            if current is not None:
                status["currentCPUUtilizationPercentage"] = current
    if conditions := status.pop("conditions", None):
        annotations[_CONDITIONS] = _dump(conditions)
    status.setdefault("currentReplicas", 0)
    new["status"] = status
    _set_annotations(new, annotations)
    return new


def _set_annotations(obj: Obj, annotations: Obj) -> None:
    if annotations:
        obj["metadata"]["annotations"] = annotations
    else:
        obj["metadata"].pop("annotations", None)


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()


def _load(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


_TARGETS = {"Utilization": "AverageUtilization", "AverageValue": "AverageValue", "Value": "Value"}
_SOURCES = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def _metric_to_v1(metric: Obj) -> Obj:
    kind = metric.get("type", "")
    source = metric.get(_SOURCES.get(kind, ""), {}) or {}
    target, named = source.get("target") or {}, source.get("metric") or {}
    result: Obj = {}
    if kind in ("Resource", "ContainerResource"):
        result["name"] = source.get("name", "")
        if target.get("averageUtilization") is not None:
            result["targetAverageUtilization"] = target["averageUtilization"]
        if target.get("averageValue") is not None:
            result["targetAverageValue"] = target["averageValue"]
        if kind == "ContainerResource":
            result["container"] = source.get("container", "")
    else:
        if kind == "Object":
            result["target"] = source.get("describedObject") or {}
        result["metricName"] = named.get("name", "")
        if kind == "Object" and target.get("value") is not None:
            result["targetValue"] = target["value"]
        if kind == "External" and target.get("value") is not None:
            result["targetValue"] = target["value"]
        if target.get("averageValue") is not None:
            result["averageValue" if kind == "Object" else "targetAverageValue"] = target["averageValue"]
        if named.get("selector") is not None:
            result["metricSelector" if kind == "External" else "selector"] = named["selector"]
    return {"type": kind, _SOURCES.get(kind, "resource"): result}


def _metric_from_v1(metric: Obj) -> Obj:
    kind = metric.get("type", "")
    field = _SOURCES.get(kind, "resource")
    source = metric.get(field) or {}
    target: Obj = {}
    if (percent := source.get("targetAverageUtilization")) is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
    elif (average := source.get("targetAverageValue", source.get("averageValue"))) is not None:
        target = {"type": "AverageValue", "averageValue": average}
    elif (value := source.get("targetValue")) is not None:
        target = {"type": "Value", "value": value}
    if kind in ("Resource", "ContainerResource"):
        result: Obj = {"name": source.get("name", ""), "target": target}
        if kind == "ContainerResource":
            result["container"] = source.get("container", "")
        return {"type": kind, field: result}
    named: Obj = {"name": source.get("metricName", "")}
    selector = source.get("metricSelector") or source.get("selector")
    if selector is not None:
        named["selector"] = selector
    result = {"metric": named, "target": target}
    if kind == "Object":
        result["describedObject"] = source.get("target") or {}
    return {"type": kind, field: result}


def _go_behavior(behavior: Obj) -> Obj:
    """The behaviour with the member names of upstream's internal type."""

    def rules(value: Obj | None) -> Obj | None:
        if value is None:
            return None
        policies = value.get("policies")
        return {
            "StabilizationWindowSeconds": value.get("stabilizationWindowSeconds"),
            "SelectPolicy": value.get("selectPolicy"),
            "Policies": None
            if policies is None
            else [{"Type": p["type"], "Value": p["value"], "PeriodSeconds": p["periodSeconds"]} for p in policies],
            "Tolerance": value.get("tolerance"),
        }

    return {"ScaleUp": rules(behavior.get("scaleUp")), "ScaleDown": rules(behavior.get("scaleDown"))}


def _lower_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _lower_keys(item) for key, item in value.items() if item is not None}
    return [_lower_keys(item) for item in value] if isinstance(value, list) else value


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Reference, Targets, MinPods, MaxPods, Replicas, Age."""
    if obj.get("apiVersion") == "autoscaling/v1":
        obj = from_v1(obj)
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    reference = spec.get("scaleTargetRef") or {}
    return [
        name_of(obj),
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        _targets(spec.get("metrics") or [], status.get("currentMetrics") or []),
        UNSET if spec.get("minReplicas") is None else str(spec["minReplicas"]),
        spec.get("maxReplicas", 0),
        status.get("currentReplicas", 0),
        age_of(obj, now),
    ]


def _targets(metrics: list[Obj], currents: list[Obj]) -> str:
    if not metrics:
        return "<none>"
    texts = []
    for index, metric in enumerate(metrics):
        kind = metric.get("type", "")
        source = metric.get(_SOURCES.get(kind, ""), {}) or {}
        found = (currents[index] if index < len(currents) else {}).get(_SOURCES.get(kind, ""), {}) or {}
        current, target = found.get("current") or {}, source.get("target") or {}
        prefix = f"{source.get('name', '')}: " if kind in ("Resource", "ContainerResource") else ""
        if target.get("averageUtilization") is not None:
            now = current.get("averageUtilization")
            shown = "<unknown>" if now is None else f"{now}%"
            texts.append(f"{prefix}{shown}/{target['averageUtilization']}%")
        elif target.get("averageValue") is not None:
            suffix = " (avg)" if kind in ("Object", "External") else ""
            texts.append(f"{prefix}{_amount(current.get('averageValue'))}/{target['averageValue']}{suffix}")
        else:
            texts.append(f"{prefix}{_amount(current.get('value'))}/{target.get('value', '')}")
    text = ", ".join(texts[:2])
    return f"{text} + {len(texts) - 2} more..." if len(texts) > 2 else text


def _amount(value: str | None) -> str:
    return "<unknown>" if value is None else str(Quantity.parse(value))
