"""What is wrong with a text that is not JSON, in the words of Go's encoding/json.

Only failed requests get here, so the scanner is written for its messages, not for speed; texts too long to be worth
a second look get a short answer.
"""

from __future__ import annotations

import re
from typing import Any

from bowsprit.machinery import goformat

_MAX_SCANNED = 256 * 1024
_END = "unexpected end of JSON input"
_SPACE = re.compile(rb"[ \t\r\n]*")
_STRING_RUN = re.compile(rb'[^"\\\x00-\x1f]*')
_DIGITS = re.compile(rb"[0-9]*")
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_HEX = frozenset(b"0123456789abcdefABCDEF")


class _ProblemError(Exception):
    pass


def type_name(value: Any) -> str:
    """The JSON type of a value as Go's messages name it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, dict) else "array"


def problem(data: bytes) -> str:
    """The message for a text that a JSON parser has refused."""
    if len(data) > _MAX_SCANNED:
        return "invalid JSON text"
    try:
        _Scanner(data).document()
    except _ProblemError as error:
        return str(error)
    except RecursionError:
        return "exceeded max depth"
    return "invalid JSON text"


class _Scanner:
    """One pass over a text, stopping at the first byte that Go's scanner would not accept."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    def fail(self, context: str) -> _ProblemError:
        if self.at >= len(self.data):
            return _ProblemError(_END)
        char = chr(self.data[self.at])
        shown = {"'": "'\\''", '"': "'\"'"}.get(char) or "'" + goformat.quote(char)[1:-1] + "'"
        return _ProblemError(f"invalid character {shown} {context}")

    def peek(self) -> int:
        return self.data[self.at] if self.at < len(self.data) else -1

    def skip_space(self) -> int:
        match = _SPACE.match(self.data, self.at)
        self.at = match.end() if match else self.at
        return self.peek()

    def document(self) -> None:
        self.value()
        if self.skip_space() != -1:
            raise self.fail("after top-level value")

    def value(self) -> None:
        char = self.skip_space()
        if char == ord("{"):
            self.object()
        elif char == ord("["):
            self.array()
        elif char == ord('"'):
            self.string()
        elif char == ord("-") or ord("0") <= char <= ord("9"):
            self.number()
        elif char in _LITERALS:
            self.literal(_LITERALS[char])
        else:
            raise self.fail("looking for beginning of value")

    def object(self) -> None:
        self.at += 1
        if self.skip_space() == ord("}"):
            self.at += 1
            return
        while True:
            if self.skip_space() != ord('"'):
                raise self.fail("looking for beginning of object key string")
            self.string()
            if self.skip_space() != ord(":"):
                raise self.fail("after object key")
            self.at += 1
            self.value()
            char = self.skip_space()
            if char not in (ord(","), ord("}")):
                raise self.fail("after object key:value pair")
            self.at += 1
            if char == ord("}"):
                return

    def array(self) -> None:
        self.at += 1
        if self.skip_space() == ord("]"):
            self.at += 1
            return
        while True:
            self.value()
            char = self.skip_space()
            if char not in (ord(","), ord("]")):
                raise self.fail("after array element")
            self.at += 1
            if char == ord("]"):
                return

    def string(self) -> None:
        self.at += 1
        while True:
            match = _STRING_RUN.match(self.data, self.at)
            self.at = match.end() if match else self.at
            char = self.peek()
            if char == ord('"'):
                self.at += 1
                return
            if char != ord("\\"):
                raise self.fail("in string literal")
            self.at += 1
            if self.peek() == ord("u"):
                for _ in range(4):
                    self.at += 1
                    if self.peek() not in _HEX:
                        raise self.fail("in \\u hexadecimal character escape")
            elif self.peek() == -1 or self.peek() not in b'bfnrt\\/"':
                raise self.fail("in string escape code")
            self.at += 1

    def number(self) -> None:
        if self.peek() == ord("-"):
            self.at += 1
        if self.peek() == ord("0"):
            self.at += 1
        else:
            self.digits("in numeric literal")
        if self.peek() == ord("."):
            self.at += 1
            self.digits("after decimal point in numeric literal")
        if self.peek() in (ord("e"), ord("E")):
            self.at += 1
            if self.peek() in (ord("+"), ord("-")):
                self.at += 1
            self.digits("in exponent of numeric literal")

    def digits(self, context: str) -> None:
        match = _DIGITS.match(self.data, self.at)
        if match is None or match.end() == self.at:
            raise self.fail(context)
        self.at = match.end()

    def literal(self, word: bytes) -> None:
        for expected in word:
            if self.peek() != expected:
                raise self.fail(f"in literal {word.decode()} (expecting '{chr(expected)}')")
            self.at += 1
