"""Changing a stored object on behalf of the server: read, change, compare-and-set, again when somebody was faster."""

from __future__ import annotations

from collections.abc import Callable

from bowsprit.apiserver.collection import Collection, Stored
from bowsprit.machinery.errors import conflict, not_found
from bowsprit.machinery.objects import Obj
from bowsprit.store.protocol import RevisionMismatchError

_TRIES = 10


async def update_stored(collection: Collection, namespace: str, name: str, change: Callable[[Obj], None]) -> Stored:
    """Apply a change (in place, may raise StatusError) to an object and store it.

    Raises:
        NotFound: there is no such object.
        Conflict: others kept changing it.
    """
    for _ in range(_TRIES):
        item = collection.item(namespace, name)
        if item is None:
            raise not_found(collection.resource.gr, name)
        obj = collection.decode(item)
        change(obj)
        try:
            return await collection.put(obj, item.revision)
        except RevisionMismatchError:
            continue
    raise conflict(collection.resource.gr, name, "please apply your changes to the latest version and try again")
