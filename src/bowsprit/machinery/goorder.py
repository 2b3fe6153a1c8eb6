"""The order in which Go writes the members of objects: those of a struct as they are declared, those of a map by name.

Order means nothing in JSON, but refused patches are shown to clients as text.
"""

from __future__ import annotations

from typing import Any

from bowsprit.machinery import builtin
from bowsprit.machinery.gotypes import GoType
from bowsprit.machinery.objects import Obj


def ordered(value: Any, message: str) -> Any:
    """An object of a built-in type (by its message's name) in Go's order; what the type does not know comes last."""
    if not isinstance(value, dict):
        return value
    types = {member.json_name: member.type for member in builtin.members(message)}
    shown = {name: _of_type(value[name], type_) for name, type_ in types.items() if name in value}
    return shown | {name: value[name] for name in sorted(value.keys() - types.keys())}


def _of_type(value: Any, type_: GoType) -> Any:
    if type_.kind == "struct":
        return ordered(value, type_.struct)
    if type_.element is None:
        return value
    if type_.kind == "slice" and isinstance(value, list):
        return [_of_type(item, type_.element) for item in value]
    if type_.kind == "map" and isinstance(value, dict):
        return {name: _of_type(value[name], type_.element) for name in sorted(value)}
    return _of_type(value, type_.element) if type_.kind == "pointer" else value


def resorted(value: Any, touched: Any) -> Any:
    """The value with the objects that a patch has touched sorted by name: the library that patches takes those for maps.

    Args:
        touched: as deep as the patch went, a dict wherever it opened an object; items of lists under their indexes. A list
            was put there by the patch, and everything in it is sorted.
    """
    if isinstance(touched, list):
        return _sorted(value)
    if not isinstance(touched, dict):
        return value
    if isinstance(value, list):
        return [resorted(item, touched.get(str(index))) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    return {name: resorted(value[name], touched.get(name)) for name in sorted(value)}


def _sorted(value: Any) -> Any:
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return {name: _sorted(value[name]) for name in sorted(value)} if isinstance(value, dict) else value


def opened(pointers: list[str]) -> Obj:
    """What JSON pointers open on their way, as `resorted` takes it."""
    root: Obj = {}
    for pointer in pointers:
        node = root
        for part in pointer.split("/")[1:-1]:
            node = node.setdefault(part.replace("~1", "/").replace("~0", "~"), {})
    return root
