"""Which resources a server has, and the mapping from kinds to resources.

Asks for the aggregated form (apidiscovery.k8s.io/v2) and understands the older one, a document per group version, as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from bowsprit.client.errors import ClientError
from bowsprit.client.rest import RestClient
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.names import GroupVersion, GroupVersionKind, GroupVersionResource, group_version_path
from bowsprit.machinery.objects import Obj

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


@dataclass(frozen=True, slots=True)
class ApiResource:
    """One resource as discovery tells of it."""

    gvr: GroupVersionResource
    kind: str
    namespaced: bool
    verbs: frozenset[str]
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: frozenset[str] = frozenset()
    preferred: bool = True

    @property
    def gvk(self) -> GroupVersionKind:
        """The kind with its group and version."""
        return GroupVersionKind(self.gvr.group, self.gvr.version, self.kind)


@dataclass(slots=True)
class DiscoveryResult:
    """All resources, every version of each; ``failed`` says why group versions are missing (stale or unreachable)."""

    resources: list[ApiResource] = field(default_factory=list)
    failed: dict[GroupVersion, str] = field(default_factory=dict)

    def preferred(self) -> list[ApiResource]:
        """One version of each resource: that of the group's preferred version, else the first that has it."""
        chosen: dict[tuple[str, str], ApiResource] = {}
        for resource in self.resources:
            key = (resource.gvr.group, resource.gvr.resource)
            if key not in chosen or (resource.preferred and not chosen[key].preferred):
                chosen[key] = resource
        return list(chosen.values())


class DiscoveryClient:
    """Reads the discovery documents."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    async def resources(self) -> DiscoveryResult:
        """Everything the server serves. Raises only when the roots themselves cannot be read."""
        result = DiscoveryResult()
        for path in ("/api", "/apis"):
            document = await self._client.request_json("GET", path, headers={"Accept": _AGGREGATED})
            if document.get("kind") == "APIGroupDiscoveryList":
                _read_aggregated(document, result)
            else:
                await self._read_legacy(document, result)
        return result

    async def _read_legacy(self, root: Obj, result: DiscoveryResult) -> None:
        wanted: list[tuple[GroupVersion, bool]] = []
        if root.get("kind") == "APIVersions":
            wanted = [
                (GroupVersion("", version), index == 0) for index, version in enumerate(root.get("versions") or [])
            ]
        for group in root.get("groups") or []:
            preferred = (group.get("preferredVersion") or {}).get("groupVersion")
            for version in group.get("versions") or []:
                text = version["groupVersion"]
                wanted.append((GroupVersion.parse(text), text == preferred))
        documents = await asyncio.gather(*(self._group_version(gv, result) for gv, _ in wanted))
        for (gv, preferred), document in zip(wanted, documents, strict=True):
            if document is not None:
                _read_resource_list(gv, preferred, document, result)

    async def _group_version(self, gv: GroupVersion, result: DiscoveryResult) -> Obj | None:
        try:
            return await self._client.request_json("GET", group_version_path(gv))
        except (StatusError, ClientError) as exc:
            result.failed[gv] = str(exc)
            return None


def _read_aggregated(document: Obj, result: DiscoveryResult) -> None:
    for group in document.get("items") or []:
        name = (group.get("metadata") or {}).get("name") or ""
        for index, version in enumerate(group.get("versions") or []):
            gv = GroupVersion(name, version["version"])
            if version.get("freshness") == "Stale":
                result.failed[gv] = f"stale GroupVersion discovery: {gv}"
                continue
            for item in version.get("resources") or []:
                kind = (item.get("responseKind") or {}).get("kind") or ""
                if not item.get("verbs"):
                    continue  # a parent that exists only to carry subresources
                result.resources.append(
                    ApiResource(
                        gv.with_resource(item["resource"]),
                        kind,
                        item.get("scope") == "Namespaced",
                        frozenset(item.get("verbs") or ()),
                        item.get("singularResource") or "",
                        tuple(item.get("shortNames") or ()),
                        tuple(item.get("categories") or ()),
                        frozenset(sub["subresource"] for sub in item.get("subresources") or ()),
                        preferred=index == 0,
                    )
                )


def _read_resource_list(gv: GroupVersion, preferred: bool, document: Obj, result: DiscoveryResult) -> None:
    items: Iterable[Obj] = document.get("resources") or []
    subresources: dict[str, set[str]] = {}
    for item in items:
        parent, slash, sub = item["name"].partition("/")
        if slash:
            subresources.setdefault(parent, set()).add(sub)
    for item in items:
        if "/" in item["name"]:
            continue
        result.resources.append(
            ApiResource(
                gv.with_resource(item["name"]),
                item["kind"],
                bool(item.get("namespaced")),
                frozenset(item.get("verbs") or ()),
                item.get("singularName") or "",
                tuple(item.get("shortNames") or ()),
                tuple(item.get("categories") or ()),
                frozenset(subresources.get(item["name"], ())),
                preferred,
            )
        )


class RestMapper:
    """From kinds to resources; asks the server again when a kind is unknown (a CRD may be new)."""

    def __init__(self, discovery: DiscoveryClient) -> None:
        self._discovery = discovery
        self._by_kind: dict[GroupVersionKind, ApiResource] = {}
        self._lock = asyncio.Lock()

    async def resource_for(self, gvk: GroupVersionKind) -> ApiResource | None:
        """The resource of a kind, or None where the server has none."""
        if gvk not in self._by_kind:
            await self.refresh()
        return self._by_kind.get(gvk)

    def known(self, gvk: GroupVersionKind) -> ApiResource | None:
        """The resource if it is known already; never asks."""
        return self._by_kind.get(gvk)

    async def refresh(self) -> DiscoveryResult:
        """Read discovery anew."""
        async with self._lock:
            result = await self._discovery.resources()
            self.use(result)
            return result

    def use(self, result: DiscoveryResult) -> None:
        """Take over a result; kinds of groups that failed keep their old mapping."""
        kept = {gvk: resource for gvk, resource in self._by_kind.items() if gvk.gv in result.failed}
        self._by_kind = kept
        for resource in result.resources:
            self._by_kind.setdefault(resource.gvk, resource)
