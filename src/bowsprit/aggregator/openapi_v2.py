"""OpenAPI v2 documents of several servers made one: cut down to what a server is asked for, joined without clashes.

Pure. Documents are never changed; results share parts with them. Upstream: kube-openapi pkg/aggregator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bowsprit.machinery.objects import Obj

_GVK = "x-kubernetes-group-version-kind"
_SHARED = (("definitions", "#/definitions/"), ("parameters", "#/parameters/"))


def _references(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            reference = item.get("$ref")
            if isinstance(reference, str):
                yield reference
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _used_definitions(roots: Iterable[Any], definitions: Obj) -> set[str]:
    prefix = _SHARED[0][1]
    used: set[str] = set()
    waiting = list(roots)
    while waiting:
        for reference in _references(waiting.pop()):
            name = reference.removeprefix(prefix)
            if name != reference and name not in used:
                used.add(name)
                if name in definitions:
                    waiting.append(definitions[name])
    return used


def only_paths(document: Obj, keep: Callable[[str], bool]) -> Obj:
    """The document with the paths that are kept; definitions go that only others used."""
    paths, definitions = document.get("paths") or {}, document.get("definitions") or {}
    shared = [document.get("parameters") or {}, document.get("responses") or {}]
    kept = {path: item for path, item in paths.items() if keep(path)}
    before = _used_definitions([paths, *shared, *definitions.values()], definitions)
    after = _used_definitions([kept, *shared], definitions)
    return {
        **document,
        "paths": kept,
        "definitions": {name: item for name, item in definitions.items() if name in after or name not in before},
    }


def join(document: Obj, other: Obj) -> Obj:
    """The document with the other's paths, definitions and parameters.

    Paths of the first win; definitions and parameters of the other that differ under the same name are renamed `<name>_v2`
    and so on. Definitions that differ in the kinds they stand for alone become one.
    """
    paths = document.get("paths") or {}
    new_paths = [path for path in other.get("paths") or {} if path not in paths]
    if not new_paths:
        return document
    if len(new_paths) < len(other["paths"]):
        wanted = frozenset(new_paths)
        other = only_paths(other, wanted.__contains__)
    renames: dict[str, str] = {}
    for section, prefix in _SHARED:
        mine, theirs = document.get(section) or {}, other.get(section) or {}
        for name, new in _renamed(mine, theirs).items():
            renames[prefix + name] = prefix + new
    if renames:
        other = _rename(other, renames)
    definitions = dict(document.get("definitions") or {})
    for name, item in (other.get("definitions") or {}).items():
        definitions[name] = _with_kinds(definitions[name], item) if name in definitions else item
    joined = {**document, "paths": {**paths, **other["paths"]}, "definitions": definitions}
    if document.get("parameters") or other.get("parameters"):
        joined["parameters"] = {**(other.get("parameters") or {}), **(document.get("parameters") or {})}
    return joined


def _without_kinds(item: Any) -> Any:
    return {key: value for key, value in item.items() if key != _GVK} if isinstance(item, dict) else item


def _renamed(mine: Obj, theirs: Obj) -> dict[str, str]:
    renames: dict[str, str] = {}
    used = set(mine)
    for name, item in theirs.items():
        bare = _without_kinds(item)
        if name not in mine or _without_kinds(mine[name]) == bare:
            continue
        number, new = 2, f"{name}_v2"
        while (new in used and _without_kinds(mine.get(new)) != bare) or new in theirs:
            number += 1
            new = f"{name}_v{number}"
        renames[name] = new
        used.add(new)
    return renames


def _rename(document: Obj, renames: dict[str, str]) -> Obj:
    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: renames.get(item, item) if key == "$ref" and isinstance(item, str) else walk(item)
            for key, item in value.items()
        }

    made: Obj = walk(document)
    for section, prefix in _SHARED:
        if made.get(section):
            made[section] = {
                renames.get(prefix + name, prefix + name).removeprefix(prefix): item
                for name, item in made[section].items()
            }
    return made


def _with_kinds(mine: Any, theirs: Any) -> Any:
    kinds = list(mine.get(_GVK) or ()) if isinstance(mine, dict) else []
    more = [kind for kind in theirs.get(_GVK) or () if kind not in kinds] if isinstance(theirs, dict) else []
    return {**mine, _GVK: kinds + more} if more else mine
