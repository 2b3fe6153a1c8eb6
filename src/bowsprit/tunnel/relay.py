"""One SOCKS client and its channel: bytes both ways with backpressure and half-close.

The client's socket is an asyncio protocol, the channel calls back (`link.TcpPeer`); bytes are handed over without a task
or a queue between them. When one side cannot keep up, reading from the other one is paused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import asyncssh

from bowsprit.tunnel.errors import ForwardError
from bowsprit.tunnel.link import TcpPeer
from bowsprit.tunnel.rules import Rule, allowed
from bowsprit.tunnel.socks5 import Connect, Fail, Reply, Send, Socks5Server, State

log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0


class Opener(Protocol):
    """Opens a channel to a destination; `SshLink` is one."""

    async def open(self, host: str, port: int, peer: TcpPeer, origin: tuple[str, int]) -> None: ...


@dataclass(slots=True)
class Traffic:
    """What a listener has carried."""

    active: int = 0
    total: int = 0
    failed: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class Relay(asyncio.Protocol):
    """The protocol of one accepted SOCKS connection.

    Args:
        opener: where channels come from.
        traffic: counters shared by the listener's relays.
        credentials: user and password to demand.
        rules: destinations to allow; None for any.
        on_end: called once when both directions are closed.
    """

    def __init__(
        self,
        opener: Opener,
        traffic: Traffic,
        *,
        credentials: tuple[str, str] | None,
        rules: list[Rule] | None,
        on_end: Callable[[Relay], None],
    ) -> None:
        self._opener = opener
        self._traffic = traffic
        self._rules = rules
        self._on_end = on_end
        self._socks = Socks5Server(credentials)
        self._transport: asyncio.Transport | None = None
        self._channel: asyncssh.SSHTCPChannel[bytes] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._client_eof = False
        self._channel_eof = False
        self._deadline: asyncio.TimerHandle | None = None

    # The client's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._traffic.active += 1
        self._traffic.total += 1
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, self._too_slow)

    def data_received(self, data: bytes) -> None:
        if self._channel is not None and self._socks.state is State.RELAY:
            self._traffic.bytes_up += len(data)
            self._channel.write(data)
        elif self._socks.state is not State.RELAY:
            self._perform(self._socks.receive(data))

    def eof_received(self) -> bool:
        self._client_eof = True
        if self._socks.state is not State.RELAY:
            return self._socks.state is State.CONNECTING
        if self._channel is not None and not self._channel.is_closing():
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
        if self._deadline is not None:
            self._deadline.cancel()
        if self._opening is not None:
            self._opening.cancel()
        if self._channel is not None:
            # A client that has gone has no use for what is still under way to it.
            self._channel.resume_reading()
            if exc is None and self._client_eof:
                self._channel.close()
            else:
                self._channel.abort()
            self._channel = None
        self._transport = None
        self._on_end(self)

    def abort(self) -> None:
        """Cut the connection now."""
        if self._transport is not None:
            self._transport.abort()

    async def wait_opened(self) -> None:
        """Return when no channel is being opened any more."""
        if self._opening is not None:
            await asyncio.wait({self._opening})

    # The channel's side (link.TcpPeer).

    def channel_opened(self, channel: asyncssh.SSHTCPChannel[bytes]) -> None:
        if self._transport is None or self._transport.is_closing():
            channel.abort()
            return
        # Answered here and not after `open` returns: the far end may speak first, and its bytes must come second.
        self._channel = channel
        self._perform(self._socks.connected())
        if early := self._socks.early_data():
            self._traffic.bytes_up += len(early)
            channel.write(early)
        if self._client_eof:
            channel.write_eof()
        self._transport.resume_reading()

    def data_from_channel(self, data: bytes) -> None:
        if self._transport is not None:
            self._traffic.bytes_down += len(data)
            self._transport.write(data)

    def eof_from_channel(self) -> None:
        self._channel_eof = True
        if self._transport is None:
            return
        if self._client_eof:
            self._transport.close()
        elif self._transport.can_write_eof():
            with contextlib.suppress(OSError):
                self._transport.write_eof()

    def pause_to_channel(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_to_channel(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def channel_lost(self, error: Exception | None) -> None:
        self._channel = None
        if self._transport is None:
            return
        if error is not None and not self._channel_eof:
            self._transport.abort()  # cut off in the middle: the client must not take it for the end
        else:
            self._transport.close()

    # The handshake.

    def _perform(self, actions: list[Send | Connect | Fail]) -> None:
        for action in actions:
            match action:
                case Send(data):
                    assert self._transport is not None
                    self._transport.write(data)
                case Connect(host, port):
                    self._opening = asyncio.ensure_future(self._open(host, port))
                case Fail(reason):
                    self._traffic.failed += 1
                    log.info("%s", reason)
                    assert self._transport is not None
                    self._transport.close()

    async def _open(self, host: str, port: int) -> None:
        assert self._transport is not None
        if self._deadline is not None:
            self._deadline.cancel()
        if not allowed(self._rules, host, port):
            self._perform(
                self._socks.refused(Reply.NOT_ALLOWED, f"{host}:{port} is not allowed by the rules of this tunnel")
            )
            return
        self._transport.pause_reading()
        origin = self._transport.get_extra_info("peername")[:2]
        try:
            await self._opener.open(host, port, self, origin)
        except ForwardError as exc:
            if self._transport is not None:
                self._perform(self._socks.refused(exc.reply, exc.message))

    def _too_slow(self) -> None:
        if self._socks.state in (State.METHODS, State.AUTH, State.REQUEST):
            log.info("the client did not finish its SOCKS request within %g s", HANDSHAKE_SECONDS)
            self.abort()
