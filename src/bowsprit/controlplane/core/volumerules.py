"""Rules for the volumes of a pod (upstream ValidateVolumes)."""

from __future__ import annotations

from bowsprit.controlplane.core.containerrules import (
    VOLUME_FIELDS,
    field_ref_errors,
    local_path_errors,
    no_backsteps,
    resource_ref_errors,
)
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import is_dns1123_label

_HOST_PATH_TYPES = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"]
_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
# One field that each of these sources must have.
_REQUIRED = {
    "gcePersistentDisk": ("pdName",),
    "awsElasticBlockStore": ("volumeID",),
    "nfs": ("server", "path"),
    "glusterfs": ("endpoints", "path"),
    "flexVolume": ("driver",),
    "cephfs": ("monitors",),
    "rbd": ("monitors", "image"),
    "cinder": ("volumeID",),
    "quobyte": ("registry", "volume"),
    "vsphereVolume": ("volumePath",),
    "portworxVolume": ("volumeID",),
    "azureFile": ("secretName", "shareName"),
    "azureDisk": ("diskName", "diskURI"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "storageos": (),
    "csi": ("driver",),
    "persistentVolumeClaim": ("claimName",),
}
# The order in which upstream looks at them; the second one found is the one too many.
_ORDER = (
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "flexVolume",
    "image",
)


def volume_errors(volumes: list[Obj], where: Path) -> tuple[list[FieldError], dict[str, Obj]]:
    """All volumes of a pod: what is wrong with them, and the good ones by name (mounts may refer to these only)."""
    errors: list[FieldError] = []
    good: dict[str, Obj] = {}
    for index, volume in enumerate(volumes):
        place, name = where.index(index), volume.get("name", "")
        found = source_errors(volume, place)
        if not name:
            found.append(fielderrors.required(place.child("name")))
        else:
            found += name_errors(name, place.child("name"), is_dns1123_label)
        if name in good:
            found.append(fielderrors.duplicate(place.child("name"), name))
        if not found:
            good[name] = volume
        errors += found
    return errors, good


def source_errors(volume: Obj, where: Path) -> list[FieldError]:
    """Exactly one source, and what it must hold."""
    errors: list[FieldError] = []
    kinds = [kind for kind in _ORDER if volume.get(kind) is not None]
    for position, kind in enumerate(kinds):
        place = where.child(kind)
        if position:
            errors.append(fielderrors.forbidden(place, "may not specify more than 1 volume type"))
        else:
            errors += _source(kind, volume[kind], place)
    if not kinds:
        errors.append(fielderrors.required(where, "must specify a volume type"))
    return errors


def _source(kind: str, source: Obj, where: Path) -> list[FieldError]:
    match kind:
        case "emptyDir":
            limit = source.get("sizeLimit")
            if limit is not None and Quantity.parse(limit).sign() < 0:
                return [
                    fielderrors.forbidden(where.child("sizeLimit"), "SizeLimit field must be a valid resource quantity")
                ]
            return []
        case "hostPath":
            return host_path_errors(source, where)
        case "secret":
            return _keyed(source, where, "secretName", source.get("secretName", ""))
        case "configMap":
            return _keyed(source, where, "name", source.get("name", ""))
        case "downwardAPI":
            return _mode(source.get("defaultMode"), where.child("defaultMode")) + _downward(source, where)
        case "projected":
            return _mode(source.get("defaultMode"), where.child("defaultMode")) + _projected(source, where)
        case "ephemeral":
            if source.get("volumeClaimTemplate") is None:
                return [fielderrors.required(where.child("volumeClaimTemplate"))]
            return []
        case "iscsi":
            return _iscsi(source, where)
    return [fielderrors.required(where.child(field)) for field in _REQUIRED.get(kind, ()) if not source.get(field)]


def host_path_errors(source: Obj, where: Path) -> list[FieldError]:
    """A HostPathVolumeSource."""
    target = source.get("path", "")
    if not target:
        return [fielderrors.required(where.child("path"))]
    errors = no_backsteps(target, where.child("path"))
    if source.get("type") is not None and source["type"] not in _HOST_PATH_TYPES:
        errors.append(fielderrors.not_supported(where.child("type"), source["type"], _HOST_PATH_TYPES))
    return errors


def _mode(mode: int | None, where: Path) -> list[FieldError]:
    return [] if mode is None or 0 <= mode <= 0o777 else [fielderrors.invalid(where, mode, _MODE)]


def _keyed(source: Obj, where: Path, name_field: str, name: str) -> list[FieldError]:
    errors = [] if name else [fielderrors.required(where.child(name_field))]
    errors += _mode(source.get("defaultMode"), where.child("defaultMode"))
    return errors + _items(source.get("items") or [], where.child("items"))


def _items(items: list[Obj], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(items):
        place = where.index(index)
        if not item.get("key"):
            errors.append(fielderrors.required(place.child("key")))
        if not item.get("path"):
            errors.append(fielderrors.required(place.child("path")))
        else:
            errors += _descending(item["path"], place.child("path"))
        errors += _mode(item.get("mode"), place.child("mode"))
    return errors


def _descending(target: str, where: Path) -> list[FieldError]:
    errors = local_path_errors(target, where)
    if target.startswith("..") and not target.startswith("../"):
        errors.append(fielderrors.invalid(where, target, "must not start with '..'"))
    return errors


def _downward(source: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, item in enumerate(source.get("items") or ()):
        place = where.child("items").index(index)
        if not item.get("path"):
            errors.append(fielderrors.required(place.child("path")))
        else:
            errors += _descending(item["path"], place.child("path"))
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if field is not None:
            errors += field_ref_errors(field, VOLUME_FIELDS, place.child("fieldRef"))
            if resource is not None:
                detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
                errors.append(fielderrors.invalid(where, "resource", detail))
        elif resource is not None:
            errors += resource_ref_errors(resource, place.child("resourceFieldRef"), volume=True)
        else:
            errors.append(
                fielderrors.required(place.child("fieldRef"), "one of fieldRef and resourceFieldRef is required")
            )
        errors += _mode(item.get("mode"), place.child("mode"))
    return errors


def _projected(source: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, projection in enumerate(source.get("sources") or ()):
        place = where.child("sources").index(index)
        kinds = [
            kind
            for kind in ("secret", "configMap", "downwardAPI", "serviceAccountToken")
            if projection.get(kind) is not None
        ]
        for position, kind in enumerate(kinds):
            if position:
                errors.append(fielderrors.forbidden(place.child(kind), "may not specify more than 1 volume type"))
                continue
            part = projection[kind]
            if kind in ("secret", "configMap"):
                if not part.get("name"):
                    errors.append(fielderrors.required(place.child(kind, "name")))
                errors += _items(part.get("items") or [], place.child(kind, "items"))
            elif kind == "downwardAPI":
                errors += _downward(part, place.child(kind))
            else:
                errors += _token(part, place.child(kind))
    return errors


def _token(part: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    seconds = part.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        errors.append(
            fielderrors.invalid(
                where.child("expirationSeconds"), seconds, "may not specify a duration less than 10 minutes"
            )
        )
    elif seconds is not None and seconds > 1 << 32:
        errors.append(
            fielderrors.invalid(
                where.child("expirationSeconds"), seconds, "may not specify a duration larger than 2^32 seconds"
            )
        )
    if not part.get("path"):
        errors.append(fielderrors.required(where.child("path")))
    return errors


def _iscsi(source: Obj, where: Path) -> list[FieldError]:
    errors = [fielderrors.required(where.child(field)) for field in ("targetPortal", "iqn") if not source.get(field)]
    lun = source.get("lun", 0)
    if not 0 <= lun <= 255:
        errors.append(fielderrors.invalid(where.child("lun"), lun, "must be between 0 and 255, inclusive"))
    return errors
