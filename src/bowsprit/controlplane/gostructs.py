"""Values as Kubernetes' internal Go structs print them, for the messages that show such values.

The API's JSON leaves out what is empty and follows the published order; messages are made from the internal structs, whose
members all appear, under their Go names and in their own order. ``data/gostructs.json`` lists them by struct, as Go declares
them: ``Name type``; ``Name=json`` where the API's name does not follow from Go's; ``=^json`` where the API has it one object
further up; ``+Struct`` for an embedded struct. Types of meta/v1 have one form only, which leaves out what is empty.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from bowsprit.machinery.objects import Obj

_CONTEXT = 3  # lines of a difference
_ZEROS: dict[str, Any] = {"string": "", "int": 0, "bool": False, "quantity": "0", "intOrString": 0, "time": None}
_METADATA = (
    "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers", "managedFields",
)  # fmt: skip
_ESCAPES = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})  # as Go's encoder writes them


@dataclass(frozen=True, slots=True)
class _Member:
    go_name: str
    json_name: str
    outer: bool  # found in the object around
    type: str


def go_value(go_type: str, value: Any) -> Any:
    """A value of the API with all members that Go's structs have.

    Args:
        go_type: ``PodSpec`` or another struct of the table; ``*PodSpec`` for one that may be missing, ``[]PodSpec`` for many.
        value: the value as clients see it.
    """
    return _value(go_type, value, {})


def member_values(struct: str, value: Obj) -> list[tuple[str, Any]]:
    """The members of a struct without embedded ones, in Go's order."""
    return list(_struct(struct, value, {}).items())


def is_zero(value: Any) -> bool:
    """Whether a member that is no struct has the zero value of its type."""
    return value is None or value is False or value in ("", 0)


def difference(go_type: str, old: Any, new: Any) -> str:
    """A unified diff of two values in Go's JSON, three lines of context, without file names (upstream diff.Diff).

    Args:
        go_type: as for `go_value`.
        old: what is stored.
        new: what was sent.

    Returns:
        "" when they mean the same: what is empty equals what is missing.
    """
    before, after = (_lines(go_value(go_type, value)) for value in (old, new))
    return "".join(list(difflib.unified_diff(before, after, n=_CONTEXT))[2:])


def _lines(value: Any) -> list[str]:
    text = json.dumps(value, indent=1, ensure_ascii=False).translate(_ESCAPES)
    return [f"{line}\n" for line in text.split("\n")]


def _value(go_type: str, value: Any, outer: Obj) -> Any:
    if go_type.startswith("*"):
        return None if value is None else _value(go_type[1:], value, outer)
    if go_type.startswith("[]"):
        return [_value(go_type[2:], item, outer) for item in value] if value else None
    if go_type.startswith("map[string]"):
        return {key: _value(go_type[11:], value[key], outer) for key in sorted(value)} if value else None
    if go_type in _ZEROS:
        return _ZEROS[go_type] if value is None else value
    if go_type in _UNIONS:
        return _UNIONS[go_type](value)
    if go_type in _structs():
        return _struct(go_type, value or {}, outer)
    return value


def _metadata(value: Obj) -> dict[str, Any]:
    maps = {key: dict(sorted(value[key].items())) for key in ("labels", "annotations") if value.get(key)}
    return {key: maps.get(key, value[key]) for key in _METADATA if value.get(key)}


def _selector(value: Obj) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if value.get("matchLabels"):
        shown["matchLabels"] = dict(sorted(value["matchLabels"].items()))
    if value.get("matchExpressions"):
        shown["matchExpressions"] = [
            {"key": each.get("key", ""), "operator": each.get("operator", "")}
            | ({"values": each["values"]} if each.get("values") else {})
            for each in value["matchExpressions"]
        ]
    return shown


def _schema(value: Any) -> Any:
    return _value("*JSONSchemaProps", value if isinstance(value, dict) else None, {})


_UNIONS: dict[str, Callable[[Any], Any]] = {
    "LabelSelector": _selector,
    "JSONSchemaPropsOrArray": lambda value: {
        "Schema": _schema(value),
        "JSONSchemas": _value("[]JSONSchemaProps", value, {}) if isinstance(value, list) else None,
    },
    "JSONSchemaPropsOrBool": lambda value: {"Allows": bool(value) or isinstance(value, dict), "Schema": _schema(value)},
    "JSONSchemaPropsOrStringArray": lambda value: {
        "Schema": _schema(value),
        "Property": value if isinstance(value, list) else None,
    },
}


def _struct(name: str, value: Obj, outer: Obj) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for member in _structs()[name]:
        if member.type == "ObjectMeta":
            shown |= _metadata(value.get("metadata") or {})
        elif not member.go_name:
            shown |= _value(member.type, value, outer)
        else:
            source = outer if member.outer else value
            shown[member.go_name] = _value(member.type, source.get(member.json_name), value)
    return shown


@cache
def _structs() -> dict[str, tuple[_Member, ...]]:
    data = json.loads(resources.files("bowsprit.controlplane").joinpath("data/gostructs.json").read_bytes())
    return {name: tuple(map(_member, text.split(", "))) for name, text in data.items()}


def _member(text: str) -> _Member:
    if text.startswith("+"):
        return _Member("", "", False, text[1:])
    names, go_type = text.split(" ")
    go_name, _, json_name = names.partition("=")
    return _Member(go_name, json_name.removeprefix("^") or _json_name(go_name), json_name.startswith("^"), go_type)


def _json_name(go_name: str) -> str:
    """``FSGroup`` is ``fsGroup``: the capitals in front are written small, but for the one that begins the next word."""
    return re.sub(r"^[A-Z]+?(?=[A-Z][a-z]|$|[^A-Za-z])|^[A-Z]", lambda match: match[0].lower(), go_name)
