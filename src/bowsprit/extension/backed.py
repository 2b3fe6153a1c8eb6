"""Kinds whose objects live in an author's object: how its few methods carry the library's many verbs.

Theory. Each request gets a Collection of its own, filled with what the author's object says about the request's target: one
object (`get`) or those of a namespace (`list`). On it the library's verbs work as on any other collection — selectors, pages,
tables, patches, apply, dry run — and what they put or remove goes to the author's `create`, `update` and `delete`.

A kind that is watched (the author's `watch`, or `list` polled) is mirrored instead: one task keeps a store in memory up to
date, reads and watches are answered from it, and writes reach it as soon as the author's object has accepted them. So lists
and watches agree on resource versions, watches can be resumed, and a hundred watchers cost one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from bowsprit.apiserver.collection import Collection, Stored
from bowsprit.apiserver.encoding import encode_untyped
from bowsprit.apiserver.request import RequestContext
from bowsprit.extension.hooks import Hooks, awaited
from bowsprit.extension.kind import Kind, render_all
from bowsprit.extension.storage import Getter, Lister, Watcher
from bowsprit.machinery.codec import decode_json
from bowsprit.machinery.errors import internal_error, service_unavailable, timeout
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.store.memory import MemoryStore
from bowsprit.store.protocol import Deliver, Entry, Page, RevisionMismatchError, Subscription, Value

logger = logging.getLogger("bowsprit.extension")

CALL_SECONDS = 30.0  # an author's method that takes longer is given up: the answer is 504
SYNC_SECONDS = 5.0  # a read of a mirror that is not filled yet waits so long
BACKOFF_SECONDS = (0.5, 30.0)
_NAMESPACE = uuid.UUID("6f2f4d4e-0c7f-4f8e-9d55-0d7a3a1f3f0e")  # of the uids made of names
_LARGEST_REVISION = 2**63 - 1


class Backed:
    """One kind backed by an author's object; `open` is the Resource's."""

    def __init__(self, hooks: Hooks, storage: Any) -> None:
        self.hooks = hooks
        self.storage = storage
        declaration = hooks.declaration
        self._api_version = f"{declaration.group}/{declaration.hub_name}"
        self._namespaced = declaration.namespaced

    async def open(self, ctx: RequestContext, registered: Collection) -> Collection:
        """The collection for one request."""
        known: Collection | None = ctx.scratch.get("collection")
        if known is None:
            store = _Snapshot([self.entry(registered, obj) for obj in await self._target(ctx)], ctx)
            known = ctx.scratch["collection"] = BackedCollection(registered, store, self, ctx)
            await known.cacher.start()
        return known

    async def _target(self, ctx: RequestContext) -> list[Obj]:
        info = ctx.info
        if info.verb == "create" and not info.subresource:
            return []
        storage = self.storage
        namespace = info.namespace if self._namespaced else ""
        named = info.name and info.verb not in ("list", "watch", "deletecollection")
        if named and isinstance(storage, Getter):
            found = await self.call(info.name, storage.get, ctx, namespace, info.name)
            return [] if found is None else [self.rendered(found, namespace)]
        if not isinstance(storage, Lister):
            return []
        found = await self.call(info.name, storage.list, ctx, namespace)
        objects = [self.rendered(each, namespace) for each in found]
        if not namespace:
            return objects
        return [obj for obj in objects if obj["metadata"].get("namespace") == namespace]

    async def call(self, name: str, method: Callable[..., Any], *arguments: Any) -> Any:
        """What an author's method gives, in time. Raises StatusError."""
        with self.hooks.answering(name):
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    return await awaited(method(*arguments))
            except TimeoutError:
                raise timeout(
                    f"the storage of {self.hooks.resource} did not answer within {CALL_SECONDS:g} s"
                ) from None

    def rendered(self, obj: Kind | Obj, namespace: str) -> Obj:
        """An author's object as it is stored: with kind, version, namespace and uid."""
        made: Obj = deep_copy(render_all(obj))
        declared = self.hooks.declaration
        if isinstance(obj, Kind) and not isinstance(obj, declared.hub.model):
            raise internal_error(
                f"the storage of {self.hooks.resource} gave a {type(obj).__name__}, not a {declared.hub.model.__name__}"
            )
        meta = made.setdefault("metadata", {})
        if not meta.get("name"):
            raise internal_error(f"the storage of {self.hooks.resource} gave an object without a name")
        if self._namespaced:
            if not meta.setdefault("namespace", namespace):
                raise internal_error(f"the storage of {self.hooks.resource} gave {meta['name']} without a namespace")
        else:
            meta.pop("namespace", None)
        made["apiVersion"], made["kind"] = self._api_version, declared.kind
        if not meta.get("uid"):
            meta["uid"] = str(
                uuid.uuid5(_NAMESPACE, f"{self.hooks.resource}/{meta.get('namespace', '')}/{meta['name']}")
            )
        return made

    def entry(self, collection: Collection, obj: Obj) -> Entry:
        """The object as bytes; its revision is its own resourceVersion, or made of its content."""
        meta = obj["metadata"]
        value = encode_untyped(obj)
        revision = revision_of(obj) or _digest(value)
        return Entry(collection.resource.key(meta.get("namespace", ""), meta["name"]), value.at(revision), revision)

    # -- writes --------------------------------------------------------------------------------------------------------

    async def exists(self, ctx: RequestContext, obj: Obj) -> bool:
        """Whether there is an object of that name, if the author's object can tell."""
        if not isinstance(self.storage, Getter):
            return False
        meta = obj["metadata"]
        found = await self.call(meta["name"], self.storage.get, ctx, meta.get("namespace", ""), meta["name"])
        return found is not None

    async def create(self, ctx: RequestContext, obj: Obj) -> Obj:
        """The created object, as the author gives it back."""
        name = obj["metadata"]["name"]
        made = await self.call(name, self.storage.create, ctx, self.hooks.parse(obj))
        return self._returned(made, obj)

    async def update(self, ctx: RequestContext, obj: Obj, old: Obj) -> Obj:
        """The changed object."""
        name = obj["metadata"]["name"]
        made = await self.call(
            name, self.storage.update, ctx, self.hooks.parse(_unversioned(obj)), self.hooks.parse(old)
        )
        return self._returned(made, obj)

    async def delete(self, ctx: RequestContext, obj: Obj) -> None:
        """Removes the object."""
        await self.call(obj["metadata"]["name"], self.storage.delete, ctx, self.hooks.parse(obj))

    def _returned(self, made: Any, sent: Obj) -> Obj:
        if made is None:
            return sent
        obj = self.rendered(made, sent["metadata"].get("namespace", ""))
        # What an author's storage does not keep of the metadata is still told to the client that wrote it.
        obj["metadata"] = {**{k: v for k, v in sent["metadata"].items() if k != "resourceVersion"}, **obj["metadata"]}
        return obj


class BackedCollection(Collection):
    """A collection whose writes go to the author's object."""

    def __init__(self, registered: Collection, store: Any, backed: Backed, ctx: RequestContext) -> None:
        super().__init__(registered.resource, store, registered.world)
        self._backed = backed
        self._ctx = ctx

    async def put(self, obj: Obj, expected: int) -> Stored:
        if expected:
            meta = obj["metadata"]
            item = self.item(meta.get("namespace", ""), meta["name"])
            assert item is not None
            made = await self._backed.update(self._ctx, obj, self.decode(item))
        else:
            if await self._backed.exists(self._ctx, obj):
                raise RevisionMismatchError(obj["metadata"]["name"], None)
            made = await self._backed.create(self._ctx, obj)
        return await self._written(made)

    async def remove(self, obj: Obj, expected: int) -> Stored:
        await self._backed.delete(self._ctx, obj)
        return await self._removed(obj)

    async def _written(self, obj: Obj) -> Stored:
        entry = self._backed.entry(self, obj)
        obj["metadata"]["resourceVersion"] = str(entry.revision)
        return Stored(obj, entry.value)

    async def _removed(self, obj: Obj) -> Stored:
        return self.unstored(obj)


class _Snapshot:
    """What one request sees, as a Store that is only read."""

    shared = False
    compacted = 0

    def __init__(self, entries: Iterable[Entry], ctx: RequestContext) -> None:
        self._entries = sorted(entries)
        # Lists of a kind that cannot be watched still need a resource version: the moment, in microseconds.
        self.revision = int(ctx.now.timestamp() * 1_000_000)

    async def latest_revision(self) -> int:
        return self.revision

    async def get(self, key: str) -> Entry | None:
        return next((entry for entry in self._entries if entry.key == key), None)

    async def list(self, prefix: str, *, revision: int | None = None, limit: int = 0, after: str | None = None) -> Page:
        found = [
            entry for entry in self._entries if entry.key.startswith(prefix) and (after is None or entry.key > after)
        ]
        return Page(found, self.revision)

    async def put(self, key: str, value: Value, *, expected: int | None = None) -> Entry:
        raise NotImplementedError("writes go to the author's object")

    async def delete(self, key: str, value: Value | None = None, *, expected: int | None = None) -> Entry | None:
        raise NotImplementedError("writes go to the author's object")

    async def watch(self, prefix: str, since: int, deliver: Deliver) -> Subscription:
        return _NO_SUBSCRIPTION

    async def compact(self, revision: int) -> None:
        return None

    async def close(self) -> None:
        return None


class _NoSubscription:
    def cancel(self) -> None:
        return None


_NO_SUBSCRIPTION = _NoSubscription()


# -- mirrors -------------------------------------------------------------------------------------------------------------


class Mirror(Backed):
    """A backed kind that can be watched; runs while the server does."""

    def __init__(self, hooks: Hooks, storage: Any, poll: float | None, now: datetime) -> None:
        super().__init__(hooks, storage)
        self.store = MemoryStore(first_revision=first_revision(now))
        self._poll = poll
        self._synced = asyncio.Event()
        self._registered: Collection | None = None
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self.problem = "not listed yet"

    def start(self, registered: Collection) -> None:
        """Begin to follow the author's object."""
        self._registered = registered
        name = f"mirror {self.hooks.resource}"
        self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def stop(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def check(self) -> None:
        """The health check: raises while the author's object cannot be followed."""
        if self.problem:
            raise RuntimeError(self.problem)

    async def check_synced(self) -> None:
        """The readiness check: raises until the objects have been listed once."""
        if not self._synced.is_set():
            raise RuntimeError(self.problem)

    async def open(self, ctx: RequestContext, registered: Collection) -> Collection:
        if not self._synced.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SYNC_SECONDS):
                    await self._synced.wait()
            if not self._synced.is_set():
                raise service_unavailable(f"the storage of {self.hooks.resource} is not ready: {self.problem}")
        return _MirroredCollection(registered, self, ctx)

    async def _run(self) -> None:
        pause, longest = BACKOFF_SECONDS
        while True:
            try:
                await self._follow()
                pause = BACKOFF_SECONDS[0]
                await asyncio.sleep(self._poll or pause)
            except Exception as failure:
                self.problem = f"{type(failure).__name__}: {failure}"
                logger.warning("the storage of %s cannot be followed: %s", self.hooks.resource, self.problem)
                await asyncio.sleep(pause)
                pause = min(pause * 2, longest)

    async def _follow(self) -> None:
        if self._poll is not None or not isinstance(self.storage, Watcher):
            await self._list()
            return
        events = self.storage.watch()
        first = asyncio.ensure_future(anext(events))
        try:
            await asyncio.sleep(0)  # lets the author's generator subscribe before the objects are listed
            await self._list()
            await self._take_event(*await first)
            async for sort, obj in events:
                await self._take_event(sort, obj)
        except StopAsyncIteration:
            return
        finally:
            await _discard(first)
            close: Any = getattr(events, "aclose", None)
            if close is not None:
                await close()

    async def _list(self) -> None:
        from bowsprit.apiserver.request import RequestInfo
        from bowsprit.apiserver.user import LOOPBACK_USER

        registered = self._registered
        assert registered is not None
        ctx = RequestContext(RequestInfo("", "list", True), LOOPBACK_USER, registered.world.now())
        found = await self.call("", self.storage.list, ctx, "")
        fresh = {}
        for each in found:
            obj = self.rendered(each, "")
            fresh[registered.resource.key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])] = obj
        async with self._writing:
            page = await self.store.list(registered.resource.key_prefix)
            for entry in page.entries:
                if entry.key not in fresh:
                    await self.store.delete(entry.key)
            for key, obj in fresh.items():
                await self._take(key, obj)
        self.problem = ""
        self._synced.set()

    async def _take_event(self, sort: str, given: Any) -> None:
        registered = self._registered
        assert registered is not None
        if sort not in ("ADDED", "MODIFIED", "DELETED"):
            raise ValueError(f"watch gave {sort!r}, not ADDED, MODIFIED or DELETED")
        obj = self.rendered(given, "")
        key = registered.resource.key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        async with self._writing:
            if sort == "DELETED":
                await self.store.delete(key)
            else:
                await self._take(key, obj)

    async def _take(self, key: str, obj: Obj) -> Entry:
        """Puts an object into the store, unless it says what is known, or is older by its own resource version."""
        current = await self.store.get(key)
        value = encode_untyped(obj)
        if current is not None and value.at(current.revision) == current.value:
            return current
        return await self.store.put(key, value)

    async def written(self, obj: Obj, key: str) -> Entry:
        """An object that the author's object has accepted."""
        async with self._writing:
            return await self._take(key, obj)

    async def removed(self, key: str) -> None:
        """An object that is gone."""
        async with self._writing:
            await self.store.delete(key)


class _MirroredCollection(BackedCollection):
    """Reads the mirror; writes go to the author's object and then into the mirror."""

    def __init__(self, registered: Collection, mirror: Mirror, ctx: RequestContext) -> None:
        super().__init__(registered, mirror.store, mirror, ctx)
        self.cacher = registered.cacher
        self._mirror = mirror

    async def _written(self, obj: Obj) -> Stored:
        key = self.resource.key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])
        entry = await self._mirror.written(obj, key)
        made: Obj = decode_json(entry.value)
        return Stored(made, entry.value)

    async def _removed(self, obj: Obj) -> Stored:
        await self._mirror.removed(self.resource.key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"]))
        return self.unstored(obj)


async def _discard(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def first_revision(now: datetime) -> int:
    """Where the resource versions of a store in memory begin: behind those of the process before.

    A client that goes on watching after a restart is then told that its version is too old, and lists anew, as it should.
    """
    return int(now.timestamp() * 1000)


def _unversioned(obj: Obj) -> Obj:
    """The object without the version that it replaces: an author who keeps what he is given must not keep that."""
    return {**obj, "metadata": {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}}


def revision_of(obj: Obj) -> int:
    """The object's own resourceVersion, 0 if it has none that is a number."""
    text = obj["metadata"].get("resourceVersion") or ""
    return int(text) if text.isascii() and text.isdigit() and int(text) <= _LARGEST_REVISION else 0


def _digest(value: Value) -> int:
    """A revision that changes with the content: 53 bits, so that every client can hold it as a number."""
    return int.from_bytes(hashlib.blake2b(value.at(0), digest_size=8).digest(), "big") >> 11 or 1
