"""The SOCKS5 listener of a tunnel: accepts on the loopback interface and relays through an opener."""

from __future__ import annotations

import asyncio
import socket

from bowsprit.tunnel.errors import TunnelError
from bowsprit.tunnel.relay import Opener, Relay, Traffic
from bowsprit.tunnel.rules import Rule

MAX_CONNECTIONS = 4096
_BACKLOG = 1024


class SocksListener:
    """Listens on ``host:port`` from `start` to `stop`, whatever happens to the link behind it.

    Args:
        opener: where channels come from.
        host: the address to listen on.
        port: the port; 0 for any free one (`port` tells which, after `start`).
        credentials: user and password that clients must give.
        rules: destinations to allow, None for any.
    """

    def __init__(
        self,
        opener: Opener,
        *,
        host: str = "127.0.0.1",
        port: int = 1080,
        credentials: tuple[str, str] | None = None,
        rules: list[Rule] | None = None,
    ) -> None:
        self.host, self.port = host, port
        self.traffic = Traffic()
        self._opener = opener
        self._credentials = credentials
        self._rules = rules
        self._relays: set[Relay] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            TunnelError: the port is taken or may not be used.
        """
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self._accept, self.host, self.port, backlog=_BACKLOG, family=socket.AF_UNSPEC
            )
        except OSError as exc:
            raise TunnelError(
                f"cannot listen on {self.host}:{self.port}: {exc.strerror or exc}",
                reason="PortInUse",
                hint="choose another port with --port, or --port 0 for any free one",
            ) from exc
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
        relays = list(self._relays)
        for relay in relays:
            relay.abort()
        for relay in relays:
            await relay.wait_opened()

    def cut(self) -> None:
        """Cut every connection and go on listening."""
        for relay in list(self._relays):
            relay.abort()

    def _accept(self) -> asyncio.Protocol:
        if len(self._relays) >= MAX_CONNECTIONS:
            return _Refuse()
        relay = Relay(
            self._opener,
            self.traffic,
            credentials=self._credentials,
            rules=self._rules,
            on_end=self._relays.discard,
        )
        self._relays.add(relay)
        return relay


class _Refuse(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
