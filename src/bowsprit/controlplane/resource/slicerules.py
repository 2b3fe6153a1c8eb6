"""Rules for resource slices: the devices that a driver offers (upstream pkg/apis/resource/validation)."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from bowsprit.controlplane.core.affinityrules import node_selector_errors
from bowsprit.controlplane.core.volumesources import driver_name_errors
from bowsprit.controlplane.immutable import immutable_field
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.controlplane.resource.listrules import list_errors, map_errors
from bowsprit.controlplane.resource.namerules import (
    LONGEST_QUALIFIED,
    binding_condition_errors,
    label_errors,
    pool_name_errors,
    qualified_name_errors,
    taint_errors,
)
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import is_dns1123_subdomain

_MOST_DEVICES = 128
_MOST_ADVANCED_DEVICES = 64
_MOST_COUNTER_SETS = 8
_MOST_COUNTERS = 32
_MOST_CONSUMPTIONS = 2
_MOST_ATTRIBUTES_AND_CAPACITIES = 32
_MOST_TAINTS = 16
_MOST_VALUES = 10
_LONGEST_VALUE = 64
_LONGEST_LABEL = 63
_ON_ONE = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
_PER_DEVICE = "`perDeviceNodeSelection` is set to true in the ResourceSlice spec"
_NUMBER, _WORD = r"(0|[1-9]\d*)", r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_WORD}(\.{_WORD})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?", re.ASCII
)

# An attribute as upstream shows it in refusals.
_ATTRIBUTE_FIELDS = {
    "IntValue": "int",
    "BoolValue": "bool",
    "StringValue": "string",
    "VersionValue": "version",
    "IntValues": "ints",
    "BoolValues": "bools",
    "StringValues": "strings",
    "VersionValues": "versions",
}


def slice_errors(obj: Obj, old: Obj | None = None) -> list[FieldError]:
    """A ResourceSlice; taints of devices that stay as they are in `old` are not judged again."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = driver_name_errors(spec.get("driver", ""), where.child("driver"))
    errors += _pool_errors(spec.get("pool") or {}, where.child("pool"))
    if old is not None:
        errors += _frozen_errors(spec, old.get("spec") or {}, where)
    errors += _node_errors(spec, where)
    if spec.get("sharedCounters") is not None and spec.get("devices") is not None:
        errors.append(fielderrors.invalid(where, "", "only one of `sharedCounters` or `devices` is allowed"))
    devices: list[Obj] = spec.get("devices") or []
    advanced = any(device.get("taints") or device.get("consumesCounters") for device in devices)
    before = {device.get("name"): device for device in ((old or {}).get("spec") or {}).get("devices") or ()}

    def device_errors(device: Obj, place: Path) -> list[FieldError]:
        tainted = before.get(device.get("name"), {}).get("taints") if before else None
        per_device = spec.get("perDeviceNodeSelection") is True
        return _device_errors(device, place, per_device=per_device, judged_taints=tainted)

    most = _MOST_ADVANCED_DEVICES if advanced else _MOST_DEVICES
    errors += list_errors(devices, where.child("devices"), device_errors, most=most, key=_name)
    sets, place = spec.get("sharedCounters") or [], where.child("sharedCounters")
    return errors + list_errors(sets, place, _counter_set_errors, most=_MOST_COUNTER_SETS, key=_name)


def _name(item: Obj) -> str:
    return str(item.get("name", ""))


def _frozen_errors(spec: Obj, before: Obj, where: Path) -> list[FieldError]:
    new_pool, old_pool = ((each.get("pool") or {}).get("name") for each in (spec, before))
    errors = immutable_field(new_pool, old_pool, where.child("pool", "name"))
    for field in ("driver", "nodeName"):
        errors += immutable_field(spec.get(field), before.get(field), where.child(field))
    return errors


def _pool_errors(pool: Obj, where: Path) -> list[FieldError]:
    errors = pool_name_errors(pool.get("name", ""), where.child("name"))
    count, generation = pool.get("resourceSliceCount", 0), pool.get("generation", 0)
    if count <= 0:
        errors.append(fielderrors.invalid(where.child("resourceSliceCount"), count, "must be greater than zero"))
    if generation < 0:
        detail = "must be greater than or equal to zero"
        errors.append(fielderrors.invalid(where.child("generation"), generation, detail))
    return errors


def _node_errors(spec: Obj, where: Path) -> list[FieldError]:
    """Where the devices of the slice are."""
    errors: list[FieldError] = []
    given: list[str] = []
    if (name := spec.get("nodeName")) is not None:
        if name:
            given.append("`nodeName`")
            errors += name_errors(name, where.child("nodeName"), is_dns1123_subdomain)
        else:
            detail = "must be either unset or set to a non-empty string"
            errors.append(fielderrors.invalid(where.child("nodeName"), name, detail))
    if (selector := spec.get("nodeSelector")) is not None:
        given.append("`nodeSelector`")
        errors += node_selector_errors(selector, where.child("nodeSelector"))
        terms = selector.get("nodeSelectorTerms")
        if len(terms or ()) != 1:
            place = where.child("nodeSelector", "nodeSelectorTerms")
            errors.append(fielderrors.invalid(place, terms, "must have exactly one node selector term"))
    for field in ("allNodes", "perDeviceNodeSelection"):
        if spec.get(field):
            given.append(f"`{field}`")
        elif spec.get(field) is not None:
            errors.append(fielderrors.invalid(where.child(field), False, "must be either unset or set to true"))
    if not given:
        errors.append(fielderrors.required(where, _ON_ONE))
    elif len(given) > 1:
        shown = f"{{{', '.join(given)}}}"
        errors.append(fielderrors.invalid(where, shown, f"{_ON_ONE}, but multiple fields are set"))
    return errors


def _counter_set_errors(counters: Obj, where: Path) -> list[FieldError]:
    return _counters_errors(counters, "name", where)


def _consumption_errors(consumption: Obj, where: Path) -> list[FieldError]:
    return _counters_errors(consumption, "counterSet", where)


def _counters_errors(holder: Obj, name_field: str, where: Path) -> list[FieldError]:
    name, place = holder.get(name_field, ""), where.child(name_field)
    errors = label_errors(name, place) if name else [fielderrors.required(place)]
    counters, place = holder.get("counters") or {}, where.child("counters")
    if not counters:
        return [*errors, fielderrors.required(place)]
    return errors + map_errors(
        counters, place, label_errors, lambda _counter, _where: [], longest_key=_LONGEST_LABEL, most=_MOST_COUNTERS
    )


# -- devices ---------------------------------------------------------------------------------------------------------------


def _device_errors(device: Obj, where: Path, *, per_device: bool, judged_taints: list[Obj] | None) -> list[FieldError]:
    errors = label_errors(device.get("name", ""), where.child("name"))
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    if (count := len(attributes) + len(capacity)) > _MOST_ATTRIBUTES_AND_CAPACITIES:
        detail = f"the total number of attributes and capacities must not exceed {_MOST_ATTRIBUTES_AND_CAPACITIES}"
        errors.append(fielderrors.invalid(where, count, detail))
    errors += _qualified_errors(attributes, where.child("attributes"), _attribute_errors)
    shared = device.get("allowMultipleAllocations") is True
    errors += _qualified_errors(
        capacity, where.child("capacity"), _shared_capacity_errors if shared else _capacity_errors
    )
    taints = device.get("taints") or []
    if judged_taints is None or taints != judged_taints:
        errors += list_errors(taints, where.child("taints"), taint_errors, most=_MOST_TAINTS)
    errors += list_errors(
        device.get("consumesCounters") or [],
        where.child("consumesCounters"),
        _consumption_errors,
        most=_MOST_CONSUMPTIONS,
        key=lambda consumption: consumption.get("counterSet", ""),
    )
    errors += _device_node_errors(device, where, per_device)
    return errors + binding_condition_errors(device, where)


def _qualified_errors(items: Obj, where: Path, judge: Any) -> list[FieldError]:
    return map_errors(items, where, qualified_name_errors, judge, longest_key=LONGEST_QUALIFIED)


def _device_node_errors(device: Obj, where: Path, per_device: bool) -> list[FieldError]:
    present = [field for field in ("nodeName", "nodeSelector", "allNodes") if device.get(field) is not None]
    if not per_device:
        if not present:
            return []
        detail = f"`nodeName`, `nodeSelector` and `allNodes` can only be set if {_PER_DEVICE}"
        return [fielderrors.invalid(where, None, detail)]
    errors: list[FieldError] = []
    given: list[str] = []
    for field in present:
        value, place = device[field], where.child(field)
        if value or field == "nodeSelector":
            given.append(f"`{field}`")
        if field == "nodeName":
            empty = [fielderrors.invalid(place, value, "must not be empty")]
            errors += name_errors(value, place, is_dns1123_subdomain) if value else empty
        elif field == "nodeSelector":
            errors += node_selector_errors(value, place)
        elif not value:
            errors.append(fielderrors.invalid(place, value, "must be either unset or set to true"))
    detail = f"exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when {_PER_DEVICE}"
    if not given:
        errors.append(fielderrors.required(where, detail))
    elif len(given) > 1:
        errors.append(fielderrors.invalid(where, f"{{{', '.join(given)}}}", detail))
    return errors


def _attribute_errors(attribute: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    text, version = attribute.get("string"), attribute.get("version")
    if text is not None and len(text.encode()) > _LONGEST_VALUE:
        errors.append(fielderrors.too_long(where.child("string"), _LONGEST_VALUE))
    if version is not None:
        place = where.child("version")
        if _SEMVER.fullmatch(version) is None:
            detail = "must be a string compatible with semver.org spec 2.0.0"
            errors.append(fielderrors.invalid(place, version, detail))
        if len(version.encode()) > _LONGEST_VALUE:
            errors.append(fielderrors.too_long(place, _LONGEST_VALUE))
    given = [field for field in ("bool", "int", "string", "version") if attribute.get(field) is not None]
    if len(given) != 1:
        shown = {name: attribute.get(field) for name, field in _ATTRIBUTE_FIELDS.items()} if given else ""
        errors.append(fielderrors.invalid(where, shown, "exactly one value must be specified"))
    return errors


# -- capacities ------------------------------------------------------------------------------------------------------------


def _capacity_errors(capacity: Obj, where: Path) -> list[FieldError]:
    if capacity.get("requestPolicy") is None:
        return []
    return [fielderrors.forbidden(where.child("requestPolicy"), "allowMultipleAllocations must be true")]


def _shared_capacity_errors(capacity: Obj, where: Path) -> list[FieldError]:
    policy, place = capacity.get("requestPolicy"), where.child("requestPolicy")
    if policy is None:
        return []
    values, valid_range = policy.get("validValues"), policy.get("validRange")
    if values and valid_range is not None:
        detail = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        return [fielderrors.forbidden(place, detail)]
    field = "validValues" if values else "validRange" if valid_range is not None else ""
    if not field:
        return []
    if policy.get("default") is None:
        return [fielderrors.required(place.child("default"), f"required when {field} is defined")]
    default, most = Quantity.parse(policy["default"]), Quantity.parse(capacity.get("value", "0"))
    if values:
        return _values_errors(default, most, [Quantity.parse(value) for value in values], place.child(field))
    return _range_errors(default, most, valid_range, place.child(field))


def _values_errors(default: Quantity, most: Quantity, values: list[Quantity], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, (left, right) in enumerate(pairwise(values), 1):
        if right < left:
            errors.append(
                fielderrors.invalid(where.index(index), str(right), "values must be sorted in ascending order")
            )

    def value_errors(value: Quantity, place: Path) -> list[FieldError]:
        if most < value:
            return [fielderrors.invalid(place, str(value), f"option is larger than capacity value: {most}")]
        return []

    errors += list_errors(values, where, value_errors, most=_MOST_VALUES, key=lambda value: str(value.value()))
    if default not in values[:_MOST_VALUES] or len(values) > _MOST_VALUES:
        detail = "default value is not valid according to the requestPolicy"
        errors.append(fielderrors.invalid(where, str(default), detail))
    return errors


def _range_errors(default: Quantity, most: Quantity, valid: Obj, where: Path) -> list[FieldError]:
    if valid.get("min") is None:
        return [fielderrors.required(where.child("min"), "required when validRange is defined")]
    low = Quantity.parse(valid["min"])
    high = Quantity.parse(valid["max"]) if valid.get("max") is not None else None
    errors: list[FieldError] = []

    def wrong(field: str, value: Quantity, detail: str) -> None:
        errors.append(fielderrors.invalid(where.child(field), str(value), detail))

    if most < low:
        wrong("min", low, f"min is larger than capacity value: {most}")
    if default < low:
        wrong("min", default, f"default is less than min: {low}")
    if high is not None:
        if high < low:
            wrong("max", low, f"min is larger than max: {high}")
        if most < high:
            wrong("max", high, f"max is larger than capacity value: {most}")
        if high < default:
            wrong("max", default, f"default is more than max: {high}")
    if valid.get("step") is not None:
        step = Quantity.parse(valid["step"])
        if most < low + step:
            wrong("step", step, f"one step {low + step} is larger than capacity value: {most}")
        for value in (default, high):
            if value is not None and step.value() and (value.value() - low.value()) % step.value():
                wrong("step", value, f"value is not a multiple of a given step ({step}) from ({low})")
    return errors
