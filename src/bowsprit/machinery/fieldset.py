"""Sets of field paths: who owns which fields of an object (metav1.FieldsV1).

A path is a sequence of elements in their FieldsV1 spelling: `f:name` a member, `k:{"name":"a"}` the item of a list with
these keys, `v:"x"` the member of a set, `i:0` an index. A set holds paths; a parent may be in it or not, whatever its
children are. Contract: sigs.k8s.io/structured-merge-diff, fieldpath.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson

from bowsprit.machinery import goformat
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.objects import Obj

Path = tuple[str, ...]

_MAX_DEPTH = 250


def field_element(name: str) -> str:
    return f"f:{name}"


def key_element(keys: Mapping[str, Any]) -> str:
    return "k:" + orjson.dumps(dict(sorted(keys.items()))).decode()


def value_element(value: Any) -> str:
    return "v:" + orjson.dumps(value).decode()


def path_text(path: Path) -> str:
    """A path as messages show it: `.spec.ports[port=80,protocol="TCP"].name`."""
    return "".join(map(element_text, path))


def element_text(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "i:":
        return f"[{text}]"
    value = orjson.loads(text)
    if kind == "v:":
        return f"[={_scalar_text(value)}]"
    return "[" + ",".join(f"{name}={_scalar_text(item)}" for name, item in sorted(value.items())) + "]"


def _scalar_text(value: Any) -> str:
    return goformat.quote(value) if isinstance(value, str) else goformat.json_text(value)


def _order(element: str) -> tuple[int, str]:
    return "fkvi".index(element[0]), element


class FieldSet:
    """A set of paths as a tree. Operations return new sets; sets are not changed once they are shared."""

    __slots__ = ("children", "members")

    def __init__(self, members: Iterable[str] = (), children: Mapping[str, FieldSet] | None = None):
        self.members: set[str] = set(members)
        self.children: dict[str, FieldSet] = dict(children or {})

    @classmethod
    def of(cls, *paths: Path) -> FieldSet:
        result = cls()
        for path in paths:
            result.insert(path)
        return result

    def insert(self, path: Path) -> None:
        """Add one path in place (the empty path is not a field)."""
        if path:
            self._parent(path).members.add(path[-1])

    def _parent(self, path: Path) -> FieldSet:
        node = self
        for element in path[:-1]:
            below = node.children.get(element)
            if below is None:
                below = node.children[element] = FieldSet()
            node = below
        return node

    def graft(self, path: Path, below: FieldSet | None) -> None:
        """Add one path in place, and all paths of a set below it."""
        node = self._parent(path)
        node.members.add(path[-1])
        if below is not None:
            node.children[path[-1]] = below

    def has(self, path: Path) -> bool:
        node = self
        for element in path[:-1]:
            if element not in node.children:
                return False
            node = node.children[element]
        return bool(path) and path[-1] in node.members

    def below(self, element: str) -> FieldSet:
        return self.children.get(element, EMPTY)

    def is_empty(self) -> bool:
        return not self.members and all(child.is_empty() for child in self.children.values())

    def paths(self, prefix: Path = ()) -> Iterator[Path]:
        """All paths in upstream's order: what is a member here comes before what is below."""
        for element in sorted(self.members, key=_order):
            yield (*prefix, element)
        for element in sorted(self.children, key=_order):
            yield from self.children[element].paths((*prefix, element))

    def union(self, other: FieldSet) -> FieldSet:
        children = dict(self.children)
        for element, child in other.children.items():
            children[element] = children[element].union(child) if element in children else child
        return FieldSet(self.members | other.members, children)

    def difference(self, other: FieldSet) -> FieldSet:
        """The paths of this set that the other has not; a parent in the other leaves the children alone."""
        children = {}
        for element, child in self.children.items():
            left = child.difference(other.children[element]) if element in other.children else child
            if not left.is_empty():
                children[element] = left
        return FieldSet(self.members - other.members, children)

    def recursive_difference(self, other: FieldSet) -> FieldSet:
        """Same, but a path in the other takes all its children with it."""
        children = {}
        for element, child in self.children.items():
            if element in other.members:
                continue
            left = child.recursive_difference(other.children[element]) if element in other.children else child
            if not left.is_empty():
                children[element] = left
        return FieldSet(self.members - other.members, children)

    def intersection(self, other: FieldSet) -> FieldSet:
        children = {}
        for element, child in self.children.items():
            if element in other.children:
                both = child.intersection(other.children[element])
                if not both.is_empty():
                    children[element] = both
        return FieldSet(self.members & other.members, children)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FieldSet) and list(self.paths()) == list(other.paths())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"FieldSet({', '.join(map(path_text, self.paths()))})"

    # -- FieldsV1 --------------------------------------------------------------------------------------------------

    def to_obj(self) -> Obj:
        """The FieldsV1 form: a member without children is `{}`, one with children has the entry `.`."""
        result: Obj = {}
        for element in sorted(self.members | self.children.keys(), key=_order):
            child = self.children.get(element)
            below = {} if child is None else child.to_obj()
            if not below:
                if element in self.members:
                    result[element] = {}
            elif element in self.members:
                result[element] = {".": {}, **below}
            else:
                result[element] = below
        return result

    @classmethod
    def from_obj(cls, fields: Any, depth: int = 0) -> FieldSet:
        """Read FieldsV1. Raises DecodeError."""
        if not isinstance(fields, dict) or depth > _MAX_DEPTH:
            raise DecodeError("fieldsV1: expected an object")
        result = cls()
        for element, below in fields.items():
            if element == ".":
                continue
            element = _canonical(element)
            child = cls.from_obj(below, depth + 1)
            if not below or "." in below:
                result.members.add(element)
            if child.members or child.children:
                result.children[element] = child
        return result


EMPTY = FieldSet()
_CACHED_LENGTH = 256
_NUMBER = re.compile(r"i:-?[0-9]+", re.ASCII)


def _canonical(element: str) -> str:
    """An element in our spelling, whatever the spacing and order of its JSON. Raises DecodeError."""
    if element.startswith("f:"):
        return element
    return _canonical_item(element) if len(element) <= _CACHED_LENGTH else _canonical_item.__wrapped__(element)


@lru_cache(maxsize=4096)
def _canonical_item(element: str) -> str:
    kind, text = element[:2], element[2:]
    try:
        if _NUMBER.fullmatch(element):
            return element
        if kind == "k:":
            keys = orjson.loads(text)
            if isinstance(keys, dict) and keys:
                return key_element(keys)
        if kind == "v:":
            return value_element(orjson.loads(text))
    except orjson.JSONDecodeError:
        pass
    raise DecodeError(f"fieldsV1: invalid path element {goformat.quote(element)}")
