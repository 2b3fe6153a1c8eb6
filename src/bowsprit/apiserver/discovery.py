"""Discovery: /api, /apis and below, legacy and aggregated, from the registry and from what others serve.

Documents are made once per change of the registry and kept as bytes with their ETag.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from aiohttp import web

from bowsprit.apiserver import negotiation
from bowsprit.apiserver.answer import Answer, not_found_answer
from bowsprit.apiserver.negotiation import JSON
from bowsprit.apiserver.registry import Endpoint, Registry
from bowsprit.apiserver.representation import answer as object_answer
from bowsprit.apiserver.request import RequestContext
from bowsprit.machinery import discovery
from bowsprit.machinery.codec import encode_json
from bowsprit.machinery.discovery import DiscoveredResource, DiscoveredSubresource
from bowsprit.machinery.names import GroupVersion, GroupVersionKind
from bowsprit.machinery.objects import Obj

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
DEFAULT_GROUP_PRIORITY = 1000
DEFAULT_VERSION_PRIORITY = 100


@dataclass(slots=True)
class _Foreign:
    """A group-version that another server serves; `resources` are entries of its APIVersionDiscovery."""

    resources: Sequence[Obj]
    stale: bool = False


@dataclass(slots=True)
class _Priorities:
    groups: dict[str, int] = field(default_factory=dict)
    versions: dict[GroupVersion, int] = field(default_factory=dict)


class DiscoveryIndex:
    """What is served, in order of priority."""

    def __init__(self, registry: Registry, server_address: str) -> None:
        self._registry = registry
        self.server_address = server_address
        self._foreign: dict[GroupVersion, _Foreign] = {}
        self._announced: frozenset[GroupVersion] | None = None
        self._priorities = _Priorities()
        self._cache: dict[str, tuple[bytes, str]] = {}
        registry.on_change(self.invalidate)

    def invalidate(self) -> None:
        """Makes every document anew when next asked for."""
        self._cache.clear()

    def set_group_priority(self, group: str, priority: int) -> None:
        """groupPriorityMinimum: groups with a higher one come first."""
        if self._priorities.groups.get(group) != priority:
            self._priorities.groups[group] = priority
            self.invalidate()

    def set_version_priority(self, gv: GroupVersion, priority: int) -> None:
        """versionPriority within the group."""
        if self._priorities.versions.get(gv) != priority:
            self._priorities.versions[gv] = priority
            self.invalidate()

    def drop_priorities(self, gv: GroupVersion) -> None:
        self._priorities.versions.pop(gv, None)
        if all(other.group != gv.group for other in self._priorities.versions):
            self._priorities.groups.pop(gv.group, None)
        self.invalidate()

    def put_foreign(self, gv: GroupVersion, resources: Sequence[Obj], *, stale: bool = False) -> None:
        """Publishes a group-version of another server: entries of an APIVersionDiscovery's `resources`."""
        known, new = self._foreign.get(gv), _Foreign(resources, stale)
        if known != new:
            self._foreign[gv] = new
            self.invalidate()

    def drop_foreign(self, gv: GroupVersion) -> None:
        if self._foreign.pop(gv, None) is not None:
            self.invalidate()

    def announce(self, gvs: Iterable[GroupVersion]) -> None:
        """The group-versions that legacy discovery lists, whether or not anybody serves them; by default what is served."""
        announced = frozenset(gv for gv in gvs if gv.group)
        if announced != self._announced:
            self._announced = announced
            self.invalidate()

    # -- order -----------------------------------------------------------------------------------------------------------

    def groups(self) -> list[tuple[str, list[GroupVersion]]]:
        """All groups but the core one with their versions, both in order of preference."""
        return self._sorted([*self._registry.group_versions(), *self._foreign])

    def announced_groups(self) -> list[tuple[str, list[GroupVersion]]]:
        """The groups of legacy discovery, in the same order."""
        return self._sorted(sorted(self._announced, key=str)) if self._announced is not None else self.groups()

    def _sorted(self, gvs: Iterable[GroupVersion]) -> list[tuple[str, list[GroupVersion]]]:
        found: dict[str, list[GroupVersion]] = {}
        for gv in gvs:
            versions = found.setdefault(gv.group, [])
            if gv.group and gv not in versions:
                versions.append(gv)
        found.pop("", None)
        position = {group: number for number, group in enumerate(found)}
        groups = self._priorities.groups

        def order(group: str) -> tuple[int, int, str]:
            priority = groups.get(group, DEFAULT_GROUP_PRIORITY)
            return -priority, position[group] if group not in groups else 0, group

        return [(group, sorted(found[group], key=self._version_order)) for group in sorted(found, key=order)]

    def _version_order(self, gv: GroupVersion) -> tuple[int, tuple[int, ...] | object]:
        priority = self._priorities.versions.get(gv, DEFAULT_VERSION_PRIORITY)
        return -priority, discovery.version_key(gv.version)

    # -- documents -----------------------------------------------------------------------------------------------------

    def _discovered(self, gv: GroupVersion) -> list[DiscoveredResource]:
        return [describe(endpoint) for endpoint in self._registry.endpoints(gv.group, gv.version)]

    def aggregated(self, *, core: bool) -> tuple[bytes, str]:
        """APIGroupDiscoveryList of /api or /apis and its ETag."""
        name = "api" if core else "apis"
        cached = self._cache.get(name)
        if cached is None:
            groups: Iterable[tuple[str, list[GroupVersion]]] = self.groups()
            if core:
                versions = [gv for gv in self._registry.group_versions() if not gv.group]
                groups = [("", versions)] if versions else []
            items = [
                discovery.group_discovery(group, [self._version(gv) for gv in versions]) for group, versions in groups
            ]
            body = encode_json(discovery.group_discovery_list(items))
            cached = self._cache[name] = (body + b"\n", discovery.etag(body))
        return cached

    def _version(self, gv: GroupVersion) -> Obj:
        foreign = self._foreign.get(gv)
        if foreign is not None:
            resources = {"resources": list(foreign.resources)} if foreign.resources else {}
            freshness = discovery.STALE if foreign.stale else discovery.FRESH
            return {"version": gv.version, **resources, "freshness": freshness}
        return discovery.version_discovery(gv, self._discovered(gv))

    async def serve_root(self, ctx: RequestContext, request: web.BaseRequest) -> Answer:
        """/api and /apis."""
        core = ctx.info.path.rstrip("/") == "/api"
        accept = request.headers.get("Accept", "")
        if _wants_aggregated(accept):
            body, etag = self.aggregated(core=core)
            headers = [("Cache-Control", "public"), ("Etag", etag), ("Vary", "Accept")]
            if request.headers.get("If-None-Match") == etag:
                return Answer(304, b"", "", headers)
            return Answer(200, body, AGGREGATED, headers)
        if core:
            versions = [gv.version for gv in self._registry.group_versions() if not gv.group]
            obj = discovery.api_versions(versions, self.server_address)
        else:
            obj = discovery.api_group_list(
                [(group, [gv.version for gv in versions]) for group, versions in self.announced_groups()]
            )
        return _respond(ctx, request, obj)

    async def serve_group(self, ctx: RequestContext, request: web.BaseRequest) -> Answer:
        """/apis/<group>."""
        wanted = ctx.info.path.split("/")[2]
        for group, versions in (*self.announced_groups(), *self.groups()):
            if group == wanted:
                return _respond(ctx, request, discovery.api_group(group, [gv.version for gv in versions]))
        return not_found_answer()

    async def serve_version(self, ctx: RequestContext, request: web.BaseRequest) -> Answer:
        """/api/<version> and /apis/<group>/<version>."""
        parts = ctx.info.path.split("/")
        gv = GroupVersion("", parts[2]) if parts[1] == "api" else GroupVersion(parts[2], parts[3])
        if not self._registry.serves(gv.group, gv.version):
            return not_found_answer()
        return _respond(ctx, request, discovery.api_resource_list(gv, self._discovered(gv)))


def describe(endpoint: Endpoint) -> DiscoveredResource:
    """An endpoint as discovery shows it."""
    resource, version = endpoint.resource, endpoint.version
    subresources = [
        DiscoveredSubresource(subresource.name, subresource.gvk or version.gvk, sorted(subresource.verbs))
        for subresource in resource.subresources.values()
        if subresource.verbs
    ]
    if not resource.custom:
        subresources.sort(key=lambda subresource: subresource.name)
    storage_hash = resource.storage_version_hash
    if not storage_hash and resource.virtual is None and "list" in resource.verbs:
        hub = GroupVersion.parse(resource.storage_version)
        storage_hash = discovery.storage_version_hash(GroupVersionKind(hub.group, hub.version, resource.kind))
    return DiscoveredResource(
        version.gvr.resource,
        resource.singular,
        resource.namespaced,
        version.gvk.kind,
        list(resource.verbs) if resource.custom else sorted(resource.verbs),
        tuple(resource.short_names),
        tuple(resource.categories),
        storage_hash,
        subresources,
    )


def _wants_aggregated(accept: str) -> bool:
    """Whether aggregated discovery v2 is the first acceptable type."""
    for part in accept.split(","):
        media_type, *params = (piece.strip() for piece in part.split(";"))
        given = dict(param.partition("=")[::2] for param in params)
        if "as" in given:
            if (
                media_type == JSON
                and given["as"] == "APIGroupDiscoveryList"
                and given.get("g") == "apidiscovery.k8s.io"
                and given.get("v") == "v2"
            ):
                return True
        elif media_type in (*negotiation.MEDIA_TYPES, "*/*", "application/*"):
            return False
    return False


def _respond(ctx: RequestContext, request: web.BaseRequest, obj: Obj) -> Answer:
    accept = request.headers.get("Accept", "")
    return object_answer(ctx, negotiation.negotiate(accept, transforms=False), 200, obj=obj)
