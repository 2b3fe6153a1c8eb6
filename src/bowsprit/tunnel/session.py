"""A tunnel: a kept-up SSH link and the SOCKS5 listener in front of it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from bowsprit.tunnel.errors import TunnelError
from bowsprit.tunnel.link import SshLink
from bowsprit.tunnel.listener import SocksListener
from bowsprit.tunnel.login import LinkOptions
from bowsprit.tunnel.rules import Rule


@dataclass(frozen=True, slots=True)
class TunnelOptions:
    """How to open a tunnel; ``port`` 0 takes any free one, ``rules`` None allows every destination."""

    link: LinkOptions
    host: str = "localhost"
    port: int = 1080
    credentials: tuple[str, str] | None = None
    rules: list[Rule] | None = None


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    """A moment of a tunnel. Times are seconds since the epoch, ``latency`` is in seconds, 0 when unknown."""

    connected: bool
    connected_at: float
    reconnects: int
    connections: int
    total: int
    failed: int
    bytes_up: int
    bytes_down: int
    latency: float
    error: str

    def line(self, now: float) -> str:
        """One line for people."""
        if not self.connected:
            return f"reconnecting ({self.error or 'connection lost'}); {self.connections} connections waiting or open"
        since = time.strftime("%H:%M:%S", time.localtime(self.connected_at))
        return (
            f"connected since {since} ({span(now - self.connected_at)}), {self.connections} connections, "
            f"{_size(self.bytes_up)} up, {_size(self.bytes_down)} down, {self.latency * 1000:.0f} ms"
        )


class Tunnel:
    """Owns the link and the listener. The listener is opened first, so that a taken port costs no login."""

    def __init__(self, options: TunnelOptions) -> None:
        self.options = options
        self.link = SshLink(options.link)
        self.listener = SocksListener(
            self.link,
            host=options.host,
            port=options.port,
            credentials=options.credentials,
            rules=options.rules,
        )

    async def start(self) -> None:
        """Listen and connect.

        Raises:
            TunnelError: the port is taken, or the SSH server cannot be reached, trusted or logged in to.
        """
        await self.listener.start()
        try:
            await self.link.start()
        except BaseException:
            await self.listener.stop()
            raise

    async def stop(self) -> None:
        """Cut all connections, stop listening, log out."""
        await self.listener.stop()
        await self.link.stop()

    async def wait_failed(self) -> TunnelError:
        """Return the reason when the link gives up for good."""
        await self.link.wait_ended()
        return self.link.fatal or TunnelError("the SSH connection ended", reason="LinkLost")

    def status(self) -> TunnelStatus:
        """The state now; free of I/O."""
        link, traffic = self.link, self.listener.traffic
        return TunnelStatus(
            connected=link.connected,
            connected_at=link.connected_at,
            reconnects=link.reconnects,
            connections=traffic.active,
            total=traffic.total,
            failed=traffic.failed,
            bytes_up=traffic.bytes_up,
            bytes_down=traffic.bytes_down,
            latency=link.latency,
            error=link.last_error.message if link.last_error else "",
        )

    async def __aenter__(self) -> Tunnel:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.shield(self.stop())


def span(seconds: float) -> str:
    """A time in seconds for people: ``90s``, ``5m``, ``2h10m``."""
    total = int(max(0.0, seconds))
    if total < 120:
        return f"{total}s"
    return f"{total // 60}m" if total < 7200 else f"{total // 3600}h{total % 3600 // 60}m"


def _size(count: int) -> str:
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
