"""Metrics in the Prometheus text format 0.0.4, with upstream's names and HELP texts.

prometheus_client renames counters that do not end in ``_total``; upstream has such, so the format is written here.
"""

from __future__ import annotations

import bisect
import math
import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
PREFIX = "konnectivity_network_proxy_"
LATENCY_BUCKETS = (0.000001, 0.00001, 0.0001, 0.005, 0.025, 0.1, 0.5, 2.5, 12.5)
AGENT_LATENCY_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0)
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONNECTION_BUCKETS = (1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 14400.0, 43200.0, 86400.0)
PACKETS_HELP = "Count of packets processed, by segment and packet type (example: from_client, DIAL_REQ)"
ERRORS_HELP = (
    "Count of gRPC stream errors, by segment, grpc Code, packet type. (example: from_agent, Code.Unavailable, DIAL_RSP)"
)

Labels = tuple[str, ...]


class Metric:
    """A counter or gauge with labels; a family without series is not shown, as in Go."""

    def __init__(
        self, kind: str, name: str, help_text: str, labels: Labels = (), *, initial: float | None = None
    ) -> None:
        self.kind = kind
        self.name = name
        self.help = help_text
        self.labels = labels
        self.values: dict[Labels, float] = {} if initial is None else {(): initial}

    def inc(self, *labels: str, by: float = 1) -> None:
        """Add."""
        self.values[labels] = self.values.get(labels, 0.0) + by

    def set(self, value: float, *labels: str) -> None:
        """Replace."""
        self.values[labels] = value

    def render(self) -> Iterable[str]:
        """The family's lines."""
        if self.values:
            yield from _head(self.name, self.help, self.kind)
            for labels, value in sorted(self.values.items()):
                yield f"{self.name}{_labels(self.labels, labels)} {_number(value)}"


class Histogram:
    """Observations in buckets, with labels."""

    def __init__(self, name: str, help_text: str, buckets: tuple[float, ...], labels: Labels = ()) -> None:
        self.name = name
        self.help = help_text
        self.labels = labels
        self._buckets = buckets
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Count one observation."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._buckets) + 1)
            self._sums[labels] = 0.0
        counts[bisect.bisect_left(self._buckets, value)] += 1
        self._sums[labels] += value

    def render(self) -> Iterable[str]:
        """The family's lines."""
        if not self._counts:
            return
        yield from _head(self.name, self.help, "histogram")
        for labels, counts in sorted(self._counts.items()):
            total = 0
            for bound, count in zip((*self._buckets, math.inf), counts, strict=True):
                total += count
                names, values = (*self.labels, "le"), (*labels, _number(bound))
                yield f"{self.name}_bucket{_labels(names, values)} {total}"
            yield f"{self.name}_sum{_labels(self.labels, labels)} {_number(self._sums[labels])}"
            yield f"{self.name}_count{_labels(self.labels, labels)} {total}"


class Registry:
    """Metrics of one server or agent; ``before`` runs at each scrape, to set gauges from the state itself."""

    def __init__(self) -> None:
        self.families: list[Metric | Histogram] = []
        self.before: Callable[[], None] = lambda: None

    def counter(self, name: str, help_text: str, labels: Labels = (), *, initial: float | None = None) -> Metric:
        """A new counter."""
        return self._add(Metric("counter", name, help_text, labels, initial=initial))

    def gauge(self, name: str, help_text: str, labels: Labels = (), *, initial: float | None = None) -> Metric:
        """A new gauge."""
        return self._add(Metric("gauge", name, help_text, labels, initial=initial))

    def histogram(self, name: str, help_text: str, buckets: tuple[float, ...], labels: Labels = ()) -> Histogram:
        """A new histogram."""
        histogram = Histogram(name, help_text, buckets, labels)
        self.families.append(histogram)
        return histogram

    def _add(self, metric: Metric) -> Metric:
        self.families.append(metric)
        return metric

    def render(self) -> str:
        """The exposition."""
        self.before()
        families = sorted(self.families, key=lambda family: family.name)
        lines = [line for family in families for line in family.render()]
        return "\n".join([*lines, *_process()]) + "\n"


def fill_packets(metric: Metric, packets: Mapping[tuple[str, int], int], name: Callable[[int], str]) -> None:
    """Copy packet counts into ``stream_packets_total``."""
    for (segment, kind), count in packets.items():
        metric.set(count, segment, name(kind))


def _head(name: str, help_text: str, kind: str) -> Iterable[str]:
    yield f"# HELP {name} " + help_text.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# TYPE {name} {kind}"


def _labels(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    pairs = sorted(zip(names, values, strict=True), key=lambda pair: (pair[0] == "le", pair[0]))
    quoted = (
        f'{name}="{value.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34)).replace(chr(10), chr(92) + "n")}"'
        for name, value in pairs
    )
    return "{" + ",".join(quoted) + "}"


def _number(value: float) -> str:
    """As Go prints it: the shortest form, integers without a point, small numbers as 1e-06."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(float(value))


_START = time.time()


def _process() -> Iterable[str]:
    """What Go's process collector shows, where it costs nothing to know."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    rows: list[tuple[str, str, str, float]] = [
        ("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "counter",
         usage.ru_utime + usage.ru_stime),
        ("process_max_fds", "Maximum number of open file descriptors.", "gauge",
         resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        ("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", "gauge", _START),
    ]  # fmt: skip
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        rows.append(("process_open_fds", "Number of open file descriptors.", "gauge", len(os.listdir("/proc/self/fd"))))
        memory = pages * resource.getpagesize()
        rows.append(("process_resident_memory_bytes", "Resident memory size in bytes.", "gauge", memory))
    except OSError:
        pass
    for name, help_text, kind, value in sorted(rows):
        yield from _head(name, help_text, kind)
        yield f"{name} {_number(value)}"
