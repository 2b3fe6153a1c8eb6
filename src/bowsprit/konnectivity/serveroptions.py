"""The server's flags, their defaults and rules (cmd/server/app/options/options.go)."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from bowsprit.konnectivity.backends import parse_strategies
from bowsprit.konnectivity.goflags import KLOG_FLAGS, Flag
from bowsprit.konnectivity.govalues import Value
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.time import format_duration

log = logging.getLogger(__name__)

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
MODE_GRPC, MODE_HTTP_CONNECT = "grpc", "http-connect"
TLS_VERSIONS = ("VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13")
# crypto/tls.CipherSuites(), and what OpenSSL calls those that TLS 1.2 negotiates; TLS 1.3's are not configurable.
CIPHER_SUITES = {
    "TLS_AES_128_GCM_SHA256": "",
    "TLS_AES_256_GCM_SHA384": "",
    "TLS_CHACHA20_POLY1305_SHA256": "",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}


class OptionsError(Exception):
    """The options contradict each other or name what is not there; the message is upstream's."""


SERVER_FLAGS: tuple[Flag, ...] = (
    Flag("server-cert", "string", "", "Certificate of the frontend listener (TCP mode)."),
    Flag("server-key", "string", "", "Key of the frontend listener (TCP mode)."),
    Flag("server-ca-cert", "string", "", "CA that API servers' client certificates must verify against (TCP mode)."),
    Flag("cluster-cert", "string", "", "Certificate that agents are shown."),
    Flag("cluster-key", "string", "", "Key of the certificate that agents are shown."),
    Flag("cluster-ca-cert", "string", "", "If set, agents must present a certificate of this CA."),
    Flag("mode", "string", MODE_GRPC, "What API servers speak: 'grpc' or 'http-connect'."),
    Flag("uds-name", "string", "", "Unix socket for API servers; empty for TCP."),
    Flag("delete-existing-uds-file", "bool", True, "Remove a socket file that is already there."),
    Flag("server-port", "int", 8090, "Port for API servers; 0 with --uds-name."),
    Flag("server-bind-address", "string", "", "Address for API servers; empty for all interfaces."),
    Flag("agent-port", "int", 8091, "Port for agents."),
    Flag("agent-bind-address", "string", "", "Address for agents; empty for all interfaces."),
    Flag("admin-port", "int", 8095, "Port of the admin endpoint."),
    Flag("admin-bind-address", "string", "127.0.0.1", "Address of the admin endpoint."),
    Flag("health-port", "int", 8092, "Port of the health endpoint."),
    Flag("health-bind-address", "string", "", "Address of the health endpoint; empty for all interfaces."),
    Flag("keepalive-time", "duration", HOUR, "Silence after which an agent is pinged."),
    Flag("frontend-keepalive-time", "duration", HOUR, "Silence after which an API server is pinged."),
    Flag("enable-profiling", "bool", False, "Serve /debug/pprof/ on the admin port."),
    Flag("enable-contention-profiling", "bool", False, "Accepted for compatibility; needs --enable-profiling."),
    Flag("server-id", "string", "", "Unique ID of this server; default $PROXY_SERVER_ID or a UUID."),
    Flag("server-count", "int", 1, "How many servers there are; told to agents."),
    Flag("agent-namespace", "string", "", "Namespace of the agents' service account (token authentication)."),
    Flag("agent-service-account", "string", "", "Name of the agents' service account (token authentication)."),
    Flag("kubeconfig", "string", "", "How to reach the API server; empty: as a pod."),
    Flag("kubeconfig-qps", "float32", 0.0, "Requests per second to the API server; 0: 5."),
    Flag("kubeconfig-burst", "int", 0, "Burst of requests to the API server; 0: 10."),
    Flag("kube-api-content-type", "string", "application/vnd.kubernetes.protobuf", "Accepted for compatibility."),
    Flag("authentication-audience", "string", "", "Audience of the agents' tokens (token authentication)."),
    Flag("proxy-strategies", "string", "default", "Comma list of default, destHost, defaultRoute, in order of preference."),
    Flag("cipher-suites", "strings", (), "Allowed TLS 1.2 cipher suites, by Go's names; empty: the default list."),
    Flag("tls-min-version", "string", "", "VersionTLS10 to VersionTLS13; empty: VersionTLS12."),
    Flag("xfr-channel-size", "int", 10, "Accepted for compatibility: queues are bounded in bytes."),
    Flag("enable-lease-controller", "bool", False, "Publish this server as a Lease and remove expired ones."),
    Flag("lease-namespace", "string", "kube-system", "Namespace of the Leases."),
    Flag("lease-label", "string", "k8s-app=konnectivity-server", "Labels of the Leases, k=v,k=v."),
    Flag("graceful-shutdown-timeout", "duration", 0, "How long open connections may go on after SIGTERM; 0: not at all."),
    Flag("backend-dial-timeout", "duration", 0, "How long an agent may take to answer a dial; 0: for ever."),
    Flag("warn-on-channel-limit", "bool", True, "No effect.",
         deprecated="This behavior is now thread safe and always on. This flag will be removed in a future release."),
    *KLOG_FLAGS,
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class ServerOptions:
    """The flags' values, named as the flags; durations in nanoseconds as there."""

    server_cert: str = ""
    server_key: str = ""
    server_ca_cert: str = ""
    cluster_cert: str = ""
    cluster_key: str = ""
    cluster_ca_cert: str = ""
    mode: str = MODE_GRPC
    uds_name: str = ""
    delete_existing_uds_file: bool = True
    server_port: int = 8090
    server_bind_address: str = ""
    agent_port: int = 8091
    agent_bind_address: str = ""
    admin_port: int = 8095
    admin_bind_address: str = "127.0.0.1"
    health_port: int = 8092
    health_bind_address: str = ""
    keepalive_time: int = HOUR
    frontend_keepalive_time: int = HOUR
    enable_profiling: bool = False
    enable_contention_profiling: bool = False
    server_id: str = ""
    server_count: int = 1
    agent_namespace: str = ""
    agent_service_account: str = ""
    kubeconfig: str = ""
    kubeconfig_qps: float = 0.0
    kubeconfig_burst: int = 0
    kube_api_content_type: str = "application/vnd.kubernetes.protobuf"
    authentication_audience: str = ""
    proxy_strategies: str = "default"
    cipher_suites: tuple[str, ...] = ()
    tls_min_version: str = ""
    xfr_channel_size: int = 10
    enable_lease_controller: bool = False
    lease_namespace: str = "kube-system"
    lease_label: str = "k8s-app=konnectivity-server"
    graceful_shutdown_timeout: int = 0
    backend_dial_timeout: int = 0

    @classmethod
    def from_flags(cls, values: dict[str, Value]) -> ServerOptions:
        """From parsed flags."""
        return cls(**{name: value for name, value in values.items() if name in cls.__dataclass_fields__})  # type: ignore[arg-type]

    @property
    def token_authentication(self) -> bool:
        """Whether agents must show a service account token."""
        return bool(self.agent_namespace)

    @property
    def needs_client(self) -> bool:
        """Whether an API server must be reachable."""
        auth = self.agent_namespace or self.agent_service_account or self.authentication_audience
        return bool(auth) or self.enable_lease_controller

    def validate(self) -> None:
        """Upstream's rules in upstream's order. Raises OptionsError with its text."""
        pair_of_files("server", self.server_cert, self.server_key)
        must_exist(self.server_ca_cert, "error checking server CA cert %s")
        pair_of_files("cluster", self.cluster_cert, self.cluster_key)
        must_exist(self.cluster_ca_cert, "error checking cluster CA cert %s")
        if self.mode not in (MODE_GRPC, MODE_HTTP_CONNECT):
            raise OptionsError(f"mode must be set to either 'grpc' or 'http-connect' not {quote(self.mode)}")
        self._validate_frontend()
        self._validate_ports()
        if self.enable_contention_profiling and not self.enable_profiling:
            raise OptionsError("if --enable-contention-profiling is set, --enable-profiling must also be set")
        self._validate_authentication()
        if self.kubeconfig:
            must_exist(self.kubeconfig, f"checking KubeconfigPath {quote(self.kubeconfig)}")
        self._validate_serving()
        if self.enable_lease_controller:
            parse_labels(self.lease_label)
        for name in ("graceful_shutdown_timeout", "backend_dial_timeout"):
            value = getattr(self, name)
            if value < 0:
                raise OptionsError(f"{name.replace('_', '-')} must be >= 0, got {format_duration(value)}")

    def _validate_frontend(self) -> None:
        if not self.uds_name:
            if not self.server_ca_cert:
                raise OptionsError("server ca cert must be set when in TCP mode (uds-name is empty)")
            return
        if self.server_port != 0:
            raise OptionsError(f"server port should be set to 0 not {self.server_port} for UDS")
        for name in ("key", "cert", "ca cert"):
            if getattr(self, "server_" + name.replace(" ", "_")):
                raise OptionsError(f"server {name} should not be set for UDS")

    def _validate_ports(self) -> None:
        ports = {name: getattr(self, f"{name}_port") for name in ("server", "agent", "admin", "health")}
        for name, port in ports.items():
            if port > 49151:
                raise OptionsError(f"please do not try to use ephemeral port {port} for the {name} port")
        for name, port in ports.items():
            if port < 1024 and not (name == "server" and self.uds_name):
                raise OptionsError(f"please do not try to use reserved port {port} for the {name} port")

    def _validate_authentication(self) -> None:
        if not (self.agent_namespace or self.agent_service_account or self.authentication_audience):
            return
        if self.cluster_ca_cert:
            raise OptionsError("--cluster-ca-cert can not be used when agent authentication is enabled")
        for name in ("agent_namespace", "agent_service_account", "authentication_audience"):
            if not getattr(self, name):
                flag = name.replace("_", "-")
                raise OptionsError(f"--{flag} cannot be empty when agent authentication is enabled")

    def _validate_serving(self) -> None:
        if not self.proxy_strategies:
            raise OptionsError("ProxyStrategies cannot be empty")
        try:
            parse_strategies(self.proxy_strategies)
        except ValueError as exc:
            raise OptionsError(f"invalid proxy strategies: {exc}") from None
        if self.xfr_channel_size <= 0:
            raise OptionsError(f"channel size {self.xfr_channel_size} must be greater than 0")
        if self.tls_min_version and self.tls_min_version not in TLS_VERSIONS:
            supported = ", ".join(TLS_VERSIONS)
            raise OptionsError(
                f"unsupported TLS version {quote(self.tls_min_version)}, supported values are: {supported}"
            )
        if self.tls_min_version in TLS_VERSIONS[:2]:
            log.warning(
                "--tls-min-version=%s is below TLS 1.2 and is considered insecure (RFC 8996)", self.tls_min_version
            )
        for cipher in self.cipher_suites:
            if cipher not in CIPHER_SUITES:
                raise OptionsError(f"cipher suite {cipher} not supported, doesn't exist or considered as insecure")


def must_exist(path: str, what: str) -> None:
    """Raise unless the file is there (or the name is empty), as os.Stat says it."""
    if path and not os.path.exists(path):
        text = what % path if "%s" in what else what
        raise OptionsError(f"{text}, got stat {path}: no such file or directory")


def pair_of_files(role: str, cert: str, key: str) -> None:
    """Certificate and key: both or none, and there."""
    if key:
        must_exist(key, f"error checking {role} key %s")
        if not cert:
            raise OptionsError(f"cannot have {role} cert empty when {role} key is set to {quote(key)}")
    if cert:
        must_exist(cert, f"error checking {role} cert %s")
        if not key:
            raise OptionsError(f"cannot have {role} key empty when {role} cert is set to {quote(cert)}")


def parse_labels(text: str) -> dict[str, str]:
    """``k=v,k=v`` (util.ParseLabels). Raises OptionsError."""
    if not text:
        raise OptionsError("empty string provided")
    result = {}
    for pair in text.split(","):
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise OptionsError(f"invalid label format: {pair}")
        result[key.strip()] = value.strip()
    return result
