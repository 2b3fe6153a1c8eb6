"""Command-line flags with the syntax and the error texts of Go's pflag, from a table.

``--name=value`` and ``--name value``; booleans need ``=`` for a value; one dash is for one-letter flags only; the last wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from bowsprit.konnectivity import govalues
from bowsprit.konnectivity.govalues import Value
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.time import format_duration


class FlagError(Exception):
    """The command line is wrong; the message is pflag's."""


class HelpRequestedError(Exception):
    """``--help`` or ``-h``."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. ``kind`` is one of govalues; durations are nanoseconds."""

    name: str
    kind: str
    default: Value
    help: str
    hidden: bool = False
    deprecated: str = ""
    shorthand: str = ""
    target: str = ""

    @property
    def field(self) -> str:
        """The name of the option it sets."""
        return (self.target or self.name).replace("-", "_")


# klog's, as component-base registers them; only --v matters to us, the others are accepted.
KLOG_FLAGS = (
    Flag("add-dir-header", "klog-bool", False, "If true, adds the file directory to the header of the log messages"),
    Flag("alsologtostderr", "klog-bool", False, "log to standard error as well as files"),
    Flag(
        "alsologtostderrthreshold", "severity", "0", "logs at or above this threshold go to stderr with alsologtostderr"
    ),
    Flag("legacy-stderr-threshold-behavior", "klog-bool", True, "keep the old behaviour of stderrthreshold"),
    Flag("log-backtrace-at", "traceLocation", ":0", "when logging hits line file:N, emit a stack trace"),
    Flag("log-dir", "string", "", "If non-empty, write log files in this directory"),
    Flag("log-file", "string", "", "If non-empty, use this log file"),
    Flag("log-file-max-size", "uint", 1800, "Defines the maximum size a log file can grow to, in megabytes"),
    Flag("logtostderr", "klog-bool", True, "log to standard error instead of files"),
    Flag("one-output", "klog-bool", False, "If true, only write logs to their native severity level"),
    Flag("skip-headers", "klog-bool", False, "If true, avoid header prefixes in the log messages"),
    Flag("skip-log-headers", "klog-bool", False, "If true, avoid headers when opening log files"),
    Flag("stderrthreshold", "severity", "2", "logs at or above this threshold go to stderr"),
    Flag("v", "Level", 4, "number for the log level verbosity", shorthand="v"),
    Flag("vmodule", "moduleSpec", "", "comma-separated list of pattern=N settings for file-filtered logging"),
)

_HELP = Flag("help", "bool", False, "print this", shorthand="h")


def parse(flags: Iterable[Flag], arguments: Sequence[str], warn: Callable[[str], None]) -> dict[str, Value]:
    """The values by field name, defaults included. ``warn`` gets deprecations. Raises FlagError, HelpRequestedError."""
    table = {flag.name: flag for flag in (*flags, _HELP)}
    values: dict[str, Value] = {flag.field: flag.default for flag in table.values() if not flag.target}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            break
        if not argument.startswith("-") or argument == "-":
            continue  # upstream's commands take no arguments and ignore them
        for flag, text in _long(table, argument, rest) if argument[1] == "-" else _short(table, argument, rest):
            values[flag.field] = _value(flag, text)
            if flag.deprecated:
                warn(f"Flag --{flag.name} has been deprecated, {flag.deprecated}")
    if values.pop(_HELP.field):
        raise HelpRequestedError
    return values


def _long(table: dict[str, Flag], argument: str, rest: list[str]) -> Iterator[tuple[Flag, str]]:
    """``--name``, and its text, which may be the next argument."""
    name, equals, text = argument[2:].partition("=")
    if not name or name.startswith("-"):
        raise FlagError(f"bad flag syntax: {argument}")
    flag = table.get(name)
    if flag is None:
        raise FlagError(f"unknown flag: --{name}")
    if not equals:
        if flag.kind in govalues.BOOLEANS:
            text = "true"
        elif rest:
            text = rest.pop(0)
        else:
            raise FlagError(f"flag needs an argument: --{name}")
    yield flag, text


def _short(table: dict[str, Flag], argument: str, rest: list[str]) -> Iterator[tuple[Flag, str]]:
    """``-abc``: letters, of which the first with a value takes the rest of the argument, or the next one."""
    short = {flag.shorthand: flag for flag in table.values() if flag.shorthand}
    letters = argument[1:]
    while letters:
        letter, text, letters = letters[0], letters[1:], ""
        flag = short.get(letter)
        shown = f"'{letter}' in -{letter}{text}"
        if flag is None:
            raise FlagError(f"unknown shorthand flag: {shown}")
        if len(text) > 1 and text[0] == "=":
            text = text[1:]
        elif flag.kind in govalues.BOOLEANS:
            text, letters = "true", text
        elif not text:
            if not rest:
                raise FlagError(f"flag needs an argument: {shown}")
            text = rest.pop(0)
        yield flag, text


def _value(flag: Flag, text: str) -> Value:
    try:
        return govalues.parse(flag.kind, text)
    except ValueError as exc:
        shown = f"-{flag.shorthand}, --{flag.name}" if flag.shorthand else f"--{flag.name}"
        raise FlagError(f"invalid argument {quote(text)} for {quote(shown)} flag: {exc}") from None


def usage(program: str, flags: Iterable[Flag]) -> str:
    """What errors and ``--help`` end in: one line a flag, sorted, as pflag lays them out."""
    kinds = dict.fromkeys(govalues.BOOLEANS, "") | {"selector": "string"}
    rows = []
    for flag in sorted([*flags, _HELP], key=lambda flag: flag.name):
        if flag.hidden or flag.deprecated:
            continue
        head = f"  -{flag.shorthand}, --{flag.name}" if flag.shorthand else f"      --{flag.name}"
        kind = kinds.get(flag.kind, flag.kind)
        rows.append((f"{head} {kind}".rstrip(), flag.help + _shown_default(flag)))
    width = max(len(head) for head, _ in rows) + 3
    lines = "\n".join(f"{head.ljust(width)}{help_text}" for head, help_text in rows)
    return f"Usage:\n  {program} [flags]\n\nFlags:\n{lines}\n"


def _shown_default(flag: Flag) -> str:
    if flag.default in ("", 0, False, ()):
        return ""
    if flag.kind == "duration" and isinstance(flag.default, int):
        return f" (default {format_duration(flag.default)})"
    if flag.kind in ("string", "selector"):
        return f" (default {quote(str(flag.default))})"
    return f" (default {str(flag.default).lower() if flag.kind in govalues.BOOLEANS else flag.default})"
