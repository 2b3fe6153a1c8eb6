"""The registry: which collections are served under which group-version, changeable at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bowsprit.apiserver.cacher import Change, Item
from bowsprit.apiserver.collection import Collection, World
from bowsprit.apiserver.localclient import LocalClient
from bowsprit.apiserver.resource import Resource, Version
from bowsprit.machinery.names import GroupResource, GroupVersion, GroupVersionKind
from bowsprit.machinery.objects import Obj
from bowsprit.store.protocol import Store

Changed = Callable[[], None]


@dataclass(slots=True, eq=False)
class Endpoint:
    """One resource in one group-version."""

    collection: Collection
    version: Version

    @property
    def resource(self) -> Resource:
        return self.collection.resource


class Registry:
    """All collections. `add` and `remove` may be called while serving; listeners hear of every change."""

    def __init__(self, store: Store, world: World) -> None:
        self.store = store
        self.world = world
        self._collections: dict[GroupResource, Collection] = {}
        self._served: dict[tuple[str, str], dict[str, Endpoint]] = {}
        self._kinds: dict[GroupVersionKind, Resource | None] = {}
        self._listers: dict[GroupResource, Lister] = {}
        self._listeners: list[Changed] = []
        self.generation = 0

    def on_change(self, listener: Changed) -> None:
        """Calls the listener after every add, remove and replace."""
        self._listeners.append(listener)

    async def add(self, resource: Resource) -> Collection:
        """Serves a resource; its objects are loaded when this returns. Replaces one of the same group and name."""
        collection = Collection(resource, resource.store or self.store, self.world)
        if resource.virtual is None:
            await collection.cacher.start()
        previous = self._collections.get(resource.gr)
        if previous is not None:
            self._withdraw(previous)
        self._collections[resource.gr] = collection
        for version in resource.versions:
            self._kinds[version.gvk] = resource
            if version.served:
                group_version = self._served.setdefault((version.gvr.group, version.gvr.version), {})
                group_version[version.gvr.resource] = Endpoint(collection, version)
        self._announce()
        if previous is not None:
            previous.cacher.stop()
        return collection

    def remove(self, gr: GroupResource) -> None:
        """Stops serving a resource and ends its watches; its stored objects stay."""
        collection = self._collections.pop(gr, None)
        if collection is None:
            return
        self._withdraw(collection)
        self._announce()
        collection.cacher.stop()

    async def update(self, resource: Resource) -> Collection:
        """Changes how a resource is served without touching its watches, when its objects stay where they are."""
        collection = self._collections.get(resource.gr)
        if collection is None or collection.resource.key_prefix != resource.key_prefix:
            return await self.add(resource)
        self._withdraw(collection)
        collection.resource = resource
        for version in resource.versions:
            self._kinds[version.gvk] = resource
            if version.served:
                group_version = self._served.setdefault((version.gvr.group, version.gvr.version), {})
                group_version[version.gvr.resource] = Endpoint(collection, version)
        self._announce()
        return collection

    def _withdraw(self, collection: Collection) -> None:
        for version in collection.resource.versions:
            self._kinds.pop(version.gvk, None)
            key = (version.gvr.group, version.gvr.version)
            resources = self._served.get(key, {})
            endpoint = resources.get(version.gvr.resource)
            if endpoint is not None and endpoint.collection is collection:
                del resources[version.gvr.resource]
                if not resources:
                    self._served.pop(key, None)

    def _announce(self) -> None:
        self.generation += 1
        for listener in tuple(self._listeners):
            listener()

    # -- lookups -----------------------------------------------------------------------------------------------------

    def endpoint(self, group: str, version: str, resource: str) -> Endpoint | None:
        resources = self._served.get((group, version))
        return resources.get(resource) if resources is not None else None

    def serves(self, group: str, version: str) -> bool:
        return (group, version) in self._served

    def endpoints(self, group: str, version: str) -> Sequence[Endpoint]:
        """All resources of a group-version, by name."""
        resources = self._served.get((group, version), {})
        return [resources[name] for name in sorted(resources)]

    def group_versions(self) -> list[GroupVersion]:
        """Everything served, in the order in which it was first added."""
        return [GroupVersion(group, version) for group, version in self._served]

    def collection(self, gr: GroupResource) -> Collection | None:
        return self._collections.get(gr)

    def collections(self) -> Iterator[Collection]:
        return iter(tuple(self._collections.values()))

    def declare_kind(self, gvk: GroupVersionKind) -> None:
        """Makes a kind known that is no resource of its own (Scale, DeleteOptions, Status), for the texts of refusals."""
        self._kinds.setdefault(gvk, None)

    def knows(self, gvk: GroupVersionKind) -> bool:
        return gvk in self._kinds

    def lister(self, gr: GroupResource) -> Lister:
        """The objects of a resource in hub form, the same lister for every caller. Raises KeyError if it is not served."""
        collection = self._collections[gr]
        lister = self._listers.get(gr)
        if lister is None or not lister.reads(collection):
            lister = self._listers[gr] = Lister(collection)
        return lister

    def client(self) -> LocalClient:
        """The server's own way to read and write objects."""
        return LocalClient(self.collection)

    def stop(self) -> None:
        for collection in self._collections.values():
            collection.cacher.stop()


class Lister:
    """Reads a collection's cache: synchronous, decoded once per state. Answers must not be changed.

    `version` changes whenever the content does.
    """

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._decoded: dict[str, tuple[Item, Obj]] = {}
        self._all: list[Obj] = []
        self._all_version = -1

    def reads(self, collection: Collection) -> bool:
        """Whether this lister is one of that collection."""
        return self._collection is collection

    @property
    def version(self) -> int:
        return self._collection.cacher.seen

    def get(self, namespace: str, name: str) -> Obj | None:
        item = self._collection.item(namespace, name)
        return None if item is None else self._decode(item)

    def list(self, namespace: str | None = None) -> Sequence[Obj]:
        cacher = self._collection.cacher
        if namespace is None:
            if self._all_version != cacher.seen:
                self._all = [self._decode(item) for item in cacher.items(self._collection.resource.key_prefix)]
                self._all_version = cacher.seen
            return self._all
        return [self._decode(item) for item in cacher.items(self._collection.prefix(namespace))]

    def _decode(self, item: Item) -> Obj:
        pair = self._decoded.get(item.key)
        if pair is None or pair[0] is not item:
            pair = (item, self._collection.decode(item))
            if len(self._decoded) > 2 * len(self._collection.cacher) + 16:
                self._decoded.clear()  # mostly objects that are gone
            self._decoded[item.key] = pair
        return pair[1]

    def subscribe(self, callback: Callable[[str, Obj, Obj | None], None]) -> Callable[[], None]:
        """Calls back with (ADDED|MODIFIED|DELETED, object, old object) for every change; gives what ends it."""
        watcher = _Callback(self._collection, callback)
        self._collection.cacher.add(watcher)
        return lambda: self._collection.cacher.remove(watcher)


class _Callback:
    namespace: str | None = None
    count = 0

    def __init__(self, collection: Collection, callback: Callable[[str, Obj, Obj | None], None]) -> None:
        self._collection = collection
        self._callback = callback

    def push(self, changes: Sequence[Change]) -> None:
        for change in changes:
            obj = self._collection.decode(change.item)
            old = self._collection.decode(change.previous) if change.previous is not None else None
            sort = "DELETED" if change.deleted else "MODIFIED" if old is not None else "ADDED"
            self._callback(sort, obj, old)

    def end(self) -> None:
        return None
