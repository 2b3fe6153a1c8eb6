"""Everything a client must know to reach one API server as one user (client-go's rest.Config)."""

from __future__ import annotations

import os
import platform
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bowsprit import __version__
from bowsprit.client.errors import ConfigError
from bowsprit.machinery.objects import Obj
from bowsprit.net.dial import Dialer
from bowsprit.pki.trusting import trusting

SERVICE_ACCOUNT_ROOT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def user_agent(component: str = "bowsprit") -> str:
    """``component/version (os/arch)``, as client-go composes it."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{component}/{__version__} ({platform.system().lower()}/{machine})"


@dataclass(frozen=True, slots=True)
class Impersonation:
    """The identity to act as; needs the ``impersonate`` verb."""

    user: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestConfig:
    """Connection settings; certificates are PEM bytes, times are seconds.

    Of the bearer tokens ``token_source`` wins over ``token_file`` over ``token``. ``qps`` <= 0 switches the client-side rate
    limit off; ``max_in_flight`` bounds the requests beside watches, and with them the connections (HTTP/1.1 has one each).
    ``dialer`` wins over ``proxy_url``, that over the environment.
    """

    server: str
    ca_data: bytes = b""
    insecure_skip_tls_verify: bool = False
    tls_server_name: str = ""
    client_certificate_data: bytes = field(default=b"", repr=False)
    client_key_data: bytes = field(default=b"", repr=False)
    token: str = field(default="", repr=False)
    token_file: Path | None = None
    token_source: Callable[[], str] | None = field(default=None, repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    exec_config: Obj | None = field(default=None, repr=False)
    impersonate: Impersonation | None = None
    proxy_url: str = ""
    dialer: Dialer | None = None
    disable_compression: bool = False
    user_agent: str = field(default_factory=user_agent)
    qps: float = 50.0
    burst: int = 100
    max_in_flight: int = 16
    timeout: float = 32.0
    max_response_bytes: int = 256 * 1024 * 1024


def in_cluster_config(environ: Mapping[str, str] = os.environ, root: Path = SERVICE_ACCOUNT_ROOT) -> RestConfig:
    """The configuration of a pod: the mounted service account and the ``KUBERNETES_SERVICE_*`` variables."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise ConfigError(
            "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined",
            hint="outside a cluster, pass --kubeconfig",
        )
    try:
        (root / "token").read_text()
        ca_data = (root / "ca.crt").read_bytes()
    except OSError as exc:
        raise ConfigError(f"unable to load in-cluster configuration: {exc}") from exc
    host = f"[{host}]" if ":" in host else host
    return RestConfig(server=f"https://{host}:{port}", ca_data=ca_data, token_file=root / "token")


def tls_context(config: RestConfig) -> ssl.SSLContext:
    """The client's TLS settings; raises ConfigError for certificates that do not parse or match."""
    try:
        context = trusting(config.ca_data or b"")
    except (ssl.SSLError, ValueError) as exc:
        raise ConfigError(f"certificate-authority: no usable PEM certificate ({exc})") from exc
    if config.insecure_skip_tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.client_certificate_data:
        load_client_certificate(context, config.client_certificate_data, config.client_key_data)
    context.set_alpn_protocols(["http/1.1"])
    return context


def load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Give the context a client certificate; OpenSSL reads it only from a file, which exists (0600) while it does."""
    with tempfile.NamedTemporaryFile(prefix="bowsprit-client-", suffix=".pem") as pair:
        pair.write(certificate.rstrip() + b"\n" + key)
        pair.flush()
        try:
            context.load_cert_chain(pair.name)
        except (ssl.SSLError, OSError) as exc:
            raise ConfigError(f"client certificate: certificate and key cannot be used ({exc})") from exc
