"""Rules for nodes (upstream ValidateNode)."""

from __future__ import annotations

from bowsprit.controlplane.core.resourcerules import amount_errors
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_qualified_name, is_valid_cidr, is_valid_label_value

_EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"]


def node_errors(obj: Obj) -> list[FieldError]:
    """A Node: its taints, pod ranges, capacities and addresses."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    errors = _taints(spec.get("taints") or [], path("spec", "taints"))
    for field in ("capacity", "allocatable"):
        for name, text in (status.get(field) or {}).items():
            errors += amount_errors(name, text, path("status", field).key(name))
    for index, cidr in enumerate(spec.get("podCIDRs") or ()):
        errors += name_errors(cidr, path("spec", "podCIDRs").index(index), is_valid_cidr)
    addresses = status.get("addresses") or []
    for index, address in enumerate(addresses):
        if address in addresses[:index]:
            errors.append(fielderrors.duplicate(path("status", "addresses").index(index), address))
    return errors


def node_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """What the network and the cloud have given a node stays (upstream ValidateNodeUpdate)."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    errors: list[FieldError] = []
    for field, name in (("podCIDRs", "podCIDR"), ("providerID", "providerID")):
        if before.get(field) and after.get(field) != before[field]:
            detail = f'node updates may not change {name} except from "" to valid'
            errors.append(fielderrors.forbidden(path("spec", field), detail))
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
