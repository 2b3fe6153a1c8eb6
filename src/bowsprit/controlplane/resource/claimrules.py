"""Rules for device classes, claims and claim templates (upstream pkg/apis/resource/validation)."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

from bowsprit.controlplane.core.resourcerules import is_extended
from bowsprit.controlplane.core.volumesources import driver_name_errors
from bowsprit.controlplane.labelrules import name_errors, template_metadata_errors
from bowsprit.controlplane.resource.listrules import list_errors
from bowsprit.controlplane.resource.namerules import (
    TAINT_EFFECTS,
    class_name_errors,
    fully_qualified_name_errors,
    label_errors,
    label_name_errors,
)
from bowsprit.machinery import cel, fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_valid_label_value

if TYPE_CHECKING:
    from bowsprit.machinery.celtypes import RuleTypes

MOST_REQUESTS = 32
MOST_CONFIGURATIONS = 32
_MOST_CONSTRAINTS = 32
_MOST_SELECTORS = 32
_MOST_ALTERNATIVES = 8
_LONGEST_EXPRESSION = 10 << 10
_LONGEST_PARAMETERS = 10 << 10
_MODES = ["All", "ExactCount"]
_OPERATORS = ["Equal", "Exists"]
_NO_SUCH_REQUEST = (
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
)
_ONE_SORT = "exactly one of `exactly` or `firstAvailable` is required"

RequestNames = dict[str, set[str]]
"""The names of requests, each with those of its alternatives."""


def class_errors(obj: Obj) -> list[FieldError]:
    """A DeviceClass."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = _selectors_errors(spec, where)
    errors += list_errors(
        spec.get("config") or [], where.child("config"), configuration_errors, most=MOST_CONFIGURATIONS
    )
    name = spec.get("extendedResourceName")
    if name is not None and not is_extended(name):
        detail = "must be a valid extended resource name"
        errors.append(fielderrors.invalid(where.child("extendedResourceName"), name, detail))
    return errors


def claim_errors(obj: Obj) -> list[FieldError]:
    """A ResourceClaim."""
    return _claim_spec_errors(obj.get("spec") or {}, path("spec"))


def claim_template_errors(obj: Obj) -> list[FieldError]:
    """A ResourceClaimTemplate."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = template_metadata_errors(spec.get("metadata") or {}, where.child("metadata"))
    return errors + _claim_spec_errors(spec.get("spec") or {}, where.child("spec"))


def request_names(spec: Obj) -> RequestNames:
    """What the other parts of a claim may name."""
    requests = (spec.get("devices") or {}).get("requests") or ()
    return {
        request.get("name", ""): {part.get("name", "") for part in request.get("firstAvailable") or ()}
        for request in requests
    }


def _claim_spec_errors(spec: Obj, where: Path) -> list[FieldError]:
    devices, place, names = spec.get("devices") or {}, where.child("devices"), request_names(spec)

    def constraint_errors(constraint: Obj, spot: Path) -> list[FieldError]:
        return _constraint_errors(constraint, spot, names)

    def config_errors(config: Obj, spot: Path) -> list[FieldError]:
        return references_errors(config, spot, names) + configuration_errors(config, spot)

    requests, constraints, config = (devices.get(field) or [] for field in ("requests", "constraints", "config"))
    errors = list_errors(requests, place.child("requests"), _request_errors, most=MOST_REQUESTS, key=_name)
    errors += list_errors(constraints, place.child("constraints"), constraint_errors, most=_MOST_CONSTRAINTS)
    return errors + list_errors(config, place.child("config"), config_errors, most=MOST_CONFIGURATIONS)


def _name(request: Obj) -> str:
    return str(request.get("name", ""))


def _request_errors(request: Obj, where: Path) -> list[FieldError]:
    errors = label_errors(request.get("name", ""), where.child("name"))
    exactly, alternatives = request.get("exactly"), request.get("firstAvailable")
    if exactly is None and not alternatives:
        errors.append(fielderrors.required(where, _ONE_SORT))
    elif exactly is not None and alternatives:
        errors.append(fielderrors.invalid(where, None, f"{_ONE_SORT}, but multiple fields are set"))
    elif alternatives:
        place = where.child("firstAvailable")
        errors += list_errors(alternatives, place, _alternative_errors, most=_MOST_ALTERNATIVES, key=_name)
    elif exactly is not None:
        errors += _exact_errors(exactly, where.child("exactly"))
    return errors


def _alternative_errors(request: Obj, where: Path) -> list[FieldError]:
    return label_errors(request.get("name", ""), where.child("name")) + _exact_errors(request, where)


def _exact_errors(request: Obj, where: Path) -> list[FieldError]:
    errors = class_name_errors(request.get("deviceClassName", ""), where.child("deviceClassName"))
    errors += _selectors_errors(request, where)
    mode, count = request.get("allocationMode", ""), request.get("count") or 0
    if mode not in _MODES:
        errors.append(fielderrors.not_supported(where.child("allocationMode"), mode, _MODES))
    elif mode == "ExactCount" and count <= 0:
        errors.append(fielderrors.invalid(where.child("count"), count, "must be greater than zero"))
    elif mode == "All" and count:
        detail = "must not be specified when allocationMode is 'All'"
        errors.append(fielderrors.invalid(where.child("count"), count, detail))
    return errors + list_errors(request.get("tolerations") or [], where.child("tolerations"), _toleration_errors)


def _toleration_errors(toleration: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    if toleration.get("key"):
        errors += label_name_errors(toleration["key"], where.child("key"))
    operator, value = toleration.get("operator", ""), toleration.get("value", "")
    if operator == "Exists" and value:
        errors.append(fielderrors.invalid(where.child("value"), value, "must be empty for operator `Exists`"))
    elif operator == "Equal":
        errors += name_errors(value, where.child("value"), is_valid_label_value)
    elif operator not in _OPERATORS:
        errors.append(fielderrors.not_supported(where.child("operator"), operator, _OPERATORS))
    effect = toleration.get("effect")
    if effect and effect not in TAINT_EFFECTS:
        errors.append(fielderrors.not_supported(where.child("effect"), effect, TAINT_EFFECTS))
    return errors


def _constraint_errors(constraint: Obj, where: Path, names: RequestNames) -> list[FieldError]:
    errors = references_errors(constraint, where, names)
    for field in ("matchAttribute", "distinctAttribute"):
        if constraint.get(field) is not None:
            return errors + fully_qualified_name_errors(constraint[field], where.child(field))
    detail = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
    return [*errors, fielderrors.required(where, detail)]  # upstream's text, although none is set


def references_errors(holder: Obj, where: Path, names: RequestNames) -> list[FieldError]:
    """The `requests` that a constraint or a configuration is for."""

    def errors(name: str, spot: Path) -> list[FieldError]:
        return reference_errors(name, spot, names)

    return list_errors(holder.get("requests") or [], where.child("requests"), errors, most=MOST_REQUESTS, key=str)


def reference_errors(name: str, where: Path, names: RequestNames) -> list[FieldError]:
    """The name of a request, or request/alternative."""
    first, *rest = name.split("/")
    if len(rest) > 1:
        return [fielderrors.invalid(where, name, _NO_SUCH_REQUEST)]
    errors = [error for part in (first, *rest) for error in label_errors(part, where)]
    if first not in names or (rest and rest[0] not in names[first]):
        errors.append(fielderrors.invalid(where, name, _NO_SUCH_REQUEST))
    return errors


def configuration_errors(config: Obj, where: Path) -> list[FieldError]:
    """What a driver is told."""
    opaque, place = config.get("opaque"), where.child("opaque")
    if opaque is None:
        return [fielderrors.required(place)]
    errors = driver_name_errors(opaque.get("driver", ""), place.child("driver"))
    return errors + raw_errors(opaque.get("parameters"), place.child("parameters"), _LONGEST_PARAMETERS)


def raw_errors(value: object, where: Path, longest: int) -> list[FieldError]:
    """An object that only a driver understands."""
    if value is None:
        return [fielderrors.required(where)]
    if len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()) > longest:
        return [fielderrors.too_long(where, longest)]
    if not isinstance(value, dict):
        return [fielderrors.invalid(where, "<value omitted>", "must be a valid JSON object")]
    return []


def _selectors_errors(holder: Obj, where: Path) -> list[FieldError]:
    return list_errors(holder.get("selectors") or [], where.child("selectors"), _selector_errors, most=_MOST_SELECTORS)


def _selector_errors(selector: Obj, where: Path) -> list[FieldError]:
    place = where.child("cel")
    if selector.get("cel") is None:
        return [fielderrors.required(place)]
    expression, place = selector["cel"].get("expression", ""), place.child("expression")
    if len(expression.encode()) > _LONGEST_EXPRESSION:
        return [fielderrors.too_long(place, _LONGEST_EXPRESSION)]
    try:
        result = _device_types().result(expression)
    except cel.CelError as error:
        return [fielderrors.invalid(place, expression, str(error))]
    if result in _UNWANTED:
        detail = f"must evaluate to bool or the unknown type, not {_UNWANTED[result]}"
        return [fielderrors.invalid(place, expression, detail)]
    return []


_UNWANTED = {
    "STRING": "string",
    "INT": "int",
    "UINT": "uint",
    "DOUBLE": "double",
    "BYTES": "bytes",
    "NULL": "null_type",
}


@cache
def _device_types() -> RuleTypes:
    from bowsprit.machinery.celtypes import RuleTypes  # with protobuf, which most servers never need

    by_domain = {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": {}}}
    device = {
        "driver": {"type": "string"},
        "attributes": by_domain,
        "capacity": by_domain,
        "allowMultipleAllocations": {"type": "boolean"},
    }
    return RuleTypes({"type": "object", "properties": device}, variables=("device",))
