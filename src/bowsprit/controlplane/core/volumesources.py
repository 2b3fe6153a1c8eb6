"""Rules for what a volume is made of, as pods and PersistentVolumes name it (upstream validate…VolumeSource)."""

from __future__ import annotations

import re

from bowsprit.controlplane.core.pathrules import local_path_errors, no_backsteps
from bowsprit.controlplane.countrules import one_of
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import inclusive_range_error, is_dns1123_label, is_dns1123_subdomain

_HOST_PATH_TYPES = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"]
# The members that these sources must have.
_REQUIRED = {
    "gcePersistentDisk": ("pdName",),
    "awsElasticBlockStore": ("volumeID",),
    "persistentVolumeClaim": ("claimName",),
    "glusterfs": ("endpoints", "path"),
    "flexVolume": ("driver",),
    "cephfs": ("monitors",),
    "rbd": ("monitors", "image"),
    "cinder": ("volumeID",),
    "vsphereVolume": ("volumePath",),
    "portworxVolume": ("volumeID",),
    "photonPersistentDisk": ("pdID",),
    "azureFile": ("secretName", "shareName"),
    "azureDisk": ("diskName", "diskURI"),
    "scaleIO": ("gateway", "system", "volumeName"),
    "nfs": ("server", "path"),
    "gitRepo": ("repository",),
}
_ISCSI = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([A-Za-z0-9-.]+)(:[^,;*&$|\s]+)$", re.ASCII).search,
    "eui": re.compile(r"eui.[A-Za-z0-9]{16}").fullmatch,
    "naa": re.compile(r"naa.[A-Za-z0-9]{32}").fullmatch,
}
_MANAGED_DISK = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
_BLOB_DISK = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
_LONGEST_DRIVER = 63


def source_field(kind: str) -> str:
    """What upstream calls a source in the errors of its members."""
    return "persistentDisk" if kind == "gcePersistentDisk" else kind


def backend_errors(kind: str, source: Obj, where: Path, *, of_cluster: bool = False) -> list[FieldError]:
    """One of the sources that pods and PersistentVolumes share; `of_cluster` tells the latter."""
    errors = [fielderrors.required(where.child(name)) for name in _REQUIRED.get(kind, ()) if not source.get(name)]
    match kind:
        case "emptyDir":
            limit = source.get("sizeLimit")
            if limit is not None and Quantity.parse(limit).sign() < 0:
                place = where.child("sizeLimit")
                errors.append(fielderrors.forbidden(place, "SizeLimit field must be a valid resource quantity"))
        case "hostPath":
            errors += _host_path(source, where)
        case "gitRepo":
            errors += local_path_errors(source.get("directory", ""), where.child("directory"))
        case "gcePersistentDisk" | "awsElasticBlockStore":
            if not 0 <= source.get("partition", 0) <= 255:
                place = where.child("partition")
                errors.append(fielderrors.invalid(place, source["partition"], inclusive_range_error(1, 255)))
        case "nfs":
            if not source.get("path", "").startswith("/"):
                errors.append(
                    fielderrors.invalid(where.child("path"), source.get("path", ""), "must be an absolute path")
                )
        case "iscsi":
            errors += _iscsi(source, where, of_cluster=of_cluster)
        case "quobyte":
            errors += _quobyte(source, where)
        case "flocker":
            errors += _flocker(source, where)
        case "fc":
            errors += _fibre_channel(source, where)
        case "cinder":
            if source.get("secretRef") is not None and not source["secretRef"].get("name"):
                errors.append(fielderrors.required(where.child("secretRef", "name")))
        case "flexVolume":
            errors += _flex_options(source, where.child("options"))
        case "azureDisk":
            errors += _azure_disk(source, where)
        case "storageos":
            errors += _storage_os(source, where)
        case "local":
            errors += _local(source, where)
    return errors


def driver_name_errors(name: str, where: Path) -> list[FieldError]:
    """The name of a CSI driver (upstream ValidateCSIDriverName)."""
    if not name:
        return [fielderrors.required(where)]
    errors = [fielderrors.too_long(where, _LONGEST_DRIVER)] if len(name) > _LONGEST_DRIVER else []
    return errors + [fielderrors.invalid(where, name, text) for text in is_dns1123_subdomain(name.lower())]


def _host_path(source: Obj, where: Path) -> list[FieldError]:
    target = source.get("path", "")
    if not target:
        return [fielderrors.required(where.child("path"))]
    errors = no_backsteps(target, where.child("path"))
    if source.get("type") is not None and source["type"] not in _HOST_PATH_TYPES:
        errors.append(fielderrors.not_supported(where.child("type"), source["type"], _HOST_PATH_TYPES))
    return errors


def _local(source: Obj, where: Path) -> list[FieldError]:
    target = source.get("path", "")
    return no_backsteps(target, where.child("path")) if target else [fielderrors.required(where.child("path"))]


def _iscsi(source: Obj, where: Path, *, of_cluster: bool) -> list[FieldError]:
    errors = [fielderrors.required(where.child(field)) for field in ("targetPortal", "iqn") if not source.get(field)]
    if source.get("iqn"):
        errors += _iscsi_name(source["iqn"], where.child("iqn"), of_cluster=of_cluster)
    lun = source.get("lun", 0)
    if not 0 <= lun <= 255:
        errors.append(fielderrors.invalid(where.child("lun"), lun, inclusive_range_error(0, 255)))
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and source.get("secretRef") is None:
        errors.append(fielderrors.required(where.child("secretRef")))
    if (initiator := source.get("initiatorName")) is not None:
        errors += _iscsi_name(initiator, where.child("initiatorname"), of_cluster=of_cluster)
    return errors


def _iscsi_name(name: str, where: Path, *, of_cluster: bool) -> list[FieldError]:
    rule = _ISCSI.get(name[:3])
    if rule is None:
        detail = "must be valid format" if of_cluster else "must be valid format starting with iqn, eui, or naa"
        return [fielderrors.invalid(where, name, detail)]
    return [] if rule(name) else [fielderrors.invalid(where, name, "must be valid format")]


def _quobyte(source: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    detail = "must be a host:port pair or multiple pairs separated by commas"
    registry = source.get("registry", "")
    if not registry:
        errors.append(fielderrors.required(where.child("registry"), detail))
    elif len(source.get("tenant", "")) >= 65:
        text = "must be a UUID and may not exceed a length of 64 characters"
        errors.append(fielderrors.required(where.child("tenant"), text))
    else:
        errors += [
            fielderrors.invalid(where.child("registry"), registry, detail)
            for pair in registry.split(",")
            if not re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*):[^:\[\]]*", pair)
        ]
    if not source.get("volume"):
        errors.append(fielderrors.required(where.child("volume")))
    return errors


def _flocker(source: Obj, where: Path) -> list[FieldError]:
    name, uuid = source.get("datasetName", ""), source.get("datasetUUID", "")
    errors: list[FieldError] = []
    if not name and not uuid:
        errors.append(fielderrors.required(where, "one of datasetName and datasetUUID is required"))
    if name and uuid:
        detail = "datasetName and datasetUUID can not be specified simultaneously"
        errors.append(fielderrors.invalid(where, "resource", detail))
    if "/" in name:
        errors.append(fielderrors.invalid(where.child("datasetName"), name, "must not contain '/'"))
    return errors


def _fibre_channel(source: Obj, where: Path) -> list[FieldError]:
    targets, ids, place = source.get("targetWWNs") or [], source.get("wwids") or [], where.child("targetWWNs")
    errors: list[FieldError] = []
    if not targets and not ids:
        errors.append(fielderrors.required(place, "must specify either targetWWNs or wwids, but not both"))
    if targets and ids:
        detail = "targetWWNs and wwids can not be specified simultaneously"
        errors.append(fielderrors.invalid(place, targets, detail))
    if targets:
        lun = source.get("lun")
        if lun is None:
            errors.append(fielderrors.required(where.child("lun"), "lun is required if targetWWNs is specified"))
        elif not 0 <= lun <= 255:
            errors.append(fielderrors.invalid(where.child("lun"), lun, inclusive_range_error(0, 255)))
    return errors


def _flex_options(source: Obj, where: Path) -> list[FieldError]:
    detail = "kubernetes.io and k8s.io namespaces are reserved"
    return [
        fielderrors.invalid(where.key(key), key, detail)
        for key in source.get("options") or {}
        if f".{key.partition('/')[0].lower()}".endswith((".kubernetes.io", ".k8s.io"))
    ]


def _azure_disk(source: Obj, where: Path) -> list[FieldError]:
    errors = one_of(
        source.get("cachingMode"), ["None", "ReadOnly", "ReadWrite"], where.child("cachingMode"), required=False
    )
    kind, uri = source.get("kind"), source.get("diskURI", "")
    if kind is not None:
        if kind not in ("Dedicated", "Managed", "Shared"):
            errors.append(fielderrors.not_supported(where.child("kind"), kind, ["Dedicated", "Managed", "Shared"]))
        begin, form = ("/subscriptions/", _MANAGED_DISK) if kind == "Managed" else ("https://", _BLOB_DISK)
        if not uri.startswith(begin):
            errors.append(fielderrors.not_supported(where.child("diskURI"), uri, [form]))
    return errors


def _storage_os(source: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    if source.get("volumeName"):
        errors += name_errors(source["volumeName"], where.child("volumeName"), is_dns1123_label)
    else:
        errors.append(fielderrors.required(where.child("volumeName")))
    if source.get("volumeNamespace"):
        errors += name_errors(source["volumeNamespace"], where.child("volumeNamespace"), is_dns1123_label)
    if source.get("secretRef") is not None and not source["secretRef"].get("name"):
        errors.append(fielderrors.required(where.child("secretRef", "name")))
    return errors
