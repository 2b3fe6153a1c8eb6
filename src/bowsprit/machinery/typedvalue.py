"""What server-side apply does with values of a known type: check, list fields, compare, merge, remove.

All functions take plain JSON values with a Typed beside them and change nothing they are given.
Contract: sigs.k8s.io/structured-merge-diff/typed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bowsprit.machinery import fieldset, goformat, typed
from bowsprit.machinery.fieldset import FieldSet, Path, path_text
from bowsprit.machinery.jsonpatch import equal
from bowsprit.machinery.objects import deep_copy
from bowsprit.machinery.typed import LIST, MAP, SCALAR, Typed


class TypedValueError(ValueError):
    """A value that does not fit its type, with upstream's text: one problem as is, several under `errors:`."""

    def __init__(self, problems: list[str]):
        super().__init__(problems[0] if len(problems) == 1 else "\n  ".join(["errors:", *problems]))


_GO_TYPES = {
    str: "string",
    bool: "bool",
    int: "int64",
    float: "float64",
    list: "[]interface {}",
    dict: "map[string]interface {}",
}


def item_element(type_: Typed, item: Any) -> str:
    """The path element of a list's item. Raises TypedValueError if it has no proper key."""
    if not type_.keys:
        if isinstance(item, (list, dict)) and type_.item is not None:
            raise TypedValueError([f"associative list may not have non-scalar items: {goformat.json_text(item)}"])
        return fieldset.value_element(item)
    if not isinstance(item, dict):
        raise TypedValueError(["associative list with keys may not have non-map elements"])
    keys = {}
    for key in type_.keys:
        if item.get(key) is not None:
            keys[key] = item[key]
        elif key in type_.key_defaults:
            keys[key] = type_.key_defaults[key]
    if not keys:
        raise TypedValueError(
            [
                f'associative list with keys has an element that omits key field "{type_.keys[0]}" (and doesn\'t have default value)'
            ]
        )
    return fieldset.key_element(keys)


def _quoted(keys: tuple[str, ...]) -> str:
    return "[" + " ".join(map(goformat.quote, keys)) + "]"


def validate(type_: Typed, value: Any, *, allow_duplicates: bool = False) -> None:
    """Raise TypedValueError for undeclared fields, wrong types and repeated keys."""
    problems = list(_problems(type_, value, (), allow_duplicates))
    if problems:
        raise TypedValueError(problems)


def _problems(declared: Typed, value: Any, path: Path, allow_duplicates: bool) -> Iterator[str]:
    if value is None:
        return
    type_ = declared.resolve(value)
    if type_.kind == SCALAR:
        wrong = _scalar_problem(type_.scalar, value)
        if wrong:
            yield _at(path, wrong)
    elif type_.kind == MAP:
        if not isinstance(value, dict):
            yield _at(path, f"expected map, got {_boxed(value)}")
            return
        for key, member in value.items():
            below = type_.member(key)
            if below is None:
                yield _at((*path, f"f:{key}"), "field not declared in schema")
            else:
                yield from _problems(below, member, (*path, f"f:{key}"), allow_duplicates)
    elif not isinstance(value, list):
        yield _at(path, f"expected list, got {_boxed(value)}")
    else:
        yield from _list_problems(type_, value, path, allow_duplicates)


def _list_problems(type_: Typed, items: list[Any], path: Path, allow_duplicates: bool) -> Iterator[str]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        element = f"i:{index}"
        if not type_.atomic:
            try:
                element = item_element(type_, item)
            except TypedValueError as error:
                yield _at((*path, element), f"element {index}: {error}")
                continue
            if element in seen and not allow_duplicates:
                yield _at(path, f"duplicate entries for key {fieldset.element_text(element)}")
            seen.add(element)
        yield from _problems(type_.item or typed.ANY, item, (*path, element), allow_duplicates)


def _at(path: Path, message: str) -> str:
    return f"{path_text(path)}: {message}" if path else message


def _boxed(value: Any) -> str:
    """A value as Go prints the box (value.valueUnstructured) that it is checked in."""
    return f"&{{{goformat.value(value)}}}"


def _scalar_problem(scalar: str, value: Any) -> str:
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if scalar == typed.NUMERIC and not numeric:
        return f"expected numeric (int or float), got {_GO_TYPES[type(value)]}"
    if scalar == typed.STRING and not isinstance(value, str):
        return f"expected string, got &value.valueUnstructured{{Value:{goformat.syntax(value)}}}"
    if scalar == typed.BOOLEAN and not isinstance(value, bool):
        return f"expected boolean, got {_boxed(value)}"
    if scalar == typed.UNTYPED and isinstance(value, (list, dict)):
        return f"expected any scalar, got {_boxed(value)}"
    return ""


def field_set(declared: Typed, value: Any) -> FieldSet:
    """The fields that a configuration states: its leaves, its list items, and empty or unnamed members."""
    result = FieldSet()
    _collect(declared.resolve(value), value, result)
    return result


def _collect(type_: Typed, value: Any, node: FieldSet) -> None:
    """Put what is below a value into its node of the tree; the value itself is the caller's to state."""
    if type_.atomic:
        return
    if type_.kind == MAP and isinstance(value, dict):
        for key, member in value.items():
            below = (type_.member(key) or typed.ANY).resolve(member)
            leaf = below.kind == SCALAR or below.atomic
            if leaf or member is None or member == {} or key not in type_.fields:
                node.members.add(f"f:{key}")
            if not leaf and member is not None:
                _collect_below(below, member, node, f"f:{key}")
    elif type_.kind == LIST and isinstance(value, list):
        for item in value:
            element = item_element(type_, item)
            node.members.add(element)
            _collect_below((type_.item or typed.ANY).resolve(item), item, node, element)


def _collect_below(type_: Typed, value: Any, node: FieldSet, element: str) -> None:
    child = node.children.get(element) or FieldSet()
    _collect(type_, value, child)
    if child.members or child.children:
        node.children[element] = child


# --- comparing ----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Comparison:
    """What a change added, modified and removed."""

    added: FieldSet = field(default_factory=FieldSet)
    modified: FieldSet = field(default_factory=FieldSet)
    removed: FieldSet = field(default_factory=FieldSet)

    def is_same(self) -> bool:
        return self.added.is_empty() and self.modified.is_empty() and self.removed.is_empty()

    def without(self, ignored: FieldSet) -> Comparison:
        return Comparison(
            self.added.recursive_difference(ignored),
            self.modified.recursive_difference(ignored),
            self.removed.recursive_difference(ignored),
        )


_ABSENT: Any = object()


def compare(type_: Typed, old: Any, new: Any) -> Comparison:
    """The fields in which two values of a type differ."""
    result = Comparison()
    _compare(type_, old, new, (), result)
    return result


def _compare(declared: Typed, old: Any, new: Any, path: Path, result: Comparison) -> None:
    if old is _ABSENT and path:
        result.added.graft(path, _all_fields(declared.resolve(new), new))
        return
    old_type = declared.resolve(None if old is _ABSENT else old)
    new_type = declared.resolve(None if new is _ABSENT else new)
    if new is _ABSENT:
        leaf = _compare_as(old_type, old, new, path, result)
    elif old is _ABSENT or old_type is new_type:
        leaf = _compare_as(new_type, old, new, path, result)
    else:  # the deduced type changed
        _compare_as(old_type, old, new, path, result)
        leaf = _compare_as(new_type, old, new, path, result)
    if not leaf:
        if old is _ABSENT:
            result.added.insert(path)
        elif new is _ABSENT:
            result.removed.insert(path)


def _compare_as(type_: Typed, old: Any, new: Any, path: Path, result: Comparison) -> bool:
    """Compare as one type; says whether the value was a leaf."""
    container = dict if type_.kind == MAP else list
    left: Any = old if isinstance(old, container) else container()
    right: Any = new if isinstance(new, container) else container()
    if left and left == right:  # most of an object, at the speed of C
        return True
    if type_.kind == SCALAR or type_.atomic or (not left and not right):
        _compare_leaf(old, new, path, result)
        return True
    if type_.kind == MAP:
        for key in [*left, *(key for key in right if key not in left)]:
            below = type_.member(key) or typed.ANY
            _compare(below, left.get(key, _ABSENT), right.get(key, _ABSENT), (*path, f"f:{key}"), result)
        return False
    before, after = _indexed(type_, left), _indexed(type_, right)
    for element in [*before, *(element for element in after if element not in before)]:
        olds, news = before.get(element, []), after.get(element, [])
        where = (*path, element)
        if len(olds) > 1 or len(news) > 1:  # repeated keys are compared as a whole
            _compare_leaf(olds or _ABSENT, news or _ABSENT, where, result)
        else:
            _compare(type_.item or typed.ANY, olds[0] if olds else _ABSENT, news[0] if news else _ABSENT, where, result)
    return False


def _all_fields(type_: Typed, value: Any) -> FieldSet | None:
    """Every field below a value that is new as a whole, None below a leaf."""
    if type_.kind == SCALAR or type_.atomic or not value:
        return None
    result = FieldSet()
    if type_.kind == MAP and isinstance(value, dict):
        entries = [(f"f:{key}", type_.member(key) or typed.ANY, member) for key, member in value.items()]
    elif type_.kind == LIST and isinstance(value, list):
        below = type_.item or typed.ANY
        entries = [(item_element(type_, item), below, item) for item in value]
    else:
        return None
    repeated = len({entry[0] for entry in entries}) != len(entries)
    for element, below, member in entries:
        result.members.add(element)
        fields = None if repeated else _all_fields(below.resolve(member), member)
        if fields is not None:
            result.children[element] = fields
    return result


def _compare_leaf(old: Any, new: Any, path: Path, result: Comparison) -> None:
    if old is _ABSENT:
        result.added.insert(path)
    elif new is _ABSENT:
        result.removed.insert(path)
    elif not equal(old, new):
        result.modified.insert(path)


def _indexed(type_: Typed, items: list[Any]) -> dict[str, list[Any]]:
    index: dict[str, list[Any]] = {}
    for item in items:
        index.setdefault(item_element(type_, item), []).append(item)
    return index


# --- merging ------------------------------------------------------------------------------------------------------


def merge(declared: Typed, live: Any, config: Any) -> Any:
    """The live value with the configuration's fields laid over it."""
    if config is _ABSENT:
        return deep_copy(live)
    if live is _ABSENT:
        return deep_copy(config)
    type_ = declared.resolve(live if config is None else config)
    container = dict if type_.kind == MAP else list
    left: Any = live if isinstance(live, container) else container()
    right: Any = config if isinstance(config, container) else container()
    if type_.kind == SCALAR or type_.atomic or (not left and not right):
        return deep_copy(config)
    if type_.kind == LIST:
        return _merge_lists(type_, left, right)
    keys = [*left, *(key for key in right if key not in left)]
    return {key: merge(type_.member(key) or typed.ANY, left.get(key, _ABSENT), right.get(key, _ABSENT)) for key in keys}


def _merge_lists(type_: Typed, live: list[Any], config: list[Any]) -> list[Any]:
    """Items of the configuration keep its order; live items stay where they are between them."""
    left = [item_element(type_, item) for item in live]
    right = [item_element(type_, item) for item in config]
    live_items = {element: item for element, item in zip(left, live, strict=True) if left.count(element) == 1}
    config_items = dict(zip(right, config, strict=True))
    shared = [element for element in right if element in left]
    item_type = type_.item or typed.ANY
    merged: set[str] = set()
    out: list[Any] = []
    at = to = 0

    def take(element: str) -> None:
        merged.add(element)
        out.append(merge(item_type, live_items.get(element, _ABSENT), config_items[element]))

    while at < len(left) or to < len(right):
        if at < len(left) and to < len(right):
            if left[at] == right[to]:
                take(left[at])
                at, to = at + 1, to + 1
                shared = shared[1:]
                continue
            if left[at] in config_items and shared and shared[0] != left[at]:
                at += 1  # shared, but its turn comes later
                continue
        if at < len(left):
            if left[at] not in config_items:
                out.append(deep_copy(live[at]))
                at += 1
                continue
            if left[at] in merged:
                at += 1
        if to < len(right):
            take(right[to])
            if shared and shared[0] == right[to]:
                shared = shared[1:]
            to += 1
    return out


def remove_items(declared: Typed, value: Any, removed: FieldSet) -> Any:
    """The value without the fields of a set; objects and lists stay, though nothing be left in them."""
    type_ = declared.resolve(value)
    if not value or type_.kind == SCALAR or not isinstance(value, (dict, list)):
        return None
    if type_.atomic:
        return None
    if isinstance(value, dict):
        kept = {}
        for key, member in value.items():
            element = f"f:{key}"
            if element in removed.members:
                continue
            below = removed.below(element)
            if below.is_empty():
                kept[key] = deep_copy(member)
            else:
                kept[key] = remove_items(type_.member(key) or typed.ANY, member, below)
        return kept
    items = []
    for item in value:
        element = item_element(type_, item)
        if element in removed.members:
            continue
        below = removed.below(element)
        items.append(deep_copy(item) if below.is_empty() else remove_items(type_.item or typed.ANY, item, below))
    return items


def with_named_fields(declared: Typed, fields: FieldSet) -> FieldSet:
    """The set with every named field on the way to a path added (upstream EnsureNamedFieldsAreMembers)."""
    type_ = declared if declared.kind != typed.DEDUCED else typed.DEDUCED_MAP
    members = set(fields.members)
    children = {}
    for element, child in fields.children.items():
        below: Typed = typed.ANY
        if element.startswith("f:") and type_.kind == MAP:
            if element[2:] in type_.fields:
                members.add(element)
            below = type_.member(element[2:]) or typed.ANY
        elif type_.kind == LIST:
            below = type_.item or typed.ANY
        children[element] = with_named_fields(below, child)
    return FieldSet(members, children)
