"""Discovery documents: the legacy ones (APIVersions, APIGroup, APIResourceList) and aggregated discovery v2.

Pure builders: who decides which resources exist, and in what order groups come, is the API server.
Contracts: metav1.APIResource, apidiscovery.k8s.io/v2, KEP-3352.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bowsprit.machinery.names import GroupVersion, GroupVersionKind
from bowsprit.machinery.objects import Obj

_KUBE_VERSION = re.compile(r"v([1-9][0-9]*)(?:(alpha|beta)([1-9][0-9]*))?", re.ASCII)
_STAGES = {None: 2, "beta": 1, "alpha": 0}

FRESH, STALE = "Current", "Stale"


@dataclass(frozen=True, slots=True)
class DiscoveredSubresource:
    """`deployments/scale`: `kind` is what it answers, with a group and version only if they are not the parent's."""

    name: str
    kind: GroupVersionKind
    verbs: Sequence[str]


@dataclass(frozen=True, slots=True)
class DiscoveredResource:
    """One resource of a group version. Verbs, names and subresources are listed as given; upstream sorts built-in kinds' ones."""

    name: str
    singular: str
    namespaced: bool
    kind: str
    verbs: Sequence[str]
    short_names: Sequence[str] = ()
    categories: Sequence[str] = ()
    storage_version_hash: str = ""
    subresources: Sequence[DiscoveredSubresource] = ()


def storage_version_hash(gvk: GroupVersionKind) -> str:
    """Tells clients when the stored version changes (upstream StorageVersionHash)."""
    digest = hashlib.sha256(f"{gvk.group}/{gvk.version}/{gvk.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def version_key(version: str) -> tuple[int, int, int, int, tuple[int, ...]]:
    """Sorts versions, the most wanted first: v2, v1, v2beta1, v1alpha1, then the rest alphabetically.

    Upstream: version.CompareKubeAwareVersionStrings.
    """
    match = _KUBE_VERSION.fullmatch(version)
    if match is None:
        return (1, 0, 0, 0, tuple(map(ord, version)))
    return (0, -_STAGES[match.group(2)], -int(match.group(1)), -int(match.group(3) or 0), ())


def etag(document: bytes) -> str:
    """The ETag of aggregated discovery and OpenAPI: the SHA-512 in capital hex digits, quoted."""
    return f'"{hashlib.sha512(document).hexdigest().upper()}"'


# --- legacy -------------------------------------------------------------------------------------------------------


def api_versions(versions: Sequence[str], server_address: str) -> Obj:
    """The answer of `/api`."""
    return {
        "kind": "APIVersions",
        "versions": list(versions),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }


def _group(name: str, versions: Sequence[str], preferred: str = "") -> Obj:
    """One group; versions in order of preference unless `preferred` says otherwise."""
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    chosen = preferred or versions[0]
    return {
        "name": name,
        "versions": entries,
        "preferredVersion": {"groupVersion": f"{name}/{chosen}", "version": chosen},
    }


def api_group(name: str, versions: Sequence[str], preferred: str = "") -> Obj:
    """The answer of `/apis/<group>`."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions, preferred)}


def api_group_list(groups: Iterable[tuple[str, Sequence[str]]]) -> Obj:
    """The answer of `/apis`: (name, versions in order of preference) for each group."""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(name, versions) for name, versions in groups],
    }


def api_resource_list(gv: GroupVersion, resources: Iterable[DiscoveredResource]) -> Obj:
    """The answer of `/api/v1` and `/apis/<group>/<version>`; the core group's has no apiVersion, as upstream."""
    entries: list[Obj] = []
    for resource in sorted(resources, key=lambda item: item.name):
        entries.append(_legacy_resource(resource))
        entries += (_legacy_subresource(gv, resource, sub) for sub in resource.subresources)
    result: Obj = {"kind": "APIResourceList"}
    if gv.group:
        result["apiVersion"] = "v1"
    return result | {"groupVersion": gv.api_version, "resources": entries}


def _legacy_resource(resource: DiscoveredResource) -> Obj:
    entry: Obj = {
        "name": resource.name,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.storage_version_hash:
        entry["storageVersionHash"] = resource.storage_version_hash
    return entry


def _legacy_subresource(gv: GroupVersion, resource: DiscoveredResource, sub: DiscoveredSubresource) -> Obj:
    entry: Obj = {
        "name": f"{resource.name}/{sub.name}",
        "singularName": "",
        "namespaced": resource.namespaced,
    }
    if sub.kind.version and sub.kind.gv != gv:
        if sub.kind.group:
            entry["group"] = sub.kind.group
        entry["version"] = sub.kind.version
    return entry | {"kind": sub.kind.kind, "verbs": list(sub.verbs)}


# --- aggregated ---------------------------------------------------------------------------------------------------


def group_discovery_list(items: Iterable[Obj]) -> Obj:
    """An APIGroupDiscoveryList around items from `group_discovery`."""
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": list(items),
    }


def group_discovery(name: str, versions: Iterable[Obj]) -> Obj:
    """An APIGroupDiscovery; versions in order of preference, from `version_discovery`."""
    return {"metadata": {"name": name} if name else {}, "versions": list(versions)}


def version_discovery(gv: GroupVersion, resources: Iterable[DiscoveredResource], freshness: str = FRESH) -> Obj:
    """An APIVersionDiscovery."""
    entries = [_resource_discovery(gv, resource) for resource in sorted(resources, key=lambda item: item.name)]
    return {"version": gv.version, "resources": entries, "freshness": freshness}


def _resource_discovery(gv: GroupVersion, resource: DiscoveredResource) -> Obj:
    entry: Obj = {
        "resource": resource.name,
        "responseKind": {"group": "", "version": "", "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresources:
        entry["subresources"] = [_subresource_discovery(gv, sub) for sub in resource.subresources]
    return entry


def _subresource_discovery(gv: GroupVersion, sub: DiscoveredSubresource) -> Obj:
    same = sub.kind.gv == gv
    return {
        "subresource": sub.name,
        "responseKind": {
            "group": "" if same else sub.kind.group,
            "version": "" if same else sub.kind.version,
            "kind": sub.kind.kind,
        },
        "verbs": list(sub.verbs),
    }
