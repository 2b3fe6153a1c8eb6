"""Rules for Services (upstream ValidateService)."""

from __future__ import annotations

import ipaddress
from typing import Any

from bowsprit.controlplane.labelrules import label_errors, name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import (
    is_dns1123_label,
    is_dns1123_subdomain,
    is_qualified_name,
    is_valid_cidr,
    is_valid_ip,
    is_valid_port_name,
    is_valid_port_num,
)

_TYPES = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]
_PROTOCOLS = ["SCTP", "TCP", "UDP"]
_AFFINITIES = ["ClientIP", "None"]
_POLICIES = ["Cluster", "Local"]
_LONGEST_AFFINITY = 86400
_FAMILY_POLICIES = ["PreferDualStack", "RequireDualStack", "SingleStack"]
_DISTRIBUTIONS = ["PreferClose", "PreferSameZone", "PreferSameNode"]


def validate_service(obj: Obj) -> list[FieldError]:
    """A Service."""
    spec, where = obj.get("spec") or {}, path("spec")
    kind = spec.get("type", "")
    errors: list[FieldError] = []
    headless = spec.get("clusterIP") == "None"
    if not spec.get("ports") and not headless and kind != "ExternalName":
        errors.append(fielderrors.required(where.child("ports")))
    errors += _type(spec, where, kind)
    errors += _ports(spec, where, kind)
    if spec.get("selector"):
        errors += label_errors(spec["selector"], where.child("selector"))
    errors += _affinity(spec, where)
    if kind not in _TYPES:
        place = where.child("type")
        errors.append(fielderrors.not_supported(place, kind, _TYPES) if kind else fielderrors.required(place))
    errors += _cluster_ips(spec, where)
    errors += _external_ips(spec, where.child("externalIPs"))
    errors += _source_ranges(spec, where, kind)
    errors += _traffic(spec, where, kind)
    return errors


def _type(spec: Obj, where: Path, kind: str) -> list[FieldError]:
    errors: list[FieldError] = []
    if kind == "ExternalName":
        name = str(spec.get("externalName") or "").removesuffix(".")
        for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy", "clusterIP"):
            if spec.get(field):
                errors.append(fielderrors.forbidden(where.child(field), "may not be set for ExternalName services"))
        if name:
            errors += name_errors(name, where.child("externalName"), is_dns1123_subdomain)
        else:
            errors.append(fielderrors.required(where.child("externalName")))
    elif kind == "LoadBalancer":
        for index, port in enumerate(spec.get("ports") or ()):
            if port.get("port") == 10250:
                detail = "may not expose port 10250 externally since it is used by kubelet"
                errors.append(fielderrors.invalid(where.child("ports").index(index), port["port"], detail))
        if spec.get("clusterIP") == "None":
            detail = "may not be set to 'None' for LoadBalancer services"
            errors.append(fielderrors.invalid(where.child("clusterIPs").index(0), "None", detail))
    elif kind == "NodePort" and spec.get("clusterIP") == "None":
        detail = "may not be set to 'None' for NodePort services"
        errors.append(fielderrors.invalid(where.child("clusterIPs").index(0), "None", detail))
    return errors


def _ports(spec: Obj, where: Path, kind: str) -> list[FieldError]:
    errors: list[FieldError] = []
    ports = spec.get("ports") or []
    names: set[str] = set()
    keys: set[tuple[Any, Any]] = set()
    node_ports: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        place = where.child("ports").index(index)
        errors += _port(port, place, names, needs_name=len(ports) > 1)
        number, protocol, node = port.get("port", 0), port.get("protocol", ""), port.get("nodePort") or 0
        if node and kind in ("ClusterIP", "ExternalName"):
            detail = f"may not be used when `type` is '{kind}'"
            errors.append(fielderrors.forbidden(place.child("nodePort"), detail))
        elif node and (protocol, node) in node_ports:
            errors.append(fielderrors.duplicate(place.child("nodePort"), node))
        node_ports.add((protocol, node))
        if (protocol, number) in keys:
            errors.append(fielderrors.duplicate(place, _go_port(protocol, number)))
        keys.add((protocol, number))
    return errors


def _go_port(protocol: str, number: int) -> Obj:
    """The key of a port as Go prints it."""
    return {"Name": "", "Protocol": protocol, "AppProtocol": None, "Port": number, "TargetPort": 0, "NodePort": 0}


def _port(port: Obj, where: Path, names: set[str], *, needs_name: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    name, number, protocol = port.get("name", ""), port.get("port", 0), port.get("protocol", "")
    if needs_name and not name:
        errors.append(fielderrors.required(where.child("name")))
    elif name:
        errors += name_errors(name, where.child("name"), is_dns1123_label)
        if name in names:
            errors.append(fielderrors.duplicate(where.child("name"), name))
        names.add(name)
    errors += [fielderrors.invalid(where.child("port"), number, text) for text in is_valid_port_num(number)]
    if not protocol:
        errors.append(fielderrors.required(where.child("protocol")))
    elif protocol not in _PROTOCOLS:
        errors.append(fielderrors.not_supported(where.child("protocol"), protocol, _PROTOCOLS))
    target = port.get("targetPort", 0)
    rule: Any = is_valid_port_name if isinstance(target, str) else is_valid_port_num
    errors += [fielderrors.invalid(where.child("targetPort"), target, text) for text in rule(target)]
    if application := port.get("appProtocol"):
        errors += [
            fielderrors.invalid(where.child("appProtocol"), application, text)
            for text in is_qualified_name(application)
        ]
    return errors


def _affinity(spec: Obj, where: Path) -> list[FieldError]:
    affinity = spec.get("sessionAffinity", "")
    if not affinity:
        return [fielderrors.required(where.child("sessionAffinity"))]
    if affinity not in _AFFINITIES:
        return [fielderrors.not_supported(where.child("sessionAffinity"), affinity, _AFFINITIES)]
    config = spec.get("sessionAffinityConfig")
    place = where.child("sessionAffinityConfig")
    if affinity == "None":
        if config is not None:
            detail = f"must not be set when session affinity is {affinity}"
            return [fielderrors.forbidden(place, detail)]
        return []
    seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
    spot = place.child("clientIP", "timeoutSeconds")
    if seconds is None:
        return [fielderrors.required(spot, "when session affinity type is ClientIP")]
    if not 0 < seconds <= _LONGEST_AFFINITY:
        return [fielderrors.invalid(spot, seconds, f"must be greater than 0 and less than {_LONGEST_AFFINITY}")]
    return []


def _cluster_ips(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    place = where.child("clusterIPs")
    if spec.get("clusterIPs") and (spec.get("clusterIP") or spec["clusterIPs"][0]) != spec["clusterIPs"][0]:
        detail = "first value must match `clusterIP`"
        errors.append(fielderrors.invalid(place, spec["clusterIPs"], detail))
    for index, address in enumerate(addresses):
        if address == "None":
            if index or len(addresses) > 1:
                errors.append(
                    fielderrors.invalid(place.index(index), address, "may not be set to 'None' with other values")
                )
        elif address:
            errors += [fielderrors.invalid(place.index(index), address, text) for text in is_valid_ip(address)]
    if len(addresses) > 2:
        errors.append(fielderrors.invalid(place, addresses, "may only hold up to 2 values"))
    policy, families = spec.get("ipFamilyPolicy"), spec.get("ipFamilies") or []
    if policy is not None and policy not in _FAMILY_POLICIES:
        errors.append(fielderrors.not_supported(where.child("ipFamilyPolicy"), policy, _FAMILY_POLICIES))
    for index, family in enumerate(families):
        spot = where.child("ipFamilies").index(index)
        if family not in ("IPv4", "IPv6"):
            errors.append(fielderrors.not_supported(spot, family, ["IPv4", "IPv6"]))
        elif family in families[:index]:
            errors.append(fielderrors.duplicate(spot, family))
    return errors


def _external_ips(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, address in enumerate(spec.get("externalIPs") or ()):
        place = where.index(index)
        problems = is_valid_ip(address)
        if problems:
            errors += [fielderrors.invalid(place, address, text) for text in problems]
            continue
        ip = ipaddress.ip_address(address)
        for holds, detail in (
            (ip.is_unspecified, "may not be unspecified (0.0.0.0 or ::)"),
            (ip.is_loopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
            (ip.is_link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
            (ip in _LOCAL_MULTICAST, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
        ):
            if holds:
                errors.append(fielderrors.invalid(place, address, detail))
    return errors


class _Networks:
    def __init__(self, *texts: str) -> None:
        self._networks = [ipaddress.ip_network(text) for text in texts]

    def __contains__(self, ip: object) -> bool:
        return any(ip in network for network in self._networks)


_LOCAL_MULTICAST = _Networks("224.0.0.0/24", "ff02::/16")


def _source_ranges(spec: Obj, where: Path, kind: str) -> list[FieldError]:
    ranges = spec.get("loadBalancerSourceRanges") or []
    if not ranges:
        return []
    place = where.child("LoadBalancerSourceRanges")
    errors: list[FieldError] = []
    if kind != "LoadBalancer":
        errors.append(fielderrors.forbidden(place, "may only be used when `type` is 'LoadBalancer'"))
    for index, text in enumerate(ranges):
        errors += [fielderrors.invalid(place.index(index), text, problem) for problem in is_valid_cidr(text.strip())]
    return errors


def _traffic(spec: Obj, where: Path, kind: str) -> list[FieldError]:
    errors: list[FieldError] = []
    external = spec.get("externalTrafficPolicy") or ""
    exposed = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))
    place = where.child("externalTrafficPolicy")
    if not exposed:
        if external:
            errors.append(fielderrors.invalid(place, external, "may only be set for externally-accessible services"))
    elif not external:
        errors.append(fielderrors.required(place))
    elif external not in _POLICIES:
        errors.append(fielderrors.not_supported(place, external, _POLICIES))
    if spec.get("healthCheckNodePort") and not (kind == "LoadBalancer" and external == "Local"):
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.append(fielderrors.invalid(where.child("healthCheckNodePort"), spec["healthCheckNodePort"], detail))
    internal = spec.get("internalTrafficPolicy")
    if kind != "ExternalName":
        place = where.child("internalTrafficPolicy")
        if internal is None:
            errors.append(fielderrors.required(place))
        elif internal not in _POLICIES:
            errors.append(fielderrors.not_supported(place, internal, _POLICIES))
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        supported = sorted(_DISTRIBUTIONS)
        errors.append(fielderrors.not_supported(where.child("trafficDistribution"), distribution, supported))
    if kind != "LoadBalancer":
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if spec.get(field) is not None:
                detail = "may only be used when `type` is 'LoadBalancer'"
                errors.append(fielderrors.forbidden(where.child(field), detail))
    return errors


def validate_service_update(new: Obj, old: Obj) -> list[FieldError]:
    """A changed Service: its primary address stays."""
    errors: list[FieldError] = []
    after, before = new.get("spec") or {}, old.get("spec") or {}
    where = path("spec", "clusterIPs")
    if before.get("type") != "ExternalName" and after.get("type") != "ExternalName":
        was, now = (before.get("clusterIPs") or [""])[0], (after.get("clusterIPs") or [after.get("clusterIP", "")])[0]
        if was and now and was != now:
            errors.append(
                fielderrors.invalid(where.index(0), after.get("clusterIPs") or [now], "may not change once set")
            )
    balanced = before.get("type") == after.get("type") == "LoadBalancer"
    if balanced and before.get("loadBalancerClass") != after.get("loadBalancerClass"):
        place = path("spec", "loadBalancerClass")
        errors.append(fielderrors.invalid(place, after.get("loadBalancerClass"), "may not change once set"))
    return errors + validate_service(new)
