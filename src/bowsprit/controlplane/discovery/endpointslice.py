"""EndpointSlices."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.core.addresswarnings import address_warnings
from bowsprit.controlplane.core.endpointsvalidation import endpoint_slice_errors
from bowsprit.controlplane.immutable import immutable_field
from bowsprit.controlplane.printing import UNSET, age_of, name_of
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj, labels


class EndpointSliceStrategy(Strategy):
    """Port defaults; the address type cannot change."""

    has_generation = True

    def default(self, obj: Obj) -> None:
        if not obj.get("endpoints"):
            obj["endpoints"] = None  # as Go writes a list that was never made
        for port in obj.get("ports") or ():
            if port.get("name") is None:
                port["name"] = ""
            if port.get("protocol") is None:
                port["protocol"] = "TCP"

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        _drop_topology(obj)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        if new.get("endpoints") != old.get("endpoints"):
            _drop_topology(new)

    def bumps_generation(self, new: Obj, old: Obj) -> bool:
        return labels(new) != labels(old)

    def warnings(self, obj: Obj, old: Obj | None) -> list[str]:
        found: list[str] = []
        if obj.get("addressType") == "FQDN" and old is None:
            found.append("spec.addressType: FQDN endpoints are deprecated")
        for index, endpoint in enumerate(obj.get("endpoints") or ()):
            for number, address in enumerate(endpoint.get("addresses") or ()):
                place = path("endpoints").index(index).child("addresses").index(number)
                found += address_warnings(address, place)
        return found

    def validate(self, obj: Obj) -> list[FieldError]:
        return endpoint_slice_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return endpoint_slice_errors(new) + immutable_field(
            new.get("addressType"), old.get("addressType"), path("addressType")
        )


def _drop_topology(obj: Obj) -> None:
    """The v1 API shows old topology but takes none (upstream dropTopologyOnV1)."""
    for endpoint in obj.get("endpoints") or ():
        endpoint.pop("deprecatedTopology", None)


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, AddressType, Ports, Endpoints, Age."""
    ports = [UNSET if port.get("port") is None else str(port["port"]) for port in obj.get("ports") or ()]
    addresses = [address for item in obj.get("endpoints") or () for address in item.get("addresses") or ()]
    return [name_of(obj), obj.get("addressType", ""), _some(ports), _some(addresses), age_of(obj, now)]


def _some(values: list[str]) -> str:
    if not values:
        return UNSET
    text = ",".join(values[:3])
    return f"{text} + {len(values) - 3} more..." if len(values) > 3 else text
