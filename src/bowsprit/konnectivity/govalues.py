"""The values of flags, with the syntax and the error texts of Go's strconv, time, encoding/csv and klog.

A parser takes the text and raises ValueError.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.selectors import LabelSelector, SelectorError
from bowsprit.machinery.time import parse_duration

Value = str | int | float | bool | tuple[str, ...]
BOOLEANS = ("bool", "klog-bool")
_SEVERITIES = {"INFO": 0, "WARNING": 1, "ERROR": 2, "FATAL": 3}
_DECIMAL = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|inf|infinity)|nan", re.IGNORECASE | re.ASCII)
_HEXADECIMAL = re.compile(r"[+-]?0x([0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)p[+-]?\d+", re.IGNORECASE | re.ASCII)
_MAX_FLOAT32 = 3.4028235677973366e38  # the largest that rounds to a float32
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_BARE = re.compile(r"[^,\n]*")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_NUMBER = re.compile(  # strconv.ParseInt with base 0
    r"[+-]?(0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO](_?[0-7])+|0(_?[0-7])*|[1-9](_?[0-9])*)"
)
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def parse(kind: str, text: str) -> Value:
    """The value of a flag of that kind. Raises ValueError."""
    return _PARSERS[kind](text)


def _number(text: str) -> int:
    try:
        if not _NUMBER.fullmatch(text):
            raise ValueError
        sign = -1 if text[0] == "-" else 1
        digits = text.lstrip("+-").replace("_", "")
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
    """strconv.ParseFloat for 32 bits."""
    if _HEXADECIMAL.fullmatch(text):
        value = float.fromhex(text)
    elif _DECIMAL.fullmatch(text):
        value = float(text)
    else:
        raise ValueError(f"strconv.ParseFloat: parsing {quote(text)}: invalid syntax")
    if abs(value) > _MAX_FLOAT32 and (math.isfinite(value) or text[-1].isdigit()):
        raise ValueError(f"strconv.ParseFloat: parsing {quote(text)}: value out of range")
    return value


def _duration(text: str) -> int:
    try:
        return parse_duration(text)
    except DecodeError as exc:
        raise ValueError(str(exc)) from None


def _strings(text: str) -> tuple[str, ...]:
    return _csv_record(text.lstrip("\r\n")) if text else ()


def _csv_record(text: str) -> tuple[str, ...]:
    """The first record of encoding/csv. Raises ValueError with its text; columns count from 1."""
    fields, start = [], 0
    while True:
        if text[start : start + 1] == '"':
            quoted = _QUOTED.match(text, start)
            end = quoted.end() if quoted else len(text)
            if quoted is None or text[end : end + 1] not in ("", ",", "\n"):
                column = end if quoted else end + 1
                raise ValueError(f'parse error on line 1, column {column}: extraneous or missing " in quoted-field')
            fields.append(text[start + 1 : end - 1].replace('""', '"'))
        else:
            bare = _BARE.match(text, start)
            end = bare.end() if bare else start
            if '"' in text[start:end]:
                column = text.index('"', start) + 1
                raise ValueError(f'parse error on line 1, column {column}: bare " in non-quoted-field')
            fields.append(text[start:end])
        if text[end : end + 1] != ",":
            return tuple(fields)
        start = end + 1


def _selector(text: str) -> str:
    try:
        LabelSelector.parse(text)
    except SelectorError as exc:
        raise ValueError(str(exc)) from None
    return text


def _klog_boolean(text: str) -> bool:
    """Package flag's, which klog registers with, says less than pflag's."""
    try:
        return _boolean(text)
    except ValueError:
        raise ValueError("parse error") from None


def _unsigned(text: str) -> int:
    try:
        if text[:1] in ("+", "-"):
            raise ValueError
        return _number(text)
    except ValueError as exc:
        raise ValueError("value out of range" if str(exc).endswith("out of range") else "parse error") from None


def _level(text: str) -> int:
    """strconv.ParseInt(text, 10, 32)."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: invalid syntax")
    if not -(2**31) <= int(text) < 2**31:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: value out of range")
    return int(text)


def _severity(text: str) -> int:
    found = _SEVERITIES.get(text.upper())
    return _level(text) if found is None else found


def _trace_location(text: str) -> str:
    file, colon, line = text.partition(":")
    if text and (not colon or "." not in file or not re.fullmatch(r"[+-]?[0-9]+", line)):
        raise ValueError("syntax error: expect file.go:234")
    if text and int(line) <= 0:
        raise ValueError("negative or zero value for level")
    return text


def _module_levels(text: str) -> str:
    for pattern in filter(None, text.split(",")):
        name, _, level = pattern.partition("=")
        try:
            value = _level(level) if name else None
        except ValueError:
            value = None
        if value is None:
            raise ValueError("syntax error: expect comma-separated list of filename=N")
        if value < 0:
            raise ValueError("negative value for vmodule level")
    return text


_PARSERS: dict[str, Callable[[str], Value]] = {
    "string": str,
    "int": _number,
    "bool": _boolean,
    "float32": _decimal,
    "duration": _duration,
    "strings": _strings,
    "selector": _selector,
    "klog-bool": _klog_boolean,
    "uint": _unsigned,
    "Level": _level,
    "severity": _severity,
    "traceLocation": _trace_location,
    "moduleSpec": _module_levels,
}
