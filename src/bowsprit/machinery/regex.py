"""Go's regular expressions: RE2, whose time is linear in the text whatever the pattern is, with Go's words for mistakes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol, cast

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False

# What RE2 says -> what Go's regexp/syntax says (ErrorCode).
_GO_WORDS = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
    "trailing \\": "trailing backslash at end of expression",
}


class RegexError(ValueError):
    """A pattern that cannot be used, in Go's words."""


class Found(Protocol):
    """Where a pattern matched."""

    def group(self) -> str:
        """The matched text."""
        ...


class Pattern(Protocol):
    """A compiled pattern."""

    def search(self, text: str) -> Found | None:
        """The first match anywhere in the text."""
        ...

    def finditer(self, text: str) -> Iterator[Found]:
        """All matches that do not overlap."""
        ...


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> Pattern:
    """Raises RegexError."""
    try:
        return cast(Pattern, re2.compile(pattern, _OPTIONS))
    except re2.error as error:
        said = error.args[0].decode(errors="replace")
    words = next((words for words in _GO_WORDS if said.startswith(words)), "")
    if not words:
        words, _, place = said.partition(": ")
    else:
        place = said.removeprefix(words).removeprefix(": ")
    go = _GO_WORDS.get(words, words)
    shown = pattern if words in ("missing )", "unexpected )") else place
    raise RegexError(f"error parsing regexp: {go}: `{shown}`")
