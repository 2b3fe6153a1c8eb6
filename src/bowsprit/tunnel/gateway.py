"""The other end of a tunnel where no sshd exists: an SSH server that forwards to the API server and does nothing else.

Theory. Only public keys from one file log in; only ``direct-tcpip`` channels to the allowed destinations open; sessions,
commands, subsystems, agents, X11, reverse and UNIX-domain forwarding are refused by asyncssh's defaults, which we leave
as they are. Every address has a score of failed logins that halves every minute; from the third failure on its new
connections wait 2^failures seconds (at most a minute) before the server says its first word, which is what makes
guessing hopeless without a list of banned addresses that an attacker could fill.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.forward import SSHForwarder

from bowsprit.net.dial import DirectDialer, join_host_port
from bowsprit.tunnel.errors import TunnelError
from bowsprit.tunnel.rules import Rule, allowed

log = logging.getLogger(__name__)
audit = logging.getLogger("bowsprit.tunnel.audit")

MAX_TRIES = 6
FORWARD_SECONDS = 10.0
_FREE_FAILURES = 3
_LONGEST_DELAY = 60.0
_HALF_LIFE = 60.0
_REMEMBERED_ADDRESSES = 10_000


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """How to run a gateway.

    ``allow`` lists the destinations, usually the API server alone. The host key is made on first use and kept, readable
    by the owner only. Limits count connections in all, per address, and channels per connection.
    """

    allow: list[Rule]
    authorized_keys: Path
    host_key: Path
    host: str = "0.0.0.0"
    port: int = 2222
    max_connections: int = 200
    max_connections_per_address: int = 20
    max_channels: int = 1000
    login_timeout: float = 20.0


@dataclass(frozen=True, slots=True)
class _Score:
    failures: float = 0.0
    at: float = 0.0


@dataclass(slots=True)
class FailureDelays:
    """How long the next connection of an address has to wait; pure, the clock is an argument (seconds)."""

    scores: dict[str, _Score] = field(default_factory=dict)

    def failed(self, address: str, now: float) -> None:
        """A login of this address failed."""
        score = self.scores.pop(address, None) or _Score(0.0, now)
        self.scores[address] = _Score(_decayed(score, now) + 1.0, now)
        if len(self.scores) > _REMEMBERED_ADDRESSES:
            del self.scores[next(iter(self.scores))]  # the one whose last failure is longest ago

    def succeeded(self, address: str) -> None:
        """A login of this address succeeded."""
        self.scores.pop(address, None)

    def delay(self, address: str, now: float) -> float:
        """Seconds that a new connection of this address waits."""
        score = self.scores.get(address)
        failures = _decayed(score, now) if score else 0.0
        return 0.0 if failures < _FREE_FAILURES - 0.5 else float(min(_LONGEST_DELAY, 2.0 ** min(failures, 10.0)))


def _decayed(score: _Score, now: float) -> float:
    return float(score.failures * 0.5 ** (max(0.0, now - score.at) / _HALF_LIFE))


def _source(address: str) -> str:
    """Whose address this is: an IPv6 host has a whole /64 to choose from."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((parsed, 64), strict=False))


class _Session(asyncssh.SSHServer):
    """One connection to the gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._address = "?"
        self._user = ""
        self._logged_in = False
        self._tried = False
        self._channels = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._address = _source(conn.get_extra_info("peername")[0])
        self._limit_tries(conn)
        self._gateway.opened(self._address, self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gateway.closed(self._address, self)
        if not self._logged_in and self._tried:
            self._gateway.delays.failed(self._address, time.monotonic())
            audit.warning("login failed address=%s user=%r", self._address, self._user)
        elif self._logged_in:
            audit.info("logout address=%s user=%r", self._address, self._user)

    def begin_auth(self, username: str) -> bool:
        self._user, self._tried = username[:64], True
        return True

    def auth_completed(self) -> None:
        self._logged_in = True
        self._gateway.delays.succeeded(self._address)
        audit.info("login address=%s user=%r", self._address, self._user)

    def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
        destination = join_host_port(dest_host[:255], dest_port)
        if not allowed(self._gateway.options.allow, dest_host, dest_port):
            audit.warning("refused address=%s user=%r destination=%r", self._address, self._user, destination)
            raise asyncssh.ChannelOpenError(
                asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "this gateway does not lead there"
            )
        if self._channels >= self._gateway.options.max_channels:
            audit.warning("refused address=%s user=%r too many channels", self._address, self._user)
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_RESOURCE_SHORTAGE, "too many connections")
        audit.info("open address=%s user=%r destination=%r", self._address, self._user, destination)
        return self._forward(dest_host, dest_port)

    async def _forward(self, host: str, port: int) -> Any:
        self._channels += 1
        try:
            sock = await DirectDialer(FORWARD_SECONDS).open(host, port)
            _, outer = await asyncio.get_running_loop().create_connection(SSHForwarder, sock=sock)
        except BaseException as exc:
            self._channels -= 1
            if isinstance(exc, OSError):
                text = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else str(exc)
                raise asyncssh.ChannelOpenError(asyncssh.OPEN_CONNECT_FAILED, text) from exc
            raise
        session = SSHForwarder(outer)
        lost = session.connection_lost

        def connection_lost(exc: Exception | None) -> None:
            self._channels -= 1
            lost(exc)

        session.connection_lost = connection_lost  # type: ignore[method-assign]
        return session

    def _limit_tries(self, conn: asyncssh.SSHServerConnection) -> None:
        """End the connection after `MAX_TRIES` refused logins, of whatever method (OpenSSH's MaxAuthTries)."""
        refuse, tries = conn.send_userauth_failure, 0

        def counted(partial_success: bool) -> None:
            nonlocal tries
            tries += 1
            if tries > MAX_TRIES:
                conn.disconnect(asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many authentication failures")
            else:
                refuse(partial_success)

        conn.send_userauth_failure = counted  # type: ignore[method-assign]


class Gateway:
    """The SSH server, from `start` to `stop`."""

    def __init__(self, options: GatewayOptions) -> None:
        self.options = options
        self.delays = FailureDelays()
        self.port = options.port
        self._sessions: dict[_Session, str] = {}
        self._server: asyncio.Server | None = None
        self._handshakes: set[asyncio.Task[None]] = set()
        self._ssh: Callable[[socket.socket], Awaitable[Any]] | None = None

    async def start(self) -> None:
        """Load or make the host key and listen.

        Raises:
            TunnelError: a key file is unusable, or the port is taken.
        """
        options = self.options
        key = load_host_key(options.host_key)
        try:
            if options.authorized_keys.stat().st_mode & 0o022:
                raise TunnelError(
                    f"others can write {options.authorized_keys}",
                    reason="UnsafeKey",
                    hint=f"chmod go-w {options.authorized_keys}",
                )
            asyncssh.read_authorized_keys(str(options.authorized_keys))
        except (OSError, ValueError) as exc:
            raise TunnelError(
                f"cannot read {options.authorized_keys}: {exc}",
                reason="InvalidKeys",
                hint="one public key per line, as in ~/.ssh/authorized_keys",
            ) from exc

        async def serve(connection: socket.socket) -> None:
            ssh = await asyncssh.run_server(
                connection,
                server_factory=lambda: _Session(self),
                server_host_keys=[key],
                # Read anew for every connection, so that a removed key stops working at once.
                authorized_client_keys=str(options.authorized_keys),
                password_auth=False,
                kbdint_auth=False,
                host_based_auth=False,
                gss_host=None,
                allow_pty=False,
                agent_forwarding=False,
                x11_forwarding=False,
                compression_algs=["none"],
                login_timeout=options.login_timeout,
                keepalive_interval=15,
                keepalive_count_max=4,
                server_version="bowsprit",
            )
            await ssh.wait_closed()

        self._ssh = serve
        listener = socket.socket(socket.AF_INET6 if ":" in options.host else socket.AF_INET)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((options.host, options.port))
        except OSError as exc:
            listener.close()
            raise TunnelError(
                f"cannot listen on {options.host}:{options.port}: {exc.strerror}",
                reason="PortInUse",
                hint="choose another --port",
            ) from exc
        listener.listen(256)
        listener.setblocking(False)
        self.port = listener.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept(listener), name="gateway-accept")

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        self._accepting.cancel()
        for task in list(self._handshakes):
            task.cancel()
        await asyncio.wait({self._accepting, *self._handshakes})

    def opened(self, address: str, session: _Session) -> None:
        """A connection has begun."""
        self._sessions[session] = address

    def closed(self, address: str, session: _Session) -> None:
        """A connection has ended."""
        self._sessions.pop(session, None)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                try:
                    connection, peer = await loop.sock_accept(listener)
                except OSError as exc:  # out of descriptors: go on when some are free again
                    log.warning("cannot accept: %s", exc)
                    await asyncio.sleep(0.2)
                    continue
                address = _source(peer[0])
                if not self._has_room(address):
                    audit.warning("refused address=%s too many connections", address)
                    connection.close()
                    continue
                task = asyncio.create_task(self._serve(connection, address), name=f"gateway-{address}")
                self._handshakes.add(task)
                task.add_done_callback(self._handshakes.discard)
        finally:
            listener.close()

    def _has_room(self, address: str) -> bool:
        same = sum(1 for other in self._sessions.values() if other == address)
        waiting = sum(1 for task in self._handshakes if task.get_name() == f"gateway-{address}")
        return len(self._handshakes) < self.options.max_connections and (
            max(same, waiting) < self.options.max_connections_per_address
        )

    async def _serve(self, connection: socket.socket, address: str) -> None:
        assert self._ssh is not None
        try:
            delay = self.delays.delay(address, time.monotonic())
            if delay:
                audit.warning("delayed address=%s seconds=%.0f", address, delay)
                await asyncio.sleep(delay)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._ssh(connection)
        except (OSError, asyncssh.Error) as exc:
            log.info("connection of %s ended: %s", address, exc)
        finally:
            connection.close()


def load_host_key(path: Path) -> asyncssh.SSHKey:
    """Read the host key, or make an Ed25519 one that only the owner can read.

    Raises:
        TunnelError: the file is not a private key, or others can read it.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = asyncssh.generate_private_key("ssh-ed25519", comment="bowsprit gateway")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(key.export_private_key())
        path.with_name(path.name + ".pub").write_bytes(key.export_public_key())
        return key
    if mode & 0o077:
        raise TunnelError(f"others can read the host key {path}", reason="UnsafeKey", hint=f"chmod 600 {path}")
    try:
        return asyncssh.read_private_key(str(path))
    except (OSError, ValueError) as exc:
        raise TunnelError(f"{path} is not a usable host key: {exc}", reason="InvalidKey") from exc
