"""Go's regular expressions (RE2 syntax) as Python's: the few differences that schemas meet are translated."""

from __future__ import annotations

import re
from functools import lru_cache

_POSIX = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7F",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_TOKEN = re.compile(r"\\.|\[\[:(\^?)([a-z]+):\]|\[:(\^?)([a-z]+):\]|\[\^?\]?|\]|\$|\(\?[imsU-]+\)|.", re.S)


class RegexError(ValueError):
    """A pattern that cannot be used, with Go's text where it is a usual one."""


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A Go pattern, to be used with `search`. Raises RegexError."""
    try:
        return re.compile(_translated(pattern), re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise RegexError(f"error parsing regexp: {_go_problem(pattern, str(error))}") from None


def _translated(pattern: str) -> str:
    out: list[str] = []
    in_class = False
    for match in _TOKEN.finditer(pattern):
        piece = match.group()
        if piece == r"\z":
            piece = r"\Z"
        elif piece == "$" and not in_class:
            piece = r"\Z"  # Python's $ also matches before a final newline
        elif in_class and piece.startswith("[:") and match.group(4) in _POSIX:
            piece = _POSIX[match.group(4)]
        elif not in_class and piece.startswith("[[:") and match.group(2) in _POSIX:
            piece = ("[^" if match.group(1) else "[") + _POSIX[match.group(2)]
            in_class = True
        elif not in_class and piece.startswith("["):
            in_class = True
        elif in_class and piece == "]":
            in_class = False
        elif in_class and piece == "[":
            piece = r"\["
        out.append(piece)
    return "".join(out)


def _go_problem(pattern: str, problem: str) -> str:
    if "unterminated character set" in problem:
        return f"missing closing ]: `{pattern[pattern.rfind('[') :]}`"
    if "missing ), unterminated" in problem:
        return f"missing closing ): `{pattern}`"
    if "unbalanced parenthesis" in problem:
        return f"unexpected ): `{pattern}`"
    if "nothing to repeat" in problem:
        return "missing argument to repetition operator: `*`"
    if "bad escape" in problem:
        return f"invalid escape sequence: `{problem.split()[2]}`"
    return f"{problem}: `{pattern}`"
