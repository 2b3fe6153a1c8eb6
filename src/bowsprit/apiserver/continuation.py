"""Continue tokens of paged lists (upstream storage/continue.go): base64 of {"v", "rv", "start"}."""

from __future__ import annotations

import base64
import binascii
import posixpath
from typing import Any

from bowsprit.machinery.codec import DecodeError, decode_json, encode_json
from bowsprit.machinery.errors import ExpiredError, bad_request
from bowsprit.machinery.objects import Obj

_VERSION = "meta.k8s.io/v1"
INCONSISTENT = -1  # revision of a token that continues at whatever is current


class ExpiredTokenError(ExpiredError):
    """410 for a token whose revision is gone; the status carries a token that continues inconsistently."""

    def __init__(self, token: str) -> None:
        super().__init__(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
            "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
            "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
            "deleted between the time the first chunk was returned and now may show up in the list."
        )
        self._token = token

    def to_status(self) -> Obj:
        return {**super().to_status(), "metadata": {"continue": self._token}}


def encode_token(revision: int, prefix: str, key: str) -> str:
    """A token for the keys behind `key`, which begins with `prefix` (ending in a slash)."""
    start = key[len(prefix) - 1 :] + "\x00"
    data = encode_json({"v": _VERSION, "rv": revision, "start": start})
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_token(token: str, prefix: str) -> tuple[int, str]:
    """(revision, the key to continue behind). Raises 400."""
    try:
        data = _decode_base64(token)
        value: Any = decode_json(data)
    except DecodeError as failure:
        raise _invalid(str(failure)) from None
    if not isinstance(value, dict):
        raise _invalid("json: cannot unmarshal into Go value of type storage.continueToken")
    version, revision, start = value.get("v", ""), value.get("rv", 0), value.get("start", "")
    if version != _VERSION:
        raise _invalid(f"server does not recognize this encoded version {version}")
    if not isinstance(revision, int) or revision == 0:
        raise _invalid(f"incorrect encoded start resourceVersion (version {_VERSION})")
    if not isinstance(start, str) or not start:
        raise _invalid(f"encoded start key empty (version {_VERSION})")
    key = start if start.startswith("/") else "/" + start
    # A token is the client's: it must not lead out of the collection.
    if posixpath.normpath(key) != key:
        raise _invalid(start)
    return revision, prefix + key[1:].removesuffix("\x00")


def _invalid(text: str) -> Exception:
    return bad_request(f"invalid continue token: continue key is not valid: {text}")


def _decode_base64(token: str) -> bytes:
    if len(token) > 4096:
        raise _invalid("token too long")
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        position = next((at for at, char in enumerate(token) if not (char.isalnum() or char in "-_")), len(token))
        raise _invalid(f"illegal base64 data at input byte {position}") from None
