"""Deployments."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.controlplane.apps.validation import counted_status_errors, deployment_errors
from bowsprit.controlplane.core.podspec import default_template
from bowsprit.controlplane.immutable import immutable_struct
from bowsprit.controlplane.printing import age_of, containers_text, name_of, selector_text
from bowsprit.controlplane.statused import StatusedStrategy, StatusStrategy
from bowsprit.machinery import objects
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj


class DeploymentStrategy(StatusedStrategy):
    """The main endpoint."""

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        default_template(spec.get("template"))
        if spec.get("replicas") is None:
            spec["replicas"] = 1
        strategy = spec.setdefault("strategy", {})
        strategy["type"] = strategy.get("type") or "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.get("rollingUpdate")
            if rolling is None:
                rolling = strategy["rollingUpdate"] = {}
            for field in ("maxUnavailable", "maxSurge"):
                if rolling.get(field) is None:
                    rolling[field] = "25%"
        for field, value in (("revisionHistoryLimit", 10), ("progressDeadlineSeconds", 600)):
            if spec.get(field) is None:
                spec[field] = value

    def bumps_generation(self, new: Obj, old: Obj) -> bool:
        return objects.annotations(new) != objects.annotations(old)  # they go on to ReplicaSets

    def validate(self, obj: Obj) -> list[FieldError]:
        return deployment_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return deployment_errors(new) + immutable_struct(
            "LabelSelector", new["spec"].get("selector"), old["spec"].get("selector"), path("spec", "selector")
        )


class DeploymentStatusStrategy(StatusStrategy):
    """``/status``: counts must fit."""

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return counted_status_errors(new, ("updatedReplicas", "readyReplicas", "availableReplicas"))


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Ready, Up-to-date, Available, Age, Containers, Images, Selector."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    names, images = containers_text(((spec.get("template") or {}).get("spec") or {}).get("containers"))
    return [
        name_of(obj),
        f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age_of(obj, now),
        names,
        images,
        selector_text(spec.get("selector")),
    ]
