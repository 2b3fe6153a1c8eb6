"""What a kind does beyond being stored: as a custom resource, with the author's defaults before and his checks behind."""

from __future__ import annotations

from collections.abc import Mapping

from bowsprit.apiserver.request import RequestContext
from bowsprit.controlplane.apiextensions.serving import CustomResourceStatusStrategy, CustomResourceStrategy
from bowsprit.extension.hooks import REQUEST, Hooks
from bowsprit.machinery.jsonpath import JSONPath
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj


class KindStrategy(CustomResourceStrategy):
    """The main endpoint of an author's kind."""

    def __init__(
        self, gr: GroupResource, selectable: Mapping[str, JSONPath], *, has_status: bool, hooks: Hooks
    ) -> None:
        super().__init__(gr, selectable, has_status=has_status)
        self._hooks = hooks

    def default(self, obj: Obj) -> None:
        self._hooks.default(obj)

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        REQUEST.set(ctx)
        super().prepare_for_create(obj, ctx)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        REQUEST.set(ctx)
        super().prepare_for_update(new, old, ctx)


class KindStatusStrategy(CustomResourceStatusStrategy):
    """The status endpoint of an author's kind."""

    def __init__(
        self, gr: GroupResource, selectable: Mapping[str, JSONPath], *, has_status: bool, hooks: Hooks
    ) -> None:
        super().__init__(gr, selectable, has_status=has_status)
        self._hooks = hooks

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        REQUEST.set(ctx)
        super().prepare_for_update(new, old, ctx)
