"""The pages say what is true: commands and options exist, cluster files are valid, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from bowsprit.cli.main import cli
from bowsprit.cluster.config import parse_config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def _blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, text in _FENCE.findall(page.read_text()):
        if language in languages:
            yield text


def _commands(page: Path) -> Iterator[list[str]]:
    for block in _blocks(page, "console", "sh", "bash"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if _calls_bowsprit(line) else []
            if words:
                yield words[words.index("bowsprit") + 1 :]


def _calls_bowsprit(line: str) -> bool:
    return re.match(r"(\$ )?(\w+=\S+ |sudo )*bowsprit ", line) is not None


def _check(words: list[str]) -> None:
    """Every word that looks like a command or option is one."""
    command: click.Command = cli
    context = click.Context(cli, info_name="bowsprit")
    rest = iter(words)
    for word in rest:
        if word in ("|", "&&", "&", ";", ">", "--"):
            return
        if word.startswith("-"):
            if word in ("-h", "--help"):
                return
            name, _, value = word.partition("=")
            option = next((param for param in command.params if name in (*param.opts, *param.secondary_opts)), None)
            assert isinstance(option, click.Option), f"{command.name} has no option {word}"
            if not value and not option.is_flag and not option._flag_needs_value:
                next(rest, None)
        elif isinstance(command, click.Group):
            found = command.get_command(context, word)
            assert found is not None, f"{command.name} has no command {word}"
            command, context = found, click.Context(found, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    for words in _commands(page):
        _check(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    dead = [link for link in _LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert dead == []


def test_cluster_files_are_valid() -> None:
    seen = 0
    for page in PAGES:
        for block in _blocks(page, "yaml"):
            for document in block.split("\n---\n"):
                if (yaml.safe_load(document) or {}).get("kind") == "Cluster":
                    parse_config(document, origin=page.name)
                    seen += 1
    assert seen


def test_the_options_of_up_are_all_told_of() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text()
    up = cli.get_command(click.Context(cli), "up")
    assert up is not None
    flags = {param.opts[-1] for param in up.params if isinstance(param, click.Option)}
    assert {flag for flag in flags if f"`{flag}" not in page} == set()
