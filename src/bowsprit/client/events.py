"""Recording events about objects: correlated, rate-limited, in the background (client-go tools/record and tools/events).

What happens repeatedly becomes one Event with a count: ``count`` in core/v1, ``series`` in events.k8s.io/v1.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Literal, Protocol, TypeVar

from bowsprit.client.errors import ClientError
from bowsprit.client.ratelimit import TokenBucket
from bowsprit.client.resources import EVENTS, EVENTS_V1
from bowsprit.client.rest import PatchType, RestClient
from bowsprit.machinery.errors import NotFoundError, StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import format_micro_time, format_time

log = logging.getLogger(__name__)

EventType = Literal["Normal", "Warning"]
Value = TypeVar("Value")

_MAX_QUEUE = 1000
_MAX_CACHE = 4096  # upstream maxLruCacheEntries
_SPAM_BURST, _SPAM_QPS = 25, 1 / 300
_SIMILAR_MAX, _SIMILAR_SECONDS = 10, 600.0
_SERIES_SECONDS = 360.0  # upstream finishTime
_WRITE_TRIES = 3


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One thing that happened."""

    regarding: Obj
    type: EventType
    reason: str
    message: str
    related: Obj | None = None
    action: str = ""


@dataclass(frozen=True, slots=True)
class Write:
    """What to send: a new Event, or a merge patch to the Event that ``event`` names."""

    event: Obj
    patch: Obj | None = None


class Correlator(Protocol):
    """Turns occurrences into writes."""

    gvr: GroupVersionResource

    def correlate(self, occurrence: Occurrence, now: datetime) -> Write | None:
        """The write, or None if the occurrence is only counted, or dropped as spam."""


def object_reference(obj: Obj) -> Obj:
    """The reference to an object that an Event carries; an ObjectReference is passed through."""
    meta = obj.get("metadata")
    if meta is None:
        return obj
    reference = {
        "kind": obj.get("kind"),
        "namespace": meta.get("namespace"),
        "name": meta.get("name"),
        "uid": meta.get("uid"),
        "apiVersion": obj.get("apiVersion"),
        "resourceVersion": meta.get("resourceVersion"),
    }
    return {key: value for key, value in reference.items() if value}


def _event_name(reference: Obj, now: datetime) -> str:
    return f"{reference['name']}.{int(now.timestamp() * 1_000_000) * 1000:x}"


class CountCorrelator:
    """core/v1: spam filter per object, aggregation of similar events, count of equal ones (EventCorrelator)."""

    gvr = EVENTS

    def __init__(self, component: str, host: str = "") -> None:
        self._source = {"component": component, **({"host": host} if host else {})}
        self._buckets: _Recent[TokenBucket] = _Recent()
        self._similar: _Recent[tuple[float, set[str]]] = _Recent()
        self._seen: _Recent[Obj] = _Recent()
        self._moment = 0.0

    def correlate(self, occurrence: Occurrence, now: datetime) -> Write | None:
        """See Correlator."""
        reference = occurrence.regarding
        moment = now.timestamp()
        object_key = tuple(reference.get(name, "") for name in ("kind", "namespace", "name", "uid", "apiVersion"))
        if self._is_spam(object_key, moment):
            return None
        kind_key = (*object_key, reference.get("fieldPath", ""), occurrence.type, occurrence.reason)
        message = occurrence.message
        since, messages = self._similar.get(kind_key) or (moment, set())
        if moment - since > _SIMILAR_SECONDS:
            messages = set()
        messages.add(message)
        self._similar.put(kind_key, (moment, messages))
        key: tuple[str, ...] = (*kind_key, message)
        combined = len(messages) >= _SIMILAR_MAX
        if combined:
            messages.pop()
            message, key = f"(combined from similar events): {message}", kind_key
        stamp = format_time(now)
        earlier = self._seen.get(key)
        if earlier is not None:
            event = {**earlier, "count": earlier["count"] + 1, "lastTimestamp": stamp, "message": message}
            self._seen.put(key, event)
            return Write(event, {name: event[name] for name in ("count", "lastTimestamp", "message")})
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": _event_name(reference, now), "namespace": reference.get("namespace") or "default"},
            "involvedObject": reference,
            "reason": occurrence.reason,
            "message": message,
            "source": self._source,
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
            "type": occurrence.type,
            "eventTime": None,
            # client-go's EventAggregate leaves the reporter of combined events out
            "reportingComponent": "" if combined else self._source["component"],
            "reportingInstance": "" if combined else self._source.get("host", ""),
        }
        self._seen.put(key, event)
        return Write(event)

    def _is_spam(self, key: tuple[str, ...], moment: float) -> bool:
        self._moment = moment
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = TokenBucket(_SPAM_QPS, _SPAM_BURST, lambda: self._moment)
            self._buckets.put(key, bucket)
        return not bucket.try_take()


class SeriesCorrelator:
    """events.k8s.io/v1: the second equal event starts a series, whose later counts are written when it ends or is refreshed."""

    gvr = EVENTS_V1

    def __init__(self, component: str, instance: str) -> None:
        self._component = component
        self._instance = instance
        self._seen: _Recent[Obj] = _Recent()

    def correlate(self, occurrence: Occurrence, now: datetime) -> Write | None:
        """See Correlator."""
        reference = occurrence.regarding
        related = occurrence.related or {}
        identity = tuple(
            part.get(name, "")
            for part in (reference, related)
            for name in ("kind", "namespace", "name", "uid", "fieldPath")
        )
        key = (*identity, occurrence.type, occurrence.reason, occurrence.action)
        stamp = format_micro_time(now)
        earlier = self._seen.get(key)
        if earlier is not None and now.timestamp() - earlier["at"] < _SERIES_SECONDS:
            event = earlier["event"]
            series = event.get("series")
            count = series["count"] + 1 if series else 2
            event = {**event, "series": {"count": count, "lastObservedTime": stamp}}
            # Upstream writes the start of a series and then only heartbeats; powers of two keep kubectl's count honest too.
            self._seen.put(key, {"event": event, "at": now.timestamp()})
            return Write(event, {"series": event["series"]}) if count & (count - 1) == 0 else None
        event = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": _event_name(reference, now), "namespace": reference.get("namespace") or "default"},
            "eventTime": stamp,
            "reportingController": self._component,
            "reportingInstance": self._instance,
            "action": occurrence.action,
            "reason": occurrence.reason,
            "regarding": reference,
            "note": occurrence.message,
            "type": occurrence.type,
        }
        if related:
            event["related"] = related
        self._seen.put(key, {"event": event, "at": now.timestamp()})
        return Write(event)


class EventRecorder:
    """Records without blocking: occurrences wait in a bounded queue and are lost when it is full, as upstream."""

    def __init__(
        self,
        client: RestClient,
        component: str,
        *,
        host: str = "",
        api: Literal["v1", "events.k8s.io/v1"] = "v1",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        queue: int = _MAX_QUEUE,
    ) -> None:
        self._client = client
        self._now = now
        self._correlator: Correlator = (
            CountCorrelator(component, host) if api == "v1" else SeriesCorrelator(component, f"{component}-{host}")
        )
        self._queue: asyncio.Queue[Occurrence] = asyncio.Queue(queue)
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    def event(
        self, obj: Obj, type_: EventType, reason: str, message: str, *, related: Obj | None = None, action: str = ""
    ) -> None:
        """Something happened to ``obj`` (an object or an ObjectReference)."""
        about = object_reference(related) if related else None
        try:
            self._queue.put_nowait(
                Occurrence(object_reference(obj), type_, reason, message[:1024], about, action or reason)
            )
        except asyncio.QueueFull:
            self.dropped += 1

    async def start(self) -> None:
        """Begin to write."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="event recorder")

    async def stop(self, timeout: float = 2.0) -> None:
        """Write what is queued, for at most ``timeout`` seconds, and stop."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(timeout):
                await self._queue.join()
        except TimeoutError:
            log.info("%d events not written", self._queue.qsize())
        task, self._task = self._task, None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            occurrence = await self._queue.get()
            try:
                write = self._correlator.correlate(occurrence, self._now())
                if write is not None:
                    await self._write(write)
            except Exception:
                log.exception("event %s about %s not recorded", occurrence.reason, occurrence.regarding.get("name"))
            finally:
                self._queue.task_done()

    async def _write(self, write: Write) -> None:
        for attempt in range(_WRITE_TRIES):
            try:
                await self._send(write)
                return
            except StatusError as exc:
                # refused, e.g. in a terminating namespace: trying again will not help (upstream recordEvent)
                log.debug("event %s rejected: %s", write.event["reason"], exc.message)
                return
            except ClientError as exc:
                log.info("event %s: %s", write.event["reason"], exc)
                await asyncio.sleep(2**attempt)

    async def _send(self, write: Write) -> None:
        meta = write.event["metadata"]
        gvr = self._correlator.gvr
        if write.patch is not None:
            try:
                await self._client.patch(
                    gvr, meta["name"], write.patch, namespace=meta["namespace"], patch_type=PatchType.MERGE
                )
                return
            except NotFoundError:
                log.debug("event %s is gone; recorded anew", meta["name"])
        await self._client.create(gvr, write.event, namespace=meta["namespace"])


class _Recent(Generic[Value]):
    """The most recently used entries; the number is bounded."""

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, ...], Value] = OrderedDict()

    def get(self, key: tuple[str, ...]) -> Value | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: tuple[str, ...], value: Value) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > _MAX_CACHE:
            self._entries.popitem(last=False)
