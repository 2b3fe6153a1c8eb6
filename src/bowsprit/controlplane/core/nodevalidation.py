"""Rules for nodes (upstream ValidateNode)."""

from __future__ import annotations

from bowsprit.controlplane.core.resourcerules import amount_errors
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_qualified_name, is_valid_cidr, is_valid_label_value

_NO_CIDR = is_valid_cidr("")[0]
_EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"]


def node_errors(obj: Obj) -> list[FieldError]:
    """A Node: its taints, pod ranges and capacities."""
    spec = obj.get("spec") or {}
    errors = _taints(spec.get("taints") or [], path("metadata", "taints")) + _amounts(obj)
    where, ranges = path("spec", "podCIDRs"), spec.get("podCIDRs") or []
    for index, cidr in enumerate(ranges):
        errors += name_errors(cidr, where.index(index), is_valid_cidr)
    families = {":" in cidr for cidr in ranges}
    broken = next((index for index, cidr in enumerate(ranges) if _NO_CIDR in is_valid_cidr(cidr)), None)
    if broken is not None and len(ranges) > 1:
        detail = f"invalid CIDR[{broken}]: <nil> (invalid CIDR address: {ranges[broken]})"
        text = f"invalid PodCIDRs. failed to check with dual stack with error:{detail}"
        errors.append(fielderrors.internal(where, text))
    if len(ranges) > 1 and (len(families) < 2 or len(ranges) > 2):
        errors.append(fielderrors.invalid(where, ranges, "may specify no more than one CIDR for each IP family"))
    return errors


def _amounts(obj: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("capacity", "allocatable"):
        for name, text in ((obj.get("status") or {}).get(field) or {}).items():
            errors += amount_errors(name, text, path("status", field, name))
    return errors


def node_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """What the network and the cloud have given a node stays (upstream ValidateNodeUpdate)."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    errors = _amounts(new)
    addresses = (new.get("status") or {}).get("addresses") or []
    for index, address in enumerate(addresses):
        if address in addresses[:index]:
            shown = {"Type": address.get("type", ""), "Address": address.get("address", "")}
            errors.append(fielderrors.duplicate(path("status", "addresses").index(index), shown))
    given, held = after.get("podCIDRs") or [], before.get("podCIDRs") or []
    if held:
        changes = 1 if len(given) != len(held) else sum(left != right for left, right in zip(given, held, strict=True))
        detail = 'node updates may not change podCIDR except from "" to valid'
        errors += [fielderrors.forbidden(path("spec", "podCIDRs"), detail)] * changes
    if before.get("providerID") and after.get("providerID") != before["providerID"]:
        detail = 'node updates may not change providerID except from "" to valid'
        errors.append(fielderrors.forbidden(path("spec", "providerID"), detail))
    errors += _taints(after.get("taints") or [], path("metadata", "taints"))
    if after.get("externalID", "") != before.get("externalID", ""):
        errors.append(fielderrors.forbidden(path("spec", "externalID"), "may not be updated"))
    return errors


def _taints(taints: list[Obj], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(taints):
        place = where.index(index)
        key, value, effect = taint.get("key", ""), taint.get("value", ""), taint.get("effect", "")
        errors += name_errors(key, place.child("key"), is_qualified_name)
        if problems := is_valid_label_value(value):
            errors.append(fielderrors.invalid(place.child("value"), value, ";".join(problems)))
        if not effect:
            errors.append(fielderrors.required(place.child("effect")))
        elif effect not in _EFFECTS:
            errors.append(fielderrors.not_supported(place.child("effect"), effect, _EFFECTS))
        if (key, effect) in seen:
            shown = {"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            error = fielderrors.duplicate(place, shown)
            detail = "taints must be unique by key and effect pair"
            errors.append(FieldError(error.type, error.field, error.bad_value, detail))
        seen.add((key, effect))
    return errors
