"""The protocols of admission: what plugins see and do. Implementations live in `apiserver.admission`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.names import GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj


class Operation(Enum):
    """What is being done to the object."""

    CREATE = "CREATE"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    CONNECT = "CONNECT"


@dataclass(slots=True)
class AdmissionAttributes:
    """One admission question. Mutating plugins change `object` in place or replace it."""

    operation: Operation
    gvr: GroupVersionResource
    gvk: GroupVersionKind
    subresource: str
    namespace: str
    name: str  # "" on create with generateName
    object: Obj | None  # None on DELETE
    old_object: Obj | None  # None on CREATE and CONNECT
    options: Obj  # CreateOptions, UpdateOptions, DeleteOptions, PatchOptions with kind and apiVersion
    user: UserInfo
    dry_run: bool = False
    cluster_scoped: bool = False
    resource: Any = None  # the apiserver.resource.Resource being written, for conversions and schemas
    warn: Callable[[str], None] = lambda text: None
    annotations: dict[str, str] = field(default_factory=dict)  # audit annotations
    reinvocation: dict[str, Any] = field(default_factory=dict)  # plugins' notes between invocations


class Admission(Protocol):
    """The whole chain as the verbs see it. A plugin has the same two methods; each is called only if present."""

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Change `attributes.object`, or raise StatusError to refuse."""
        ...

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Raise StatusError to refuse."""
        ...


class AllowAll:
    """Admission of a server that has no plugins."""

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        return None

    async def validate(self, attributes: AdmissionAttributes) -> None:
        return None
