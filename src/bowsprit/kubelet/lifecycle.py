"""A simulated pod: from the object and the time to its next status. No I/O, no clock, no randomness.

    Pending ─(address, init containers one by one, sidecars)─▶ Running ─▶ Succeeded | Failed
       any ─(deletionTimestamp)─▶ containers stopped ─▶ deleted with grace period 0

``look`` is called when the pod changed or when the last look asked for it; looking twice changes nothing. The pod's
status is the only state. Conditions and phases are those of the real kubelet (kubelet_pods.go, status/generate.go).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from bowsprit.kubelet import containers
from bowsprit.kubelet.behaviour import DOMAIN, Behaviour, behaviour
from bowsprit.kubelet.containers import Container, Event, Progress
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import format_time, parse_time

KUBELET_CONDITIONS = frozenset({"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"})


class Course(Protocol):
    """How it goes for a container, and complaints; see behaviour.behaviour."""

    def __call__(
        self, pod: Obj, container: str, *, init: bool = False, sidecar: bool = False
    ) -> tuple[Behaviour, list[str]]: ...


@dataclass(frozen=True, slots=True)
class Host:
    """What the pod gets from its node."""

    host_ip: str
    pod_ip: str


@dataclass(slots=True)
class Look:
    """The outcome: the status to write (if it differs), events, the next look, or "delete it now"."""

    status: Obj
    events: list[Event] = field(default_factory=list)
    wake: float | None = None
    delete: bool = False


def look(pod: Obj, host: Host, now: datetime, course: Course = behaviour) -> Look:
    """One look at a pod that is bound to our node; `course` tells how it goes for its containers."""
    status: Obj = dict(pod.get("status") or {})
    deleting = bool(pod["metadata"].get("deletionTimestamp"))
    if status.get("phase") in ("Succeeded", "Failed"):
        return Look(status, delete=deleting)
    members, problems = _containers(pod, course)
    progress = Progress()
    if deleting:
        return _stop(pod, status, members, now, progress)
    if not status.get("startTime"):
        accepted = _accept(pod, status, members, host, now)
        accepted.events = [Event("Warning", "InvalidAnnotation", f"{DOMAIN} {text}") for text in problems]
        return accepted
    if (late := _deadline_left(pod, status, now)) is not None:
        if late <= 0:
            return _deadline_exceeded(pod, status, members, now)
        progress.wake_in(late)
    pod = {**pod, "status": status}
    initialised, init_statuses = _advance_init(pod, members, now, progress)
    if init_statuses:
        status["initContainerStatuses"] = init_statuses
    status["containerStatuses"] = _advance_apps(pod, members, initialised, now, progress)
    return Look(_finished(pod, status, members, now), progress.events, progress.wake)


def _containers(pod: Obj, course_of: Course) -> tuple[list[Container], list[str]]:
    members: list[Container] = []
    problems: list[str] = []
    for init in (True, False):
        for spec in pod["spec"].get("initContainers" if init else "containers") or ():
            sidecar = init and spec.get("restartPolicy") == "Always"
            course, complaints = course_of(pod, spec["name"], init=init, sidecar=sidecar)
            members.append(Container(spec, course, init, sidecar))
            problems += [text for text in complaints if text not in problems]
    return members, problems


def _accept(pod: Obj, status: Obj, members: list[Container], host: Host, now: datetime) -> Look:
    """The first look: the pod is Pending and its containers are being created."""
    has_init = any(member.init for member in members)
    status |= {
        "phase": "Pending",
        "startTime": format_time(now),
        "hostIP": host.host_ip,
        "hostIPs": [{"ip": host.host_ip}],
        "podIP": host.pod_ip,
        "podIPs": [{"ip": host.pod_ip}],
    }
    init = [containers.waiting(member, "PodInitializing") for member in members if member.init]
    if init:
        status["initContainerStatuses"] = init
    reason = "PodInitializing" if has_init else "ContainerCreating"
    status["containerStatuses"] = [containers.waiting(member, reason) for member in members if not member.init]
    delays = [
        member.behaviour.start_delay for member in members if not member.behaviour.image_pull_error and not member.init
    ]
    return Look(_finished(pod, status, members, now), wake=0.0 if has_init else min(delays, default=0.0))


def _advance_init(pod: Obj, members: list[Container], now: datetime, progress: Progress) -> tuple[bool, list[Obj]]:
    """Init containers in order; a sidecar only has to have started. Answers whether all are through."""
    known = _by_name(pod["status"].get("initContainerStatuses"))
    done = True
    statuses = []
    for member in (member for member in members if member.init):
        status = known.get(member.name) or containers.waiting(member, "PodInitializing")
        if done:
            status = containers.advance(member, status, pod, now, progress)
            ended = status["state"].get("terminated")
            done = bool(status["started"]) if member.sidecar else bool(ended) and ended["exitCode"] == 0
        statuses.append(status)
    return done, statuses


def _advance_apps(
    pod: Obj, members: list[Container], initialised: bool, now: datetime, progress: Progress
) -> list[Obj]:
    known = _by_name(pod["status"].get("containerStatuses"))
    statuses = []
    for member in (member for member in members if not member.init):
        status = known.get(member.name) or containers.waiting(member, "ContainerCreating")
        if initialised:
            status = containers.advance(member, status, pod, now, progress)
        statuses.append(status)
    return statuses


def _by_name(statuses: list[Obj] | None) -> dict[str, Obj]:
    return {status["name"]: status for status in statuses or ()}


# Ends


def _stop(pod: Obj, status: Obj, members: list[Container], now: datetime, progress: Progress) -> Look:
    """The pod is being deleted: its containers stop, within the grace period."""
    meta = pod["metadata"]
    running = [
        member
        for member, state in zip(members, _states(status, members), strict=True)
        if "running" in (state.get("state") or {})
    ]
    grace = int(meta.get("deletionGracePeriodSeconds") or 0)
    asked = parse_time(meta["deletionTimestamp"]) - timedelta(seconds=grace)
    needed = min(grace, max((member.behaviour.termination_delay for member in running), default=0.0))
    left = needed - (now - asked).total_seconds()
    first = not any(condition.get("reason") == "PodTerminating" for condition in status.get("conditions") or ())
    if first:
        progress.events += [
            Event("Normal", "Killing", f"Stopping container {member.name}", member.name, member.init)
            for member in running
        ]
    if needed > 0 and left > 0:
        if first:
            status["conditions"] = [
                {**condition, "status": "False", "reason": "PodTerminating", "lastTransitionTime": format_time(now)}
                if condition["type"] in ("Ready", "ContainersReady")
                else condition
                for condition in status.get("conditions") or ()
            ]
        return Look(status, progress.events, left)
    for name in ("initContainerStatuses", "containerStatuses"):
        if status.get(name):
            status[name] = [containers.stopped(state, now) for state in status[name]]
    codes = [
        (state.get("state") or {}).get("terminated", {}).get("exitCode", 1)
        for state in status.get("containerStatuses") or ()
    ]
    status["phase"] = "Succeeded" if codes and not any(codes) else "Failed"
    status["conditions"] = _conditions(pod, status, members, now)
    return Look(status, progress.events, delete=True)


def _states(status: Obj, members: list[Container]) -> list[Obj]:
    init, apps = _by_name(status.get("initContainerStatuses")), _by_name(status.get("containerStatuses"))
    return [(init if member.init else apps).get(member.name, {}) for member in members]


def _deadline_left(pod: Obj, status: Obj, now: datetime) -> float | None:
    limit = pod["spec"].get("activeDeadlineSeconds")
    if limit is None:
        return None
    return float(limit) - (now - parse_time(status["startTime"])).total_seconds()


def _deadline_exceeded(pod: Obj, status: Obj, members: list[Container], now: datetime) -> Look:
    for name in ("initContainerStatuses", "containerStatuses"):
        if status.get(name):
            status[name] = [containers.stopped(state, now, 137) for state in status[name]]
    message = "Pod was active on the node longer than the specified deadline"
    status |= {"phase": "Failed", "reason": "DeadlineExceeded", "message": message}
    status["conditions"] = _conditions(pod, status, members, now)
    return Look(status, [Event("Normal", "DeadlineExceeded", message)])


# Phase and conditions


def _finished(pod: Obj, status: Obj, members: list[Container], now: datetime) -> Obj:
    status["phase"] = phase(pod, status, members)
    if generation := pod["metadata"].get("generation"):
        status["observedGeneration"] = generation
    status["conditions"] = _conditions(pod, status, members, now)
    return status


def phase(pod: Obj, status: Obj, members: list[Container]) -> str:
    """The phase that the containers add up to (upstream getPhase)."""
    policy = pod["spec"].get("restartPolicy") or "Always"
    init, apps = _by_name(status.get("initContainerStatuses")), _by_name(status.get("containerStatuses"))
    for member in members:
        if not member.init:
            continue
        state = init.get(member.name, {})
        ended = (state.get("state") or {}).get("terminated")
        if member.sidecar:
            if not state.get("started") and not (state.get("lastState") or {}).get("terminated"):
                return "Pending"
        elif ended is None:
            return "Pending"
        elif ended["exitCode"] != 0:
            return "Failed" if policy == "Never" else "Pending"
    running = waiting = 0
    codes: list[int] = []
    for member in members:
        if member.init:
            continue
        state = apps.get(member.name, {})
        current = state.get("state") or {}
        if "running" in current:
            running += 1
        elif "terminated" in current:
            codes.append(int(current["terminated"]["exitCode"]))
        elif (state.get("lastState") or {}).get("terminated"):
            codes.append(int(state["lastState"]["terminated"]["exitCode"]))
        else:
            waiting += 1
    if waiting:
        return "Pending"
    if running or not codes or policy == "Always":
        return "Running"
    if not any(codes):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def _conditions(pod: Obj, status: Obj, members: list[Container], now: datetime) -> list[Obj]:
    init, apps = _by_name(status.get("initContainerStatuses")), _by_name(status.get("containerStatuses"))
    ended = status["phase"] in ("Succeeded", "Failed")
    unready = [member.name for member in members if not member.init and not apps.get(member.name, {}).get("ready")]
    unready += [member.name for member in members if member.sidecar and not init.get(member.name, {}).get("ready")]
    uninitialised = [
        member.name
        for member in members
        if member.init and not (init.get(member.name, {}).get("started" if member.sidecar else "ready"))
    ]
    completed = ("False", "PodCompleted", "")
    if status["phase"] == "Succeeded":
        ready = containers_ready = completed
    elif status["phase"] == "Failed":
        ready = containers_ready = ("False", "PodFailed", "")
    elif unready:
        ready = containers_ready = (
            "False",
            "ContainersNotReady",
            f"containers with unready status: [{' '.join(unready)}]",
        )
    else:
        containers_ready = ("True", "", "")
        ready = _gated(pod, status)
    if status["phase"] == "Succeeded":
        initialised = ("True", "PodCompleted", "")
    elif uninitialised:
        names = " ".join(uninitialised)
        initialised = ("False", "ContainersNotInitialized", f"containers with incomplete status: [{names}]")
    else:
        initialised = ("True", "", "")
    wanted = {
        "PodReadyToStartContainers": ("True" if status.get("podIP") and not ended else "False", "", ""),
        "Initialized": initialised,
        "Ready": ready,
        "ContainersReady": containers_ready,
        "PodScheduled": ("True", "", ""),
    }
    current = {condition["type"]: condition for condition in status.get("conditions") or ()}
    result = [_condition(type_, values, current.get(type_), pod, now) for type_, values in wanted.items()]
    return result + [condition for type_, condition in current.items() if type_ not in wanted]


def _gated(pod: Obj, status: Obj) -> tuple[str, str, str]:
    current = {condition["type"]: condition.get("status") for condition in status.get("conditions") or ()}
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates") or ()]
    missing = [
        f'corresponding condition of pod readiness gate "{gate}" does not exist.'
        for gate in gates
        if gate not in current
    ]
    failing = [
        f'the status of pod readiness gate "{gate}" is not "True", but {current[gate]}'
        for gate in gates
        if gate in current and current[gate] != "True"
    ]
    if missing or failing:
        return ("False", "ReadinessGatesNotReady", ", ".join(missing + failing))
    return ("True", "", "")


def _condition(type_: str, values: tuple[str, str, str], current: Obj | None, pod: Obj, now: datetime) -> Obj:
    status, reason, message = values
    made: Obj = {"type": type_, "status": status, "lastProbeTime": None, "lastTransitionTime": format_time(now)}
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message
    if generation := pod["metadata"].get("generation"):
        made["observedGeneration"] = generation
    if current is not None and current.get("status") == status:
        made["lastTransitionTime"] = current.get("lastTransitionTime") or made["lastTransitionTime"]
        if type_ == "PodScheduled":
            return current
    return made
