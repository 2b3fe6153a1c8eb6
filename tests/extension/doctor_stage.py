"""The objects around a server, written by hand, so that a test can break any one of them."""

from __future__ import annotations

import datetime
import uuid
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

from serving_apps import eventually

from bowsprit.client.resources import ENDPOINT_SLICES, PODS, SECRETS, SERVICE_ACCOUNTS, SERVICES
from bowsprit.client.rest import RestClient
from bowsprit.extension.apiservices import API_SERVICES, availability
from bowsprit.extension.certificates import Certificates
from bowsprit.extension.doctor.examination import CHECKS
from bowsprit.extension.doctor.finding import Finding
from bowsprit.extension.doctor.subject import Subject
from bowsprit.extension.registration import host_address
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass
class Stage:
    """One group with its objects in namespace default; all is well unless a field says otherwise."""

    admin: RestClient
    name: str = field(default_factory=lambda: f"d{uuid.uuid4().hex[:6]}")
    made: list[tuple[GroupVersionResource, str, str | None]] = field(default_factory=list)

    @property
    def group(self) -> str:
        return f"{self.name}.example.com"

    def certificates(self, **options: Any) -> Certificates:
        return Certificates.make(self.name, "default", **options)

    async def put(self, gvr: GroupVersionResource, obj: Obj) -> Obj:
        meta = obj["metadata"]
        self.made.append((gvr, meta["name"], meta.get("namespace")))
        return await self.admin.create(gvr, obj)

    async def service(self, *, port: int = 443, port_name: str = "https", selector: bool = False) -> None:
        ports = [{"name": port_name, "port": port, "protocol": "TCP"}]
        spec: Obj = {"ports": ports, **({"selector": {"app": self.name}} if selector else {})}
        meta = {"name": self.name, "namespace": "default"}
        await self.put(SERVICES, {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})

    async def slice(self, port: int, *, port_name: str = "https", ready: bool = True) -> None:
        meta = {
            "name": self.name,
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": self.name, "endpointslice.kubernetes.io/managed-by": "test"},
        }
        address = host_address(self.admin.config.server)
        await self.put(
            ENDPOINT_SLICES,
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": meta,
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}],
                "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
            },
        )

    async def api_service(self, certificates: Certificates | None, *, port: int = 443, version: str = "v1") -> None:
        spec: Obj = {
            "group": self.group,
            "version": version,
            "service": {"name": self.name, "namespace": "default", "port": port},
            "groupPriorityMinimum": 1000,
            "versionPriority": 15,
        }
        if certificates is not None:
            spec["caBundle"] = b64encode(certificates.bundle).decode()
        else:
            spec["insecureSkipTLSVerify"] = True
        kind = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
        await self.put(API_SERVICES, {**kind, "metadata": {"name": f"{version}.{self.group}"}, "spec": spec})

    async def registered(self, port: int, certificates: Certificates, *, reason: str = "Passed", **broken: Any) -> None:
        """Everything for a server at a port, and the condition that comes of it."""
        await self.service(**broken.get("service", {}))
        await self.slice(port, **broken.get("slice", {}))
        await self.api_service(certificates, **broken.get("api_service", {}))
        await self.settled(reason)

    async def settled(self, reason: str) -> None:
        async def reached() -> bool:
            found = await self.admin.get(API_SERVICES, f"v1.{self.group}")
            return availability(found)[1] == reason

        await eventually(reached)

    async def pod(self, account: str, volumes: list[Obj] | None = None) -> None:
        """A pod of the Service that runs as an account, which is made for it."""
        meta = {"name": account, "namespace": "default"}
        await self.put(SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        spec: Obj = {
            "serviceAccountName": account,
            "containers": [{"name": "a", "image": "a"}],
            "volumes": volumes or [],
            "automountServiceAccountToken": False,
        }
        labelled = {"name": f"{self.name}-pod", "namespace": "default", "labels": {"app": self.name}}
        await self.put(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": labelled, "spec": spec})

    async def secret(self, name: str, certificate: bytes, key: bytes) -> list[Obj]:
        """A TLS Secret, and the volume that mounts it. Its type is Opaque, so that nobody checks the pair."""
        data = {"tls.crt": b64encode(certificate).decode(), "tls.key": b64encode(key).decode()}
        meta = {"name": name, "namespace": "default"}
        await self.put(SECRETS, {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})
        return [{"name": "serving", "secret": {"secretName": name}}]

    async def subject(self, **changes: Any) -> Subject:
        found = await self.admin.get(API_SERVICES, f"v1.{self.group}")
        made = await Subject.read(self.admin, found, now)
        for name, value in changes.items():
            setattr(made, name, value)
        return made

    async def check(self, name: str, **changes: Any) -> Finding:
        """One check, by its name."""
        return await CHECKS[name](await self.subject(**changes))

    async def clear(self) -> None:
        order = sorted(self.made, key=lambda each: each[0] != API_SERVICES)
        for gvr, name, namespace in order:
            answer = await self.admin.raw("DELETE", _path(gvr, name, namespace))
            assert answer.status in (200, 202, 404), answer.body


def _path(gvr: GroupVersionResource, name: str, namespace: str | None) -> str:
    from bowsprit.machinery.names import resource_path

    return resource_path(gvr, namespace or "", name)
