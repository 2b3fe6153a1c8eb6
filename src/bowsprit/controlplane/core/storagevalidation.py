"""Rules for PersistentVolumes and claims (upstream ValidatePersistentVolume, ValidatePersistentVolumeClaim)."""

from __future__ import annotations

from bowsprit.controlplane.core.affinityrules import node_selector_errors
from bowsprit.controlplane.core.volumerules import source_errors
from bowsprit.controlplane.countrules import one_of
from bowsprit.controlplane.labelrules import name_errors, selector_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import is_dns1123_subdomain

_MODES = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]
_RECLAIM = ["Delete", "Recycle", "Retain"]
_POSITIVE = "must be greater than zero"
_OTHER_FIELDS = frozenset(
    {
        "capacity",
        "accessModes",
        "claimRef",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "mountOptions",
        "volumeMode",
        "nodeAffinity",
        "volumeAttributesClassName",
    }
)


def volume_source(spec: Obj) -> Obj:
    """The members of a PersistentVolumeSpec that say where the volume is."""
    return {key: value for key, value in spec.items() if key not in _OTHER_FIELDS and value is not None}


def persistent_volume_errors(obj: Obj) -> list[FieldError]:
    """A PersistentVolume."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = _access_modes(spec, where)
    capacity = spec.get("capacity") or {}
    if not capacity:
        errors.append(fielderrors.required(where.child("capacity")))
    elif "storage" not in capacity or len(capacity) > 1:
        errors.append(fielderrors.not_supported(where.child("capacity"), dict(capacity), ["storage"]))
    for name, text in capacity.items():
        amount = Quantity.parse(text)
        if amount.sign() <= 0:
            errors.append(fielderrors.invalid(where.child("capacity").key(name), str(amount), _POSITIVE))
    policy = spec.get("persistentVolumeReclaimPolicy")
    errors += one_of(policy, _RECLAIM, where.child("persistentVolumeReclaimPolicy"), required=False)
    if (affinity := spec.get("nodeAffinity")) is not None:
        place = where.child("nodeAffinity", "required")
        required = affinity.get("required")
        if required is None:
            errors.append(fielderrors.required(place, "must specify required node constraints"))
        else:
            errors += node_selector_errors(required, place)
    source = volume_source(spec)
    if "local" in source:
        if not source["local"].get("path"):
            errors.append(fielderrors.required(where.child("local", "path")))
        if spec.get("nodeAffinity") is None:
            errors.append(fielderrors.required(path("metadata", "annotations"), "Local volume requires node affinity"))
        source = {key: value for key, value in source.items() if key != "local"} or {"emptyDir": {}}
    if "csi" in source and not source["csi"].get("volumeHandle"):
        errors.append(fielderrors.required(where.child("csi", "volumeHandle")))
    errors += source_errors(source, where)
    if spec.get("storageClassName"):
        errors += name_errors(spec["storageClassName"], where.child("storageClassName"), is_dns1123_subdomain)
    return errors + _volume_mode(spec, where)


def _access_modes(spec: Obj, where: Path) -> list[FieldError]:
    modes = spec.get("accessModes") or []
    place = where.child("accessModes")
    if not modes:
        return [fielderrors.required(place)]
    errors = [fielderrors.not_supported(place, mode, _MODES) for mode in modes if mode not in _MODES]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        detail = "may not use ReadWriteOncePod with other access modes"
        errors.append(fielderrors.forbidden(place, detail))
    return errors


def _volume_mode(spec: Obj, where: Path) -> list[FieldError]:
    return one_of(spec.get("volumeMode"), ["Block", "Filesystem"], where.child("volumeMode"), required=False)


def persistent_volume_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """The source and mode of a volume stay."""
    errors = persistent_volume_errors(new)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if volume_source(after) != volume_source(before):
        detail = "spec.persistentvolumesource is immutable after creation"
        errors.append(fielderrors.forbidden(path("spec", "persistentvolumesource"), detail))
    if after.get("volumeMode") != before.get("volumeMode"):
        errors.append(fielderrors.invalid(path("volumeMode"), after.get("volumeMode"), "field is immutable"))
    if before.get("nodeAffinity") is not None and after.get("nodeAffinity") != before.get("nodeAffinity"):
        detail = "field is immutable, except for updating from beta label to GA"
        errors.append(fielderrors.invalid(path("nodeAffinity"), after.get("nodeAffinity"), detail))
    return errors


def claim_errors(obj: Obj) -> list[FieldError]:
    """A PersistentVolumeClaim."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    modes, place = spec.get("accessModes") or [], where.child("accessModes")
    if not modes:
        errors.append(fielderrors.required(place, "at least 1 access mode is required"))
    errors += [fielderrors.not_supported(place, mode, _MODES) for mode in modes if mode not in _MODES]
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        errors.append(fielderrors.forbidden(place, "may not use ReadWriteOncePod with other access modes"))
    errors += selector_errors(spec.get("selector"), where.child("selector"))
    size = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    spot = where.child("resources").key("storage")
    if size is None:
        errors.append(fielderrors.required(spot))
    elif Quantity.parse(size).sign() <= 0:
        errors.append(fielderrors.invalid(spot, str(Quantity.parse(size)), _POSITIVE))
    if spec.get("storageClassName"):
        errors += name_errors(spec["storageClassName"], where.child("storageClassName"), is_dns1123_subdomain)
    errors += _volume_mode(spec, where)
    for field in ("dataSource", "dataSourceRef"):
        errors += _data_source(spec.get(field), where.child(field))
    return errors


def _data_source(source: Obj | None, where: Path) -> list[FieldError]:
    if source is None:
        return []
    errors = [fielderrors.required(where.child(field)) for field in ("name", "kind") if not source.get(field)]
    if not source.get("apiGroup") and source.get("kind") not in (None, "", "PersistentVolumeClaim"):
        errors.append(fielderrors.invalid(where, source.get("kind"), ""))
    return errors


def claim_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """A claim's spec stays, but for its size and class of attributes once bound."""
    errors = claim_errors(new)
    after, before = dict(new.get("spec") or {}), dict(old.get("spec") or {})
    bound = (old.get("status") or {}).get("phase") == "Bound"
    # A binder may fill in the volume; the default class may be set later.
    for field in ("volumeName", "storageClassName"):
        if not before.get(field) and after.get(field):
            before[field] = after[field]
    if bound:
        wanted, had = _storage(after), _storage(before)
        if wanted is not None and had is not None and wanted < had and not _shrinks_to_allocated(new, old):
            place = path("spec", "resources", "requests", "storage")
            errors.append(fielderrors.forbidden(place, "field can not be less than status.capacity"))
        after["resources"] = before.get("resources")
        after["volumeAttributesClassName"] = before.get("volumeAttributesClassName")
    if {k: v for k, v in after.items() if v is not None} != {k: v for k, v in before.items() if v is not None}:
        detail = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        errors.append(fielderrors.forbidden(path("spec"), detail))
    return errors


def _storage(spec: Obj) -> Quantity | None:
    text = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    return None if text is None else Quantity.parse(text)


def _shrinks_to_allocated(new: Obj, old: Obj) -> bool:
    """A failed expansion may be taken back, but not below what is there (KEP-1790)."""
    capacity = ((old.get("status") or {}).get("capacity") or {}).get("storage")
    wanted = _storage(new.get("spec") or {})
    return capacity is not None and wanted is not None and wanted > Quantity.parse(capacity)
