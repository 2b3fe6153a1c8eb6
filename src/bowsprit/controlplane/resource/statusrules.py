"""Rules for the status of claims: what was allocated, for whom, and what drivers say of it."""

from __future__ import annotations

from collections.abc import Hashable

from bowsprit.controlplane.core.affinityrules import node_selector_errors
from bowsprit.controlplane.core.volumesources import driver_name_errors
from bowsprit.controlplane.immutable import immutable_field
from bowsprit.controlplane.resource.claimrules import (
    MOST_CONFIGURATIONS,
    RequestNames,
    configuration_errors,
    raw_errors,
    reference_errors,
    references_errors,
    request_names,
)
from bowsprit.controlplane.resource.listrules import list_errors
from bowsprit.controlplane.resource.namerules import (
    binding_condition_errors,
    label_errors,
    pool_name_errors,
    uid_errors,
)
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj

_MOST_CONSUMERS = 256
_MOST_RESULTS = 32
_MOST_CONDITIONS = 8
_MOST_ADDRESSES = 16
_LONGEST_DATA = 10 << 10
_LONGEST_INTERFACE = 256
_LONGEST_HARDWARE = 128
_SOURCES = ["FromClaim", "FromClass"]


def claim_status_errors(new: Obj, old: Obj) -> list[FieldError]:
    """The new status of a ResourceClaim."""
    status, before, where = new.get("status") or {}, old.get("status") or {}, path("status")
    consumers, allocation = status.get("reservedFor") or [], status.get("allocation")
    errors = list_errors(
        consumers, where.child("reservedFor"), _consumer_errors, most=_MOST_CONSUMERS, key=lambda each: each.get("uid")
    )
    allocated = {_device_id(result) for result in ((allocation or {}).get("devices") or {}).get("results") or ()}

    def device_errors(device: Obj, place: Path) -> list[FieldError]:
        return _device_errors(device, place, allocated)

    errors += list_errors(status.get("devices") or [], where.child("devices"), device_errors, key=_device_id)
    if consumers and allocation is None:
        detail = "may not be specified when `allocated` is not set"
        errors.append(fielderrors.forbidden(where.child("reservedFor"), detail))
    elif new["metadata"].get("deletionTimestamp") and any(
        consumer not in (before.get("reservedFor") or ()) for consumer in consumers
    ):
        detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
        errors.append(fielderrors.forbidden(where.child("reservedFor"), detail))
    place = where.child("allocation")
    if allocation is not None and before.get("allocation") is not None:
        return errors + immutable_field(allocation, before["allocation"], place)
    if allocation is not None:
        errors += _allocation_errors(allocation, place, request_names(new.get("spec") or {}))
    return errors


def _device_id(result: Obj) -> Hashable:
    """Prints as upstream's SharedDeviceID."""
    name = "/".join(str(result.get(field, "")) for field in ("driver", "pool", "device"))
    return f"{name}/{result['shareID']}" if result.get("shareID") else name


def _consumer_errors(consumer: Obj, where: Path) -> list[FieldError]:
    return [
        fielderrors.required(where.child(field)) for field in ("resource", "name", "uid") if not consumer.get(field)
    ]


def _place_errors(result: Obj, where: Path) -> list[FieldError]:
    """Driver, pool, device."""
    errors = driver_name_errors(result.get("driver", ""), where.child("driver"))
    errors += pool_name_errors(result.get("pool", ""), where.child("pool"))
    return errors + label_errors(result.get("device", ""), where.child("device"))


def _allocation_errors(allocation: Obj, where: Path, names: RequestNames) -> list[FieldError]:
    def result_errors(result: Obj, place: Path) -> list[FieldError]:
        errors = reference_errors(result.get("request", ""), place.child("request"), names)
        errors += _place_errors(result, place) + binding_condition_errors(result, place)
        return errors + (uid_errors(result["shareID"], place.child("shareID")) if result.get("shareID") else [])

    def config_errors(config: Obj, place: Path) -> list[FieldError]:
        source, spot = config.get("source", ""), place.child("source")
        errors = [] if source in _SOURCES else [fielderrors.not_supported(spot, source, _SOURCES)]
        if not source:
            errors = [fielderrors.required(spot)]
        return errors + references_errors(config, place, names) + configuration_errors(config, place)

    devices, place = allocation.get("devices") or {}, where.child("devices")
    errors = list_errors(devices.get("results") or [], place.child("results"), result_errors, most=_MOST_RESULTS)
    errors += list_errors(
        devices.get("config") or [], place.child("config"), config_errors, most=2 * MOST_CONFIGURATIONS
    )
    if allocation.get("nodeSelector") is not None:
        errors += node_selector_errors(allocation["nodeSelector"], where.child("nodeSelector"))
    return errors


def _device_errors(device: Obj, where: Path, allocated: set[Hashable]) -> list[FieldError]:
    errors = _place_errors(device, where)
    if device.get("shareID"):
        errors += uid_errors(device["shareID"], where.child("shareID"))
    if (shown := _device_id(device)) not in allocated:
        errors.append(fielderrors.invalid(where, shown, "must be an allocated device in the claim"))
    conditions = device.get("conditions") or []
    if len(conditions) > _MOST_CONDITIONS:
        errors.append(fielderrors.too_many(where.child("conditions"), len(conditions), _MOST_CONDITIONS))
    if device.get("data") is not None:
        errors += raw_errors(device["data"], where.child("data"), _LONGEST_DATA)
    network, place = device.get("networkData") or {}, where.child("networkData")
    for field, longest in (("interfaceName", _LONGEST_INTERFACE), ("hardwareAddress", _LONGEST_HARDWARE)):
        if len(network.get(field, "").encode()) > longest:
            errors.append(fielderrors.too_long(place.child(field), longest))
    addresses = network.get("ips") or []
    return errors + list_errors(addresses, place.child("ips"), lambda _text, _where: [], most=_MOST_ADDRESSES, key=str)
