"""The objects that a control plane makes for itself at its first start and keeps in order afterwards.

RBAC roles and bindings are reconciled at every start, as upstream does: missing rules and subjects are added, extra ones
kept, unless the object says ``rbac.authorization.kubernetes.io/autoupdate: "false"``. Everything else is made when it is
missing.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bowsprit.apiserver.lookup import Listers, LocalClient
from bowsprit.controlplane.schemas import load_data
from bowsprit.machinery.errors import AlreadyExistsError, ConflictError, NotFoundError
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.time import format_micro_time

_RBAC = "rbac.authorization.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
NAMESPACES = GroupResource("", "namespaces")
SERVICES = GroupResource("", "services")
ENDPOINTS = GroupResource("", "endpoints")
SLICES = GroupResource("discovery.k8s.io", "endpointslices")
CONFIG_MAPS = GroupResource("", "configmaps")
LEASES = GroupResource("coordination.k8s.io", "leases")
CIDRS = GroupResource("networking.k8s.io", "servicecidrs")
# In the order in which they may refer to each other.
_RBAC_KINDS = {
    "ClusterRole": GroupResource(_RBAC, "clusterroles"),
    "ClusterRoleBinding": GroupResource(_RBAC, "clusterrolebindings"),
    "Role": GroupResource(_RBAC, "roles"),
    "RoleBinding": GroupResource(_RBAC, "rolebindings"),
}
_PLAIN_KINDS = {
    "PriorityClass": GroupResource("scheduling.k8s.io", "priorityclasses"),
    "PriorityLevelConfiguration": GroupResource(_FLOW, "prioritylevelconfigurations"),
    "FlowSchema": GroupResource(_FLOW, "flowschemas"),
}
_AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
# The field managers of upstream's parts.
_FLOW_PRODUCER = "api-priority-and-fairness-config-producer-v1"
_FLOW_CONSUMER = "api-priority-and-fairness-config-consumer-v1"
_CIDR_CONTROLLER = "kubernetes-service-cidr-controller"
LEASE_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class BootstrapOptions:
    """What depends on the server's settings.

    ``advertise_address`` and ``port`` are where clients inside the cluster reach it; ``service_ip`` is the first address of
    ``service_cidrs``.
    """

    advertise_address: str
    port: int
    service_cidrs: Sequence[str]
    service_ip: str
    hostname: str = "localhost"
    rbac: bool = True


class Bootstrap:
    """Makes and repairs the objects."""

    def __init__(self, client: LocalClient, listers: Listers, options: BootstrapOptions) -> None:
        self._client = client
        self._listers = listers
        self._options = options

    async def namespaces(self) -> None:
        """default and the three of the system; looked at again every minute (upstream systemnamespaces)."""
        for name in ("default", "kube-node-lease", "kube-public", "kube-system"):
            if self._listers(NAMESPACES).get("", name) is None:
                await self._create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    async def rbac(self) -> None:
        """Roles and bindings (upstream rbac/bootstrap-roles)."""
        if not self._options.rbac:
            return
        data = load_data("bootstrap")
        for kind, resource in _RBAC_KINDS.items():
            lister = self._listers(resource)
            for wanted in data[kind]:
                meta = wanted["metadata"]
                found = lister.get(meta.get("namespace", ""), meta["name"])
                if found is None:
                    await self._create(resource, deep_copy(wanted))
                elif (changed := reconciled(found, wanted)) is not None:
                    await self._update(resource, changed)

    async def plain(self) -> None:
        """Priority classes, priority levels, flow schemas."""
        data = load_data("bootstrap")
        for kind, resource in _PLAIN_KINDS.items():
            lister = self._listers(resource)
            client = self._client.named(_FLOW_PRODUCER) if resource.group == _FLOW else self._client
            for wanted in data[kind]:
                if lister.get("", wanted["metadata"]["name"]) is None:
                    obj = deep_copy(wanted)
                    obj.pop("status", None)
                    obj["metadata"].pop("generation", None)
                    await self._create(resource, obj, client)

    async def flow_schema_status(self, now: str) -> None:
        """FlowSchemas say whether their priority level exists."""
        resource = _PLAIN_KINDS["FlowSchema"]
        levels = self._listers(_PLAIN_KINDS["PriorityLevelConfiguration"])
        client = self._client.named(_FLOW_CONSUMER)
        for schema in list(self._listers(resource).list()):
            name = schema["spec"]["priorityLevelConfiguration"]["name"]
            exists = levels.get("", name) is not None
            status, reason, verb = (
                ("False", "Found", "exists") if exists else ("True", "NotFound", "there is no such object")
            )
            message = f'This FlowSchema references the PriorityLevelConfiguration object named "{name}" '
            message += f"and it {verb}" if exists else f"but {verb}"
            old: Obj = next(iter((schema.get("status") or {}).get("conditions") or ()), {})
            if (old.get("status"), old.get("reason")) != (status, reason):
                condition = {"type": "Dangling", "status": status, "lastTransitionTime": now}
                conditions = [condition | {"reason": reason, "message": message}]
                await self._apply_status(resource, schema, {"conditions": conditions}, client)

    async def service_cidr(self, now: str) -> None:
        """The default ServiceCIDR (upstream defaultservicecidr)."""
        if self._listers(CIDRS).get("", "kubernetes") is not None:
            return
        obj: Obj = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"}}
        obj["spec"] = {"cidrs": list(self._options.service_cidrs)}
        made = await self._create(CIDRS, obj)
        if made is not None:
            condition = {"type": "Ready", "status": "True", "lastTransitionTime": now}
            conditions = [condition | {"message": "Kubernetes default Service CIDR is ready"}]
            await self._apply_status(CIDRS, made, {"conditions": conditions}, self._client.named(_CIDR_CONTROLLER))

    async def kubernetes_service(self) -> None:
        """Service, Endpoints and EndpointSlice ``default/kubernetes`` (upstream kubernetesservice)."""
        port = {"name": "https", "port": self._options.port, "protocol": "TCP"}
        if self._listers(SERVICES).get("default", "kubernetes") is None:
            labels = {"component": "apiserver", "provider": "kubernetes"}
            spec = {
                "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": self._options.port}],
                "clusterIP": self._options.service_ip,
                "ipFamilyPolicy": "SingleStack",
                "type": "ClusterIP",
                "sessionAffinity": "None",
            }
            meta = {"name": "kubernetes", "namespace": "default", "labels": labels}
            await self._create(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
        if ipaddress.ip_address(self._options.advertise_address).is_loopback:
            return  # a host without a route: endpoints may not be loopback addresses
        meta = {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        }
        subsets = [{"addresses": [{"ip": self._options.advertise_address}], "ports": [port]}]
        await self._ensure(ENDPOINTS, {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta}, {"subsets": subsets})
        meta = {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}}
        family = "IPv6" if ":" in self._options.advertise_address else "IPv4"
        slice_: Obj = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": meta,
            "addressType": family,
        }
        endpoints = [{"addresses": [self._options.advertise_address], "conditions": {"ready": True}}]
        await self._ensure(SLICES, slice_, {"endpoints": endpoints, "ports": [port]})

    async def token_tracking(self, today: str) -> None:
        """Since when old-style tokens are tracked (upstream legacytokentracking)."""
        name = "kube-apiserver-legacy-service-account-token-tracking"
        if self._listers(CONFIG_MAPS).get("kube-system", name) is None:
            meta = {"name": name, "namespace": "kube-system"}
            data = {"since": today}
            await self._create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})

    async def identity_lease(self, holder: str, now: datetime) -> None:
        """Create or renew this server's Lease in kube-system (KEP-1965)."""
        digest = hashlib.sha256(self._options.hostname.encode()).hexdigest()[:26]
        name = f"apiserver-{digest}"
        spec = {"holderIdentity": holder, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": format_micro_time(now)}
        found = self._listers(LEASES).get("kube-system", name)
        if found is None:
            labels = {
                "apiserver.kubernetes.io/identity": "kube-apiserver",
                "kubernetes.io/hostname": self._options.hostname,
            }
            meta = {"name": name, "namespace": "kube-system", "labels": labels}
            obj: Obj = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
            await self._create(LEASES, obj)
        else:
            changed = deep_copy(found)
            changed["spec"] = {**(changed.get("spec") or {}), **spec}
            await self._update(LEASES, changed)

    async def _ensure(self, resource: GroupResource, obj: Obj, content: dict[str, Any]) -> None:
        meta = obj["metadata"]
        found = self._listers(resource).get(meta.get("namespace", ""), meta["name"])
        if found is None:
            await self._create(resource, obj | content)
        elif any(found.get(key) != value for key, value in content.items()):
            await self._update(resource, deep_copy(found) | content)

    async def _create(self, resource: GroupResource, obj: Obj, client: LocalClient | None = None) -> Obj | None:
        """None when another server was faster."""
        try:
            return await (client or self._client).create(resource, obj)
        except AlreadyExistsError:
            return None

    async def _update(self, resource: GroupResource, obj: Obj) -> None:
        try:
            await self._client.update(resource, obj)
        except ConflictError:
            return  # changed by another server meanwhile; the next start looks again

    @staticmethod
    async def _apply_status(resource: GroupResource, obj: Obj, status: Obj, client: LocalClient) -> None:
        try:
            await client.apply(
                resource, {"metadata": {"name": obj["metadata"]["name"]}, "status": status}, subresource="status"
            )
        except NotFoundError:
            return  # deleted meanwhile


def reconciled(found: Obj, wanted: Obj) -> Obj | None:
    """The bootstrap object with what it lacks added; None when nothing is missing or it must be left alone."""
    annotations = found["metadata"].get("annotations") or {}
    if annotations.get(_AUTOUPDATE) == "false":
        return None
    changed = deep_copy(found)
    for name in ("rules", "subjects"):
        if wanted.get(name) and not (name == "rules" and wanted.get("aggregationRule")):
            have = changed.get(name) or []
            missing = [item for item in wanted[name] if item not in have]
            if missing:
                changed[name] = have + missing
    if wanted.get("aggregationRule") and not changed.get("aggregationRule"):
        changed["aggregationRule"] = deep_copy(wanted["aggregationRule"])
    for name in ("labels", "annotations"):
        for key, value in (wanted["metadata"].get(name) or {}).items():
            changed["metadata"].setdefault(name, {}).setdefault(key, value)
    return None if changed == found else changed
