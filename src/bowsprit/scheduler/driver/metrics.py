"""Metrics under upstream's names (pkg/scheduler/metrics)."""

from __future__ import annotations

from collections import Counter as Counts
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from bowsprit.scheduler.core import SchedulerCore
from bowsprit.scheduler.events import Event
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.queue import QueuedPod

_ATTEMPT = [0.001 * 2**i for i in range(15)]
_SLI = [0.01 * 2**i for i in range(20)]
_ATTEMPTS = [1, 2, 4, 8, 16]
_VICTIMS = [1, 2, 4, 8, 16, 32, 64]
_LABELS = ["result", "profile"]


class Metrics:
    """Counters and histograms of one scheduler."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # upstream has no *_created
        self.registry = registry = CollectorRegistry()
        self._schedule_attempts = Counter(
            "scheduler_schedule_attempts_total",
            "[STABLE] Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, "
            "while 'error' means an internal scheduler problem.",
            _LABELS,
            registry=registry,
        )
        self._attempt_duration = Histogram(
            "scheduler_scheduling_attempt_duration_seconds",
            "[STABLE] Scheduling attempt latency in seconds (scheduling algorithm + binding)",
            _LABELS,
            buckets=_ATTEMPT,
            registry=registry,
        )
        self._algorithm_duration = Histogram(
            "scheduler_scheduling_algorithm_duration_seconds",
            "[ALPHA] Scheduling algorithm latency in seconds",
            buckets=_ATTEMPT,
            registry=registry,
        )
        self._pending = Gauge(
            "scheduler_pending_pods",
            "[STABLE] Number of pending pods, by the queue type. 'active' means number of pods in activeQ; 'backoff' means number "
            "of pods in backoffQ; 'unschedulable' means number of pods in unschedulablePods that the scheduler attempted "
            "to schedule and failed; 'gated' is the number of unschedulable pods that the scheduler never attempted to "
            "schedule because they are gated.",
            ["queue"],
            registry=registry,
        )
        self._sli = Histogram(
            "scheduler_pod_scheduling_sli_duration_seconds",
            "[BETA] E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve "
            "multiple scheduling attempts.",
            ["attempts"],
            buckets=_SLI,
            registry=registry,
        )
        self._pod_attempts = Histogram(
            "scheduler_pod_scheduling_attempts",
            "[STABLE] Number of attempts to successfully schedule a pod.",
            buckets=_ATTEMPTS,
            registry=registry,
        )
        self._incoming = Counter(
            "scheduler_queue_incoming_pods_total",
            "[STABLE] Number of pods added to scheduling queues by event and queue type.",
            ["queue", "event"],
            registry=registry,
        )
        self._victims = Histogram(
            "scheduler_preemption_victims",
            "[STABLE] Number of selected preemption victims",
            buckets=_VICTIMS,
            registry=registry,
        )
        self._preemptions = Counter(
            "scheduler_preemption_attempts_total",
            "[STABLE] Total preemption attempts in the cluster till now",
            registry=registry,
        )
        self._points = Histogram(
            "scheduler_framework_extension_point_duration_seconds",
            "[STABLE] Latency for running all plugins of a specific extension point.",
            ["extension_point", "status", "profile"],
            buckets=[0.0001 * 2**i for i in range(12)],
            registry=registry,
        )
        self._permit_wait = Histogram(
            "scheduler_permit_wait_duration_seconds",
            "[ALPHA] Duration of waiting on permit.",
            ["result"],
            buckets=_ATTEMPT,
            registry=registry,
        )
        self._unschedulable = Gauge(
            "scheduler_unschedulable_pods",
            "[BETA] The number of unschedulable pods broken down by plugin name. A pod will increment the gauge for all plugins "
            "that caused it to not schedule and so this metric have meaning only when broken down by plugin.",
            ["plugin", "profile"],
            registry=registry,
        )
        self._overdue = Counter(
            "bowsprit_scheduler_plugin_timeouts_total",
            "Number of calls that plugins have not answered in time, by plugin and method.",
            ["plugin", "method"],
            registry=registry,
        )
        self._cache_size = Gauge(
            "scheduler_cache_size",
            "[ALPHA] Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
            ["type"],
            registry=registry,
        )

        self._plugin_execution = Histogram(
            "scheduler_plugin_execution_duration_seconds",
            "[ALPHA] Duration for running a plugin at a specific extension point.",
            ["plugin", "extension_point", "status"],
            buckets=[0.00001 * 1.5**i for i in range(20)],
            registry=registry,
        )
        self._evaluations = Counter(
            "scheduler_plugin_evaluation_total",
            "[BETA] Number of attempts to schedule pods by each plugin and the extension point (available only in "
            "PreFilter, Filter, PreScore, and Score).",
            ["plugin", "extension_point", "profile"],
            registry=registry,
        )
        self._event_handling = Histogram(
            "scheduler_event_handling_duration_seconds",
            "[ALPHA] Event handling latency in seconds.",
            ["event"],
            buckets=[0.0001 * 2**i for i in range(12)],
            registry=registry,
        )
        self._inflight = Gauge(
            "scheduler_inflight_events",
            "[ALPHA] Number of events currently tracked in the scheduling queue.",
            ["event"],
            registry=registry,
        )
        self._goroutines = Gauge(
            "scheduler_goroutines",
            "[BETA] Number of running goroutines split by the work they do such as binding.",
            ["operation"],
            registry=registry,
        )
        self._leader = Gauge(
            "leader_election_master_status",
            "[ALPHA] Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates "
            "master. 'name' is the string used to identify the lease. Please make sure to group by name.",
            ["name"],
            registry=registry,
        )
        ProcessCollector(registry=registry)
        self._children: dict[tuple[Any, ...], Any] = {}

    def _child(self, metric: Any, *labels: str) -> Any:
        """metric.labels(...), looked up once."""
        key = (id(metric), *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def leads(self, lease: str, leads: bool) -> None:
        """Whether this process holds the lease."""
        self._leader.labels(lease).set(int(leads))

    def binding(self, running: int) -> None:
        """How many pods are on their way to being bound."""
        self._goroutines.labels("binding").set(running)

    def handled(self, event: str, seconds: float) -> None:
        """An event has been taken into cache and queue."""
        self._child(self._event_handling, event).observe(seconds)

    def ran(self, point: str, plugin: str, status: str, seconds: float) -> None:
        """A plugin has run at an extension point (of the cycles that are sampled)."""
        self._child(self._plugin_execution, plugin, point, status).observe(seconds)

    def _count_evaluations(self, core: SchedulerCore) -> None:
        """Take over what the profiles have counted since the last time."""
        for profile in core.profiles.values():
            counted, profile.evaluations = profile.evaluations, Counts()
            for (point, plugin), count in counted.items():
                self._evaluations.labels(plugin, point, profile.scheduler_name).inc(count)

    def overdue(self, plugin: str, method: str) -> None:
        """A plugin has hung."""
        self._overdue.labels(plugin, method).inc()

    def point(self, name: str, good: bool, profile: str, seconds: float) -> None:
        """All plugins of an extension point have run."""
        self._child(self._points, name, "Success" if good else "Error", profile).observe(seconds)

    def permit_wait(self, allowed: bool, seconds: float) -> None:
        self._child(self._permit_wait, "Success" if allowed else "Unschedulable").observe(seconds)

    def attempt(self, result: str, profile: str, seconds: float) -> None:
        self._child(self._schedule_attempts, result, profile).inc()
        self._child(self._attempt_duration, result, profile).observe(seconds)

    def cycle(self, seconds: float) -> None:
        self._algorithm_duration.observe(seconds)

    def scheduled(self, queued: QueuedPod, now: float) -> None:
        self._pod_attempts.observe(queued.attempts)
        attempts = str(queued.attempts) if queued.attempts < 15 else "15+"
        self._child(self._sli, attempts).observe(max(0.0, now - queued.added))

    def preemption(self, victims: int) -> None:
        self._preemptions.inc()
        self._victims.observe(victims)

    def queued(self, what: str, pod: PodInfo, event: Event, queue: str) -> None:
        """The queue's observer."""
        if what == "queued":
            self._child(self._incoming, queue.lower(), event.label).inc()

    def sizes(self, core: SchedulerCore) -> None:
        for name, size in core.queue.sizes().items():
            self._pending.labels(name).set(size)
        self._inflight.labels("PodPopped").set(core.queue.in_flight)
        self._count_evaluations(core)
        self._unschedulable.clear()
        for (plugin, profile), count in core.queue.rejections().items():
            self._unschedulable.labels(plugin, profile).set(count)
        self._cache_size.labels("nodes").set(len(core.cache.nodes))
        self._cache_size.labels("pods").set(len(core.cache.pods))
        self._cache_size.labels("assumed_pods").set(len(core.cache.assumed))

    def text(self) -> bytes:
        return generate_latest(self.registry)
