"""Command-line flags with the syntax and the error texts of Go's pflag, from a table.

``--name=value`` and ``--name value``; booleans need ``=`` for a value; one dash is for one-letter flags only; the last wins.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.selectors import LabelSelector, SelectorError
from bowsprit.machinery.time import format_duration, parse_duration

Value = str | int | float | bool | tuple[str, ...]
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


class FlagError(Exception):
    """The command line is wrong; the message is pflag's."""


class HelpRequestedError(Exception):
    """``--help`` or ``-h``."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. ``kind`` names the parser; durations are nanoseconds."""

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


def _number(text: str) -> int:
    try:
        if not re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|0[oO]?[0-7]*|0[bB][01]+|[1-9][0-9]*)", text):
            raise ValueError
        sign = -1 if text[0] == "-" else 1
        digits = text.lstrip("+-")
        if re.fullmatch(r"0[0-7]+", digits):
            digits = "0o" + digits[1:]
        value = sign * int(digits, 0)
    except ValueError:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax") from None
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return value


def _boolean(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def _decimal(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"strconv.ParseFloat: parsing {quote(text)}: invalid syntax") from None


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except DecodeError as exc:
        raise ValueError(str(exc)) from None


def _strings(text: str) -> tuple[str, ...]:
    text = text.strip() if text != "[]" else ""  # what pflag prints for an empty list may come back as a value
    return tuple(next(csv.reader([text]))) if text else ()


def _selector(text: str) -> str:
    try:
        LabelSelector.parse(text)
    except SelectorError as exc:
        raise ValueError(str(exc)) from None
    return text


_PARSERS: dict[str, Callable[[str], Value]] = {
    "string": str,
    "int": _number,
    "bool": _boolean,
    "float32": _decimal,
    "duration": _duration,
    "strings": _strings,
    "selector": _selector,
}

# klog's, as component-base registers them; only --v matters to us, the others are accepted.
KLOG_FLAGS = (
    Flag("add-dir-header", "bool", False, "If true, adds the file directory to the header of the log messages"),
    Flag("alsologtostderr", "bool", False, "log to standard error as well as files"),
    Flag(
        "alsologtostderrthreshold", "string", "0", "logs at or above this threshold go to stderr with alsologtostderr"
    ),
    Flag("legacy-stderr-threshold-behavior", "bool", True, "keep the old behaviour of stderrthreshold"),
    Flag("log-backtrace-at", "string", ":0", "when logging hits line file:N, emit a stack trace"),
    Flag("log-dir", "string", "", "If non-empty, write log files in this directory"),
    Flag("log-file", "string", "", "If non-empty, use this log file"),
    Flag("log-file-max-size", "int", 1800, "Defines the maximum size a log file can grow to, in megabytes"),
    Flag("logtostderr", "bool", True, "log to standard error instead of files"),
    Flag("one-output", "bool", False, "If true, only write logs to their native severity level"),
    Flag("skip-headers", "bool", False, "If true, avoid header prefixes in the log messages"),
    Flag("skip-log-headers", "bool", False, "If true, avoid headers when opening log files"),
    Flag("stderrthreshold", "string", "2", "logs at or above this threshold go to stderr"),
    Flag("v", "int", 4, "number for the log level verbosity", shorthand="v"),
    Flag("vmodule", "string", "", "comma-separated list of pattern=N settings for file-filtered logging"),
)


def parse(flags: Iterable[Flag], arguments: Sequence[str], warn: Callable[[str], None]) -> dict[str, Value]:
    """The values by field name, defaults included. ``warn`` gets deprecations. Raises FlagError, HelpRequestedError."""
    table = {flag.name: flag for flag in flags}
    short = {flag.shorthand: flag for flag in table.values() if flag.shorthand}
    values: dict[str, Value] = {flag.field: flag.default for flag in table.values() if not flag.target}
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            break
        if not argument.startswith("-") or argument == "-":
            continue  # upstream's commands take no arguments and ignore them
        if argument.startswith("--"):
            name, equals, text = argument[2:].partition("=")
            if not name or name.startswith("-"):
                raise FlagError(f"bad flag syntax: {argument}")
            flag = table.get(name)
            if flag is None:
                if name == "help":
                    raise HelpRequestedError
                raise FlagError(f"unknown flag: --{name}")
            shown = f"--{name}"
        else:
            letter, text = argument[1], argument[2:]
            if letter == "h":
                raise HelpRequestedError
            if letter not in short:
                raise FlagError(f"unknown shorthand flag: {_go_rune(letter)} in {argument}")
            flag, equals, text = short[letter], "=" if text else "", text.removeprefix("=")
            shown = f"-{letter}"
        if not equals:
            if flag.kind == "bool":
                text = "true"
            elif not rest:
                missing = f"{_go_rune(shown[1])} in {argument}" if len(shown) == 2 else shown
                raise FlagError(f"flag needs an argument: {missing}")
            else:
                text = rest.pop(0)
        values[flag.field] = _value(flag, text)
        if flag.deprecated:
            warn(f"Flag --{flag.name} has been deprecated, {flag.deprecated}")
    return values


def _value(flag: Flag, text: str) -> Value:
    try:
        return _PARSERS[flag.kind](text)
    except ValueError as exc:
        shown = f"-{flag.shorthand}, --{flag.name}" if flag.shorthand else f"--{flag.name}"
        raise FlagError(f"invalid argument {quote(text)} for {quote(shown)} flag: {exc}") from None


def _go_rune(letter: str) -> str:
    return f"'{letter}'"


def usage(program: str, text: str, flags: Iterable[Flag]) -> str:
    """What ``--help`` prints: one line a flag, sorted, as pflag lays them out."""
    kinds = {"bool": "", "strings": "strings", "selector": "string"}
    rows = []
    for flag in sorted(flags, key=lambda flag: flag.name):
        if flag.hidden or flag.deprecated:
            continue
        head = f"  -{flag.shorthand}, --{flag.name}" if flag.shorthand else f"      --{flag.name}"
        kind = kinds.get(flag.kind, flag.kind)
        rows.append((f"{head} {kind}".rstrip(), flag.help + _shown_default(flag)))
    width = max(len(head) for head, _ in rows) + 3
    lines = "\n".join(f"{head.ljust(width)}{help_text}" for head, help_text in rows)
    return f"{text}\n\nUsage:\n  {program} [flags]\n\nFlags:\n{lines}\n"


def _shown_default(flag: Flag) -> str:
    if flag.default in ("", 0, False, ()):
        return ""
    if flag.kind == "duration" and isinstance(flag.default, int):
        return f" (default {format_duration(flag.default)})"
    if flag.kind == "string":
        return f" (default {quote(str(flag.default))})"
    return f" (default {str(flag.default).lower() if flag.kind == 'bool' else flag.default})"
