"""From an SSH address to a logged-in connection, as ``ssh`` would do it.

``~/.ssh/config`` says where the host is, who logs in, with which keys and over which jump hosts. A host is trusted only if
``known_hosts`` knows its key (hashed names, ``@cert-authority`` and ``@revoked`` included): nobody is asked, and nothing in
the configuration can switch that off. Keys of the agent come first; a key file's passphrase is asked for when the key is
needed, and once.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncssh
from asyncssh.public_key import get_default_public_key_algs

from bowsprit.net.dial import DirectDialer
from bowsprit.tunnel.errors import TunnelError
from bowsprit.tunnel.packets import attach
from bowsprit.tunnel.target import SshTarget

log = logging.getLogger(__name__)

# OpenSSH's sshd accepts these; AES-GCM runs on the processor's own instructions.
_CIPHERS = [
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
]
_GLOBAL_KNOWN_HOSTS = [Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2")]
_USER_KNOWN_HOSTS = [Path("~/.ssh/known_hosts"), Path("~/.ssh/known_hosts2")]
_DEFAULT_KEYS = ["id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk"]
_MOST_JUMPS = 8


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How to reach and trust the SSH server.

    ``config_files`` None means ``~/.ssh/config``; ``known_hosts`` None means what the configuration says, else
    ``~/.ssh/known_hosts``. ``passphrase`` is given a key file's name and answers its passphrase; without it, keys that have
    one are left out. Times are seconds.
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


class Login:
    """Logs in to one SSH server, through jump hosts where the configuration names some. Can be used again and again."""

    def __init__(self, options: LinkOptions, *, jumps: str = "", depth: int = 0) -> None:
        self.options = options
        self._jumps = jumps
        self._depth = depth
        self._passphrases = options.passphrase and _Passphrases(options.passphrase)
        self._resolved: Any = None
        self._keys: list[asyncssh.SSHKeyPair] = []
        self._locked_keys: list[str] = []
        self._jump: Login | None = None

    async def resolve(self) -> tuple[str, int]:
        """Read the configuration and the keys; answers the host and port that will be dialled, ("", 0) for a way that is
        not a TCP connection of ours: jump hosts, ProxyCommand.

        Raises:
            TunnelError: the configuration or a key cannot be used.
        """
        if self._resolved is None:
            try:
                self._resolved = await self._read_config()
                self._load_keys()
                self._plan_jumps()
            except (OSError, ValueError, asyncssh.Error) as exc:
                raise _config_error(exc, self.options.target) from exc
        options = self._resolved
        indirect = self._jump or options.proxy_command or options.local_addr or options.canonicalize_hostname
        return ("", 0) if indirect else (options.host, options.port)

    async def connect(self, dial_seconds: float) -> asyncssh.SSHClientConnection:
        """Log in; the TCP connection alone may take ``dial_seconds``. The caller bounds the whole.

        Raises:
            TunnelError: not reached, not trusted, or not let in.
        """
        host, port = await self.resolve()
        if not host:
            return await self.handshake(None)
        try:
            sock = await DirectDialer(dial_seconds).open(host, port)
        except OSError as exc:
            raise _dial_error(exc, self.options.target) from exc
        return await self.handshake(sock)

    async def handshake(self, sock: socket.socket | None) -> asyncssh.SSHClientConnection:
        """Log in over a socket, or over jump hosts; see `connect`."""
        trust = _Trust(self._known_hosts())
        jump: asyncssh.SSHClientConnection | None = None
        try:
            if self._jump is not None:
                jump = await self._jump.connect(self.options.connect_timeout)
            connection: asyncssh.SSHClientConnection = await asyncssh.connect(
                **self._address(),
                **({"sock": sock} if sock else {}),
                tunnel=jump,
                agent_identities=self._agent_identities(),
                client_factory=lambda: trust,
                known_hosts=trust.known,
                client_keys=self._keys,
                login_timeout=self.options.connect_timeout,
                encryption_algs=_CIPHERS,
                compression_algs=["none"],
                agent_forwarding=False,
            )
        except (OSError, ValueError, asyncssh.Error) as exc:
            if jump is not None:
                jump.abort()
            raise self._error(exc, trust) from exc
        except BaseException:
            if jump is not None:
                jump.abort()
            raise
        finally:
            if sock is not None and not trust.started:
                sock.close()
        if jump is not None:
            connection.set_tunnel(jump)
        if not attach(connection):
            log.info("this version of asyncssh has changed inside: connections take its longer way")
        return connection

    def _address(self) -> dict[str, object]:
        target = self.options.target
        files = self.options.config_files
        settings: dict[str, object] = {
            "host": target.host,
            "config": () if files is None else [str(path) for path in files],
        }
        if target.user:
            settings["username"] = target.user
        if target.port:
            settings["port"] = target.port
        return settings

    async def _read_config(self) -> Any:
        # The keys and known hosts of the configuration are loaded below: asyncssh would fail at a missing file.
        return await asyncssh.SSHClientConnectionOptions.construct(
            None, **self._address(), client_keys=None, known_hosts=b""
        )

    def _load_keys(self) -> None:
        config = self._resolved.config
        named = [str(path) for path in self.options.identities]
        files = named or [str(Path(name).expanduser()) for name in config.get("IdentityFile", [])]
        if not files:
            files = [str(path) for name in _DEFAULT_KEYS if (path := Path(f"~/.ssh/{name}").expanduser()).exists()]
        for file in files:
            try:
                self._keys += asyncssh.load_keypairs(file, self._passphrases)  # type: ignore[arg-type]
            except FileNotFoundError:
                if named:
                    raise
            except asyncssh.KeyImportError as exc:
                if str(exc).startswith("Passphrase must be"):
                    self._locked_keys.append(file)
                elif not _is_public_key(file):  # IdentityFile may name the public half of a key of the agent
                    raise

    def _agent_identities(self) -> list[bytes] | None:
        """With ``IdentitiesOnly``, or keys named on the command line: which of the agent's keys may be offered."""
        if not self._resolved.config.get("IdentitiesOnly"):
            return None
        named = [str(path) for path in self.options.identities] or self._resolved.config.get("IdentityFile", [])
        found = [Path(f"{name}.pub").expanduser() for name in named] + [Path(name).expanduser() for name in named]
        return [asyncssh.read_public_key(path).public_data for path in found if _is_public_key(str(path))] or [b"none"]

    def _plan_jumps(self) -> None:
        jumps = self._jumps or self._resolved.tunnel
        if not isinstance(jumps, str) or jumps.lower() == "none":
            return
        if self._depth >= _MOST_JUMPS:
            raise ValueError("ProxyJump leads in a circle")
        # The last host of the list is the one that connects to the target; it is reached over those before it.
        before, _, last = jumps.rpartition(",")
        target = SshTarget.parse(last)
        if target.host == self.options.target.host:
            return  # as ssh: `Host *` may name the jump host itself
        options = replace(self.options, target=target, identities=[], passphrase=self._passphrases)
        self._jump = Login(options, jumps=before, depth=self._depth + 1)

    def _known_hosts(self) -> asyncssh.SSHKnownHosts:
        config = self._resolved.config
        if self.options.known_hosts is not None:
            files = [self.options.known_hosts]
        else:
            user = config.get("UserKnownHostsFile")
            common = config.get("GlobalKnownHostsFile")
            files = [Path(name) for name in user] if user is not None else _USER_KNOWN_HOSTS
            files = files + ([Path(name) for name in common] if common is not None else _GLOBAL_KNOWN_HOSTS)
        known = asyncssh.SSHKnownHosts()
        for file in files:
            try:
                lines = file.expanduser().read_text(errors="replace").splitlines()
            except FileNotFoundError:
                continue
            for number, line in enumerate(lines, 1):
                try:
                    known.load(line)
                except ValueError as exc:  # as ssh: one bad line does not hide the others
                    log.warning("%s:%d: %s", file, number, exc)
        return known

    def _error(self, error: Exception, trust: _Trust) -> TunnelError:
        target = self.options.target
        match error:
            case TunnelError():
                return error
            case asyncssh.HostKeyNotVerifiable():
                return trust.error(target, error.reason)
            case asyncssh.KeyExchangeFailed() if "host key" in error.reason:
                return trust.error(target, "it offers no host key of a known type")
            case asyncssh.PermissionDenied() if self._passphrases and self._passphrases.wrong:
                return _config_error(asyncssh.KeyEncryptionError("three wrong passphrases"), target)
            case asyncssh.PermissionDenied():
                hint = f"try: ssh -v {target.user + '@' if target.user else ''}{target.host}"
                if self._locked_keys:
                    keys = ", ".join(self._locked_keys)
                    hint = f"{keys}: has a passphrase and there is no terminal to ask for it; use ssh-add first"
                return TunnelError(f"{target} refused the login: {error.reason}", reason="PermissionDenied", hint=hint)
            case asyncssh.KeyImportError() | asyncssh.KeyEncryptionError():
                return TunnelError(
                    f"cannot use the private key: {error}", reason="InvalidKey", hint="wrong passphrase?"
                )
            case asyncssh.ChannelOpenError():
                return TunnelError(
                    f"the jump host cannot reach {target}: {error.reason}", reason="Unreachable", hint="check ProxyJump"
                )
            case asyncssh.Error():
                return TunnelError(f"{target}: {error.reason}", reason="SshError")
            case OSError():
                return _dial_error(error, target)
        return _config_error(error, target)


class _Trust(asyncssh.SSHClient):
    """Decides by known_hosts alone, and remembers the key of a host that it refused."""

    def __init__(self, hosts: asyncssh.SSHKnownHosts) -> None:
        self._hosts = hosts
        self._offered: asyncssh.SSHKey | None = None
        self._known_as = ""
        self._any_known = False
        self.started = False

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """The connection owns its socket from here on.

        asyncssh asks for keys of the known types only, and a server that has others then just hangs up. As ssh does, ask
        for the other types after them, to see the key and to be able to say that it has changed.
        """
        self.started = True
        private: Any = conn
        first = getattr(private, "_server_host_key_algs", None) or []
        private._server_host_key_algs = [*first, *(name for name in get_default_public_key_algs() if name not in first)]

    def known(self, host: str, _address: str, port: int | None) -> tuple[Any, Any, Any]:
        """The keys, authorities and revoked keys of a host. By its name alone: whoever answers at an address that is known
        under another name is another host."""
        keys, authorities, revoked, *_ = self._hosts.match(host, "", port)
        self._known_as = f"[{host}]:{port}" if port else host
        self._any_known = bool(keys or authorities)
        return keys, authorities, revoked

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """asyncssh asks when known_hosts does not have the key."""
        self._offered = key
        return False

    def error(self, target: SshTarget, why: str) -> TunnelError:
        """What to tell the user, and how to check."""
        offered = f" (it shows {self._offered.get_fingerprint()})" if self._offered else ""
        scan = f"ssh-keyscan -p {target.port or 22} {target.host} | ssh-keygen -lf -"
        if "revoked" in why:
            return TunnelError(
                f"the host key of {target} is marked as revoked in known_hosts",
                reason="HostKeyRevoked",
                hint="do not connect; ask the server's administrator",
            )
        if self._any_known:
            return TunnelError(
                f"THE HOST KEY OF {target} HAS CHANGED{offered}: {why}. Somebody may be listening in",
                reason="HostKeyChanged",
                hint=f"compare `{scan}` with what the server's administrator says; if it was changed on purpose: "
                f"ssh-keygen -R '{self._known_as}', then log in once with ssh to record the new one",
            )
        return TunnelError(
            f"the host key of {target} is not known{offered}",
            reason="HostKeyUnknown",
            hint=f"compare `{scan}` with what the server's administrator says, then log in once with ssh to record it",
        )


class _Passphrases:
    """Asks for the passphrase of each key file once, and again after a wrong one as ssh does: three times in all."""

    def __init__(self, ask: Callable[[str], str]) -> None:
        self._ask = ask
        self._known: dict[str, str] = {}
        self.wrong = ""

    def __call__(self, file: str) -> str:
        if file not in self._known:
            for _ in range(3):
                passphrase = self._ask(file)
                if _unlocks(file, passphrase):
                    self._known[file] = passphrase
                    break
            else:
                self.wrong = file
                raise asyncssh.KeyEncryptionError(f"{file}: three wrong passphrases")
        return self._known[file]


def _unlocks(file: str, passphrase: str) -> bool:
    try:
        asyncssh.read_private_key(file, passphrase)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError):
        return False
    return True


def _is_public_key(file: str) -> bool:
    try:
        asyncssh.read_public_key(file)
    except (OSError, asyncssh.KeyImportError):
        return False
    return True


def _dial_error(error: OSError, target: SshTarget) -> TunnelError:
    text = str(error) if error.errno is None or not error.strerror else error.strerror
    if "lookup" in text:
        return TunnelError(
            f"the name of {target} cannot be resolved: {text}",
            reason="UnknownHost",
            hint="check the host name, and DNS",
        )
    return TunnelError(f"cannot reach {target}: {text}", reason="Unreachable", hint="check host name, port and network")


def _config_error(error: Exception, target: SshTarget) -> TunnelError:
    match error:
        case TunnelError():
            return error
        case asyncssh.KeyImportError() | asyncssh.KeyEncryptionError():
            return TunnelError(f"cannot use the private key: {error}", reason="InvalidKey", hint="wrong passphrase?")
        case OSError():
            return TunnelError(
                f"cannot read {error.filename}: {error.strerror}", reason="FileUnreadable", hint="check -i and ~/.ssh"
            )
    return TunnelError(f"{target}: {error}", reason="InvalidConfig", hint="check ~/.ssh/config and the key files")
