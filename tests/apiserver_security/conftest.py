"""What the tests of authentication, authorization and admission share: listers over plain dicts, and a user."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj


class FakeLister:
    """A lookup.Lister over a list."""

    def __init__(self) -> None:
        self.objects: list[Obj] = []

    def get(self, namespace: str, name: str) -> Obj | None:
        for item in self.objects:
            meta = item["metadata"]
            if (meta.get("namespace", ""), meta["name"]) == (namespace, name):
                return item
        return None

    def list(self, namespace: str | None = None) -> Sequence[Obj]:
        if namespace is None:
            return list(self.objects)
        return [item for item in self.objects if item["metadata"].get("namespace", "") == namespace]


class FakeListers(dict[GroupResource, FakeLister]):
    """lookup.Listers; `add(resource text, object…)` puts objects in."""

    def __call__(self, resource: GroupResource) -> FakeLister:
        return self.setdefault(resource, FakeLister())

    def add(self, resource: str, *objects: Obj) -> None:
        self(GroupResource.parse(resource)).objects.extend(objects)


@pytest.fixture
def listers() -> FakeListers:
    return FakeListers()
