"""Endpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.core.endpointsvalidation import endpoints_errors
from bowsprit.controlplane.printing import NONE, age_of, name_of
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj

_SHOWN = 3


class EndpointsStrategy(Strategy):
    """Ports default to TCP; a PUT of absent endpoints creates them."""

    allow_create_on_update = True

    def default(self, obj: Obj) -> None:
        for subset in obj.get("subsets") or ():
            for port in subset.get("ports") or ():
                if not port.get("protocol"):
                    port["protocol"] = "TCP"

    def validate(self, obj: Obj) -> list[FieldError]:
        return endpoints_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return endpoints_errors(new)


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Endpoints, Age."""
    return [name_of(obj), _addresses(obj.get("subsets") or []), age_of(obj, now)]


def _addresses(subsets: list[Obj]) -> str:
    found: list[str] = []
    for subset in subsets:
        for address in subset.get("addresses") or ():
            ip = address.get("ip", "")
            shown = f"[{ip}]" if ":" in ip else ip
            ports = subset.get("ports") or ()
            found += [f"{shown}:{port.get('port', 0)}" for port in ports] if ports else [ip]
    if not found:
        return NONE
    text = ",".join(found[:_SHOWN])
    return f"{text} + {len(found) - _SHOWN} more..." if len(found) > _SHOWN else text
