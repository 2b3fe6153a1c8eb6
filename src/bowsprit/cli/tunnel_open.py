"""``bowsprit tunnel open``: the tunnel of this process, in the foreground or detached."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import click

from bowsprit.cli.errors import CommandError
from bowsprit.cli.output import Progress

if TYPE_CHECKING:
    from bowsprit.tunnel.contexts import ContextChange
    from bowsprit.tunnel.login import LinkOptions
    from bowsprit.tunnel.records import RecordFile
    from bowsprit.tunnel.rules import Rule
    from bowsprit.tunnel.session import Tunnel, TunnelOptions

_READY_FD = "BOWSPRIT_TUNNEL_READY_FD"
_USAGE_REASONS = ("InvalidTarget", "InvalidName", "InvalidRule")
FILE = click.Path(path_type=Path, resolve_path=True, dir_okay=False)


@click.command("open")
@click.argument("target", metavar="ssh://USER@HOST[:PORT]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=1080, show_default=True, help="SOCKS5 port; 0 = any free."
)
@click.option("--bind", default="localhost", show_default=True, help="Address of the SOCKS5 listener.")
@click.option("--user-password", metavar="FILE", type=FILE, help="File with USER:PASSWORD for clients.")
@click.option("--allow", multiple=True, metavar="HOST:PORT", help="Allow this destination only; repeatable.")
@click.option("--api-only", is_flag=True, help="Allow only the API server of the context.")
@click.option("--context", metavar="CTX", help="Add a copy of this kubeconfig context that goes through the tunnel.")
@click.option("--in-place", is_flag=True, help="Change the context itself instead; restored on close.")
@click.option("--kubeconfig", type=FILE, help="Kubeconfig file to change.")
@click.option("-i", "--identity", multiple=True, type=FILE, help="Private key file; repeatable.")
@click.option("--ssh-config", "ssh_config", type=FILE, help="Instead of ~/.ssh/config.")
@click.option("--known-hosts", type=FILE, help="Instead of ~/.ssh/known_hosts.")
@click.option("--detach", is_flag=True, help="Go to the background once connected.")
@click.option("--name", help="Name for `tunnel list` and `tunnel close`; the host by default.")
@click.option("--env", "print_env", is_flag=True, help="Print shell lines that set https_proxy, for eval.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Status as JSON lines.")
@click.pass_context
def open_command(ctx: click.Context, /, target: str, **settings: Any) -> None:
    """Open a SOCKS5 listener that leads through an SSH server, like `ssh -D 1080 -q -N`.

    Runs until Ctrl-C unless --detach is given.
    """
    from bowsprit.tunnel.records import check_tunnel_name

    try:
        options = _options(target, settings)
        name = check_tunnel_name(settings["name"] or default_name(options.link.target.host))
        if settings["detach"] and _READY_FD not in os.environ:
            _detach(name, settings["output"])
            return
        run(_Opened(ctx.obj or {}, options, name, settings).run())
    except Exception as exc:
        raise command_error(exc) from exc


def run(coroutine: Any) -> None:
    """Run a coroutine on uvloop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(coroutine)


def command_error(error: Exception) -> Exception:
    """A package's error as the command line's."""
    from bowsprit.client.errors import ConfigError
    from bowsprit.tunnel.errors import TunnelError

    if isinstance(error, TunnelError):
        code = 2 if error.reason in _USAGE_REASONS else 1
        return CommandError(error.message, reason=error.reason, hint=error.hint, exit_code=code)
    if isinstance(error, ConfigError):
        return CommandError(str(error), reason="InvalidKubeconfig", hint=error.hint)
    return error


def default_name(host: str) -> str:
    """A tunnel's name from its host, which may be an IPv6 address."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", host).strip("-.")[:60] or "tunnel"


def allowed_destinations(settings: dict[str, Any]) -> list[Rule] | None:
    """``--allow`` and ``--api-only`` as rules; None for any destination."""
    from bowsprit.client.kubeconfig import Kubeconfig
    from bowsprit.tunnel.errors import TunnelError
    from bowsprit.tunnel.rules import Rule

    try:
        rules = [Rule.parse(text) for text in settings["allow"]]
    except ValueError as exc:
        raise TunnelError(f"--allow {exc}", reason="InvalidRule", hint="write --allow api.example.com:6443") from exc
    if settings["api_only"]:
        server = urlsplit(Kubeconfig.load(settings["kubeconfig"]).rest_config(settings["context"]).server)
        rules.append(Rule(str(server.hostname), server.port or 443))
    return rules or None


def ask_passphrase() -> Any:
    """Asks on the terminal; None where there is none."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return None
    return _prompt


def _prompt(key: str) -> str:
    before = signal.getsignal(signal.SIGINT)
    with contextlib.suppress(ValueError):  # asked in another thread: Ctrl-C reaches the main one
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return getpass.getpass(f"Enter passphrase for key '{key}': ")
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGINT, before)


def link_options(target: str, settings: dict[str, Any]) -> LinkOptions:
    """How to log in, from a command's address and options."""
    from bowsprit.tunnel.login import LinkOptions
    from bowsprit.tunnel.target import SshTarget

    return LinkOptions(
        target=SshTarget.parse(target),
        config_files=[settings["ssh_config"]] if settings["ssh_config"] else None,
        known_hosts=settings["known_hosts"],
        identities=list(settings["identity"]),
        passphrase=ask_passphrase(),
    )


def _options(target: str, settings: dict[str, Any]) -> TunnelOptions:
    from bowsprit.tunnel.session import TunnelOptions

    if settings["in_place"] and not settings["context"]:
        raise click.UsageError("--in-place needs --context")
    return TunnelOptions(
        link=link_options(target, settings),
        host=settings["bind"],
        port=settings["port"],
        credentials=_credentials(settings["user_password"]),
        rules=allowed_destinations(settings),
    )


def _credentials(path: Path | None) -> tuple[str, str] | None:
    if path is None:
        return None
    try:
        user, colon, password = path.read_text().strip().partition(":")
    except OSError as exc:
        raise CommandError(f"cannot read {path}: {exc.strerror}", reason="FileUnreadable") from exc
    if not (user and colon and password) or len(user.encode()) > 255 or len(password.encode()) > 255:
        raise CommandError(f"{path} does not hold USER:PASSWORD (each at most 255 bytes)", reason="InvalidCredentials")
    return user, password


class _Opened:
    """The open tunnel of this process: start, announce, report, close."""

    def __init__(self, root: dict[str, Any], options: TunnelOptions, name: str, settings: dict[str, Any]) -> None:
        self._progress = Progress(quiet=root.get("quiet", False), colour=root.get("color", "auto"))
        self._options = options
        self._name = name
        self._settings = settings
        self._facts: dict[str, Any] = {}

    async def run(self) -> None:
        from bowsprit.tunnel.records import RecordFile
        from bowsprit.tunnel.session import Tunnel

        stop = asyncio.Event()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
        record = RecordFile(self._name)
        try:
            opened = Tunnel(self._options)
            await _start(opened, stop)
            try:
                await self._serve(opened, record, stop)
            finally:
                await opened.stop()
        except KubeconfigNotRestored:
            record.release()  # `tunnel list` tries again
            raise
        except BaseException:
            record.remove()
            raise
        record.remove()

    async def _serve(self, opened: Tunnel, record: RecordFile, stop: asyncio.Event) -> None:
        url = self._url("socks5", opened.listener.port)
        change = self._plan_change(url)
        self._facts = {
            "name": self._name,
            "target": str(self._options.link.target),
            "listen": f"{self._options.host}:{opened.listener.port}",
            "pid": os.getpid(),
            "openedAt": time.time(),
            "context": change.context if change else "",
        }
        undo = {"undo": change.to_facts()} if change else {}
        login = {"login": self._login_facts()}
        record.write(self._facts | login | undo | _status_facts(opened))  # before the change: see contexts
        try:
            changed = change.apply() if change else None
            self._announce(opened.listener.port, change, changed)
            _report_ready(self._facts | _status_facts(opened))
            await self._stay(opened, record, login | undo, stop)
        finally:
            if change:
                _undo(change)

    def _plan_change(self, proxy_url: str) -> ContextChange | None:
        from bowsprit.tunnel.contexts import ContextChange

        settings = self._settings
        if not settings["context"]:
            return None
        return ContextChange.plan(
            settings["context"], proxy_url, in_place=settings["in_place"], kubeconfig=settings["kubeconfig"]
        )

    def _login_facts(self) -> dict[str, Any]:
        """What `tunnel check` needs to log in the same way."""
        link = self._options.link
        return {
            "configFiles": None if link.config_files is None else [str(path) for path in link.config_files],
            "knownHosts": str(link.known_hosts) if link.known_hosts else None,
            "identities": [str(path) for path in link.identities],
        }

    def _url(self, scheme: str, port: int) -> str:
        given = self._options.credentials
        user = f"{quote(given[0], safe='')}:{quote(given[1], safe='')}@" if given else ""
        host = self._options.host
        host = "localhost" if host in ("127.0.0.1", "::1", "0.0.0.0", "::") else f"[{host}]" if ":" in host else host
        return f"{scheme}://{user}{host}:{port}"

    def _announce(self, port: int, change: ContextChange | None, changed: Path | None) -> None:
        if self._settings["print_env"]:
            url = self._url("socks5h", port)
            click.echo(f"export https_proxy='{url}'\nexport HTTPS_PROXY='{url}'")
            click.echo("# afterwards: unset https_proxy HTTPS_PROXY")
            sys.stdout.flush()
        self._progress.step("open", f"SOCKS5 on {self._options.host}:{port} through {self._options.link.target}")
        if change:
            verb = "Changed" if change.in_place else "Added"
            self._progress.say(f"{verb} context {change.context!r} in {changed}.")
            self._progress.say(f"Try: kubectl --context {change.context} get pods")

    async def _stay(self, opened: Tunnel, record: RecordFile, kept: dict[str, Any], stop: asyncio.Event) -> None:
        failed = asyncio.ensure_future(opened.wait_failed())
        stopped = asyncio.ensure_future(stop.wait())
        shown: dict[str, Any] = {}
        while not (stopped.done() or failed.done()):
            status = _status_facts(opened)
            if status != shown:
                with contextlib.suppress(OSError):  # a full disk is no reason to end
                    record.write(self._facts | kept | status)
                if self._settings["output"] == "json":
                    click.echo(json.dumps(self._facts | status))
                shown = status
            if self._on_terminal():
                click.echo(f"\r\033[K{opened.status().line(time.time())}", err=True, nl=False)
            await asyncio.wait({failed, stopped}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        if self._on_terminal():
            click.echo("", err=True)
        stopped.cancel()
        if failed.done():
            raise failed.result()
        failed.cancel()

    def _on_terminal(self) -> bool:
        return sys.stderr.isatty() and self._settings["output"] != "json"


class KubeconfigNotRestored(CommandError):
    """The kubeconfig could not be written when the tunnel closed."""


def _undo(change: ContextChange) -> None:
    from bowsprit.client.errors import ConfigError

    try:
        change.undo()
    except (ConfigError, OSError) as exc:
        raise KubeconfigNotRestored(
            f"the tunnel is closed, but context {change.context!r} is not restored: {exc}",
            reason="KubeconfigNotRestored",
            hint="bowsprit tunnel list tries again",
        ) from exc


async def _start(opened: Tunnel, stop: asyncio.Event) -> None:
    """Start, unless stopped before."""
    starting = asyncio.ensure_future(opened.start())
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not starting.done():
        starting.cancel()
        await asyncio.wait({starting})
        raise CommandError("interrupted before the tunnel was open", reason="Interrupted", exit_code=130)
    await starting


def _status_facts(opened: Tunnel) -> dict[str, Any]:
    status = opened.status()
    return {
        "connected": status.connected,
        "connectedAt": status.connected_at,
        "reconnects": status.reconnects,
        "connections": status.connections,
        "totalConnections": status.total,
        "failedConnections": status.failed,
        "bytesUp": status.bytes_up,
        "bytesDown": status.bytes_down,
        "latencySeconds": round(status.latency, 4),
        "error": status.error,
    }


def _detach(name: str, output: str | None) -> None:
    """Run the same command in a child that keeps the terminal until it is connected, for a passphrase."""
    from bowsprit.tunnel.records import read_record

    if (record := read_record(name)) and record.alive:
        raise CommandError(
            f"a tunnel called {name!r} is already open", reason="AlreadyOpen", hint=f"bowsprit tunnel close {name}"
        )
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "bowsprit", *sys.argv[1:]],
        env=os.environ | {_READY_FD: str(write_end)},
        pass_fds=[write_end],
    )
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read(65536)
    if not answer:
        sys.exit(process.wait())
    if output == "json":
        click.echo(answer.decode())
    click.echo(f"tunnel/{name} opened (close it with: bowsprit tunnel close {name})", err=True)


def _report_ready(facts: dict[str, Any]) -> None:
    """Tell the waiting parent, then leave its terminal and session."""
    descriptor = os.environ.pop(_READY_FD, "")
    if not descriptor:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    os.chdir("/")
    os.write(int(descriptor), json.dumps(facts).encode())
    os.close(int(descriptor))
