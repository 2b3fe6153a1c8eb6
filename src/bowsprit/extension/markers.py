"""What type annotations cannot say: list types for server-side apply, CEL rules, quantities, columns, scale paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, GetJsonSchemaHandler

from bowsprit.machinery.quantity import Quantity as ExactQuantity


@dataclass(frozen=True, slots=True)
class _Extension:
    """Adds ``x-kubernetes-*`` members to the schema of what it annotates."""

    def members(self) -> dict[str, Any]:
        raise NotImplementedError

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        return {**schema, **self.members()}


@dataclass(frozen=True, slots=True, init=False)
class ListMap(_Extension):
    """``Annotated[list[Port], ListMap("name")]``: items are told apart by these fields, each with its own owners."""

    keys: tuple[str, ...]

    def __init__(self, *keys: str) -> None:
        object.__setattr__(self, "keys", keys)

    def members(self) -> dict[str, Any]:
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(self.keys)}


@dataclass(frozen=True, slots=True)
class ListSet(_Extension):
    """``Annotated[list[str], ListSet()]``: scalars, each at most once, each with its own owners."""

    def members(self) -> dict[str, Any]:
        return {"x-kubernetes-list-type": "set"}


@dataclass(frozen=True, slots=True)
class Atomic(_Extension):
    """``Annotated[dict[str, str], Atomic()]``: replaced as a whole (lists are, unless something else is said)."""

    def members(self) -> dict[str, Any]:
        return {"x-kubernetes-atomic": True}


@dataclass(frozen=True, slots=True)
class Rule(_Extension):
    """``Annotated[Spec, Rule("self.low <= self.high", "low must not be above high")]``: a CEL rule, oldSelf included."""

    rule: str
    message: str = ""

    def members(self) -> dict[str, Any]:
        return {
            "x-kubernetes-validations": [{"rule": self.rule, **({"message": self.message} if self.message else {})}]
        }

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core_schema)
        own = self.members()["x-kubernetes-validations"]
        return {**schema, "x-kubernetes-validations": [*(schema.get("x-kubernetes-validations") or ()), *own]}


IntOrString = Annotated[int | str, "a number or a text, as ports and percentages are"]


def _check_quantity(value: int | str) -> int | str:
    ExactQuantity.parse(value)
    return value


class _QuantitySchema:
    def __get_pydantic_json_schema__(self, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        pattern = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
        return {"anyOf": [{"type": "integer"}, {"type": "string"}], "pattern": pattern}


Quantity = Annotated[int | str, AfterValidator(_check_quantity), _QuantitySchema()]
"""A resource quantity such as 500m or 2Gi, kept as it was written."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`. `type` is taken from the schema if it is not given; columns with priority > 0 need -o wide."""

    path: str
    description: str = ""
    type: str = ""
    priority: int = 0
    format: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the scale subresource finds its numbers."""

    spec_replicas: str = ".spec.replicas"
    status_replicas: str = ".status.replicas"
    label_selector: str = ""
