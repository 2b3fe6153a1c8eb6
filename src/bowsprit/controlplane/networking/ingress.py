"""Ingresses and ingress classes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.immutable import immutable_field
from bowsprit.controlplane.networking.validation import ingress_class_errors, ingress_errors
from bowsprit.controlplane.printing import NONE, age_of, name_of
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj


class IngressStrategy(StatusedStrategy):
    """The main endpoint."""

    empty_status: ClassVar[Obj] = {"loadBalancer": {}}

    def validate(self, obj: Obj) -> list[FieldError]:
        return ingress_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return ingress_errors(new)


class IngressClassStrategy(Strategy):
    """The controller cannot change."""

    has_generation = True

    def default(self, obj: Obj) -> None:
        parameters = (obj.get("spec") or {}).get("parameters")
        if parameters is not None and parameters.get("scope") is None:
            parameters["scope"] = "Cluster"

    def validate(self, obj: Obj) -> list[FieldError]:
        return ingress_class_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        where = path("spec", "controller")
        after, before = ((obj.get("spec") or {}).get("controller") or "" for obj in (new, old))
        return ingress_class_errors(new) + immutable_field(after, before, where)


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Class, Hosts, Address, Ports, Age."""
    spec = obj.get("spec") or {}
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    addresses = [item.get("ip") or item.get("hostname") or "" for item in ingress]
    return [
        name_of(obj),
        spec.get("ingressClassName") or NONE,
        _hosts(spec.get("rules") or []),
        ",".join(address for address in addresses if address),
        "80, 443" if spec.get("tls") else "80",
        age_of(obj, now),
    ]


def _hosts(rules: list[Obj]) -> str:
    hosts = [rule["host"] for rule in rules if rule.get("host")]
    if not hosts:
        return "*"
    text = ",".join(hosts[:3])
    return f"{text} + {len(hosts) - 3} more..." if len(hosts) > 3 else text


def class_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Controller, Parameters, Age."""
    spec = obj.get("spec") or {}
    parameters = spec.get("parameters")
    text = NONE
    if parameters:
        kind = GroupResource(parameters.get("apiGroup") or "", parameters.get("kind", ""))
        text = f"{kind}/{parameters.get('name', '')}"
    return [name_of(obj), spec.get("controller", ""), text, age_of(obj, now)]
