"""The core server's objects, for admission plugins: informers behind the generic library's listers."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence

from bowsprit.apiserver.admission.lifecycle import NAMESPACES
from bowsprit.apiserver.lookup import Lister
from bowsprit.apiserver.registry import Registry
from bowsprit.client.discovery import DiscoveryClient, RestMapper
from bowsprit.client.errors import ClientError
from bowsprit.client.informer import Handler, Informer
from bowsprit.client.rest import RestClient
from bowsprit.machinery.errors import NotFoundError, StatusError
from bowsprit.machinery.names import GroupResource, GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj

logger = logging.getLogger("bowsprit.extension")

_LOOKUP_SECONDS = 5.0
_FOUND_NAMESPACES = 256
_MOST_PARAM_KINDS = 64


class InformerLister:
    """An informer as a Lister; `version` changes with its content."""

    def __init__(self, informer: Informer) -> None:
        self.informer = informer
        self.version = 0
        self.found: OrderedDict[str, Obj] = OrderedDict()  # read past the informer, until it has them too
        informer.add_handler(Handler(lambda obj, _: self._change(obj), lambda _, obj: self._change(obj), self._change))

    def _change(self, obj: Obj) -> None:
        self.version += 1
        self.found.pop(obj["metadata"]["name"], None)

    def get(self, namespace: str, name: str) -> Obj | None:
        """See lookup.Lister."""
        found = self.informer.get(f"{namespace}/{name}" if namespace else name)
        return found if found is not None or namespace else self.found.get(name)

    def list(self, namespace: str | None = None) -> Sequence[Obj]:
        """See lookup.Lister."""
        return list(self.informer.list(namespace))


class CoreListers:
    """Listers of what is followed, and of the app's own kinds; calling it gives the lister of a resource."""

    def __init__(self, client: RestClient, registry: Registry) -> None:
        self._client = client
        self._registry = registry
        self._listers: dict[GroupResource, InformerLister] = {}
        self._mapper = RestMapper(DiscoveryClient(client))
        self._params: dict[GroupVersionKind, tuple[GroupResource, bool] | None] = {}
        self._policies: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, resource: GroupResource) -> Lister:
        """See lookup.Listers."""
        found = self._listers.get(resource)
        return found if found is not None else self._registry.lister(resource)

    def follow(self, gvr: GroupVersionResource) -> Informer:
        """The running informer of a resource."""
        lister = self._listers.get(gvr.gr)
        if lister is None:
            lister = self._listers[gvr.gr] = InformerLister(Informer(self._client, gvr))
            lister.informer.start()
        return lister.informer

    async def stop(self) -> None:
        """Stop following."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(lister.informer.stop() for lister in self._listers.values()))

    async def find_namespace(self, name: str) -> None:
        """Looks a namespace up that the informer does not have (yet): it may have been created a moment ago."""
        lister = self._listers.get(NAMESPACES)
        if lister is None or lister.get("", name) is not None:
            return
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                obj = await self._client.get(lister.informer.gvr, name)
        except (NotFoundError, ClientError, StatusError, TimeoutError):
            return
        lister.found[name] = obj
        while len(lister.found) > _FOUND_NAMESPACES:
            lister.found.popitem(last=False)

    # -- parameters of policies ----------------------------------------------------------------------------------------

    def follow_params(self, policies: Informer) -> None:
        """Follows the kinds that policies name as their parameters."""
        if id(policies) in self._policies:
            return
        self._policies.add(id(policies))
        policies.add_handler(Handler(lambda obj, _: self._see(obj), lambda _, obj: self._see(obj), None))

    def _see(self, policy: Obj) -> None:
        kind = (policy.get("spec") or {}).get("paramKind")
        if not kind:
            return
        gvk = GroupVersionKind.parse(str(kind.get("apiVersion") or ""), str(kind.get("kind") or ""))
        if gvk in self._params or len(self._params) >= _MOST_PARAM_KINDS or self._own(gvk) is not None:
            return
        self._params[gvk] = None
        task = asyncio.get_running_loop().create_task(self._resolve(gvk), name=f"parameters {gvk}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resolve(self, gvk: GroupVersionKind) -> None:
        pause = 0.5
        while True:
            try:
                found = await self._mapper.resource_for(gvk)
                if found is None:
                    raise LookupError("the core API server does not serve it")
                informer = self.follow(found.gvr)
                await informer.wait_synced()
            except (StatusError, ClientError, TimeoutError, LookupError) as failure:
                logger.warning("the policy parameters of kind %s cannot be read: %s", gvk, failure)
                await asyncio.sleep(pause)
                pause = min(pause * 2, 30.0)
            else:
                self._params[gvk] = (found.gvr.gr, found.namespaced)
                return

    def _own(self, gvk: GroupVersionKind) -> tuple[GroupResource, bool] | None:
        for endpoint in self._registry.endpoints(gvk.group, gvk.version):
            if endpoint.version.gvk == gvk:
                return endpoint.resource.gr, endpoint.resource.namespaced
        return None

    def find_kind(self, gvk: GroupVersionKind) -> tuple[GroupResource, bool] | None:
        """See policy_source.FindKind."""
        return self._own(gvk) or self._params.get(gvk)
