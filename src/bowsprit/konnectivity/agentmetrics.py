"""The agent's metrics (pkg/agent/metrics/metrics.go), and bytes beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from bowsprit.konnectivity.metrics import (
    AGENT_LATENCY_BUCKETS,
    ERRORS_HELP,
    PACKETS_HELP,
    PREFIX,
    Registry,
    fill_packets,
)
from bowsprit.konnectivity.tunnel import Tunnel
from bowsprit.net.egress.packets import type_name
from bowsprit.net.grpc.status import Status, code_name

_AGENT = PREFIX + "agent_"


class AgentMetrics:
    """Counts of all tunnels, those that have ended too."""

    def __init__(self) -> None:
        registry = self.registry = Registry()
        self._dials = registry.histogram(
            _AGENT + "dial_duration_seconds",
            "Latency of dial to the remote endpoint in seconds",
            AGENT_LATENCY_BUCKETS,
        )
        self._failures = registry.counter(
            _AGENT + "endpoint_dial_failure_total",
            "Number of failures dialing the remote endpoint, by reason (example: timeout).",
            ("reason",),
        )
        self.servers = registry.gauge(
            _AGENT + "open_server_connections", "Current number of open server connections.", initial=0
        )
        self.known_servers = registry.gauge(
            _AGENT + "known_server_count", "Current number of servers agent is trying to connect to.", initial=0
        )
        self._endpoints = registry.gauge(
            _AGENT + "open_endpoint_connections", "Current number of open endpoint connections."
        )
        self._server_failures = registry.counter(
            _AGENT + "server_connection_failure_count",
            "Count of failures to send to or receive from the proxy server, labeled by the direction "
            "(from_server or to_server). DEPRECATED, please use stream_events_error_total",
            ("direction",),
        )
        self._packets = registry.counter(_AGENT + "stream_packets_total", PACKETS_HELP, ("segment", "packet_type"))
        self._errors = registry.counter(_AGENT + "stream_errors_total", ERRORS_HELP, ("segment", "code", "packet_type"))
        code = "http_response_code"
        self._lists = registry.counter(
            _AGENT + "lease_lists_total",
            "Count of server lease list calls made by the agent to the k8s apiserver, labeled by HTTP response code and reason",
            (code, "reason"),
        )
        self._watches = registry.counter(
            _AGENT + "lease_watches_total",
            "Count of server lease watch calls made by the agent to the k8s apiserver, labeled by HTTP response code and reason",
            (code, "reason"),
        )
        self._list_latency = registry.histogram(
            _AGENT + "lease_list_latency_seconds",
            "Latency of server lease listing in seconds",
            AGENT_LATENCY_BUCKETS,
            (code,),
        )
        self._bytes = registry.counter(
            "bowsprit_konnectivity_agent_bytes_total", "Bytes of connections' data, by direction.", ("direction",)
        )
        self._past_packets: defaultdict[tuple[str, int], int] = defaultdict(int)
        self._past_bytes = [0, 0]

    def watch(self, tunnels: Callable[[], Iterable[Tunnel]]) -> None:
        """Read gauges and sums from here at each scrape."""

        def fill() -> None:
            packets = defaultdict(int, self._past_packets)
            sent, received, endpoints = *self._past_bytes, 0
            for tunnel in tunnels():
                sent, received, endpoints = (
                    sent + tunnel.sent,
                    received + tunnel.received,
                    endpoints + len(tunnel.endpoints),
                )
                for key, count in tunnel.packets.items():
                    packets[key] += count
            fill_packets(self._packets, packets, type_name)
            if any(kind == 0 for _, kind in packets):
                self._endpoints.set(endpoints)
            self._bytes.set(sent, "to_server")
            self._bytes.set(received, "from_server")

        self.registry.before = fill

    def tunnel_ended(self, tunnel: Tunnel) -> None:
        """Keep the sums of a tunnel that is over."""
        for key, count in tunnel.packets.items():
            self._past_packets[key] += count
        self._past_bytes[0] += tunnel.sent
        self._past_bytes[1] += tunnel.received

    def stream_ended(self, status: Status) -> None:
        """``stream_errors_total``, for a stream that did not end well."""
        if not status.ok:
            self._server_failures.inc("from_server")
            self._errors.inc("to_agent", code_name(status.code), "Unknown")

    def dialled(self, seconds: float) -> None:
        """A dial succeeded."""
        self._dials.observe(seconds)

    def dial_failed(self, *, timeout: bool) -> None:
        """A dial failed."""
        self._failures.inc("timeout" if timeout else "unknown")

    # -- LeaseObserver ------------------------------------------------------------------------------------------------

    def listed(self, code: int, reason: str, latency: float) -> None:
        self._lists.inc(str(code), reason)
        self._list_latency.observe(latency, str(code))

    def watched(self, code: int, reason: str) -> None:
        self._watches.inc(str(code), reason)

    def deleted(self, code: int, reason: str, latency: float) -> None:
        """Agents delete nothing."""

    def culled(self) -> None:
        """Agents delete nothing."""
