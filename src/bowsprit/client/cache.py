"""The informer's local copy of a collection, with indexes; no I/O.

Keys are ``namespace/name``, or ``name`` for cluster-scoped objects (client-go MetaNamespaceKeyFunc).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bowsprit.machinery.objects import Obj

IndexFunction = Callable[[Obj], Iterable[str]]
Transform = Callable[[Obj], Obj]
Objects = list[Obj]
Keys = list[str]


@dataclass(frozen=True, slots=True)
class Delta:
    """One change: ``old`` is None for an addition, ``new`` for a deletion."""

    old: Obj | None
    new: Obj | None


Deltas = list[Delta]


def object_key(obj: Obj) -> str:
    """The cache key of an object."""
    meta = obj["metadata"]
    namespace = meta.get("namespace")
    return f"{namespace}/{meta['name']}" if namespace else str(meta["name"])


def split_key(key: str) -> tuple[str, str]:
    """``(namespace, name)``; the namespace is empty for cluster-scoped objects."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def strip_managed_fields(obj: Obj) -> Obj:
    """Drop ``metadata.managedFields``, often half of an object; an update without them leaves them as they are."""
    obj["metadata"].pop("managedFields", None)
    return obj


def only_metadata(obj: Obj) -> Obj:
    """A PartialObjectMetadata without managedFields, whatever the server sent."""
    meta: dict[str, Any] = obj["metadata"]
    meta.pop("managedFields", None)
    return {"apiVersion": obj.get("apiVersion"), "kind": obj.get("kind"), "metadata": meta}


class Cache:
    """Objects by key, and by the values of named index functions. Whoever reads must not change the objects."""

    def __init__(self, indexers: Mapping[str, IndexFunction] | None = None) -> None:
        self._objects: dict[str, Obj] = {}
        self._functions: dict[str, IndexFunction] = {}
        self._indexes: dict[str, dict[str, dict[str, None]]] = {}
        for name, function in (indexers or {}).items():
            self.add_indexer(name, function)

    def __len__(self) -> int:
        return len(self._objects)

    def add_indexer(self, name: str, function: IndexFunction) -> None:
        """Index by another function; an index of the same name is kept."""
        if name in self._functions:
            return
        self._functions[name] = function
        self._indexes[name] = {}
        for key, obj in self._objects.items():
            self._index(name, key, obj)

    def get(self, key: str) -> Obj | None:
        """The object, or None."""
        return self._objects.get(key)

    def keys(self) -> Keys:
        """All keys."""
        return list(self._objects)

    def list(self, namespace: str | None = None) -> Objects:
        """All objects, or those of a namespace."""
        if namespace is None:
            return list(self._objects.values())
        if "namespace" in self._functions:
            return self.by_index("namespace", namespace)
        return [obj for obj in self._objects.values() if obj["metadata"].get("namespace") == namespace]

    def by_index(self, name: str, value: str) -> Objects:
        """The objects that the index function maps to ``value``."""
        return [self._objects[key] for key in self._indexes[name].get(value, ())]

    def set(self, obj: Obj) -> Delta:
        """Add or replace an object."""
        key = object_key(obj)
        old = self._objects.get(key)
        if old is not None:
            self._unindex(key, old)
        self._objects[key] = obj
        for name in self._functions:
            self._index(name, key, obj)
        return Delta(old, obj)

    def remove(self, obj: Obj) -> Delta | None:
        """Remove an object by its key; None if it was not there. ``obj`` is its last state."""
        key = object_key(obj)
        old = self._objects.pop(key, None)
        if old is None:
            return None
        self._unindex(key, old)
        return Delta(obj, None)

    def replace(self, objects: Mapping[str, Obj]) -> Deltas:
        """Make the content equal to ``objects``; answers what changed, deletions first.

        An object that was deleted and created anew under its name is a deletion and an addition.
        """
        deltas: Deltas = []
        for key, old in list(self._objects.items()):
            new = objects.get(key)
            if new is None or new["metadata"].get("uid") != old["metadata"].get("uid"):
                self.remove(old)
                deltas.append(Delta(old, None))
        for key, new in objects.items():
            current = self._objects.get(key)
            if current is None or current["metadata"].get("resourceVersion") != new["metadata"].get("resourceVersion"):
                deltas.append(self.set(new))
        return deltas

    def _index(self, name: str, key: str, obj: Obj) -> None:
        for value in self._functions[name](obj):
            self._indexes[name].setdefault(value, {})[key] = None

    def _unindex(self, key: str, obj: Obj) -> None:
        for name, function in self._functions.items():
            index = self._indexes[name]
            for value in function(obj):
                if (keys := index.get(value)) is not None:
                    keys.pop(key, None)
                    if not keys:
                        del index[value]
