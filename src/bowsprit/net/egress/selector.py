"""Which dialer traffic of which kind takes."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from bowsprit.net.dial import Dialer, TLSConnectDialer, proxy_dialer
from bowsprit.net.egress.configuration import Connection, EgressConfigError, TLSConfig, read
from bowsprit.net.egress.httpconnect import UdsConnectDialer
from bowsprit.net.egress.tunnel import GrpcDialer
from bowsprit.pki.trusting import trusting


class EgressSelector:
    """Dialers by name: ``cluster`` (kubelets, pods, services, webhooks given as service, aggregated APIs),
    ``controlplane``, ``etcd``."""

    def __init__(self, connections: Mapping[str, Connection]) -> None:
        self._dialers = {name: _dialer(connection) for name, connection in connections.items()}

    @classmethod
    def from_file(cls, file: Path | str) -> EgressSelector:
        """Of an EgressSelectorConfiguration; an empty name selects nothing. Raises EgressConfigError."""
        return cls(read(file) if str(file) else {})

    def dialer(self, name: str) -> Dialer | None:
        """The dialer, or None to dial directly. Raises KeyError for a name that does not exist."""
        if name not in ("cluster", "controlplane", "etcd"):
            raise KeyError(name)
        return self._dialers.get(name)


def _dialer(connection: Connection) -> Dialer | None:
    if connection.protocol == "Direct":
        return None
    if connection.protocol == "GRPC":
        return GrpcDialer(connection.uds)
    if connection.uds:
        return UdsConnectDialer(connection.uds)
    if connection.tls is None:
        return proxy_dialer(connection.url)
    try:
        context = _context(connection.tls)
        return TLSConnectDialer(urlsplit(connection.url), context, server_hostname=connection.tls.server_name)
    except (OSError, ssl.SSLError) as exc:
        raise EgressConfigError(f"failed to create TLS configuration for {connection.url}: {exc}") from exc


def _context(config: TLSConfig) -> ssl.SSLContext:
    context = trusting(Path(config.ca_bundle).read_bytes() if config.ca_bundle else b"")
    context.load_cert_chain(config.client_cert, config.client_key, password=lambda: "")
    context.set_alpn_protocols(["http/1.1"])
    return context
