"""Storage classes, CSI kinds, volume attachments and attribute classes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.immutable import immutable_field
from bowsprit.controlplane.printing import UNSET, age_of, name_of
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.controlplane.storage.drivervalidation import (
    attributes_class_errors,
    capacity_errors,
    csi_driver_errors,
    csi_node_errors,
    csi_node_update_errors,
)
from bowsprit.controlplane.storage.validation import (
    storage_class_errors,
    volume_attachment_errors,
    volume_attachment_update_errors,
)
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_BETA_DEFAULT_CLASS = "storageclass.beta.kubernetes.io/is-default-class"
_DEFAULT_ATTRIBUTES_CLASS = "volumeattributesclass.alpha.kubernetes.io/is-default-class"


class StorageClassStrategy(Strategy):
    """Parameters, provisioner and reclaim policy cannot change."""

    deletes_to_object = True

    def default(self, obj: Obj) -> None:
        obj["reclaimPolicy"] = obj.get("reclaimPolicy") or "Delete"
        obj["volumeBindingMode"] = obj.get("volumeBindingMode") or "Immediate"

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = storage_class_errors(new)
        new = {**new, "parameters": dict(sorted((new.get("parameters") or {}).items())) or None}
        for field in ("parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"):
            errors += immutable_field(new.get(field), old.get(field), path(field))
        return errors

    def validate(self, obj: Obj) -> list[FieldError]:
        return storage_class_errors(obj)


class CSIDriverStrategy(Strategy):
    """Defaults of a driver's abilities."""

    deletes_to_object = True
    allow_unconditional_update = False

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        if new.get("spec") != old.get("spec"):
            new["metadata"]["generation"] = (old["metadata"].get("generation") or 0) + 1

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        for field, value in (
            ("attachRequired", True),
            ("podInfoOnMount", False),
            ("storageCapacity", False),
            ("fsGroupPolicy", "ReadWriteOnceWithFSType"),
            ("requiresRepublish", False),
            ("seLinuxMount", False),
        ):
            if spec.get(field) is None:
                spec[field] = value
        if not spec.get("volumeLifecycleModes"):
            spec["volumeLifecycleModes"] = ["Persistent"]

    def warnings(self, obj: Obj, old: Obj | None) -> list[str]:
        spec, before = obj.get("spec") or {}, (old or {}).get("spec") or {}
        wanted = spec.get("tokenRequests")
        if wanted and wanted != before.get("tokenRequests") and spec.get("serviceAccountTokenInSecrets") is None:
            return [
                "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to true to prevent "
                "possible logging of tokens in volume attributes"
            ]
        return []

    def validate(self, obj: Obj) -> list[FieldError]:
        return csi_driver_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        after, before = new.get("spec") or {}, old.get("spec") or {}
        errors = csi_driver_errors(new)
        for field, shown in (("attachRequired", "attachedRequired"), ("volumeLifecycleModes",) * 2):  # upstream's path
            errors += immutable_field(after.get(field), before.get(field), path("spec", shown))
        return errors


class CSINodeStrategy(Strategy):
    """An update must say of which version."""

    deletes_to_object = True
    allow_unconditional_update = False

    def validate(self, obj: Obj) -> list[FieldError]:
        return csi_node_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return csi_node_update_errors(new, old)


class CapacityStrategy(Strategy):
    """An update must say of which version."""

    allow_unconditional_update = False

    def validate(self, obj: Obj) -> list[FieldError]:
        return capacity_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = capacity_errors(new)
        for field in ("nodeTopology", "storageClassName"):
            errors += immutable_field(new.get(field), old.get(field), path(field))
        return errors


class AttributesClassStrategy(Strategy):
    """The driver and its parameters cannot change."""

    deletes_to_object = True

    def validate(self, obj: Obj) -> list[FieldError]:
        return attributes_class_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return [
            fielderrors.forbidden(path(field), f"updates to {field} are forbidden.")
            for field in ("driverName", "parameters")
            if (new.get(field) or None) != (old.get(field) or None)
        ] + attributes_class_errors(new)


class VolumeAttachmentStrategy(StatusedStrategy):
    """An attachment starts detached."""

    deletes_to_object = True
    has_generation = False
    allow_unconditional_update = False

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {"attached": False}

    def validate(self, obj: Obj) -> list[FieldError]:
        return volume_attachment_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return volume_attachment_update_errors(new, old)


def class_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Provisioner, ReclaimPolicy, VolumeBindingMode, AllowVolumeExpansion, Age."""
    annotations = obj["metadata"].get("annotations") or {}
    default = "true" in (annotations.get(DEFAULT_CLASS), annotations.get(_BETA_DEFAULT_CLASS))
    return [
        name_of(obj) + (" (default)" if default else ""),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy") or "Delete",
        obj.get("volumeBindingMode") or UNSET,
        bool(obj.get("allowVolumeExpansion")),
        age_of(obj, now),
    ]


def driver_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, AttachRequired, PodInfoOnMount, StorageCapacity, TokenRequests, RequiresRepublish, Modes, Age."""
    spec = obj.get("spec") or {}
    audiences = ",".join(item.get("audience", "") for item in spec.get("tokenRequests") or ())
    return [
        name_of(obj),
        True if spec.get("attachRequired") is None else spec["attachRequired"],
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        audiences if spec.get("tokenRequests") else UNSET,
        bool(spec.get("requiresRepublish")),
        ",".join(spec.get("volumeLifecycleModes") or ()) or "<none>",
        age_of(obj, now),
    ]


def node_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Drivers, Age."""
    return [name_of(obj), len((obj.get("spec") or {}).get("drivers") or ()), age_of(obj, now)]


def capacity_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Created At."""
    return [name_of(obj), obj["metadata"].get("creationTimestamp", "")]


def attachment_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Attacher, PV, Node, Attached, Age."""
    spec = obj.get("spec") or {}
    return [
        name_of(obj),
        spec.get("attacher", ""),
        (spec.get("source") or {}).get("persistentVolumeName") or "",
        spec.get("nodeName", ""),
        bool((obj.get("status") or {}).get("attached")),
        age_of(obj, now),
    ]


def attributes_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, DriverName, Age."""
    default = (obj["metadata"].get("annotations") or {}).get(_DEFAULT_ATTRIBUTES_CLASS) == "true"
    return [name_of(obj) + (" (default)" if default else ""), obj.get("driverName", ""), age_of(obj, now)]
