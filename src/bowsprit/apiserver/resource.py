"""Resource: how a kind plugs into the server.

A `Resource` is one stored collection (upstream's registry store): its key prefix, its strategy, its subresources, and the
versions through which it is served. A `Version` belongs to one group-version; versions of different groups may share one
Resource (core/v1 and events.k8s.io/v1 Events). Virtual resources (SubjectAccessReview) have no storage but functions.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from bowsprit.apiserver.strategy import Strategy
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.names import GroupResource, GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.typed import Typed

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest, StreamResponse

    from bowsprit.apiserver.answer import Answer, Sent
    from bowsprit.apiserver.collection import Collection
    from bowsprit.apiserver.conversion import Conversion
    from bowsprit.apiserver.request import RequestContext
    from bowsprit.store.protocol import Store

STANDARD_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")

Convert = Callable[[Obj], Obj]  # must not change its argument; sets apiVersion and kind of the result


class TypeSchema(Protocol):
    """What the verbs ask of a version's schema (machinery.schema.Schema has the pieces)."""

    def decode(self, obj: Obj, tree: Any, *, applied: bool = False) -> tuple[Obj, list[str]]:
        """Drops fields the type does not know (in place is fine) and tells them, with the keys that `tree` repeats, in the
        order of the text: 'unknown field "spec.x"', 'duplicate field "data.a"'.

        `tree` is `obj`, or its text with machinery.codec.Pairs for objects when keys repeat. `applied`: `obj` is what
        server-side apply has made, whose nulls are for `validate` to judge. Raises DecodeError for values of
        the wrong JSON type ("json: cannot unmarshal string into Go struct field …").
        """
        ...

    def validate(self, obj: Obj, old: Obj | None) -> list[FieldError]:
        """Schema errors of an object of this version (custom resources; built-in kinds return [])."""
        ...

    def openapi(self) -> Obj | Typed | None:
        """The schema for server-side apply, None if the type is untyped; not asked for built-in types."""
        ...


@dataclass(frozen=True, slots=True)
class Column:
    """metav1.TableColumnDefinition."""

    name: str
    type: str
    description: str = ""
    format: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Printer:
    """Table columns and how an object fills them: `cells(obj, now)`; `conditions(obj)` are the row's conditions.

    `order(obj)`: by what the rows of a list are sorted, where that is not the order of the list.
    """

    columns: Sequence[Column]
    cells: Callable[[Obj, Any], list[Any]]  # (object in the requested version, now: datetime) -> one cell per column
    conditions: Callable[[Obj], list[Obj]] | None = None
    order: Callable[[Obj], Any] | None = None


@dataclass(slots=True, eq=False, weakref_slot=True)
class Version:
    """One group-version through which a resource is served."""

    gvr: GroupVersionResource
    gvk: GroupVersionKind
    schema: TypeSchema | None = None
    to_hub: Convert | None = None  # None: only apiVersion differs (or nothing)
    from_hub: Convert | None = None
    printer: Printer | None = None  # None: Name and Age / Created At
    served: bool = True
    deprecation_warning: str = ""  # sent as a Warning header with every request of this version
    patch_types: frozenset[str] = frozenset(
        {"json", "merge", "strategic", "apply"}
    )  # custom resources: without strategic
    protobuf: bool = True  # the type has a protobuf form
    list_kind: str = ""  # default: Kind + "List"

    @property
    def list_kind_name(self) -> str:
        return self.list_kind or self.gvk.kind + "List"


class Subresource:
    """A subresource; the subclasses below say of which sort."""

    name: str
    verbs: tuple[str, ...]
    gvk: GroupVersionKind | None  # the body's kind when it is not the resource's own

    def __init__(self, name: str, verbs: Sequence[str], gvk: GroupVersionKind | None = None) -> None:
        self.name = name
        self.verbs = tuple(verbs)
        self.gvk = gvk


class StatusSubresource(Subresource):
    """get/update/patch of the same object under another strategy: status, approval, ephemeralcontainers, resize, finalize."""

    def __init__(
        self, strategy: Strategy, name: str = "status", verbs: Sequence[str] = ("get", "patch", "update")
    ) -> None:
        super().__init__(name, verbs)
        self.strategy = strategy


class ScaleSubresource(Subresource):
    """autoscaling/v1 Scale of an object, by JSON field paths."""

    def __init__(
        self,
        spec_replicas: Sequence[str] = ("spec", "replicas"),
        status_replicas: Sequence[str] = ("status", "replicas"),
        selector: Callable[[Obj], str] | None = None,  # object -> status.selector as text
        default_replicas: int
        | None = 1,  # spec.replicas of an object without it; None: an error, as for custom resources
    ) -> None:
        super().__init__("scale", ("get", "patch", "update"), GroupVersionKind("autoscaling", "v1", "Scale"))
        self.spec_replicas = tuple(spec_replicas)
        self.status_replicas = tuple(status_replicas)
        self.selector = selector
        self.default_replicas = default_replicas


CreateSubresourceHandler = Callable[["RequestContext", str, Obj], Awaitable[Obj]]


class ActionSubresource(Subresource):
    """POST of some other kind to an object: binding, eviction, token. `handler(ctx, name, body) -> answer` (201).

    An answer of kind Status is sent with its own code. Body decoding, admission (create of gvk, subresource set) and
    dryRun parsing are done by the server; `versions` are further body versions accepted as they are.
    """

    def __init__(
        self,
        name: str,
        gvk: GroupVersionKind,
        handler: CreateSubresourceHandler,
        *,
        schema: TypeSchema | None = None,
        default: Callable[[Obj], None] | None = None,
        accepts: Iterable[GroupVersionKind] = (),
    ) -> None:
        super().__init__(name, ("create",), gvk)
        self.handler = handler
        self.schema = schema
        self.default = default
        self.accepts = frozenset(accepts)


ConnectHandler = Callable[["RequestContext", str, "BaseRequest"], Awaitable["Answer | Sent | StreamResponse"]]


class ConnectSubresource(Subresource):
    """exec, attach, portforward, proxy, log: the handler gets the raw request and makes the whole answer.

    `info.parts[3:]` is the path behind the subresource when `takes_path`. StatusErrors it raises before it has prepared an
    answer become Status answers.
    """

    def __init__(
        self,
        name: str,
        gvk: GroupVersionKind,
        handler: ConnectHandler,
        *,
        methods: Sequence[str] = ("GET", "POST"),
        verbs: Sequence[str] = ("create", "get"),  # as discovery lists them
        takes_path: bool = False,
        connects: bool = True,  # False: a plain GET (log): no CONNECT admission
    ) -> None:
        super().__init__(name, verbs, gvk)
        self.handler = handler
        self.methods = tuple(methods)
        self.takes_path = takes_path
        self.connects = connects


@dataclass(slots=True, eq=False)
class Virtual:
    """Functions of a resource without storage; objects are in the requested version."""

    create: Callable[[RequestContext, Obj], Awaitable[Obj]] | None = None
    get: Callable[[RequestContext, str], Awaitable[Obj]] | None = None
    list: Callable[[RequestContext], Awaitable[Obj]] | None = None  # gives the whole List object


Open = Callable[["RequestContext", "Collection"], Awaitable["Collection"]]
"""Gives the collection that one request is answered from, in place of the registered one."""


@dataclass(slots=True, eq=False)
class Resource:
    """One stored (or virtual) collection and everything the server must know to serve it."""

    kind: str
    plural: str
    versions: Sequence[Version]
    storage_version: str = ""  # the hub's apiVersion ("apps/v1"); default: that of versions[0]
    group: str = ""
    singular: str = ""
    namespaced: bool = True
    short_names: Sequence[str] = ()
    categories: Sequence[str] = ()
    verbs: Sequence[str] = STANDARD_VERBS
    strategy: Strategy = field(default_factory=Strategy)
    subresources: Mapping[str, Subresource] = field(default_factory=dict)
    virtual: Virtual | None = None
    ttl_seconds: int | None = None  # objects vanish so long after their last write (Events: 3600)
    standard_finalizers: bool = (
        False  # finalizers without a domain must be one of the old ones (kinds of Kubernetes itself)
    )
    # What the kind's own validation of updates says of the metadata a second time, after the registry: what must not change,
    # and the rules of creation.
    repeats_update_rules: bool = True
    repeats_creation_rules: bool = False
    storage_version_hash: str = ""  # as discovery shows it; "" = computed as upstream does
    custom: bool = False  # from a CustomResourceDefinition: untyped answers, and other texts for what is not found
    store: Store | None = None  # where the objects live, if not in the server's store
    open: Open | None = None  # for objects that live outside the server
    conversion: Conversion | None = (
        None  # whoever has to be asked before `to_hub` and `from_hub` of the versions answer
    )
    key_prefix: str = (
        ""  # default as upstream: "/registry/<plural>/", "/registry/<group>/<plural>/" for custom resources
    )

    def __post_init__(self) -> None:
        self.singular = self.singular or self.kind.lower()
        self.storage_version = self.storage_version or self.versions[0].gvk.api_version
        folder = f"{self.group}/{self.plural}" if self.custom else self.plural
        self.key_prefix = self.key_prefix or f"/registry/{folder}/"

    @property
    def gr(self) -> GroupResource:
        return GroupResource(self.group, self.plural)

    def key(self, namespace: str, name: str) -> str:
        return f"{self.key_prefix}{namespace}/{name}" if self.namespaced else self.key_prefix + name
