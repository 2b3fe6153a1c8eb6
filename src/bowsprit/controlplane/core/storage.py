"""PersistentVolumes and claims: defaults, columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.core.podspec import default_volume_source
from bowsprit.controlplane.core.storagevalidation import (
    CLASS_ANNOTATION,
    claim_errors,
    claim_update_errors,
    persistent_volume_errors,
    persistent_volume_update_errors,
)
from bowsprit.controlplane.printing import UNSET, age_of, name_of
from bowsprit.controlplane.statused import copy_field
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj

_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


class VolumeStrategy(Strategy):
    """PersistentVolume."""

    deletes_to_object = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec["persistentVolumeReclaimPolicy"] = spec.get("persistentVolumeReclaimPolicy") or "Retain"
        if spec.get("volumeMode") is None:
            spec["volumeMode"] = "Filesystem"
        for name, source in spec.items():
            if isinstance(source, dict) and name in ("iscsi", "rbd", "azureDisk", "scaleIO", "hostPath"):
                default_volume_source(name, source)
                if name == "iscsi":
                    source["iscsiInterface"] = source.get("iscsiInterface") or "default"

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {"phase": "Pending", "lastPhaseTransitionTime": ctx.timestamp}

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        copy_field(new, old, "status")

    def validate(self, obj: Obj) -> list[FieldError]:
        return persistent_volume_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return persistent_volume_update_errors(new, old)


class ClaimStrategy(Strategy):
    """PersistentVolumeClaim."""

    deletes_to_object = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("volumeMode") is None:
            spec["volumeMode"] = "Filesystem"

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {"phase": "Pending"}
        _drop_foreign_sources(obj["spec"])
        _mirror_data_source(obj["spec"])

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        copy_field(new, old, "status")
        _mirror_data_source(new["spec"])

    def validate(self, obj: Obj) -> list[FieldError]:
        return claim_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return claim_update_errors(new, old)


def _drop_foreign_sources(spec: Obj) -> None:
    """Sources that upstream lets through with open gates only: other namespaces, and kinds that were never known to the older
    of the two fields."""
    if (spec.get("dataSourceRef") or {}).get("namespace"):
        del spec["dataSourceRef"]
    source = spec.get("dataSource")
    if source is not None:
        known = {"PersistentVolumeClaim": "", "VolumeSnapshot": "snapshot.storage.k8s.io"}
        if known.get(source.get("kind", "")) != (source.get("apiGroup") or ""):
            del spec["dataSource"]


def _mirror_data_source(spec: Obj) -> None:
    """dataSource and dataSourceRef say the same for sources of the claim's own namespace (KEP-1495)."""
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if source and not reference:
        spec["dataSourceRef"] = dict(source)
    elif reference and not source and not reference.get("namespace"):
        if reference.get("apiGroup") in (None, "") and reference.get("kind") != "PersistentVolumeClaim":
            return
        if reference.get("kind") in ("PersistentVolumeClaim", "VolumeSnapshot"):
            spec["dataSource"] = dict(reference)


def access_modes(modes: list[str] | None) -> str:
    """``RWO,ROX`` in upstream's order, each once."""
    wanted = set(modes or ())
    return ",".join(short for mode, short in _MODES.items() if mode in wanted)


def storage_class(obj: Obj) -> str:
    """The class by annotation or field."""
    annotated = (obj["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
    return str(annotated if annotated is not None else (obj.get("spec") or {}).get("storageClassName") or "")


def volume_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Capacity, Access Modes, Reclaim Policy, Status, Claim, StorageClass, VolumeAttributesClass, Reason, Age, VolumeMode."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    claim = spec.get("claimRef") or {}
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    return [
        name_of(obj),
        (spec.get("capacity") or {}).get("storage", ""),
        access_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        phase,
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        storage_class(obj),
        spec.get("volumeAttributesClassName") or UNSET,
        status.get("reason", ""),
        age_of(obj, now),
        spec.get("volumeMode") or UNSET,
    ]


def claim_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Status, Volume, Capacity, Access Modes, StorageClass, VolumeAttributesClass, Age, VolumeMode."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    phase = "Terminating" if obj["metadata"].get("deletionTimestamp") else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    return [
        name_of(obj),
        phase,
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", "") if bound else "",
        access_modes(status.get("accessModes")) if bound else "",
        storage_class(obj),
        spec.get("volumeAttributesClassName") or UNSET,
        age_of(obj, now),
        spec.get("volumeMode") or UNSET,
    ]
