"""JSONPath as custom resources use it: printer columns, selectable fields, scale paths.

The subset of k8s.io/client-go/util/jsonpath that finds values: members (`.a`, `['a.b']`), indexes, slices, `[*]`, `..`,
unions (`[0,1]`) and filters (`[?(@.type=="Ready")]`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from bowsprit.machinery.objects import Obj

Step = Callable[[Any], Iterable[Any]]
"""From one value to the values that a part of the path finds in it."""

_NAME = re.compile(r"\.((?:[^\s.\[\]()'\"?@{}=<>!,:*\\]|\\.)+)")
_QUOTED = re.compile(r"'((?:\\.|[^'\\])*)'|\"((?:\\.|[^\"\\])*)\"")
_SLICE = re.compile(r"(-?\d+)?(?:(:)(-?\d+)?(?::(-?\d+))?)?")
_FILTER = re.compile(r"\?\(\s*@(?P<path>[^=<>!]*?)\s*(?:(?P<operator>==|!=|<=|>=|<|>)\s*(?P<literal>.+?)\s*)?\)", re.S)
_SIMPLE = re.compile(r"(\.[A-Za-z_$][\w$-]*)+", re.ASCII)


class JSONPathError(ValueError):
    """A path that cannot be understood."""


@dataclass(frozen=True, slots=True)
class JSONPath:
    """A parsed path."""

    text: str
    _steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> JSONPath:
        """Read `.spec.replicas`, with or without braces around it. Raises JSONPathError."""
        return _parse(text)

    def find(self, obj: Any) -> list[Any]:
        """All values at the path, none if a step is missing."""
        found = [obj]
        for step in self._steps:
            found = [value for item in found for value in step(item)]
        return found

    def first(self, obj: Any, default: Any = None) -> Any:
        found = self.find(obj)
        return found[0] if found else default


def is_simple(text: str) -> bool:
    """Whether a path only walks through members (what scale and selectable fields allow)."""
    return _SIMPLE.fullmatch(text) is not None


def value_text(value: Any) -> str:
    """A value as columns of type string print it: text as is, everything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


@lru_cache(maxsize=1024)
def _parse(text: str) -> JSONPath:
    body = text.strip()
    if body.startswith("{") and body.endswith("}"):
        body = body[1:-1].strip()
    body = body.removeprefix("$").removeprefix("@")
    steps: list[Step] = []
    at = 0
    while at < len(body):
        if body.startswith("..", at):
            steps.append(_descend)
            at += 1 if at + 2 < len(body) and body[at + 2] != "[" else 2
        elif body.startswith("[", at):
            end = _closing(body, at, text)
            steps.append(_bracket(body[at + 1 : end].strip(), text))
            at = end + 1
        elif body.startswith(".*", at):
            steps.append(_children)
            at += 2
        elif body == ".":
            at += 1
        else:
            match = _NAME.match(body, at)
            if match is None:
                raise JSONPathError(f"unrecognized character in path {text!r} at {body[at:]!r}")
            steps.append(_member(match.group(1).replace("\\.", ".")))
            at = match.end()
    return JSONPath(text, tuple(steps))


def _closing(body: str, at: int, text: str) -> int:
    """Where a bracket ends, quotes and inner brackets passed over."""
    depth = 0
    while at < len(body):
        quoted = _QUOTED.match(body, at) if body[at] in "'\"" else None
        if quoted:
            at = quoted.end()
            continue
        depth += {"[": 1, "]": -1}.get(body[at], 0)
        if depth == 0:
            return at
        at += 1
    raise JSONPathError(f"unterminated array in path {text!r}")


def _bracket(inside: str, text: str) -> Step:
    if inside == "*":
        return _children
    match = _FILTER.fullmatch(inside)
    if match:
        return _filter(match)
    parts = [part.strip() for part in inside.split(",")] if "'" not in inside and '"' not in inside else [inside]
    steps = [_subscript(part, text) for part in parts]
    return steps[0] if len(steps) == 1 else _union(steps)


def _subscript(part: str, text: str) -> Step:
    quoted = _QUOTED.fullmatch(part)
    if quoted:
        return _member(re.sub(r"\\(.)", r"\1", quoted.group(1) if quoted.group(1) is not None else quoted.group(2)))
    match = _SLICE.fullmatch(part)
    if match is None or not part:
        raise JSONPathError(f"invalid array index {part!r} in path {text!r}")
    start, colon, stop, step = match.groups()
    if not colon:
        return _index(int(start))
    return _slice(*(int(number) if number else None for number in (start, stop, step)))


def _member(name: str) -> Step:
    def step(value: Any) -> Iterable[Any]:
        return (value[name],) if isinstance(value, dict) and name in value else ()

    return step


def _index(position: int) -> Step:
    def step(value: Any) -> Iterable[Any]:
        inside = isinstance(value, list) and -len(value) <= position < len(value)
        return (value[position],) if inside else ()

    return step


def _slice(start: int | None, stop: int | None, stride: int | None) -> Step:
    def step(value: Any) -> Iterable[Any]:
        return value[start:stop:stride] if isinstance(value, list) and stride != 0 else ()

    return step


def _union(steps: list[Step]) -> Step:
    return lambda value: [found for step in steps for found in step(value)]


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [value[key] for key in sorted(value)]
    return value if isinstance(value, list) else ()


def _descend(value: Any) -> Iterator[Any]:
    yield value
    for child in _children(value):
        yield from _descend(child)


def _filter(match: re.Match[str]) -> Step:
    path = _parse(match.group("path").strip() or ".")
    operator, literal = match.group("operator"), match.group("literal")
    wanted = None if literal is None else _literal(literal)

    def keeps(item: Any) -> bool:
        found = path.find(item)
        if operator is None:
            return bool(found)
        return bool(found) and _compare(found[0], operator, wanted)

    return lambda value: [item for item in _children(value) if keeps(item)]


def _literal(text: str) -> Any:
    quoted = _QUOTED.fullmatch(text)
    if quoted:
        return quoted.group(1) if quoted.group(1) is not None else quoted.group(2)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise JSONPathError(f"unrecognized value {text!r} in a filter") from None


def _compare(left: Any, operator: str, right: Any) -> bool:
    if operator in ("==", "!="):
        same = left == right and isinstance(left, bool) == isinstance(right, bool)
        return same is (operator == "==")
    numbers = isinstance(left, (int, float)) and isinstance(right, (int, float))
    if not numbers and not (isinstance(left, str) and isinstance(right, str)):
        return False
    results: dict[str, bool] = {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}
    return results[operator]


def set_simple(obj: Obj, text: str, value: Any) -> None:
    """Put a value at a simple path, creating the objects on the way (the scale subresource's replicas)."""
    *parents, last = text.strip(".").split(".")
    for name in parents:
        child = obj.get(name)
        if not isinstance(child, dict):
            child = obj[name] = {}
        obj = child
    obj[last] = value
