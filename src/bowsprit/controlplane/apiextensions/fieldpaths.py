"""Paths to fields of a schema, as selectable fields and rules name them: ``.spec.color``, ``.data['a.b']``.

Upstream: k8s.io/apiextensions-apiserver pkg/apiserver/schema/cel (ValidFieldPath).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from bowsprit.machinery.objects import Obj

_TOKEN = re.compile(r"[.\[\]]|'(?:[^'\\]|\\.)*'|[^.\[\]]+")


class FieldPathError(ValueError):
    """A path that leads nowhere."""


def follow(text: str, schema: Obj, *, arrays: bool) -> tuple[tuple[str, ...], Obj]:
    """The steps of a path and the schema that it leads to.

    Args:
        text: the path.
        schema: where it begins.
        arrays: whether ``['name']`` may stand for ``.name``.

    Raises:
        FieldPathError: the path is malformed, or there is no such field.
    """
    tokens = iter(_TOKEN.findall(text))
    steps: list[str] = []
    for token in tokens:
        if token == "[":  # noqa: S105 a bracket, no secret
            if not arrays:
                raise FieldPathError("array notation is not allowed")
            quoted = _next(tokens)
            if len(quoted) < 2 or quoted[0] != "'" or quoted[-1] != "'":
                raise FieldPathError(f"expected single quoted string but got {quoted}")
            name = re.sub(r"\\(.)", r"\1", quoted[1:-1])
        elif token == ".":  # noqa: S105
            name = _next(tokens)
        else:
            raise FieldPathError(f"expected [ or . but got: {token}")
        schema = _step(schema, name)
        steps.append(name)
        if token == "[" and (closing := _next(tokens)) != "]":  # noqa: S105
            raise FieldPathError(f"expected ] but got {closing}")
    return tuple(steps), schema


def _next(tokens: Iterator[str]) -> str:
    token = next(tokens, None)
    if token is None:
        raise FieldPathError("unexpected end of JSON path")
    return token


def _step(schema: Obj, name: str) -> Obj:
    if schema.get("properties"):
        found = schema["properties"].get(name)
    else:
        found = schema.get("additionalProperties")
    if not isinstance(found, dict):
        raise FieldPathError("does not refer to a valid field")
    return found
