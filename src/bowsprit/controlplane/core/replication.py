"""ReplicationControllers and PodTemplates."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.core.podspec import default_template
from bowsprit.controlplane.core.podvalidation import template_errors
from bowsprit.controlplane.countrules import not_negative
from bowsprit.controlplane.labelrules import labels_mismatch
from bowsprit.controlplane.printing import age_of, containers_text, labels_text, name_of
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj


class ReplicationControllerStrategy(StatusedStrategy):
    """Labels and selector follow from the template."""

    orphans_by_default = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        template = spec.get("template")
        default_template(template)
        labels = ((template or {}).get("metadata") or {}).get("labels")
        if labels:
            if not spec.get("selector"):
                spec["selector"] = dict(labels)
            if not obj["metadata"].get("labels"):
                obj["metadata"]["labels"] = dict(labels)
        if spec.get("replicas") is None:
            spec["replicas"] = 1

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {"replicas": 0}

    def validate(self, obj: Obj) -> list[FieldError]:
        spec, where = obj.get("spec") or {}, path("spec")
        errors = not_negative(spec.get("minReadySeconds"), where.child("minReadySeconds"))
        selector, template = spec.get("selector") or {}, spec.get("template")
        if not selector:
            errors.append(fielderrors.required(where.child("selector")))
        errors += not_negative(spec.get("replicas"), where.child("replicas"))
        if template is None:
            return [*errors, fielderrors.required(where.child("template"))]
        labels = (template.get("metadata") or {}).get("labels") or {}
        if any(labels.get(key) != value for key, value in selector.items()):
            errors.append(labels_mismatch(where.child("template"), labels))
        return errors + template_errors(template, where.child("template"))

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return self.validate(new)

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset({"status.replicas"})

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"status.replicas": str((obj.get("status") or {}).get("replicas", 0))}


class PodTemplateStrategy(Strategy):
    """A template on its own."""

    deletes_to_object = True
    has_generation = True

    def default(self, obj: Obj) -> None:
        default_template(obj.get("template"))

    def validate(self, obj: Obj) -> list[FieldError]:
        return template_errors(obj.get("template"), path("template"))

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return template_errors(new.get("template"), path("template"))


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
        labels_text(spec.get("selector")),
    ]


def template_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Containers, Images, Pod Labels."""
    template = obj.get("template") or {}
    names, images = containers_text((template.get("spec") or {}).get("containers"))
    return [name_of(obj), names, images, labels_text((template.get("metadata") or {}).get("labels"))]
