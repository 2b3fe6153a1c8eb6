"""One SSH connection that is kept up.

Theory. `SshLink` owns a task that connects, waits for the loss, and connects again: the first try comes at once, later
ones after 0.1 s doubled up to `BACKOFF_LAST`, with jitter, so that a restarted sshd has us back within two seconds.
Whoever wants a channel while the link is down waits for it up to `open_timeout`. A host key that does not match and a
rejected login are final: trying again could only lock an account.

A dead peer is noticed by SSH keepalives; after a suspend (the boot clock ran, the monotonic clock did not) the next
keepalive is sent at once and has `WAKE_DEADLINE` seconds to be answered.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import asyncssh

from bowsprit.tunnel.errors import ForwardError, TunnelError
from bowsprit.tunnel.socks5 import Reply
from bowsprit.tunnel.target import SshTarget

log = logging.getLogger(__name__)

BACKOFF_FIRST, BACKOFF_LAST = 0.1, 1.0
WAKE_DEADLINE = 3.0
_CHANNEL_WINDOW = 4 << 20
_PACKET = 32768
_MSG_IGNORE = 2
# OpenSSH's sshd prefers these too; AES-GCM runs on the processor's own instructions.
_CIPHERS = [
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
]


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How to reach and trust the SSH server.

    ``config_files`` None means ``~/.ssh/config``; ``known_hosts`` None means what the configuration says, else
    ``~/.ssh/known_hosts``. ``passphrase`` is asked for the passphrase of a key file. Times are seconds.
    """

    target: SshTarget
    config_files: list[Path] | None = None
    known_hosts: Path | None = None
    identities: list[Path] = field(default_factory=list)
    passphrase: Callable[[str], str] | None = None
    connect_timeout: float = 10.0
    open_timeout: float = 15.0
    keepalive_interval: float = 5.0
    keepalive_count: int = 3


class TcpPeer(Protocol):
    """The local end of a forwarded connection, as the SSH channel sees it."""

    def channel_opened(self, channel: asyncssh.SSHTCPChannel[bytes]) -> None: ...
    def data_from_channel(self, data: bytes) -> None: ...
    def eof_from_channel(self) -> None: ...
    def pause_to_channel(self) -> None: ...
    def resume_to_channel(self) -> None: ...
    def channel_lost(self, error: Exception | None) -> None: ...


class _Channel(asyncssh.SSHTCPSession[bytes]):
    """Hands the channel's events to the peer."""

    def __init__(self, peer: TcpPeer) -> None:
        self._peer = peer

    def connection_made(self, chan: asyncssh.SSHTCPChannel[bytes]) -> None:
        self._peer.channel_opened(chan)

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._peer.data_from_channel(data)

    def eof_received(self) -> bool:
        self._peer.eof_from_channel()
        return True  # half-close: our direction stays open

    def pause_writing(self) -> None:
        self._peer.pause_to_channel()

    def resume_writing(self) -> None:
        self._peer.resume_to_channel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer.channel_lost(exc)


class SshLink:
    """A kept-up SSH connection that opens TCP channels."""

    def __init__(self, options: LinkOptions, *, jitter: Callable[[], float] = random.random) -> None:
        self.options = options
        self.connected_at = 0.0
        self.reconnects = 0
        self.latency = 0.0
        self.last_error: TunnelError | None = None
        self._jitter = jitter
        self._connection: asyncssh.SSHClientConnection | None = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def connected(self) -> bool:
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
        if self._first.done() and not self._first.cancelled():
            self._first.exception()

    async def open(self, host: str, port: int, peer: TcpPeer, origin: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        """Open a channel to a destination as the far end sees it; waits for a link that is down.

        Raises:
            ForwardError: the far end refused, or the link did not come back within ``open_timeout``.
        """
        deadline = time.monotonic() + self.options.open_timeout
        connection = await self._wait_up(deadline, host, port)
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                await connection.create_connection(
                    lambda: _Channel(peer), host, port, *origin, window=_CHANNEL_WINDOW, max_pktsize=_PACKET
                )
        except asyncssh.ChannelOpenError as exc:
            raise _forward_error(exc, host, port) from exc
        except (TimeoutError, OSError, asyncssh.Error) as exc:
            text = "no answer from the far end" if isinstance(exc, TimeoutError) else f"the link broke: {exc}"
            raise ForwardError(f"{host}:{port}: {text}", Reply.TTL_EXPIRED, reason="LinkLost") from exc

    async def probe(self) -> float:
        """The round-trip time of a keepalive, in seconds.

        Raises:
            TunnelError: the link is down, or the far end does not answer.
        """
        connection = self._connection
        if connection is None:
            raise TunnelError("the SSH connection is down", reason="LinkDown")
        started = time.monotonic()
        try:
            async with asyncio.timeout(WAKE_DEADLINE):
                # asyncssh has no public ping; OpenSSH answers this request since 2.9.
                await connection._make_global_request(b"keepalive@openssh.com")
        except (TimeoutError, OSError, asyncssh.Error) as exc:
            connection.abort()
            raise TunnelError("the far end does not answer", reason="LinkDown") from exc
        self.latency = time.monotonic() - started
        return self.latency

    async def _wait_up(self, deadline: float, host: str, port: int) -> asyncssh.SSHClientConnection:
        while self._connection is None:
            ended = self._task is None or self._task.done()
            remaining = deadline - time.monotonic()
            if ended or remaining <= 0:
                why = f": {self.last_error.message}" if self.last_error else ""
                raise ForwardError(
                    f"{host}:{port}: the SSH connection is down{why}", Reply.NETWORK_UNREACHABLE, reason="LinkDown"
                )
            assert self._task is not None
            waiter = asyncio.ensure_future(self._up.wait())
            await asyncio.wait({waiter, self._task}, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
        return self._connection

    async def _keep_up(self) -> None:
        failures = 0
        while True:
            try:
                connection = await self._connect()
            except TunnelError as exc:
                self.last_error = exc
                if not self._first.done():
                    self._first.set_exception(exc)
                    return
                if exc.reason in ("HostKeyMismatch", "PermissionDenied"):
                    log.error("giving up: %s", exc.message)
                    return
                delay = min(BACKOFF_FIRST * 2 ** min(failures, 10), BACKOFF_LAST)
                failures += 1
                await asyncio.sleep(delay * (0.75 + 0.5 * self._jitter()))
                continue
            failures = 0
            try:
                await self._use(connection)
            finally:
                connection.abort()
            self.reconnects += 1

    async def _use(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection, self.connected_at, self.last_error = connection, time.time(), None
        self._up.set()
        if not self._first.done():
            self._first.set_result(None)
        watch = asyncio.create_task(self._watch_suspend(), name="suspend-watch")
        try:
            await connection.wait_closed()
        finally:
            watch.cancel()
            self._connection = None
            self._up.clear()
        log.warning("the SSH connection to %s was lost; connecting again", self.options.target)

    async def _watch_suspend(self) -> None:
        asleep = _suspended()
        while True:
            try:
                await self.probe()
            except TunnelError:
                return
            for _ in range(10):
                await asyncio.sleep(1.0)
                if _suspended() - asleep > 2.0:
                    asleep = _suspended()
                    break

    async def _connect(self) -> asyncssh.SSHClientConnection:
        options, target = self.options, self.options.target
        settings: dict[str, object] = {}
        if options.config_files is not None:
            settings["config"] = [str(path) for path in options.config_files]
        if options.known_hosts is not None:
            settings["known_hosts"] = str(options.known_hosts)
        if options.identities:
            settings["client_keys"] = [str(path) for path in options.identities]
        if options.passphrase is not None:
            settings["passphrase"] = options.passphrase
        if target.user:
            settings["username"] = target.user
        if target.port:
            settings["port"] = target.port
        try:
            async with asyncio.timeout(options.connect_timeout):
                connection = await asyncssh.connect(
                    target.host,
                    login_timeout=options.connect_timeout,
                    keepalive_interval=options.keepalive_interval,
                    keepalive_count_max=options.keepalive_count,
                    encryption_algs=_CIPHERS,
                    compression_algs=["none"],
                    agent_forwarding=False,
                    **settings,
                )
                _send_no_ignores(connection)
                return connection
        except (OSError, asyncssh.Error, asyncssh.KeyImportError, TimeoutError, ValueError) as exc:
            raise _connect_error(exc, target) from exc


def _send_no_ignores(connection: asyncssh.SSHClientConnection) -> None:
    """Drop the SSH_MSG_IGNORE that asyncssh puts before every packet.

    It protects CBC ciphers (RFC 4251 section 9.3.1), none of which we offer, and doubles the number of packets.
    """
    send = connection.send_packet

    def send_packet(pkttype: int, *args: bytes, handler: Any = None) -> None:
        if pkttype != _MSG_IGNORE:
            send(pkttype, *args, handler=handler)

    connection.send_packet = send_packet  # type: ignore[method-assign]


def _suspended() -> float:
    """Seconds that this machine has slept since it started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()


def _forward_error(error: asyncssh.ChannelOpenError, host: str, port: int) -> ForwardError:
    where, text = f"{host}:{port}", error.reason or "refused"
    lowered = text.lower()
    if error.code == asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED:
        return ForwardError(
            f"{where}: the SSH server does not allow this destination", Reply.NOT_ALLOWED, reason="NotAllowed"
        )
    if "refused" in lowered:
        return ForwardError(f"{where}: connection refused", Reply.CONNECTION_REFUSED)
    if "network is unreachable" in lowered:
        return ForwardError(f"{where}: network unreachable", Reply.NETWORK_UNREACHABLE)
    # OpenSSH says only "Connection failed" or "open failed" for the rest, names that do not resolve among them.
    if error.code == asyncssh.OPEN_CONNECT_FAILED:
        reply = Reply.CONNECTION_REFUSED if lowered == "connection failed" else Reply.HOST_UNREACHABLE
        return ForwardError(f"{where}: {text}", reply)
    return ForwardError(f"{where}: {text}", Reply.GENERAL_FAILURE)


def _connect_error(error: Exception, target: SshTarget) -> TunnelError:
    where = str(target)
    match error:
        case asyncssh.HostKeyNotVerifiable():
            return TunnelError(
                f"the host key of {where} is not the known one, or not known: {error.reason}",
                reason="HostKeyMismatch",
                hint=f"compare `ssh-keyscan -p {target.port or 22} {target.host} | ssh-keygen -lf -` with what the server's "
                "administrator says, then log in once with ssh to record it (ssh-keygen -R removes an old one)",
            )
        case asyncssh.PermissionDenied():
            return TunnelError(
                f"{where} refused the login: {error.reason}",
                reason="PermissionDenied",
                hint=f"try: ssh -v {target.user + '@' if target.user else ''}{target.host}",
            )
        case asyncssh.KeyImportError():
            return TunnelError(f"cannot use the private key: {error}", reason="InvalidKey", hint="check the passphrase")
        case TimeoutError():
            return TunnelError(f"no answer from {where}", reason="Timeout", hint="is the host up, and the port right?")
        case asyncssh.Error():
            return TunnelError(f"{where}: {error.reason}", reason="SshError")
        case OSError():
            text = error.strerror or str(error)
            return TunnelError(
                f"cannot reach {where}: {text}", reason="Unreachable", hint="check host name, port and network"
            )
    return TunnelError(f"{where}: {error}", reason="InvalidConfig", hint="check ~/.ssh/config and the key files")
