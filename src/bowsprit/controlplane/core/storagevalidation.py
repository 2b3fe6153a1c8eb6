"""Rules for PersistentVolumes and claims (upstream ValidatePersistentVolume, ValidatePersistentVolumeClaim)."""

from __future__ import annotations

import posixpath
from typing import Any

from bowsprit.controlplane.core.affinityrules import node_selector_errors
from bowsprit.controlplane.core.volumesources import backend_errors, driver_name_errors, source_field
from bowsprit.controlplane.countrules import one_of
from bowsprit.controlplane.gostructs import difference, go_value
from bowsprit.controlplane.immutable import FIELD_IS_IMMUTABLE, immutable_field
from bowsprit.controlplane.labelrules import name_errors, selector_errors, template_metadata_errors
from bowsprit.machinery import fielderrors, objects
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import is_dns1123_label, is_dns1123_subdomain

_MODES = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]
_RECLAIM = ["Delete", "Recycle", "Retain"]
_GROWN_LABELS = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "beta.kubernetes.io/os": "kubernetes.io/os",
    "beta.kubernetes.io/arch": "kubernetes.io/arch",
    "beta.kubernetes.io/instance-type": "node.kubernetes.io/instance-type",
}
_NOTHING = Quantity.parse("0")
_POSITIVE = "must be greater than zero"
CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"  # older than the field

_ORDER = (
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
)
_SECRETS = (
    "controllerPublishSecretRef",
    "controllerExpandSecretRef",
    "nodePublishSecretRef",
    "nodeExpandSecretRef",
)


def persistent_volume_errors(obj: Obj) -> list[FieldError]:
    """A PersistentVolume."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = _access_modes(spec, where)
    capacity = spec.get("capacity") or {}
    if not capacity:
        errors.append(fielderrors.required(where.child("capacity")))
    if "storage" not in capacity or len(capacity) > 1:
        shown = dict(sorted(capacity.items())) or None
        errors.append(fielderrors.not_supported(where.child("capacity"), shown, ["storage"]))
    for name, text in capacity.items():
        amount, place = Quantity.parse(text), where.child("capacity").key(name)
        if amount.value() < 0:
            errors.append(fielderrors.invalid(place, amount.value(), "must be a valid resource quantity"))
        if amount.sign() <= 0:
            errors.append(fielderrors.invalid(place, str(amount), _POSITIVE))
    policy = spec.get("persistentVolumeReclaimPolicy")
    errors += one_of(policy, _RECLAIM, where.child("persistentVolumeReclaimPolicy"), required=False)
    affinity = spec.get("nodeAffinity")
    if affinity is not None:
        place = where.child("nodeAffinity", "required")
        if affinity.get("required") is None:
            errors.append(fielderrors.required(place, "must specify required node constraints"))
        else:
            errors += node_selector_errors(affinity["required"], place)
    errors += _backends(spec, where, obj["metadata"].get("name", ""))
    target = (spec.get("hostPath") or {}).get("path", "")
    if policy == "Recycle" and target.startswith("/") and posixpath.normpath(target) in ("/", "//"):
        detail = "may not be 'recycle' for a hostPath mount of '/'"
        errors.append(fielderrors.forbidden(where.child("persistentVolumeReclaimPolicy"), detail))
    if spec.get("storageClassName"):
        errors += name_errors(spec["storageClassName"], where.child("storageClassName"), is_dns1123_subdomain)
    errors += _volume_mode(spec, where)
    return errors + _attributes_class(spec, where)


def _attributes_class(spec: Obj, where: Path) -> list[FieldError]:
    name = spec.get("volumeAttributesClassName")
    if name is None:
        return []
    place = where.child("volumeAttributesClassName")
    if not name:
        errors = [fielderrors.required(place, "an empty string is disallowed")]
    else:
        errors = name_errors(name, place, is_dns1123_subdomain)
    if spec.get("csi") is None:
        detail = "has to be specified when using volumeAttributesClassName"
        errors.append(fielderrors.required(where.child("csi"), detail))
    return errors


def _backends(spec: Obj, where: Path, name: str) -> list[FieldError]:
    """Exactly one source."""
    errors: list[FieldError] = []
    kinds = [kind for kind in _ORDER if spec.get(kind) is not None]
    for position, kind in enumerate(kinds):
        source = spec[kind]
        if position and kind != "flexVolume":
            place = where.child("cephFS" if kind == "cephfs" else kind)
            errors.append(fielderrors.forbidden(place, "may not specify more than 1 volume type"))
            continue
        place = where.child(source_field(kind))
        errors += _csi(source, place) if kind == "csi" else backend_errors(kind, source, place, of_cluster=True)
        errors += _of_the_cluster(kind, source, place, name)
        if kind == "local" and spec.get("nodeAffinity") is None:
            errors.append(fielderrors.required(where.child("nodeAffinity"), "Local volume requires node affinity"))
    if not kinds:
        errors.append(fielderrors.required(where, "must specify a volume type"))
    return errors


def _csi(source: Obj, where: Path) -> list[FieldError]:
    errors = driver_name_errors(source.get("driver", ""), where.child("driver"))
    if not source.get("volumeHandle"):
        errors.append(fielderrors.required(where.child("volumeHandle")))
    for field in _SECRETS:
        if (secret := source.get(field)) is not None:
            for member, rule in (("name", is_dns1123_subdomain), ("namespace", is_dns1123_label)):
                place = where.child(field, member)
                given = secret.get(member, "")
                errors += name_errors(given, place, rule) if given else [fielderrors.required(place)]
    return errors


def _of_the_cluster(kind: str, source: Obj, where: Path, name: str) -> list[FieldError]:
    """What sources of PersistentVolumes have beyond those of pods: references into namespaces."""
    errors: list[FieldError] = []
    secret = source.get("secretRef") or {}
    if kind == "iscsi":
        if source.get("initiatorName") is not None and len(f"{name}:{source.get('targetPortal', '')}") > 64:
            detail = (
                "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName "
                "is specified."
            )
            errors.append(fielderrors.invalid(where.child("targetportal"), source.get("targetPortal", ""), detail))
        if source.get("secretRef") is not None and not secret.get("name"):
            errors.append(fielderrors.required(where.child("secretRef", "name")))
    elif kind in ("cinder", "storageos") and source.get("secretRef") is not None and not secret.get("namespace"):
        errors.append(fielderrors.required(where.child("secretRef", "namespace")))
    elif kind == "azureFile" and source.get("secretNamespace") == "":
        errors.append(fielderrors.required(where.child("secretNamespace")))
    elif kind == "glusterfs" and (namespace := source.get("endpointsNamespace")) is not None:
        place = where.child("endpointsNamespace")
        if not namespace:
            detail = "if the endpointnamespace is set, it must be a valid namespace name"
            errors.append(fielderrors.invalid(place, "", detail))
        else:
            errors += name_errors(namespace, place, is_dns1123_label)
    return errors


def _access_modes(spec: Obj, where: Path) -> list[FieldError]:
    modes = spec.get("accessModes") or []
    place = where.child("accessModes")
    if not modes:
        return [fielderrors.required(place)]
    errors = [fielderrors.not_supported(place, mode, _MODES) for mode in modes if mode not in _MODES]
    if "ReadWriteOncePod" in modes and any(mode in _MODES and mode != "ReadWriteOncePod" for mode in modes):
        detail = "may not use ReadWriteOncePod with other access modes"
        errors.append(fielderrors.forbidden(place, detail))
    return errors


def _volume_mode(spec: Obj, where: Path) -> list[FieldError]:
    return one_of(spec.get("volumeMode"), ["Block", "Filesystem"], where.child("volumeMode"), required=False)


def persistent_volume_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """The source and mode of a volume stay."""
    errors = persistent_volume_errors(new) * 2  # upstream looks twice, and clients are told twice
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if (
        after.get("csi") and before.get("csi") and "controllerExpandSecretRef" not in before["csi"]
    ):  # which may be set once
        after = {
            **after,
            "csi": {key: item for key, item in after["csi"].items() if key != "controllerExpandSecretRef"},
        }
    if changes := difference("PersistentVolumeSource", before, after):
        detail = f"spec.persistentvolumesource is immutable after creation\n{changes}"
        errors.append(fielderrors.forbidden(path("spec", "persistentvolumesource"), detail))
    errors += immutable_field(after.get("volumeMode"), before.get("volumeMode"), path("volumeMode"))
    if before.get("nodeAffinity") is not None:
        errors += _affinity_update(after.get("nodeAffinity"), before["nodeAffinity"])
    if before.get("volumeAttributesClassName") is not None and after.get("volumeAttributesClassName") is None:
        place = path("spec", "volumeAttributesClassName")
        errors.append(fielderrors.forbidden(place, "update from non-nil value to nil is forbidden"))
    return errors


def _affinity_update(new: Obj | None, old: Obj) -> list[FieldError]:
    """Where a volume can be used stays, but for labels that have come of age."""
    after, before = (go_value("*VolumeNodeAffinity", each) for each in (new, old))
    if _same_places(after, before):
        return []
    detail = f"{FIELD_IS_IMMUTABLE}, except for updating from beta label to GA"
    return [fielderrors.invalid(path("nodeAffinity"), after, detail)]


def _same_places(new: Any, old: Any) -> bool:
    if isinstance(new, dict) and isinstance(old, dict):
        grown = _GROWN_LABELS.get(old.get("Key", "")) == new.get("Key")
        return all((name == "Key" and grown) or _same_places(value, old.get(name)) for name, value in new.items())
    if isinstance(new, list) and isinstance(old, list):
        return len(new) == len(old) and all(map(_same_places, new, old))
    return bool(new == old)


def claim_errors(obj: Obj, *, any_group: bool = False) -> list[FieldError]:
    """A PersistentVolumeClaim; ``any_group``: the API group of a data source may be malformed."""
    return claim_spec_errors(obj.get("spec") or {}, path("spec"), any_group=any_group)


def claim_template_errors(template: Obj, where: Path) -> list[FieldError]:
    """A claim that is made for a pod: of its metadata only labels and annotations may be given."""
    errors = template_metadata_errors(template.get("metadata") or {}, where.child("metadata"))
    return errors + claim_spec_errors(template.get("spec") or {}, where.child("spec"))


def claim_spec_errors(spec: Obj, where: Path, *, any_group: bool = False) -> list[FieldError]:
    """A PersistentVolumeClaimSpec."""
    errors: list[FieldError] = []
    if not spec.get("accessModes"):
        errors.append(fielderrors.required(where.child("accessModes"), "at least 1 access mode is required"))
    else:
        errors += _access_modes(spec, where)
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
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    for field in ("dataSource", "dataSourceRef"):
        errors += _data_source(spec.get(field), where.child(field), any_group)
    if source is not None and reference is not None:
        if reference.get("namespace"):
            detail = "may not be specified when dataSourceRef.namespace is specified"
            errors.append(fielderrors.invalid(where, {}, detail))
        elif any(source.get(field) != reference.get(field) for field in ("apiGroup", "kind", "name")):
            errors.append(fielderrors.invalid(where, {}, "must match dataSourceRef"))
    if spec.get("volumeAttributesClassName"):
        place = where.child("volumeAttributesClassName")
        errors += name_errors(spec["volumeAttributesClassName"], place, is_dns1123_subdomain)
    return errors


def _data_source(source: Obj | None, where: Path, any_group: bool) -> list[FieldError]:
    if source is None:
        return []
    errors = [fielderrors.required(where.child(field)) for field in ("name", "kind") if not source.get(field)]
    group, kind = source.get("apiGroup") or "", source.get("kind", "")
    if not group and kind != "PersistentVolumeClaim":
        detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
        errors.append(fielderrors.invalid(where, kind, detail))
    if group and not any_group:
        errors += name_errors(group, where.child("apiGroup"), is_dns1123_subdomain)
    if namespace := source.get("namespace"):
        errors += name_errors(namespace, where.child("namespace"), is_dns1123_label)
    return errors


def claim_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """A claim's spec stays, but for its size and class of attributes once bound."""
    sources = [(old.get("spec") or {}).get(field) or {} for field in ("dataSource", "dataSourceRef")]
    errors = claim_errors(new, any_group=any(source.get("apiGroup") is not None for source in sources))
    after, before = dict(new.get("spec") or {}), dict(old.get("spec") or {})
    wanted_class, had_class = after.get("volumeAttributesClassName"), before.get("volumeAttributesClassName")
    wanted, had = _storage(after), _storage(before)
    if not before.get("volumeName"):  # a binder fills it in
        before["volumeName"] = after.get("volumeName")
    errors += _class_update(new, old, after, before)
    if (new.get("status") or {}).get("phase") == "Bound":
        resources = after.get("resources") or {}
        size = ((before.get("resources") or {}).get("requests") or {}).get("storage")
        if resources.get("requests"):
            after["resources"] = {**resources, "requests": {**resources["requests"], "storage": size}}
        after["volumeAttributesClassName"] = had_class
    if changes := difference("PersistentVolumeClaimSpec", before, after):
        detail = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        errors.append(fielderrors.forbidden(path("spec"), f"{detail}\n{changes}"))
    if (wanted or _NOTHING) < (had or _NOTHING) and not _shrinks_to_allocated(new, old):
        place = path("spec", "resources", "requests", "storage")
        errors.append(fielderrors.forbidden(place, "field can not be less than status.capacity"))
    errors += immutable_field(after.get("volumeMode"), before.get("volumeMode"), path("volumeMode"))
    if wanted_class != had_class and (old.get("status") or {}).get("currentVolumeAttributesClassName") is not None:
        gone = {None: "nil", "": "empty string"}.get(wanted_class)
        if gone is not None:
            detail = f"update to {gone} is forbidden when status.currentVolumeAttributesClassName is not nil"
            errors.append(fielderrors.forbidden(path("spec", "volumeAttributesClassName"), detail))
    return errors


def _class_update(new: Obj, old: Obj, after: Obj, before: Obj) -> list[FieldError]:
    """The class may move from the old annotation to the field, or be set late; adjusts the specs to be compared."""
    was, now = (objects.annotations(each).get(CLASS_ANNOTATION) for each in (old, new))
    late = after.get("storageClassName") is not None and before.get("storageClassName") is None
    if late and was is not None and after["storageClassName"] == was and now in (None, was):
        after["storageClassName"] = None
        return []
    if late and was in (None, after["storageClassName"]):
        before["storageClassName"] = after["storageClassName"]
    if (was or "") != (now or ""):
        place = path("metadata", "annotations", CLASS_ANNOTATION)
        return [fielderrors.invalid(place, now or "", FIELD_IS_IMMUTABLE)]
    return []


def _storage(spec: Obj) -> Quantity | None:
    text = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    return None if text is None else Quantity.parse(text)


def _shrinks_to_allocated(new: Obj, old: Obj) -> bool:
    """A failed expansion may be taken back, but not below what is there (KEP-1790)."""
    capacity = ((old.get("status") or {}).get("capacity") or {}).get("storage")
    return (_storage(new.get("spec") or {}) or _NOTHING) > Quantity.parse(capacity or "0")
