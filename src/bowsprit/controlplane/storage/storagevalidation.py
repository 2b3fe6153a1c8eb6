"""Rules for storage classes, drivers and attachments (upstream pkg/apis/storage/validation)."""

from __future__ import annotations

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_subdomain, is_qualified_name

_RECLAIM = ["Delete", "Retain"]
_BINDING = ["Immediate", "WaitForFirstConsumer"]
_LIFECYCLES = ["Ephemeral", "Persistent"]
_GROUP_POLICIES = ["File", "None", "ReadWriteOnceWithFSType"]
_MOST_PARAMETERS, _PARAMETER_BYTES = 512, 256 * 1024


def class_errors(obj: Obj) -> list[FieldError]:
    """A StorageClass."""
    errors: list[FieldError] = []
    provisioner = obj.get("provisioner", "")
    if not provisioner:
        errors.append(fielderrors.required(path("provisioner")))
    else:
        lowered = provisioner.lower()
        errors += [fielderrors.invalid(path("provisioner"), provisioner, text) for text in is_qualified_name(lowered)]
    errors += _parameter_errors(obj.get("parameters") or {})
    for field, allowed in (("reclaimPolicy", _RECLAIM), ("volumeBindingMode", _BINDING)):
        value = obj.get(field)
        if field == "volumeBindingMode" and value is None:
            errors.append(fielderrors.required(path(field)))
        elif value is not None and value not in allowed:
            errors.append(fielderrors.not_supported(path(field), value, allowed))
    return errors


def _parameter_errors(parameters: Obj) -> list[FieldError]:
    where = path("parameters")
    if len(parameters) > _MOST_PARAMETERS:
        return [fielderrors.too_long(where, _MOST_PARAMETERS)]
    errors: list[FieldError] = []
    for key in parameters:
        if not key:
            errors.append(fielderrors.invalid(where, key, "field can not be empty."))
    size = sum(len(key) + len(str(value)) for key, value in parameters.items())
    if size > _PARAMETER_BYTES:
        errors.append(fielderrors.too_long(where, _PARAMETER_BYTES))
    return errors


def attachment_errors(obj: Obj) -> list[FieldError]:
    """A VolumeAttachment."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    attacher = spec.get("attacher", "")
    if not attacher:
        errors.append(fielderrors.required(where.child("attacher")))
    else:
        place = where.child("attacher")
        if len(attacher) > 63:
            errors.append(fielderrors.too_long(place, 63))
        errors += [fielderrors.invalid(place, attacher, text) for text in is_dns1123_subdomain(attacher.lower())]
    source = spec.get("source") or {}
    name, inline = source.get("persistentVolumeName"), source.get("inlineVolumeSpec")
    place = where.child("source")
    if name is None and inline is None:
        detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        errors.append(fielderrors.required(place, detail))
    elif name is not None and inline is not None:
        detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        errors.append(fielderrors.forbidden(place, detail))
    elif name == "":
        detail = "must specify non empty persistentVolumeName"
        errors.append(fielderrors.required(place.child("persistentVolumeName"), detail))
    node = spec.get("nodeName", "")
    errors += [fielderrors.invalid(where.child("nodeName"), node, text) for text in is_dns1123_subdomain(node)]
    return errors


def driver_errors(obj: Obj) -> list[FieldError]:
    """A CSIDriver."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    for field in ("attachRequired", "podInfoOnMount", "storageCapacity"):
        if spec.get(field) is None:
            errors.append(fielderrors.required(where.child(field)))
    policy = spec.get("fsGroupPolicy")
    if policy is None:
        errors.append(fielderrors.required(where.child("fsGroupPolicy")))
    elif policy not in _GROUP_POLICIES:
        errors.append(fielderrors.not_supported(where.child("fsGroupPolicy"), policy, _GROUP_POLICIES))
    for index, mode in enumerate(spec.get("volumeLifecycleModes") or ()):
        if mode not in _LIFECYCLES:
            place = where.child("volumeLifecycleModes").index(index)
            errors.append(fielderrors.not_supported(place, mode, _LIFECYCLES))
    seen: set[str] = set()
    for index, request in enumerate(spec.get("tokenRequests") or ()):
        place, audience = where.child("tokenRequests").index(index), request.get("audience", "")
        if audience in seen:
            errors.append(fielderrors.duplicate(place.child("audience"), audience))
        seen.add(audience)
        seconds = request.get("expirationSeconds")
        if seconds is not None and seconds < 600:
            detail = "may not specify a duration less than 10 minutes"
            errors.append(fielderrors.invalid(place.child("expirationSeconds"), seconds, detail))
    return errors


def csi_node_errors(obj: Obj) -> list[FieldError]:
    """A CSINode."""
    where, errors = path("spec", "drivers"), []
    seen: set[str] = set()
    for index, driver in enumerate((obj.get("spec") or {}).get("drivers") or ()):
        place, name = where.index(index), driver.get("name", "")
        if not name:
            errors.append(fielderrors.required(place.child("name")))
        elif name in seen:
            errors.append(fielderrors.duplicate(place.child("name"), name))
        seen.add(name)
        if not driver.get("nodeID"):
            errors.append(fielderrors.required(place.child("nodeID")))
        elif len(driver["nodeID"]) > 192:
            detail = "must be 192 characters or less"
            errors.append(fielderrors.invalid(place.child("nodeID"), driver["nodeID"], detail))
        count = (driver.get("allocatable") or {}).get("count")
        if count is not None and count < 0:
            detail = "must be greater than or equal to 0"
            errors.append(fielderrors.invalid(place.child("allocatable", "count"), count, detail))
    return errors
