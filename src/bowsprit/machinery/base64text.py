"""Base64 as Go reads and writes it in JSON."""

from __future__ import annotations

import base64
import re

from bowsprit.machinery.decodeerror import DecodeError

_DIGITS = re.compile(r"[A-Za-z0-9+/]*")
_TEXT = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


class Base64Error(DecodeError):
    """A text that Go's decoder refuses."""


def canonical_base64(text: str) -> str:
    """Base64 as Go writes it; newlines are skipped. Raises Base64Error as Go's decoder does."""
    stripped = text.replace("\n", "").replace("\r", "")
    if not _TEXT.fullmatch(stripped):
        raise Base64Error(f"illegal base64 data at input byte {_wrong_byte(text)}")
    return base64.b64encode(base64.b64decode(stripped)).decode()


def _wrong_byte(text: str) -> int:
    """Where Go's decoder stops; it counts bytes, the newlines among them."""
    data = text.encode()
    at = [index for index, byte in enumerate(data) if byte not in b"\r\n"]
    plain = bytes(data[index] for index in at)
    match = _DIGITS.match(plain.decode("latin-1"))
    good = match.end() if match else 0
    rest, end = plain[good:], len(data)
    if not rest:  # it ends in the middle of a group
        return end - good % 4
    if rest[:1] != b"=" or good % 4 < 2:
        return at[good]
    if good % 4 == 3:
        return at[good + 1] if len(rest) > 1 else end
    if len(rest) == 1:
        return end
    if rest[1:2] != b"=":
        return at[good + 1] - 1
    return at[good + 2] if len(rest) > 2 else end
