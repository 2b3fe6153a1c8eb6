"""Replay of scenarios: the real scheduling code on objects from a file, without a cluster.

A scenario has `config`, `featureGates`, `nodes`, `existing_pods`, `objects`, `pods` and `procedure`. Pods are decided one
after the other, each decision applied before the next. Victims of preemption are removed at once and the preemptor is
tried again, or stay terminating, as `procedure.victims` says. A stand-in completes what the volume controller would do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.scheduler.cache import Cache
from bowsprit.scheduler.config.defaults import set_defaults
from bowsprit.scheduler.cycle import Algorithm, FitError, Placement, Scores
from bowsprit.scheduler.featuregates import gates_of
from bowsprit.scheduler.framework import CycleError, CycleState
from bowsprit.scheduler.nominator import Nominator
from bowsprit.scheduler.plugins.volumebinding import BIND_COMPLETED, BOUND_BY_CONTROLLER, VolumeBinding
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.preemption import REASON_PREEMPTION, Preemption, decision_of
from bowsprit.scheduler.profile import Handle, PluginFactory, Profile
from bowsprit.scheduler.profiles import build_profiles
from bowsprit.scheduler.registry import registry

LARGE = 100  # scenarios with more nodes than this record only the totals
GATED = "Scheduling is blocked due to non-empty scheduling gates"


@dataclass(slots=True)
class Outcome:
    """One attempt: a placement, or the condition message with what preemption decided."""

    placement: Placement | None = None
    message: str = ""
    reason: str = "Unschedulable"
    nominated: str | None = None
    preemption: Preemption | None = None


@dataclass(slots=True)
class Simulation:
    """A scheduler without a queue, a clock or a client."""

    cache: Cache
    nominator: Nominator
    profiles: dict[str, Profile]
    algorithm: Algorithm
    now: float = 0.0
    events: dict[str, list[list[str]]] = field(default_factory=dict)  # by pod key
    waiting: dict[str, PodInfo] = field(default_factory=dict)  # pods that were nominated and have no node yet, by uid
    _orders: dict[str, int] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        config: Obj,
        gates: Mapping[str, bool] | None = None,
        *,
        keep_scores: bool = False,
        plugins: Mapping[str, PluginFactory] | None = None,
    ) -> Simulation:
        """From a KubeSchedulerConfiguration body. Raises ProfileError."""
        cache, nominator = Cache(), Nominator()
        enabled = gates_of(gates or {})
        body = set_defaults(config, enabled)
        known = registry(dict(plugins or {}))
        profiles = build_profiles(body, known, lambda: Handle(cache, nominator, enabled))
        algorithm = Algorithm(
            cache,
            nominator,
            percentage=int(body["percentageOfNodesToScore"]),
            batching=enabled["OpportunisticBatching"],
            keep_scores=keep_scores,
        )
        return cls(cache, nominator, profiles, algorithm)

    def load(self, objects: list[Obj], nodes: list[Obj], pods: list[Obj]) -> None:
        for obj in objects:
            self.cache.objects.set(obj.get("kind", ""), obj)
        for node in nodes:
            self.cache.set_node(node)
        for pod in pods:
            if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                continue  # finished pods hold nothing
            self.cache.set_pod(info := self.cache.pod_info(pod))
            self.order_of(info.uid)

    def order_of(self, uid: str) -> int:
        """The place of a pod in the order of creation."""
        return self._orders.setdefault(uid, len(self._orders))

    # one attempt

    def attempt(self, pod: PodInfo) -> Outcome:
        """One scheduling cycle with its preemption; a placement is assumed and its volumes are bound."""
        profile = self.profiles[pod.scheduler_name]
        state = CycleState()
        try:
            placement = self.algorithm.schedule(profile, pod, state, self.now)
        except FitError as error:
            return self._preempt(profile, pod, state, error)
        except CycleError as error:
            return Outcome(message=str(error), reason="SchedulerError")
        pod.nominated = ""
        self.nominator.remove(pod.uid)
        self.cache.assume(pod, placement.node)
        profile.run_reserve(state, pod, placement.node)
        self._bind_volumes(profile, pod, placement.node)
        return Outcome(placement)

    def _preempt(self, profile: Profile, pod: PodInfo, state: CycleState, error: FitError) -> Outcome:
        nominated: str | None = None
        if not error.no_nodes and profile.at["postFilter"]:
            nominated, status = profile.run_post_filter(state, pod, error.statuses)
            error.post_filter_message = "" if status is None else status.message
        return Outcome(message=str(error), nominated=nominated, preemption=decision_of(state))

    # the volume controller's stand-in

    def _bind_volumes(self, profile: Profile, pod: PodInfo, node_name: str) -> None:
        plugin: VolumeBinding | None = profile.plugin(VolumeBinding)
        binding = plugin.release(pod) if plugin is not None else None
        if binding is None:
            return
        for claim, volume in binding.volumes:
            self._bind(claim, volume)
        node = self.cache.nodes.node(node_name)
        for claim in binding.provision:
            name = f"dyn-{claim['metadata']['name']}"
            zone = (node.labels if node else {}).get("topology.kubernetes.io/zone")
            labels = {"topology.kubernetes.io/zone": zone} if zone else {}
            storage_class = self.cache.objects.get("StorageClass", claim["spec"].get("storageClassName") or "") or {}
            spec: Obj = {
                "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
                "accessModes": claim["spec"].get("accessModes"),
                "storageClassName": claim["spec"].get("storageClassName"),
                "csi": {"driver": storage_class.get("provisioner", ""), "volumeHandle": name},
            }
            if zone:
                expression = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}
                spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}
            self._bind(claim, {"metadata": {"name": name, "labels": labels}, "spec": spec})

    def _bind(self, claim: Obj, volume: Obj) -> None:
        claim, volume = deep_copy(claim), deep_copy(volume)
        meta = claim["metadata"]
        volume["spec"]["claimRef"] = {"namespace": meta.get("namespace"), "name": meta["name"], "uid": meta.get("uid")}
        volume["status"] = {"phase": "Bound"}
        claim["spec"]["volumeName"] = volume["metadata"]["name"]
        claim["status"] = {"phase": "Bound"}
        marks = {BIND_COMPLETED: "yes", BOUND_BY_CONTROLLER: "yes"}
        meta["annotations"] = {**(meta.get("annotations") or {}), **marks}
        self.cache.objects.set("PersistentVolume", volume)
        self.cache.objects.set("PersistentVolumeClaim", claim)

    # preemption

    def apply(self, pod: PodInfo, outcome: Outcome, *, remove_victims: bool) -> list[PodInfo]:
        """Carry out a preemption; returns the victims that were not terminating already."""
        decided = outcome.preemption
        if decided is None or not outcome.nominated:
            return []
        for lower in decided.lower_nominated:
            self.nominator.remove(lower.uid)
            lower.nominated = ""
        fresh = [victim for victim in decided.candidate.victims if not victim.terminating]
        for victim in fresh:
            self.terminate(victim)
        for victim in decided.candidate.victims if remove_victims else ():
            self.cache.remove_pod(victim.uid)
        pod.nominated = outcome.nominated
        self.nominator.add(pod, outcome.nominated)
        self.waiting[pod.uid] = pod
        for victim in fresh:
            note = f"Preempted by pod {pod.uid} on node {outcome.nominated}"
            self.events.setdefault(victim.key, []).append(["Normal", "Preempted", note])
        return fresh

    def terminate(self, victim: PodInfo) -> None:
        """Mark a bound pod as being deleted, with the condition that preemption sets."""
        obj = deep_copy(victim.obj)
        obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        obj["spec"]["nodeName"] = victim.node_name
        conditions = obj.setdefault("status", {}).setdefault("conditions", [])
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": REASON_PREEMPTION})
        self.cache.set_pod(self.cache.pod_info(obj))


def _condition(message: str, reason: str) -> Obj:
    return {"status": "False", "reason": reason, "message": message}


def _scores(scores: Scores | None, large: bool) -> Obj | None:
    if scores is None:
        return None
    if large:
        return {"total": dict(scores.totals)}
    nodes = {node: [*values, scores.totals[node]] for node, values in scores.nodes.items()}
    return {"plugins": scores.plugins, "nodes": nodes}


def replay(
    scenario: Obj,
    *,
    scores: bool = False,
    config: Obj | None = None,
    plugins: Mapping[str, PluginFactory] | None = None,
) -> list[Obj]:
    """The `result` of a scenario, in the recorded format. `config` replaces the scenario's own."""
    gates = dict(_parse_gate(text) for text in scenario.get("featureGates") or ())
    body = config if config is not None else scenario.get("config") or {}
    simulation = Simulation.build(body, gates, keep_scores=scores, plugins=plugins)
    simulation.load(scenario.get("objects") or [], scenario.get("nodes") or [], scenario.get("existing_pods") or [])
    removed = "removed" in (scenario.get("procedure") or {}).get("victims", "")
    kept = "kept" in (scenario.get("procedure") or {}).get("afterUnschedulable", "")
    results = []
    for obj in scenario.get("pods") or ():
        results.append(_replay_pod(simulation, obj, scores, removed, kept))
    if kept and not removed:
        _remove_victims(simulation, results)
    for result in results:
        result["events"] += simulation.events.get(result["pod"], [])
    return results


def _remove_victims(simulation: Simulation, results: list[Obj]) -> None:
    """The end of a scenario whose victims stay terminating: they go one by one, and waiting pods are tried each time."""
    events = {result["pod"]: result["events"] for result in results}
    while victims := [pod for pod in simulation.cache.pods.values() if pod.terminating]:
        simulation.cache.remove_pod(min(victims, key=lambda pod: simulation.order_of(pod.uid)).uid)
        waiting = sorted(simulation.waiting.values(), key=lambda pod: (-pod.priority, simulation.order_of(pod.uid)))
        for pod in waiting:
            outcome = simulation.attempt(pod)
            if outcome.placement is not None:
                del simulation.waiting[pod.uid]
                events[pod.key].append(_scheduled(pod, outcome.placement.node))
                continue
            events[pod.key].append(["Warning", "FailedScheduling", outcome.message])
            if outcome.nominated:
                simulation.apply(pod, outcome, remove_victims=False)


def _parse_gate(text: str) -> tuple[str, bool]:
    name, _, value = text.partition("=")
    return name, value.lower() == "true"


def _replay_pod(simulation: Simulation, obj: Obj, scores: bool, removed: bool, kept: bool) -> Obj:
    pod = simulation.cache.pod_info(obj)
    simulation.order_of(pod.uid)
    result: Obj = {"pod": pod.key, "node": None}
    if pod.scheduler_name not in simulation.profiles:
        return {**result, "undecided": True, "events": []}
    if simulation.profiles[pod.scheduler_name].run_pre_enqueue(pod) is not None:
        return {**result, "condition": _condition(GATED, "SchedulingGated"), "events": []}
    outcome = simulation.attempt(pod)
    if outcome.placement is not None:
        placement = outcome.placement
        result.update(node=placement.node, evaluatedNodes=placement.evaluated, feasibleNodes=placement.feasible)
        shown = _scores(placement.scores, len(simulation.cache.nodes) > LARGE) if scores else None
        if shown is not None:
            result["scores"] = shown
        result["events"] = [_scheduled(pod, placement.node)]
        return result
    result["condition"] = _condition(outcome.message, outcome.reason)
    result["events"] = [["Warning", "FailedScheduling", outcome.message]]
    if not outcome.nominated:
        return result
    result["nominatedNodeName"] = outcome.nominated
    victims = simulation.apply(pod, outcome, remove_victims=removed)
    result["victims"] = sorted(victim.key for victim in victims)
    if removed:
        again = simulation.attempt(pod)
        if again.placement is not None:
            result["retry"] = {"node": again.placement.node}
            result["events"].append(_scheduled(pod, again.placement.node))
        else:
            result["retry"] = {"node": None, "condition": _condition(again.message, again.reason)}
            result["events"].append(["Warning", "FailedScheduling", again.message])
    elif not kept:
        simulation.nominator.remove(pod.uid)
    return result


def _scheduled(pod: PodInfo, node: str) -> list[str]:
    return ["Normal", "Scheduled", f"Successfully assigned {pod.key} to {node}"]
