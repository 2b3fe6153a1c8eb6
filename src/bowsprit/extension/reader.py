"""Reading an app's own objects from inside the server, as models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from bowsprit.apiserver.registry import Registry
from bowsprit.extension.declaration import Declaration
from bowsprit.extension.kind import Kind, parse
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj

K = TypeVar("K", bound=Kind)


class Reader:
    """The stored objects of an app that is being served; `declaration` gives a class's."""

    def __init__(self, declaration: Callable[[type[Kind]], Declaration], registry: Registry) -> None:
        self._declaration = declaration
        self._registry = registry

    def get(self, model: type[K], namespace: str, name: str) -> K | None:
        """One object, in the version of the class."""
        declaration = self._declaration(model)
        found = self._registry.lister(GroupResource(declaration.group, declaration.plural)).get(namespace, name)
        return None if found is None else self._as(model, found)

    def objects(self, model: type[K], namespace: str | None) -> list[K]:
        """All objects, or those of a namespace."""
        declaration = self._declaration(model)
        lister = self._registry.lister(GroupResource(declaration.group, declaration.plural))
        return [self._as(model, obj) for obj in lister.list(namespace)]

    def _as(self, model: type[K], hub: Obj) -> K:
        declaration = self._declaration(model)
        collection = self._registry.collection(GroupResource(declaration.group, declaration.plural))
        assert collection is not None
        for version in collection.resource.versions:
            declared = declaration.of_version(version.gvk.version)
            if declared.model is model:
                return parse(model, collection.from_hub(version, hub))
        raise KeyError(model.__name__)
