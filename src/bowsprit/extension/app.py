"""App: what an author declares his kinds on. Decorators register here and change nothing else.

app = App("hello.example.com")

@app.kind(short_names=["gr"], columns={"Text": ".spec.text"})
class Greeting(Kind): ...

@app.validate(Greeting)
def check(new: Greeting, old: Greeting | None, ctx: RequestContext): ...
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from bowsprit.extension.declaration import Connection, Declaration, DeclaredVersion, Function, ServedResource, plural_of
from bowsprit.extension.errors import ExtensionError
from bowsprit.extension.kind import Kind
from bowsprit.extension.markers import Column, Scale
from bowsprit.extension.storage import StoreSpec, memory, problems_of
from bowsprit.machinery.discovery import version_key
from bowsprit.machinery.names import GroupVersion
from bowsprit.machinery.validation import is_dns1035_label, is_dns1123_subdomain

if TYPE_CHECKING:
    from bowsprit.client.rest import RestClient
    from bowsprit.extension.reader import Reader

K = TypeVar("K", bound=Kind)
F = TypeVar("F", bound=Function)
Background = Callable[[], Awaitable[None]]


class App:
    """The kinds of one extension API server.

    Args:
        group: the API group of the kinds that name no other.
        name: what the server's own objects (Deployment, Service…) are called; default: the group's first label.
        store: where kinds without a storage of their own live.
    """

    def __init__(self, group: str, *, name: str = "", store: StoreSpec | None = None) -> None:
        if problems := is_dns1123_subdomain(group):
            raise ExtensionError(f"group {group!r}: {problems[0]}", reason="InvalidGroup")
        if "." not in group:
            raise ExtensionError(
                f"group {group!r} has no dot",
                reason="InvalidGroup",
                hint=f"groups without a dot belong to Kubernetes; use {group}.example.com",
            )
        self.group = group
        self.name = name or group.partition(".")[0]
        if problems := is_dns1035_label(self.name):
            raise ExtensionError(f"name {self.name!r}: {problems[0]}", reason="InvalidName", hint="pass App(…, name=…)")
        self.store = store or memory()
        self.declarations: list[Declaration] = []
        self.backgrounds: list[Background] = []
        self._core: RestClient | None = None
        self._reader: Reader | None = None

    # -- kinds ---------------------------------------------------------------------------------------------------------

    def kind(
        self,
        *,
        version: str = "v1",
        group: str = "",
        kind: str = "",
        plural: str = "",
        singular: str = "",
        scope: Literal["Namespaced", "Cluster"] = "Namespaced",
        short_names: Sequence[str] = (),
        categories: Sequence[str] = (),
        columns: Mapping[str, str | Column] | None = None,
        selectable: Sequence[str] = (),
        status: bool | None = None,
        scale: Scale | bool = False,
        storage: object | None = None,
        poll: float | None = None,
        storage_version: bool = False,
        served: bool = True,
        deprecated: str | bool = False,
    ) -> Callable[[type[K]], type[K]]:
        """Serves a class as a kind, or as a further version of one that was declared with the same name.

        Args:
            kind: default: the class's name.
            plural: default: the English plural.
            columns: heading to JSONPath; Name and Age are always there.
            selectable: JSONPaths of fields that field selectors may name.
            status: whether there is a status subresource; default: if the class has a field `status`.
            scale: the scale subresource; True: replicas at `.spec.replicas` and `.status.replicas`.
            storage: memory(), sqlite(PATH), or an object with some of the methods in `extension.storage`.
            poll: list the author's storage every so many seconds, which makes it watchable.
            storage_version: objects are stored in this version; default: the most preferred one.
            deprecated: the warning for clients of this version, or True for the usual one.
        """

        def register(model: type[K]) -> type[K]:
            if not (isinstance(model, type) and issubclass(model, Kind)):
                raise ExtensionError(f"{model!r} is not a subclass of Kind")
            name = kind or model.__name__
            if model.model_fields["metadata"].annotation is not Kind.model_fields["metadata"].annotation:
                raise ExtensionError(f"{name}: metadata belongs to every kind and cannot be declared anew")
            where = group or self.group
            if problems := is_dns1035_label(version):
                raise ExtensionError(f"{name}: version {version!r}: {problems[0]}", reason="InvalidVersion")
            declared = DeclaredVersion(model, version, served, deprecated, columns)
            declaration = self._find(where, name)
            of_the_kind = {
                "plural": plural,
                "singular": singular,
                "short_names": tuple(short_names),
                "categories": tuple(categories),
                "selectable": tuple(selectable),
                "status": status,
                "scale": Scale() if scale is True else scale or None,
                "storage": storage,
                "poll": poll,
            }
            if declaration is None:
                if storage is not None and not isinstance(storage, StoreSpec) and (wrong := problems_of(storage)):
                    raise ExtensionError(
                        f"{name}: storage {type(storage).__name__}: {wrong[0]}", reason="InvalidStorage"
                    )
                declaration = Declaration(
                    where,
                    name,
                    plural or plural_of(name),
                    singular or name.lower(),
                    scope == "Namespaced",
                    tuple(short_names),
                    tuple(categories),
                    tuple(selectable),
                    status,
                    Scale() if scale is True else scale or None,
                    storage,
                    poll,
                )
                self.declarations.append(declaration)
            elif again := [
                name for name, given in of_the_kind.items() if given and given != getattr(declaration, name)
            ]:
                raise ExtensionError(
                    f"{name}: {again[0]} of version {version} is not that of the version before",
                    hint="what concerns the kind as a whole is said with its first version",
                )
            elif any(each.version == version for each in declaration.versions):
                raise ExtensionError(f"{name} is declared twice in {where}/{version}", hint="give one another version=")
            declaration.versions.append(declared)
            if storage_version:
                declaration.storage_version = version
            return model

        return register

    def _find(self, group: str, kind: str) -> Declaration | None:
        for each in self.declarations:
            if (each.group, each.kind) == (group, kind):
                return each
        return None

    def declaration(self, model: type[Kind]) -> Declaration:
        """The declaration that a class belongs to. Raises ExtensionError."""
        for each in self.declarations:
            if any(version.model is model for version in each.versions):
                return each
        raise ExtensionError(f"{model.__name__} is not a kind of this app", hint="decorate it with @app.kind(…) first")

    # -- functions of kinds --------------------------------------------------------------------------------------------

    def default(self, model: type[Kind]) -> Callable[[F], F]:
        """``(obj) -> None``: sets what a client left out; called on everything that is written in this version."""
        return self._register(self.declaration(model).defaults, model, waits=False)

    def validate(self, model: type[Kind]) -> Callable[[F], F]:
        """``(new, old or None, ctx)``: raises Invalid, or yields or returns Invalids and FieldErrors."""
        return self._register(self.declaration(model).validations, model, waits=False)

    def mutate(self, model: type[Kind]) -> Callable[[F], F]:
        """``(obj, old or None, ctx)``, may be async: admission that changes the object before webhooks see it."""
        return self._register(self.declaration(model).mutations, model)

    def admit(self, model: type[Kind]) -> Callable[[F], F]:
        """``(obj or None, old or None, ctx)``, may be async: admission that refuses; `obj` is None on deletion."""
        return self._register(self.declaration(model).admissions, model)

    def convert(self, source: type[Kind], target: type[Kind]) -> Callable[[F], F]:
        """``(obj of source) -> obj of target``. Metadata is carried over."""
        conversions = self.declaration(source).conversions

        def register(function: F) -> F:
            _refuse_coroutine(function)
            conversions[source, target] = function
            return function

        return register

    def connect(self, model: type[Kind], name: str, *, methods: Sequence[str] = ("GET",)) -> Callable[[F], F]:
        """``(obj, ctx, stream)``: a subresource that clients connect to, by HTTP or WebSocket; see extension.stream.

        An async generator sends what it yields; a coroutine or function talks on the stream, or returns the whole answer.
        """
        connections = self.declaration(model).connections

        def register(function: F) -> F:
            called = getattr(function, "connect", function)
            connections[name] = Connection(name, called, tuple(method.upper() for method in methods))
            return function

        return register

    def background(self, function: Background) -> Background:
        """``async () -> None``: runs while the server does; it is started again when it fails."""
        self.backgrounds.append(function)
        return function

    @staticmethod
    def _register(
        functions: dict[type[Kind], list[Function]], model: type[Kind], *, waits: bool = True
    ) -> Callable[[F], F]:
        def register(function: F) -> F:
            if not waits:
                _refuse_coroutine(function)
            functions.setdefault(model, []).append(function)
            return function

        return register

    # -- what is served ------------------------------------------------------------------------------------------------

    @property
    def group_versions(self) -> list[GroupVersion]:
        """All that is served, the most preferred first."""
        found = {GroupVersion(each.group, each.version) for each in self.resources}
        return sorted(found, key=lambda gv: (gv.group != self.group, gv.group, version_key(gv.version)))

    @property
    def resources(self) -> list[ServedResource]:
        """Every resource in every version."""
        return [
            ServedResource(
                declaration.group,
                version.version,
                declaration.kind,
                declaration.plural,
                declaration.singular,
                declaration.namespaced,
                declaration.verbs,
                declaration.subresources,
                tuple(declaration.short_names),
                tuple(declaration.categories),
                declaration.is_stored,
            )
            for declaration in self.declarations
            for version in declaration.versions
            if version.served
        ]

    def check(self) -> None:
        """Raises ExtensionError for anything that cannot be served."""
        if not self.resources:
            raise ExtensionError("the app serves no kind", hint="decorate a subclass of Kind with @app.kind(…)")
        from bowsprit.extension.definition import check_definition

        for declaration in self.declarations:
            declaration.check()
            check_definition(declaration)

    # -- while it runs -------------------------------------------------------------------------------------------------

    def bind(self, core: RestClient | None, reader: Reader | None) -> None:
        """Called by the server that serves the app, with None when it ends."""
        self._core, self._reader = core, reader

    @property
    def core(self) -> RestClient:
        """A client of the core API server, with the rights of this server. Raises ExtensionError before it runs."""
        if self._core is None:
            raise ExtensionError(
                "there is no core API server", reason="NotServing", hint="use app.core in functions only"
            )
        return self._core

    def get(self, model: type[K], name: str, namespace: str = "") -> K | None:
        """An object of one of the app's stored kinds, None if there is none."""
        return self._reading().get(model, namespace, name)

    def objects(self, model: type[K], namespace: str | None = None) -> list[K]:
        """The objects of one of the app's stored kinds, of one namespace if it is given."""
        return self._reading().objects(model, namespace)

    def _reading(self) -> Reader:
        if self._reader is None:
            raise ExtensionError("the app is not being served", reason="NotServing")
        return self._reader


def _refuse_coroutine(function: Function) -> None:
    """Defaults, validation and conversion run in the middle of other work, which does not wait."""
    if inspect.iscoroutinefunction(function):
        raise ExtensionError(
            f"{function.__name__} must not be async",
            hint="what waits for others belongs into @app.mutate or @app.admit",
        )
