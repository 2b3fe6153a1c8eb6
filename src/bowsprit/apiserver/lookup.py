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


class LocalClient(Protocol):
    """Reads and writes on behalf of the server itself (system:apiserver), through admission and validation.

    Objects are in their storage version; namespaces are taken from the objects, "" for cluster-scoped names. Failures are
    StatusErrors, as for any client.
    """

    async def get(self, gr: GroupResource, namespace: str, name: str) -> Obj:
        """One object. Raises NotFound."""
        ...

    async def create(self, gr: GroupResource, obj: Obj) -> Obj:
        """The object as stored. Raises AlreadyExists."""
        ...

    async def update(self, gr: GroupResource, obj: Obj, *, subresource: str = "") -> Obj:
        """The object as stored; a resourceVersion in it is a precondition. Raises Conflict, NotFound."""
        ...

    async def apply(self, gr: GroupResource, obj: Obj, *, subresource: str = "") -> Obj:
        """Server-side apply, by force, to an object that exists. Raises NotFound."""
        ...

    def named(self, manager: str) -> LocalClient:
        """The same under another field manager's name."""
        ...

    async def delete(self, gr: GroupResource, namespace: str, name: str) -> Obj:
        """Remove at once where nothing holds the object. Raises NotFound."""
        ...
