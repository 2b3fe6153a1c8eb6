"""Rules for the networking kinds (upstream pkg/apis/networking/validation)."""

from __future__ import annotations

import ipaddress
from typing import Any

from bowsprit.controlplane.labelrules import domain_path_errors, name_errors, selector_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import (
    is_dns1123_label,
    is_dns1123_subdomain,
    is_valid_cidr,
    is_valid_ip,
    is_valid_path_segment_name,
    is_valid_port_name,
    is_valid_port_num,
    is_wildcard_dns1123_subdomain,
)

_PROTOCOLS = ["TCP", "UDP", "SCTP"]
_PATH_TYPES = ["Exact", "ImplementationSpecific", "Prefix"]
_BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_BAD_SUFFIXES = ("/..", "/.")


def network_policy_errors(obj: Obj) -> list[FieldError]:
    """A NetworkPolicy."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = selector_errors(spec.get("podSelector") or {}, where.child("podSelector"))
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(direction) or ()):
            place = where.child(direction).index(index)
            for number, port in enumerate(rule.get("ports") or ()):
                errors += _policy_port(port, place.child("ports").index(number))
            for number, peer in enumerate(rule.get(peers) or ()):
                errors += _peer(peer, place.child(peers).index(number))
    types = spec.get("policyTypes") or []
    if len(types) > 2:
        errors.append(
            fielderrors.invalid(where.child("policyTypes"), types, "may not specify more than two policyTypes")
        )
        return errors
    for index, kind in enumerate(types):
        if kind not in ("Ingress", "Egress"):
            errors.append(
                fielderrors.not_supported(where.child("policyTypes").index(index), kind, ["Ingress", "Egress"])
            )
    return errors


def _policy_port(port: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    protocol, number, end = port.get("protocol"), port.get("port"), port.get("endPort")
    if protocol is not None and protocol not in _PROTOCOLS:
        errors.append(fielderrors.not_supported(where.child("protocol"), protocol, _PROTOCOLS))
    if number is not None:
        rule: Any = is_valid_port_name if isinstance(number, str) else is_valid_port_num
        errors += [fielderrors.invalid(where.child("port"), number, text) for text in rule(number)]
        if end is not None:
            if isinstance(number, str):
                detail = "may not be specified when `port` is non-numeric"
                errors.append(fielderrors.invalid(where.child("endPort"), end, detail))
            else:
                errors += [fielderrors.invalid(where.child("endPort"), end, text) for text in is_valid_port_num(end)]
                if end < number:
                    detail = "must be greater than or equal to `port`"
                    errors.append(fielderrors.invalid(where.child("endPort"), number, detail))
    elif end is not None:
        errors.append(
            fielderrors.invalid(where.child("endPort"), end, "may not be specified when `port` is not specified")
        )
    return errors


def _peer(peer: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    kinds = [kind for kind in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(kind) is not None]
    for kind in ("podSelector", "namespaceSelector"):
        errors += selector_errors(peer.get(kind), where.child(kind))
    if (block := peer.get("ipBlock")) is not None:
        errors += _block(block, where.child("ipBlock"))
    if not kinds:
        errors.append(fielderrors.required(where, "must specify a peer"))
    elif "ipBlock" in kinds and len(kinds) > 1:
        errors.append(fielderrors.forbidden(where, "may not specify both ipBlock and another peer"))
    return errors


def _block(block: Obj, where: Path) -> list[FieldError]:
    cidr = block.get("cidr", "")
    if not cidr:
        return [fielderrors.required(where.child("cidr"))]
    problems = [fielderrors.invalid(where.child("cidr"), cidr, text) for text in is_valid_cidr(cidr)]
    if problems:
        return problems
    network = ipaddress.ip_network(cidr, strict=False)
    errors: list[FieldError] = []
    for index, text in enumerate(block.get("except") or ()):
        place = where.child("except").index(index)
        bad = is_valid_cidr(text)
        errors += [fielderrors.invalid(place, text, problem) for problem in bad]
        if not bad:
            inner = ipaddress.ip_network(text, strict=False)
            same = inner.version == network.version
            if not same or not inner.subnet_of(network) or inner.prefixlen == network.prefixlen:  # type: ignore[arg-type]
                errors.append(fielderrors.invalid(place, text, "must be a strict subset of `cidr`"))
    return errors


def ingress_errors(obj: Obj) -> list[FieldError]:
    """An Ingress."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    rules, default = spec.get("rules") or [], spec.get("defaultBackend")
    if not rules and default is None:
        detail = "either `defaultBackend` or `rules` must be specified"
        errors.append(fielderrors.invalid(where, rules or None, detail))
    if default is not None:
        errors += _backend(default, where.child("defaultBackend"))
    for index, rule in enumerate(rules):
        place, host = where.child("rules").index(index), rule.get("host", "")
        if host:
            problems = is_valid_ip(host)
            if not problems:
                errors.append(fielderrors.invalid(place.child("host"), host, "must be a DNS name, not an IP address"))
            rule_of = is_wildcard_dns1123_subdomain if "*" in host else is_dns1123_subdomain
            errors += name_errors(host, place.child("host"), rule_of)
        if (http := rule.get("http")) is not None:
            paths = http.get("paths") or []
            if not paths:
                errors.append(fielderrors.required(place.child("http", "paths")))
            for number, item in enumerate(paths):
                errors += _path(item, place.child("http", "paths").index(number))
    for index, tls in enumerate(spec.get("tls") or ()):
        for number, host in enumerate(tls.get("hosts") or ()):
            rule_of = is_wildcard_dns1123_subdomain if "*" in host else is_dns1123_subdomain
            errors += name_errors(host, where.child("tls").index(index).child("hosts").index(number), rule_of)
        if tls.get("secretName"):
            errors += name_errors(
                tls["secretName"], where.child("tls").index(index).child("secretName"), is_dns1123_subdomain
            )
    if spec.get("ingressClassName"):
        errors += name_errors(spec["ingressClassName"], where.child("ingressClassName"), is_dns1123_subdomain)
    return errors


def _path(item: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    kind, text = item.get("pathType"), item.get("path", "")
    if kind is None:
        return [fielderrors.required(where.child("pathType"), "pathType must be specified")]
    if kind not in _PATH_TYPES:
        errors.append(fielderrors.not_supported(where.child("pathType"), kind, _PATH_TYPES))
    elif kind in ("Exact", "Prefix"):
        place = where.child("path")
        if not text.startswith("/"):
            errors.append(fielderrors.invalid(place, text, "must be an absolute path"))
        for bad in _BAD_SEQUENCES:
            if bad in text:
                errors.append(fielderrors.invalid(place, text, f"must not contain '{bad}'"))
        for bad in _BAD_SUFFIXES:
            if text.endswith(bad):
                errors.append(fielderrors.invalid(place, text, f"cannot end with '{bad}'"))
    elif text and not text.startswith("/"):
        errors.append(fielderrors.invalid(where.child("path"), text, "must be an absolute path"))
    return errors + _backend(item.get("backend") or {}, where.child("backend"))


def _backend(backend: Obj, where: Path) -> list[FieldError]:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        detail = "cannot set both resource and service backends"
        return [fielderrors.invalid(where, "", detail)]
    if resource is not None:
        place, group = where.child("resource"), resource.get("apiGroup")
        errors = name_errors(group, place.child("apiGroup"), is_dns1123_subdomain) if group is not None else []
        return errors + _segment_errors(resource, place, required=("kind", "name"))
    if service is None:
        return [fielderrors.invalid(where, "", "resource or service backend is required")]
    errors = []
    name, port = service.get("name", ""), service.get("port") or {}
    if not name:
        errors.append(fielderrors.required(where.child("service", "name")))
    else:
        errors += name_errors(name, where.child("service", "name"), is_dns1123_label)
    place = where.child("service", "port")
    if port.get("name") and port.get("number"):
        errors.append(fielderrors.invalid(where, "", "cannot set both port name & port number"))
    elif port.get("name"):
        errors += [
            fielderrors.invalid(place.child("name"), port["name"], text) for text in is_valid_port_name(port["name"])
        ]
    elif port.get("number"):
        errors += [
            fielderrors.invalid(place.child("number"), port["number"], text)
            for text in is_valid_port_num(port["number"])
        ]
    else:
        errors.append(fielderrors.required(where, "port name or number is required"))
    return errors


def ip_address_errors(obj: Obj) -> list[FieldError]:
    """An IPAddress: the name is the address, and it belongs to something."""
    parent, place = (obj.get("spec") or {}).get("parentRef"), path("spec", "parentRef")
    if parent is None:
        return [fielderrors.required(place)]
    errors: list[FieldError] = []
    if parent.get("group"):
        errors += name_errors(parent["group"], place.child("group"), is_dns1123_subdomain)
    return errors + _segment_errors(parent, place, required=("resource", "name"), optional=("namespace",))


def _segment_errors(
    reference: Obj, where: Path, *, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> list[FieldError]:
    """Members of a reference that are parts of paths."""
    errors: list[FieldError] = []
    for field in (*required, *optional):
        if reference.get(field):
            errors += name_errors(reference[field], where.child(field), is_valid_path_segment_name)
        elif field in required:
            errors.append(fielderrors.required(where.child(field)))
    return errors


def service_cidr_errors(obj: Obj) -> list[FieldError]:
    """A ServiceCIDR: one range, or one of each family."""
    cidrs, where = (obj.get("spec") or {}).get("cidrs") or [], path("spec", "cidrs")
    if not cidrs:
        return [fielderrors.required(where, "at least one CIDR required")]
    if len(cidrs) > 2:
        detail = "may only hold up to 2 values"
        return [fielderrors.invalid(where, {"CIDRs": cidrs}, detail)]
    errors: list[FieldError] = []
    for index, cidr in enumerate(cidrs):
        errors += [fielderrors.invalid(where.index(index), cidr, text) for text in is_valid_cidr(cidr)]
    if len(cidrs) == 2 and (":" in cidrs[0]) == (":" in cidrs[1]):
        errors.append(
            fielderrors.invalid(
                where, cidrs, "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
            )
        )
    return errors


_LONGEST_CONTROLLER = 250


def ingress_class_errors(obj: Obj) -> list[FieldError]:
    """An IngressClass."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    controller = spec.get("controller", "")
    if len(controller) > _LONGEST_CONTROLLER:
        errors.append(fielderrors.too_long(where.child("controller"), _LONGEST_CONTROLLER))
    errors += domain_path_errors(controller, where.child("controller"))
    parameters, place = spec.get("parameters"), where.child("parameters")
    if parameters is None:
        return errors
    if parameters.get("apiGroup") is not None:
        errors += name_errors(parameters["apiGroup"], place.child("apiGroup"), is_dns1123_subdomain)
    errors += _segment_errors(parameters, place, required=("kind", "name"))
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope is None:
        errors.append(fielderrors.required(place.child("scope")))
    elif scope not in ("Cluster", "Namespace"):
        errors.append(fielderrors.not_supported(place.child("scope"), scope, ["Cluster", "Namespace"]))
    elif scope == "Cluster" and namespace is not None:
        detail = "`parameters.scope` is set to 'Cluster'"
        errors.append(fielderrors.forbidden(place.child("namespace"), detail))
    elif scope == "Namespace" and namespace is None:
        errors.append(fielderrors.required(place.child("namespace"), "`parameters.scope` is set to 'Namespace'"))
    elif scope == "Namespace":
        errors += name_errors(namespace, place.child("namespace"), is_dns1123_label)
    return errors
