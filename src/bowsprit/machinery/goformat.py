"""Values as Go prints them, for messages that clients and people compare with upstream's.

quote is `%q`, value is `%v`, json_text is encoding/json's Marshal (which escapes `<`, `>` and `&`).
"""

from __future__ import annotations

import math
from typing import Any

import orjson

_SHORT_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}
_HTML_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def _quote_character(char: str) -> str:
    short = _SHORT_ESCAPES.get(char)
    if short:
        return short
    if char == " " or char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xD800 <= code < 0xE000:  # a lone surrogate cannot be a Go rune
        return "\\ufffd"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote(text: str) -> str:
    """`strconv.Quote`."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(map(_quote_character, text)) + '"'


def float_text(number: float) -> str:
    """A float64 under `%v`: the shortest digits, in exponent form below 1e-04 and from 1e+06 on (strconv's shortest %g)."""
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    sign = "-" if str(number).startswith("-") else ""
    digits, exponent = _shortest(abs(number))
    if exponent < -4 or exponent >= 6:
        mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"
    if exponent < 0:
        return sign + "0." + "0" * (-exponent - 1) + digits
    if len(digits) <= exponent + 1:
        return sign + digits + "0" * (exponent + 1 - len(digits))
    return sign + digits[: exponent + 1] + "." + digits[exponent + 1 :]


def _shortest(number: float) -> tuple[str, int]:
    """The shortest decimal digits that read back as the number, and the exponent of the first."""
    mantissa, _, exponent_text = repr(number).partition("e")
    whole, _, fraction = mantissa.partition(".")
    exponent = int(exponent_text or 0) + len(whole) - 1
    digits = (whole + fraction).rstrip("0")
    stripped = digits.lstrip("0")
    if not stripped:
        return "0", 0
    return stripped, exponent - (len(digits) - len(stripped))


def value(item: Any) -> str:
    """A JSON value under `%v`: `map[a:1 b:[x y]]`, keys sorted; nil is `<nil>`."""
    if item is None:
        return "<nil>"
    if item is True:
        return "true"
    if item is False:
        return "false"
    if isinstance(item, float):
        return float_text(item)
    if isinstance(item, dict):
        return "map[" + " ".join(f"{key}:{value(item[key])}" for key in sorted(item)) + "]"
    if isinstance(item, (list, tuple)):
        return "[" + " ".join(map(value, item)) + "]"
    return str(item)


def syntax(item: Any) -> str:
    """A JSON value under `%#v`."""
    if isinstance(item, str):
        return quote(item)
    if isinstance(item, dict):
        members = ", ".join(f"{quote(key)}:{syntax(item[key])}" for key in sorted(item))
        return f"map[string]interface {{}}{{{members}}}"
    if isinstance(item, (list, tuple)):
        return f"[]interface {{}}{{{', '.join(map(syntax, item))}}}"
    return value(item)


def json_text(item: Any, *, sort_keys: bool = False) -> str:
    """`json.Marshal`: compact and HTML-escaped. Go sorts the keys of maps, not the fields of structs: say which it is."""
    data = orjson.dumps(item, option=orjson.OPT_SORT_KEYS if sort_keys else 0)
    for plain, escaped in _HTML_ESCAPES:
        if plain in data:
            data = data.replace(plain, escaped)
    return data.decode()
