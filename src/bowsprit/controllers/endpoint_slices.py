"""EndpointSlices: what a service's slices should say and the least writes to get there. No I/O.

Upstream: k8s.io/endpointslice reconciler.go and utils.go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from bowsprit.controllers import service_pods
from bowsprit.controllers.pods import is_deleting, is_ready
from bowsprit.controllers.service_pods import HEADLESS_LABEL
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj, labels, nested, new_controller_ref, owner_references

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
MIRRORING = "endpointslicemirroring-controller.k8s.io"
MAX_ENDPOINTS = 100
_ZONE = "topology.kubernetes.io/zone"
_RESERVED = frozenset({SERVICE_NAME, MANAGED_BY, HEADLESS_LABEL})


@dataclass(slots=True)
class Group:
    """Endpoints of one address family that share their ports."""

    address_type: str
    ports: list[Obj]
    endpoints: list[Obj] = field(default_factory=list)


@dataclass(slots=True)
class Changes:
    """Writes to make."""

    create: list[Obj] = field(default_factory=list)
    update: list[Obj] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)


def pod_groups(service: Obj, pods: Iterable[Obj], zones: dict[str, str]) -> list[Group]:
    """What the pods behind a service add up to; ``zones`` maps node names to zones."""
    groups: dict[tuple[str, str], Group] = {}
    chosen = service_pods.eligible(pods, terminating=True)
    for family in service_pods.families(service):
        for pod in chosen:
            ip = service_pods.address_of_family(pod, family)
            if ip is None:
                continue
            ports = service_pods.endpoint_ports(service, pod)
            group = groups.setdefault((family, _port_key(ports)), Group(family, ports))
            group.endpoints.append(_endpoint(service, pod, ip, zones))
        if not any(key[0] == family for key in groups):
            groups[family, ""] = Group(family, [])  # a placeholder says: looked at, nothing there
    return list(groups.values())


def _endpoint(service: Obj, pod: Obj, ip: str, zones: dict[str, str]) -> Obj:
    endpoint: Obj = {
        "addresses": [ip],
        "conditions": {
            "ready": service_pods.counts_as_ready(service, pod),
            "serving": is_ready(pod),
            "terminating": is_deleting(pod),
        },
        "targetRef": service_pods.target_reference(pod),
    }
    node = nested(pod, "spec", "nodeName")
    if node:
        endpoint["nodeName"] = node
        if zones.get(node):
            endpoint["zone"] = zones[node]
    if name := service_pods.hostname(service, pod):
        endpoint["hostname"] = name
    return endpoint


def slice_labels(owner: Obj, service_name: str, managed_by: str, headless: bool) -> dict[str, str]:
    """The labels of a slice: the owner's, and what consumers select by."""
    result = {key: value for key, value in labels(owner).items() if key not in _RESERVED}
    if headless:
        result[HEADLESS_LABEL] = ""
    return {**result, SERVICE_NAME: service_name, MANAGED_BY: managed_by}


@dataclass(frozen=True, slots=True)
class SliceMaker:
    """Makes slices for one owner."""

    owner: Obj
    gvk: GroupVersionKind
    labels: dict[str, str]

    def make(self, group: Group, endpoints: list[Obj]) -> Obj:
        """A new slice."""
        meta = self.owner["metadata"]
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": f"{meta['name']}-",
                "namespace": meta["namespace"],
                "labels": self.labels,
                "ownerReferences": [new_controller_ref(self.owner, self.gvk)],
            },
            "addressType": group.address_type,
            "ports": group.ports,
            "endpoints": endpoints,
        }


def reconcile(maker: SliceMaker, groups: list[Group], existing: list[Obj]) -> Changes:
    """Compare with the slices that exist: keep what is right, fill gaps, and touch as few slices as possible.

    Slices that would go are written over rather than deleted beside new ones: a reader never sees both.
    """
    changes = Changes()
    left = {
        (item["addressType"], _port_key(item.get("ports") or []), item["metadata"]["name"]): item for item in existing
    }
    for group in groups:
        key = (group.address_type, _port_key(group.ports))
        mine = [left.pop(full) for full in list(left) if full[:2] == key]
        _reconcile_group(maker, group, mine, changes)
    changes.delete.extend(left.values())
    _reuse(changes)
    return changes


def _reuse(changes: Changes) -> None:
    for new in list(changes.create):
        for old in changes.delete:
            same_owner = owner_references(new)[0]["uid"] in {owner["uid"] for owner in owner_references(old)}
            if same_owner and old["addressType"] == new["addressType"]:  # which can't be changed
                changes.delete.remove(old)
                changes.create.remove(new)
                changes.update.append({**new, "metadata": {**old["metadata"], "labels": new["metadata"]["labels"]}})
                break


def _reconcile_group(maker: SliceMaker, group: Group, existing: list[Obj], changes: Changes) -> None:
    wanted = {_identity(endpoint): endpoint for endpoint in group.endpoints}
    contents: list[tuple[Obj, list[Obj]]] = []
    for item in existing:
        kept = [wanted.pop(key) for old in item.get("endpoints") or [] if (key := _identity(old)) in wanted]
        contents.append((item, kept))
    remaining = list(wanted.values())
    for _, kept in sorted(contents, key=lambda entry: -len(entry[1])):  # fill the fullest first
        room = MAX_ENDPOINTS - len(kept)
        if remaining and room > 0 and (kept or len(contents) == 1):
            kept.extend(remaining[:room])
            del remaining[:room]
    for item, kept in contents:
        if not kept and (group.endpoints or item is not existing[0]):
            changes.delete.append(item)
        elif kept != (item.get("endpoints") or []) or labels(item) != maker.labels:
            meta = {**item["metadata"], "labels": maker.labels}
            changes.update.append({**item, "metadata": meta, "endpoints": kept})
    if not group.endpoints and not existing:
        changes.create.append(maker.make(group, []))
    for start in range(0, len(remaining), MAX_ENDPOINTS):
        changes.create.append(maker.make(group, remaining[start : start + MAX_ENDPOINTS]))


def _identity(endpoint: Obj) -> tuple[str, str]:
    return (json.dumps(endpoint.get("addresses")), (endpoint.get("targetRef") or {}).get("uid") or "")


def _port_key(ports: list[Obj]) -> str:
    cleaned = [{key: value for key, value in port.items() if value not in (None, "")} for port in ports]
    return (
        json.dumps(sorted(cleaned, key=lambda port: json.dumps(port, sort_keys=True)), sort_keys=True)
        if cleaned
        else ""
    )


def mirrored_groups(endpoints: Obj) -> list[Group]:
    """The groups that a hand-made Endpoints object stands for (at most 1000 addresses per subset)."""
    groups: dict[tuple[str, str], Group] = {}
    for subset in endpoints.get("subsets") or ():
        ports = [{"name": "", "protocol": "TCP", **port} for port in subset.get("ports") or ()]
        listed = [(address, True) for address in subset.get("addresses") or ()]
        listed += [(address, False) for address in subset.get("notReadyAddresses") or ()]
        for address, ready in listed[:1000]:
            family = "IPv6" if ":" in address["ip"] else "IPv4"
            endpoint: Obj = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
            for name in ("hostname", "nodeName", "targetRef"):
                if address.get(name):
                    endpoint[name] = address[name]
            groups.setdefault((family, _port_key(ports)), Group(family, ports)).endpoints.append(endpoint)
    return list(groups.values())
