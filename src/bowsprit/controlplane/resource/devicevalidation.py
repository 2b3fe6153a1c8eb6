"""Rules for ResourceClaims and their templates (upstream pkg/apis/resource/validation)."""

from __future__ import annotations

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_label, is_dns1123_subdomain

_MODES = ["All", "ExactCount"]
_MOST_REQUESTS = 32


def claim_spec_errors(spec: Obj, where: Path) -> list[FieldError]:
    """The devices that a claim asks for."""
    devices, place = spec.get("devices") or {}, where.child("devices", "requests")
    requests = devices.get("requests") or []
    errors: list[FieldError] = []
    if len(requests) > _MOST_REQUESTS:
        errors.append(fielderrors.too_many(place, len(requests), _MOST_REQUESTS))
    names: set[str] = set()
    for index, request in enumerate(requests):
        spot = place.index(index)
        errors += _request_errors(request, spot)
        name = request.get("name", "")
        if name in names:
            errors.append(fielderrors.duplicate(spot.child("name"), name))
        names.add(name)
    for field in ("constraints", "config"):
        for index, entry in enumerate(devices.get(field) or ()):
            for number, name in enumerate(entry.get("requests") or ()):
                if name.partition("/")[0] not in names:
                    spot = where.child("devices", field).index(index).child("requests").index(number)
                    detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
                    errors.append(fielderrors.invalid(spot, name, detail))
    return errors


def _request_errors(request: Obj, where: Path) -> list[FieldError]:
    name = request.get("name", "")
    errors = _name_errors(name, where.child("name"))
    exactly, first = request.get("exactly"), request.get("firstAvailable")
    if exactly is None and not first:
        errors.append(fielderrors.required(where, "exactly one of `exactly` or `firstAvailable` is required"))
    elif exactly is not None and first:
        detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set"
        errors.append(fielderrors.invalid(where, None, detail))
    if exactly is not None:
        errors += _exact_errors(exactly, where.child("exactly"))
    for index, entry in enumerate(first or ()):
        place = where.child("firstAvailable").index(index)
        errors += _name_errors(entry.get("name", ""), place.child("name")) + _exact_errors(entry, place)
    return errors


def _name_errors(name: str, where: Path) -> list[FieldError]:
    if not name:
        return [fielderrors.required(where)]
    return [fielderrors.invalid(where, name, text) for text in is_dns1123_label(name)]


def _exact_errors(request: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    device_class = request.get("deviceClassName", "")
    if not device_class:
        errors.append(fielderrors.required(where.child("deviceClassName")))
    else:
        place = where.child("deviceClassName")
        errors += [fielderrors.invalid(place, device_class, text) for text in is_dns1123_subdomain(device_class)]
    mode, count = request.get("allocationMode", ""), request.get("count", 0)
    if mode == "All":
        if count:
            detail = "must not be specified when allocationMode is 'All'"
            errors.append(fielderrors.invalid(where.child("count"), count, detail))
    elif mode == "ExactCount":
        if count <= 0:
            errors.append(fielderrors.invalid(where.child("count"), count, "must be greater than zero"))
    else:
        errors.append(fielderrors.not_supported(where.child("allocationMode"), mode, _MODES))
    return errors


def claim_errors(obj: Obj) -> list[FieldError]:
    return claim_spec_errors(obj.get("spec") or {}, path("spec"))


def template_errors(obj: Obj) -> list[FieldError]:
    return claim_spec_errors((obj.get("spec") or {}).get("spec") or {}, path("spec", "spec"))
