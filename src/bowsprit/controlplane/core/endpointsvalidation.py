"""Rules for Endpoints, EndpointSlices and the addresses in them."""

from __future__ import annotations

import ipaddress

from bowsprit.controlplane.countrules import one_of
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import (
    is_dns1123_label,
    is_dns1123_subdomain,
    is_valid_ip,
    is_valid_ipv4_address,
    is_valid_ipv6_address,
    is_valid_port_num,
)

_PROTOCOLS = ["SCTP", "TCP", "UDP"]
_MOST_ENDPOINTS = 1000
_MOST_ADDRESSES = 100


def special_ip_errors(text: str, where: Path) -> list[FieldError]:
    """Addresses that no endpoint may have (upstream ValidateNonSpecialIP, ValidateEndpointIP)."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return [fielderrors.invalid(where, text, "must be a valid IP address")]
    for holds, detail in (
        (ip.is_unspecified, f"may not be unspecified ({ip})"),
        (ip.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (ip.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (
            ip.is_multicast and ip.packed[0] in (224, 255),
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        ),
    ):
        if holds:
            return [fielderrors.invalid(where, text, detail)]
    return []


def endpoints_errors(obj: Obj) -> list[FieldError]:
    """Endpoints."""
    errors: list[FieldError] = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        where = path("subsets").index(index)
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.append(fielderrors.required(where, "must specify `addresses` or `notReadyAddresses`"))
        for field in ("addresses", "notReadyAddresses"):
            for number, address in enumerate(subset.get(field) or ()):
                place = where.child(field).index(number)
                ip = address.get("ip", "")
                errors += [fielderrors.invalid(place.child("ip"), ip, text) for text in is_valid_ip(ip)]
                if address.get("hostname"):
                    errors += name_errors(address["hostname"], place.child("hostname"), is_dns1123_label)
                errors += special_ip_errors(ip, place.child("ip"))
        ports = subset.get("ports") or []
        for number, port in enumerate(ports):
            errors += _port(port, where.child("ports").index(number), needs_name=len(ports) > 1)
    return errors


def _port(port: Obj, where: Path, *, needs_name: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    name, number = port.get("name", ""), port.get("port", 0)
    if needs_name and not name:
        errors.append(fielderrors.required(where.child("name")))
    elif name:
        errors += name_errors(name, where.child("name"), is_dns1123_label)
    errors += [fielderrors.invalid(where.child("port"), number, text) for text in is_valid_port_num(number)]
    return errors + one_of(port.get("protocol"), _PROTOCOLS, where.child("protocol"))


def endpoint_slice_errors(obj: Obj) -> list[FieldError]:
    """An EndpointSlice."""
    kind = obj.get("addressType", "")
    errors = one_of(kind, ["FQDN", "IPv4", "IPv6"], path("addressType"))
    ports: set[str] = set()
    for index, port in enumerate(obj.get("ports") or ()):
        where, name = path("ports").index(index), port.get("name") or ""
        if name:
            errors += name_errors(name, where.child("name"), is_dns1123_label)
        if name in ports:
            errors.append(fielderrors.duplicate(where.child("name"), name))
        ports.add(name)
        errors += one_of(port.get("protocol"), _PROTOCOLS, where.child("protocol"))
    endpoints = obj.get("endpoints") or []
    if len(endpoints) > _MOST_ENDPOINTS:
        errors.append(fielderrors.too_many(path("endpoints"), len(endpoints), _MOST_ENDPOINTS))
    for index, endpoint in enumerate(endpoints):
        errors += _endpoint(endpoint, path("endpoints").index(index), kind)
    return errors


def _endpoint(endpoint: Obj, where: Path, kind: str) -> list[FieldError]:
    errors: list[FieldError] = []
    addresses = endpoint.get("addresses") or []
    if not addresses:
        errors.append(fielderrors.required(where.child("addresses"), "must contain at least 1 address"))
    if len(addresses) > _MOST_ADDRESSES:
        errors.append(fielderrors.too_many(where.child("addresses"), len(addresses), _MOST_ADDRESSES))
    rules = {"IPv4": is_valid_ipv4_address, "IPv6": is_valid_ipv6_address}
    for index, address in enumerate(addresses):
        place = where.child("addresses").index(index)
        if kind in rules:
            problems = [fielderrors.invalid(place, address, text) for text in rules[kind](address)]
            errors += problems or special_ip_errors(address, place)
        elif kind == "FQDN":
            errors += name_errors(address, place, is_dns1123_subdomain)
    if (hostname := endpoint.get("hostname")) is not None:
        errors += name_errors(hostname, where.child("hostname"), is_dns1123_label)
    if (node := endpoint.get("nodeName")) is not None:
        errors += name_errors(node, where.child("nodeName"), is_dns1123_subdomain)
    return errors
