"""The scheduler without I/O: cache, queue and cycle put together. The driver feeds it events and carries out its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.cache import Cache
from bowsprit.scheduler.cycle import Algorithm, FitError, Placement
from bowsprit.scheduler.events import ASSIGNED_POD, NODE, Event, node_events, pod_events
from bowsprit.scheduler.featuregates import gates_of
from bowsprit.scheduler.framework import Code, CycleError, CycleState, Status
from bowsprit.scheduler.nominator import Nominator
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.preemption import DefaultPreemption, Preemption, decision_of
from bowsprit.scheduler.profile import Handle, PluginFactory, Profile, Recorder
from bowsprit.scheduler.profiles import build_profiles
from bowsprit.scheduler.queue import Observer, QueuedPod, QueueOptions, SchedulingQueue

SAMPLED = 10  # one cycle in so many has its plugins timed
UNSCHEDULABLE, SCHEDULER_ERROR = "Unschedulable", "SchedulerError"


@dataclass(slots=True)
class Assigned:
    """A node was found and the pod is assumed there; what is left is to bind it (after waiting, if plugins ask)."""

    queued: QueuedPod
    profile: Profile
    state: CycleState
    placement: Placement
    waits: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Failed:
    """The attempt has failed. `nominated`: a node, "" to clear the nomination, None to leave it."""

    queued: QueuedPod
    profile: Profile
    reason: str
    message: str
    nominated: str | None = None
    preemption: Preemption | None = None


@dataclass(slots=True)
class Skipped:
    """The pod needs no scheduling any more; `message` is said in an event when there is one."""

    queued: QueuedPod
    message: str = ""


class SchedulerCore:
    """`config` is a defaulted KubeSchedulerConfiguration (v1). Raises ProfileError when a profile cannot be built."""

    def __init__(
        self,
        config: Obj,
        registry: Mapping[str, PluginFactory],
        clock: Callable[[], float],
        *,
        gates: Mapping[str, bool] | None = None,
        observer: Observer | None = None,
        binder: Any = None,
        client: Any = None,
        extenders: list[Any] | None = None,
        max_unschedulable: float = 300.0,
        cache: Cache | None = None,
    ):
        self.cache = cache or Cache()
        self.nominator = Nominator()
        self.gates = gates_of(gates or {})
        extenders = extenders or []
        ignored = frozenset(name for extender in extenders for name in extender.ignored_resources)

        def handle() -> Handle:
            return Handle(
                self.cache,
                self.nominator,
                self.gates,
                clock,
                binder=binder,
                client=client,
                extenders=extenders,
                ignored_resources=ignored,
            )

        self.profiles = build_profiles(config, registry, handle)
        self.algorithm = Algorithm(
            self.cache,
            self.nominator,
            percentage=int(config.get("percentageOfNodesToScore") or 0),
            batching=self.gates["OpportunisticBatching"],
            extenders=extenders,
        )
        self._clock = clock
        self._cycles = 0
        self.recorder: Recorder | None = None  # of plugins' durations in sampled cycles
        options = QueueOptions(
            float(config.get("podInitialBackoffSeconds") or 1),
            float(config.get("podMaxBackoffSeconds", 10)),
            max_unschedulable,
            self.gates["SchedulerPopFromBackoffQ"],
        )
        sort = next(iter(self.profiles.values())).at["queueSort"][0]
        self.queue = SchedulingQueue(
            self.cache.nodes, self.nominator, clock, sort.sort_key, self._pre_enqueue, options, observer
        )

    def _pre_enqueue(self, pod: PodInfo) -> Status | None:
        return self.profiles[pod.scheduler_name].run_pre_enqueue(pod)

    # events

    def set_pod(self, obj: Obj) -> None:
        """A pod was added or has changed."""
        if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            self.delete_pod(obj)
            return
        pod = self.cache.pod_info(obj)
        if pod.node_name:
            self._set_assigned(pod)
        elif pod.scheduler_name in self.profiles and not self.cache.is_assumed(pod.uid):
            self.queue.update(pod)

    def _set_assigned(self, pod: PodInfo) -> None:
        if not self.cache.is_assumed(pod.uid):
            self.queue.delete(pod.uid)
        known = self.cache.pods.get(pod.uid)
        confirmed = known is not None and not self.cache.is_assumed(pod.uid)
        before = None if known is None else _snapshot(known)
        self.cache.set_pod(pod)
        if not self.queue.has_waiting():
            return
        if not confirmed:
            self.queue.move(Event(ASSIGNED_POD, "Add"), None, pod)
        elif before is not None:
            for event in pod_events(before, pod, ASSIGNED_POD):
                self.queue.move(event, before, pod)

    def delete_pod(self, obj: Obj) -> None:
        """A pod is gone, or has finished."""
        uid = obj["metadata"].get("uid") or self.cache.pod_info(obj).uid
        pod = self.cache.remove_pod(uid)
        if pod is not None:
            self.queue.move(Event(ASSIGNED_POD, "Delete"), pod, None)
            return
        queued = self.queue.get(uid)
        nominated = self.nominator.node_of(uid)
        self.queue.delete(uid)
        if nominated and queued is not None:
            self.queue.move(Event(ASSIGNED_POD, "Delete"), queued.pod, None)

    def set_node(self, obj: Obj) -> None:
        """A node was added or has changed."""
        known = self.cache.nodes.node(obj["metadata"]["name"])
        if known is None:
            info = self.cache.set_node(obj)
            if self.queue.has_waiting():
                self.queue.move(Event(NODE, "Add"), None, info)
            return
        if known.same_scheduling_state(obj):
            known.obj = obj
            return
        before = known.clone()
        info = self.cache.set_node(obj)
        if self.queue.has_waiting():
            for event in node_events(before, info):
                self.queue.move(event, before, info)

    def delete_node(self, name: str) -> None:
        known = self.cache.nodes.node(name)
        if known is not None:
            self.cache.remove_node(name)
            self.queue.move(Event(NODE, "Delete"), known, None)

    def set_object(self, kind: str, obj: Obj) -> None:
        """Any other object that plugins look at was added or has changed."""
        old = self.cache.objects.set(kind, obj)
        if self.queue.has_waiting():
            self.queue.move(Event(kind, "Add" if old is None else "Update"), old, obj)

    def delete_object(self, kind: str, obj: Obj) -> None:
        self.cache.objects.delete(kind, obj)
        if self.queue.has_waiting():
            self.queue.move(Event(kind, "Delete"), obj, None)

    # one cycle

    def run_cycle(self, queued: QueuedPod) -> Assigned | Failed | Skipped:
        """Schedule a popped pod; a failed one is back in the queue when this returns."""
        pod = queued.pod
        profile = self.profiles.get(pod.scheduler_name)
        if profile is None or pod.uid in self.cache.pods or self.queue.was_deleted(queued):
            self.queue.done(pod.uid)
            return Skipped(queued)
        if pod.terminating:
            self.queue.done(pod.uid)
            return Skipped(queued, f"skip schedule deleting pod: {pod.key}")
        state = CycleState()
        self._cycles += 1
        profile.recorder = self.recorder if self._cycles % SAMPLED == 0 else None
        try:
            placement = self.algorithm.schedule(profile, pod, state, self._clock())
        except FitError as error:
            return self._unfit(queued, profile, state, error)
        except CycleError as error:
            return self.fail(queued, profile, error.status)
        except Exception as exc:  # a plugin raised: the pod is tried again after a backoff
            return self.fail(queued, profile, Status(Code.ERROR, (f"{type(exc).__name__}: {exc}",)))
        return self._assign(queued, profile, state, placement)

    def _assign(
        self, queued: QueuedPod, profile: Profile, state: CycleState, placement: Placement
    ) -> Assigned | Failed:
        pod, node = queued.pod, placement.node
        self.nominator.remove(pod.uid)
        self.cache.assume(pod, node)
        try:
            status = profile.run_reserve(state, pod, node)
            waits: dict[str, float] = {}
            if status is None:
                status, waits = profile.run_permit(state, pod, node)
        except Exception as exc:
            status = Status(Code.ERROR, (f"{type(exc).__name__}: {exc}",))
        if status is not None:
            self.give_up(profile, state, pod)
            return self.fail(queued, profile, status)
        return Assigned(queued, profile, state, placement, waits)

    def give_up(self, profile: Profile, state: CycleState, pod: PodInfo) -> None:
        """Undo Reserve and the assumption of a pod that will not be bound now."""
        error: Exception | None = None
        try:
            profile.run_unreserve(state, pod, pod.node_name)
        except Exception as exc:
            error = exc
        self._forget(pod)
        if error is not None:
            raise error

    def abandon(self, profile: Profile, pod: PodInfo) -> None:
        """Undo what a cycle did that hangs in a plugin: only our own plugins are asked to unreserve."""
        profile.rows.clear()  # rows may be half computed
        if self.cache.is_assumed(pod.uid):
            state = CycleState()
            for plugin in reversed(profile.at["reserve"]):
                if type(plugin).__module__.startswith("bowsprit.scheduler."):
                    plugin.unreserve(state, pod, pod.node_name)
            self._forget(pod)

    def _forget(self, pod: PodInfo) -> None:
        if self.cache.is_assumed(pod.uid):
            gone = _snapshot(pod)
            self.cache.forget(pod)
            self.queue.move(Event(ASSIGNED_POD, "Delete"), gone, None)

    def _unfit(self, queued: QueuedPod, profile: Profile, state: CycleState, error: FitError) -> Failed:
        pod = queued.pod
        nominated: str | None = None
        if not error.no_nodes and profile.at["postFilter"]:
            try:
                nominated, status = profile.run_post_filter(state, pod, error.statuses)
                error.post_filter_message = "" if status is None else status.message
            except Exception as exc:
                error.post_filter_message = f"{type(exc).__name__}: {exc}"
        queued.rejectors = error.rejectors()
        decided = decision_of(state) if nominated else None
        if nominated:
            pod.nominated = nominated
            self.nominator.add(pod, nominated)
        elif nominated == "":
            pod.nominated = ""
            self.nominator.remove(pod.uid)
        failed = Failed(queued, profile, UNSCHEDULABLE, str(error), nominated, decided)
        if decided is not None:
            self._begin_preemption(profile, pod, decided)
        self.queue.add_unschedulable(queued)
        return failed

    @staticmethod
    def _begin_preemption(profile: Profile, pod: PodInfo, decided: Preemption) -> None:
        plugin: DefaultPreemption | None = profile.plugin(DefaultPreemption)
        if plugin is not None:
            plugin.preempting.add(pod.uid)

    def end_preemption(self, profile: Profile, pod: PodInfo, *, retry: bool = False) -> None:
        """The deletions are issued: the preemptor may come back. `retry`: some were refused, it must try again itself."""
        plugin: DefaultPreemption | None = profile.plugin(DefaultPreemption)
        if plugin is not None:
            plugin.preempting.discard(pod.uid)
            self.queue.ungate(pod.uid, plugin.name, force=retry)

    def fail(self, queued: QueuedPod, profile: Profile, status: Status) -> Failed:
        """An attempt that ended for another reason than that no node fits."""
        if status.rejected:
            kind = queued.pending if status.code == Code.PENDING else queued.rejectors
            kind.add(status.plugin)
            reason, message = UNSCHEDULABLE, self._rejection(status)
        else:
            reason, message = SCHEDULER_ERROR, status.message
        self.queue.add_unschedulable(queued)
        return Failed(queued, profile, reason, message)

    def _rejection(self, status: Status) -> str:
        """A pod turned away after its node was found (Reserve, Permit, PreBind) reads like a fit error of one node."""
        return f"0/{len(self.cache.nodes)} nodes are available: 1 {status.message}."


def _snapshot(pod: PodInfo) -> PodInfo:
    """A shallow copy: the cache changes the original in place."""
    return PodInfo(*(getattr(pod, name) for name in PodInfo.__slots__))
