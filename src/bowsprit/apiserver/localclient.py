"""LocalClient: the server's own reads and writes, without HTTP, authorization and admission, but with validation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from bowsprit.apiserver import creation, deletion, mutation, ownership
from bowsprit.apiserver.collection import Collection
from bowsprit.apiserver.options import DeleteOptions
from bowsprit.apiserver.request import RequestContext, RequestInfo
from bowsprit.apiserver.resource import StatusSubresource, Version
from bowsprit.apiserver.strategy import Strategy
from bowsprit.apiserver.user import LOOPBACK_USER, UserInfo
from bowsprit.machinery.errors import not_found
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, deep_copy

Change = Callable[[Obj], Obj | Awaitable[Obj | None] | None]


class LocalClient:
    """Objects are in the storage version. Every method raises StatusError as the API would answer.

    Args:
        collection: the collection of a resource, None if it is not served.
        user: in whose name objects are written.
        manager: who is said to own what is written.
    """

    def __init__(
        self,
        collection: Callable[[GroupResource], Collection | None],
        user: UserInfo = LOOPBACK_USER,
        manager: str = "kube-apiserver",
    ) -> None:
        self._collection = collection
        self._user = user
        self._manager = manager

    def named(self, manager: str) -> LocalClient:
        """The same for another part of the server, which owns what it writes under its own name."""
        return LocalClient(self._collection, self._user, manager)

    def _find(self, gr: GroupResource) -> tuple[Collection, Version]:
        collection = self._collection(gr)
        if collection is None:
            raise KeyError(str(gr))
        for version in collection.resource.versions:
            if collection.is_hub(version):
                return collection, version
        return collection, collection.resource.versions[0]

    def _context(
        self, verb: str, collection: Collection, version: Version, namespace: str, name: str, subresource: str = ""
    ) -> RequestContext:
        gvr = version.gvr
        info = RequestInfo("", verb, True, "apis", gvr.group, gvr.version, namespace, gvr.resource, subresource, name)
        return RequestContext(info, self._user, collection.world.now(), field_manager=self._manager)

    async def get(self, gr: GroupResource, namespace: str, name: str) -> Obj:
        """A copy of the object."""
        collection, version = self._find(gr)
        item = collection.item(namespace, name)
        if item is None:
            raise not_found(version.gvr.gr, name)
        return collection.decode(item)

    async def list(self, gr: GroupResource, namespace: str = "") -> Sequence[Obj]:
        """Copies of all objects, of one namespace if it is named."""
        collection, _ = self._find(gr)
        return [collection.decode(item) for item in collection.cacher.items(collection.prefix(namespace))]

    async def create(self, gr: GroupResource, obj: Obj) -> Obj:
        """Creates; metadata.namespace says where. Defaults are applied."""
        collection, version = self._find(gr)
        new = deep_copy(obj)
        new["kind"], new["apiVersion"] = version.gvk.kind, version.gvk.api_version
        meta = new.setdefault("metadata", {})
        if version.schema is not None:
            new, _ = version.schema.decode(new, new)
            meta = new["metadata"]
        collection.resource.strategy.default(new)
        ctx = self._context("create", collection, version, meta.get("namespace", ""), meta.get("name", ""))
        await ownership.track(collection, version, None, new, ctx)
        return (await creation.create(collection, version, new, ctx, _admit_all)).obj

    async def update(self, gr: GroupResource, obj: Obj, *, subresource: str = "") -> Obj:
        """Replaces, on condition of the resourceVersion if there is one."""

        async def take(live: Obj) -> Obj:
            copy: Obj = deep_copy(obj)
            return copy

        meta = obj["metadata"]
        return await self.change(gr, meta.get("namespace", ""), meta["name"], take, subresource=subresource)

    async def change(
        self, gr: GroupResource, namespace: str, name: str, change: Change, *, subresource: str = ""
    ) -> Obj:
        """Applies a function to the live object (a copy) until it is written; None or the same object: changed in place."""
        collection, version = self._find(gr)
        ctx = self._context("update", collection, version, namespace, name, subresource)

        async def compute(live: Obj | None) -> Obj:
            assert live is not None
            before: Obj = deep_copy(live)
            made = change(live)
            result: Obj | None = await made if isinstance(made, Awaitable) else made
            new = live if result is None else result
            await ownership.track(collection, version, before, new, ctx, subresource)
            return new

        return await self._write(collection, version, ctx, compute)

    async def apply(self, gr: GroupResource, obj: Obj, *, subresource: str = "") -> Obj:
        """Server-side apply to an object that exists; what others own is taken from them."""
        collection, version = self._find(gr)
        meta = obj["metadata"]
        ctx = self._context("patch", collection, version, meta.get("namespace", ""), meta["name"], subresource)
        config = {**obj, "kind": version.gvk.kind, "apiVersion": version.gvk.api_version}

        async def compute(live: Obj | None) -> Obj:
            assert live is not None
            new = await ownership.apply(
                collection, version, live, deep_copy(config), ctx, force=True, subresource=subresource
            )
            if version.schema is not None:
                new, _ = version.schema.decode(new, new, applied=True)
            return new

        return await self._write(collection, version, ctx, compute)

    async def _write(
        self, collection: Collection, version: Version, ctx: RequestContext, compute: mutation.Compute
    ) -> Obj:
        info = ctx.info
        strategy: Strategy | None = None
        if info.subresource:
            found = collection.resource.subresources[info.subresource]
            assert isinstance(found, StatusSubresource)
            strategy = found.strategy
        stored, _ = await mutation.update(
            collection, version, info.namespace, info.name, ctx, compute, _admit_all, strategy=strategy
        )
        return stored.obj

    async def delete(self, gr: GroupResource, namespace: str, name: str, options: DeleteOptions | None = None) -> Obj:
        """Deletes, or begins to."""
        collection, version = self._find(gr)
        ctx = self._context("delete", collection, version, namespace, name)
        stored, _ = await deletion.delete(
            collection, version, namespace, name, options or DeleteOptions(), ctx, _admit_all
        )
        return stored.obj


async def _admit_all(new: Obj, old: Obj | None) -> None:
    return None
