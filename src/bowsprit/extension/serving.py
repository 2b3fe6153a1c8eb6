"""The serving certificate of a server that was given none: made at each start, signed by an authority made for it."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bowsprit.pki.authority import Authority

_DAYS = 365


@dataclass(frozen=True, slots=True)
class ServingFiles:
    """A certificate, its key, and the authority that clients must trust; `folder` is removed at the end."""

    cert: Path
    key: Path
    ca_pem: bytes
    folder: Path | None = None

    def discard(self) -> None:
        """Remove what was made."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def service_names(service: str, namespace: str) -> list[str]:
    """The DNS names under which a service's pods are asked; `<svc>.<ns>.svc` is the one that the aggregator wants."""
    return [
        f"{service}.{namespace}.svc",
        f"{service}.{namespace}.svc.cluster.local",
        f"{service}.{namespace}",
        service,
        "localhost",
    ]


def make_serving_files(service: str, namespace: str, now: datetime.datetime, also: Sequence[str] = ()) -> ServingFiles:
    """A pair for a service and this host."""
    folder = Path(tempfile.mkdtemp(prefix="bowsprit-extension-"))
    authority = Authority.create(f"{service}-ca", days=_DAYS, now=now)
    addresses = ["127.0.0.1", "::1", *(each for each in (host_address(), *also) if each)]
    pair = authority.issue_server(
        f"{service}.{namespace}.svc",
        service_names(service, namespace),
        list(dict.fromkeys(addresses)),
        days=_DAYS,
        now=now,
    )
    files = ServingFiles(folder / "tls.crt", folder / "tls.key", authority.ca_pem, folder)
    pair.save(files.cert, files.key)
    return files


def host_address() -> str:
    """An address of this host that others can reach, "" if there is none but loopback."""
    for family, probe in ((socket.AF_INET, "198.51.100.1"), (socket.AF_INET6, "2001:db8::1")):
        # Connecting a datagram socket sends nothing; it only chooses the local address.
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((probe, 9))
            address = str(sock.getsockname()[0])
            if not ipaddress.ip_address(address).is_loopback:
                return address
    return ""
