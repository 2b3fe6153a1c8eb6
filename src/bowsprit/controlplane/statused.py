"""Strategies of kinds with a spec and a status: each endpoint changes its own part."""

from __future__ import annotations

from typing import ClassVar

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.core.podwarnings import template_warnings
from bowsprit.machinery.objects import Obj, deep_copy


def copy_field(target: Obj, source: Obj, field: str) -> None:
    """Give the target the source's value of a top-level field, or its absence."""
    if field in source:
        target[field] = source[field]
    else:
        target.pop(field, None)


class StatusedStrategy(Strategy):
    """The main endpoint: status is empty at creation and cannot be changed here."""

    has_generation = True
    empty_status: ClassVar[Obj] = {}

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = deep_copy(self.empty_status)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        copy_field(new, old, "status")

    def warnings(self, obj: Obj, old: Obj | None) -> list[str]:
        return template_warnings(obj, old)


class StatusStrategy(Strategy):
    """The ``/status`` endpoint of a kind: everything else stays as it is.

    Args:
        main: the kind's strategy.
        keeps: metadata members that this endpoint may not change, either.
    """

    has_generation = True
    spec_bumps_generation = False

    def __init__(self, main: Strategy, keeps: tuple[str, ...] = ()) -> None:
        self._main = main
        self._keeps = keeps
        self.reset_fields = {"f:spec": {}, **({"f:metadata": {f"f:{name}": {} for name in keeps}} if keeps else {})}

    def default(self, obj: Obj) -> None:
        self._main.default(obj)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        for field in {*new, *old} - {"status", "metadata", "kind", "apiVersion"}:
            copy_field(new, old, field)
        for field in self._keeps:
            copy_field(new["metadata"], old["metadata"], field)


class PartStrategy(StatusStrategy):
    """An endpoint for another part of an object; who sends more is said to own it, though it is put back (as upstream)."""

    def __init__(self, main: Strategy) -> None:
        super().__init__(main)
        self.reset_fields = {}


# What upstream's metav1.ResetObjectMetaForStatus puts back.
RESET_METADATA = (
    "deletionTimestamp",
    "generation",
    "selfLink",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
)
