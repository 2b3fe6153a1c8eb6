"""Leases: a server publishes itself and removes the dead ones; an agent counts the living (pkg/server/leases, pkg/agent)."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from bowsprit.client.errors import ClientError
from bowsprit.client.resources import LEASES
from bowsprit.client.rest import RestClient
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.errors import ConflictError, NotFoundError, StatusError
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import format_micro_time, parse_micro_time

log = logging.getLogger(__name__)

DURATION = 30
RENEW_INTERVAL = 15.0
GC_INTERVAL = 15.0
_JITTER = 0.04
_FIRST_RETRY, _LAST_RETRY = 0.2, 7.0
_WATCH_SECONDS = 600
_RELIST = 10.0
_FAILURES = (ClientError, StatusError, OSError, DecodeError)


def is_valid(lease: Obj, now: float) -> bool:
    """Whether the holder has renewed in time (util.IsLeaseValid)."""
    spec = lease.get("spec") or {}
    stamp = spec.get("renewTime") or spec.get("acquireTime")
    if not stamp:
        return False
    try:
        renewed = parse_micro_time(str(stamp)).timestamp()
    except DecodeError:
        return False
    return renewed + float(spec.get("leaseDurationSeconds") or 0) > now


class LeaseObserver(Protocol):
    """What is counted of the calls; ``latency`` in seconds."""

    def listed(self, code: int, reason: str, latency: float) -> None:
        """A list call."""

    def deleted(self, code: int, reason: str, latency: float) -> None:
        """A deletion of an expired lease."""

    def culled(self) -> None:
        """An expired lease is gone."""

    def watched(self, code: int, reason: str) -> None:
        """A watch call."""


def _outcome(exc: Exception) -> tuple[int, str]:
    return (exc.code, exc.reason) if isinstance(exc, StatusError) else (0, type(exc).__name__)


class LeaseController:
    """Keeps ``konnectivity-proxy-server-<id>`` alive and deletes expired leases with the same labels."""

    def __init__(
        self,
        client: RestClient,
        server_id: str,
        namespace: str,
        labels: Mapping[str, str],
        observer: LeaseObserver,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._server_id = server_id
        self._namespace = namespace
        self._labels = dict(labels)
        self._observer = observer
        self._now = now
        self._name = f"konnectivity-proxy-server-{server_id}"
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._keep(), name="lease-renewal"),
            loop.create_task(self._collect_forever(), name="lease-collection"),
        ]

    async def stop(self) -> None:
        """End, and delete our lease."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(5):
                await self._client.delete(LEASES, self._name, namespace=self._namespace)
        except (*_FAILURES, TimeoutError) as exc:
            log.error("Could not clean up lease %r in namespace %r: %s", self._name, self._namespace, exc)

    async def _keep(self) -> None:
        retry = _FIRST_RETRY
        while True:
            try:
                await self.renew()
                retry = _FIRST_RETRY
                await asyncio.sleep(RENEW_INTERVAL * (1 + random.random() * _JITTER))
            except _FAILURES as exc:
                log.error("could not renew lease %r: %s", self._name, exc)
                await asyncio.sleep(retry)
                retry = min(retry * 2, _LAST_RETRY)

    async def renew(self) -> None:
        """Create the lease or renew it."""
        stamp = format_micro_time(self._now())
        try:
            lease = await self._client.get(LEASES, self._name, namespace=self._namespace)
        except NotFoundError:
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "namespace": self._namespace, "labels": self._labels},
                "spec": {"holderIdentity": self._server_id, "leaseDurationSeconds": DURATION, "renewTime": stamp},
            }
            await self._client.create(LEASES, lease, namespace=self._namespace)
            return
        lease["metadata"]["labels"] = self._labels
        lease["spec"] = {
            **(lease.get("spec") or {}),
            "holderIdentity": self._server_id,
            "leaseDurationSeconds": DURATION,
            "renewTime": stamp,
        }
        await self._client.update(LEASES, lease, namespace=self._namespace)

    async def _collect_forever(self) -> None:
        while True:
            await asyncio.sleep(GC_INTERVAL)
            await self.collect()

    async def collect(self) -> None:
        """Delete the expired leases, each only if it is as we have seen it."""
        selector = ",".join(f"{key}={value}" for key, value in sorted(self._labels.items()))
        start = time.monotonic()
        try:
            answer = await self._client.list(LEASES, namespace=self._namespace, label_selector=selector)
        except _FAILURES as exc:
            log.error("Could not list leases to garbage collect: %s", exc)
            self._observer.listed(*_outcome(exc), time.monotonic() - start)
            return
        self._observer.listed(200, "", time.monotonic() - start)
        for lease in answer.get("items") or []:
            if is_valid(lease, self._now()):
                continue
            meta = lease["metadata"]
            start = time.monotonic()
            try:
                version = meta.get("resourceVersion")
                await self._client.delete(LEASES, meta["name"], namespace=self._namespace, resource_version=version)
            except NotFoundError as exc:
                self._observer.deleted(*_outcome(exc), time.monotonic() - start)
            except (ConflictError, *_FAILURES) as exc:
                log.error("Could not delete lease %s: %s", meta["name"], exc)
                self._observer.deleted(*_outcome(exc), time.monotonic() - start)
            else:
                self._observer.culled()
                self._observer.deleted(200, "", time.monotonic() - start)


class LeaseCounter:
    """Counts the valid leases of servers, from a list that a watch keeps fresh."""

    def __init__(
        self,
        client: RestClient,
        namespace: str,
        selector: str,
        observer: LeaseObserver,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._selector = selector
        self._observer = observer
        self._now = now
        self._leases: dict[str, Obj] = {}
        self._task: asyncio.Task[None] | None = None
        self.synced = asyncio.Event()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="lease-count")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def count(self) -> int:
        """The number of valid leases; 0 when none is known."""
        return sum(is_valid(lease, self._now()) for lease in self._leases.values())

    async def _follow(self) -> None:
        while True:
            try:
                await self._list_and_watch()
            except _FAILURES as exc:
                log.warning("counting leases: %s", exc)
            await asyncio.sleep(_RELIST if not self.synced.is_set() else 1.0)

    async def _list_and_watch(self) -> None:
        start = time.monotonic()
        try:
            answer = await self._client.list(LEASES, namespace=self._namespace, label_selector=self._selector)
        except _FAILURES as exc:
            self._observer.listed(*_outcome(exc), time.monotonic() - start)
            raise
        self._observer.listed(200, "", time.monotonic() - start)
        self._leases = {lease["metadata"]["name"]: lease for lease in answer.get("items") or []}
        self.synced.set()
        version = (answer.get("metadata") or {}).get("resourceVersion")
        counted = False
        try:
            events = self._client.watch(
                LEASES, namespace=self._namespace, label_selector=self._selector, resource_version=version,
                timeout_seconds=_WATCH_SECONDS,
            )  # fmt: skip
            async for event in events:
                if not counted:
                    counted = True
                    self._observer.watched(200, "")
                name = (event.object.get("metadata") or {}).get("name", "")
                if event.type == "DELETED":
                    self._leases.pop(name, None)
                elif event.type in ("ADDED", "MODIFIED"):
                    self._leases[name] = event.object
        except _FAILURES as exc:
            self._observer.watched(*_outcome(exc))
            raise
        if not counted:
            self._observer.watched(200, "")
