"""``bowsprit completion bash|zsh|fish``: completion for ``bowsprit``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell code that completes commands.

    For bash: source <(bowsprit completion bash)
    """
    from bowsprit.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "bowsprit", "_BOWSPRIT_COMPLETE").source())
