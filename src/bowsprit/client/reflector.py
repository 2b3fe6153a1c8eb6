"""Keeps a copy of a collection current: a consistent start, then every change once and in order (client-go Reflector).

    start ──WatchList──▶ initial events … bookmark ──▶ watching ──ended──▶ watch again from the last revision
      │  refused, or no end of the initial events in time                    │ 410 Expired
      └──LIST in pages──▶ watching                                           └▶ start anew; differences become changes

Nothing is missed: the revision only advances with events and bookmarks that have been delivered. Nothing comes twice: a
watch resumes after that revision, and a new start is compared with what is there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from bowsprit.client.cache import Transform, object_key
from bowsprit.client.errors import ClientError
from bowsprit.client.rest import RestClient, WatchEvent
from bowsprit.machinery import objects as accessors
from bowsprit.machinery.errors import ExpiredError, GoneError, StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj

log = logging.getLogger(__name__)

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
_MIN_WATCH_SECONDS = 300  # upstream minWatchTimeout: a watch lasts between one and two of these
_WATCH_LIST_PATIENCE = 15.0  # without any event in this time the server does not know sendInitialEvents
_PATIENCE_STEP = 1.0
_BACKOFF_BASE, _BACKOFF_MAX, _BACKOFF_RESET = 0.8, 30.0, 120.0  # upstream: 800 ms, 30 s, reset after 2 min
_SHORT_WATCH = 1.0


class Sink(Protocol):
    """Receives the copy."""

    def replaced(self, objects: dict[str, Obj]) -> None:
        """The whole collection, by key, at the start or after history was lost."""

    def changed(self, event_type: str, obj: Obj) -> None:
        """One ADDED, MODIFIED or DELETED event."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What to follow."""

    gvr: GroupVersionResource
    namespace: str | None = None
    label_selector: str | None = None
    field_selector: str | None = None
    metadata_only: bool = False


class Backoff:
    """Delays that double from base to maximum, with full jitter up to as much again, and start anew after a quiet time."""

    def __init__(self, clock: Callable[[], float], uniform: Callable[[float, float], float] = random.uniform) -> None:
        self._clock = clock
        self._uniform = uniform
        self._delay = _BACKOFF_BASE
        self._last = float("-inf")

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        now = self._clock()
        self._delay = _BACKOFF_BASE if now - self._last > _BACKOFF_RESET else min(_BACKOFF_MAX, self._delay * 2)
        self._last = now
        return self._uniform(self._delay, self._delay * 2)


class Reflector:
    """Feeds a sink until it is cancelled."""

    def __init__(
        self,
        client: RestClient,
        selection: Selection,
        sink: Sink,
        *,
        transform: Transform | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._client = client
        self._selection = selection
        self._sink = sink
        self._transform = transform or (lambda obj: obj)
        self._clock = clock or asyncio.get_running_loop().time
        self._backoff = Backoff(self._clock)
        self._use_watch_list = True
        self._expired = False
        self.resource_version = ""
        self.problem = ""  # what the last request ended with, while nothing has come since

    async def run(self) -> None:
        """Follow the collection; returns only by cancellation."""
        while True:
            started = self._clock()
            try:
                if self.resource_version and not self._expired:
                    await self._watch()
                elif self._use_watch_list:
                    await self._watch_list()
                else:
                    await self._list()
                    continue
                if self.resource_version and self._clock() - started < _SHORT_WATCH:
                    await asyncio.sleep(self._backoff.next())
            except (ExpiredError, GoneError) as exc:
                log.debug("%s: history lost, starting anew: %s", self._selection.gvr, exc)
                self._expired = True
            except StatusError as exc:
                if exc.code == 504 and "Too large resource version" in exc.message:
                    self._expired = True  # the server's history is another one (restored or replaced): start anew
                self.problem = exc.message
                log.info("%s: %s", self._selection.gvr, exc.message)
                await asyncio.sleep(self._backoff.next())
            except (ClientError, TimeoutError) as exc:
                self.problem = str(exc) or type(exc).__name__
                log.info("%s: %s", self._selection.gvr, exc)
                await asyncio.sleep(self._backoff.next())

    async def _list(self) -> None:
        chosen = self._selection
        objects: dict[str, Obj] = {}
        version = ""
        # "0" lets the server answer from its cache; after an expiry only the latest state will do (upstream relistResourceVersion)
        start = None if self._expired else "0"
        async for page in self._client.pages(
            chosen.gvr,
            namespace=chosen.namespace,
            label_selector=chosen.label_selector,
            field_selector=chosen.field_selector,
            resource_version=start,
            metadata_only=chosen.metadata_only,
        ):
            version = page["metadata"]["resourceVersion"]
            api_version, kind = page.get("apiVersion"), str(page.get("kind", "")).removesuffix("List")
            for item in page.get("items") or []:
                item.setdefault("apiVersion", api_version)  # items of a typed list do not repeat their type
                item.setdefault("kind", kind)
                obj = self._transform(item)
                objects[object_key(obj)] = obj
        self._became(objects, version)

    async def _watch_list(self) -> None:
        synced = False
        objects: dict[str, Obj] = {}
        try:
            async with (
                asyncio.timeout(_WATCH_LIST_PATIENCE) as patience,
                aclosing(self._open(send_initial_events=True)) as events,
            ):
                heard = self._clock()
                async for event in events:
                    if synced:
                        self._deliver(event)
                        continue
                    now = self._clock()
                    if now - heard > _PATIENCE_STEP:  # not at every event: there may be a hundred thousand
                        heard = now
                        patience.reschedule(asyncio.get_running_loop().time() + _WATCH_LIST_PATIENCE)
                    if event.type == "BOOKMARK":
                        if accessors.annotations(event.object).get(INITIAL_EVENTS_END) == "true":
                            synced = True
                            patience.reschedule(None)
                            self._became(objects, event.object["metadata"]["resourceVersion"])
                            objects = {}
                    else:
                        obj = self._transform(event.object)
                        if event.type == "DELETED":
                            objects.pop(object_key(obj), None)
                        else:
                            objects[object_key(obj)] = obj
        except (StatusError, TimeoutError) as exc:
            if synced:
                raise
            if isinstance(exc, StatusError) and exc.code in (429, 503):
                raise  # busy or starting; 500 is how a server says that its storage cannot do it (old etcd)
            log.debug("%s: no watch list (%s), using list and watch", self._selection.gvr, exc)
            self._use_watch_list = False

    async def _watch(self) -> None:
        async with aclosing(self._open(resource_version=self.resource_version)) as events:
            async for event in events:
                self._deliver(event)

    def _open(
        self, *, resource_version: str | None = None, send_initial_events: bool = False
    ) -> AsyncGenerator[WatchEvent, None]:
        chosen = self._selection
        return self._client.watch(
            chosen.gvr,
            namespace=chosen.namespace,
            label_selector=chosen.label_selector,
            field_selector=chosen.field_selector,
            resource_version=resource_version,
            send_initial_events=send_initial_events,
            timeout_seconds=int(_MIN_WATCH_SECONDS * random.uniform(1, 2)),
            metadata_only=chosen.metadata_only,
        )

    def _became(self, objects: dict[str, Obj], version: str) -> None:
        self._sink.replaced(objects)
        self.problem = ""
        self.resource_version = version
        self._expired = False

    def _deliver(self, event: WatchEvent) -> None:
        if event.type != "BOOKMARK":
            self._sink.changed(event.type, self._transform(event.object))
        self.resource_version = event.object["metadata"]["resourceVersion"]
