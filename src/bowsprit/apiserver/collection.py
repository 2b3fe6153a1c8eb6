"""A Collection: one Resource with its cache and its place in the store; objects in and out, in hub form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import SystemRandom
from time import monotonic
from uuid import uuid4

from bowsprit.apiserver.cacher import Attributes, Cacher, Item
from bowsprit.apiserver.conversion import prepared
from bowsprit.apiserver.encoding import encode, encode_plain, encode_untyped
from bowsprit.apiserver.resource import Resource, Version
from bowsprit.machinery.codec import decode_json
from bowsprit.machinery.objects import Obj
from bowsprit.store.protocol import Entry, RevisionMismatchError, Store, Value

_CATCH_UP_SECONDS = 3.0
VIEWS_AT_ONCE = 500  # how many objects are sent to a conversion webhook together


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _new_uid() -> str:
    return str(uuid4())


def _choose(alphabet: str, count: int, _random: SystemRandom = SystemRandom()) -> list[str]:
    return _random.choices(alphabet, k=count)


@dataclass(frozen=True, slots=True)
class World:
    """Time and chance; tests put in their own."""

    now: Callable[[], datetime] = _utc_now
    monotonic: Callable[[], float] = monotonic
    uid: Callable[[], str] = _new_uid
    choose: Callable[[str, int], list[str]] = _choose


@dataclass(slots=True)
class Stored:
    """An object as it is (or, on dry run, would be) stored: the hub object and its bytes."""

    obj: Obj
    value: bytes


class Collection:
    """See the module's docstring. The verbs' logic is in creation.py, mutation.py and deletion.py."""

    def __init__(self, resource: Resource, store: Store, world: World) -> None:
        self.resource = resource
        self.store = store
        self.world = world
        self.cacher = Cacher(store, resource.key_prefix, self._attributes, world.monotonic)

    def _attributes(self, obj: Obj) -> Attributes:
        meta = obj["metadata"]
        fields = {
            "metadata.name": meta.get("name", ""),
            "metadata.namespace": meta.get("namespace", ""),
            **self.resource.strategy.selectable_fields(obj),
        }
        labels: Mapping[str, str] = meta.get("labels") or {}
        return labels, fields

    def item(self, namespace: str, name: str) -> Item | None:
        """The stored object, None if there is none."""
        return self.cacher.get(self.resource.key(namespace, name))

    def prefix(self, namespace: str) -> str:
        """What the keys of a namespace ("" = all) begin with."""
        prefix = self.resource.key_prefix
        return f"{prefix}{namespace}/" if namespace and self.resource.namespaced else prefix

    def is_hub(self, version: Version) -> bool:
        return version.gvk.api_version == self.resource.storage_version

    async def prepare(self, version: Version, objects: Sequence[Obj]) -> None:
        """Makes sure that stored objects can be shown in a version at once. Raises StatusError."""
        conversion = self.resource.conversion
        if conversion is not None and not self.is_hub(version):
            await conversion.prepare(objects, version.gvk.api_version)

    async def hub(self, version: Version, obj: Obj) -> Obj:
        """As `to_hub`, whoever has to be asked. Raises StatusError."""
        if self.resource.conversion is None:
            return self.to_hub(version, obj)
        return await prepared(lambda: self.to_hub(version, obj))

    async def view(self, version: Version, obj: Obj) -> Obj:
        """As `from_hub`, whoever has to be asked. Raises StatusError."""
        if self.resource.conversion is None:
            return self.from_hub(version, obj)
        return await prepared(lambda: self.from_hub(version, obj))

    async def views(self, version: Version, objects: Sequence[Obj]) -> list[Obj]:
        """Many stored objects as a version shows them. Raises StatusError."""
        if self.resource.conversion is None:
            return [self.from_hub(version, obj) for obj in objects]
        made: list[Obj] = []
        for begin in range(0, len(objects), VIEWS_AT_ONCE):
            part = objects[begin : begin + VIEWS_AT_ONCE]
            await self.prepare(version, part)
            made += [await self.view(version, obj) for obj in part]
        return made

    def to_hub(self, version: Version, obj: Obj) -> Obj:
        """An object of a served version as it is stored."""
        if version.to_hub is not None:
            return version.to_hub(obj)
        return {**obj, "apiVersion": self.resource.storage_version}

    def from_hub(self, version: Version, obj: Obj) -> Obj:
        """A stored object as a version shows it. May share parts with `obj`."""
        if version.from_hub is not None:
            return version.from_hub(obj)
        if self.is_hub(version):
            return obj
        return {**obj, "apiVersion": version.gvk.api_version}

    def _encode(self, obj: Obj) -> Value:
        return encode_untyped(obj) if self.resource.custom else encode(obj)

    async def put(self, obj: Obj, expected: int) -> Stored:
        """Writes a hub object. Raises RevisionMismatchError when the cache has caught up with the winner."""
        meta = obj["metadata"]
        key = self.resource.key(meta.get("namespace", ""), meta["name"])
        try:
            entry = await self.store.put(key, self._encode(obj), expected=expected)
        except RevisionMismatchError as failure:
            await self._catch_up(failure.current)
            raise
        meta["resourceVersion"] = str(entry.revision)
        return Stored(obj, entry.value)

    async def remove(self, obj: Obj, expected: int) -> Stored:
        """Removes a hub object; what watchers see as its last state is `obj`."""
        meta = obj["metadata"]
        key = self.resource.key(meta.get("namespace", ""), meta["name"])
        try:
            entry = await self.store.delete(key, self._encode(obj), expected=expected)
        except RevisionMismatchError as failure:
            await self._catch_up(failure.current)
            raise
        assert entry is not None
        meta["resourceVersion"] = str(entry.revision)
        return Stored(obj, entry.value)

    def unstored(self, obj: Obj) -> Stored:
        """The result of a dry run."""
        return Stored(obj, encode_plain(obj))

    async def _catch_up(self, winner: Entry | None) -> None:
        """On a store that others write to, the cache may not have the write we lost against yet."""
        if self.store.shared:
            revision = winner.revision if winner is not None else await self.store.latest_revision()
            await self.cacher.wait_until(revision, _CATCH_UP_SECONDS)

    def decode(self, item: Item) -> Obj:
        obj: Obj = decode_json(item.value)
        return obj
