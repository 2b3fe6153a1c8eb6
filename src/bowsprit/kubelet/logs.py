"""What a simulated container has written: lines made from its status and annotations. No I/O.

    bowsprit.dev/log: text            written at the start, line by line
    bowsprit.dev/log-every: 5s        a numbered line at this interval while the container runs

``<container>.bowsprit.dev/log`` is for one container, as with the other annotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from bowsprit.kubelet.behaviour import DOMAIN
from bowsprit.machinery import objects
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import parse_duration, parse_time

_MAX_LINES = 10_000


class LogError(ValueError):
    """A log that cannot be had; the text is the kubelet's."""


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The query of a log request (v1.PodLogOptions)."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None
    since: datetime | None = None

    @classmethod
    def from_query(cls, query: Mapping[str, str], now: datetime) -> LogOptions:
        """Read the query parameters. Raises LogError."""

        def flag(name: str) -> bool:
            return query.get(name, "").lower() in ("true", "1")

        def number(name: str) -> int | None:
            value = query.get(name)
            if not value:
                return None
            if not value.isdigit():
                raise LogError(f"invalid value {value!r} for {name}")
            return int(value)

        since = None
        if (seconds := number("sinceSeconds")) is not None:
            since = now - timedelta(seconds=seconds)
        elif query.get("sinceTime"):
            try:
                since = parse_time(query["sinceTime"])
            except ValueError as exc:
                raise LogError(f"invalid value for sinceTime: {exc}") from exc
        return cls(
            flag("follow"), flag("previous"), flag("timestamps"), number("tailLines"), number("limitBytes"), since
        )


def container_status(pod: Obj, container: str) -> Obj:
    """The status of a container. Raises LogError if the pod has none of that name."""
    status = pod.get("status") or {}
    for name in ("containerStatuses", "initContainerStatuses"):
        for item in status.get(name) or ():
            if item["name"] == container:
                return item  # type: ignore[no-any-return]
    raise LogError(f'container "{container}" in pod "{pod["metadata"]["name"]}" is not available')


def lines(pod: Obj, container: str, options: LogOptions, now: datetime) -> Iterator[tuple[datetime, str]]:
    """All lines until now, with their times. Raises LogError while there is nothing to read."""
    status = container_status(pod, container)
    name = pod["metadata"]["name"]
    state = status.get("state") or {}
    if options.previous:
        state = status.get("lastState") or {}
        if "terminated" not in state:
            raise LogError(f'previous terminated container "{container}" in pod "{name}" not found')
    elif "waiting" in state:
        ended = status.get("lastState") or {}
        if "terminated" not in ended:
            raise LogError(f'container "{container}" in pod "{name}" is waiting to start: {state["waiting"]["reason"]}')
        state = ended
    return _lines(pod, container, status, state, now)


def _lines(pod: Obj, container: str, status: Obj, state: Obj, now: datetime) -> Iterator[tuple[datetime, str]]:
    run = state.get("running") or state["terminated"]
    started = parse_time(run["startedAt"])
    ended = parse_time(run["finishedAt"]) if "finishedAt" in run else now
    yield started, f"container {container} started (simulated, image {status.get('image', '')})"
    for line in _annotation(pod, container, "log").splitlines():
        yield started, line
    every = _annotation(pod, container, "log-every")
    if every:
        try:
            step = timedelta(microseconds=max(1000, parse_duration(every) // 1000))
        except ValueError:
            step = timedelta.max
        count = 1
        while count <= _MAX_LINES and step <= ended - started and (moment := started + step * count) <= ended:
            yield moment, f"line {count}"
            count += 1
    if "finishedAt" in run:
        yield ended, f"container {container} exited with code {run['exitCode']}"


def _annotation(pod: Obj, container: str, name: str) -> str:
    annotations = objects.annotations(pod)
    return annotations.get(f"{container}.{DOMAIN}/{name}", annotations.get(f"{DOMAIN}/{name}", ""))


def is_running(pod: Obj, container: str) -> bool:
    """Whether more lines may come."""
    try:
        return "running" in (container_status(pod, container).get("state") or {})
    except LogError:
        return False


def render(moment: datetime, text: str, *, timestamps: bool) -> bytes:
    """One line as it is sent."""
    stamp = f"{moment.strftime('%Y-%m-%dT%H:%M:%S.%f')}000Z " if timestamps else ""
    return f"{stamp}{text}\n".encode()


def selected(all_lines: list[tuple[datetime, str]], options: LogOptions) -> list[tuple[datetime, str]]:
    """What ``since`` and ``tail_lines`` leave."""
    kept = [line for line in all_lines if options.since is None or line[0] >= options.since]
    if options.tail_lines is not None:
        kept = kept[len(kept) - options.tail_lines :] if options.tail_lines < len(kept) else kept
    return kept
