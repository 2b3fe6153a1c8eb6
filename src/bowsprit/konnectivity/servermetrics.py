"""The server's metrics (pkg/server/metrics/metrics.go), and ours beside them: bytes, per agent."""

from __future__ import annotations

from bowsprit.konnectivity.links import DialFailure
from bowsprit.konnectivity.metrics import (
    CONNECTION_BUCKETS,
    DEFAULT_BUCKETS,
    ERRORS_HELP,
    LATENCY_BUCKETS,
    PACKETS_HELP,
    PREFIX,
    Registry,
    fill_packets,
)
from bowsprit.konnectivity.router import Router
from bowsprit.net.egress.packets import type_name
from bowsprit.net.grpc.status import Status, StatusCode, code_name

_SERVER = PREFIX + "server_"
_OWN = "bowsprit_konnectivity_server_"


class ServerMetrics:
    """Observer of the router and the leases; gauges are read from the router when scraped."""

    def __init__(self) -> None:
        registry = self.registry = Registry()
        self._dials = registry.histogram(
            _SERVER + "dial_duration_seconds", "Latency of dial to the remote endpoint in seconds", LATENCY_BUCKETS
        )
        self._writes = registry.histogram(
            _SERVER + "frontend_write_duration_seconds", "Latency of write to the frontend in seconds", LATENCY_BUCKETS
        )
        self._connections = registry.histogram(
            _SERVER + "connection_duration_seconds",
            "Duration in seconds a proxied end-to-end connection was established (post-dial) before being closed.",
            CONNECTION_BUCKETS,
        )
        self.grpc_connections = registry.gauge(
            _SERVER + "grpc_connections",
            "Number of current grpc connections, partitioned by service method.",
            ("service_method",),
        )
        self._http = registry.gauge(
            _SERVER + "http_connections", "Number of current HTTP CONNECT connections", initial=0
        )
        self._ready_deprecated = registry.gauge(
            _SERVER + "ready_backend_connections",
            "Number of konnectivity agent connected to the proxy server. DEPRECATED, please use ready_backends",
        )
        self._ready = registry.gauge(
            _SERVER + "ready_backends",
            "Number of konnectivity agent connected to the proxy server",
            ("proxy_strategy",),
        )
        self._pending = registry.gauge(
            _SERVER + "pending_backend_dials", "Current number of pending backend dial requests"
        )
        self._established = registry.gauge(
            _SERVER + "established_connections", "Current number of established end-to-end connections (post-dial)."
        )
        self._full = registry.gauge(
            _SERVER + "full_receive_channels",
            "Number of current connections blocked by a full receive channel, partitioned by service method.",
            ("service_method",),
        )
        self._failures = registry.counter(
            _SERVER + "dial_failure_count",
            "Number of dial failures observed. Multiple failures can occur for a single dial request.",
            ("reason",),
        )
        self._packets = registry.counter(_SERVER + "stream_packets_total", PACKETS_HELP, ("segment", "packet_type"))
        self._errors = registry.counter(
            _SERVER + "stream_errors_total", ERRORS_HELP, ("segment", "code", "packet_type")
        )
        self._add_lease_metrics(registry)
        self._bytes = registry.counter(
            _OWN + "bytes_total", "Bytes of connections' data, by agent and direction.", ("agent", "direction")
        )
        self._agent_connections = registry.gauge(
            _OWN + "agent_connections", "Established connections, by agent.", ("agent",)
        )
        self._draining = registry.gauge(_OWN + "agent_draining", "1 for an agent that drains.", ("agent",))
        self._gone_bytes: dict[tuple[str, str], int] = {}

    def _add_lease_metrics(self, registry: Registry) -> None:
        code = "http_status_code"
        self._culled = registry.counter(
            _SERVER + "culled_leases_count",
            "Count of expired leases that the lease garbage collection controller has culled.",
            initial=0,
        )
        self._delete_latency = registry.histogram(
            _SERVER + "lease_delete_latency_seconds",
            "Latency of lease deletion calls by the garbage collection controller in seconds.",
            DEFAULT_BUCKETS,
            (code,),
        )
        self._deletes = registry.counter(
            _SERVER + "lease_delete_total",
            "Count of lease delection calls by the garbage collection controller. Labeled by HTTP status code and reason.",
            (code, "reason"),
        )
        self._list_latency = registry.histogram(
            _SERVER + "lease_list_latency_seconds",
            "Latency of lease list calls by the garbage collection controller in seconds.",
            DEFAULT_BUCKETS,
            (code,),
        )
        self._lists = registry.counter(
            _SERVER + "lease_list_total",
            "Count of lease deletion calls by the garbage collection controller. Labeled by HTTP status code and reason.",
            (code, "reason"),
        )

    def watch(self, router: Router) -> None:
        """Read gauges from here at each scrape."""

        def fill() -> None:
            for strategy in router.backends.strategies:
                self._ready.set(router.backends.count(strategy), strategy.value)
                self._ready_deprecated.set(router.backends.count(strategy))
            fill_packets(self._packets, router.packets, type_name)
            if self._dials_seen(router):
                self._pending.set(len(router.dials))
                self._established.set(router.established)
            self._fill_agents(router)

        self.registry.before = fill

    def _dials_seen(self, router: Router) -> bool:
        return any(kind == 0 for _, kind in router.packets)

    def _fill_agents(self, router: Router) -> None:
        totals: dict[tuple[str, str], int] = dict(self._gone_bytes)
        self._agent_connections.values.clear()
        self._draining.values.clear()
        waiting, held = 0, router.held_back
        for backend in router.backends.all():
            for direction, count in (("to_agent", backend.sent), ("from_agent", backend.received)):
                key = (backend.agent_id, direction)
                totals[key] = totals.get(key, 0) + count
            self._agent_connections.inc(backend.agent_id, by=len(backend.links))
            self._draining.set(int(backend.draining), backend.agent_id)
            waiting += sum(bool(link.queue) for link in backend.links.values())
        for key, count in totals.items():
            self._bytes.set(count, *key)
        if waiting or held or self._full.values:
            self._full.set(waiting, "Proxy")
            self._full.set(held, "Connect")

    def agent_gone(self, agent_id: str, sent: int, received: int) -> None:
        """Keep the byte counts of an agent's stream that has ended; the oldest are dropped beyond a thousand agents."""
        for direction, count in (("to_agent", sent), ("from_agent", received)):
            key = (agent_id, direction)
            self._gone_bytes[key] = self._gone_bytes.pop(key, 0) + count
        while len(self._gone_bytes) > 2000:
            oldest = next(iter(self._gone_bytes))
            del self._gone_bytes[oldest]
            self._bytes.values.pop(oldest, None)

    def set_http_connections(self, count: int) -> None:
        """``http_connections``."""
        self._http.set(count)

    def stream_ended(self, segment: str, status: Status) -> None:
        """``stream_errors_total``, for a stream that did not end well."""
        if not status.ok:
            lost = status.code is StatusCode.UNAVAILABLE  # grpc-go's servers see that as their call being cancelled
            self._errors.inc(segment, code_name(StatusCode.CANCELLED if lost else status.code), "Unknown")

    # -- Observer -----------------------------------------------------------------------------------------------------

    def dial_failed(self, failure: DialFailure) -> None:
        self._failures.inc(failure.value)

    def dialled(self, seconds: float) -> None:
        self._dials.observe(seconds)

    def frontend_wrote(self, seconds: float) -> None:
        self._writes.observe(seconds)

    def connection_ended(self, seconds: float) -> None:
        self._connections.observe(seconds)

    # -- LeaseObserver ------------------------------------------------------------------------------------------------

    def listed(self, code: int, reason: str, latency: float) -> None:
        self._lists.inc(str(code), reason)
        self._list_latency.observe(latency, str(code))

    def deleted(self, code: int, reason: str, latency: float) -> None:
        self._deletes.inc(str(code), reason)
        self._delete_latency.observe(latency, str(code))

    def culled(self) -> None:
        self._culled.inc()

    def watched(self, code: int, reason: str) -> None:
        """Servers do not watch."""
