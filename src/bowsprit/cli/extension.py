"""``bowsprit extension``: write, run, install and check extension API servers."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bowsprit.cli.errors import CommandError

if TYPE_CHECKING:
    from bowsprit.extension.app import App
    from bowsprit.extension.options import ExtensionOptions

# Commands that live elsewhere, imported when they are used: name -> (module:attribute, one-line help).
ELSEWHERE: dict[str, tuple[str, str]] = {
    "manifests": ("bowsprit.cli.extension_setup:manifests", "Print all objects that the server needs in a cluster."),
    "install": ("bowsprit.cli.extension_setup:install", "Install the server in a cluster and check that it serves."),
    "uninstall": ("bowsprit.cli.extension_setup:uninstall", "Remove what install made."),
    "rotate-certs": ("bowsprit.cli.extension_setup:rotate_certs", "Replace the serving certificate or its authority."),
    "doctor": ("bowsprit.cli.extension_setup:doctor", "Check an extension API server from end to end."),
}


class ExtensionGroup(click.Group):
    """The group, with commands that are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *ELSEWHERE]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = ELSEWHERE[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl([*rows, *((name, text) for name, (_, text) in ELSEWHERE.items())])


@click.group(cls=ExtensionGroup)
def extension() -> None:
    """Write, run, install and check extension API servers."""


def failure(problem: Any) -> CommandError:
    """An ExtensionError as the command line tells it."""
    return CommandError(problem.message, reason=problem.reason, hint=problem.hint)


# -- new -----------------------------------------------------------------------------------------------------------------


@extension.command()
@click.argument("name")
@click.option("--group", default="", metavar="GROUP", help="API group  [default: NAME.example.com]")
@click.option("--kind", default="", metavar="KIND", help="Kind, in CamelCase  [default: NAME in CamelCase]")
def new(name: str, group: str, kind: str) -> None:
    """Make the folder NAME: a kind, its test, pyproject.toml, Containerfile."""
    from bowsprit.extension.errors import ExtensionError
    from bowsprit.extension.scaffold import files, write

    folder = Path(name)
    try:
        contents = files(folder.name, group, kind)
        write(folder, contents)
    except ExtensionError as problem:
        raise failure(problem) from problem
    for each in contents:
        click.echo(f"{folder / each}")
    click.echo(f"next: bowsprit extension run {name}:app --dev", err=True)


# -- run -----------------------------------------------------------------------------------------------------------------


@extension.command()
@click.argument("app", metavar="MODULE:APP")
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The core API server  [default: in-cluster, or kubectl's]",
)
@click.option(
    "--dev", is_flag=True, help="Register in that cluster from this host, reload on change, unregister at the end."
)
@click.option("--bind-address", default="0.0.0.0", show_default=True, metavar="IP")
@click.option(
    "--secure-port",
    type=click.IntRange(0, 65535),
    default=None,
    metavar="PORT",
    help="0: any free one  [default: 8443; --dev: 0]",
)
@click.option(
    "--tls-cert-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Serving certificate, followed as it changes.",
)
@click.option("--tls-private-key-file", type=click.Path(path_type=Path), metavar="FILE", help="Its key.")
@click.option(
    "--cert-dir", type=click.Path(path_type=Path), metavar="DIR", help="Where a self-made certificate is kept."
)
@click.option("--store", default="", metavar="STORE", help="memory or sqlite:PATH  [default: what the app says]")
@click.option("--namespace", default="", metavar="NAME", help="The Service's, for a self-made certificate.")
@click.option("--advertise-address", default="", metavar="HOST", help="Where the cluster reaches this host (--dev).")
@click.option("--client-ca-file", type=click.Path(path_type=Path), metavar="FILE", help="In place of the core's.")
@click.option(
    "--requestheader-client-ca-file", type=click.Path(path_type=Path), metavar="FILE", help="In place of the core's."
)
@click.option("--requestheader-allowed-names", multiple=True, metavar="NAME", help="In place of the core's.")
@click.option("--authentication-skip-lookup", is_flag=True, help="Do not read the core's authentication ConfigMap.")
@click.option("--authentication-tolerate-lookup-failure", is_flag=True, help="Serve although it cannot be read.")
@click.option("--without-admission", is_flag=True, help="Do not honour the core's webhooks, policies and namespaces.")
@click.option(
    "--shutdown-delay",
    type=click.FloatRange(0),
    default=0.0,
    metavar="SECONDS",
    help="Serve on so long after the signal, unready.",
)
@click.option("--logging-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.pass_context
def run(ctx: click.Context, /, app: str, dev: bool, logging_format: str, **flags: Any) -> None:
    """Serve an app until interrupted.

    MODULE:APP is importable (hello:app), a folder that `extension new` made, or a file (path/to/hello.py:app).
    """
    from bowsprit.extension.errors import ExtensionError

    _log(logging_format)
    try:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_develop(app, flags, ctx) if dev else _serve(app, flags))
    except ExtensionError as problem:
        raise failure(problem) from problem
    except KeyboardInterrupt:
        sys.exit(130)


def _log(form: str) -> None:
    """Log lines of this command: informative ones too, they are a server's voice."""
    logging.getLogger("bowsprit").setLevel(
        logging.INFO if not logging.getLogger().isEnabledFor(logging.DEBUG) else logging.DEBUG
    )
    for name in ("bowsprit.client", "bowsprit.apiserver"):
        logging.getLogger(name).setLevel(max(logging.getLogger().level, logging.DEBUG))
    if form == "json":
        from bowsprit.extension.logs import JSONFormatter

        for handler in logging.getLogger().handlers:
            handler.setFormatter(JSONFormatter())


def core_config(kubeconfig: Path | None) -> Any:
    """How the core API server is reached: the file, else in-cluster, else as kubectl does. Raises ExtensionError."""
    from bowsprit.client.config import in_cluster_config
    from bowsprit.client.errors import ConfigError
    from bowsprit.client.kubeconfig import Kubeconfig
    from bowsprit.extension.errors import ExtensionError

    try:
        if kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            return in_cluster_config()
        return Kubeconfig.load(kubeconfig).rest_config()
    except ConfigError as problem:
        hint = getattr(problem, "hint", "") or "give --kubeconfig"
        raise ExtensionError(str(problem), reason="NoCluster", hint=hint) from problem


def _options(flags: dict[str, Any]) -> ExtensionOptions:
    from bowsprit.extension.options import ExtensionOptions

    names = {field.name for field in dataclasses.fields(ExtensionOptions)}
    known = {name: value for name, value in flags.items() if name in names and value is not None}
    return ExtensionOptions(
        **{
            **known,
            "secure_port": 8443 if flags["secure_port"] is None else flags["secure_port"],
            "requestheader_allowed_names": tuple(flags["requestheader_allowed_names"]),
            "kubeconfig": None,
            "core": core_config(flags["kubeconfig"]),
            "admission": not flags["without_admission"],
        }
    )


def _load(spec: str, store: str) -> App:
    from bowsprit.extension.loading import load_app
    from bowsprit.extension.storage import StoreSpec

    app = load_app(spec)
    if store:
        app.store = StoreSpec(store)
    return app


async def _serve(spec: str, flags: dict[str, Any]) -> None:
    """Serve until SIGTERM or SIGINT; a second signal ends the drain."""
    from bowsprit.extension.dev import READY_FD, announce, end_with_parent
    from bowsprit.extension.registration import service_of
    from bowsprit.extension.server import ExtensionServer

    stop, again = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (again if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled)
    if developed := READY_FD in os.environ:
        end_with_parent()
    app = _load(spec, flags["store"])
    options = _options(flags)
    if developed:
        options = dataclasses.replace(options, service=service_of(app), namespace=flags["namespace"] or "default")
    server = ExtensionServer(app, options)
    try:
        host, port = await server.start()
    except OSError as problem:
        raise CommandError(
            f"cannot listen on {options.bind_address}:{options.secure_port}: {problem.strerror or problem}",
            reason="AddressInUse",
            hint="choose another --secure-port or --bind-address",
        ) from problem
    announce(app, port, server.ca_bundle)
    names = ", ".join(gv.api_version for gv in app.group_versions)
    print(f"serving {names} on {host}:{port}", file=sys.stderr, flush=True)
    await stop.wait()
    stopping, impatient = asyncio.ensure_future(server.stop()), asyncio.ensure_future(again.wait())
    await asyncio.wait({stopping, impatient}, return_when=asyncio.FIRST_COMPLETED)
    impatient.cancel()
    if not stopping.done():
        stopping.cancel()
        await asyncio.wait({stopping})


async def _develop(spec: str, flags: dict[str, Any], ctx: click.Context) -> None:
    from bowsprit.extension.dev import Development
    from bowsprit.extension.errors import ExtensionError
    from bowsprit.extension.loading import source_of

    source = source_of(spec)
    if source is None or not source.is_file():
        raise ExtensionError(
            f"{spec}: no file of that name here",
            reason="ModuleNotFound",
            hint="--dev runs a module or file of this folder",
        )
    if flags["tls_cert_file"] or flags["tls_private_key_file"]:
        raise click.UsageError("--dev makes its own certificate; leave out --tls-cert-file and --tls-private-key-file")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    quiet = bool((ctx.find_root().obj or {}).get("quiet"))

    def say(text: str) -> None:
        if not quiet:
            print(text, file=sys.stderr, flush=True)

    config = core_config(flags["kubeconfig"])
    await Development(
        _child_arguments(spec, flags), source, config, flags["advertise_address"], flags["secure_port"] or 0, say
    ).run(stop)


def _child_arguments(spec: str, flags: dict[str, Any]) -> list[str]:
    """The command line of the server process, with the flags that are meant for it."""
    arguments = ["extension", "run", spec]
    for name, value in flags.items():
        flag = f"--{name.replace('_', '-')}"
        if name in ("secure_port", "cert_dir", "advertise_address") or value in (None, "", False, ()):
            continue
        if value is True:
            arguments.append(flag)
        elif isinstance(value, tuple):
            for item in value:
                arguments += [flag, str(item)]
        else:
            arguments += [flag, str(value)]
    return arguments
