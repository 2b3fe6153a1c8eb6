"""The schemas of the built-in types: reading objects as Go would, and their OpenAPI definitions."""

from __future__ import annotations

import gzip
from functools import cache
from importlib import resources
from typing import Any

import orjson

from bowsprit.machinery import builtin
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj


def load_data(name: str) -> Any:
    """A generated data file of this package."""
    path = resources.files("bowsprit.controlplane").joinpath(f"data/{name}.json.gz")
    return orjson.loads(gzip.decompress(path.read_bytes()))


@cache
def definitions() -> dict[str, Obj]:
    """All OpenAPI v3 component schemas by name, such as ``io.k8s.api.core.v1.Pod``. Not to be changed."""
    data: dict[str, Obj] = load_data("schemas")
    return data


@cache
def _names() -> dict[tuple[str, str, str], str]:
    names: dict[tuple[str, str, str], str] = {}
    for name, schema in definitions().items():
        kinds = schema.get("x-kubernetes-group-version-kind") or []
        if len(kinds) == 1:
            names[(kinds[0]["group"], kinds[0]["version"], kinds[0]["kind"])] = name
    return names


def definition_name(gvk: GroupVersionKind) -> str:
    """The name of a kind's definition, "" if it has none."""
    return _names().get((gvk.group, gvk.version, gvk.kind), "")


class BuiltinSchema:
    """A built-in type's schema (apiserver.resource.TypeSchema), looked up on first use."""

    def __init__(self, gvk: GroupVersionKind) -> None:
        self.gvk = gvk

    def decode(self, obj: Obj, tree: Any, *, applied: bool = False) -> tuple[Obj, list[str]]:
        """The object as Go reads and writes it, and what strict decoding says of its text."""
        kind = builtin.lookup(self.gvk)
        if kind is None:
            return obj, []
        problems = kind.strict_errors(tree)
        return kind.round_trip(obj), problems

    def validate(self, obj: Obj, old: Obj | None) -> list[FieldError]:
        """Nothing: built-in kinds are validated by their strategies."""
        return []

    def openapi(self) -> Obj | None:
        """The definition, with references into `definitions`."""
        return definitions().get(definition_name(self.gvk))
