"""One SOCKS client and its channel: bytes both ways with backpressure and half-close.

The client's socket (`stream.ClientStream`) calls back, the channel calls back (`link.ForwardPeer`); bytes are handed over without a
task or a queue between them. When one side cannot keep up, reading from the other one is paused.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bowsprit.tunnel.channel import Channel
from bowsprit.tunnel.deadlines import Deadlines
from bowsprit.tunnel.errors import ForwardError
from bowsprit.tunnel.link import ForwardPeer
from bowsprit.tunnel.rules import Rule, allowed
from bowsprit.tunnel.socks5 import Connect, Fail, Reply, Send, Socks5Server, State
from bowsprit.tunnel.stream import ClientStream

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0
_EARLY_OCTETS = 64 << 10


class Opener(Protocol):
    """Opens a channel to a destination; `SshLink` is one."""

    def open(self, host: str, port: int, peer: ForwardPeer, origin: tuple[str, int]) -> Cancellable:
        """See SshLink.open."""


class Cancellable(Protocol):
    """A wish that can be withdrawn."""

    def cancel(self) -> None:
        """Withdraw it."""


@dataclass(slots=True)
class Traffic:
    """What a listener has carried."""

    active: int = 0
    total: int = 0
    failed: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class Relay:
    """One accepted SOCKS connection, from `start` on.

    Args:
        sock: the client's socket; the relay owns it.
        origin: the client's address and port, for the far end's log.
        opener: where channels come from.
        traffic: counters shared by the listener's relays.
        handshakes: what ends the relays whose clients take too long to ask.
        credentials: user and password to demand.
        rules: destinations to allow; None for any.
        on_end: called once when both directions are closed.
    """

    def __init__(
        self,
        sock: socket.socket,
        origin: tuple[str, int],
        opener: Opener,
        traffic: Traffic,
        handshakes: Deadlines[Relay],
        *,
        credentials: tuple[str, str] | None,
        rules: list[Rule] | None,
        on_end: Callable[[Relay], None],
    ) -> None:
        self._stream = ClientStream(sock, self)
        self._origin = origin
        self._opener = opener
        self._traffic = traffic
        self._handshakes = handshakes
        self._rules = rules
        self._on_end = on_end
        self._socks = Socks5Server(credentials)
        self._channel: Channel | None = None
        self._opening: Cancellable | None = None
        self._client_eof = False
        self._channel_eof = False

    def start(self) -> None:
        """Serve the client."""
        self._traffic.active += 1
        self._traffic.total += 1
        self._handshakes.add(self)
        self._stream.start()

    def abort(self) -> None:
        """Cut the connection now."""
        self._stream.abort()

    # The client's side (stream.StreamUser).

    def data_received(self, data: bytes) -> None:
        if self._channel is not None and self._socks.state is State.RELAY:
            self._traffic.bytes_up += len(data)
            self._channel.write(data)
        elif self._socks.state is not State.RELAY:
            self._perform(self._socks.receive(data))
            if self._socks.buffered > _EARLY_OCTETS:
                self._stream.pause_reading()  # until the connection is there

    def eof_received(self) -> bool:
        self._client_eof = True
        if self._socks.state is not State.RELAY:
            return self._socks.state is State.CONNECTING
        if self._channel is not None:
            self._channel.write_eof()
        return not self._channel_eof

    def pause_writing(self) -> None:
        if self._channel is not None:
            self._channel.pause_reading()

    def resume_writing(self) -> None:
        if self._channel is not None:
            self._channel.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._traffic.active -= 1
        self._handshakes.discard(self)
        if self._opening is not None:
            self._opening.cancel()
        if self._channel is not None:
            if exc is None and self._client_eof:
                self._channel.close()
            else:
                self._channel.abort()
            self._channel = None
        self._on_end(self)

    # The channel's side (link.ForwardPeer).

    def forward_opened(self, channel: Channel) -> None:
        self._opening, self._channel = None, channel
        self._perform(self._socks.connected())
        if early := self._socks.early_data():
            self._traffic.bytes_up += len(early)
            channel.write(early)
        if self._client_eof:
            channel.write_eof()
        self._stream.resume_reading()

    def forward_refused(self, error: ForwardError) -> None:
        self._opening = None
        self._perform(self._socks.refused(error.reply, error.message))

    def data_from_channel(self, data: bytes) -> None:
        self._traffic.bytes_down += len(data)
        self._stream.write(data)

    def eof_from_channel(self) -> None:
        self._channel_eof = True
        if self._client_eof:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            self._stream.close()
        else:
            self._stream.write_eof()

    def pause_to_channel(self) -> None:
        self._stream.pause_reading()

    def resume_to_channel(self) -> None:
        self._stream.resume_reading()

    def channel_lost(self, error: Exception | None) -> None:
        self._channel = None
        if error is not None and not self._channel_eof:
            self._stream.abort()  # cut off in the middle: the client must not take it for the end
        else:
            self._stream.close()

    # The handshake.

    def _perform(self, actions: list[Send | Connect | Fail]) -> None:
        for action in actions:
            match action:
                case Send(data):
                    self._stream.write(data)
                case Connect(host, port):
                    self._open(host, port)
                case Fail(reason):
                    self._traffic.failed += 1
                    log.info("%s", reason)
                    self._stream.close()

    def _open(self, host: str, port: int) -> None:
        self._handshakes.discard(self)
        if not allowed(self._rules, host, port):
            why = f"{host}:{port} is not allowed by the rules of this tunnel"
            self._perform(self._socks.refused(Reply.NOT_ALLOWED, why))
            return
        self._opening = self._opener.open(host, port, self, self._origin)

    def too_slow(self) -> None:
        """The client has not finished its request in time."""
        log.info("the client did not finish its SOCKS request within %g s", HANDSHAKE_SECONDS)
        self.abort()
