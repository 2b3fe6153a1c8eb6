"""OpenAPI v3 documents, one per group-version, as kube-openapi's builder3 writes them.

What a server serves is told with `ServedKind` and `ServedSubresource`; schemas come by name from the caller. Parameters are
those of Kubernetes v1.36 (generated data). Parameters that all operations of a path share stand once, at the path.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import orjson

from bowsprit.machinery.names import GroupVersion, GroupVersionKind
from bowsprit.machinery.objects import Obj

REF = "#/components/schemas/"
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
TYPED_MEDIA = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
CUSTOM_MEDIA = ("application/json", "application/yaml")
INFO = {"title": "Kubernetes", "version": "1.36"}
_CUSTOM_INFO = {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}
_STREAMS = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
_PATCHES = ("application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json")
_STRATEGIC = "application/strategic-merge-patch+json"
_LIST = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
)
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_PATCH = ("dryRun", "patch.fieldManager", "fieldValidation", "force")
_DELETE = (
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
)
_DELETE_MANY = tuple(sorted({*_LIST, *_DELETE} - {"allowWatchBookmarks", "watch"}))
# Query parameters of the subresources that are connected to.
_CONNECT = {
    "attach": ("attach.container", "attach.stderr", "attach.stdin", "attach.stdout", "attach.tty"),
    "exec": ("command", "exec.container", "exec.stderr", "exec.stdin", "exec.stdout", "exec.tty"),
    "portforward": ("ports",),
}
_LOG = (
    "log.container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
)
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
# Groups of which the definitions published with custom resources know nothing.
_NOT_WITH_CUSTOM = frozenset(
    {"admission.k8s.io", "apiextensions.k8s.io", "apiregistration.k8s.io", "imagepolicy.k8s.io"}
)


@dataclass(frozen=True, slots=True)
class ServedSubresource:
    """A subresource: `definition` names the schema of its body, "" for text; `methods` are given when it is connected to."""

    name: str
    gvk: GroupVersionKind
    definition: str
    verbs: tuple[str, ...]
    methods: tuple[str, ...] = ()
    takes_path: bool = False


@dataclass(frozen=True, slots=True)
class ServedKind:
    """A resource in one version; `definition` names its schema, `list_definition` that of its list."""

    gvk: GroupVersionKind
    plural: str
    namespaced: bool
    verbs: tuple[str, ...]
    definition: str
    list_definition: str
    subresources: tuple[ServedSubresource, ...] = field(default=())
    custom: bool = False  # of a CustomResourceDefinition: fewer media types and parameters
    deletes_to_object: bool = False


def document(gv: GroupVersion, kinds: Iterable[ServedKind], schema: Callable[[str], Obj | None]) -> Obj:
    """The document of one group-version.

    Args:
        kinds: what is served there.
        schema: gives a component schema by name; None if there is none.
    """
    prefix = f"/apis/{gv.group}/{gv.version}" if gv.group else f"/api/{gv.version}"
    words = _Words(gv)
    paths: dict[str, Obj] = {}
    kinds = list(kinds)
    custom = all(kind.custom for kind in kinds)
    if not custom:
        paths[f"{prefix}/"] = {
            "get": {
                "tags": [words.tag],
                "description": "get available resources",
                "operationId": f"get{words.title}APIResources",
                "responses": _responses(META + "APIResourceList", (200,), TYPED_MEDIA),
            }
        }
    for kind in kinds:
        for path, operations in _Paths(prefix, words, kind).all():
            paths[path] = _path_item(path, operations)
    result = _complete(paths, lambda name: _of_version(schema(name), gv, custom=custom))
    if custom:
        result["info"] = _CUSTOM_INFO
        del result["components"]["securitySchemes"]
    return result


def plain_document(
    path: str, *, tag: str, description: str, operation: str, definition: str, schema: Callable[[str], Obj | None]
) -> Obj:
    """The document of a path that answers one GET: /apis/, /apis/<group>/, /version/ …

    Args:
        definition: the name of the answer's schema, or a media type, whose answer is a string.
    """
    if "/" in definition:
        content: Obj = {definition: {"schema": {"type": "string"}}}
        responses: Obj = {"200": {"description": "OK", "content": content}, "401": {"description": "Unauthorized"}}
    else:
        media = ("application/json",) if ".version." in definition else TYPED_MEDIA
        responses = _responses(definition, (200,), media)
    operations = {"tags": [tag], "description": description, "operationId": operation, "responses": responses}
    return _complete({path: {"get": operations}}, lambda name: _of_version(schema(name), None))


def group_words(group: str) -> str:
    """``rbac.authorization.k8s.io`` as ``rbacAuthorization``, which is what tags and operation ids are made of."""
    first, *others = (group.removesuffix(".k8s.io") or "core").split(".")
    return first + "".join(part[:1].upper() + part[1:] for part in others)


@cache
def parameters() -> Mapping[str, Any]:
    """The generated parameters: ``{"parameters": {key: {"v3", "reference"}}, "bodies": {...}}``."""
    data = resources.files("bowsprit.machinery").joinpath("data/openapi.json.gz").read_bytes()
    return orjson.loads(gzip.decompress(data))  # type: ignore[no-any-return]


# -- operations ------------------------------------------------------------------------------------------------------------


class _Words:
    """How a group-version is spelled in tags and operation ids."""

    def __init__(self, gv: GroupVersion) -> None:
        group = group_words(gv.group)
        self.tag = f"{group}_{gv.version}"
        self.title = _capital(group) + _capital(gv.version)


class _Paths:
    """The paths of one kind with their operations (upstream: endpoints/installer.go)."""

    def __init__(self, prefix: str, words: _Words, kind: ServedKind) -> None:
        self._prefix, self._words, self._kind = prefix, words, kind
        self._media = CUSTOM_MEDIA if kind.custom else TYPED_MEDIA
        self._scope = "Namespaced" if kind.namespaced else ""
        self._place = f"namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else kind.plural

    def all(self) -> Iterable[tuple[str, dict[str, Obj]]]:
        kind, prefix = self._kind, self._prefix
        if kind.namespaced and "list" in kind.verbs:
            yield f"{prefix}/{kind.plural}", {"get": self._list("ForAllNamespaces")}
        yield from _unless_empty(f"{prefix}/{self._place}", self._collection())
        yield from _unless_empty(f"{prefix}/{self._place}/{{name}}", self._single())
        for subresource in kind.subresources:
            yield from self._of_subresource(subresource)
        if "watch" in kind.verbs and not kind.custom:
            if kind.namespaced:
                yield f"{prefix}/watch/{kind.plural}", {"get": self._watch("", "ListForAllNamespaces")}
            yield f"{prefix}/watch/{self._place}", {"get": self._watch(self._scope, "List")}
            if "get" in kind.verbs:
                yield f"{prefix}/watch/{self._place}/{{name}}", {"get": self._watch(self._scope, "")}

    def _collection(self) -> dict[str, Obj]:
        kind, operations = self._kind, {}
        if "list" in kind.verbs:
            operations["get"] = self._list("")
        if "create" in kind.verbs:
            operations["post"] = self._operation(
                "post", f"create {_article(kind.gvk.kind)}", f"create{{}}{self._scope}{kind.gvk.kind}", _WRITE
            ) | self._bodies(kind.definition, (200, 201, 202))
        if "deletecollection" in kind.verbs:
            name = f"delete{{}}Collection{self._scope}{kind.gvk.kind}"
            several = _LIST if kind.custom else _DELETE_MANY
            operations["delete"] = self._operation(
                "deletecollection", f"delete collection of {kind.gvk.kind}", name, several
            ) | {"responses": _responses(META + "Status", (200,), self._media)}
            if not kind.custom:
                operations["delete"]["requestBody"] = self._body(META + "DeleteOptions")
        return operations

    def _single(self) -> dict[str, Obj]:
        kind, operations = self._kind, {}
        name, definition = f"{self._scope}{kind.gvk.kind}", kind.definition
        if "get" in kind.verbs:
            query = ("resourceVersion",) if kind.custom else ()
            operations["get"] = self._operation("get", f"read the specified {kind.gvk.kind}", f"read{{}}{name}", query)
            operations["get"]["responses"] = _responses(definition, (200,), self._media)
        if "update" in kind.verbs:
            operations["put"] = self._operation(
                "put", f"replace the specified {kind.gvk.kind}", f"replace{{}}{name}", _WRITE
            ) | self._bodies(definition, (200, 201))
        if "delete" in kind.verbs:
            answer = definition if kind.deletes_to_object and not kind.custom else META + "Status"
            operations["delete"] = self._operation(
                "delete", f"delete {_article(kind.gvk.kind)}", f"delete{{}}{name}", _DELETE
            ) | {
                "requestBody": self._body(META + "DeleteOptions"),
                "responses": _responses(answer, (200, 202), self._media),
            }
        if "patch" in kind.verbs:
            operations["patch"] = self._patch(
                f"partially update the specified {kind.gvk.kind}", name, definition, kind.gvk
            )
        return operations

    def _of_subresource(self, subresource: ServedSubresource) -> Iterable[tuple[str, dict[str, Obj]]]:
        path = f"{self._prefix}/{self._place}/{{name}}/{subresource.name}"
        if subresource.methods:
            yield path, self._connections(subresource, "")
            if subresource.takes_path:
                yield path + "/{path}", self._connections(subresource, "WithPath")
            return
        kind = self._kind
        name = f"{self._scope}{kind.gvk.kind}{_capital(subresource.name)}"
        about = f"{subresource.name} of the specified {kind.gvk.kind}"
        gvk = kind.gvk if kind.custom else subresource.gvk
        operations: dict[str, Obj] = {}
        if "get" in subresource.verbs:
            query = ("resourceVersion",) if kind.custom else _LOG if subresource.name == "log" else ()
            operations["get"] = self._operation("get", f"read {about}", f"read{{}}{name}", query, gvk)
            if subresource.definition:
                operations["get"]["responses"] = _responses(subresource.definition, (200,), self._media)
            else:
                content = {media: {"schema": {"type": "string"}} for media in sorted(("text/plain", *self._media))}
                operations["get"]["responses"] = {
                    "200": {"description": "OK", "content": content},
                    "401": {"description": "Unauthorized"},
                }
        if "update" in subresource.verbs:
            operations["put"] = self._operation("put", f"replace {about}", f"replace{{}}{name}", _WRITE, gvk)
            operations["put"] |= self._bodies(subresource.definition, (200, 201))
        if "create" in subresource.verbs:
            made = f"create {subresource.name} of {_article(kind.gvk.kind)}"
            operations["post"] = self._operation("post", made, f"create{{}}{name}", _WRITE, gvk)
            operations["post"] |= self._bodies(subresource.definition, (200, 201, 202))
        if "patch" in subresource.verbs:
            operations["patch"] = self._patch(f"partially update {about}", name, subresource.definition, gvk)
        yield from _unless_empty(path, operations)

    def _connections(self, subresource: ServedSubresource, suffix: str) -> dict[str, Obj]:
        kind, operations = self._kind, {}
        # What authors of kinds connect to has parameters that only they know.
        query = () if kind.custom else _CONNECT.get(subresource.name) or (f"{kind.plural}.path",)
        for method in subresource.methods:
            name = (
                f"connect{{}}{_capital(method.lower())}{self._scope}{kind.gvk.kind}{_capital(subresource.name)}{suffix}"
            )
            about = f"connect {method.upper()} requests to {subresource.name} of {kind.gvk.kind}"
            operation = self._operation("connect", about, name, query, subresource.gvk, pretty=False)
            operation["responses"] = {
                "200": {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}},
                "401": {"description": "Unauthorized"},
            }
            operations[method.lower()] = operation
        return operations

    def _list(self, suffix: str) -> Obj:
        kind = self._kind
        scope = "" if suffix else self._scope
        action = "list or watch" if "watch" in kind.verbs and not kind.custom else "list"
        about = f"{action} objects of kind {kind.gvk.kind}"
        operation = self._operation("list", about, f"list{{}}{scope}{kind.gvk.kind}{suffix}", _LIST)
        streams = () if kind.custom else _STREAMS
        operation["responses"] = _responses(kind.list_definition, (200,), (*self._media, *streams))
        return operation

    def _watch(self, scope: str, suffix: str) -> Obj:
        kind = self._kind.gvk.kind
        if suffix:
            about = f"watch individual changes to a list of {kind}. deprecated: use the 'watch' parameter with a list operation instead."
        else:
            about = (
                f"watch changes to an object of kind {kind}. deprecated: use the 'watch' parameter with a list operation "
                "instead, filtered to a single item with the 'fieldSelector' parameter."
            )
        action = "watchlist" if suffix else "watch"
        operation = self._operation(action, about, f"watch{{}}{scope}{kind}{suffix}", _LIST)
        operation["responses"] = _responses(META + "WatchEvent", (200,), (*self._media, *_STREAMS))
        return operation

    def _patch(self, about: str, name: str, definition: str, gvk: GroupVersionKind) -> Obj:
        custom = self._kind.custom
        content = {media: _content(META + "Patch") for media in (*_PATCHES, *(() if custom else (_STRATEGIC,)))}
        operation = self._operation("patch", about, f"patch{{}}{name}", _PATCH, gvk)
        operation["requestBody"] = {"content": content, "required": True}
        operation["responses"] = _responses(definition, (200,) if custom else (200, 201), self._media)
        return operation

    def _operation(
        self,
        action: str,
        about: str,
        name: str,
        query: Iterable[str],
        gvk: GroupVersionKind | None = None,
        *,
        pretty: bool = True,
    ) -> Obj:
        known = parameters()["parameters"]
        gvk = gvk or self._kind.gvk
        return {
            "tags": [self._words.tag],
            "description": about,
            "operationId": name.format(self._words.title),
            "parameters": [known[key]["v3"] for key in (*query, *(("pretty",) if pretty else ()))],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": gvk.group, "version": gvk.version, "kind": gvk.kind},
        }

    def _bodies(self, definition: str, codes: tuple[int, ...]) -> Obj:
        body = self._body(definition)
        body["required"] = True
        return {"requestBody": body, "responses": _responses(definition, codes, self._media)}

    def _body(self, definition: str) -> Obj:
        media = self._media if self._kind.custom else ("*/*",)
        return {"content": {item: _content(definition) for item in media}}


# -- pieces of documents -----------------------------------------------------------------------------------------------------


def _path_item(path: str, operations: dict[str, Obj]) -> Obj:
    """The operations of a path; what all of them take is said once (kube-openapi: findCommonParameters)."""
    known = parameters()["parameters"]
    in_path: list[Obj] = []
    if "{name}" in path:
        kind = next(iter(operations.values()))["x-kubernetes-group-version-kind"][
            "kind"
        ]  # of the subresource, if it is one
        about = f"name of the {kind}"
        schema = {"type": "string", "uniqueItems": True}
        in_path.append({"name": "name", "in": "path", "description": about, "required": True, "schema": schema})
    in_path += [
        known[key]["v3"] for key, mark in (("namespace", "{namespace}"), ("rest.path", "{path}")) if mark in path
    ]
    taken = [[*operation["parameters"], *in_path] for operation in operations.values()]
    common = [item for item in taken[0] if all(item in others for others in taken[1:])]
    for operation, own in zip(operations.values(), taken, strict=True):
        operation.pop("parameters")
        if rest := [item for item in own if item not in common]:
            operation["parameters"] = sorted(rest, key=_name_and_place)
    item: Obj = {method: operations[method] for method in _METHODS if method in operations}
    if common:
        item["parameters"] = sorted(common, key=_name_and_place)
    return item


def _name_and_place(parameter: Obj) -> tuple[str, str]:
    return parameter["name"], parameter["in"]


def _unless_empty(path: str, operations: dict[str, Obj]) -> Iterable[tuple[str, dict[str, Obj]]]:
    if operations:
        yield path, operations


def _responses(definition: str, codes: Iterable[int], media: Iterable[str]) -> Obj:
    texts = {200: "OK", 201: "Created", 202: "Accepted"}
    content = {item: _content(definition) for item in sorted(media)}
    answers: Obj = {str(code): {"description": texts[code], "content": content} for code in codes}
    return {**answers, "401": {"description": "Unauthorized"}}


def _content(definition: str) -> Obj:
    return {"schema": {"$ref": REF + definition}}


def _complete(paths: Mapping[str, Obj], schema: Callable[[str], Obj | None]) -> Obj:
    """The whole document, with every schema that its paths refer to."""
    schemas: dict[str, Obj] = {}
    wanted = sorted(_references(paths))
    while wanted:
        name = wanted.pop()
        found = schema(name) if name not in schemas else None
        if found is not None:
            schemas[name] = found
            wanted += _references(found)
    token = {"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"}
    return {
        "openapi": "3.0.0",
        "info": INFO,
        "paths": dict(sorted(paths.items())),
        "components": {
            **({"schemas": dict(sorted(schemas.items()))} if schemas else {}),
            "securitySchemes": {"BearerToken": token},
        },
    }


def _references(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        found = {value["$ref"].removeprefix(REF)} if isinstance(value.get("$ref"), str) else set()
        return found.union(*(_references(item) for item in value.values()))
    if isinstance(value, list):
        return set().union(*(_references(item) for item in value))
    return set()


def _of_version(schema: Obj | None, gv: GroupVersion | None, *, custom: bool = False) -> Obj | None:
    """A shared schema (DeleteOptions, WatchEvent) names the kinds of this document only."""
    kinds = (schema or {}).get("x-kubernetes-group-version-kind") or []
    if schema is None or len(kinds) < _SHARED:
        return schema
    if custom:
        kept = [kind for kind in kinds if kind["group"] not in _NOT_WITH_CUSTOM]
    else:
        own = (gv.group, gv.version) if gv is not None else ("", "v1")
        kept = [kind for kind in kinds if (kind["group"], kind["version"]) in (("", "v1"), own)]
    return {**schema, "x-kubernetes-group-version-kind": kept}


_SHARED = 2


def _article(kind: str) -> str:
    """As upstream's installer writes it (GetArticleForNoun): "an" before a vowel, nothing before a plural."""
    if kind.endswith("s") and not kind.endswith("ss"):
        return kind
    return f"{'an' if kind[:1] in 'AEIOU' else 'a'} {kind}"


def _capital(word: str) -> str:
    return word[:1].upper() + word[1:]
