"""Objects as stored bytes: written once, with a hole for the resourceVersion, and joined into lists without decoding.

The bytes begin with kind, apiVersion and metadata, in this order: the items of a built-in kind's list are the stored bytes
without the first two (as upstream answers), which is a cut at a fixed length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import orjson

from bowsprit.apiserver.objectmeta import normalize
from bowsprit.machinery.objects import Obj
from bowsprit.store.protocol import Value

_SORTED = orjson.OPT_SORT_KEYS
SLICE_BYTES = 1 << 20  # a list is written in pieces of this size: one big write costs five times as much


def encode(obj: Obj) -> Value:
    """The object with a hole where its resourceVersion goes (whatever it holds now is ignored)."""
    head, tail = normalize(obj["metadata"])
    first: Obj = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": head}
    rest = {key: value for key, value in obj.items() if key not in first}
    front = orjson.dumps(first)[:-2] + (b',"resourceVersion":"' if head else b'"resourceVersion":"')
    back = b'"'
    if tail:
        back += b"," + orjson.dumps(tail)[1:-1]
    back += b"}"
    if rest:
        back += b"," + orjson.dumps(rest)[1:-1]
    return Value(front, back + b"}")


def encode_untyped(obj: Obj) -> Value:
    """As `encode`, with sorted members, as upstream writes objects without a Go type (custom resources)."""
    head, tail = normalize(obj["metadata"])
    members = head | tail
    before = {key: members[key] for key in members if key < "resourceVersion"}
    after = {key: members[key] for key in members if key > "resourceVersion"}
    front = orjson.dumps({key: value for key, value in obj.items() if key < "metadata"}, option=_SORTED)[:-1]
    front += b',"metadata":' + orjson.dumps(before, option=_SORTED)[:-1] + (b"," if before else b"")
    back = b'"'
    if after:
        back += b"," + orjson.dumps(after, option=_SORTED)[1:-1]
    back += b"}"
    rest = {key: value for key, value in obj.items() if key > "metadata"}
    if rest:
        back += b"," + orjson.dumps(rest, option=_SORTED)[1:-1]
    return Value(front + b'"resourceVersion":"', back + b"}")


def encode_plain(obj: Obj) -> bytes:
    """An object that is answered without being stored (dry run, another version): no hole, the same order of members."""
    head, tail = normalize(obj["metadata"])
    version = obj["metadata"].get("resourceVersion")
    if version:
        head["resourceVersion"] = version
    first: Obj = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": head | tail}
    return orjson.dumps(first | {key: value for key, value in obj.items() if key not in first})


def prefix_length(kind: str, api_version: str) -> int:
    """How many bytes of an encoded object precede its metadata: `{"kind":"K","apiVersion":"V",`."""
    return len(orjson.dumps({"kind": kind, "apiVersion": api_version}))


def list_head(
    kind: str, api_version: str, revision: int, token: str = "", remaining: int | None = None, *, untyped: bool = False
) -> bytes:
    """The beginning of a list up to its items' opening bracket. `untyped`: as upstream writes custom resources' lists."""
    metadata: Obj = {"resourceVersion": str(revision)} if revision else {}
    if token or untyped:
        metadata["continue"] = token
    if remaining is not None:
        metadata["remainingItemCount"] = remaining
    front = orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": metadata})
    return front[:-1] + b',"items":['


def list_chunks(head: bytes, values: Sequence[bytes], cut: int) -> Iterator[bytes]:
    """The list in slices. `cut` is how much of each value is left out in favour of one "{"; 0 takes values as they are."""
    if not values:
        yield head + b"]}\n"
        return
    opening = b"{" if cut else b""
    separator = b"," + opening
    for number, piece in enumerate(_slices(values)):
        body = separator.join([value[cut:] for value in piece] if cut else piece)
        yield (head + opening if number == 0 else separator) + body
    yield b"]}\n"


def list_length(head: bytes, values: Sequence[bytes], cut: int) -> int:
    """How many bytes `list_chunks` gives."""
    if not values:
        return len(head) + 3
    per_item = 1 + (1 - cut if cut else 0)
    return len(head) + sum(map(len, values)) + per_item * len(values) - 1 + 3


def _slices(values: Iterable[bytes]) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    size = 0
    for value in values:
        piece.append(value)
        size += len(value)
        if size >= SLICE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
