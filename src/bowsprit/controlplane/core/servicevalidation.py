"""Rules for Services (upstream ValidateService)."""

from __future__ import annotations

from typing import Any

from bowsprit.controlplane.core.endpointsvalidation import special_ip_errors
from bowsprit.controlplane.gostructs import go_value
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
_SET_ONCE = "may not change once set"
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
        for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(field):
                errors.append(fielderrors.forbidden(where.child(field), "may not be set for ExternalName services"))
        if name:
            errors += name_errors(name, where.child("externalName"), is_dns1123_subdomain)
        else:
            errors.append(fielderrors.required(where.child("externalName")))
    elif kind == "LoadBalancer":
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
        if node and kind == "ClusterIP":
            detail = "may not be used when `type` is 'ClusterIP'"
            errors.append(fielderrors.forbidden(place.child("nodePort"), detail))
        if node and (protocol, node) in node_ports:
            errors.append(fielderrors.duplicate(place.child("nodePort"), node))
        node_ports.add((protocol, node))
        if (protocol, number) in keys:
            key = go_value("ServicePort", {"protocol": protocol, "port": number})
            errors.append(fielderrors.duplicate(place, key))
        keys.add((protocol, number))
    return errors


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
    if (application := port.get("appProtocol")) is not None:
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
    """Upstream ValidateServiceClusterIPsRelatedFields."""
    if spec.get("type") == "ExternalName":
        return []
    errors: list[FieldError] = []
    one, many, place = spec.get("clusterIP") or "", spec.get("clusterIPs") or [], where.child("clusterIPs")
    if one and many and many[0] != one:
        errors.append(fielderrors.invalid(place, many, "first value must match `clusterIP`"))
    elif not one and many:
        errors.append(fielderrors.invalid(place, many, "must be empty when `clusterIP` is not specified"))
    errors += _families(spec, where)
    bad = False
    addresses = many or ([one] if one else [])
    for index, address in enumerate(addresses):
        if index == 0 and address == "None":
            if len(addresses) > 1:
                bad = True
                errors.append(fielderrors.invalid(place, addresses, "'None' must be the first and only value"))
            continue
        problems = name_errors(address, place.index(index), is_valid_ip)
        bad = bad or bool(problems)
        errors += problems
    if len(addresses) > 2:
        errors.append(fielderrors.invalid(place, addresses, "may only hold up to 2 values"))
    if bad:
        return errors
    if len(addresses) > 1 and len({":" in address for address in addresses}) < 2:
        errors.append(fielderrors.invalid(place, addresses, "may specify no more than one IP for each IP family"))
    if one != "None":
        for index, (address, family) in enumerate(zip(addresses, spec.get("ipFamilies") or (), strict=False)):
            if family != ("IPv6" if ":" in address else "IPv4") and family in ("IPv4", "IPv6"):
                detail = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
                errors.append(fielderrors.invalid(place.index(index), address, detail))
    return errors


def _families(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    policy, families = spec.get("ipFamilyPolicy"), spec.get("ipFamilies") or []
    for index, family in enumerate(families):
        spot = where.child("ipFamilies").index(index)
        if family not in ("IPv4", "IPv6"):
            errors.append(fielderrors.not_supported(spot, family, ["IPv4", "IPv6"]))
        if family in families[:index]:
            errors.append(fielderrors.duplicate(spot, family))
    if policy is not None and policy not in _FAMILY_POLICIES:
        errors.append(fielderrors.not_supported(where.child("ipFamilyPolicy"), policy, _FAMILY_POLICIES))
    return errors


def _external_ips(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, address in enumerate(spec.get("externalIPs") or ()):
        place = where.index(index)
        errors += name_errors(address, place, is_valid_ip) or special_ip_errors(address, place)
    return errors


def balancer_errors(status: Obj, kind: str) -> list[FieldError]:
    """A LoadBalancerStatus of a Service of this type (upstream ValidateLoadBalancerStatus)."""
    where, ingresses = path("status", "loadBalancer", "ingress"), status.get("ingress") or []
    if kind != "LoadBalancer" and ingresses:
        return [fielderrors.forbidden(where, "may only be used when `spec.type` is 'LoadBalancer'")]
    errors: list[FieldError] = []
    for index, ingress in enumerate(ingresses):
        place, address, mode = where.index(index), ingress.get("ip"), ingress.get("ipMode")
        if address:
            errors += name_errors(address, place.child("ip"), is_valid_ip)
        if mode is None and address:
            errors.append(fielderrors.required(place.child("ipMode"), "must be specified when `ip` is set"))
        elif mode is not None and not address:
            errors.append(fielderrors.forbidden(place.child("ipMode"), "may not be specified when `ip` is not set"))
        elif mode is not None and mode not in ("Proxy", "VIP"):
            errors.append(fielderrors.not_supported(place.child("ipMode"), mode, ["Proxy", "VIP"]))
        if hostname := ingress.get("hostname"):
            errors += name_errors(hostname, place.child("hostname"), is_dns1123_subdomain)
            if not is_valid_ip(hostname):
                detail = "must be a DNS name, not an IP address"
                errors.append(fielderrors.invalid(place.child("hostname"), hostname, detail))
    return errors


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
    health = spec.get("healthCheckNodePort")
    if health and kind == "LoadBalancer" and external == "Local":
        errors += [
            fielderrors.invalid(where.child("healthCheckNodePort"), health, text) for text in is_valid_port_num(health)
        ]
    elif health:
        detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        errors.append(fielderrors.invalid(where.child("healthCheckNodePort"), spec["healthCheckNodePort"], detail))
    internal, place = spec.get("internalTrafficPolicy"), where.child("internalTrafficPolicy")
    if internal is None and kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        errors.append(fielderrors.required(place))
    elif internal is not None and internal not in _POLICIES:
        errors.append(fielderrors.not_supported(place, internal, _POLICIES))
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        errors.append(fielderrors.not_supported(where.child("trafficDistribution"), distribution, _DISTRIBUTIONS))
    if kind != "LoadBalancer":
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if spec.get(field) is not None:
                detail = "may only be used when `type` is 'LoadBalancer'"
                errors.append(fielderrors.forbidden(where.child(field), detail))
    elif (name := spec.get("loadBalancerClass")) is not None:
        errors += name_errors(name, where.child("loadBalancerClass"), is_qualified_name)
    return errors


def validate_service_update(new: Obj, old: Obj) -> list[FieldError]:
    """A changed Service: its primary address and family stay."""
    after, before, where = new.get("spec") or {}, old.get("spec") or {}, path("spec")
    if errors := _cluster_ips(after, where):
        return errors  # what addresses cannot be allocated for is looked at no further
    if "ExternalName" not in (before.get("type"), after.get("type")):
        was, now = ((spec.get("clusterIPs") or [None])[0] == "None" for spec in (before, after))
        if not (was and now):
            errors += _dual_stack_change(before, after, "clusterIPs", "clusterIP", where)
        if was == now:
            errors += _dual_stack_change(before, after, "ipFamilies", "ipFamily", where)
    balanced = before.get("type") == after.get("type") == "LoadBalancer"
    if balanced and before.get("loadBalancerClass") != after.get("loadBalancerClass"):
        place = path("spec", "loadBalancerClass")
        errors.append(fielderrors.invalid(place, after.get("loadBalancerClass"), _SET_ONCE))
    moved = before.get("healthCheckNodePort") != after.get("healthCheckNodePort")
    if moved and _checks_health(before) and _checks_health(after):
        errors.append(fielderrors.forbidden(path("spec", "healthCheckNodePort"), "field is immutable"))
    return errors + validate_service(new)


def _dual_stack_change(before: Obj, after: Obj, field: str, one: str, where: Path) -> list[FieldError]:
    """A second address or family may come and go, the first stays."""
    was, now, place = before.get(field) or [], after.get(field) or [], where.child(field)
    if len(was) == len(now):
        return [
            fielderrors.invalid(place.index(index if field == "clusterIPs" else 0), now, _SET_ONCE)
            for index, (old, new) in enumerate(zip(was, now, strict=True))
            if old != new
        ]
    errors: list[FieldError] = []
    if not after.get("clusterIPs") and len(was) > len(now):
        errors.append(fielderrors.invalid(place.index(0), now or None, f"primary {one} can not be unset"))
    if was and now and was[0] != now[0]:
        errors.append(fielderrors.invalid(place.index(0), after.get("clusterIPs"), _SET_ONCE))
    if len(was) > len(now) == 1 and after.get("ipFamilyPolicy") != "SingleStack":
        detail = f"must be set to 'SingleStack' when releasing the secondary {one}"
        errors.append(fielderrors.invalid(where.child("ipFamilyPolicy"), after.get("ipFamilyPolicy"), detail))
    return errors


def _checks_health(spec: Obj) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"
