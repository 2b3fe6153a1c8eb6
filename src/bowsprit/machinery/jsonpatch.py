"""JSON patch (RFC 6902) with the habits of the library that upstream uses (evanphx/json-patch v4).

Clients see these: replacing or copying an absent member of an object works (copy gives null), indexes may be negative,
whatever stands before the first slash of a path is ignored, and `test` takes an absent member for null.
"""

from __future__ import annotations

import re
from typing import Any

from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.jsonsyntax import type_name
from bowsprit.machinery.objects import Obj, deep_copy

MAX_OPERATIONS = 10_000
"""Longer patches are refused by the server with 413."""

_MEMBERS = frozenset({"op", "path", "from", "value"})
_INDEX = re.compile(r"[+-]?[0-9]+", re.ASCII)


class JSONPatchError(ValueError):
    """A patch that cannot be applied, with the library's text."""


def check(operations: Any) -> list[Obj]:
    """The operations of a decoded patch body. Raises DecodeError with the text that follows `error decoding patch: `."""
    if not isinstance(operations, list):
        raise DecodeError(
            f"json: cannot unmarshal {type_name(operations)} into Go value of type []handlers.jsonPatchOp"
        )
    for operation in operations:
        if not isinstance(operation, dict):
            raise DecodeError(
                f"json: cannot unmarshal {type_name(operation)} into Go value of type handlers.jsonPatchOp"
            )
    return operations


def unknown_fields(operations: list[Obj]) -> list[str]:
    """What strict decoding says about members that no operation has: `json patch unknown field "[0].foo"`."""
    return [
        f'json patch unknown field "[{index}].{key}"'
        for index, operation in enumerate(operations)
        for key in operation
        if key not in _MEMBERS
    ]


def apply(document: Any, operations: list[Obj]) -> Any:
    """The patched document; the arguments are not changed. Raises JSONPatchError."""
    root = deep_copy(document)
    for operation in operations:
        kind = operation.get("op")
        path = operation.get("path")
        if not isinstance(path, str):
            raise JSONPatchError(f"{kind} operation: missing path field")
        if kind == "add":
            _add(root, path, deep_copy(operation.get("value")), "add")
        elif kind == "remove":
            _remove(root, path, "remove")
        elif kind == "replace":
            root = _replace(root, path, deep_copy(operation.get("value")))
        elif kind == "move":
            value = _read(root, _from(operation, "move"), "move")
            _remove(root, operation["from"], "move")
            _add(root, path, value, "move")
        elif kind == "copy":
            _add(root, path, deep_copy(_read(root, _from(operation, "copy"), "copy")), "copy")
        elif kind == "test":
            _test(root, path, operation.get("value"))
        else:
            raise JSONPatchError(f"Unexpected kind: {kind}")
    return root


def _from(operation: Obj, kind: str) -> str:
    source = operation.get("from")
    if not isinstance(source, str):
        raise JSONPatchError(f"{kind} operation: missing from field")
    return source


def _locate(root: Any, path: str, kind: str) -> tuple[Any, str]:
    """The container and the last token of a path."""
    first, *tokens = path.split("/")
    del first
    if not tokens:
        raise JSONPatchError(f"{kind} operation does not apply: doc is missing path: {quote(path)}: missing value")
    tokens = [token.replace("~1", "/").replace("~0", "~") for token in tokens]
    node = root
    for token in tokens[:-1]:
        try:
            node = _get(node, token) if isinstance(node, (dict, list)) else None
        except JSONPatchError:
            node = None
        if not isinstance(node, (dict, list)):
            raise JSONPatchError(f"{kind} operation does not apply: doc is missing path: {quote(path)}: missing value")
    return node, tokens[-1]


def _index(container: list[Any], token: str, limit: int, kind: str) -> int:
    """A position below `limit`; negative ones count from the end."""
    if not _INDEX.fullmatch(token):
        raise JSONPatchError(f"strconv.Atoi: parsing {quote(token)}: invalid syntax")
    index = int(token[:20])
    if index < 0:
        index += limit
    if not 0 <= index < limit:
        raise JSONPatchError(
            f"error in {kind} for path: Unable to access invalid index: {token}: invalid index referenced"
        )
    return index


def _get(container: Any, token: str) -> Any:
    if isinstance(container, dict):
        return container.get(token)
    return container[_index(container, token, len(container), "get")]


def _read(root: Any, path: str, kind: str) -> Any:
    container, token = _locate(root, path, kind)
    return _get(container, token)


def _add(root: Any, path: str, value: Any, kind: str) -> None:
    container, token = _locate(root, path, kind)
    if isinstance(container, dict):
        container[token] = value
    elif token == "-":  # noqa: S105
        container.append(value)
    else:
        container.insert(_index(container, token, len(container) + 1, kind), value)


def _remove(root: Any, path: str, kind: str) -> None:
    container, token = _locate(root, path, kind)
    if isinstance(container, list):
        del container[_index(container, token, len(container), kind)]
    elif token in container:
        del container[token]
    else:
        raise JSONPatchError(
            f"error in {kind} for path: '{path}': Unable to remove nonexistent key: {token}: missing value"
        )


def _replace(root: Any, path: str, value: Any) -> Any:
    if path == "":
        if not isinstance(value, (dict, list)):
            raise JSONPatchError("replace operation hit an unexpected case")
        return value
    container, token = _locate(root, path, "replace")
    if isinstance(container, dict):
        container[token] = value
    else:
        container[_index(container, token, len(container), "replace")] = value
    return root


def _test(root: Any, path: str, expected: Any) -> None:
    actual = root if path == "" else _read(root, path, "test")
    if not equal(actual, expected):
        raise JSONPatchError(f"testing value {path} failed: test failed")


def equal(left: Any, right: Any) -> bool:
    """Whether two JSON values are the same; `true` is not 1, and as texts are compared, 1.0 is not either."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, float) is not isinstance(right, float):
        return False
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(value, right[key]) for key, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)
