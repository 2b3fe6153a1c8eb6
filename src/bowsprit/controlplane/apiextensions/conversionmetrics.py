"""The figures of conversion webhooks, with upstream's names and HELP texts."""

from __future__ import annotations

from bisect import bisect_left

from bowsprit.apiserver.metrics import family

_SECONDS = tuple(0.001 * 2**step for step in range(15))
_LATENCY = (
    0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0,
)  # fmt: skip
_MAX_SERIES = 2000


class _Histogram:
    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class ConversionMetrics:
    """Counted in plain dicts; `text` puts them together."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str], int] = {}
        self._latency: dict[tuple[str, str], _Histogram] = {}
        self._durations: dict[tuple[str, str, str, str], _Histogram] = {}

    def observe(self, name: str, versions: tuple[str, str], seconds: float, failure: str) -> None:
        """One call: of which definition, from which version to which; `failure` is the type of failure, "" for success."""
        key = ("failure" if failure else "success", failure)
        self._requests[key] = self._requests.get(key, 0) + 1
        self._latency.setdefault(key, _Histogram(_LATENCY)).observe(seconds)
        series = (name, *versions, "false" if failure else "true")
        if series in self._durations or len(self._durations) < _MAX_SERIES:
            self._durations.setdefault(series, _Histogram(_SECONDS)).observe(seconds)

    def text(self) -> str:
        """In Prometheus' text format."""
        requests = [
            ((("failure_type", failure), ("result", result)), float(count))
            for (result, failure), count in sorted(self._requests.items())
        ]
        parts = [
            *family(
                "apiserver_conversion_webhook_request_total",
                "counter",
                "[ALPHA] Counter for conversion webhook requests with success/failure and failure error type",
                requests,
            ),
            _histogram(
                "apiserver_conversion_webhook_duration_seconds",
                "[ALPHA] Conversion webhook request latency",
                [((("failure_type", key[1]), ("result", key[0])), item) for key, item in sorted(self._latency.items())],
            ),
            _histogram(
                "apiserver_crd_conversion_webhook_duration_seconds",
                "[ALPHA] CRD webhook conversion duration in seconds",
                [
                    (tuple(zip(("crd_name", "from_version", "to_version", "succeeded"), key, strict=True)), item)
                    for key, item in sorted(self._durations.items())
                ],
            ),
        ]
        return "".join(parts)


def _histogram(name: str, about: str, series: list[tuple[tuple[tuple[str, str], ...], _Histogram]]) -> str:
    if not series:
        return ""
    lines = [f"# HELP {name} {about}\n# TYPE {name} histogram\n"]
    for labels, item in series:
        shown = ",".join(f'{key}="{value}"' for key, value in labels)
        seen = 0
        for bound, count in zip((*item.bounds, float("inf")), item.counts, strict=True):
            seen += count
            limit = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(f'{name}_bucket{{{shown},le="{limit}"}} {seen}\n')
        lines.append(f"{name}_sum{{{shown}}} {item.total!r}\n{name}_count{{{shown}}} {seen}\n")
    return "".join(lines)
