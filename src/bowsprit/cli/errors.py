"""What a command prints when it fails: ``error: what``, ``reason: CamelCase``, ``hint: the next thing to try``."""

from __future__ import annotations

import sys


class CommandError(Exception):
    """A failure that the user can act on.

    Args:
        message: what went wrong, one line, without a trailing period.
        reason: a stable CamelCase identifier for scripts.
        hint: the next command or step, if there is one.
        exit_code: 1 for failures, 2 for wrong usage, 3 for "unchanged".
    """

    def __init__(self, message: str, *, reason: str = "Failed", hint: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.hint = hint
        self.exit_code = exit_code


def report(error: CommandError) -> None:
    """Print an error on stderr in the house form."""
    print(f"error: {error.message}\nreason: {error.reason}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
