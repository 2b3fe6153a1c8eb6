"""The endpoints of built-in kinds that need the running server: tokens, bindings, evictions, service addresses.

What they do is in the kinds' own modules; here they get the collections and listers that they ask for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bowsprit.apiserver.collection import Collection
from bowsprit.apiserver.localclient import LocalClient
from bowsprit.apiserver.lookup import Listers
from bowsprit.apiserver.options import DeleteOptions
from bowsprit.apiserver.registry import Registry
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import ActionSubresource, Resource, Subresource, Version, Virtual
from bowsprit.controlplane.core import componentstatus
from bowsprit.controlplane.core.binding import PODS, PodBinding
from bowsprit.controlplane.core.eviction import BUDGETS, PodEviction
from bowsprit.controlplane.schemas import BuiltinSchema
from bowsprit.machinery.errors import NotFoundError, not_found
from bowsprit.machinery.names import GroupResource, GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj

BINDING = GroupVersionKind("", "v1", "Binding")
EVICTION = GroupVersionKind("policy", "v1", "Eviction")
COMPONENT_STATUSES = GroupResource("", "componentstatuses")
IP_ADDRESSES = GroupResource("networking.k8s.io", "ipaddresses")
_MANAGER = "ipallocator.k8s.io"


class PodEndpoints:
    """`pods/binding`, `pods/eviction` and the old `bindings`."""

    def __init__(self, registry: Registry, listers: Listers, client: LocalClient) -> None:
        self._registry = registry
        self._client = client
        self._binding = PodBinding(lambda: self._collection(PODS))
        self._eviction = PodEviction(
            listers, lambda: self._collection(PODS), lambda: self._collection(BUDGETS), self._delete
        )

    def subresources(self) -> dict[str, Subresource]:
        """Those of pods."""
        return {
            "binding": ActionSubresource("binding", BINDING, self._binding.bind, schema=BuiltinSchema(BINDING)),
            "eviction": ActionSubresource(
                "eviction",
                EVICTION,
                self._eviction.evict,
                schema=BuiltinSchema(EVICTION),
                accepts=frozenset({GroupVersionKind("policy", "v1beta1", "Eviction")}),
            ),
        }

    def bindings(self) -> Resource:
        """The collection `bindings`."""
        version = Version(GroupVersionResource("", "v1", "bindings"), BINDING, BuiltinSchema(BINDING))
        virtual = Virtual(create=self._binding.create)
        return Resource("Binding", "bindings", [version], verbs=("create",), virtual=virtual)

    def _collection(self, resource: GroupResource) -> Collection:
        found = self._registry.collection(resource)
        if found is None:
            raise KeyError(str(resource))
        return found

    async def _delete(self, _: RequestContext, namespace: str, name: str, options: Obj) -> None:
        await self._client.delete(PODS, namespace, name, DeleteOptions.from_obj(options))


def component_statuses(check_store: Callable[[], Awaitable[object]]) -> Virtual:
    """The collection `componentstatuses`: asked anew at every read."""

    async def get(_: RequestContext, name: str) -> Obj:
        for status in await componentstatus.probe_all(check_store):
            if status["metadata"]["name"] == name:
                return status
        raise not_found(GroupResource("", "componentstatus"), name)  # upstream says the singular

    async def read_all(_: RequestContext) -> Obj:
        items = await componentstatus.probe_all(check_store)
        return {"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": items}

    return Virtual(get=get, list=read_all)


class AddressRecords:
    """The IPAddress objects that mirror the addresses of Services (KEP-1880)."""

    def __init__(self, client: Callable[[], LocalClient]) -> None:
        self._client = client
        self._lock = asyncio.Lock()

    async def write(self, address: str, service: Obj) -> None:
        """Make the record of an address, or remove it when the service is empty."""
        async with self._lock:
            if not service:
                try:
                    await self._client().delete(IP_ADDRESSES, "", address)
                except NotFoundError:
                    return
                return
            meta = service["metadata"]
            labels = {
                "ipaddress.kubernetes.io/ip-family": "IPv6" if ":" in address else "IPv4",
                "ipaddress.kubernetes.io/managed-by": _MANAGER,
            }
            parent = {"resource": "services", "namespace": meta["namespace"], "name": meta["name"]}
            record: Obj = {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "IPAddress",
                "metadata": {"name": address, "labels": labels},
                "spec": {"parentRef": parent},
            }
            try:
                await self._client().get(IP_ADDRESSES, "", address)
            except NotFoundError:
                await self._client().create(IP_ADDRESSES, record)
