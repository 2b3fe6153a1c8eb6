"""Where the objects of a kind live: in one of the stores, or in an object of the author's that has some of these methods.

Each protocol below is one verb. What a storage object implements is what the API serves, and discovery and OpenAPI show
exactly that: a Getter serves get; a Lister serves list, with selectors, tables and pages; a Watcher makes it watchable; a
Creater, Updater and Deleter serve create, update and patch, delete and deletecollection. Methods may be plain functions
(which must not block) or coroutines. They take and give instances of the kind (or dicts); `None` from `get` is a 404.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from bowsprit.apiserver.request import RequestContext


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """A store of the library, as on a command line: ``memory`` or ``sqlite:PATH``."""

    text: str


def memory() -> StoreSpec:
    """Objects live as long as the process."""
    return StoreSpec("memory")


def sqlite(path: str | Path) -> StoreSpec:
    """Objects live in a SQLite file; a write is durable before it is answered."""
    return StoreSpec(f"sqlite:{path}")


@runtime_checkable
class Getter(Protocol):
    """get."""

    def get(self, ctx: RequestContext, namespace: str, name: str) -> Any | Awaitable[Any]:
        """The object, None if there is none. `namespace` is "" for cluster-scoped kinds."""
        ...


@runtime_checkable
class Lister(Protocol):
    """list."""

    def list(self, ctx: RequestContext, namespace: str) -> Iterable[Any] | Awaitable[Iterable[Any]]:
        """The objects of a namespace, of all if it is ""."""
        ...


@runtime_checkable
class Watcher(Protocol):
    """watch; needs a Lister."""

    def watch(self) -> AsyncIterator[tuple[str, Any]]:
        """("ADDED" | "MODIFIED" | "DELETED", object) for every change in any namespace, until closed.

        It is called before the objects are listed: a change in between is seen twice, never missed.
        """
        ...


@runtime_checkable
class Creater(Protocol):
    """create."""

    def create(self, ctx: RequestContext, obj: Any) -> Any | Awaitable[Any]:
        """The object as created. Not called on dry run."""
        ...


@runtime_checkable
class Updater(Protocol):
    """update and patch, server-side apply included; needs a Getter or a Lister."""

    def update(self, ctx: RequestContext, obj: Any, old: Any) -> Any | Awaitable[Any]:
        """The object as changed; `old` is what was read before. Not called on dry run."""
        ...


@runtime_checkable
class Deleter(Protocol):
    """delete, and with a Lister deletecollection; needs a Getter or a Lister."""

    def delete(self, ctx: RequestContext, obj: Any) -> Any | Awaitable[Any]:
        """Remove the object. Not called on dry run."""
        ...


@runtime_checkable
class Connecter(Protocol):
    """A subresource that is connected to: see App.connect."""

    def connect(self, obj: Any, ctx: RequestContext, stream: Any) -> Any:
        """Talk on the stream until done."""
        ...


PROTOCOLS: tuple[type, ...] = (Getter, Lister, Watcher, Creater, Updater, Deleter)


def verbs_of(storage: object, *, polled: bool = False) -> tuple[str, ...]:
    """The verbs that a storage object serves, in discovery's order."""
    reads = isinstance(storage, Getter | Lister)
    found = {
        "create": isinstance(storage, Creater),
        "delete": isinstance(storage, Deleter) and reads,
        "deletecollection": isinstance(storage, Deleter) and isinstance(storage, Lister),
        "get": isinstance(storage, Getter),
        "list": isinstance(storage, Lister),
        "patch": isinstance(storage, Updater) and reads,
        "update": isinstance(storage, Updater) and reads,
        "watch": isinstance(storage, Lister) and (polled or isinstance(storage, Watcher)),
    }
    return tuple(verb for verb, served in found.items() if served)


def problems_of(storage: object) -> list[str]:
    """Why a storage object cannot be served."""
    if not isinstance(storage, PROTOCOLS):
        return ["it has none of the methods get, list, watch, create, update, delete"]
    problems = []
    if isinstance(storage, Watcher) and not isinstance(storage, Lister):
        problems.append("watch needs list: clients list before they watch")
    if isinstance(storage, Updater | Deleter) and not isinstance(storage, Getter | Lister):
        problems.append("update and delete need get or list: they start from the object as it is")
    return problems
