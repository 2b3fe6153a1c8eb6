"""The names of the resource group: drivers, pools, attributes, taints."""

from __future__ import annotations

from uuid import UUID

from bowsprit.controlplane.core.volumesources import driver_name_errors
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import (
    is_c_identifier,
    is_dns1123_label,
    is_dns1123_subdomain,
    is_qualified_name,
    is_valid_label_value,
)

_LONGEST_POOL = 253
_LONGEST_IDENTIFIER = 32
LONGEST_QUALIFIED = 63 + 1 + _LONGEST_IDENTIFIER
TAINT_EFFECTS = ["NoExecute", "NoSchedule", "None"]


def label_errors(name: str, where: Path) -> list[FieldError]:
    """A device, a request or a counter."""
    return name_errors(name, where, is_dns1123_label)


def class_name_errors(name: str, where: Path) -> list[FieldError]:
    """The DeviceClass of a request."""
    return name_errors(name, where, is_dns1123_subdomain) if name else [fielderrors.required(where)]


def label_name_errors(name: str, where: Path) -> list[FieldError]:
    """What may be the name of a label."""
    return name_errors(name, where, is_qualified_name)


def pool_name_errors(name: str, where: Path) -> list[FieldError]:
    """Subdomains between slashes."""
    if not name:
        return [fielderrors.required(where)]
    errors = [fielderrors.too_long(where, _LONGEST_POOL)] if len(name) > _LONGEST_POOL else []
    return errors + [error for part in name.split("/") for error in name_errors(part, where, is_dns1123_subdomain)]


def qualified_name_errors(name: str, where: Path) -> list[FieldError]:
    """An attribute or a capacity: an identifier, or domain/identifier. More slashes are not judged, as upstream."""
    domain, *rest = name.split("/")
    if not rest:
        return _identifier_errors(domain, where)
    if len(rest) > 1:
        return []
    errors = (
        driver_name_errors(domain, where)
        if domain
        else [fielderrors.invalid(where, "", "the domain must not be empty")]
    )
    if not rest[0]:
        return [*errors, fielderrors.invalid(where, "", "the name must not be empty")]
    return errors + _identifier_errors(rest[0], where)


def _identifier_errors(name: str, where: Path) -> list[FieldError]:
    errors = [fielderrors.too_long(where, _LONGEST_IDENTIFIER)] if len(name) > _LONGEST_IDENTIFIER else []
    return errors + name_errors(name, where, is_c_identifier)


def fully_qualified_name_errors(name: str, where: Path) -> list[FieldError]:
    """An attribute with its domain."""
    errors = qualified_name_errors(name, where)
    if "/" not in name:
        detail = "a fully qualified name must be a domain and a name separated by a slash"
        errors.append(fielderrors.invalid(where, name, detail))
    return errors


def uid_errors(text: str, where: Path) -> list[FieldError]:
    """A share's id."""
    try:
        normal = str(UUID(text))
    except ValueError:
        detail = f"error validating uid: invalid UUID length: {len(text)}"
        if len(text) in (32, 36, 38, 45):
            detail = "error validating uid: invalid UUID format"
        return [fielderrors.invalid(where, text, detail)]
    if text == normal:
        return []
    form = "`xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters"
    return [fielderrors.invalid(where, text, f"uid must be in RFC 4122 normalized form, {form}")]


def taint_errors(taint: Obj, where: Path) -> list[FieldError]:
    """A DeviceTaint."""
    errors = label_name_errors(taint.get("key", ""), where.child("key"))
    if taint.get("value"):
        errors += name_errors(taint["value"], where.child("value"), is_valid_label_value)
    effect = taint.get("effect", "")
    if not effect:
        errors.append(fielderrors.required(where.child("effect")))
    elif effect not in TAINT_EFFECTS:
        errors.append(fielderrors.not_supported(where.child("effect"), effect, TAINT_EFFECTS))
    return errors


def binding_condition_errors(device: Obj, where: Path) -> list[FieldError]:
    """The conditions on which a device is bound, and those on which it is not: both or none, and none in both."""
    errors: list[FieldError] = []
    good, bad = device.get("bindingConditions") or [], device.get("bindingFailureConditions") or []
    for field, names in (("bindingConditions", good), ("bindingFailureConditions", bad)):
        if len(names) > 4:
            errors.append(fielderrors.too_many(where.child(field), len(names), 4))
        else:
            for index, name in enumerate(names):
                errors += label_name_errors(name, where.child(field).index(index))
    for field, names in (("bindingConditions", good), ("bindingFailureConditions", bad)):
        for index, name in enumerate(names):
            place = where.child(field).index(index)
            if name in names[:index]:
                errors.append(fielderrors.duplicate(place, name))
            if names is bad and name in good:
                detail = "bindingFailureConditions must not overlap with bindingConditions"
                errors.append(fielderrors.invalid(place, name, detail))
    if bad and not good:
        detail = "bindingConditions are required to use bindingFailureConditions"
        errors.append(fielderrors.invalid(where.child("bindingConditions"), device.get("bindingConditions"), detail))
    if good and not bad:
        detail = "bindingFailureConditions are required to use bindingConditions"
        place = where.child("bindingFailureConditions")
        errors.append(fielderrors.invalid(place, device.get("bindingFailureConditions"), detail))
    return errors
