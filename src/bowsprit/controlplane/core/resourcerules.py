"""Rules for resource names and amounts of containers (upstream ValidateContainerResource*)."""

from __future__ import annotations

from collections.abc import Callable

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import is_qualified_name

_STANDARD_CONTAINER = frozenset({"cpu", "memory", "ephemeral-storage"})
_STANDARD = _STANDARD_CONTAINER | {
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "requests.storage",
    "storage",
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
}
_INTEGER = frozenset({"pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps"})
_NATIVE_PREFIX = "kubernetes.io/"
NOT_NEGATIVE = "must be greater than or equal to 0"


def is_native(name: str) -> bool:
    """Resources of Kubernetes itself."""
    return "/" not in name or _NATIVE_PREFIX in name


def is_extended(name: str) -> bool:
    """Resources of devices and the like."""
    if is_native(name) or name.startswith("requests."):
        return False
    return not is_qualified_name(f"requests.{name}")


def is_hugepages(name: str) -> bool:
    return name.startswith("hugepages-")


def overcommit_allowed(name: str) -> bool:
    """Whether requests may be below limits."""
    return is_native(name) and not is_hugepages(name)


def amount_errors(name: str, text: str, where: Path) -> list[FieldError]:
    """Not negative, and whole for resources that are counted."""
    amount = Quantity.parse(text)
    errors = [] if amount.sign() >= 0 else [fielderrors.invalid(where, str(amount), NOT_NEGATIVE)]
    if (name in _INTEGER or is_extended(name)) and amount.milli_value() % 1000:
        errors.append(fielderrors.invalid(where, str(amount), "must be an integer"))
    return errors


def name_errors(name: str, where: Path) -> list[FieldError]:
    """A resource's name, wherever it stands."""
    errors = [fielderrors.invalid(where, name, text) for text in is_qualified_name(name)]
    if not errors and "/" not in name and name not in _STANDARD and not is_hugepages(name):
        errors.append(fielderrors.invalid(where, name, "must be a standard resource type or fully qualified"))
    return errors


def container_name_errors(name: str, where: Path) -> list[FieldError]:
    """A resource's name in a container."""
    errors = name_errors(name, where)
    if "/" not in name:
        if name not in _STANDARD_CONTAINER and not is_hugepages(name):
            errors.append(fielderrors.invalid(where, name, "must be a standard resource for containers"))
    elif not is_native(name) and not is_extended(name):
        errors.append(fielderrors.invalid(where, name, "doesn't follow extended resource name standard"))
    return errors


def whole_name_errors(name: str, where: Path) -> list[FieldError]:
    """A resource's name at the level of the pod."""
    errors = name_errors(name, where)
    if errors or name in ("cpu", "memory") or is_hugepages(name):
        return errors
    return [fielderrors.not_supported(where, name, ["cpu", "hugepages-", "memory"])]


def requirements_errors(
    resources: Obj | None, where: Path, *, names: Callable[[str, Path], list[FieldError]] = container_name_errors
) -> list[FieldError]:
    """Limits and requests (upstream ValidateResourceRequirements); `names` judges what is limited, as in containers."""
    resources = resources or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    errors: list[FieldError] = []
    huge = compute = False
    for name, text in limits.items():
        place = where.child("limits").key(name)
        errors += names(name, place) + amount_errors(name, text, place)
        huge, compute = huge or is_hugepages(name), compute or name in ("cpu", "memory")
    for name, text in requests.items():
        place = where.child("requests").key(name)
        errors += names(name, place) + amount_errors(name, text, place)
        limit = limits.get(name)
        if limit is not None:
            wanted, most = Quantity.parse(text), Quantity.parse(limit)
            if wanted != most and not overcommit_allowed(name):
                detail = f"must be equal to {name} limit of {most}"
                errors.append(fielderrors.invalid(where.child("requests"), str(wanted), detail))
            elif wanted > most:
                detail = f"must be less than or equal to {name} limit of {most}"
                errors.append(fielderrors.invalid(where.child("requests"), str(wanted), detail))
        elif not overcommit_allowed(name):
            errors.append(
                fielderrors.required(where.child("limits"), "Limit must be set for non overcommitable resources")
            )
        huge, compute = huge or is_hugepages(name), compute or name in ("cpu", "memory")
    if huge and not compute:
        errors.append(fielderrors.forbidden(where, "HugePages require cpu or memory"))
    return errors
