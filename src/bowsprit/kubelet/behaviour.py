"""How a simulated container behaves, as its pod's annotations say.

    bowsprit.dev/start-delay: 5s          how long the container stays in ContainerCreating
    bowsprit.dev/ready-delay: 10s|never   when it becomes ready after its start
    bowsprit.dev/run-duration: 30s|forever  when it exits (pods of Jobs: about a second, all others: never)
    bowsprit.dev/exit-code: "1"           with what code it exits (after a second, if no run-duration is given)
    bowsprit.dev/image-pull-error: text   the image cannot be pulled
    bowsprit.dev/termination-delay: 5s    how long it takes to stop when its pod is deleted
    bowsprit.dev/back-off: 1s             first pause before a restart of a container that keeps exiting (10s)

``<container>.bowsprit.dev/<name>`` is for one container, init containers included, and wins over ``bowsprit.dev/<name>``,
which is for all but the init containers. A value that cannot be read counts as absent, and an event says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bowsprit.machinery import objects
from bowsprit.machinery.objects import Obj, owner_references
from bowsprit.machinery.time import parse_duration

DOMAIN = "bowsprit.dev"
FOREVER = math.inf
_JOB_SECONDS = 1.0
_START_DELAY = 0.1
_BACK_OFF = 10.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One container's course; times are seconds."""

    start_delay: float = _START_DELAY
    ready_delay: float = 0.0
    run_duration: float = FOREVER
    exit_code: int = 0
    image_pull_error: str = ""
    termination_delay: float = 0.0
    back_off: float = _BACK_OFF


class _Annotations:
    """Reads the annotations for one container and collects what cannot be read."""

    def __init__(self, pod: Obj, container: str, general: bool) -> None:
        self._annotations = objects.annotations(pod)
        self._domains = [f"{container}.{DOMAIN}", *([DOMAIN] if general else [])]
        self.problems: list[str] = []

    def text(self, name: str) -> str | None:
        for domain in self._domains:
            if (value := self._annotations.get(f"{domain}/{name}")) is not None:
                return value
        return None

    def seconds(self, name: str, default: float, forever: str = "") -> float:
        value = self.text(name)
        if value is None:
            return default
        if forever and value == forever:
            return FOREVER
        try:
            return max(0.0, parse_duration(value) / 1e9)
        except ValueError:
            self.problems.append(f"annotation {name}: {value!r} is not a duration such as 5s")
            return default

    def number(self, name: str) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if value.lstrip("-").isdigit() and 0 <= int(value) <= 255:
            return int(value)
        self.problems.append(f"annotation {name}: {value!r} is not an exit code from 0 to 255")
        return None


def behaviour(pod: Obj, container: str, *, init: bool = False, sidecar: bool = False) -> tuple[Behaviour, list[str]]:
    """The behaviour of one container, and complaints about annotations that make no sense."""
    read = _Annotations(pod, container, general=not init)
    default_run = FOREVER
    if init and not sidecar:
        default_run = 0.0
    elif any(reference.get("kind") == "Job" for reference in owner_references(pod)) and not sidecar:
        default_run = _JOB_SECONDS
    code = read.number("exit-code")
    if code is not None and default_run == FOREVER:
        default_run = _JOB_SECONDS
    made = Behaviour(
        start_delay=read.seconds("start-delay", _START_DELAY if not init else 0.0),
        ready_delay=read.seconds("ready-delay", 0.0, forever="never"),
        run_duration=read.seconds("run-duration", default_run, forever="forever"),
        exit_code=code or 0,
        image_pull_error=read.text("image-pull-error") or "",
        termination_delay=read.seconds("termination-delay", 0.0),
        back_off=read.seconds("back-off", _BACK_OFF),
    )
    return made, read.problems
