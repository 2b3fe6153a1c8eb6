"""Services: defaults, columns; addresses and ports come from `core.serviceallocation`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from bowsprit.apiserver.request import RequestContext
from bowsprit.controlplane.core.servicevalidation import balancer_errors, validate_service, validate_service_update
from bowsprit.controlplane.core.servicewarnings import service_warnings
from bowsprit.controlplane.printing import NONE, age_of, labels_text, name_of
from bowsprit.controlplane.statused import StatusedStrategy, StatusStrategy, copy_field
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_label


class ServiceStrategy(StatusedStrategy):
    """The main endpoint; services have no generation."""

    deletes_to_object = True
    allow_create_on_update = True
    has_generation = False
    empty_status: ClassVar[Obj] = {"loadBalancer": {}}

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        kind = spec.get("type") or "ClusterIP"
        spec["type"] = kind
        if not spec.get("sessionAffinity"):
            spec["sessionAffinity"] = "None"
        if spec["sessionAffinity"] == "None":
            spec.pop("sessionAffinityConfig", None)
        elif spec["sessionAffinity"] == "ClientIP":
            config = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
            if config.get("timeoutSeconds") is None:
                config["timeoutSeconds"] = 10800
        for port in spec.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"
            if port.get("targetPort") in (None, 0, ""):
                port["targetPort"] = port.get("port", 0)
        external = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs"))
        if external and not spec.get("externalTrafficPolicy"):
            spec["externalTrafficPolicy"] = "Cluster"
        if kind != "ExternalName" and spec.get("internalTrafficPolicy") is None:
            spec["internalTrafficPolicy"] = "Cluster"
        if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is None:
            spec["allocateLoadBalancerNodePorts"] = True

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {"loadBalancer": {}}

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        copy_field(new, old, "status")
        keep_allocations(new, old)

    def canonicalize(self, obj: Obj) -> None:
        if obj["spec"].get("type") == "ExternalName":
            obj["spec"].pop("internalTrafficPolicy", None)

    def validate_name(self, name: str) -> list[str]:
        return is_dns1123_label(name)

    def validate(self, obj: Obj) -> list[FieldError]:
        return validate_service(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return validate_service_update(new, old)

    def warnings(self, obj: Obj, old: Obj | None) -> list[str]:
        return service_warnings(obj)

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset({"spec.clusterIP", "spec.type"})

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        spec = obj.get("spec") or {}
        return {"spec.clusterIP": spec.get("clusterIP") or "", "spec.type": spec.get("type") or ""}


def keep_allocations(new: Obj, old: Obj) -> None:
    """What an update may leave out stays as it was allocated (upstream patchAllocatedValues); what a new type has no use for
    goes if it was not changed as well (dropTypeDependentFields)."""
    after, before = new["spec"], old["spec"]
    if before.get("type") != "ExternalName" and after.get("type") != "ExternalName":
        if not after.get("clusterIP"):
            copy_field(after, before, "clusterIP")
        if not after.get("clusterIPs") and after.get("clusterIP") == before.get("clusterIP"):
            copy_field(after, before, "clusterIPs")
    if _needs_node_ports(before) and _needs_node_ports(after):
        held = {(port.get("protocol"), port.get("port")): port.get("nodePort") for port in before.get("ports") or ()}
        for port in after.get("ports") or ():
            number = held.get((port.get("protocol"), port.get("port")))
            if not port.get("nodePort") and number:
                port["nodePort"] = number
    if _needs_health_port(before) and _needs_health_port(after) and not after.get("healthCheckNodePort"):
        copy_field(after, before, "healthCheckNodePort")
    _sync_addresses(after, before)
    _drop_unused(after, before)
    if after.get("type") != "LoadBalancer":
        new["status"]["loadBalancer"] = {}


def _sync_addresses(after: Obj, before: Obj) -> None:
    """Upstream normalizeClusterIPs: who changes the one address means the first of them."""
    one, many = after.get("clusterIP") or "", after.get("clusterIPs") or []
    if one != (before.get("clusterIP") or "") and many == (before.get("clusterIPs") or []):
        if not one:
            after.pop("clusterIPs", None)
        elif many:
            after["clusterIPs"] = [one, *many[1:]]


def _drop_unused(after: Obj, before: Obj) -> None:
    if before.get("type") != "ExternalName" and after.get("type") == "ExternalName":
        if all(after.get(field) == before.get(field) for field in ("clusterIP", "clusterIPs")):
            after.pop("clusterIP", None)
            after.pop("clusterIPs", None)
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if after.get(field) == before.get(field):
                after.pop(field, None)
    if _needs_node_ports(before) and not _needs_node_ports(after):
        numbers = {port.get("nodePort") for port in before.get("ports") or ()}
        if all(port.get("nodePort") in numbers or not port.get("nodePort") for port in after.get("ports") or ()):
            for port in after.get("ports") or ():
                port.pop("nodePort", None)
    balanced = before.get("type") == "LoadBalancer" and after.get("type") != "LoadBalancer"
    for field, unused in (
        ("healthCheckNodePort", _needs_health_port(before) and not _needs_health_port(after)),
        ("allocateLoadBalancerNodePorts", balanced),
        ("loadBalancerClass", balanced),
        ("externalTrafficPolicy", _is_exposed(before) and not _is_exposed(after)),
    ):
        if unused and after.get(field) == before.get(field):
            after.pop(field, None)


def _is_exposed(spec: Obj) -> bool:
    """Upstream ExternallyAccessible."""
    kind = spec.get("type")
    return kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def _needs_node_ports(spec: Obj) -> bool:
    return spec.get("type") == "NodePort" or (
        spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
    )


def _needs_health_port(spec: Obj) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


class ServiceStatusStrategy(StatusStrategy):
    """``/status``: the addresses that a load balancer has."""

    def default(self, obj: Obj) -> None:
        super().default(obj)
        for ingress in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            if ingress.get("ip") and ingress.get("ipMode") is None and obj["spec"].get("type") == "LoadBalancer":
                ingress["ipMode"] = "VIP"

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return balancer_errors((new.get("status") or {}).get("loadBalancer") or {}, new["spec"].get("type", ""))


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Type, Cluster-IP, External-IP, Port(s), Age, Selector (upstream printService)."""
    spec = obj.get("spec") or {}
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    return [
        name_of(obj),
        spec.get("type", ""),
        addresses[0] if addresses else NONE,
        _external(obj, spec),
        _ports(spec.get("ports")) or NONE,
        age_of(obj, now),
        labels_text(spec.get("selector")),
    ]


def _external(obj: Obj, spec: Obj) -> str:
    kind, external = spec.get("type"), list(spec.get("externalIPs") or ())
    if kind == "ExternalName":
        return str(spec.get("externalName") or NONE)
    if kind == "LoadBalancer":
        ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        found = list(dict.fromkeys(item.get("ip") or item.get("hostname") or "" for item in ingress))
        return ",".join(item for item in [*found, *external] if item) or "<pending>"
    return ",".join(external) or NONE


def _ports(ports: list[Obj] | None) -> str:
    texts = []
    for port in ports or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        texts.append(f"{port.get('port', 0)}{node}/{port.get('protocol', '')}")
    return ",".join(texts)
