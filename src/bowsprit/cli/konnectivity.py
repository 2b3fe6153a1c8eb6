"""``bowsprit konnectivity``: the server, the agent, their manifests and their status."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import click

from bowsprit.cli.errors import CommandError
from bowsprit.cli.output import print_structured, print_table

_RAW = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@click.group()
def konnectivity() -> None:
    """Control-plane traffic into the cluster's network."""


def proxy_server() -> None:
    """The console script ``proxy-server``."""
    from bowsprit.konnectivity.process import run_server

    sys.exit(run_server(sys.argv[1:]))


def proxy_agent() -> None:
    """The console script ``proxy-agent``."""
    from bowsprit.konnectivity.process import run_agent

    sys.exit(run_agent(sys.argv[1:]))


@konnectivity.command(context_settings=_RAW, add_help_option=False)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def server(flags: tuple[str, ...]) -> None:
    """Run the proxy-server, with upstream's flags (--help lists them)."""
    from bowsprit.konnectivity.process import run_server

    sys.exit(run_server(flags))


@konnectivity.command(context_settings=_RAW, add_help_option=False)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def agent(flags: tuple[str, ...]) -> None:
    """Run the proxy-agent, with upstream's flags (--help lists them)."""
    from bowsprit.konnectivity.process import run_agent

    sys.exit(run_agent(flags))


@konnectivity.command()
@click.option("--server-host", default="127.0.0.1", show_default=True, help="Where agents reach the server.")
@click.option("--image", default="bowsprit:latest", show_default=True, help="Image with proxy-server and proxy-agent.")
@click.option("--mode", type=click.Choice(["grpc", "http-connect"]), default="grpc", show_default=True)
@click.option("--server-kind", type=click.Choice(["Pod", "DaemonSet"]), default="Pod", show_default=True)
@click.option("--agent-kind", type=click.Choice(["DaemonSet", "Deployment"]), default="DaemonSet", show_default=True)
@click.option("--server-count", type=click.IntRange(1), default=1, show_default=True)
@click.option("--count-leases", is_flag=True, help="Let servers and agents count servers by Leases.")
@click.option("--ca-cert", type=click.Path(dir_okay=False), help="Cluster CA certificate, to issue the server's.")
@click.option("--ca-key", type=click.Path(dir_okay=False), help="Cluster CA key.")
@click.option("--api-server", default="https://127.0.0.1:6443", show_default=True, help="For the server's kubeconfig.")
@click.option("--server-conf", type=click.Path(dir_okay=False), help="Write the server's kubeconfig here (0600).")
def manifests(
    server_host: str,
    image: str,
    mode: str,
    server_kind: str,
    agent_kind: str,
    server_count: int,
    count_leases: bool,
    ca_cert: str | None,
    ca_key: str | None,
    api_server: str,
    server_conf: str | None,
) -> None:
    """Print server, agents, RBAC and egress configuration; with --server-conf, write the server's credentials."""
    from bowsprit.konnectivity import manifests as objects
    from bowsprit.pki.errors import PKIError

    if not server_host:
        hint = "agents connect to it: a host name or an address"
        raise CommandError("--server-host is empty", reason="MissingHost", hint=hint, exit_code=2)
    if server_conf:
        if not ca_cert or not ca_key:
            hint = "pass the cluster CA with --ca-cert and --ca-key"
            raise CommandError("--server-conf needs the cluster CA", reason="MissingCA", hint=hint, exit_code=2)
        try:
            objects.write_credentials(Path(ca_cert), Path(ca_key), api_server, Path(server_conf))
        except (PKIError, OSError) as exc:
            raise CommandError(f"cannot write {server_conf}: {exc}", reason="NoCredentials") from exc
        click.echo(f"wrote {server_conf}", err=True)
    options = objects.ManifestOptions(
        server_host=server_host, server_image=image, agent_image=image, mode=mode, server_kind=server_kind,
        agent_kind=agent_kind, server_count=server_count, count_leases=count_leases,
    )  # fmt: skip
    click.echo(objects.documents(options), nl=False)


@konnectivity.command()
@click.option("--address", default="127.0.0.1:8095", show_default=True, help="Admin address of a server or an agent.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
def status(address: str, output: str) -> None:
    """Show agents, servers, connections, dials and the last errors of a running server or agent."""
    found = _fetch(address)
    if output != "table":
        print_structured(found, output)
        return
    if found.get("role") == "server":
        _print_server(found)
    else:
        _print_agent(found)


def _fetch(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        hint = "host:port, for example 127.0.0.1:8095"
        raise CommandError(f"{address!r} is no address", reason="InvalidAddress", hint=hint, exit_code=2)
    hint = "start it with `bowsprit konnectivity server`, or pass its admin address with --address"
    try:
        with urllib.request.urlopen(f"http://{address}/status", timeout=5) as answer:
            found: dict[str, Any] = json.loads(answer.read(16 * 1024 * 1024))
            return found
    except (urllib.error.URLError, OSError, ValueError) as exc:
        reason = getattr(exc, "reason", exc)
        raise CommandError(f"no status from {address}: {reason}", reason="Unreachable", hint=hint) from exc


def _print_server(found: dict[str, Any]) -> None:
    click.echo(f"server {found['serverID']}   mode {found['mode']}   {'ready' if found['ready'] else 'not ready'}")
    click.echo(f"connections {found['connections']}   pending dials {found['pendingDials']}")
    rows = [
        [each["agentID"], "draining" if each["draining"] else "ready", each["connections"], each["dials"],
         each["bytesSent"], each["bytesReceived"], f"{each['connectedSeconds']:.0f}s"]
        for each in found["agents"]
    ]  # fmt: skip
    print_table(["AGENT", "STATE", "CONNECTIONS", "DIALS", "SENT", "RECEIVED", "AGE"], rows)
    for error in found["lastErrors"]:
        click.echo(f"last error: {error}")


def _print_agent(found: dict[str, Any]) -> None:
    state = "draining" if found["draining"] else "ready" if found["ready"] else "not ready"
    click.echo(f"agent {found['agentID']}   {state}   {len(found['servers'])} of {found['serverCount']} servers")
    rows = [
        [each["serverID"], each["connections"], each["dials"], each["bytesSent"], each["bytesReceived"],
         f"{each['connectedSeconds']:.0f}s"]
        for each in found["servers"]
    ]  # fmt: skip
    print_table(["SERVER", "CONNECTIONS", "DIALS", "SENT", "RECEIVED", "AGE"], rows)
    if found["lastError"]:
        click.echo(f"last error: {found['lastError']}")
