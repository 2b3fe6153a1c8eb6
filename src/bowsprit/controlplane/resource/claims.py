"""Dynamic resource allocation: device classes, claims, templates, slices. They are stored; no driver acts on them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.immutable import immutable_field
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.controlplane.resource.validation import claim_errors, claim_template_errors
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj


def default_devices(spec: Obj) -> None:
    """Allocation mode and count of requests."""
    for request in (spec.get("devices") or {}).get("requests") or ():
        for part in [request.get("exactly"), *(request.get("firstAvailable") or ())]:
            if part is None:
                continue
            part["allocationMode"] = part.get("allocationMode") or "ExactCount"
            if part["allocationMode"] == "ExactCount" and not part.get("count"):
                part["count"] = 1


class ClaimStrategy(StatusedStrategy):
    """ResourceClaim: the spec cannot change."""

    deletes_to_object = True
    has_generation = False

    def default(self, obj: Obj) -> None:
        default_devices(obj.setdefault("spec", {}))

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return immutable_field(new.get("spec"), old.get("spec"), path("spec"))

    def validate(self, obj: Obj) -> list[FieldError]:
        return claim_errors(obj)


class ClaimTemplateStrategy(Strategy):
    """ResourceClaimTemplate: the spec cannot change."""

    deletes_to_object = True

    def default(self, obj: Obj) -> None:
        default_devices((obj.setdefault("spec", {})).setdefault("spec", {}))

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return immutable_field(new.get("spec"), old.get("spec"), path("spec"))

    def validate(self, obj: Obj) -> list[FieldError]:
        return claim_template_errors(obj)


class GenerationStrategy(Strategy):
    """A stored kind that counts its generations."""

    deletes_to_object = True
    has_generation = True


class SliceStrategy(GenerationStrategy):
    """ResourceSlice: selectable by where the devices are and who drives them. Taints tell since when they are there."""

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        _date_taints(obj, ctx)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        _date_taints(new, ctx)

    field_refusal = "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {field}"

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset({"spec.nodeName", "spec.driver"})

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        spec = obj.get("spec") or {}
        return {"spec.nodeName": spec.get("nodeName") or "", "spec.driver": spec.get("driver") or ""}


def _date_taints(obj: Obj, ctx: RequestContext) -> None:
    for device in obj["spec"].get("devices") or ():
        for taint in device.get("taints") or ():
            if taint.get("timeAdded") is None:
                taint["timeAdded"] = ctx.timestamp


def class_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Age."""
    return [name_of(obj), age_of(obj, now)]


def claim_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, State, Age."""
    status = obj.get("status") or {}
    states = []
    if obj["metadata"].get("deletionTimestamp"):
        states.append("deleted")
    if status.get("allocation"):
        states.append("allocated")
        if status.get("reservedFor"):
            states.append("reserved")
    else:
        states.append("pending")
    return [name_of(obj), ",".join(states), age_of(obj, now)]


def slice_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Node, Driver, Pool, Age."""
    spec = obj.get("spec") or {}
    node = spec.get("nodeName") or ""
    if not node:
        node = "<all>" if spec.get("allNodes") else "<per-device>" if spec.get("perDeviceNodeSelection") else "<some>"
    return [name_of(obj), node, spec.get("driver", ""), (spec.get("pool") or {}).get("name", ""), age_of(obj, now)]
