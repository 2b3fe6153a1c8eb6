"""Warnings about Services (upstream pkg/api/service/warnings.go)."""

from __future__ import annotations

from bowsprit.controlplane.core.addresswarnings import address_warnings, range_warnings
from bowsprit.machinery.fielderrors import path
from bowsprit.machinery.objects import Obj

_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"


def service_warnings(obj: Obj) -> list[str]:
    """What is ignored, deprecated or oddly written in a Service."""
    spec, where = obj.get("spec") or {}, path("spec")
    warnings: list[str] = []
    if _HINTS in (obj["metadata"].get("annotations") or {}):
        warnings.append(f"annotation {_HINTS} is deprecated, please use {_MODE} instead")
    external = spec.get("type") == "ExternalName"
    headless = spec.get("type") == "ClusterIP" and spec.get("clusterIP") == "None"
    if spec.get("clusterIP") not in (None, "", "None"):
        for index, address in enumerate(spec.get("clusterIPs") or ()):
            warnings += address_warnings(address, where.child("clusterIPs").index(index))
    if headless:
        for field, name in (("loadBalancerIP", "loadBalancerIP"), ("externalIPs", "externalIPs")):
            if spec.get(field):
                warnings.append(f"spec.{name} is ignored for headless services")
        if spec.get("sessionAffinity") != "None":
            warnings.append("spec.SessionAffinity is ignored for headless services")
    for index, address in enumerate(spec.get("externalIPs") or ()):
        warnings += address_warnings(address, where.child("externalIPs").index(index))
    if spec.get("externalIPs") and not headless and not external:
        warnings.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
    if spec.get("loadBalancerIP"):
        warnings += address_warnings(spec["loadBalancerIP"], where.child("loadBalancerIP"))
    for index, text in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        warnings += range_warnings(text, where.child("loadBalancerSourceRanges").index(index))
    if external and spec.get("externalIPs"):
        warnings.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if not external and spec.get("externalName"):
        warnings.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        warnings.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return warnings
