"""Reading other objects of the same server: what authenticators, authorizers and admission plugins are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj


class Lister(Protocol):
    """The objects of one resource, from the watch cache: synchronous and cheap. Answers must not be changed."""

    def get(self, namespace: str, name: str) -> Obj | None:
        """One object; the namespace is "" for cluster-scoped ones."""
        ...

    def list(self, namespace: str | None = None) -> Sequence[Obj]:
        """All objects, or those of one namespace."""
        ...


Listers = Callable[[GroupResource], Lister]
"""Gives the lister of a resource; raises KeyError for a resource that is not served."""
