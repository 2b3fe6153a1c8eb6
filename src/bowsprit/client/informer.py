"""Shared informers: one copy of a collection per process, with handlers that see every change once and in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from bowsprit.client.cache import (
    Cache,
    Delta,
    IndexFunction,
    Objects,
    Transform,
    object_key,
    only_metadata,
    strip_managed_fields,
)
from bowsprit.client.reflector import Reflector, Selection
from bowsprit.client.rest import RestClient
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Handler:
    """Callbacks, called on the event loop; they must not block, nor change the objects.

    ``on_add`` gets True as second argument for objects of the initial list. ``on_delete`` gets the last known state.
    """

    on_add: Callable[[Obj, bool], None] | None = None
    on_update: Callable[[Obj, Obj], None] | None = None
    on_delete: Callable[[Obj], None] | None = None


class Informer:
    """A current copy of a collection. Objects lose their managedFields unless another ``transform`` is given."""

    def __init__(
        self,
        client: RestClient,
        gvr: GroupVersionResource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
        transform: Transform | None = None,
        indexers: Mapping[str, IndexFunction] | None = None,
    ) -> None:
        self.gvr = gvr
        self.cache = Cache(indexers)
        self._client = client
        self._selection = Selection(gvr, namespace, label_selector, field_selector, metadata_only)
        self._transform = transform or (only_metadata if metadata_only else strip_managed_fields)
        self._handlers: list[Handler] = []
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reflector: Reflector | None = None

    @property
    def has_synced(self) -> bool:
        """Whether the initial list is in the cache and with the handlers."""
        return self._synced.is_set()

    @property
    def problem(self) -> str:
        """Why there is no copy yet, or no news: the last request's error."""
        return self._reflector.problem if self._reflector else ""

    @property
    def last_resource_version(self) -> str:
        """The revision that the copy has reached."""
        return self._reflector.resource_version if self._reflector else ""

    def add_handler(self, handler: Handler) -> None:
        """Register callbacks; one that comes late gets what is there as additions first."""
        self._handlers.append(handler)
        if handler.on_add:
            for obj in self.cache.list():
                handler.on_add(obj, True)

    def get(self, key: str) -> Obj | None:
        """The object called ``namespace/name`` or ``name``."""
        return self.cache.get(key)

    def list(self, namespace: str | None = None) -> Objects:
        """All objects, or those of a namespace."""
        return self.cache.list(namespace)

    def by_index(self, name: str, value: str) -> Objects:
        """The objects under ``value`` in an index."""
        return self.cache.by_index(name, value)

    def start(self) -> None:
        """Begin to follow the collection (once)."""
        if self._task is None:
            self._reflector = Reflector(self._client, self._selection, self, transform=self._transform)
            self._task = asyncio.get_running_loop().create_task(self._reflector.run(), name=f"informer {self.gvr}")

    async def stop(self) -> None:
        """Stop following; the copy stays readable."""
        if self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def wait_synced(self, timeout: float | None = None) -> None:
        """Wait for the initial list; raises TimeoutError, or what stopped the informer."""
        waiter = asyncio.get_running_loop().create_task(self._synced.wait())
        watched: set[asyncio.Task[object]] = {waiter, self._task} if self._task else {waiter}
        try:
            await asyncio.wait(watched, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if self._task and self._task.done() and not self._task.cancelled():
                self._task.result()
            if not self._synced.is_set():
                raise TimeoutError(f"timed out waiting for the cache of {self.gvr} to sync")
        finally:
            waiter.cancel()

    # Sink of the reflector

    def replaced(self, objects: dict[str, Obj]) -> None:
        """See reflector.Sink."""
        initial = not self._synced.is_set()
        for delta in self.cache.replace(objects):
            self._dispatch(delta, initial)
        self._synced.set()

    def changed(self, event_type: str, obj: Obj) -> None:
        """See reflector.Sink."""
        if event_type == "DELETED":
            delta = self.cache.remove(obj)
            if delta is not None:
                self._dispatch(delta, False)
            return
        old = self.cache.get(object_key(obj))
        if old is not None and old["metadata"].get("uid") != obj["metadata"].get("uid"):
            self.cache.remove(old)  # deleted and created anew while we were not looking
            self._dispatch(Delta(old, None), False)
        self._dispatch(self.cache.set(obj), False)

    def _dispatch(self, delta: Delta, initial: bool) -> None:
        for handler in self._handlers:
            try:
                if delta.new is None:
                    if handler.on_delete:
                        handler.on_delete(delta.old)  # type: ignore[arg-type]
                elif delta.old is None:
                    if handler.on_add:
                        handler.on_add(delta.new, initial)
                elif handler.on_update:
                    handler.on_update(delta.old, delta.new)
            except Exception:
                log.exception("a handler of %s failed", self.gvr)


class InformerFactory:
    """The informers of a process, shared by all who ask for the same collection."""

    def __init__(self, client: RestClient) -> None:
        self.client = client
        self._informers: dict[tuple[GroupVersionResource, str | None, str | None, str | None, bool], Informer] = {}
        self._started = False

    def informer(
        self,
        gvr: GroupVersionResource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
        indexers: Mapping[str, IndexFunction] | None = None,
    ) -> Informer:
        """The informer of a collection; ``indexers`` are added to those it has. Runs at once if the factory does."""
        key = (gvr, namespace, label_selector, field_selector, metadata_only)
        informer = self._informers.get(key)
        if informer is None:
            informer = self._informers[key] = Informer(
                self.client,
                gvr,
                namespace=namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                metadata_only=metadata_only,
            )
            if self._started:
                informer.start()
        for name, function in (indexers or {}).items():
            informer.cache.add_indexer(name, function)
        return informer

    def existing(self, gvr: GroupVersionResource) -> Informer | None:
        """The informer with whole objects of all namespaces, if somebody asked for it."""
        return self._informers.get((gvr, None, None, None, False))

    def informers(self) -> Iterable[Informer]:
        """All informers."""
        return list(self._informers.values())

    def start(self) -> None:
        """Start all informers, and from now on every new one."""
        self._started = True
        for informer in self._informers.values():
            informer.start()

    async def wait_synced(self, timeout: float | None = None) -> None:
        """Wait for all initial lists. Raises TimeoutError naming one that is missing."""
        async with asyncio.timeout(timeout):
            for informer in list(self._informers.values()):
                await informer.wait_synced()

    async def forget(self, informer: Informer) -> None:
        """Stop an informer that nobody needs any more."""
        self._informers = {key: value for key, value in self._informers.items() if value is not informer}
        await informer.stop()

    async def stop(self) -> None:
        """Stop all informers."""
        self._started = False
        await asyncio.gather(*(informer.stop() for informer in self._informers.values()))
