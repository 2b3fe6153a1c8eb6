"""/metrics: upstream's names and HELP texts, counted in plain dicts and put together only when somebody asks."""

from __future__ import annotations

import os
import resource as rusage
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from bowsprit.apiserver.cacher import EVENT_SIZES, HISTORY_EVENTS
from bowsprit.apiserver.request import RequestContext

if TYPE_CHECKING:
    from bowsprit.apiserver.inflight import InFlight
    from bowsprit.apiserver.registry import Registry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
# Upstream's buckets of apiserver_request_duration_seconds and of apiserver_response_sizes.
_SECONDS = (
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
)  # fmt: skip
_SLI_SECONDS = (
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
)  # fmt: skip
_SIZES = (1000.0, 10_000.0, 100_000.0, 1_000_000.0, 10_000_000.0, 100_000_000.0, 1_000_000_000.0)
# Those of the durations of authentication and authorization, and of admission.
_AUTH_SECONDS = tuple(0.001 * 2**power for power in range(15))
_ADMISSION_SECONDS = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5)
_TERMINATED = (429, 504)
_VERBS = {"update": "PUT", "create": "POST"}
_MAX_SERIES = 20_000  # a client must not fill the memory by asking for things that do not exist

Sample = tuple[Sequence[tuple[str, str]], float]


class _Series:
    """Everything about one kind of request: counts by code, and three histograms."""

    __slots__ = ("codes", "count", "seconds", "seconds_sum", "sizes", "sizes_sum", "sli", "sli_sum")

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self.count = 0
        self.seconds = [0] * (len(_SECONDS) + 1)
        self.seconds_sum = 0.0
        self.sli = [0] * (len(_SLI_SECONDS) + 1)
        self.sli_sum = 0.0
        self.sizes = [0] * (len(_SIZES) + 1)
        self.sizes_sum = 0


_CONTROLLER = (
    "[STABLE] Admission controller latency histogram in seconds, identified by name and broken out for each operation and API "
    "resource and type (validate or admit)."
)
_STEP = (
    "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type "
    "(validate or admit)."
)
_AUTHENTICATION = "[ALPHA] Authentication duration in seconds broken out by result."
_AUTHORIZATION = "[ALPHA] Authorization duration in seconds broken out by result."


class _Duration:
    """A histogram."""

    __slots__ = ("counts", "sum")

    def __init__(self, buckets: Sequence[float]) -> None:
        self.counts = [0] * (len(buckets) + 1)
        self.sum = 0.0


class Metrics:
    """The server's figures. `extra` collectors give whole families as text."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._series: dict[tuple[str, ...], _Series] = {}
        self._started = time.time()
        self.in_flight: InFlight | None = None
        self.extra: list[Callable[[], str]] = []
        self.authentication = {"success": 0, "failure": 0, "error": 0}
        self.authorization = {"allowed": 0, "denied": 0, "no-opinion": 0}
        self.users: dict[str, int] = {}
        self._durations_of: dict[tuple[str, tuple[tuple[str, str], ...]], _Duration] = {}
        self._long: dict[tuple[str, ...], int] = {}

    def observe(self, ctx: RequestContext, sort: str, answer: Any, seconds: float) -> None:
        """Counts one finished request."""
        info = ctx.info
        if info.is_resource:
            scope = "resource" if info.name else "namespace" if info.namespace else "cluster"
            key = (
                _VERBS.get(info.verb) or info.verb.upper(),
                info.group,
                info.version,
                info.resource,
                info.subresource,
                scope,
                "All" if ctx.dry_run else "",
            )
        else:
            key = (info.verb.upper(), "", "", "", _known_path(info.path), "", "")
        series = self._series.get(key)
        if series is None:
            if len(self._series) >= _MAX_SERIES or (answer.status == 404 and info.is_resource):
                key = ("OTHER", "", "", "", "", "", "")
                series = self._series.get(key)
            if series is None:
                series = self._series[key] = _Series()
        status = answer.status
        series.codes[status] = series.codes.get(status, 0) + 1
        series.count += 1
        size = getattr(answer, "body_length", 0) or 0
        if sort != "long":
            series.seconds[bisect_left(_SECONDS, seconds)] += 1
            series.seconds_sum += seconds
            series.sli[bisect_left(_SLI_SECONDS, seconds)] += 1
            series.sli_sum += seconds
            series.sizes[bisect_left(_SIZES, size)] += 1
            series.sizes_sum += size

    def authenticated(self, name: str, seconds: float) -> None:
        """Counts a request whose sender is known."""
        user = _user(name)
        self.users[user] = self.users.get(user, 0) + 1
        self._took("authentication", (("result", "success"),), _AUTH_SECONDS, seconds)

    def authorized(self, result: str, seconds: float) -> None:
        """Counts a decision: "allowed", "denied" or "no-opinion"."""
        self.authorization[result] += 1
        self._took("authorization", (("result", result),), _AUTH_SECONDS, seconds)

    def admitted(self, plugin: str, operation: str, sort: str, rejected: bool, seconds: float) -> None:
        """Counts a plugin's word, or ("") that of the whole chain."""
        labels = (("operation", operation), ("rejected", "true" if rejected else "false"), ("type", sort))
        if plugin:
            self._took("controller", (("name", plugin), *labels), _ADMISSION_SECONDS, seconds)
        else:
            self._took("step", labels, _ADMISSION_SECONDS, seconds)

    def _took(self, sort: str, labels: tuple[tuple[str, str], ...], buckets: Sequence[float], seconds: float) -> None:
        duration = self._durations_of.get((sort, labels))
        if duration is None:
            if len(self._durations_of) >= _MAX_SERIES:
                return
            duration = self._durations_of[sort, labels] = _Duration(buckets)
        duration.counts[bisect_left(buckets, seconds)] += 1
        duration.sum += seconds

    def long_running(self, ctx: RequestContext, change: int) -> None:
        """A watch or another long-running request begins (1) or ends (-1)."""
        info = ctx.info
        scope = "resource" if info.name else "namespace" if info.namespace else "cluster"
        verb = info.verb.upper() if info.verb == "watch" else "CONNECT"
        key = (info.group, info.resource, scope, info.subresource, verb, info.version)
        count = self._long.get(key, 0) + change
        if count > 0:
            self._long[key] = count
        else:
            self._long.pop(key, None)

    # -- exposition ----------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """The page."""
        parts = ["".join(self._families())]
        parts += [collector() for collector in self.extra]
        return "".join(parts)

    def _families(self) -> Iterator[str]:
        names = ("verb", "group", "version", "resource", "subresource", "scope", "dry_run")
        series = sorted(self._series.items())
        yield from family(
            "apiserver_request_total",
            "counter",
            "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, "
            "component, and HTTP response code.",
            (
                (
                    (
                        *zip(names, key, strict=True),
                        ("code", str(code)),
                        ("component", "apiserver" if key[1] or key[2] else ""),
                        ("system_client", ""),
                    ),
                    count,
                )
                for key, each in series
                for code, count in sorted(each.codes.items())
            ),
        )
        yield from family(
            "apiserver_request_terminations_total",
            "counter",
            "[ALPHA] Number of requests which apiserver terminated in self-defense.",
            (
                ((*zip(names[:-1], key[:-1], strict=True), ("code", str(code)), ("component", "apiserver")), count)
                for key, each in series
                for code, count in sorted(each.codes.items())
                if code in _TERMINATED
            ),
        )
        yield from self._histogram(
            "apiserver_request_duration_seconds",
            "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, "
            "subresource, scope and component.",
            [
                (
                    (*zip(names, key, strict=True), ("component", "apiserver" if key[2] else "")),
                    each.seconds,
                    each.seconds_sum,
                )
                for key, each in series
            ],
            _SECONDS,
        )
        without_dry_run = [
            ((*zip(names[:-1], key[:-1], strict=True), ("component", "apiserver" if key[2] else "")), each)
            for key, each in series
            if not key[-1]
        ]
        yield from self._histogram(
            "apiserver_request_sli_duration_seconds",
            "[ALPHA] Response latency distribution (not counting webhook duration and priority & fairness queue wait times) "
            "in seconds for each verb, group, version, resource, subresource, scope and component.",
            [(labels, each.sli, each.sli_sum) for labels, each in without_dry_run],
            _SLI_SECONDS,
        )
        yield from self._histogram(
            "apiserver_response_sizes",
            "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, scope and "
            "component.",
            [(labels, each.sizes, each.sizes_sum) for labels, each in without_dry_run],
            _SIZES,
        )
        yield from self._gauges()
        yield from self._durations()
        yield from self._process()

    @staticmethod
    def _histogram(
        name: str,
        help_text: str,
        rows: Iterable[tuple[Sequence[tuple[str, str]], list[int], float]],
        buckets: Sequence[float],
    ) -> Iterator[str]:
        lines = []
        for labels, counts, total in rows:
            running = 0
            if not any(counts):
                continue
            for bound, count in zip((*map(_number, buckets), "+Inf"), counts, strict=True):
                running += count
                lines.append(_line(f"{name}_bucket", (*labels, ("le", bound)), running))
            lines.append(_line(f"{name}_sum", labels, total))
            lines.append(_line(f"{name}_count", labels, running))
        if lines:
            yield f"# HELP {name} {help_text}\n# TYPE {name} histogram\n"
            yield "".join(lines)

    def _gauges(self) -> Iterator[str]:
        if self.in_flight is not None:
            counts = self.in_flight.peaks
            yield from family(
                "apiserver_current_inflight_requests",
                "gauge",
                "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last "
                "second.",
                [
                    ((("request_kind", "mutating"),), counts["write"]),
                    ((("request_kind", "readOnly"),), counts["read"]),
                ],
            )
            self.in_flight.peaks = {"read": self.in_flight.counts["read"], "write": self.in_flight.counts["write"]}
        stored = [collection for collection in self._registry.collections() if collection.resource.virtual is None]
        labelled = [
            ((("group", each.resource.group), ("resource", each.resource.plural)), each.cacher) for each in stored
        ]
        yield from family(
            "apiserver_longrunning_requests",
            "gauge",
            "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and "
            "component. Not all requests are tracked this way.",
            [
                (
                    (
                        ("component", "apiserver"),
                        *zip(("group", "resource", "scope", "subresource", "verb", "version"), key, strict=True),
                    ),
                    count,
                )
                for key, count in sorted(self._long.items())
            ],
        )
        objects = [(labels, len(cacher)) for labels, cacher in labelled]
        yield from family(
            "apiserver_resource_objects",
            "gauge",
            "[ALPHA] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value "
            "will be -1.",
            objects,
        )
        yield from family(
            "apiserver_storage_objects",
            "gauge",
            "[STABLE] [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of "
            "last check split by kind. In case of a fetching error, the value will be -1.",
            [((("resource", str(each.resource.gr)),), len(each.cacher)) for each in stored],
        )
        yield from family(
            "authentication_attempts",
            "counter",
            "[ALPHA] Counter of authenticated attempts.",
            [((("result", result),), count) for result, count in self.authentication.items()],
        )
        yield from family(
            "authorization_attempts_total",
            "counter",
            "[ALPHA] Counter of authorization attempts broken down by result. It can be either 'allowed', 'denied', 'no-opinion' "
            "or 'error'.",
            [((("result", result),), count) for result, count in self.authorization.items()],
        )
        yield from family(
            "apiserver_watch_events_total",
            "counter",
            "[ALPHA] Number of events sent in watch clients",
            [
                ((*labels, ("version", each.resource.storage_version.rpartition("/")[2])), each.cacher.sent)
                for each, (labels, _) in zip(stored, labelled, strict=True)
                if each.cacher.sent
            ],
        )
        yield from family(
            "apiserver_watch_cache_events_received_total",
            "counter",
            "[ALPHA] Counter of events received in watch cache broken by resource type.",
            [(labels, cacher.received) for labels, cacher in labelled if cacher.received],
        )
        yield from self._histogram(
            "apiserver_watch_events_sizes",
            "[ALPHA] Watch event size distribution in bytes",
            [
                (
                    (*labels, ("version", each.resource.storage_version.rpartition("/")[2])),
                    cacher.sent_sizes,
                    cacher.sent_bytes,
                )
                for each, (labels, cacher) in zip(stored, labelled, strict=True)
            ],
            EVENT_SIZES,
        )
        yield from family(
            "apiserver_watch_cache_events_dispatched_total",
            "counter",
            "[ALPHA] Counter of events dispatched in watch cache broken by resource type.",
            [(labels, cacher.sent) for labels, cacher in labelled if cacher.sent],
        )
        yield from family(
            "apiserver_watch_cache_initializations_total",
            "counter",
            "[ALPHA] Counter of watch cache initializations broken by resource type.",
            [(labels, 1) for labels, _ in labelled],
        )
        yield from family(
            "watch_cache_capacity",
            "gauge",
            "[ALPHA] Total capacity of watch cache broken by resource type.",
            [(labels, HISTORY_EVENTS) for labels, _ in labelled],
        )
        yield from family(
            "authenticated_user_requests",
            "counter",
            "[ALPHA] Counter of authenticated requests broken out by username.",
            [((("username", name),), count) for name, count in sorted(self.users.items())],
        )
        yield from family(
            "apiserver_watch_cache_resource_version",
            "gauge",
            "[ALPHA] Current resource version of watch cache broken by resource type. This is truncated to the 15 least "
            "significant digits.",
            [(labels, cacher.seen) for labels, cacher in labelled],
        )

    def _durations(self) -> Iterator[str]:
        for sort, name, help_text, buckets in (
            (
                "controller",
                "apiserver_admission_controller_admission_duration_seconds",
                _CONTROLLER,
                _ADMISSION_SECONDS,
            ),
            ("step", "apiserver_admission_step_admission_duration_seconds", _STEP, _ADMISSION_SECONDS),
            ("authentication", "authentication_duration_seconds", _AUTHENTICATION, _AUTH_SECONDS),
            ("authorization", "authorization_duration_seconds", _AUTHORIZATION, _AUTH_SECONDS),
        ):
            rows = [
                (labels, each.counts, each.sum)
                for (of, labels), each in sorted(self._durations_of.items())
                if of == sort
            ]
            yield from self._histogram(name, help_text, rows, buckets)

    def _process(self) -> Iterator[str]:
        usage = rusage.getrusage(rusage.RUSAGE_SELF)
        yield from family(
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            [((), usage.ru_utime + usage.ru_stime)],
        )
        yield from family(
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            [((), self._started)],
        )
        try:
            with open("/proc/self/statm", encoding="ascii") as file:
                virtual, resident = (int(field) * os.sysconf("SC_PAGE_SIZE") for field in file.read().split()[:2])
            descriptors = len(os.listdir("/proc/self/fd"))
        except OSError:
            return
        yield from family("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", [((), resident)])
        yield from family("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", [((), virtual)])
        address_space = rusage.getrlimit(rusage.RLIMIT_AS)[0]
        yield from family(
            "process_virtual_memory_max_bytes",
            "gauge",
            "Maximum amount of virtual memory available in bytes.",
            [((), address_space if address_space != rusage.RLIM_INFINITY else float(2**64))],
        )
        yield from family("process_open_fds", "gauge", "Number of open file descriptors.", [((), descriptors)])
        limit = rusage.getrlimit(rusage.RLIMIT_NOFILE)[0]
        yield from family("process_max_fds", "gauge", "Maximum number of open file descriptors.", [((), limit)])


def family(name: str, sort: str, help_text: str, samples: Iterable[Sample]) -> Iterator[str]:
    """One metric family in the text format; nothing at all without samples."""
    lines = [_line(name, labels, value) for labels, value in samples]
    if lines:
        yield f"# HELP {name} {help_text}\n# TYPE {name} {sort}\n"
        yield "".join(lines)


def _line(name: str, labels: Sequence[tuple[str, str]], value: float) -> str:
    if not labels:
        return f"{name} {_number(value)}\n"
    inside = ",".join(f'{key}="{_escape(text)}"' for key, text in sorted(labels))
    return f"{name}{{{inside}}} {_number(value)}\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


_KNOWN_PATHS = (
    "/healthz",
    "/livez",
    "/readyz",
    "/metrics",
    "/version",
    "/openapi/v2",
    "/openapi/v3",
    "/api",
    "/apis",
    "/",
)


def _user(name: str) -> str:
    """Upstream's compressUsername: so that users do not make families without end."""
    if name in ("admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"):
        return name
    return "email_id" if "@" in name else "other"


def _known_path(path: str) -> str:
    return path if path in _KNOWN_PATHS else ""
