"""NetworkPolicies, ServiceCIDRs and IPAddresses."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.immutable import FIELD_IS_IMMUTABLE, immutable_struct
from bowsprit.controlplane.networking.validation import ip_address_errors, network_policy_errors, service_cidr_errors
from bowsprit.controlplane.printing import age_of, name_of, selector_text
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_valid_ip


class NetworkPolicyStrategy(Strategy):
    """Port protocols and policy types."""

    has_generation = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        for rule in [*(spec.get("ingress") or ()), *(spec.get("egress") or ())]:
            for port in rule.get("ports") or ():
                if port.get("protocol") is None:
                    port["protocol"] = "TCP"
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]

    def validate(self, obj: Obj) -> list[FieldError]:
        return network_policy_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return network_policy_errors(new)


class AddressStrategy(Strategy):
    """IPAddress: what it belongs to cannot change."""

    def validate_name(self, name: str) -> list[str]:
        return is_valid_ip(name)

    def validate(self, obj: Obj) -> list[FieldError]:
        return ip_address_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        before, after = ((each.get("spec") or {}).get("parentRef") for each in (old, new))
        return ip_address_errors(new) + immutable_struct("ParentReference", after, before, path("spec", "parentRef"))


class ServiceCIDRStrategy(StatusedStrategy):
    """ServiceCIDR."""

    has_generation = False

    def validate(self, obj: Obj) -> list[FieldError]:
        return service_cidr_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        where = path("spec", "cidrs")
        before, after = ((each.get("spec") or {}).get("cidrs") or [] for each in (old, new))
        grows = (len(before), len(after)) == (1, 2)  # to both families
        if len(before) != len(after) and not grows:
            return [fielderrors.invalid(where, after, FIELD_IS_IMMUTABLE)]
        errors = [
            fielderrors.invalid(where.index(index), is_now, FIELD_IS_IMMUTABLE)
            for index, (was, is_now) in enumerate(zip(before, after, strict=False))
            if was != is_now
        ]
        return errors + (service_cidr_errors(new) if grows else [])


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Pod-Selector, Age."""
    return [name_of(obj), selector_text((obj.get("spec") or {}).get("podSelector")), age_of(obj, now)]


def address_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, ParentRef."""
    parent = (obj.get("spec") or {}).get("parentRef")
    text = ""
    if parent:
        resource = GroupResource(parent.get("group") or "", parent.get("resource", ""))
        scope = f"{parent['namespace']}/" if parent.get("namespace") else ""
        text = f"{resource}/{scope}{parent.get('name', '')}"
    return [name_of(obj), text]


def cidr_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, CIDRs, Age."""
    return [name_of(obj), ",".join((obj.get("spec") or {}).get("cidrs") or ()), age_of(obj, now)]
