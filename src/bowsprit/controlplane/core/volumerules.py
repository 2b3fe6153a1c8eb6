"""Rules for the volumes of a pod (upstream ValidateVolumes)."""

from __future__ import annotations

from bowsprit.controlplane.core.containerrules import VOLUME_FIELDS, field_ref_errors, resource_ref_errors
from bowsprit.controlplane.core.pathrules import local_path_errors
from bowsprit.controlplane.core.storagevalidation import claim_template_errors
from bowsprit.controlplane.core.volumesources import backend_errors, driver_name_errors, source_field
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_label, is_dns1123_subdomain

_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
_PULL_POLICIES = ["Always", "IfNotPresent", "Never"]
_NO_TEMPLATE = "one of fieldRef and resourceFieldRef is required"
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
    "flexVolume",
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
    "image",
)
# Upstream's complaint about a second source has these names.
_MISSPELT = {"cephfs": "cephFS", "downwardAPI": "downwarAPI"}


def volume_errors(
    volumes: list[Obj], where: Path, *, pod: str = "", of_pod: bool = False
) -> tuple[list[FieldError], dict[str, Obj]]:
    """All volumes of a pod: what is wrong with them, and the good ones by name (mounts may refer to these only).

    Args:
        pod: the pod's name, from which the names of claims for ephemeral volumes are made.
        of_pod: they are a pod's own and not a template's, which somebody may complete.
    """
    errors: list[FieldError] = []
    good: dict[str, Obj] = {}
    created = {f"{pod}-{volume.get('name', '')}" for volume in volumes if pod and volume.get("ephemeral") is not None}
    for index, volume in enumerate(volumes):
        place, name = where.index(index), volume.get("name", "")
        found = source_errors(volume, place, of_pod=of_pod)
        if not name:
            found.append(fielderrors.required(place.child("name")))
        else:
            found += name_errors(name, place.child("name"), is_dns1123_label)
        if name in good:
            found.append(fielderrors.duplicate(place.child("name"), name))
        if not found:
            good[name] = volume
        errors += found
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim in created:
            spot = place.child("persistentVolumeClaim", "claimName")
            detail = "must not reference a PVC that gets created for an ephemeral volume"
            errors.append(fielderrors.invalid(spot, claim, detail))
    return errors, good


def source_errors(volume: Obj, where: Path, *, of_pod: bool) -> list[FieldError]:
    """Exactly one source, and what it must hold."""
    errors: list[FieldError] = []
    kinds = [kind for kind in _ORDER if volume.get(kind) is not None]
    for position, kind in enumerate(kinds):
        if position:
            place = where.child(_MISSPELT.get(kind, kind))
            errors.append(fielderrors.forbidden(place, "may not specify more than 1 volume type"))
        else:
            errors += _source(kind, volume[kind], where.child(source_field(kind)), of_pod=of_pod)
    if not kinds:
        errors.append(fielderrors.required(where, "must specify a volume type"))
    return errors


def _source(kind: str, source: Obj, where: Path, *, of_pod: bool) -> list[FieldError]:
    match kind:
        case "secret":
            return _keyed(source, where, "secretName", source.get("secretName", ""))
        case "configMap":
            return _keyed(source, where, "name", source.get("name", ""))
        case "downwardAPI":
            return _mode(source.get("defaultMode"), where.child("defaultMode")) + _downward(source, where)
        case "projected":
            return _mode(source.get("defaultMode"), where.child("defaultMode")) + _projected(source, where)
        case "csi":
            return _csi(source, where)
        case "image":
            return _image(source, where, of_pod=of_pod)
        case "ephemeral":
            if source.get("volumeClaimTemplate") is None:
                return [fielderrors.required(where.child("volumeClaimTemplate"))]
            return claim_template_errors(source["volumeClaimTemplate"], where.child("volumeClaimTemplate"))
    return backend_errors(kind, source, where)


def _csi(source: Obj, where: Path) -> list[FieldError]:
    errors = driver_name_errors(source.get("driver", ""), where.child("driver"))
    if (secret := source.get("nodePublishSecretRef")) is not None:
        if not secret.get("name"):
            errors.append(fielderrors.required(where.child("nodePublishSecretRef", "name")))
        else:
            errors += name_errors(secret["name"], where.child("name"), is_dns1123_subdomain)
    return errors


def _image(source: Obj, where: Path, *, of_pod: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    reference, policy = source.get("reference", ""), source.get("pullPolicy", "")
    if not reference and of_pod:
        errors.append(fielderrors.required(where.child("reference")))
    if not policy:
        errors.append(fielderrors.required(where.child("pullPolicy")))
    elif policy not in _PULL_POLICIES:
        errors.append(fielderrors.not_supported(where.child("pullPolicy"), policy, _PULL_POLICIES))
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
        errors += [fielderrors.required(place.child(field)) for field in ("key", "path") if not item.get(field)]
        errors += _descending(item.get("path", ""), place.child("path"))
        errors += _mode(item.get("mode"), place.child("mode"))
    return errors


def _descending(target: str, where: Path) -> list[FieldError]:
    errors = local_path_errors(target, where)
    if target.startswith("..") and not target.startswith("../"):
        errors.append(fielderrors.invalid(where, target, "must not start with '..'"))
    return errors


def _downward(source: Obj, where: Path) -> list[FieldError]:
    """Upstream tells nobody which item is meant."""
    errors: list[FieldError] = []
    for item in source.get("items") or ():
        if not item.get("path"):
            errors.append(fielderrors.required(where.child("path")))
        errors += _descending(item.get("path", ""), where.child("path"))
        field, resource = item.get("fieldRef"), item.get("resourceFieldRef")
        if field is not None:
            errors += field_ref_errors(field, VOLUME_FIELDS, where.child("fieldRef"))
            if resource is not None:
                detail = "fieldRef and resourceFieldRef can not be specified simultaneously"
                errors.append(fielderrors.invalid(where, "resource", detail))
        elif resource is not None:
            errors += resource_ref_errors(resource, where.child("resourceFieldRef"), volume=True)
        else:
            errors.append(fielderrors.required(where, _NO_TEMPLATE))
        errors += _mode(item.get("mode"), where.child("mode"))
    return errors


def _projected(source: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    taken: set[str] = set()

    def take(target: str, shown: str) -> None:
        if target in taken:
            errors.append(fielderrors.invalid(where, shown, "conflicting duplicate paths"))
        taken.add(target)

    for index, projection in enumerate(source.get("sources") or ()):
        place, kinds = where.child("sources").index(index), 0
        for kind in ("secret", "configMap"):
            if (part := projection.get(kind)) is not None:
                kinds += 1
                if not part.get("name"):
                    errors.append(fielderrors.required(place.child(kind, "name")))
                errors += _items(part.get("items") or [], place.child(kind, "items"))
                for item in part.get("items") or ():
                    if item.get("path"):
                        take(item["path"], part.get("name", ""))
        if (part := projection.get("downwardAPI")) is not None:
            kinds += 1
            errors += _downward(part, place.child("downwardAPI"))
            for item in part.get("items") or ():
                if item.get("path"):
                    take(item["path"], item["path"])
        if (part := projection.get("serviceAccountToken")) is not None:
            kinds += 1
            errors += _token(part, place.child("serviceAccountToken"), where.child("path"))
        if kinds > 1:
            errors.append(fielderrors.forbidden(place, "may not specify more than 1 volume type per source"))
    return errors


def _token(part: Obj, where: Path, target: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    seconds, place = part.get("expirationSeconds"), where.child("expirationSeconds")
    if seconds is not None and seconds < 600:
        errors.append(fielderrors.invalid(place, seconds, "may not specify a duration less than 10 minutes"))
    elif seconds is not None and seconds > 1 << 32:
        errors.append(fielderrors.invalid(place, seconds, "may not specify a duration larger than 2^32 seconds"))
    if not part.get("path"):
        return [*errors, fielderrors.required(target)]
    return errors + _descending(part["path"], target)
