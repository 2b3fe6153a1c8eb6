"""ReplicaSets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.controlplane.apps.validation import counted_status_errors, replica_set_errors
from bowsprit.controlplane.core.podspec import default_template
from bowsprit.controlplane.immutable import immutable_struct
from bowsprit.controlplane.printing import age_of, containers_text, name_of, selector_text
from bowsprit.controlplane.statused import StatusedStrategy, StatusStrategy
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj


class ReplicaSetStrategy(StatusedStrategy):
    """The main endpoint."""

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        default_template(spec.get("template"))
        if spec.get("replicas") is None:
            spec["replicas"] = 1

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {"replicas": 0}

    def validate(self, obj: Obj) -> list[FieldError]:
        return replica_set_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return replica_set_errors(new) + immutable_struct(
            "LabelSelector", new["spec"].get("selector"), old["spec"].get("selector"), path("spec", "selector")
        )


class ReplicaSetStatusStrategy(StatusStrategy):
    """``/status``: counts must fit."""

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return counted_status_errors(new, ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"))


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Desired, Current, Ready, Age, Containers, Images, Selector."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    names, images = containers_text(((spec.get("template") or {}).get("spec") or {}).get("containers"))
    return [
        name_of(obj),
        spec.get("replicas", 0),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        age_of(obj, now),
        names,
        images,
        selector_text(spec.get("selector")),
    ]
