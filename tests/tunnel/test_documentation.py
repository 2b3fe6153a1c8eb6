"""docs/tunnel.md: its commands run as written, and it has every option, step and reason."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path

import click
import pytest
from commands import BOWSPRIT
from lab import eventually, lab

import bowsprit.tunnel
from bowsprit.cli.tunnel import tunnel
from bowsprit.tunnel.check import WayCheck

TEXT = (Path(__file__).parents[2] / "docs" / "tunnel.md").read_text()
BLOCKS = [re.findall(r"^\$ (.+)$", block, re.M) for block in re.findall(r"```console\n(.*?)```", TEXT, re.S)]


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_the_commands_work_as_written(tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "bowsprit").write_text(f'#!/bin/sh\nexec {" ".join(BOWSPRIT)} "$@"\n')
    (programs / "bowsprit").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    ran = 0
    with lab() as networks:
        (tmp_path / "keys.pub").write_text((networks.home / ".ssh" / "id_ed25519.pub").read_text())
        for block in BLOCKS:
            with contextlib.ExitStack() as stack:
                script = []
                for line in block:
                    ran += 1
                    command = f"cd {tmp_path} && {line.replace('username@', 'root@')}"
                    if "--detach" not in line and ("tunnel open" in line or "tunnel gateway" in line):
                        before, _, program = command.partition("bowsprit")
                        running = networks.near_running("sh", "-c", f"{before} exec bowsprit{program}", PATH=path)
                        stack.enter_context(running).expect("SOCKS5 on" if "open" in line else "SSH gateway on")
                    else:
                        script.append(command)
                result = networks.near("bash", "-ec", "\n".join(script), PATH=path)
                assert result.returncode == 0, f"{script}\n{result.stdout}\n{result.stderr}"
                if any("curl" in line for line in block):
                    assert '"apiVersion": "v1"' in result.stdout
                if any("get nodes" in line for line in block):
                    assert "node-1" in result.stdout
                    assert "The whole way works." in result.stdout
        eventually(lambda: networks.near(*BOWSPRIT, "tunnel", "list").stdout == "")
    assert ran >= 9


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
