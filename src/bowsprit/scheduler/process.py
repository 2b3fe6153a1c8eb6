"""The scheduler process: elects itself leader, watches, schedules and binds, and answers on HTTPS.

    informers -> core (cache, queue) -> scheduling loop, one pod after the other
                                         |-> binding tasks: Permit, PreBind, Bind, PostBind
                                         `-> failures: event, condition, nomination, preemption

Runs alone (`bowsprit scheduler`) or inside another event loop (the embedded cluster).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from bowsprit.client.events import EventRecorder
from bowsprit.client.leaderelection import LeaderElectionConfig, LeaderElector, LeadershipLost
from bowsprit.client.rest import RestClient
from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.cache import Cache
from bowsprit.scheduler.config import default_config
from bowsprit.scheduler.config.duration import seconds
from bowsprit.scheduler.core import Assigned, Failed, SchedulerCore, Skipped
from bowsprit.scheduler.driver.binding import PLUGIN_TIMEOUT, Binder
from bowsprit.scheduler.driver.extenders import HTTPExtender
from bowsprit.scheduler.driver.metrics import Metrics
from bowsprit.scheduler.driver.server import SchedulerServer, ServingOptions
from bowsprit.scheduler.driver.watching import Watcher
from bowsprit.scheduler.driver.writing import WRITE_ERRORS, Writer
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.preemption import Preemption
from bowsprit.scheduler.profile import PluginFactory, Profile
from bowsprit.scheduler.queue import QueuedPod
from bowsprit.scheduler.registry import registry

log = logging.getLogger(__name__)

MESSAGE_LIMIT = 1024  # bytes of an event's note
_SYNC_TIMEOUT = 120.0
_MAX_EVENTS = 50_000  # that wait to be written: a full cluster's worth of pods; beyond, events are lost
_MAX_UNFINISHED = 20_000  # pods between their decision and its end: being bound, waiting at Permit or for volumes


@dataclass(slots=True)
class SchedulerOptions:
    """`secure_port` 0 takes any free port, None or -1 serves no HTTPS. How fast clients may be is the factory's choice."""

    config: Obj | None = None
    gates: Mapping[str, bool] = field(default_factory=dict)
    identity: str = ""
    leader_elect: bool | None = None
    secure_port: int | None = 10259
    serving: ServingOptions = field(default_factory=ServingOptions)
    qps: float | None = None  # accepted for callers that name it; see the class
    max_unschedulable: float = 300.0
    stop_timeout: float = 10.0
    bind_address: str = "127.0.0.1"
    plugin_timeout: float = PLUGIN_TIMEOUT  # seconds that a plugin of somebody else's may take in a cycle


class Scheduler:
    """`client_factory(user_agent)` makes a RestClient, which the scheduler owns and closes."""

    def __init__(
        self,
        client_factory: Callable[[str], RestClient],
        options: SchedulerOptions | None = None,
        plugins: Mapping[str, PluginFactory] | None = None,
    ):
        self._options = options or SchedulerOptions()
        self._config = self._options.config or default_config()
        self._factory = client_factory
        self._plugins = dict(plugins or {})
        self.metrics = Metrics()
        origin = time.time() - time.monotonic()
        # wall time at the start; later jumps of it do not matter
        self._clock: Callable[[], float] = lambda: origin + time.monotonic()
        self.exit_code: int | None = None
        self._clients: list[RestClient] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._done = asyncio.Event()
        self._wake = asyncio.Event()
        self._stopping = False
        self._scheduling = False
        self._elector: LeaderElector | None = None
        self._server: SchedulerServer | None = None
        self._loop_task: asyncio.Task[None] | None = None
        self._watcher: Watcher | None = None
        self._recorders: dict[str, EventRecorder] = {}
        self._core: SchedulerCore | None = None
        self._extenders: list[HTTPExtender] = []

    # life

    @property
    def port(self) -> int:
        """The HTTPS port that is served, 0 when none is."""
        return self._server.port if self._server else 0

    @property
    def core(self) -> SchedulerCore:
        assert self._core is not None, "the scheduler is not started"
        return self._core

    def _client(self, purpose: str) -> RestClient:
        client = self._factory(purpose)
        self._clients.append(client)
        return client

    async def start(self) -> None:
        """Return when the caches are synced, HTTPS is served, and pods are scheduled (or the lease is waited for)."""
        client = self._client("kube-scheduler")
        loop = asyncio.get_running_loop()
        cache = Cache()

        def node_of(name: str) -> Obj:
            info = cache.nodes.node(name)
            return info.obj if info is not None else {"metadata": {"name": name}}

        self._extenders = [HTTPExtender(item, loop, node_of) for item in self._config.get("extenders") or ()]
        self._extenders.sort(key=lambda extender: extender.ignorable)
        self._writer = Writer(client, cache.objects)
        self._core = SchedulerCore(
            self._config,
            registry(self._plugins),
            self._clock,
            gates=self._options.gates,
            observer=self.metrics.queued,
            binder=self._writer.bind,
            client=self._writer,
            extenders=list(self._extenders),
            max_unschedulable=self._options.max_unschedulable,
            cache=cache,
        )
        self._core.recorder = self.metrics.ran
        self._watcher = Watcher(client, self._core, self._wake.set, self.metrics.handled)
        self._binder = Binder(
            self._core,
            self._extenders,
            self._watcher,
            self.metrics,
            plugin_timeout=self._options.plugin_timeout,
        )
        for name in self._core.profiles:
            recorder = EventRecorder(client, name, host=socket.gethostname(), api="events.k8s.io/v1", queue=_MAX_EVENTS)
            await recorder.start()
            self._recorders[name] = recorder
        if self._options.secure_port not in (None, -1):
            self._server = SchedulerServer(
                self._options.serving, self._config, self.metrics, self._checks, client, self._core
            )
            await self._server.start(self._options.bind_address, int(self._options.secure_port or 0))
        delay = bool(self._config.get("delayCacheUntilActive"))
        if not (delay and self._elects):
            await self._watcher.start(_SYNC_TIMEOUT)
        self._loop_task = loop.create_task(self._run(client), name="scheduler")

    @property
    def _elects(self) -> bool:
        if self._options.leader_elect is not None:
            return self._options.leader_elect
        return bool((self._config.get("leaderElection") or {}).get("leaderElect"))

    async def _run(self, client: RestClient) -> None:
        try:
            if not self._elects:
                await self._lead()
                return
            election = self._config["leaderElection"]
            identity = self._options.identity or f"{socket.gethostname()}_{uuid.uuid4()}"
            self._elector = LeaderElector(
                client,
                LeaderElectionConfig(
                    election["resourceNamespace"],
                    election["resourceName"],
                    identity,
                    seconds(election["leaseDuration"]),
                    seconds(election["renewDeadline"]),
                    seconds(election["retryPeriod"]),
                ),
            )
            await self._elector.run(self._lead)
        except LeadershipLost as exc:
            log.error("leaderelection lost: %s", exc)
            self.exit_code = 1
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("the scheduler has failed")
            self.exit_code = 1
        finally:
            self._scheduling = False
            self._done.set()

    async def wait(self) -> int:
        """Until the process should end: 0 after stop(), 1 when the lease was lost."""
        await self._done.wait()
        return self.exit_code or 0

    async def stop(self) -> None:
        """No new cycles; what is being bound gets a while to finish; the lease is released."""
        self._stopping = True
        self._wake.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._options.stop_timeout)
        for task in list(self._tasks):
            task.cancel()
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)
        if self._watcher is not None:
            await self._watcher.stop()
            self._binder.close()
        for recorder in self._recorders.values():
            await recorder.stop()
        if self._server is not None:
            await self._server.stop()
        for extender in self._extenders:
            await extender.close()
        for client in self._clients:
            await client.close()
        self._done.set()

    def _checks(self) -> dict[str, Callable[[], str | None]]:
        def leader() -> str | None:
            return self._elector.check() if self._elector else None

        def synced() -> str | None:
            return None if self._watcher and self._watcher.synced else "informers are not synced"

        def running() -> str | None:
            return "process is shutting down" if self._stopping else None

        return {"leaderElection": leader, "sched-handler-sync": synced, "shutdown": running}

    # scheduling

    async def _lead(self) -> None:
        assert self._watcher is not None
        if not self._watcher.synced:
            await self._watcher.start(_SYNC_TIMEOUT)
        self._scheduling = True
        flusher = asyncio.get_running_loop().create_task(self._flush(), name="scheduler flush")
        try:
            await self._schedule()
        finally:
            self._scheduling = False
            flusher.cancel()
            await asyncio.gather(flusher, return_exceptions=True)

    async def _flush(self) -> None:
        """Backoff each second, the unschedulable pool every thirty."""
        ticks = 0
        while True:
            await asyncio.sleep(1.0)
            ticks += 1
            async with self._binder.lock:
                self.core.queue.flush_backoff()
                if ticks % 30 == 0:
                    self.core.queue.flush_unschedulable()
                self.metrics.sizes(self.core)
            self.metrics.binding(len(self._tasks))
            if self._elector is not None:
                self.metrics.leads(self._config["leaderElection"]["resourceName"], self._elector.is_leader)
            self._wake.set()

    async def _schedule(self) -> None:
        """One pod after the other; other tasks run between two of them."""
        core = self.core
        while not self._stopping:
            if self._writer.saturated:
                await self._writer.room()
            if len(self._tasks) >= _MAX_UNFINISHED:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            queued = core.queue.pop()
            if queued is None:
                self._wake.clear()
                if core.queue.empty:
                    await self._wake.wait()
                continue
            await self._attempt(queued)
            await asyncio.sleep(0)

    async def _attempt(self, queued: QueuedPod) -> None:
        started = time.monotonic()
        result = await self._binder.cycle(queued)
        self.metrics.cycle(time.monotonic() - started)
        if isinstance(result, Assigned):
            self._spawn(self._bind(result, started))
        elif isinstance(result, Failed):
            self._failed(result, started)
        elif isinstance(result, Skipped) and result.message:
            self._event(queued.pod, "Warning", "FailedScheduling", "Scheduling", result.message)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("a scheduling task has failed", exc_info=task.exception())

    async def _bind(self, assigned: Assigned, started: float) -> None:
        pod, node = assigned.queued.pod, assigned.placement.node
        failed = await self._binder.bind(assigned)
        if failed is not None:
            self._failed(failed, started)
            return
        self.metrics.attempt("scheduled", pod.scheduler_name, time.monotonic() - started)
        self.metrics.scheduled(assigned.queued, self._clock())
        self._event(pod, "Normal", "Scheduled", "Binding", f"Successfully assigned {pod.key} to {node}")

    def _failed(self, failed: Failed, started: float) -> None:
        pod = failed.queued.pod
        outcome = "unschedulable" if failed.reason == "Unschedulable" else "error"
        self.metrics.attempt(outcome, pod.scheduler_name, time.monotonic() - started)
        self._event(pod, "Warning", "FailedScheduling", "Scheduling", truncated(failed.message))
        self._spawn(self._report(failed))

    async def _report(self, failed: Failed) -> None:
        pod = failed.queued.pod
        try:
            await self._writer.condition(pod, failed.reason, failed.message, failed.nominated)
        except WRITE_ERRORS as exc:
            log.warning("status of pod %s not updated: %s", pod.key, exc)
        if failed.preemption is not None:
            refused = True
            try:
                refused = await self._preempt(failed.profile, pod, failed.preemption)
            finally:
                async with self._binder.lock:
                    self.core.end_preemption(failed.profile, pod, retry=refused)
                self._wake.set()

    async def _preempt(self, profile: Profile, pod: PodInfo, decided: Preemption) -> bool:
        """Carry a preemption out; True when a victim could not be deleted."""
        refused = False
        self.metrics.preemption(len(decided.candidate.victims))
        for lower in decided.lower_nominated:
            self.core.nominator.remove(lower.uid)
            lower.nominated = ""
            try:
                await self._writer.clear_nomination(lower)
            except WRITE_ERRORS as exc:
                log.warning("nomination of pod %s not cleared: %s", lower.key, exc)
        for victim in decided.candidate.victims:
            if self._binder.reject_waiting(victim.uid, "preempted") or victim.terminating:
                continue
            try:
                await self._writer.evict(victim, profile.scheduler_name)
            except WRITE_ERRORS as exc:
                log.warning("victim %s not deleted: %s", victim.key, exc)
                refused = True
                continue
            self._recorders[profile.scheduler_name].event(
                _pod_object(victim),
                "Normal",
                "Preempted",
                f"Preempted by pod {pod.uid} on node {decided.candidate.node}",
                related=_pod_object(pod),
                action="Preempting",
            )
        return refused

    def _event(self, pod: PodInfo, kind: Any, reason: str, action: str, note: str) -> None:
        recorder = self._recorders.get(pod.scheduler_name)
        if recorder is not None:
            recorder.event(_pod_object(pod), kind, reason, note, action=action)


def _pod_object(pod: PodInfo) -> Obj:
    return {**pod.obj, "apiVersion": "v1", "kind": "Pod"}


def truncated(message: str) -> str:
    """At most 1024 bytes, the end replaced by " ..." (schedule_one.go truncateMessage)."""
    data = message.encode()
    if len(data) <= MESSAGE_LIMIT:
        return message
    return data[: MESSAGE_LIMIT - 4].decode(errors="ignore") + " ..."
