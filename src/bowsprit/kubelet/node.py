"""The Node object and the Lease of a simulated node. No I/O."""

from __future__ import annotations

import hashlib
import ipaddress
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bowsprit import __version__
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import format_micro_time, format_time

KUBELET_VERSION = "v1.36.0"
DEFAULT_CAPACITY = {"cpu": "8", "memory": "16Gi", "ephemeral-storage": "100Gi", "pods": "110"}
LEASE_SECONDS = 40
_NO_ENDPOINT = 10250  # upstream's port; nothing listens there
_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class NodeProfile:
    """What a node looks like; ``index`` chooses its addresses."""

    name: str
    index: int
    capacity: Mapping[str, str] = field(default_factory=lambda: DEFAULT_CAPACITY)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Obj, ...] = ()
    pod_network: str = "10.244.0.0/16"
    node_network: str = "172.30.0.0/16"
    kubelet_host: str = ""
    kubelet_port: int = 0

    @property
    def ip(self) -> str:
        """The node's address."""
        return str(ipaddress.ip_network(self.node_network)[self.index + 2])

    @property
    def pod_cidr(self) -> str:
        """The /24 (IPv4) of which the node's pods get their addresses."""
        network = ipaddress.ip_network(self.pod_network)
        return f"{network[(self.index * 256) % network.num_addresses]}/24"


def node_object(profile: NodeProfile, now: datetime) -> Obj:
    """The Node as a kubelet registers it, Ready from the start."""
    machine = _MACHINE.get(platform.machine(), platform.machine())
    labels = {
        "beta.kubernetes.io/arch": machine,
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine,
        "kubernetes.io/hostname": profile.name,
        "kubernetes.io/os": "linux",
        **profile.labels,
    }
    spec: Obj = {"podCIDR": profile.pod_cidr, "podCIDRs": [profile.pod_cidr]}
    if profile.taints:
        spec["taints"] = list(profile.taints)
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": profile.name,
            "labels": labels,
            "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
        },
        "spec": spec,
        "status": node_status(profile, (), now),
    }


def node_status(profile: NodeProfile, current: tuple[Obj, ...] | list[Obj], now: datetime) -> Obj:
    """The status a kubelet reports; ``current`` are the conditions so far, whose transition times are kept."""
    digest = hashlib.sha256(profile.name.encode()).hexdigest()
    uuid = f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
    return {
        "capacity": dict(profile.capacity),
        "allocatable": dict(profile.capacity),
        "conditions": node_conditions(current, now),
        "addresses": [
            {"type": "InternalIP", "address": profile.ip},
            {"type": "Hostname", "address": profile.kubelet_host or profile.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": profile.kubelet_port or _NO_ENDPOINT}},
        "nodeInfo": {
            "architecture": _MACHINE.get(platform.machine(), platform.machine()),
            "bootID": uuid,
            "containerRuntimeVersion": f"bowsprit://{__version__}",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": "",
            "kubeletVersion": KUBELET_VERSION,
            "machineID": digest[:32],
            "operatingSystem": "linux",
            "osImage": "Simulated (bowsprit)",
            "systemUUID": uuid,
        },
    }


def node_conditions(current: tuple[Obj, ...] | list[Obj], now: datetime) -> list[Obj]:
    """The kubelet's four conditions, with a fresh heartbeat; those of others stay."""
    rows = (
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    )
    known = {condition["type"]: condition for condition in current}
    moment = format_time(now)
    result = []
    for type_, status, reason, message in rows:
        old = known.pop(type_, {})
        since = old.get("lastTransitionTime") if old.get("status") == status else None
        result.append(
            {
                "type": type_,
                "status": status,
                "lastHeartbeatTime": moment,
                "lastTransitionTime": since or moment,
                "reason": reason,
                "message": message,
            }
        )
    return [*known.values(), *result]


def lease_object(node: Obj, now: datetime) -> Obj:
    """The heartbeat Lease of a node, owned by it."""
    name, uid = node["metadata"]["name"], node["metadata"]["uid"]
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": "kube-node-lease",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}],
        },
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": format_micro_time(now)},
    }


class AddressPool:
    """Pod addresses of one node: each address to one pod at a time, the least recently used first."""

    def __init__(self, cidr: str) -> None:
        self._free = [str(ip) for ip in ipaddress.ip_network(cidr).hosts()][1:]  # the first is the gateway's
        self._free.reverse()
        self._taken: dict[str, str] = {}

    def address(self, uid: str, known: str = "") -> str:
        """The address of a pod, the ``known`` one if it has one already; "" when none is left."""
        if uid not in self._taken:
            if known in self._free:
                self._free.remove(known)
                self._taken[uid] = known
            elif self._free:
                self._taken[uid] = self._free.pop()
            else:
                return ""
        return self._taken[uid]

    def release(self, uid: str) -> None:
        """The pod is gone."""
        if (address := self._taken.pop(uid, None)) is not None:
            self._free.insert(0, address)
