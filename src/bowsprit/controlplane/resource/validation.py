"""Rules for resource claims (upstream pkg/apis/resource/validation), as far as they name devices and requests."""

from __future__ import annotations

from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_label, is_dns1123_subdomain

_MODES = ["All", "ExactCount"]
_MOST_REQUESTS = 32


def claim_errors(obj: Obj) -> list[FieldError]:
    """A ResourceClaim."""
    return claim_spec_errors(obj.get("spec") or {}, path("spec"))


def claim_template_errors(obj: Obj) -> list[FieldError]:
    """A ResourceClaimTemplate."""
    return claim_spec_errors((obj.get("spec") or {}).get("spec") or {}, path("spec", "spec"))


def claim_spec_errors(spec: Obj, where: Path) -> list[FieldError]:
    """A ResourceClaimSpec."""
    errors: list[FieldError] = []
    requests = (spec.get("devices") or {}).get("requests") or []
    place = where.child("devices", "requests")
    if len(requests) > _MOST_REQUESTS:
        errors.append(fielderrors.too_many(place, len(requests), _MOST_REQUESTS))
    names: set[str] = set()
    for index, request in enumerate(requests):
        spot, name = place.index(index), request.get("name", "")
        if not name:
            errors.append(fielderrors.required(spot.child("name")))
        else:
            errors += name_errors(name, spot.child("name"), is_dns1123_label)
        if name in names:
            errors.append(fielderrors.duplicate(spot.child("name"), name))
        names.add(name)
        exactly, alternatives = request.get("exactly"), request.get("firstAvailable")
        wanted = "exactly one of `exactly` or `firstAvailable` is required"
        if exactly is None and not alternatives:
            errors.append(fielderrors.required(spot, wanted))
        elif exactly is not None and alternatives:
            errors.append(fielderrors.invalid(spot, None, f"{wanted}, but multiple fields are set"))
        if exactly is not None:
            errors += _request(exactly, spot.child("exactly"))
        for number, alternative in enumerate(alternatives or ()):
            errors += _request(alternative, spot.child("firstAvailable").index(number))
    return errors


def _request(request: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    device_class, mode = request.get("deviceClassName", ""), request.get("allocationMode", "")
    if not device_class:
        errors.append(fielderrors.required(where.child("deviceClassName")))
    else:
        errors += name_errors(device_class, where.child("deviceClassName"), is_dns1123_subdomain)
    if mode not in _MODES:
        errors.append(fielderrors.not_supported(where.child("allocationMode"), mode, _MODES))
    elif mode == "ExactCount" and request.get("count", 0) <= 0:
        errors.append(fielderrors.invalid(where.child("count"), request.get("count", 0), "must be greater than zero"))
    elif mode == "All" and request.get("count"):
        detail = "must not be specified when allocationMode is 'All'"
        errors.append(fielderrors.invalid(where.child("count"), request["count"], detail))
    return errors
