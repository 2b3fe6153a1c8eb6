"""One simulated container: from its last status and the time to its next status. No I/O.

    waiting(ContainerCreating) ─▶ running ─▶ terminated ─▶ (restart policy) waiting(CrashLoopBackOff) ─▶ running …
            └─▶ waiting(ErrImagePull ⇄ ImagePullBackOff)

The status is all the state there is, so a restarted kubelet goes on where the last one stopped.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime

from bowsprit.kubelet.behaviour import FOREVER, Behaviour
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import format_time, parse_time

MAX_BACK_OFF = 300.0
_PULL_ERROR_SECONDS = 2.0


@dataclass(slots=True)
class Event:
    """An event to record; ``container`` names the one it is about, if any."""

    type: str
    reason: str
    message: str
    container: str = ""
    init: bool = False


@dataclass(slots=True)
class Progress:
    """What a look at a pod or container brought: events, and the seconds until the next look (None: none needed)."""

    events: list[Event] = field(default_factory=list)
    wake: float | None = None

    def wake_in(self, seconds: float) -> None:
        """Look again in ``seconds``, or earlier."""
        if seconds != FOREVER:
            self.wake = seconds if self.wake is None else min(self.wake, seconds)


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a spec, with its behaviour."""

    spec: Obj
    behaviour: Behaviour
    init: bool = False
    sidecar: bool = False

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.spec["name"])

    def restarts_after(self, code: int, pod_policy: str) -> bool:
        """Whether the restart policy wants it running again after exiting with ``code``."""
        if self.sidecar:
            return True
        if self.init:
            return code != 0 and pod_policy != "Never"
        return pod_policy == "Always" or (pod_policy == "OnFailure" and code != 0)


def waiting(container: Container, reason: str, message: str = "", previous: Obj | None = None) -> Obj:
    """The status of a container that is not running."""
    state = {"reason": reason, "message": message} if message else {"reason": reason}
    previous = previous or {}
    status: Obj = {
        "name": container.name,
        "state": {"waiting": state},
        "lastState": previous.get("lastState") or {},
        "ready": False,
        "restartCount": previous.get("restartCount", 0),
        "image": container.spec.get("image", ""),
        "imageID": previous.get("imageID", ""),
        "started": False,
    }
    if previous.get("containerID"):
        status["containerID"] = previous["containerID"]
    return status


def advance(container: Container, status: Obj, pod: Obj, now: datetime, progress: Progress) -> Obj:
    """The container's next status. It is called while the container may run: its predecessors are done."""
    state = status.get("state") or {}
    if "running" in state:
        return _running(container, status, now, progress)
    if "terminated" in state:
        return _terminated(container, status, pod, now, progress)
    return _waiting(container, status, pod, now, progress)


def _waiting(container: Container, status: Obj, pod: Obj, now: datetime, progress: Progress) -> Obj:
    reason = status["state"]["waiting"]["reason"]
    if container.behaviour.image_pull_error:
        return _pull_fails(container, status, reason, progress)
    if reason == "CrashLoopBackOff":
        left = _back_off_left(container, status, now)
        if left > 0:
            progress.wake_in(left)
            return status
    elif reason in ("ContainerCreating", "PodInitializing") and not status["restartCount"]:
        started = parse_time(pod["status"]["startTime"])
        left = container.behaviour.start_delay - (now - started).total_seconds()
        if left > 0:
            progress.wake_in(left)
            return status
    return _start(container, status, pod, now, progress)


def _pull_fails(container: Container, status: Obj, reason: str, progress: Progress) -> Obj:
    image, text = container.spec.get("image", ""), container.behaviour.image_pull_error

    def event(type_: str, what: str, message: str) -> None:
        progress.events.append(Event(type_, what, message, container.name, container.init))

    progress.wake_in(_PULL_ERROR_SECONDS if reason != "ImagePullBackOff" else FOREVER)
    if reason == "ErrImagePull":
        event("Normal", "BackOff", f'Back-off pulling image "{image}"')
        event("Warning", "Failed", "Error: ImagePullBackOff")
        return waiting(container, "ImagePullBackOff", f'Back-off pulling image "{image}": ErrImagePull: {text}', status)
    if reason == "ImagePullBackOff":
        return status
    event("Normal", "Pulling", f'Pulling image "{image}"')
    event("Warning", "Failed", f'Failed to pull image "{image}": {text}')
    event("Warning", "Failed", "Error: ErrImagePull")
    return waiting(container, "ErrImagePull", text, status)


def _start(container: Container, status: Obj, pod: Obj, now: datetime, progress: Progress) -> Obj:
    image = container.spec.get("image", "")
    for reason, message in (
        ("Pulled", f'Container image "{image}" already present on machine'),
        ("Created", f"Created container: {container.name}"),
        ("Started", f"Started container {container.name}"),
    ):
        progress.events.append(Event("Normal", reason, message, container.name, container.init))
    restarts = int(status["restartCount"])
    if "terminated" in (status.get("lastState") or {}):
        restarts += 1
    uid = pod["metadata"]["uid"]
    running = {
        "name": container.name,
        "state": {"running": {"startedAt": format_time(now)}},
        "lastState": status.get("lastState") or {},
        "ready": container.behaviour.ready_delay <= 0 and (not container.init or container.sidecar),
        "restartCount": restarts,
        "image": image,
        "imageID": f"sha256:{hashlib.sha256(image.encode()).hexdigest()}",
        "containerID": f"bowsprit://{hashlib.sha256(f'{uid}/{container.name}/{restarts}'.encode()).hexdigest()}",
        "started": True,
    }
    if container.spec.get("resources"):
        running["resources"] = container.spec["resources"]
    if container.behaviour.ready_delay > 0:
        progress.wake_in(container.behaviour.ready_delay)
    progress.wake_in(container.behaviour.run_duration)
    if container.behaviour.run_duration == 0:
        return _exited(container, running, now)
    return running


def _running(container: Container, status: Obj, now: datetime, progress: Progress) -> Obj:
    course = container.behaviour
    ran = (now - parse_time(status["state"]["running"]["startedAt"])).total_seconds()
    if ran >= course.run_duration:
        progress.wake_in(0)  # the restart policy speaks next
        return _exited(container, status, now)
    progress.wake_in(course.run_duration - ran)
    if not status["ready"] and (not container.init or container.sidecar):
        if ran >= course.ready_delay:
            return {**status, "ready": True}
        progress.wake_in(course.ready_delay - ran)
    elif status["ready"] and course.ready_delay == FOREVER:
        return {**status, "ready": False}
    return status


def _exited(container: Container, status: Obj, now: datetime) -> Obj:
    code = container.behaviour.exit_code
    terminated = {
        "exitCode": code,
        "reason": "Error" if code else "Completed",
        "startedAt": status["state"]["running"]["startedAt"],
        "finishedAt": format_time(now),
        "containerID": status["containerID"],
    }
    done = container.init and not container.sidecar and code == 0
    return {**status, "state": {"terminated": terminated}, "ready": done, "started": False}


def stopped(status: Obj, now: datetime, code: int = 0) -> Obj:
    """The status of a container after its pod was told to stop."""
    running = (status.get("state") or {}).get("running")
    if running is None:
        return status
    terminated = {
        "exitCode": code,
        "reason": "Error" if code else "Completed",
        "startedAt": running["startedAt"],
        "finishedAt": format_time(now),
        "containerID": status.get("containerID", ""),
    }
    return {**status, "state": {"terminated": terminated}, "ready": False, "started": False}


def _terminated(container: Container, status: Obj, pod: Obj, now: datetime, progress: Progress) -> Obj:
    exit_ = status["state"]["terminated"]
    policy = pod["spec"].get("restartPolicy") or "Always"
    if not container.restarts_after(int(exit_["exitCode"]), policy):
        return status
    ended = {**status, "lastState": {"terminated": exit_}}
    pause = back_off(container, int(status["restartCount"]))
    if pause <= 0:
        return _start(container, ended, pod, now, progress)
    meta = pod["metadata"]
    where = f"{meta['name']}_{meta['namespace']}({meta['uid']})"
    progress.events.append(
        Event(
            "Warning",
            "BackOff",
            f"Back-off restarting failed container {container.name} in pod {where}",
            container.name,
            container.init,
        )
    )
    text = f"back-off {_go_duration(pause)} restarting failed container={container.name} pod={where}"
    result = waiting(container, "CrashLoopBackOff", text, ended)
    progress.wake_in(_back_off_left(container, result, now))
    return result


def back_off(container: Container, restarts: int) -> float:
    """Seconds before the next restart: none before the first, then doubling from the base to five minutes."""
    if restarts == 0:
        return 0.0
    return float(min(MAX_BACK_OFF, container.behaviour.back_off * 2 ** min(restarts - 1, 16)))


def _back_off_left(container: Container, status: Obj, now: datetime) -> float:
    finished = parse_time(status["lastState"]["terminated"]["finishedAt"])
    return back_off(container, int(status["restartCount"])) - (now - finished).total_seconds()


def _go_duration(seconds: float) -> str:
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
