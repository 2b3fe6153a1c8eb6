"""``bowsprit tunnel``: open, list and close SSH tunnels to API servers; run a gateway; check a way."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
import time
from typing import Any

import click

from bowsprit.cli.output import print_structured, print_table
from bowsprit.cli.tunnel_open import FILE, allowed_destinations, command_error, link_options, open_command, run


@click.group()
def tunnel() -> None:
    """Reach an API server through SSH and SOCKS5."""


tunnel.add_command(open_command)


@tunnel.command("list")
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]))
def list_command(output: str | None) -> None:
    """List open tunnels; tidy up after those whose process was killed."""
    from bowsprit.tunnel.records import list_records, repair_record
    from bowsprit.tunnel.session import span

    records = []
    for record in list_records():
        if record.alive:
            records.append(record)
            continue
        try:
            repair_record(record)
        except Exception as exc:
            raise command_error(exc) from exc
        click.echo(f"tunnel/{record.name} had died; what it had changed is restored", err=True)
    if output:
        hidden = ("undo", "login")
        listed = [{k: v for k, v in record.facts.items() if k not in hidden} for record in records]
        print_structured(listed, output)
        return
    if not records:
        click.echo("No tunnels are open.", err=True)
        return
    rows = []
    for record in records:
        facts = record.facts
        state = "Connected" if facts.get("connected") else "Reconnecting"
        age = span(time.time() - facts["openedAt"]) if facts.get("openedAt") else ""
        row = [facts.get(key) for key in ("listen", "target", "context", "connections")]
        rows.append((record.name, state, *row, age))
    print_table(("NAME", "STATUS", "LISTEN", "TARGET", "CONTEXT", "CONNECTIONS", "AGE"), rows)


@tunnel.command("close")
@click.argument("name")
@click.option("--env", "print_env", is_flag=True, help="Print the shell line that unsets https_proxy, for eval.")
def close_command(name: str, print_env: bool) -> None:
    """Close a tunnel and undo what it changed."""
    from bowsprit.tunnel.records import close_record

    try:
        was_alive = close_record(name)
    except Exception as exc:
        raise command_error(exc) from exc
    if print_env:
        click.echo("unset https_proxy HTTPS_PROXY")
    closed = "closed" if was_alive else "had died; what it had changed is restored"
    click.echo(f"tunnel/{name} {closed}", err=print_env)


@tunnel.command("gateway")
@click.option("--port", type=click.IntRange(0, 65535), default=2222, show_default=True)
@click.option("--bind", default="0.0.0.0", show_default=True, help="Address to listen on.")
@click.option("--authorized-keys", required=True, type=FILE, help="Public keys that may log in.")
@click.option("--host-key", required=True, type=FILE, help="Made on first use.")
@click.option(
    "--allow",
    multiple=True,
    metavar="HOST:PORT",
    help="Destination to allow; the API server of the context by default.",
)
@click.option("--context", metavar="CTX", help="Context whose API server is allowed.")
@click.option("--kubeconfig", type=FILE)
@click.option("--max-connections", type=click.IntRange(1), default=200, show_default=True)
def gateway_command(**settings: Any) -> None:
    """An SSH server that forwards to the API server and does nothing else."""
    from bowsprit.tunnel.gateway import Gateway, GatewayOptions

    logging.getLogger("bowsprit.tunnel.audit").setLevel(logging.INFO)
    settings["api_only"] = not settings["allow"]

    async def serve() -> None:
        options = GatewayOptions(
            allow=allowed_destinations(settings) or [],
            authorized_keys=settings["authorized_keys"],
            host_key=settings["host_key"],
            host=settings["bind"],
            port=settings["port"],
            max_connections=settings["max_connections"],
        )
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
        run(serve())
    except Exception as exc:
        raise command_error(exc) from exc


@tunnel.command("check")
@click.argument("context", required=False)
@click.option("--kubeconfig", type=FILE)
@click.option(
    "--ssh", "ssh_target", metavar="ssh://USER@HOST[:PORT]", help="The SSH server; that of the open tunnel by default."
)
@click.option("-i", "--identity", multiple=True, type=FILE, help="Private key file for --ssh.")
@click.option("--known-hosts", type=FILE, help="Instead of ~/.ssh/known_hosts.")
@click.option("--ssh-config", "ssh_config", type=FILE, help="Instead of ~/.ssh/config.")
@click.option("-o", "--output", type=click.Choice(["json"]))
def check_command(context: str | None, output: str | None, **settings: Any) -> int:
    """Prove the way to a context's API server step by step."""
    from bowsprit.tunnel.check import StepResult, WayCheck

    results: list[StepResult] = []

    async def walk() -> None:
        ssh = link_options(settings["ssh_target"], settings) if settings["ssh_target"] else None
        async for result in WayCheck(context, settings["kubeconfig"], ssh).run():
            results.append(result)
            if output != "json":
                _print_step(result)

    try:
        run(walk())
    except Exception as exc:
        raise command_error(exc) from exc
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
