"""docs/tunnel.md has every option, step and reason; test_networks runs its commands."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

import bowsprit.tunnel
from bowsprit.cli.tunnel import tunnel
from bowsprit.tunnel.check import WayCheck

TEXT = (Path(__file__).parents[2] / "docs" / "tunnel.md").read_text()


def test_every_option_is_there():
    for name, command in tunnel.commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                for option in parameter.opts:
                    assert f"`{option}`" in TEXT, f"tunnel {name} {option}"


def test_every_step_and_every_reason_is_there():
    steps = re.findall(r'\("(\w+)", self\._', Path(sys.modules[WayCheck.__module__].__file__ or "").read_text())
    assert len(steps) == 12
    for step in steps:
        assert re.search(rf"^\|.*`{step}`.*\|", TEXT, re.M), step
    folder = Path(next(iter(bowsprit.tunnel.__path__)))
    source = "".join((folder / name).read_text() for name in ("login.py", "listener.py", "target.py", "link.py"))
    for reason in set(re.findall(r'reason="(\w+)"', source)) - {
        "SshError",
        "LinkLost",
        "LinkDown",
        "CannotListen",
        "FileUnreadable",
    }:
        assert f"`{reason}`" in TEXT, reason
