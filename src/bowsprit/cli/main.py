"""The root command: global options, lazily loaded command groups, errors turned into text and exit codes.

Exit codes: 0 done or already so, 1 failed, 2 usage, 3 unchanged (only with ``--error-unchanged``), 130 interrupted.
"""

from __future__ import annotations

import importlib
import logging
import sys
from typing import Any

import click

from bowsprit import __version__
from bowsprit.cli.errors import CommandError, report

# name -> (module:attribute, one-line help); modules load only when their command runs, so that start-up stays fast.
COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("bowsprit.cli.cluster:up", "Start an embedded cluster and switch kubectl to it."),
    "down": ("bowsprit.cli.cluster:down", "Stop a cluster and keep its state."),
    "delete": ("bowsprit.cli.cluster:delete", "Stop a cluster and forget it."),
    "status": ("bowsprit.cli.cluster:status", "Show clusters and their components."),
    "get": ("bowsprit.cli.cluster:get", "List clusters or components, or print a kubeconfig."),
    "logs": ("bowsprit.cli.cluster:logs", "Print a component's log."),
    "apiserver": ("bowsprit.cli.apiserver:apiserver", "Run the API server alone (kube-apiserver's flags)."),
    "controller-manager": (
        "bowsprit.cli.controller_manager:controller_manager",
        "Run the controllers (kube-controller-manager's flags).",
    ),
    "scheduler": ("bowsprit.cli.scheduler:scheduler", "Run a scheduler, replay scenarios, explain decisions."),
    "kubelet": ("bowsprit.cli.kubelet:kubelet", "Run simulated nodes."),
    "extension": ("bowsprit.cli.extension:extension", "Write, run, install and check extension API servers."),
    "tunnel": ("bowsprit.cli.tunnel:tunnel", "Reach an API server through SSH and SOCKS5."),
    "konnectivity": (
        "bowsprit.cli.konnectivity:konnectivity",
        "Reach into the cluster's network: server, agent, manifests.",
    ),
    "completion": ("bowsprit.cli.completion:completion", "Print the shell code that completes commands."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table alone: ``--help`` imports nothing."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "BOWSPRIT"})
@click.version_option(__version__, prog_name="bowsprit")
@click.option("-v", "--v", "verbosity", type=int, default=0, metavar="LEVEL", help="Log level; 8 shows tracebacks.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the answer and errors.")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colour on stderr.")
@click.pass_context
def cli(ctx: click.Context, verbosity: int, quiet: bool, color: str) -> None:
    """Extend Kubernetes from Python."""
    ctx.obj = {"verbosity": verbosity, "quiet": quiet, "color": color}
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.DEBUG if verbosity >= 4 else logging.INFO if verbosity >= 2 else logging.WARNING,
        format="%(levelname).1s %(asctime)s %(name)s] %(message)s",
    )


def main(args: list[str] | None = None, **extra: Any) -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if args is None else args
    try:
        result = cli.main(args=arguments, standalone_mode=False, prog_name="bowsprit", **extra)
    except click.exceptions.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(2 if isinstance(exc, click.UsageError) else 1)
    except CommandError as exc:
        report(exc)
        sys.exit(exc.exit_code)
    sys.exit(result if isinstance(result, int) else 0)
