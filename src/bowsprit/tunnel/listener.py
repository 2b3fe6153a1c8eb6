"""The SOCKS5 listener of a tunnel: accepts on the loopback interface and relays through an opener."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket

from bowsprit.tunnel import relay
from bowsprit.tunnel.deadlines import Deadlines
from bowsprit.tunnel.errors import TunnelError
from bowsprit.tunnel.relay import Opener, Relay, Traffic
from bowsprit.tunnel.rules import Rule

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096
_BACKLOG = 1024
_ACCEPTS_PER_TURN = 16
_OUT_OF_FILES_PAUSE = 0.2
_PORT_TRIES = 8


class SocksListener:
    """Listens on ``host:port`` from `start` to `stop`, whatever happens to the link behind it.

    Args:
        opener: where channels come from.
        host: the address to listen on; ``localhost`` stands for 127.0.0.1 and, where there is IPv6, ::1, so that nobody
            else on this machine can answer for one of them.
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
        self._sockets: list[socket.socket] = []
        self._handshakes: Deadlines[Relay] = Deadlines(relay.HANDSHAKE_SECONDS, Relay.too_slow)

    async def start(self) -> None:
        """Listen.

        Raises:
            TunnelError: the port is taken or may not be used.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            addresses = list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))
            if self.host == "localhost":
                addresses = [(int(socket.AF_INET), "127.0.0.1"), (int(socket.AF_INET6), "::1")]
            self._sockets = _listen(addresses, self.port)
        except OSError as exc:
            raise TunnelError(
                f"cannot listen on {self.host}:{self.port}: {exc.strerror or exc}",
                reason="PortInUse" if exc.errno == errno.EADDRINUSE else "CannotListen",
                hint="choose another port with --port, or --port 0 for any free one",
            ) from exc
        self.port = self._sockets[0].getsockname()[1]
        for listening in self._sockets:
            loop.add_reader(listening, self._accept, listening)

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        sockets, self._sockets = self._sockets, []
        for listening in sockets:
            asyncio.get_running_loop().remove_reader(listening)
            listening.close()
        for served in list(self._relays):
            served.abort()
        self._handshakes.stop()

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as exc:  # out of file descriptors: wait for some
                log.warning("cannot accept: %s", exc)
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(_OUT_OF_FILES_PAUSE, self._resume, listening)
                return
            if len(self._relays) >= MAX_CONNECTIONS:
                log.warning("more than %d connections: one is turned away", MAX_CONNECTIONS)
                sock.close()
                continue
            served = Relay(
                sock,
                address[:2],
                self._opener,
                self.traffic,
                self._handshakes,
                credentials=self._credentials,
                rules=self._rules,
                on_end=self._relays.discard,
            )
            self._relays.add(served)
            served.start()

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)


def _listen(addresses: list[tuple[int, str]], port: int) -> list[socket.socket]:
    """One socket per address, all on the same port; the second family may be missing on this machine."""
    for attempt in range(_PORT_TRIES):
        sockets: list[socket.socket] = []
        try:
            for family, address in addresses:
                chosen = port or (sockets[0].getsockname()[1] if sockets else 0)
                sock = socket.socket(family, socket.SOCK_STREAM)
                sockets.append(sock)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    sock.bind((address, chosen))
                except OSError as exc:
                    if len(sockets) == 1 or exc.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                        raise
                    sockets.pop().close()
                    continue
                sock.listen(_BACKLOG)
                sock.setblocking(False)
            return sockets
        except OSError as exc:
            for sock in sockets:
                sock.close()
            # A free port of one family may be taken in the other: take another one.
            if port or exc.errno != errno.EADDRINUSE or attempt == _PORT_TRIES - 1:
                raise
    raise AssertionError("unreachable")
