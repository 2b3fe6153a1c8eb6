"""Printing: tables with kubectl's spacing, JSON, YAML; progress lines on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import click


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns separated by three spaces, as kubectl prints them; empty cells are ``<none>``."""
    cells = [list(headings)] + [["<none>" if cell in ("", None) else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for row in cells:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_structured(value: Any, form: str) -> None:
    """``form`` is ``json`` or ``yaml``."""
    if form == "json":
        click.echo(json.dumps(value, indent=2))
        return
    import yaml

    click.echo(yaml.safe_dump(value, sort_keys=False), nl=False)


def use_colour(setting: str) -> bool:
    """Whether stderr gets colour: ``always``, ``never``, or by terminal, ``NO_COLOR`` and ``TERM``."""
    if setting != "auto":
        return setting == "always"
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Progress:
    """Steps on stderr: ``✓`` lines; with ``form == "json"`` one JSON object per step on stdout instead."""

    def __init__(self, *, quiet: bool, colour: str, form: str = "") -> None:
        self._quiet = quiet
        self._colour = use_colour(colour)
        self._json = form == "json"

    def step(self, name: str, text: str, **facts: object) -> None:
        """A step that succeeded."""
        if self._json:
            click.echo(json.dumps({"step": name, "ok": True, "message": text, **facts}))
        elif not self._quiet:
            mark = "\033[32m✓\033[0m" if self._colour else "✓"
            click.echo(f" {mark} {text}", err=True)

    def say(self, text: str) -> None:
        """A line for people."""
        if not self._json and not self._quiet:
            click.echo(text, err=True)
