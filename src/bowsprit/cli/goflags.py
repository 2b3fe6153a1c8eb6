"""Flag types that refuse what Go's flags refuse, with its messages and exit code 1 (pflag, strconv)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

_FLOAT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


def go_quote(text: str) -> str:
    """`text` as %q shows it."""
    from bowsprit.machinery.goformat import quote

    return quote(text)


def parse_bool(text: str) -> bool:
    """strconv.ParseBool. Raises ValueError with its message."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {go_quote(text)}: invalid syntax")


def parse_int(text: str) -> int:
    """strconv.ParseInt for decimal numbers. Raises ValueError with its message."""
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise ValueError(f"strconv.ParseInt: parsing {go_quote(text)}: invalid syntax")
    return int(text)


def parse_uint(text: str) -> int:
    """strconv.ParseUint for decimal numbers. Raises ValueError with its message."""
    if not re.fullmatch(r"\d+", text, re.ASCII):
        raise ValueError(f"strconv.ParseUint: parsing {go_quote(text)}: invalid syntax")
    return int(text)


def parse_float(text: str) -> float:
    """strconv.ParseFloat for decimal numbers. Raises ValueError with its message."""
    if not _FLOAT.fullmatch(text):
        raise ValueError(f"strconv.ParseFloat: parsing {go_quote(text)}: invalid syntax")
    return float(text)


def parse_seconds(text: str) -> float:
    """A duration, in seconds. Raises ValueError with Go's message."""
    from bowsprit.machinery.time import parse_duration

    return parse_duration(text) / 1e9


def parse_duration_text(text: str) -> str:
    """A duration, as Go prints it: `60s` is `1m0s`. Raises ValueError with Go's message."""
    from bowsprit.machinery.time import format_duration, parse_duration

    return format_duration(parse_duration(text))


def parse_ip(text: str) -> str:
    """An address; nothing stands for all. Raises ValueError."""
    try:
        return str(ipaddress.ip_address(text)) if text else "0.0.0.0"
    except ValueError:
        raise ValueError(f"failed to parse IP: {go_quote(text)}") from None


def parse_pairs(text: str) -> str:
    """`key=value,…`. Raises ValueError."""
    for part in filter(None, text.split(",")):
        if "=" not in part:
            raise ValueError(f"{part} must be formatted as key=value")
    return text


def parse_levels(text: str) -> str:
    """`pattern=N,…`. Raises ValueError."""
    for part in filter(None, text.split(",")):
        pattern, equals, level = part.partition("=")
        if not equals or not pattern or not level:
            raise ValueError(f"{go_quote(part)} does not have the pattern=N format")
        parse_uint(level)
    return text


class GoFlag(click.ParamType[Any]):
    """A flag whose text `parse` turns into a value."""

    def __init__(self, parse: Callable[[str], Any], name: str):
        self.parse = parse
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        text = value.removeprefix("=") if param and len(param.opts) > 1 else value  # -v=2
        try:
            return self.parse(text)
        except ValueError as exc:
            flag = ", ".join(param.opts) if param is not None else ""
            raise click.BadParameter(f"invalid argument {go_quote(text)} for {go_quote(flag)} flag: {exc}") from None


BOOL = GoFlag(parse_bool, "true|false")
INT = GoFlag(parse_int, "int")
UINT = GoFlag(parse_uint, "int")
FLOAT = GoFlag(parse_float, "float")
SECONDS = GoFlag(parse_seconds, "duration")
DURATION = GoFlag(parse_duration_text, "duration")
IP = GoFlag(parse_ip, "ip")
PAIRS = GoFlag(parse_pairs, "pairs")
LEVELS = GoFlag(parse_levels, "levels")


def switch(name: str, default: bool | None, text: str = "", **more: Any) -> Callable[[Command], Command]:
    """A flag as Go has them: ``--x``, ``--x=true``, ``--x=false``."""
    return click.option(
        name, type=BOOL, is_flag=False, flag_value="true", default=default, metavar="[BOOL]", help=text, **more
    )


class GoFlags(click.Command):
    """Refuses flags with Go's text and exit code 1."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as exc:
            click.echo(f"Error: unknown flag: {exc.option_name}", err=True)
        except click.BadOptionUsage as exc:
            click.echo(f"Error: flag needs an argument: {exc.option_name}", err=True)
        except click.BadParameter as exc:
            click.echo(f"Error: {exc.message}", err=True)
        ctx.exit(1)
