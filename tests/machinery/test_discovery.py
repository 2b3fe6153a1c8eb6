"""Discovery documents rebuilt from their own contents equal those recorded from Kubernetes v1.36."""

# ruff: noqa: E501

import gzip
import json
from pathlib import Path

import pytest

from bowsprit.machinery import discovery
from bowsprit.machinery.discovery import DiscoveredResource, DiscoveredSubresource
from bowsprit.machinery.names import GroupVersion, GroupVersionKind
from bowsprit.machinery.objects import Obj

RECORDED = json.loads(gzip.decompress((Path(__file__).parents[1] / "golden/apiserver/discovery.json.gz").read_bytes()))
LISTS = {
    path: entry["body"]
    for path, entry in RECORDED.items()
    if isinstance(entry.get("body"), dict) and entry["body"].get("kind") == "APIResourceList"
}


def resources_of(listed: Obj) -> list[DiscoveredResource]:
    gv = GroupVersion.parse(listed["groupVersion"])
    subresources: dict[str, list[DiscoveredSubresource]] = {}
    for entry in listed["resources"]:
        parent, slash, name = entry["name"].partition("/")
        if slash:
            kind = GroupVersionKind(
                entry.get("group", gv.group if "version" not in entry else ""),
                entry.get("version", gv.version),
                entry["kind"],
            )
            subresources.setdefault(parent, []).append(DiscoveredSubresource(name, kind, entry["verbs"]))
    return [
        DiscoveredResource(
            entry["name"], entry["singularName"], entry["namespaced"], entry["kind"], entry["verbs"],
            entry.get("shortNames", ()), entry.get("categories", ()), entry.get("storageVersionHash", ""), subresources.get(entry["name"], ()),
        )
        for entry in listed["resources"]
        if "/" not in entry["name"]
    ]  # fmt: skip


@pytest.mark.parametrize("path", LISTS)
def test_resource_lists(path: str) -> None:
    listed = LISTS[path]
    assert (
        discovery.api_resource_list(GroupVersion.parse(listed["groupVersion"]), reversed(resources_of(listed)))
        == listed
    )


@pytest.mark.parametrize("path", ["/api aggregated", "/apis aggregated"])
def test_aggregated_discovery(path: str) -> None:
    recorded = RECORDED[path]["body"]
    items = []
    compared = 0
    for item in recorded["items"]:
        group = item["metadata"].get("name", "")
        versions = []
        for version in item["versions"]:
            gv = GroupVersion(group, version["version"])
            listed = LISTS.get(f"/apis/{gv.api_version}" if group else f"/api/{gv.version}")
            versions.append(version if listed is None else discovery.version_discovery(gv, resources_of(listed)))
            compared += listed is not None
        items.append(discovery.group_discovery(group, versions))
    assert discovery.group_discovery_list(items) == recorded
    assert compared >= 1


def test_groups() -> None:
    recorded = RECORDED["/apis"]["body"]
    groups = [(group["name"], [version["version"] for version in group["versions"]]) for group in recorded["groups"]]
    assert discovery.api_group_list(groups) == recorded
    assert discovery.api_group("apps", ["v1"]) == RECORDED["/apis/apps"]["body"]
    assert discovery.api_versions(["v1"], "10.0.0.1:26443") == RECORDED["/api"]["body"]


def test_storage_version_hashes() -> None:
    assert discovery.storage_version_hash(GroupVersionKind("apps", "v1", "Deployment")) == "8aSe+NMegvE="
    assert discovery.storage_version_hash(GroupVersionKind("", "v1", "ConfigMap")) == "qFsyl6wFWjQ="


def test_versions_are_sorted_as_clients_want_them() -> None:
    versions = ["foo1", "v1alpha1", "v11beta2", "v10", "v2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo10"]
    assert sorted(versions, key=discovery.version_key) == [
        "v10",
        "v2",
        "v11beta2",
        "v10beta3",
        "v3beta1",
        "v12alpha1",
        "v11alpha2",
        "v1alpha1",
        "foo1",
        "foo10",
    ]


def test_etag_is_quoted_upper_hex() -> None:
    assert discovery.etag(b"x").startswith('"A4ABD4448C49562D')
    assert len(discovery.etag(b"")) == 130
