"""The agent's flags, their defaults and rules (cmd/agent/app/options/options.go)."""

from __future__ import annotations

from dataclasses import dataclass

from bowsprit.konnectivity import identifiers
from bowsprit.konnectivity.goflags import KLOG_FLAGS, Flag
from bowsprit.konnectivity.govalues import Value
from bowsprit.konnectivity.serveroptions import HOUR, SECOND, OptionsError, must_exist, pair_of_files
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.time import format_duration

_SELECTOR = "k8s-app=konnectivity-server"

AGENT_FLAGS: tuple[Flag, ...] = (
    Flag("agent-cert", "string", "", "Client certificate shown to the server."),
    Flag("agent-key", "string", "", "Key of the client certificate."),
    Flag("ca-cert", "string", "", "CA that the server's certificate must verify against."),
    Flag("proxy-server-host", "string", "127.0.0.1", "Host of the server."),
    Flag("proxy-server-port", "int", 8091, "Port of the server for agents."),
    Flag("alpn-proto", "strings", (), "Additional ALPN protocols, for a load balancer to tell agents by."),
    Flag("health-server-host", "string", "", "Address of the health endpoint; empty for all interfaces."),
    Flag("health-server-port", "int", 8093, "Port of the health endpoint."),
    Flag("admin-bind-address", "string", "127.0.0.1", "Address of the admin endpoint."),
    Flag("admin-server-port", "int", 8094, "Port of the admin endpoint."),
    Flag("enable-profiling", "bool", False, "Serve /debug/pprof/ on the admin port."),
    Flag("enable-contention-profiling", "bool", False, "Accepted for compatibility; needs --enable-profiling."),
    Flag("agent-id", "string", "", "Unique ID of this agent; default $PROXY_AGENT_ID or a UUID."),
    Flag("agent-identifiers", "string", "", "What this agent stands for, URL encoded: ipv4, ipv6, host, cidr, default-route."),
    Flag("sync-interval", "duration", SECOND, "First interval between looks for servers that are not connected."),
    Flag("sync-interval-cap", "duration", 10 * SECOND, "Longest interval after failures."),
    Flag("probe-interval", "duration", SECOND, "Silence after which a server of ours is pinged, so that silent losses are noticed."),
    Flag("keepalive-time", "duration", HOUR, "Silence after which the server is pinged."),
    Flag("service-account-token-path", "string", "", "File with the token that proves who we are; read for every connection."),
    Flag("sync-forever", "bool", False, "Go on looking for servers when all known ones are connected."),
    Flag("count-server-leases", "bool", False, "Count servers by their Leases."),
    Flag("lease-namespace", "string", "kube-system", "Namespace of the Leases."),
    Flag("lease-label-selector", "selector", _SELECTOR, "Which Leases are servers."),
    Flag("lease-label", "selector", "", "", hidden=True, deprecated="Use --lease-label-selector instead",
         target="lease-label-selector"),
    Flag("server-count-source", "string", "default", "'default': Leases if counted, else the servers' word; 'max': the larger."),
    Flag("kubeconfig", "string", "", "How to reach the API server; empty: as a pod."),
    Flag("kube-api-content-type", "string", "application/vnd.kubernetes.protobuf", "Accepted for compatibility."),
    Flag("xfr-channel-size", "int", 150, "Accepted for compatibility: queues are bounded in bytes."),
    Flag("warn-on-channel-limit", "bool", False, "Accepted for compatibility."),
    Flag("graceful-shutdown-timeout", "duration", 25 * SECOND,
         "How long open connections may go on after SIGTERM (ours; upstream's agent never ends by itself)."),
    *KLOG_FLAGS,
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class AgentOptions:
    """The flags' values, named as the flags; durations in nanoseconds as there."""

    agent_cert: str = ""
    agent_key: str = ""
    ca_cert: str = ""
    proxy_server_host: str = "127.0.0.1"
    proxy_server_port: int = 8091
    alpn_proto: tuple[str, ...] = ()
    health_server_host: str = ""
    health_server_port: int = 8093
    admin_bind_address: str = "127.0.0.1"
    admin_server_port: int = 8094
    enable_profiling: bool = False
    enable_contention_profiling: bool = False
    agent_id: str = ""
    agent_identifiers: str = ""
    sync_interval: int = SECOND
    sync_interval_cap: int = 10 * SECOND
    probe_interval: int = SECOND
    keepalive_time: int = HOUR
    service_account_token_path: str = ""
    sync_forever: bool = False
    count_server_leases: bool = False
    lease_namespace: str = "kube-system"
    lease_label_selector: str = _SELECTOR
    server_count_source: str = "default"
    kubeconfig: str = ""
    kube_api_content_type: str = "application/vnd.kubernetes.protobuf"
    xfr_channel_size: int = 150
    warn_on_channel_limit: bool = False
    graceful_shutdown_timeout: int = 25 * SECOND

    @classmethod
    def from_flags(cls, values: dict[str, Value]) -> AgentOptions:
        """From parsed flags."""
        return cls(**{name: value for name, value in values.items() if name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    def validate(self) -> None:
        """Upstream's rules in upstream's order. Raises OptionsError with its text."""
        pair_of_files("agent", self.agent_cert, self.agent_key)
        must_exist(self.ca_cert, "error checking agent CA cert %s")
        for name in ("proxy_server", "health_server", "admin_server"):
            port = getattr(self, f"{name}_port")
            if port <= 0:
                raise OptionsError(f"{name.replace('_', ' ')} port {port} must be greater than 0")
        if self.xfr_channel_size <= 0:
            raise OptionsError(f"channel size {self.xfr_channel_size} must be greater than 0")
        if self.enable_contention_profiling and not self.enable_profiling:
            raise OptionsError("if --enable-contention-profiling is set, --enable-profiling must also be set")
        if self.sync_interval > self.sync_interval_cap:
            interval, cap = format_duration(self.sync_interval), format_duration(self.sync_interval_cap)
            raise OptionsError(f"sync interval {interval} must be less than sync interval cap {cap}")
        must_exist(self.service_account_token_path, "error checking service account token path %s")
        try:
            identifiers.validate(self.agent_identifiers)
        except identifiers.IdentifierError as exc:
            raise OptionsError(f"agent address is invalid: {exc}") from None
        if self.kubeconfig:
            must_exist(self.kubeconfig, f"error checking KubeconfigPath {quote(self.kubeconfig)}")
        if self.server_count_source not in ("", "default", "max"):
            source = self.server_count_source
            raise OptionsError(f"--server-count-source must be one of '', 'default', 'max', got {source}")
        if self.graceful_shutdown_timeout < 0:
            value = format_duration(self.graceful_shutdown_timeout)
            raise OptionsError(f"graceful-shutdown-timeout must be >= 0, got {value}")
