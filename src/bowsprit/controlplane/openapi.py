"""OpenAPI documents that follow what the server serves: every group-version, group and plain path."""

from __future__ import annotations

from collections.abc import Callable

from bowsprit.apiserver.openapi import OpenAPI
from bowsprit.apiserver.registry import Endpoint, Registry
from bowsprit.apiserver.resource import ConnectSubresource, Resource, Subresource, Version
from bowsprit.controlplane import schemas
from bowsprit.machinery import openapi_custom
from bowsprit.machinery.names import GroupVersion, GroupVersionKind
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.openapi_protobuf import encode_v2
from bowsprit.machinery.openapi_v2 import merged
from bowsprit.machinery.openapi_v3 import META, ServedKind, ServedSubresource, document, group_words, plain_document
from bowsprit.machinery.schema import CustomResourceSchema

_VERSION_INFO = "io.k8s.apimachinery.pkg.version.Info"
# Path of the document, path of the operation, tag, description, operation id, definition or media type of the answer.
_PLAIN = (
    ("api", "/api/", "core", "get available API versions", "getCoreAPIVersions", META + "APIVersions"),
    ("apis", "/apis/", "apis", "get available API versions", "getAPIVersions", META + "APIGroupList"),
    ("version", "/version/", "version", "get the version information for this server", "getCodeVersion", _VERSION_INFO),
    (
        ".well-known/openid-configuration",
        "/.well-known/openid-configuration/",
        "WellKnown",
        "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
        "getServiceAccountIssuerOpenIDConfiguration",
        "application/json",
    ),
    (
        "openid/v1/jwks",
        "/openid/v1/jwks/",
        "openid",
        "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
        "getServiceAccountIssuerOpenIDKeyset",
        "application/jwk-set+json",
    ),
)


class OpenAPIPublication:
    """Keeps the server's documents in step with its registry; they are made when they are asked for."""

    def __init__(self, registry: Registry, documents: OpenAPI) -> None:
        self._registry = registry
        self._documents = documents
        self._published: dict[str, object] = {}

    def start(self) -> None:
        """Publish everything that is served now, and whatever changes from now on."""
        for path, place, tag, about, operation, answer in _PLAIN:
            self._documents.put(path, _plain(place, tag, about, operation, answer))
        self._documents.set_v2(self._second)
        self._documents.encode_v2 = encode_v2  # the only form that kubectl up to 1.26 asks for
        self._registry.on_change(self._follow)
        self._follow()

    def _follow(self) -> None:
        wanted: dict[str, tuple[object, Callable[[], Obj]]] = {}
        for gv in self._registry.group_versions():
            endpoints = tuple(self._registry.endpoints(gv.group, gv.version))
            state: object = tuple((endpoint.version, endpoint.resource.verbs) for endpoint in endpoints)
            path = f"apis/{gv.group}/{gv.version}" if gv.group else f"api/{gv.version}"
            wanted[path] = (state, _version_supplier(gv, endpoints))
            if gv.group and not all(endpoint.resource.custom for endpoint in endpoints):
                wanted[f"apis/{gv.group}"] = (gv.group, _group_supplier(gv.group))
        for path, (state, supplier) in wanted.items():
            if self._published.get(path) != state:
                self._published[path] = state
                self._documents.put(path, supplier)
        for path in set(self._published) - set(wanted):
            del self._published[path]
            self._documents.drop(path)
        self._documents.invalidate_v2()

    def _second(self) -> Obj:
        plain = [_plain(*row[1:])() for row in _PLAIN]
        groups = sorted({gv.group for gv in self._registry.group_versions() if gv.group})
        documents = [
            _version_supplier(gv, tuple(self._registry.endpoints(gv.group, gv.version)))()
            for gv in self._registry.group_versions()
        ]
        plain += [_group_supplier(group)() for group in groups]
        return merged([*plain, *documents], schemas.definitions().get)


def _plain(place: str, tag: str, about: str, operation: str, answer: str) -> Callable[[], Obj]:
    return lambda: plain_document(
        place, tag=tag, description=about, operation=operation, definition=answer, schema=schemas.definitions().get
    )


def _group_supplier(group: str) -> Callable[[], Obj]:
    words = group_words(group)
    operation = f"get{words[:1].upper()}{words[1:]}APIGroup"
    return _plain(f"/apis/{group}/", words, "get information of a group", operation, META + "APIGroup")


def _version_supplier(gv: GroupVersion, endpoints: tuple[Endpoint, ...]) -> Callable[[], Obj]:
    def supply() -> Obj:
        own: dict[str, Obj] = {}
        for endpoint in endpoints:
            if endpoint.resource.custom:
                own |= _custom_definitions(endpoint.resource, endpoint.version)
        kinds = [publish_kind(endpoint.resource, endpoint.version) for endpoint in endpoints]
        return document(gv, kinds, lambda name: own.get(name) or schemas.definitions().get(name))

    return supply


def _custom_definitions(resource: Resource, version: Version) -> dict[str, Obj]:
    schema = version.schema
    if not isinstance(schema, CustomResourceSchema):
        return {}
    kind_list, plural = version.list_kind_name, resource.plural
    return openapi_custom.definitions(version.gvk, kind_list, plural, schema.source, schema.selectable)


def publish_kind(resource: Resource, version: Version) -> ServedKind:
    """How a resource is described in the document of one of its versions."""
    list_gvk = GroupVersionKind(version.gvk.group, version.gvk.version, version.list_kind_name)
    name = openapi_custom.definition_name if resource.custom else schemas.definition_name
    return ServedKind(
        version.gvk,
        resource.plural,
        resource.namespaced,
        tuple(resource.verbs),
        name(version.gvk),
        name(list_gvk),
        tuple(_subresource(item, version, name(version.gvk)) for item in resource.subresources.values()),
        resource.custom,
        resource.strategy.deletes_to_object,
    )


def _subresource(subresource: Subresource, version: Version, own: str) -> ServedSubresource:
    gvk = subresource.gvk or version.gvk
    if not isinstance(subresource, ConnectSubresource):
        definition = schemas.definition_name(gvk) if subresource.gvk else own
        return ServedSubresource(subresource.name, gvk, definition, subresource.verbs)
    methods = subresource.methods if subresource.connects else ()
    return ServedSubresource(subresource.name, gvk, "", subresource.verbs, methods, subresource.takes_path)
