"""Who owns whom: the garbage collector's picture of the cluster, and what it decides for an object. No I/O.

Upstream: pkg/controller/garbagecollector graph.go, attemptToDeleteItem.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


@dataclass(slots=True, eq=False)
class Node:
    """One object: where it is, its owners, and who depends on it."""

    uid: str
    gvr: GroupVersionResource
    kind: str
    namespace: str
    name: str
    owners: tuple[Owner, ...] = ()
    finalizers: frozenset[str] = frozenset()
    deleting: bool = False

    @property
    def waits_for_dependents(self) -> bool:
        """Being deleted in the foreground."""
        return self.deleting and FOREGROUND in self.finalizers

    @property
    def orphans_dependents(self) -> bool:
        """Being deleted while its dependents are to stay."""
        return self.deleting and ORPHAN in self.finalizers


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner reference."""

    api_version: str
    kind: str
    name: str
    uid: str
    blocks: bool = False
    controller: bool = False

    @classmethod
    def of(cls, reference: Obj) -> Owner:
        """Read an ownerReference."""
        return cls(
            reference.get("apiVersion") or "",
            reference.get("kind") or "",
            reference.get("name") or "",
            reference.get("uid") or "",
            bool(reference.get("blockOwnerDeletion")),
            bool(reference.get("controller")),
        )


class Verdict(Enum):
    """What is to be done with an object."""

    KEEP = "keep"
    DELETE_BACKGROUND = "Background"
    DELETE_FOREGROUND = "Foreground"
    DELETE_ORPHAN = "Orphan"
    DROP_REFERENCES = "drop references"
    FINISH_FOREGROUND = "remove the foreground finalizer"
    ORPHAN_DEPENDENTS = "orphan dependents"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict, with the owner uids to drop, the dependents to look at, or those whose reference is to stop blocking."""

    verdict: Verdict
    uids: tuple[str, ...] = ()
    dependents: tuple[Node, ...] = ()
    unblock: bool = False


@dataclass(slots=True)
class Graph:
    """All known objects by uid."""

    nodes: dict[str, Node] = field(default_factory=dict)
    _dependents: dict[str, dict[str, None]] = field(default_factory=dict)

    def put(self, obj: Obj, gvr: GroupVersionResource) -> list[Node]:
        """Note an object's state; answers the nodes that must be looked at because of it."""
        meta = obj["metadata"]
        uid = meta["uid"]
        node = self.nodes.get(uid)
        fresh = node is None
        if node is None:
            node = self.nodes[uid] = Node(uid, gvr, obj.get("kind") or "", meta.get("namespace") or "", meta["name"])
        owners = tuple(Owner.of(reference) for reference in meta.get("ownerReferences") or ())
        moved = owners != node.owners
        if moved:
            for owner in node.owners:
                self._unlink(owner.uid, uid)
            for owner in owners:
                self._dependents.setdefault(owner.uid, {})[uid] = None
        freed = [self.nodes[owner.uid] for owner in node.owners if moved and owner.uid in self.nodes]
        node.owners = owners
        node.finalizers = frozenset(meta.get("finalizers") or ())
        node.deleting = bool(meta.get("deletionTimestamp"))
        todo = [owner for owner in freed if owner.waits_for_dependents]
        if node.waits_for_dependents or node.orphans_dependents:
            todo.append(node)
            if node.waits_for_dependents:
                todo.extend(self.dependents(uid))
        elif (fresh or moved) and self.needs_look(node):
            todo.append(node)
        return todo

    def remove(self, uid: str) -> list[Node]:
        """An object is gone; answers its dependents, and its owners that wait for it."""
        node = self.nodes.pop(uid, None)
        if node is None:
            return []
        for owner in node.owners:
            self._unlink(owner.uid, uid)
        waiting = [self.nodes[owner.uid] for owner in node.owners if owner.uid in self.nodes]
        return [*self.dependents(uid), *(owner for owner in waiting if owner.waits_for_dependents)]

    def dependents(self, uid: str) -> list[Node]:
        """The objects with an owner reference to ``uid``."""
        return [self.nodes[child] for child in self._dependents.get(uid, ()) if child in self.nodes]

    def holds(self, owner: Owner, child: Node) -> bool | None:
        """Whether the owner exists for this child: None if the graph does not know (someone must ask the server).

        A reference whose uid belongs to an object of another namespace, kind or name does not hold (cross-namespace
        references are not allowed: the owner counts as absent).
        """
        node = self.nodes.get(owner.uid)
        if node is None:
            return None
        group, _, _ = owner.api_version.rpartition("/")
        same_type = (group, owner.kind, owner.name) == (node.gvr.group, node.kind, node.name)
        return same_type and node.namespace in ("", child.namespace)

    def needs_look(self, node: Node) -> bool:
        """Whether one of its owners is unknown, is not what the reference says, or waits for its dependents."""
        return any(
            self.holds(owner, node) is not True or self.nodes[owner.uid].waits_for_dependents for owner in node.owners
        )

    def _unlink(self, owner: str, child: str) -> None:
        children = self._dependents.get(owner)
        if children is not None:
            children.pop(child, None)
            if not children:
                del self._dependents[owner]


def decide(graph: Graph, node: Node, absent: Iterable[str]) -> Decision:
    """What to do with an object, given the uids of its owners that are known to be absent."""
    if node.orphans_dependents:
        return Decision(Verdict.ORPHAN_DEPENDENTS, dependents=tuple(graph.dependents(node.uid)))
    if node.waits_for_dependents:
        blocking = [child for child in graph.dependents(node.uid) if _blocks(child, node.uid)]
        if not blocking:
            return Decision(Verdict.FINISH_FOREGROUND)
        return Decision(Verdict.KEEP, dependents=tuple(child for child in blocking if not child.deleting))
    if node.deleting or not node.owners:
        return Decision(Verdict.KEEP)
    gone = set(absent)
    dangling = [owner.uid for owner in node.owners if owner.uid in gone]
    waiting = [
        owner.uid
        for owner in node.owners
        if owner.uid not in gone and (known := graph.nodes.get(owner.uid)) is not None and known.waits_for_dependents
    ]
    solid = len(node.owners) - len(dangling) - len(waiting)
    if solid:
        drop = (*dangling, *waiting)
        return Decision(Verdict.DROP_REFERENCES, drop) if drop else Decision(Verdict.KEEP)
    if waiting and graph.dependents(node.uid):
        # Dependents that block this object while it is itself being waited for would be a deadlock of a cycle.
        cyclic = any(child.waits_for_dependents for child in graph.dependents(node.uid))
        return Decision(Verdict.DELETE_FOREGROUND, unblock=cyclic)
    if ORPHAN in node.finalizers:
        return Decision(Verdict.DELETE_ORPHAN)
    if FOREGROUND in node.finalizers:
        return Decision(Verdict.DELETE_FOREGROUND)
    return Decision(Verdict.DELETE_BACKGROUND)


def _blocks(child: Node, owner_uid: str) -> bool:
    return any(owner.uid == owner_uid and owner.blocks for owner in child.owners)
