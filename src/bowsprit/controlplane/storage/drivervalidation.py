"""Rules for CSI drivers, their nodes, capacities and volume attributes (upstream pkg/apis/storage/validation)."""

from __future__ import annotations

from bowsprit.controlplane.core.volumesources import driver_name_errors
from bowsprit.controlplane.countrules import not_negative, one_of
from bowsprit.controlplane.immutable import immutable_struct
from bowsprit.controlplane.labelrules import name_errors, selector_errors
from bowsprit.controlplane.storage.validation import parameters_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import is_dns1123_subdomain, is_qualified_name

_LONGEST_NODE_ID = 192
_SHORTEST_TOKEN = 600
_LONGEST_TOKEN = 1 << 32
_SHORTEST_PERIOD = 10


def csi_driver_errors(obj: Obj) -> list[FieldError]:
    """A CSIDriver."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    policies = ["File", "None", "ReadWriteOnceWithFSType"]
    errors += one_of(spec.get("fsGroupPolicy"), policies, where.child("fsGroupPolicy"), required=False)
    audiences: set[str] = set()
    for index, request in enumerate(spec.get("tokenRequests") or ()):
        place, audience = where.child("tokenRequests").index(index), request.get("audience", "")
        if audience in audiences:
            errors.append(fielderrors.duplicate(place.child("audience"), audience))
        audiences.add(audience)
        seconds = request.get("expirationSeconds")
        if seconds is not None and seconds < _SHORTEST_TOKEN:
            detail = "may not specify a duration less than 10 minutes"
            errors.append(fielderrors.invalid(place.child("expirationSeconds"), seconds, detail))
        elif seconds is not None and seconds > _LONGEST_TOKEN:
            detail = "may not specify a duration larger than 2^32 seconds"
            errors.append(fielderrors.invalid(place.child("expirationSeconds"), seconds, detail))
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in ("Persistent", "Ephemeral"):
            place = where.child("volumeLifecycleModes")
            errors.append(fielderrors.not_supported(place, mode, ["Persistent", "Ephemeral"]))
    period, in_secrets = spec.get("nodeAllocatableUpdatePeriodSeconds"), spec.get("serviceAccountTokenInSecrets")
    if period is not None and period < _SHORTEST_PERIOD:
        detail = f"must be greater than or equal to {_SHORTEST_PERIOD} seconds"
        errors.append(fielderrors.invalid(where.child("nodeAllocatableUpdatePeriodSeconds"), period, detail))
    if in_secrets is not None and not spec.get("tokenRequests"):
        detail = "serviceAccountTokenInSecrets is set but no tokenRequests are specified"
        errors.append(fielderrors.invalid(where.child("serviceAccountTokenInSecrets"), in_secrets, detail))
    return errors


def csi_node_errors(obj: Obj) -> list[FieldError]:
    """A CSINode."""
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, driver in enumerate((obj.get("spec") or {}).get("drivers") or ()):
        where = path("spec", "drivers").index(index)
        name, node = driver.get("name", ""), driver.get("nodeID", "")
        errors += driver_name_errors(name, where.child("name"))
        if not node:
            errors.append(fielderrors.required(where.child("nodeID")))
        elif len(node) > _LONGEST_NODE_ID:
            detail = f"must be {_LONGEST_NODE_ID} characters or less"
            errors.append(fielderrors.invalid(where.child("nodeID"), node, detail))
        count = (driver.get("allocatable") or {}).get("count")
        errors += not_negative(count, where.child("allocatable", "count"))
        if name and name in names:
            errors.append(fielderrors.duplicate(where.child("name"), name))
        names.add(name)
        errors += _topology_keys(driver.get("topologyKeys") or [], where)
    return errors


def csi_node_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """Of a driver that stays, only ``allocatable`` may change."""
    errors = csi_node_errors(new)
    before, after = ((each.get("spec") or {}).get("drivers") or [] for each in (old, new))
    for was in before:
        for now in after:
            if was.get("name") == now.get("name"):
                fixed, held = ({**driver, "allocatable": None} for driver in (now, was))
                errors += immutable_struct("CSINodeDriver", fixed, held, path("spec", "drivers"))
    return errors


def _topology_keys(keys: list[str], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, key in enumerate(keys):
        if not key:
            errors.append(fielderrors.required(where))
        if key in keys[:index]:
            errors.append(fielderrors.duplicate(where, key))
        errors += name_errors(key, where, is_qualified_name)
    return errors


def capacity_errors(obj: Obj) -> list[FieldError]:
    """A CSIStorageCapacity."""
    errors = name_errors(obj.get("storageClassName", ""), path("storageClassName"), is_dns1123_subdomain)
    for field in ("capacity", "maximumVolumeSize"):
        text = obj.get(field)
        if text is not None and Quantity.parse(text) < Quantity.parse("0"):
            errors.append(fielderrors.invalid(path(field), str(text), "must be greater than or equal to 0"))
    return errors + selector_errors(obj.get("nodeTopology"), path("nodeTopology"))


def attributes_class_errors(obj: Obj) -> list[FieldError]:
    """A VolumeAttributesClass."""
    name, where = obj.get("driverName", ""), path("driverName")
    errors = name_errors(name.lower(), where, is_qualified_name) if name else [fielderrors.required(where)]
    return errors + parameters_errors(obj, required=True)
