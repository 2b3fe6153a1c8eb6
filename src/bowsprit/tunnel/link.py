"""One SSH connection that is kept up.

Theory. `SshLink` owns a task that connects, waits for the loss, and connects again: the first try comes at once, later
ones after 0.1 s doubled up to `BACKOFF_LAST`, with jitter, and at once when the network changes. A packet that asks for a
TCP connection and gets lost on a dead path is sent again by the kernel only after 1, 3 and 7 s; so, once we know how long
the path takes, we give up such a try early and make another. Together this has us back within two seconds.

Whoever wants a channel while the link is down waits for it up to ``open_timeout``. A host key that does not match is final;
so is a login that is refused `MOST_REJECTIONS` times in a row: a server that is still starting refuses, too, but trying
again and again could lock an account.

A dead peer is noticed by a request that every server answers, sent every ``keepalive_interval``, and at once, with only
`WAKE_DEADLINE` seconds for the answer, after a sleep or a change of the network. A path that is slow but delivers is alive.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
import time
from collections.abc import Callable
from typing import Protocol

import asyncssh

from bowsprit.tunnel.channel import Channel, ChannelPeer
from bowsprit.tunnel.deadlines import Deadlines
from bowsprit.tunnel.errors import ForwardError, TunnelError
from bowsprit.tunnel.login import LinkOptions, Login
from bowsprit.tunnel.network import NetworkWatch
from bowsprit.tunnel.socks5 import Reply

log = logging.getLogger(__name__)

BACKOFF_FIRST, BACKOFF_LAST = 0.1, 0.5
REJECTED_PAUSE, MOST_REJECTIONS = 5.0, 3
WAKE_DEADLINE = 3.0
_STABLE = 5.0
_UNTRUSTED = ("HostKeyChanged", "HostKeyUnknown", "HostKeyRevoked")


class ForwardPeer(ChannelPeer, Protocol):
    """The local end of a forwarded connection."""

    def forward_opened(self, channel: Channel) -> None:
        """The far end is connected; data may be written."""

    def forward_refused(self, error: ForwardError) -> None:
        """There will be no connection."""


class Opening:
    """A destination that somebody waits for, from the wish to the far end's answer; over a lost link, too."""

    def __init__(self, link: SshLink, peer: ForwardPeer, host: str, port: int, origin: tuple[str, int]) -> None:
        self._link = link
        self._peer = peer
        self._host, self._port, self._origin = host, port, origin
        self._channel: Channel | None = None

    def ask(self, connection: asyncssh.SSHClientConnection) -> None:
        """Ask the far end over this connection."""
        try:
            self._channel = Channel(connection, self, self._host, self._port, self._origin)
        except asyncssh.ChannelOpenError:  # the connection is closing: its successor will do
            self._link.wait_for_connection(self)

    def cancel(self) -> None:
        """The wish is withdrawn."""
        self._link.forget(self)
        if self._channel is not None:
            self._channel.abort()

    def refuse(self, text: str, reply: Reply, reason: str) -> None:
        """End in failure."""
        self.cancel()
        self._peer.forward_refused(ForwardError(f"{self._host}:{self._port}: {text}", reply, reason=reason))

    def channel_opened(self, channel: Channel) -> ChannelPeer:
        """See ChannelOpener."""
        self._link.forget(self)
        self._peer.forward_opened(channel)
        return self._peer

    def channel_refused(self, error: asyncssh.ChannelOpenError | None) -> None:
        """See ChannelOpener. A link that was lost before the answer is waited for: nothing has been sent yet."""
        self._channel = None
        if error is None:
            self._link.wait_for_connection(self)
        else:
            self.refuse(*_explain(error))

    def too_late(self) -> None:
        """The time is over."""
        if self._channel is not None:
            self.refuse("no answer from the far end", Reply.TTL_EXPIRED, "ForwardTimeout")
        else:
            self.refuse(self._link.why_down(), Reply.NETWORK_UNREACHABLE, "LinkDown")


class SshLink:
    """A kept-up SSH connection that opens TCP channels."""

    def __init__(self, options: LinkOptions, *, jitter: Callable[[], float] = random.random) -> None:
        self.options = options
        self.connected_at = 0.0
        self.reconnects = 0
        self.latency = 0.0
        self.last_error: TunnelError | None = None
        self._jitter = jitter
        self._login = Login(options)
        self._network = NetworkWatch()
        self._connection: asyncssh.SSHClientConnection | None = None
        self._waiting: dict[Opening, None] = {}
        self._deadlines: Deadlines[Opening] = Deadlines(options.open_timeout, Opening.too_late)
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def connected(self) -> bool:
        """Whether the connection is up now."""
        return self._connection is not None

    @property
    def fatal(self) -> TunnelError | None:
        """Why the link gave up, None while it lives."""
        return self.last_error if self._task is not None and self._task.done() else None

    async def start(self) -> None:
        """Connect.

        Raises:
            TunnelError: the first connection failed; later losses are mended silently.
        """
        self._network.start()
        self._task = asyncio.create_task(self._keep_up(), name="ssh-link")
        try:
            await asyncio.shield(self._first)
        except BaseException:
            await self.stop()
            raise

    async def wait_ended(self) -> None:
        """Return when the link has given up or was stopped."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def stop(self) -> None:
        """Close the connection and every channel of it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._network.stop()
        self._refuse_waiting()
        self._deadlines.stop()
        if self._first.done() and not self._first.cancelled():
            self._first.exception()

    def open(self, host: str, port: int, peer: ForwardPeer, origin: tuple[str, int] = ("127.0.0.1", 0)) -> Opening:
        """Ask for a channel to a destination as the far end sees it. The peer gets the answer, a refusal after
        ``open_timeout`` at the latest, unless the caller cancels what is returned."""
        opening = Opening(self, peer, host, port, origin)
        self._deadlines.add(opening)
        if self._connection is not None:
            opening.ask(self._connection)
        else:
            self.wait_for_connection(opening)
        return opening

    def wait_for_connection(self, opening: Opening) -> None:
        """Ask when the link is up again; refuse soon where it never will be."""
        self._waiting[opening] = None
        if self._task is None or self._task.done():
            asyncio.get_running_loop().call_soon(self._refuse_waiting)

    def forget(self, opening: Opening) -> None:
        """The wish has come to its end."""
        self._deadlines.discard(opening)
        self._waiting.pop(opening, None)

    def why_down(self) -> str:
        """For messages."""
        return "the SSH connection is down" + (f": {self.last_error.message}" if self.last_error else "")

    async def probe(self, deadline: float = WAKE_DEADLINE) -> float:
        """The round-trip time of a keepalive, in seconds.

        Raises:
            TunnelError: the link is down, or the far end does not answer within ``deadline`` seconds.
        """
        connection = self._connection
        if connection is None:
            raise TunnelError(self.why_down(), reason="LinkDown")
        started = time.monotonic()
        try:
            async with asyncio.timeout(deadline):
                # asyncssh has no public ping; OpenSSH answers this request since 2.9.
                await connection._make_global_request(b"keepalive@openssh.com")
        except (TimeoutError, OSError, asyncssh.Error) as exc:
            raise TunnelError("the far end does not answer", reason="LinkDown") from exc
        self.latency = time.monotonic() - started
        return self.latency

    async def _keep_up(self) -> None:
        failures = rejections = 0
        try:
            while True:
                try:
                    connection = await self._connect()
                except TunnelError as exc:
                    self.last_error = exc
                    rejections += exc.reason == "PermissionDenied"
                    if not self._first.done():
                        self._first.set_exception(exc)
                        return
                    if exc.reason in _UNTRUSTED or rejections >= MOST_REJECTIONS:
                        log.error("giving up: %s", exc.message)
                        return
                    failures += 1
                    rejected = exc.reason == "PermissionDenied"
                    await self._network.wait(REJECTED_PAUSE if rejected else self._pause(failures))
                    continue
                rejections = 0
                try:
                    await self._use(connection)
                finally:
                    connection.abort()
                self.reconnects += 1
                if time.time() - self.connected_at > _STABLE:
                    failures = 0
                else:  # a server that lets us in and throws us out
                    failures += 1
                    await self._network.wait(self._pause(failures))
        finally:
            asyncio.get_running_loop().call_soon(self._refuse_waiting)

    def _pause(self, failures: int) -> float:
        return float(min(BACKOFF_FIRST * 2 ** (min(failures, 10) - 1), BACKOFF_LAST) * (0.75 + 0.5 * self._jitter()))

    async def _connect(self) -> asyncssh.SSHClientConnection:
        whole = self.options.connect_timeout
        dial = min(whole, max(1.0, 4 * self.latency)) if self.latency else whole
        try:
            async with asyncio.timeout(whole):
                return await self._login.connect(dial)
        except TimeoutError as exc:
            raise TunnelError(
                f"no answer from {self.options.target}", reason="Timeout", hint="is the host up, and the port right?"
            ) from exc

    async def _use(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection, self.connected_at, self.last_error = connection, time.time(), None
        if not self._first.done():
            self._first.set_result(None)
        waiting, self._waiting = self._waiting, {}
        for opening in waiting:
            opening.ask(connection)
        watch = asyncio.create_task(self._watch(connection), name="ssh-watch")
        try:
            await connection.wait_closed()
        finally:
            watch.cancel()
            self._connection = None
        log.warning("the SSH connection to %s was lost; connecting again", self.options.target)

    async def _watch(self, connection: asyncssh.SSHClientConnection) -> None:
        interval = self.options.keepalive_interval
        deadline = interval * self.options.keepalive_count
        while True:
            try:
                await self.probe(deadline)
            except TunnelError:
                if _silence(connection) >= deadline - 0.1:
                    connection.abort()
                    return
            changed = await self._network.wait(interval)
            deadline = WAKE_DEADLINE if changed else interval * self.options.keepalive_count

    def _refuse_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for opening in waiting:
            opening.refuse(self.why_down(), Reply.NETWORK_UNREACHABLE, "LinkDown")


def _silence(connection: asyncssh.SSHClientConnection) -> float:
    """Seconds since something arrived, as the kernel knows it; infinite for what is not a TCP connection of ours."""
    sock = connection.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return float("inf")
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
    except OSError:
        return float("inf")
    # linux/tcp.h, struct tcp_info: eight octets, then 32-bit numbers, of which tcpi_last_data_recv (ms) is the twelfth.
    return float(struct.unpack_from("=I", info, 52)[0]) / 1000


def _explain(error: asyncssh.ChannelOpenError) -> tuple[str, Reply, str]:
    """What the far end's refusal means: text, reply and reason. OpenSSH tells the system's error in English."""
    text = error.reason or "refused"
    lowered = text.lower()
    if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return "the SSH server does not allow this destination", Reply.NOT_ALLOWED, "NotAllowed"
    if error.code == asyncssh.OPEN_CONNECT_FAILED:
        if "network is unreachable" in lowered:
            return "network unreachable", Reply.NETWORK_UNREACHABLE, "ForwardFailed"
        # sshd says no more than "Connection refused" or "Connection failed", or why the name does not resolve.
        refused = "refused" in lowered or lowered == "connection failed"
        return text, Reply.CONNECTION_REFUSED if refused else Reply.HOST_UNREACHABLE, "ForwardFailed"
    return text, Reply.GENERAL_FAILURE, "ForwardFailed"
