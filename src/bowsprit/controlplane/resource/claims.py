"""Dynamic resource allocation: device classes, claims, templates, slices. They are stored; no driver acts on them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.immutable import immutable_struct
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.controlplane.resource.adminaccess import LabelsOf, all_labelled, request_errors, result_errors
from bowsprit.controlplane.resource.claimrules import claim_errors, claim_template_errors, class_errors
from bowsprit.controlplane.resource.slicerules import slice_errors
from bowsprit.controlplane.resource.statusrules import claim_status_errors
from bowsprit.controlplane.statused import RESET_METADATA, StatusedStrategy, StatusStrategy
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj


def default_devices(spec: Obj) -> None:
    """Allocation mode and count of requests, operators of tolerations."""
    for request in (spec.get("devices") or {}).get("requests") or ():
        for part in [request.get("exactly"), *(request.get("firstAvailable") or ())]:
            if part is None:
                continue
            part["allocationMode"] = part.get("allocationMode") or "ExactCount"
            if part["allocationMode"] == "ExactCount" and not part.get("count"):
                part["count"] = 1
            _default_tolerations(part)


def _default_tolerations(holder: Obj) -> None:
    for toleration in holder.get("tolerations") or ():
        toleration["operator"] = toleration.get("operator") or "Equal"


class ClaimStrategy(StatusedStrategy):
    """ResourceClaim: the spec cannot change."""

    deletes_to_object = True
    has_generation = False

    def __init__(self, labels_of: LabelsOf = all_labelled) -> None:
        self.labels_of = labels_of

    def default(self, obj: Obj) -> None:
        default_devices(obj.setdefault("spec", {}))
        for result in _results(obj.get("status") or {}):
            _default_tolerations(result)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return immutable_struct("ResourceClaimSpec", new.get("spec"), old.get("spec"), path("spec"))

    def validate(self, obj: Obj) -> list[FieldError]:
        labels = self.labels_of(obj["metadata"].get("namespace", ""))
        return request_errors(obj.get("spec") or {}, labels) + claim_errors(obj)


class ClaimStatusStrategy(StatusStrategy):
    """The status of a ResourceClaim; what drivers say of devices goes with the allocation."""

    has_generation = False

    def __init__(self, main: ClaimStrategy) -> None:
        super().__init__(main, RESET_METADATA)
        self._labels_of = main.labels_of

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        super().prepare_for_update(new, old, ctx)
        status = new.get("status") or {}
        gone = _allocated(old.get("status") or {}) - _allocated(status)
        if gone and status.get("devices"):
            status["devices"] = [device for device in status["devices"] if _place(device) not in gone]
            if not status["devices"]:
                del status["devices"]

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        labels = self._labels_of(new["metadata"].get("namespace", ""))
        after, before = (_results(obj.get("status") or {}) for obj in (new, old))
        held = any(result.get("adminAccess") for result in before)
        return ([] if held else result_errors(after, labels)) + claim_status_errors(new, old)


def _results(status: Obj) -> list[Obj]:
    return ((status.get("allocation") or {}).get("devices") or {}).get("results") or []


def _allocated(status: Obj) -> set[tuple[Any, ...]]:
    return {_place(result) for result in _results(status)}


def _place(device: Obj) -> tuple[Any, ...]:
    return tuple(device.get(field) for field in ("driver", "pool", "device", "shareID"))


class ClaimTemplateStrategy(Strategy):
    """ResourceClaimTemplate: the spec cannot change."""

    deletes_to_object = True

    def __init__(self, labels_of: LabelsOf = all_labelled) -> None:
        self._labels_of = labels_of

    def default(self, obj: Obj) -> None:
        default_devices((obj.setdefault("spec", {})).setdefault("spec", {}))

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return claim_template_errors(new) + immutable_struct(
            "ResourceClaimTemplateSpec", new.get("spec"), old.get("spec"), path("spec")
        )

    def validate(self, obj: Obj) -> list[FieldError]:
        labels = self._labels_of(obj["metadata"].get("namespace", ""))
        return request_errors((obj.get("spec") or {}).get("spec") or {}, labels) + claim_template_errors(obj)


class GenerationStrategy(Strategy):
    """A stored kind that counts its generations."""

    deletes_to_object = True
    has_generation = True


class ClassStrategy(GenerationStrategy):
    """DeviceClass."""

    def validate(self, obj: Obj) -> list[FieldError]:
        return class_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return class_errors(new)


class SliceStrategy(GenerationStrategy):
    """ResourceSlice: selectable by where the devices are and who drives them. Taints tell since when they are there."""

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        _prepare_devices(obj, ctx)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        _prepare_devices(new, ctx)

    def validate(self, obj: Obj) -> list[FieldError]:
        return slice_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return slice_errors(new, old)

    def warnings(self, obj: Obj, old: Obj | None) -> list[str]:
        driver = obj["spec"].get("driver") or ""
        if driver == driver.lower():
            return []
        return [f"spec.driver: driver names should be lowercase; {quote(driver)} contains uppercase characters"]

    field_refusal = "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: {field}"

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset({"spec.nodeName", "spec.driver"})

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        spec = obj.get("spec") or {}
        return {"spec.nodeName": spec.get("nodeName") or "", "spec.driver": spec.get("driver") or ""}


# Fields of features that are off unless they are asked for.
_NOT_YET = ("nodeAllocatableResourceMappings",)
_NOT_YET_IN_ATTRIBUTES = ("bools", "ints", "strings", "versions")


def _prepare_devices(obj: Obj, ctx: RequestContext) -> None:
    for device in obj["spec"].get("devices") or ():
        for field in _NOT_YET:
            device.pop(field, None)
        for attribute in (device.get("attributes") or {}).values():
            for field in _NOT_YET_IN_ATTRIBUTES:
                attribute.pop(field, None)
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
