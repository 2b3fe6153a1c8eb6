"""What an author has declared of a kind: its names, its versions, its storage, and the functions that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bowsprit.extension.errors import ExtensionError
from bowsprit.extension.kind import Kind
from bowsprit.extension.markers import Column, Scale
from bowsprit.extension.modelschema import kind_schema
from bowsprit.extension.storage import StoreSpec, verbs_of
from bowsprit.machinery.discovery import version_key
from bowsprit.machinery.names import GroupVersion
from bowsprit.machinery.objects import Obj

Function = Callable[..., Any]
STORED_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(slots=True, eq=False)
class DeclaredVersion:
    """One class: the kind in one version."""

    model: type[Kind]
    version: str
    served: bool
    deprecated: str | bool  # the warning sent with every request; True: upstream's
    columns: Mapping[str, str | Column] | None
    _schema: Obj | None = None

    @property
    def schema(self) -> Obj:
        """The structural schema."""
        if self._schema is None:
            self._schema = kind_schema(self.model)
        return self._schema

    @property
    def has_status(self) -> bool:
        """Whether the model has a status."""
        return "status" in self.schema["properties"]


@dataclass(slots=True, eq=False)
class Connection:
    """A subresource that is connected to."""

    name: str
    function: Function
    methods: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Declaration:
    """One kind with all its versions."""

    group: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    short_names: Sequence[str]
    categories: Sequence[str]
    selectable: Sequence[str]
    status: bool | None  # None: if a version's model has a status
    scale: Scale | None
    storage: object | None  # StoreSpec, an object with verbs, None = the app's
    poll: float | None
    versions: list[DeclaredVersion] = field(default_factory=list)
    storage_version: str = ""
    defaults: dict[type[Kind], list[Function]] = field(default_factory=dict)
    validations: dict[type[Kind], list[Function]] = field(default_factory=dict)
    mutations: dict[type[Kind], list[Function]] = field(default_factory=dict)
    admissions: dict[type[Kind], list[Function]] = field(default_factory=dict)
    conversions: dict[tuple[type[Kind], type[Kind]], Function] = field(default_factory=dict)
    connections: dict[str, Connection] = field(default_factory=dict)

    @property
    def is_stored(self) -> bool:
        """Whether the library stores the objects."""
        return self.storage is None or isinstance(self.storage, StoreSpec)

    @property
    def verbs(self) -> tuple[str, ...]:
        """What clients may do."""
        return STORED_VERBS if self.is_stored else verbs_of(self.storage, polled=self.poll is not None)

    @property
    def hub(self) -> DeclaredVersion:
        """The version in which objects are stored."""
        return next(each for each in self.versions if each.version == self.hub_name)

    @property
    def hub_name(self) -> str:
        """The name of the storage version: the one that was declared so, else the most preferred."""
        return self.storage_version or min((each.version for each in self.versions), key=version_key)

    @property
    def has_status(self) -> bool:
        """Whether there is a status subresource: only what can be updated has one."""
        if not self.is_stored and "update" not in self.verbs:
            return False
        return self.status if self.status is not None else any(each.has_status for each in self.versions)

    @property
    def subresources(self) -> tuple[str, ...]:
        """The names of the subresources."""
        found = [*self.connections]
        if self.has_status:
            found.append("status")
        if self.scale is not None:
            found.append("scale")
        return tuple(sorted(found))

    def of_version(self, version: str) -> DeclaredVersion:
        """The version called so. Raises KeyError."""
        for each in self.versions:
            if each.version == version:
                return each
        raise KeyError(version)

    def check(self) -> None:
        """Raises ExtensionError for what only shows once all is declared."""
        models = {each.model for each in self.versions}
        hub = self.hub.model
        for source, target in self.conversions:
            if source not in models or target not in models:
                raise ExtensionError(f"{self.kind}: a conversion names a class that is none of its versions")
            if hub not in (source, target):
                raise ExtensionError(
                    f"{self.kind}: the conversion from {source.__name__} to {target.__name__} misses the storage version",
                    hint=f"convert every version to and from {hub.__name__} ({self.hub_name})",
                )
            if (target, source) not in self.conversions:
                raise ExtensionError(
                    f"{self.kind}: {source.__name__} can be converted to {target.__name__}, but not back",
                    hint=f"add @app.convert({target.__name__}, {source.__name__})",
                )


@dataclass(frozen=True, slots=True)
class ServedResource:
    """One resource in one version, as discovery shows it."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    verbs: tuple[str, ...]
    subresources: tuple[str, ...]
    short_names: tuple[str, ...]
    categories: tuple[str, ...]
    stored: bool

    @property
    def gv(self) -> GroupVersion:
        """The group-version."""
        return GroupVersion(self.group, self.version)


def plural_of(kind: str) -> str:
    """The lower-case plural of an English noun, for the regular ones."""
    word = kind.lower()
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"
