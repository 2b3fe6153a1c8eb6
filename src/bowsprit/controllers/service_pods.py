"""Which pods stand behind a service, on which ports: shared by endpoints and endpoint slices. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from bowsprit.controllers.pods import is_deleting, is_ready, phase
from bowsprit.machinery.objects import Obj, labels, nested
from bowsprit.machinery.selectors import LabelSelector

HEADLESS_LABEL = "service.kubernetes.io/headless"
CHANGE_TIME = "endpoints.kubernetes.io/last-change-trigger-time"


def selects(service: Obj, pod: Obj) -> bool:
    """Whether the service's selector matches the pod; a service without selector selects nothing."""
    selector = service["spec"].get("selector")
    return bool(selector) and LabelSelector.from_labels(selector).matches(labels(pod))


def has_endpoints(service: Obj) -> bool:
    """Whether controllers make endpoints for the service: it has a selector and is not an alias of a DNS name."""
    return bool(service["spec"].get("selector")) and service["spec"].get("type") != "ExternalName"


def is_headless(service: Obj) -> bool:
    """``clusterIP: None``, or none at all with no type that needs one."""
    return service["spec"].get("clusterIP") in (None, "", "None")


def eligible(pods: Iterable[Obj], *, terminating: bool) -> list[Obj]:
    """Pods with an address that have not finished (and, unless asked for, are not being deleted)."""
    return [
        pod
        for pod in pods
        if addresses(pod) and phase(pod) not in ("Succeeded", "Failed") and (terminating or not is_deleting(pod))
    ]


def addresses(pod: Obj) -> list[str]:
    """The pod's IPs."""
    listed = [item["ip"] for item in nested(pod, "status", "podIPs", default=[]) if item.get("ip")]
    single = nested(pod, "status", "podIP")
    return listed or ([single] if single else [])


def address_of_family(pod: Obj, family: str) -> str | None:
    """The pod's first IP of ``IPv4`` or ``IPv6``."""
    return next((ip for ip in addresses(pod) if (":" in ip) == (family == "IPv6")), None)


def families(service: Obj) -> list[str]:
    """The IP families the service is for."""
    listed = service["spec"].get("ipFamilies")
    if listed:
        return list(listed)
    return ["IPv6" if ":" in (service["spec"].get("clusterIP") or "") else "IPv4"]


def target_port(pod: Obj, port: Obj) -> int | None:
    """The number of a service port in a pod; None if the pod has no port of that name (upstream FindPort)."""
    target = port.get("targetPort")
    if target in (None, 0, ""):
        return int(port["port"])
    if isinstance(target, int):
        return target
    containers = [*(nested(pod, "spec", "containers", default=[]))]
    containers += [
        item for item in nested(pod, "spec", "initContainers", default=[]) if item.get("restartPolicy") == "Always"
    ]
    for container in containers:
        for named in container.get("ports") or ():
            if named.get("name") == target and (named.get("protocol") or "TCP") == (port.get("protocol") or "TCP"):
                return int(named["containerPort"])
    return int(target) if str(target).isdigit() else None


def endpoint_ports(service: Obj, pod: Obj) -> list[Obj]:
    """The service's ports as this pod serves them."""
    ports = []
    for port in service["spec"].get("ports") or ():
        number = target_port(pod, port)
        if number is None:
            continue
        entry = {"name": port.get("name") or "", "port": number, "protocol": port.get("protocol") or "TCP"}
        if port.get("appProtocol"):
            entry["appProtocol"] = port["appProtocol"]
        ports.append(entry)
    return ports


def target_reference(pod: Obj) -> Obj:
    """The reference to a pod inside an endpoint."""
    meta = pod["metadata"]
    return {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}


def hostname(service: Obj, pod: Obj) -> str:
    """The DNS name of the pod under a service that is its subdomain."""
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        return str(spec["hostname"])
    return ""


def counts_as_ready(service: Obj, pod: Obj) -> bool:
    """Whether traffic may go to the pod."""
    if service["spec"].get("publishNotReadyAddresses"):
        return True
    return is_ready(pod) and not is_deleting(pod)
