"""Rules for Endpoints, EndpointSlices and the addresses in them."""

from __future__ import annotations

from collections.abc import Callable

from bowsprit.controlplane.countrules import one_of
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import (
    is_dns1123_label,
    is_dns1123_subdomain,
    is_qualified_name,
    is_valid_ip,
    is_valid_label_value,
    is_valid_port_num,
    parse_ip,
)

_PROTOCOLS = ["SCTP", "TCP", "UDP"]
_MOST_ENDPOINTS = 1000
_MOST_ADDRESSES = 100
_MOST_HINTS = 8


def special_ip_errors(text: str, where: Path) -> list[FieldError]:
    """Addresses that no endpoint may have (upstream ValidateNonSpecialIP, ValidateEndpointIP)."""
    ip = parse_ip(text)
    if ip is None:
        known = is_valid_ip(text)[0].startswith("must be")
        return [fielderrors.invalid(where, text, "must be a valid IP address")] if known else []
    for holds, detail in (
        (ip.is_unspecified, f"may not be unspecified ({text})"),
        (ip.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (ip.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (
            ip.packed[:3] == b"\xe0\0\0" or (ip.version == 6 and ip.packed[0] == 255 and ip.packed[1] & 15 == 2),
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
                if address.get("nodeName") is not None:
                    errors += name_errors(address["nodeName"], place.child("nodeName"), is_dns1123_subdomain)
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
    if (application := port.get("appProtocol")) is not None:
        errors += name_errors(application, where.child("appProtocol"), is_qualified_name)
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
        protocol = port.get("protocol")
        if protocol not in _PROTOCOLS:
            errors.append(fielderrors.not_supported(where.child("protocol"), protocol, _PROTOCOLS))
        if (application := port.get("appProtocol")) is not None:
            errors += name_errors(application, where.child("appProtocol"), is_qualified_name)
    endpoints = obj.get("endpoints") or []
    if len(endpoints) > _MOST_ENDPOINTS:
        return [*errors, fielderrors.too_many(path("endpoints"), len(endpoints), _MOST_ENDPOINTS)]
    for index, endpoint in enumerate(endpoints):
        errors += _endpoint(endpoint, path("endpoints").index(index), kind)
    return errors


def _endpoint(endpoint: Obj, where: Path, kind: str) -> list[FieldError]:
    errors: list[FieldError] = []
    addresses = endpoint.get("addresses") or []
    if not addresses:
        errors.append(fielderrors.required(where.child("addresses"), "must contain at least 1 address"))
    elif len(addresses) > _MOST_ADDRESSES:
        errors.append(fielderrors.too_many(where.child("addresses"), len(addresses), _MOST_ADDRESSES))
    for index, address in enumerate(addresses):
        errors += _slice_address(address, where.child("addresses"), index, kind)
    if (node := endpoint.get("nodeName")) is not None:
        errors += name_errors(node, where.child("nodeName"), is_dns1123_subdomain)
    if (hostname := endpoint.get("hostname")) is not None:
        errors += name_errors(hostname, where.child("hostname"), is_dns1123_label)
    hints = endpoint.get("hints") or {}
    for field, rule in (("forZones", is_valid_label_value), ("forNodes", is_dns1123_subdomain)):
        errors += _hints(hints.get(field) or [], where.child("hints", field), rule)
    return errors


def _slice_address(address: str, where: Path, index: int, kind: str) -> list[FieldError]:
    place = where.index(index)
    if kind == "FQDN":
        return _host_errors(address, place)
    if kind not in ("IPv4", "IPv6"):
        return []
    problems = name_errors(address, place, is_valid_ip)
    ip = parse_ip(address)
    if problems or ip is None:
        return problems
    if kind == "IPv6" and str(ip) != address:
        return [fielderrors.invalid(place, address, f"must be in canonical form ({quote(str(ip))})")]
    if f"IPv{ip.version}" != kind:
        problems = [fielderrors.invalid(where, address, f"must be an {kind} address")]
    return problems + special_ip_errors(address, place)


def _host_errors(name: str, where: Path) -> list[FieldError]:
    """Upstream IsFullyQualifiedDomainName."""
    if not name:
        return [fielderrors.required(where)]
    bare = name.removesuffix(".")
    if problems := is_dns1123_subdomain(bare):
        return [fielderrors.invalid(where, bare, ",".join(problems))]
    if "." not in bare:
        return [fielderrors.invalid(where, bare, "should be a domain with at least two segments separated by dots")]
    for label in bare.split("."):
        if problems := is_dns1123_label(label):
            return [fielderrors.invalid(where, label, ",".join(problems))]
    return []


def _hints(hints: list[Obj], where: Path, rule: Callable[[str], list[str]]) -> list[FieldError]:
    if len(hints) > _MOST_HINTS:
        return [fielderrors.too_many(where, len(hints), _MOST_HINTS)]
    errors: list[FieldError] = []
    names = [hint.get("name", "") for hint in hints]
    for index, name in enumerate(names):
        place = where.index(index).child("name")
        if name in names[:index]:
            errors.append(fielderrors.duplicate(place, name))
        errors += name_errors(name, place, rule)
    return errors
