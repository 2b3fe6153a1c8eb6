"""Leader election with a Lease (client-go tools/leaderelection with the LeaseLock).

The holder renews every ``retry_period`` and gives up when it could not for ``renew_deadline``; the others take over when
they have seen no change for ``lease_duration`` by their own clock, so that clocks need not agree. They watch the lease, so
that they see each renewal and a release at once, and take over on time; where they may not watch, they poll.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from bowsprit.client.errors import ClientError
from bowsprit.client.resources import LEASES
from bowsprit.client.rest import RestClient
from bowsprit.machinery.errors import NotFoundError, StatusError
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import format_micro_time

log = logging.getLogger(__name__)

JITTER_FACTOR = 1.2


class LeadershipLost(Exception):
    """The lease could not be renewed in time, or another holds it now; the process must stop acting."""


@dataclass(frozen=True, slots=True)
class LeaderElectionConfig:
    """Where the lease is and who we are; durations are seconds and must satisfy lease > renew > retry * 1.2."""

    namespace: str
    name: str
    identity: str
    lease_duration: float = 15.0
    renew_deadline: float = 10.0
    retry_period: float = 2.0
    release_on_cancel: bool = True

    def __post_init__(self) -> None:
        if self.lease_duration <= self.renew_deadline:
            raise ValueError("leaseDuration must be greater than renewDeadline")
        if self.renew_deadline <= JITTER_FACTOR * self.retry_period:
            raise ValueError("renewDeadline must be greater than retryPeriod*JitterFactor")
        if self.retry_period <= 0:
            raise ValueError("retryPeriod must be greater than zero")
        if not self.identity:
            raise ValueError("Lock identity is empty")


@dataclass(slots=True)
class Observation:
    """The record last seen, and when (by our clock) it last changed."""

    spec: Obj
    at: float


class LeaderElector:
    """Runs something while it leads."""

    def __init__(
        self,
        client: RestClient,
        config: LeaderElectionConfig,
        *,
        on_new_leader: Callable[[str], None] | None = None,
        on_event: Callable[[Obj, str], None] | None = None,
        clock: Callable[[], float] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._config = config
        self._on_new_leader = on_new_leader
        self._on_event = on_event
        self._clock = clock or asyncio.get_running_loop().time
        self._now = now
        self._lease: Obj | None = None
        self._observed: Observation | None = None
        self._reported = ""
        self._renewed_at = float("-inf")

    @property
    def leader(self) -> str:
        """Who leads, as far as we know."""
        return str(self._observed.spec.get("holderIdentity") or "") if self._observed else ""

    @property
    def is_leader(self) -> bool:
        """Whether the last record seen is ours."""
        return self.leader == self._config.identity

    def check(self, tolerance: float = 20.0) -> str | None:
        """The leaderElection health check: an error text when we lead but our lease has long run out."""
        if self.is_leader and self._clock() > self._renewed_at + self._config.lease_duration + tolerance:
            return "failed election to renew leadership on lease " + self._config.name
        return None

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for leadership, then run ``lead`` until it returns. Raises LeadershipLost when the lease is lost.

        On cancellation, and when ``lead`` ends, the lease is released if the configuration says so.
        """
        try:
            await self._acquire()
            work = asyncio.ensure_future(lead())
            renewal = asyncio.ensure_future(self._renew())
            try:
                await asyncio.wait({work, renewal}, return_when=asyncio.FIRST_COMPLETED)
                if renewal.done():
                    renewal.result()
                work.result()
            finally:
                for task in (work, renewal):
                    task.cancel()
                await asyncio.gather(work, renewal, return_exceptions=True)
        finally:
            if self._config.release_on_cancel and self.is_leader:
                await asyncio.shield(self._release())

    async def _acquire(self) -> None:
        while not await self._try_acquire_or_renew():
            pause = self._config.retry_period * random.uniform(1, 1 + JITTER_FACTOR)
            if self._lease is None or not self.leader or self._observed is None:
                await asyncio.sleep(pause)
                continue
            left = self._observed.at + self._config.lease_duration - self._clock()
            if not await self._watch(max(left, 0.0)):
                await asyncio.sleep(min(pause, max(left, self._config.retry_period / 10)))
        log.info("successfully acquired lease %s/%s", self._config.namespace, self._config.name)
        self._event("became leader")

    async def _watch(self, seconds: float) -> bool:
        """Follow the lease until its holder lets go or has not renewed it in time; False when watching is refused."""
        assert self._lease is not None
        assert self._observed is not None
        holder, deadline = self.leader, self._clock() + seconds
        try:
            async with asyncio.timeout(seconds) as limit, aclosing(self._changes(self._lease)) as changes:
                async for lease in changes:
                    self._lease = lease
                    self._observe(lease.get("spec") or {})
                    if self.leader != holder:
                        return True
                    later = self._observed.at + self._config.lease_duration
                    limit.reschedule(asyncio.get_running_loop().time() + max(later - self._clock(), 0.0))
                    deadline = later
        except TimeoutError:
            return self._clock() >= deadline
        except (StatusError, ClientError, OSError) as exc:
            log.debug("lease %s cannot be watched: %s", self._config.name, exc)
        self._lease = None
        return False

    async def _changes(self, lease: Obj) -> AsyncGenerator[Obj, None]:
        version = (lease.get("metadata") or {}).get("resourceVersion")
        selector = f"metadata.name={self._config.name}"
        events = self._client.watch(
            LEASES, namespace=self._config.namespace, field_selector=selector, resource_version=version, bookmarks=False
        )
        async with aclosing(events):
            async for event in events:
                if event.type == "DELETED":
                    return
                yield event.object

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._config.retry_period)
            try:
                async with asyncio.timeout(self._config.renew_deadline):
                    while not await self._try_acquire_or_renew():
                        if (
                            self._observed is not None
                            and not self.is_leader
                            and self._observed.spec.get("holderIdentity")
                        ):
                            raise LeadershipLost(f"lease {self._config.name} is held by {self.leader}")
                        await asyncio.sleep(self._config.retry_period)
            except TimeoutError as exc:
                self._event("stopped leading")
                raise LeadershipLost(f"failed to renew lease {self._config.namespace}/{self._config.name}") from exc

    async def _try_acquire_or_renew(self) -> bool:
        try:
            async with asyncio.timeout(max(1.0, self._config.renew_deadline / 2)):
                return await self._attempt()
        except (StatusError, ClientError, TimeoutError) as exc:
            self._lease = None  # read it again next time
            log.info("lease %s/%s: %s", self._config.namespace, self._config.name, exc)
            return False

    async def _attempt(self) -> bool:
        config = self._config
        if self._lease is None:
            try:
                self._lease = await self._client.get(LEASES, config.name, namespace=config.namespace)
            except NotFoundError:
                body = {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": config.name, "namespace": config.namespace},
                    "spec": next_record(None, config, self._now()),
                }
                self._lease = await self._client.create(LEASES, body, namespace=config.namespace)
                self._renewed()
                return True
            self._observe(self._lease.get("spec") or {})
        elif not self.is_leader:
            self._observe((await self._refresh()).get("spec") or {})
        assert self._observed is not None
        if not self.is_leader and self.leader and self._clock() < self._observed.at + config.lease_duration:
            return False
        spec = next_record(self._observed.spec, config, self._now())
        self._lease = await self._client.update(LEASES, {**self._lease, "spec": spec}, namespace=config.namespace)
        self._renewed()
        return True

    async def _refresh(self) -> Obj:
        self._lease = await self._client.get(LEASES, self._config.name, namespace=self._config.namespace)
        return self._lease

    def _renewed(self) -> None:
        assert self._lease is not None
        self._renewed_at = self._clock()
        self._observe(self._lease.get("spec") or {})

    def _observe(self, spec: Obj) -> None:
        if self._observed is None or self._observed.spec != spec:
            self._observed = Observation(spec, self._clock())
        if self.leader != self._reported:
            self._reported = self.leader
            if self._on_new_leader and self.leader:
                self._on_new_leader(self.leader)

    async def _release(self) -> None:
        if self._lease is None:
            return
        spec = released_record(self._lease.get("spec") or {}, self._now())
        try:
            async with asyncio.timeout(5):
                await self._client.update(LEASES, {**self._lease, "spec": spec}, namespace=self._config.namespace)
            self._observe(spec)
        except (StatusError, ClientError, TimeoutError) as exc:
            log.info("lease %s not released: %s", self._config.name, exc)

    def _event(self, what: str) -> None:
        if self._on_event and self._lease is not None:
            self._on_event(self._lease, f"{self._config.identity} {what}")


def next_record(current: Obj | None, config: LeaderElectionConfig, now: datetime) -> Obj:
    """The Lease spec with which ``config.identity`` takes or keeps the lease."""
    current = current or {}
    held_by_us = current.get("holderIdentity") == config.identity
    moment = format_micro_time(now)
    transitions = int(current.get("leaseTransitions") or 0)
    return {
        **current,
        "holderIdentity": config.identity,
        "leaseDurationSeconds": int(config.lease_duration),
        "acquireTime": current.get("acquireTime") or moment if held_by_us else moment,
        "renewTime": moment,
        "leaseTransitions": transitions if held_by_us or not current else transitions + 1,
    }


def released_record(current: Obj, now: datetime) -> Obj:
    """The Lease spec of a lease given up: no holder, and it runs out after a second (upstream release())."""
    moment = format_micro_time(now)
    return {
        "holderIdentity": "",
        "leaseDurationSeconds": 1,
        "acquireTime": moment,
        "renewTime": moment,
        "leaseTransitions": int(current.get("leaseTransitions") or 0),
    }
