"""The OpenAPI documents of an app: one per group-version, the groups, and version 2 of all of them for old clients."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources

import orjson

from bowsprit.apiserver.openapi import OpenAPI
from bowsprit.apiserver.registry import Endpoint, Registry
from bowsprit.apiserver.resource import ConnectSubresource, Resource, Subresource, Version
from bowsprit.machinery import openapi_custom
from bowsprit.machinery.names import GroupVersion, GroupVersionKind
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.openapi_protobuf import encode_v2
from bowsprit.machinery.openapi_v2 import merged
from bowsprit.machinery.openapi_v3 import META, ServedKind, ServedSubresource, document, group_words, plain_document
from bowsprit.machinery.schema import CustomResourceSchema

_SCALE = "io.k8s.api.autoscaling.v1.Scale"


@cache
def definitions() -> dict[str, Obj]:
    """The component schemas that every kind refers to: those of meta/v1, and Scale. Not to be changed."""
    path = resources.files("bowsprit.extension").joinpath("data/definitions.json.gz")
    data: dict[str, Obj] = orjson.loads(gzip.decompress(path.read_bytes()))
    return data


class Publication:
    """Publishes what a registry serves; documents are made when they are asked for."""

    def __init__(self, registry: Registry, documents: OpenAPI) -> None:
        self._registry = registry
        self._documents = documents

    def publish(self) -> None:
        """Everything that is served now."""
        for gv in self._registry.group_versions():
            endpoints = self._registry.endpoints(gv.group, gv.version)
            self._documents.put(f"apis/{gv.group}/{gv.version}", _version_supplier(gv, endpoints))
            self._documents.put(f"apis/{gv.group}", _group_supplier(gv.group))
        self._documents.put(
            "apis", _plain("/apis/", "apis", "get available API versions", "getAPIVersions", "APIGroupList")
        )
        self._documents.set_v2(self._second)
        self._documents.encode_v2 = encode_v2
        # The core's index is up to a minute older than ours, and it passes no redirects on.
        self._documents.redirects = False

    def _second(self) -> Obj:
        served = self._registry.group_versions()
        groups = sorted({gv.group for gv in served})
        made = [_version_supplier(gv, self._registry.endpoints(gv.group, gv.version))() for gv in served]
        return merged([*(_group_supplier(group)() for group in groups), *made])


def _plain(place: str, tag: str, about: str, operation: str, answer: str) -> Callable[[], Obj]:
    return lambda: plain_document(
        place, tag=tag, description=about, operation=operation, definition=META + answer, schema=definitions().get
    )


def _group_supplier(group: str) -> Callable[[], Obj]:
    words = group_words(group)
    operation = f"get{words[:1].upper()}{words[1:]}APIGroup"
    return _plain(f"/apis/{group}/", words, "get information of a group", operation, "APIGroup")


def _version_supplier(gv: GroupVersion, endpoints: Sequence[Endpoint]) -> Callable[[], Obj]:
    def supply() -> Obj:
        own: dict[str, Obj] = {}
        for endpoint in endpoints:
            version = endpoint.version
            schema = version.schema
            assert isinstance(schema, CustomResourceSchema)
            own |= openapi_custom.definitions(
                version.gvk, version.list_kind_name, endpoint.resource.plural, schema.source, schema.selectable
            )
        kinds = [_served(endpoint.resource, endpoint.version) for endpoint in endpoints]
        return document(gv, kinds, lambda name: own.get(name) or definitions().get(name))

    return supply


def _served(resource: Resource, version: Version) -> ServedKind:
    name = openapi_custom.definition_name(version.gvk)
    list_gvk = GroupVersionKind(version.gvk.group, version.gvk.version, version.list_kind_name)
    return ServedKind(
        version.gvk,
        resource.plural,
        resource.namespaced,
        tuple(resource.verbs),
        name,
        openapi_custom.definition_name(list_gvk),
        tuple(_subresource(item, version, name) for item in resource.subresources.values()),
        custom=True,
    )


def _subresource(subresource: Subresource, version: Version, own: str) -> ServedSubresource:
    gvk = subresource.gvk or version.gvk
    if isinstance(subresource, ConnectSubresource):
        return ServedSubresource(subresource.name, gvk, "", subresource.verbs, subresource.methods)
    return ServedSubresource(subresource.name, gvk, _SCALE if subresource.gvk else own, subresource.verbs)
