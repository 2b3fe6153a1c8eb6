"""Strategic merge patch: a merge patch that knows which lists merge, by which key.

The knowledge comes with the built-in types (patchStrategy, patchMergeKey), or with a structural schema: lists of type map with
one key, and sets, merge. Directives inside a patch:

    $patch: replace | delete | merge    on an object or a list's element
    $retainKeys: [a, b]                 drop all other members of the live object
    $deleteFromPrimitiveList/f: [x]     remove values from the list f
    $setElementOrder/f: [...]           the order of the list f after merging

Contract: k8s.io/apimachinery/pkg/util/strategicpatch, StrategicMergeMapPatch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from bowsprit.machinery import builtin, goformat
from bowsprit.machinery.gotypes import GoType
from bowsprit.machinery.objects import Obj, deep_copy

_DIRECTIVE = "$patch"
_RETAIN_KEYS = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


class StrategicPatchError(ValueError):
    """A patch that cannot be applied, with upstream's text. The server answers 500 or 400 as it did for upstream."""


_Known = GoType | Obj | None
"""What is known of a value: its type, its structural schema, or nothing."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a member merges: what is known of it, its strategies and its merge key."""

    type: _Known
    merges: bool = False
    replaces: bool = False
    key: str = ""


_UNKNOWN = _Rule(None)
_OBJECT_META = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_METADATA = GoType("struct", "ObjectMeta", _OBJECT_META)


def apply(obj: Obj, patch: Obj, type_: builtin.Type) -> Obj:
    """The patched object; the arguments are not changed. Raises StrategicPatchError."""
    return _merge_objects(deep_copy(obj), deep_copy(patch), GoType("struct", type_.name, type_.message))


def apply_by_schema(obj: Obj, patch: Obj, schema: Obj) -> Obj:
    """As `apply`, for an object of a kind that has a structural schema."""
    root = {**schema, "properties": {**schema.get("properties", {}), "metadata": _METADATA}}
    return _merge_objects(deep_copy(obj), deep_copy(patch), root)


@cache
def _rules(message: str) -> dict[str, _Rule]:
    rules = {}
    for field in builtin.members(message):
        type_ = field.type
        if type_.kind == "pointer" and type_.element:
            type_ = type_.element
        strategies = field.merging.get("patchStrategy", "").split(",")
        rules[field.json_name] = _Rule(
            type_, "merge" in strategies, "replace" in strategies, field.merging.get("patchMergeKey", "")
        )
    return rules


def _rule(type_: _Known, name: str) -> _Rule:
    """The rule of a member of a struct or map."""
    if type_ is None:
        return _UNKNOWN
    if isinstance(type_, dict):
        return _schema_rule(type_, name)
    if type_.kind == "struct":
        return _rules(type_.struct).get(name, _UNKNOWN)
    if type_.kind == "map":
        return _Rule(type_.element)
    return _UNKNOWN


def _schema_rule(schema: Obj, name: str) -> _Rule:
    below = (schema.get("properties") or {}).get(name, schema.get("additionalProperties"))
    if not isinstance(below, dict):
        return _Rule(below) if isinstance(below, GoType) else _UNKNOWN
    keys: list[str] = below.get("x-kubernetes-list-map-keys") or []
    match below.get("x-kubernetes-list-type"):
        case "map" if len(keys) == 1:
            return _Rule(below, merges=True, key=keys[0])
        case "set":
            return _Rule(below, merges=True)
    return _Rule(below, replaces=below.get("x-kubernetes-map-type") == "atomic")


def _element(type_: _Known) -> _Known:
    """What is known of a list's elements."""
    if isinstance(type_, dict):
        items = type_.get("items")
        return items if isinstance(items, dict) else None
    return type_.element if type_ is not None and type_.kind == "slice" else None


def _merge_objects(live: Obj, patch: Obj, type_: _Known) -> Obj:
    if _DIRECTIVE in patch:
        directive = patch[_DIRECTIVE]
        if directive == "replace":
            return {key: value for key, value in patch.items() if key != _DIRECTIVE}
        if directive == "delete":
            return {}
        raise _bad_directive(directive, patch)
    _retain_keys(live, patch)
    _merge_ordered_lists(live, patch, type_)
    for key, value in patch.items():
        deleting = key.startswith(_DELETE_FROM)
        name = key[len(_DELETE_FROM) :] if deleting else key
        if value is None:
            live.pop(name, None)
        elif name in live and isinstance(value, dict) and isinstance(live[name], dict):
            rule = _rule(type_, name)
            live[name] = value if rule.replaces else _merge_objects(live[name], value, rule.type)
        elif name in live and isinstance(value, list) and isinstance(live[name], list):
            rule = _rule(type_, name)
            live[name] = _merge_lists(live[name], value, rule, deleting) if rule.merges or deleting else value
        elif not deleting:
            kept, value = _without_directives(_without_nulls(value))
            if kept:
                live[name] = value
            else:
                live.pop(name, None)
    return live


def _bad_directive(directive: Any, patch: Obj) -> StrategicPatchError:
    return StrategicPatchError(f"unknown patch type: {goformat.value(directive)} in map: {goformat.value(patch)}")


def _retain_keys(live: Obj, patch: Obj) -> None:
    retained = patch.pop(_RETAIN_KEYS, None)
    if retained is None:
        return
    if not isinstance(retained, list):
        raise StrategicPatchError("invalid patch format of retainKeys")
    for key, value in patch.items():
        if value is not None and not key.startswith((_DELETE_FROM, _ORDER)) and key not in retained:
            raise StrategicPatchError("invalid patch format of retainKeys")
    for key in [key for key in live if key not in retained]:
        del live[key]


def _without_nulls(value: Any) -> Any:
    """Nulls that delete nothing are dropped from what a patch adds."""
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _without_directives(value: Any) -> tuple[bool, Any]:
    """What is left of a value that a patch adds where there is nothing to direct: (whether it stays, the value)."""
    if isinstance(value, dict):
        if _DIRECTIVE in value:
            return False, None
        members = ((key, *_without_directives(member)) for key, member in value.items())
        return True, {key: member for key, kept, member in members if kept}
    if isinstance(value, list):
        return True, [item for kept, item in map(_without_directives, value) if kept]
    return True, value


def _merge_ordered_lists(live: Obj, patch: Obj, type_: _Known) -> None:
    """Lists for which the patch gives an order are merged here and leave the patch."""
    for directive in [key for key in patch if key.startswith(_ORDER)]:
        order = patch.pop(directive)
        name = directive[len(_ORDER) :]
        rule = _rule(type_, name)
        original, added = live.get(name), patch.get(name)
        for value in (order, *([original] if name in live else []), *([added] if name in patch else [])):
            if not isinstance(value, list):
                raise StrategicPatchError("invalid patch format of setElementOrder list")
        _check_order(added or [], order, rule.key)
        if original is None and added is None:
            continue
        if original is None:
            merged = _without_directives(added)[1]
        elif added is None:
            merged = original
        else:
            merged = _merge_lists(list(original), added, rule, deleting=False) if rule.merges else added
        patch.pop(name, None)
        live[name] = _arranged(merged, order, original or [], rule.key)


def _check_order(added: list[Any], order: list[Any], key: str) -> None:
    """The items of the patch must appear in the given order."""
    if not added or not order:
        return
    items = [item for item in added if not (isinstance(item, dict) and _DIRECTIVE in item)]
    position = 0
    for wanted in order:
        if position < len(items) and _identity(items[position], key) == _identity(wanted, key):
            position += 1
    if position < len(items):
        raise StrategicPatchError(
            f"The order in patch list:\n{goformat.value(added)}\n doesn't match {_ORDER[:-1]} list:\n{goformat.value(order)}\n"
        )


def _identity(item: Any, key: str) -> Any:
    """What tells elements apart: the merge key's value, or the scalar itself."""
    if isinstance(item, dict):
        if not key or key not in item:
            raise StrategicPatchError(f"map: {goformat.value(item)} does not contain declared merge key: {key}")
        return item[key]
    return item


def _merge_lists(live: list[Any], patch: list[Any], rule: _Rule, deleting: bool) -> list[Any]:
    if not live and not patch:
        return live
    kinds = {isinstance(item, dict) for item in (*live, *patch)}
    if len(kinds) > 1 or any(isinstance(item, list) for item in (*live, *patch)):
        raise StrategicPatchError("list element types are not identical: lists of lists are not supported")
    server_order = list(live)
    if not kinds.pop():
        if deleting:
            return [item for item in live if item not in patch]
        merged = list(dict.fromkeys([*live, *patch]))
        return _arranged(merged, patch, server_order, "")
    if not rule.key:
        name = rule.type.name if isinstance(rule.type, GoType) else ""
        raise StrategicPatchError(f"cannot merge lists without merge key for {name}")
    live, patch = _direct_elements(live, patch, rule.key)
    element = _element(rule.type)
    for item in patch:
        identity = _identity(item, rule.key)
        at = next((index for index, old in enumerate(live) if old.get(rule.key) == identity), -1)
        if at < 0:
            live.append(_without_nulls(item))
        else:
            live[at] = _merge_objects(live[at], item, element)
    return _arranged(live, patch, server_order, rule.key)


def _direct_elements(live: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any]]:
    """Carry out the $patch directives among the elements; what remains of the patch is to be merged."""
    remaining, replaced = [], False
    for item in patch:
        directive = item.get(_DIRECTIVE)
        if directive is None:
            remaining.append(item)
        elif directive == "delete":
            identity = _identity(item, key)
            live = [old for old in live if old.get(key) != identity]
        elif directive == "replace":
            replaced = True
        elif directive == "merge":
            raise StrategicPatchError("merging lists cannot yet be specified in the patch")
        else:
            raise _bad_directive(directive, item)
    return (remaining, []) if replaced else (list(live), remaining)


def _arranged(merged: list[Any], order: list[Any], server_order: list[Any], key: str) -> list[Any]:
    """Items that the patch names in its order, woven into the others, which keep the server's order."""
    wanted = [_identity(item, key) for item in order if not (isinstance(item, dict) and key not in item)]
    served = [_identity(item, key) for item in server_order]
    mine = [item for item in merged if _identity(item, key) in wanted]
    others = [item for item in merged if _identity(item, key) not in wanted]
    mine.sort(key=lambda item: wanted.index(_identity(item, key)))
    others.sort(key=lambda item: _position(served, _identity(item, key)))
    result: list[Any] = []
    while mine and others:
        left, right = (_position(served, _identity(items[0], key)) for items in (others, mine))
        known = left < len(served) and right < len(served)
        result.append(others.pop(0) if known and left < right else mine.pop(0))
    return result + others + mine


def _position(items: list[Any], item: Any) -> int:
    return items.index(item) if item in items else len(items)
