"""``bowsprit tunnel``: open, list and close SSH tunnels to API servers; run a gateway; check a way."""

from __future__ import annotations

import asyncio
import dataclasses
import getpass
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from bowsprit.cli.errors import CommandError
from bowsprit.cli.output import Progress, print_structured, print_table

if TYPE_CHECKING:
    from bowsprit.tunnel.rules import Rule
    from bowsprit.tunnel.session import Tunnel, TunnelOptions

_READY_FD = "BOWSPRIT_TUNNEL_READY_FD"


@click.group()
def tunnel() -> None:
    """Reach an API server through SSH and SOCKS5."""


@tunnel.command("open")
@click.argument("target", metavar="ssh://USER@HOST[:PORT]")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=1080, show_default=True, help="SOCKS5 port; 0 = any free."
)
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address of the SOCKS5 listener.")
@click.option(
    "--user-password", metavar="FILE", type=click.Path(path_type=Path), help="File with USER:PASSWORD for clients."
)
@click.option("--allow", multiple=True, metavar="HOST:PORT", help="Allow this destination only; repeatable.")
@click.option("--api-only", is_flag=True, help="Allow only the API server of the context.")
@click.option("--context", metavar="CTX", help="Add a copy of this kubeconfig context that goes through the tunnel.")
@click.option("--in-place", is_flag=True, help="Change the context itself instead; restored on close.")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Kubeconfig file to change.")
@click.option("-i", "--identity", multiple=True, type=click.Path(path_type=Path), help="Private key file; repeatable.")
@click.option("--ssh-config", "ssh_config", type=click.Path(path_type=Path), help="Instead of ~/.ssh/config.")
@click.option("--known-hosts", type=click.Path(path_type=Path), help="Instead of ~/.ssh/known_hosts.")
@click.option("--detach", is_flag=True, help="Go to the background once connected.")
@click.option("--name", help="Name for `tunnel list` and `tunnel close`; the host by default.")
@click.option("--env", "print_env", is_flag=True, help="Print shell lines that set https_proxy, for eval.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Status as JSON lines.")
@click.pass_context
def open_command(ctx: click.Context, /, target: str, **settings: Any) -> None:
    """Open a SOCKS5 listener that leads through an SSH server, like `ssh -D 1080 -q -N`.

    Runs until Ctrl-C unless --detach is given.
    """
    options = _options(target, settings)
    name = settings["name"] or options.link.target.host
    if settings["detach"] and _READY_FD not in os.environ:
        _detach(name)
        return
    opened = _Opened(ctx.obj or {}, options, name, settings)
    try:
        _run(opened.run())
    except Exception as exc:
        raise _command_error(exc) from exc


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(coroutine)


def _options(target: str, settings: dict[str, Any]) -> TunnelOptions:
    from bowsprit.tunnel.link import LinkOptions
    from bowsprit.tunnel.session import TunnelOptions
    from bowsprit.tunnel.target import SshTarget

    if settings["in_place"] and not settings["context"]:
        raise click.UsageError("--in-place needs --context")
    try:
        parsed = SshTarget.parse(target)
        link = LinkOptions(
            target=parsed,
            config_files=[settings["ssh_config"]] if settings["ssh_config"] else None,
            known_hosts=settings["known_hosts"],
            identities=list(settings["identity"]),
            passphrase=_ask_passphrase,
        )
        return TunnelOptions(
            link=link,
            host=settings["bind"],
            port=settings["port"],
            credentials=_credentials(settings["user_password"]),
            rules=_rules(settings),
        )
    except Exception as exc:
        raise _command_error(exc) from exc


def _rules(settings: dict[str, Any]) -> list[Rule] | None:
    from bowsprit.tunnel.rules import Rule

    try:
        rules = [Rule.parse(text) for text in settings["allow"]]
    except ValueError as exc:
        raise click.UsageError(f"--allow {exc}") from exc
    if settings["api_only"]:
        from bowsprit.client.kubeconfig import Kubeconfig

        server = urlsplit(Kubeconfig.load(settings["kubeconfig"]).rest_config(settings["context"]).server)
        rules.append(Rule.parse(f"{_bracket(server.hostname or '')}:{server.port or 443}"))
    return rules or None


def _bracket(host: str) -> str:
    return f"[{host}]" if ":" in host else host


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


def _ask_passphrase(key: str) -> str:
    if not os.path.exists("/dev/tty"):
        return ""
    return getpass.getpass(f"Passphrase for {key}: ")


def _command_error(error: Exception) -> Exception:
    from bowsprit.client.kubeconfig import KubeconfigError
    from bowsprit.tunnel.errors import TunnelError

    if isinstance(error, TunnelError):
        return CommandError(error.message, reason=error.reason, hint=error.hint)
    if isinstance(error, KubeconfigError):
        return CommandError(str(error), reason="InvalidKubeconfig")
    return error


class _Opened:
    """The open tunnel of this process: start, announce, report, close."""

    def __init__(self, root: dict[str, Any], options: TunnelOptions, name: str, settings: dict[str, Any]) -> None:
        self._progress = Progress(quiet=root.get("quiet", False), colour=root.get("color", "auto"))
        self._options = options
        self._name = name
        self._settings = settings
        self._restore: Any = None

    async def run(self) -> None:
        from bowsprit.tunnel.records import RecordFile
        from bowsprit.tunnel.session import Tunnel

        record = RecordFile(self._name)
        try:
            async with Tunnel(self._options) as opened:
                facts = {
                    "target": str(self._options.link.target),
                    "listen": f"{self._options.host}:{opened.listener.port}",
                    "pid": os.getpid(),
                    "openedAt": time.time(),
                    "context": self._edit_kubeconfig(opened.listener.port),
                }
                try:
                    record.write(facts | _status_facts(opened))
                    self._announce(opened.listener.port, str(facts["context"]))
                    _report_ready(facts)
                    await self._stay(opened, record, facts)
                finally:
                    self._undo_kubeconfig()
        finally:
            record.remove()

    def _edit_kubeconfig(self, port: int) -> str:
        context = self._settings["context"]
        if not context:
            return ""
        from bowsprit.client.kubeconfig_edit import KubeconfigFile

        file = KubeconfigFile(self._settings["kubeconfig"])
        change = {"proxy-url": f"socks5://localhost:{port}"}
        if self._settings["in_place"]:
            previous = file.change_cluster(context, change)
            self._restore = lambda: file.change_cluster(context, previous)
            return str(context)
        copy = f"{context}-tunnel"
        file.copy_context(context, copy, change)
        self._restore = lambda: file.remove_context(copy)
        return copy

    def _undo_kubeconfig(self) -> None:
        if self._restore is not None:
            self._restore()

    def _announce(self, port: int, context: str) -> None:
        if self._settings["print_env"]:
            click.echo(f"export https_proxy=socks5h://localhost:{port}")
            click.echo(f"export HTTPS_PROXY=socks5h://localhost:{port}")
            click.echo("# afterwards: unset https_proxy HTTPS_PROXY")
            sys.stdout.flush()
        self._progress.step("open", f"SOCKS5 on {self._options.host}:{port} through {self._options.link.target}")
        if context:
            verb = "Changed" if self._settings["in_place"] else "Added"
            self._progress.say(f"{verb} context {context!r}. Try: kubectl --context {context} get pods")

    async def _stay(self, opened: Tunnel, record: Any, facts: dict[str, Any]) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, stop.set)
        failed = asyncio.ensure_future(opened.wait_failed())
        stopped = asyncio.ensure_future(stop.wait())
        shown: dict[str, Any] = {}
        while not (stopped.done() or failed.done()):
            status = _status_facts(opened)
            if status != shown:
                record.write(facts | status)
                self._show(opened, facts | status)
                shown = status
            await asyncio.wait({failed, stopped}, timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        self._end_line()
        stopped.cancel()
        if failed.done():
            raise failed.result()
        failed.cancel()

    def _show(self, opened: Tunnel, facts: dict[str, Any]) -> None:
        if self._settings["output"] == "json":
            click.echo(json.dumps(facts))
        elif sys.stderr.isatty() and not self._settings["detach"]:
            click.echo(f"\r\033[K{opened.status().line(time.time())}", err=True, nl=False)

    def _end_line(self) -> None:
        if sys.stderr.isatty() and self._settings["output"] != "json" and not self._settings["detach"]:
            click.echo("", err=True)


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


def _detach(name: str) -> None:
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


@tunnel.command("list")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]))
def list_command(output: str | None) -> None:
    """List open tunnels."""
    from bowsprit.tunnel.records import list_records

    records = list_records()
    if output:
        print_structured([{"name": record.name, "alive": record.alive, **record.facts} for record in records], output)
        return
    if not records:
        click.echo("No tunnels are open.", err=True)
        return
    rows = []
    for record in records:
        facts = record.facts
        state = "Dead" if not record.alive else "Connected" if facts.get("connected") else "Reconnecting"
        rows.append(
            (
                record.name,
                state,
                facts.get("listen"),
                facts.get("target"),
                facts.get("context"),
                facts.get("connections"),
            )
        )
    print_table(("NAME", "STATUS", "LISTEN", "TARGET", "CONTEXT", "CONNECTIONS"), rows)


@tunnel.command("close")
@click.argument("name")
def close_command(name: str) -> None:
    """Close a tunnel and undo what it changed."""
    from bowsprit.tunnel.records import close_record

    try:
        was_alive = close_record(name)
    except Exception as exc:
        raise _command_error(exc) from exc
    click.echo(f"tunnel/{name} {'closed' if was_alive else 'was already gone; its record is removed'}")


@tunnel.command("gateway")
@click.option("--port", type=click.IntRange(0, 65535), default=2222, show_default=True)
@click.option("--bind", default="0.0.0.0", show_default=True, help="Address to listen on.")
@click.option("--authorized-keys", required=True, type=click.Path(path_type=Path), help="Public keys that may log in.")
@click.option("--host-key", required=True, type=click.Path(path_type=Path), help="Made on first use.")
@click.option(
    "--allow",
    multiple=True,
    metavar="HOST:PORT",
    help="Destination to allow; the API server of the context by default.",
)
@click.option("--context", metavar="CTX", help="Context whose API server is allowed.")
@click.option("--kubeconfig", type=click.Path(path_type=Path))
@click.option("--max-connections", type=click.IntRange(1), default=200, show_default=True)
def gateway_command(**settings: Any) -> None:
    """An SSH server that forwards to the API server and does nothing else."""
    from bowsprit.tunnel.gateway import Gateway, GatewayOptions

    logging.getLogger("bowsprit.tunnel.audit").setLevel(logging.INFO)
    settings["api_only"] = not settings["allow"]
    options = GatewayOptions(
        allow=_rules(settings) or [],
        authorized_keys=settings["authorized_keys"],
        host_key=settings["host_key"],
        host=settings["bind"],
        port=settings["port"],
        max_connections=settings["max_connections"],
    )

    async def run() -> None:
        gateway = Gateway(options)
        await gateway.start()
        allowed = ", ".join(str(rule) for rule in options.allow)
        click.echo(f"SSH gateway on {options.host}:{gateway.port}, leading to {allowed}", err=True)
        stop = asyncio.Event()
        for signum in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
        await stop.wait()
        await gateway.stop()

    try:
        _run(run())
    except Exception as exc:
        raise _command_error(exc) from exc


@tunnel.command("check")
@click.argument("context", required=False)
@click.option("--kubeconfig", type=click.Path(path_type=Path))
@click.option("--ssh", "ssh_target", metavar="ssh://USER@HOST[:PORT]", help="Check the SSH server, too.")
@click.option("-i", "--identity", multiple=True, type=click.Path(path_type=Path), help="Private key file for --ssh.")
@click.option("--known-hosts", type=click.Path(path_type=Path), help="Instead of ~/.ssh/known_hosts.")
@click.option("-o", "--output", type=click.Choice(["json"]))
def check_command(context: str | None, output: str | None, **settings: Any) -> int:
    """Prove the way to a context's API server step by step."""
    from bowsprit.tunnel.check import StepResult, WayCheck
    from bowsprit.tunnel.link import LinkOptions
    from bowsprit.tunnel.target import SshTarget

    results: list[StepResult] = []

    async def run() -> None:
        ssh = None
        if settings["ssh_target"]:
            ssh = LinkOptions(
                target=SshTarget.parse(settings["ssh_target"]),
                identities=list(settings["identity"]),
                known_hosts=settings["known_hosts"],
                passphrase=_ask_passphrase,
            )
        async for result in WayCheck(context, settings["kubeconfig"], ssh).run():
            results.append(result)
            if output != "json":
                _print_step(result)

    try:
        _run(run())
    except Exception as exc:
        raise _command_error(exc) from exc
    failed = [result for result in results if result.outcome == "fail"]
    if output == "json":
        print_structured({"ok": not failed, "steps": [dataclasses.asdict(result) for result in results]}, "json")
    elif failed:
        click.echo(f"The way breaks at {failed[0].step}.")
    else:
        click.echo("The whole way works.")
    return 1 if failed else 0


def _print_step(result: Any) -> None:
    mark = {"ok": "✓", "fail": "✗", "skip": "-"}[result.outcome]
    click.echo(f" {mark} {result.step:<10} {result.message}")
    if result.hint:
        click.echo(f"   {'':<10} hint: {result.hint}")
