"""The options of an extension API server, named as upstream's flags (k8s.io/apiserver pkg/server/options)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bowsprit.client.config import RestConfig
from bowsprit.extension.errors import ExtensionError


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionOptions:
    """How an app is served. Times are in seconds.

    The core API server is reached with `core`, else with `kubeconfig`, else from inside the cluster.
    """

    bind_address: str = "0.0.0.0"
    secure_port: int = 8443  # 0: any free one
    tls_cert_file: Path | None = None  # without the pair, one is made for each start
    tls_private_key_file: Path | None = None
    cert_dir: Path | None = None  # where a certificate that is made is kept for the next start
    service: str = (
        ""  # the Service in front of the server, for the names of a certificate that is made; default: the app's name
    )
    namespace: str = ""  # of that Service; default: the app's name
    kubeconfig: Path | None = None
    core: RestConfig | None = None
    standalone: bool = False  # no core API server at all: every request is let in as the given user; for tests
    client_ca_file: Path | None = None  # in place of the one that the core server publishes
    requestheader_client_ca_file: Path | None = None
    requestheader_allowed_names: tuple[str, ...] = ()
    authentication_skip_lookup: bool = False
    authentication_tolerate_lookup_failure: bool = False
    admission: bool = True  # honour the core server's webhooks, policies and namespace lifecycle
    shutdown_delay: float = 0.0
    shutdown_timeout: float = 25.0
    request_timeout: float = 60.0
    max_requests_inflight: int = 400
    max_mutating_requests_inflight: int = 200

    def check(self) -> None:
        """Raises ExtensionError for what cannot work."""
        if (self.tls_cert_file is None) != (self.tls_private_key_file is None):
            raise ExtensionError(
                "a serving certificate needs both files",
                reason="InvalidOption",
                hint="give --tls-cert-file and --tls-private-key-file, or neither",
            )
        if not 0 <= self.secure_port <= 65535:
            raise ExtensionError(f"secure port {self.secure_port} is not between 0 and 65535", reason="InvalidOption")
