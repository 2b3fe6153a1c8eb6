"""JSON and YAML to Python values and back, with the reading rules and the error texts of upstream's decoders.

JSON (sigs.k8s.io/json): names are case sensitive, the last of two equal keys wins (strict decoding tells the first),
integers beyond 64 bits become floats. YAML (sigs.k8s.io/yaml) is YAML 1.1 as go-yaml v2 reads it: `y`, `on` and `yes` are
booleans, `0777` is octal, timestamps stay strings, merge keys work, and the result is what its JSON form would be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import orjson

from bowsprit.machinery import jsonsyntax
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.yamlcodec import decode_yaml, decode_yaml_all, decode_yaml_strict, encode_yaml

__all__ = [
    "MAX_DEPTH",
    "DecodeError",
    "Pairs",
    "decode_json",
    "decode_json_pairs",
    "decode_json_strict",
    "decode_yaml",
    "decode_yaml_all",
    "decode_yaml_strict",
    "duplicate_fields",
    "encode_json",
    "encode_yaml",
]

MAX_DEPTH = 250
"""Deepest nesting that is accepted. Whoever walks an object recursively may rely on it."""

_HUGE = re.compile(rb"[0-9]{19}")  # long enough to be beyond 64 bits

_MAX_STRICT_ERRORS = 100  # as upstream: a hostile body must not make an endless message


class Pairs(list[tuple[str, Any]]):
    """A JSON object as its members in the order of the text, with repeated keys still there."""


def encode_json(value: Any) -> bytes:
    """Compact JSON in insertion order."""
    return orjson.dumps(value)


def decode_json(data: bytes) -> Any:
    """Read one JSON value; raises DecodeError with Go's text."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        value = _decode_leniently(data, None)
    _check_depth(data, value)
    return _rounded(value) if _HUGE.search(data) else value


def decode_json_strict(data: bytes) -> tuple[Any, list[str]]:
    """Read one JSON value and list its repeated keys: `duplicate field "data.a"`, in the order of the text."""
    value = decode_json(data)
    pairs = _pairs_if_duplicates(data, value)
    return value, ([] if pairs is None else duplicate_fields(pairs))


def decode_json_pairs(data: bytes, value: Any) -> Any:
    """The text of `value` with its objects as Pairs when keys repeat; `value` itself when none does (the usual, fast case)."""
    pairs = _pairs_if_duplicates(data, value)
    return value if pairs is None else pairs


def duplicate_fields(tree: Any) -> list[str]:
    """Messages for the repeated keys of a tree of Pairs."""
    return list(dict.fromkeys(_duplicates(tree, "")))[:_MAX_STRICT_ERRORS]


def _duplicates(node: Any, where: str) -> Iterator[str]:
    if isinstance(node, Pairs):
        seen: set[str] = set()
        for key, child in node:
            path = f"{where}.{key}" if where else key
            if key in seen:
                yield f'duplicate field "{path}"'
            seen.add(key)
            yield from _duplicates(child, path)
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from _duplicates(child, f"{where}[{index}]")


def _pairs_if_duplicates(data: bytes, value: Any) -> Any:
    # A repeated key is lost in `value`, so a text equal to the encoded value has none. Most clients send such text.
    if isinstance(value, (dict, list)) and orjson.dumps(value) != data.strip():
        found = False

        def keep_pairs(pairs: list[tuple[str, Any]]) -> Pairs:
            nonlocal found
            found = found or len(dict(pairs)) != len(pairs)
            return Pairs(pairs)

        tree = _decode_leniently(data, keep_pairs)
        if found:
            return tree
    return None


def _decode_leniently(data: bytes, pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None) -> Any:
    """Read what orjson refuses but Go accepts (broken UTF-8, lone surrogates); or raise with Go's text."""
    try:
        text = data.decode("utf-8", "replace")
        value = json.loads(text, object_pairs_hook=pairs_hook, parse_constant=_refuse_constant, parse_int=_parse_int)
    except RecursionError:
        raise DecodeError("exceeded max depth") from None
    except ValueError:
        raise DecodeError(jsonsyntax.problem(data)) from None
    return _without_surrogates(value) if "\\ud" in text or "\\uD" in text else value


def _refuse_constant(text: str) -> Any:
    raise ValueError(text)  # NaN and Infinity are no JSON


def _parse_int(text: str) -> int | float:
    if len(text) < 19:
        return int(text)
    if len(text) > 400:
        raise ValueError("number out of range")
    number = int(text)
    return number if -(2**63) <= number < 2**64 else float(number)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Pairs):
        return Pairs((_without_surrogates(key), _without_surrogates(child)) for key, child in value)
    if isinstance(value, list):
        return [_without_surrogates(child) for child in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(child) for key, child in value.items()}
    return value


def _rounded(value: Any) -> Any:
    """Integers beyond int64 are floats in Go, which writes them as the shortest digits with zeros after."""
    if isinstance(value, dict):
        return {key: _rounded(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_rounded(child) for child in value]
    if type(value) is int and not -(2**63) <= value < 2**63:
        digits = int(Decimal(repr(float(value))))
        return digits if -(2**63) <= digits < 2**64 else float(value)
    return value


def _check_depth(data: bytes, value: Any) -> None:
    if data.count(b"{") + data.count(b"[") <= MAX_DEPTH:
        return
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for node in level:
            children = node.values() if isinstance(node, dict) else node
            below.extend(child for child in children if isinstance(child, (dict, list)))
        if not below:
            return
        level = below
    raise DecodeError("exceeded max depth")


def decode_object(data: bytes) -> Obj:
    """Read a JSON object; anything else is a DecodeError."""
    value = decode_json(data)
    if not isinstance(value, dict):
        raise DecodeError(
            f"json: cannot unmarshal {jsonsyntax.type_name(value)} into Go value of type map[string]interface {{}}"
        )
    return value
