"""The binding cycle: Permit's wait, PreBind, Bind, PostBind, with what happens when one of them fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from bowsprit.scheduler.core import Assigned, Failed, SchedulerCore, Skipped
from bowsprit.scheduler.driver.extenders import HTTPExtender
from bowsprit.scheduler.driver.guard import Guard, Overdue
from bowsprit.scheduler.driver.metrics import Metrics
from bowsprit.scheduler.framework import Code, Status, failure, unschedulable
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.profile import Profile
from bowsprit.scheduler.queue import QueuedPod

log = logging.getLogger(__name__)

BIND_TIMEOUT = 900.0  # a PreBind or Bind plugin that hangs is given up
PLUGIN_TIMEOUT = 10.0  # a plugin of somebody else's that hangs in a cycle


class Gate(Protocol):
    """Keeps events from the core while it is busy in another thread (the Watcher)."""

    def hold(self) -> None: ...
    def release(self) -> None: ...


class WaitingPod:
    """A pod that Permit plugins hold: allowed when all of them have allowed it, rejected by any."""

    def __init__(self, pod: PodInfo, plugins: Sequence[str]):
        self.pod = pod
        self._pending = set(plugins)
        self._loop = asyncio.get_running_loop()
        self._verdict: asyncio.Future[Status | None] = self._loop.create_future()

    @property
    def pending(self) -> frozenset[str]:
        return frozenset(self._pending)

    def allow(self, plugin: str) -> None:
        self._pending.discard(plugin)
        if not self._pending:
            self._settle(None)

    def reject(self, plugin: str, message: str) -> None:
        self._settle(unschedulable(message).of(plugin))

    def _settle(self, status: Status | None) -> None:
        """Plugins call from their own thread."""

        def settle() -> None:
            if not self._verdict.done():
                self._verdict.set_result(status)

        self._loop.call_soon_threadsafe(settle)

    async def verdict(self, timeout: float, slowest: str) -> Status | None:
        done, _ = await asyncio.wait({self._verdict}, timeout=timeout)
        if not done:
            text = f"rejected due to timeout after waiting {timeout:g}s at plugin {slowest}"
            return unschedulable(text).of(slowest)
        return self._verdict.result()


class Binder:
    """Finishes pods that have a node. `waiting` holds those that Permit plugins make wait, by uid."""

    def __init__(
        self,
        core: SchedulerCore,
        extenders: Sequence[HTTPExtender],
        watcher: Gate,
        metrics: Metrics | None = None,
        timeout: float = BIND_TIMEOUT,
        plugin_timeout: float = PLUGIN_TIMEOUT,
    ):
        self._core = core
        self._extenders = extenders
        self._watcher = watcher
        self._timeout = timeout
        self._metrics = metrics or Metrics()
        self.lock = asyncio.Lock()  # held while plugins run in another thread: nobody else may touch the core
        self.waiting: dict[str, WaitingPod] = {}
        self._guard = Guard(plugin_timeout)
        self._guarded = {p.scheduler_name for p in core.profiles.values() if self._guard.watch(p)}
        for profile in core.profiles.values():
            for plugin in profile.at["permit"]:
                if hasattr(plugin, "waiting"):
                    plugin.waiting = self.waiting

    async def cycle(self, queued: QueuedPod) -> Assigned | Failed | Skipped:
        """Run a cycle: in a thread where plugins are not ours, or extenders' HTTP calls need this loop meanwhile."""
        guarded = queued.pod.scheduler_name in self._guarded
        async with self.lock:
            if not guarded and not self._extenders:
                return self._core.run_cycle(queued)
            self._watcher.hold()
            try:
                if not guarded:
                    return await asyncio.to_thread(self._core.run_cycle, queued)
                return await self._guard.run(lambda: self._core.run_cycle(queued))
            except Overdue as overdue:
                return self._overdue(queued, overdue)
            finally:
                self._watcher.release()

    def _overdue(self, queued: QueuedPod, overdue: Overdue) -> Failed:
        """Undo what an abandoned cycle has done: it may have assumed the pod."""
        log.error("pod %s: %s", queued.pod.key, overdue)
        self._metrics.overdue(overdue.plugin, overdue.method)
        profile = self._core.profiles[queued.pod.scheduler_name]
        self._core.abandon(profile, queued.pod)
        return self._core.fail(queued, profile, failure(str(overdue)).of(overdue.plugin))

    async def _call(self, profile: Profile, work: Callable[[], None]) -> None:
        """Something that calls plugins after the cycle; called with the lock held."""
        if profile.scheduler_name not in self._guarded:
            work()
            return
        self._watcher.hold()
        try:
            await self._guard.run(work)
        except Overdue as overdue:
            log.error("%s", overdue)
            self._metrics.overdue(overdue.plugin, overdue.method)
        finally:
            self._watcher.release()

    def close(self) -> None:
        self._guard.close()

    def reject_waiting(self, uid: str, message: str) -> bool:
        """Turn a waiting pod away; False when it does not wait here."""
        waiting = self.waiting.get(uid)
        if waiting is not None:
            waiting.reject("DefaultPreemption", message)
        return waiting is not None

    async def bind(self, assigned: Assigned) -> Failed | None:
        """None when the pod is bound; else it is back in the queue."""
        pod = assigned.queued.pod
        try:
            status = await self._steps(assigned)
        except asyncio.CancelledError:
            self._core.give_up(assigned.profile, assigned.state, pod)
            raise
        except Exception as exc:
            status = failure(f"{type(exc).__name__}: {exc}")
        async with self.lock:
            if status is None:
                self._core.queue.done(pod.uid)
                for plugin in assigned.profile.at["postBind"]:
                    node = assigned.placement.node
                    await self._call(assigned.profile, partial(plugin.post_bind, assigned.state, pod, node))
                return None
            await self._call(assigned.profile, lambda: self._core.give_up(assigned.profile, assigned.state, pod))
            self._core.abandon(assigned.profile, pod)  # nothing is left to do unless a plugin hangs
            return self._core.fail(assigned.queued, assigned.profile, status)

    async def _steps(self, assigned: Assigned) -> Status | None:
        profile = assigned.profile
        if assigned.waits:
            started = time.monotonic()
            status = await self._wait(assigned)
            self._metrics.permit_wait(status is None, time.monotonic() - started)
            if status is not None:
                return status
        started = time.monotonic()
        status = await self._pre_bind(assigned)
        self._metrics.point("PreBind", status is None, profile.scheduler_name, time.monotonic() - started)
        if status is not None:
            return status
        started = time.monotonic()
        status = await self._bind(assigned)
        self._metrics.point("Bind", status is None, profile.scheduler_name, time.monotonic() - started)
        return status

    async def _pre_bind(self, assigned: Assigned) -> Status | None:
        pod, node, profile = assigned.queued.pod, assigned.placement.node, assigned.profile
        for plugin in profile.at["preBind"]:
            async with asyncio.timeout(self._timeout):
                status = await plugin.pre_bind(assigned.state, pod, node)
            if status is not None:
                rejected: bool = status.rejected
                return status if rejected else _error(f'running PreBind plugin "{plugin.name}"', status)
        return None

    async def _bind(self, assigned: Assigned) -> Status | None:
        pod, node, profile = assigned.queued.pod, assigned.placement.node, assigned.profile
        for extender in self._extenders:
            if extender.is_binder and extender.is_interested(pod):
                return await extender.bind(pod, node)
        for plugin in profile.at["bind"]:
            async with asyncio.timeout(self._timeout):
                status = await plugin.bind(assigned.state, pod, node)
            if status is None:
                return None
            if status.code != Code.SKIP:
                return status if status.rejected else _error(f'running Bind plugin "{plugin.name}"', status)
        return failure("no bind plugin took the pod")

    async def _wait(self, assigned: Assigned) -> Status | None:
        pod = assigned.queued.pod
        waiting = self.waiting[pod.uid] = WaitingPod(pod, list(assigned.waits))
        try:
            first = min(assigned.waits, key=lambda name: assigned.waits[name])
            return await waiting.verdict(assigned.waits[first], first)
        finally:
            del self.waiting[pod.uid]


def _error(what: str, status: Status) -> Status:
    return failure(f"{what}: {status.message}").of(status.plugin)
