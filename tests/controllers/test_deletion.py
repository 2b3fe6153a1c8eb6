"""Garbage collection by owner, with all propagation policies; namespaces that go away; what every namespace has."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from bowsprit.client.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
)
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import find_condition, nested

Obj = dict[str, Any]
WIDGETS = GroupVersionResource("example.com", "v1", "widgets")


async def make(cluster: Any, name: str, *owners: Obj, gvr: GroupVersionResource = CONFIG_MAPS, **meta: Any) -> Obj:
    namespace = meta.pop("namespace", "default")
    if owners:
        meta["ownerReferences"] = [reference(owner) for owner in owners]
    made: Obj = await cluster.create(gvr, {"metadata": {"name": name, "namespace": namespace, **meta}})
    return made


def reference(owner: Obj, **changes: Any) -> Obj:
    meta = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "blockOwnerDeletion": True,
        **changes,
    }


async def test_background_deletion_takes_the_descendants_along(cluster: Any) -> None:
    top = await make(cluster, "top")
    middle = await make(cluster, "middle", top)
    await make(cluster, "leaf", middle, gvr=SECRETS)
    other = await make(cluster, "other")
    await make(cluster, "kept", top, other)
    await cluster.delete(CONFIG_MAPS, "top", namespace="default")
    await cluster.eventually(lambda: not cluster.find(CONFIG_MAPS, "middle") and not cluster.find(SECRETS, "leaf"))
    kept = await cluster.eventually(
        lambda: found if len((found := cluster.find(CONFIG_MAPS, "kept"))["metadata"]["ownerReferences"]) == 1 else None
    )
    assert kept["metadata"]["ownerReferences"][0]["name"] == "other"


async def test_foreground_deletion_waits_for_the_dependents(cluster: Any) -> None:
    top = await make(cluster, "top")
    await make(cluster, "held", top, finalizers=["example.com/hold"])
    await make(cluster, "free", top)
    await cluster.delete(CONFIG_MAPS, "top", namespace="default", propagation_policy="Foreground")
    await cluster.eventually(lambda: not cluster.find(CONFIG_MAPS, "free"))
    await cluster.settle()
    assert cluster.find(CONFIG_MAPS, "top")["metadata"]["finalizers"] == ["foregroundDeletion"]
    await cluster.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, namespace="default")
    await cluster.eventually(lambda: not cluster.find(CONFIG_MAPS, "top") and not cluster.find(CONFIG_MAPS, "held"))


async def test_orphans_lose_their_owner_and_stay(cluster: Any) -> None:
    top = await make(cluster, "top")
    await make(cluster, "child", top)
    await cluster.delete(CONFIG_MAPS, "top", namespace="default", propagation_policy="Orphan")
    await cluster.eventually(lambda: not cluster.find(CONFIG_MAPS, "top"))
    await cluster.settle()
    assert not cluster.find(CONFIG_MAPS, "child")["metadata"].get("ownerReferences")


async def test_an_owner_that_never_was_or_lives_elsewhere_is_absent(cluster: Any) -> None:
    await cluster.create(NAMESPACES, {"metadata": {"name": "elsewhere"}})
    real = await make(cluster, "real", namespace="elsewhere")
    here = await make(cluster, "here")
    ghost = {**here, "metadata": {**here["metadata"], "name": "ghost", "uid": "never"}}
    await make(cluster, "of-a-ghost", ghost)
    await make(cluster, "across", real)
    await make(cluster, "fine", here)
    node = cluster.all(NODES)[0]
    await make(cluster, "of-a-node", node)
    await cluster.eventually(
        lambda: not cluster.find(CONFIG_MAPS, "of-a-ghost") and not cluster.find(CONFIG_MAPS, "across")
    )
    await cluster.settle()
    assert cluster.find(CONFIG_MAPS, "fine")
    assert cluster.find(CONFIG_MAPS, "of-a-node")


async def test_an_owner_of_an_unknown_kind_proves_nothing(cluster: Any) -> None:
    stranger = {"apiVersion": "gone.example.com/v1", "kind": "Gone", "metadata": {"name": "x", "uid": "x"}}
    await make(cluster, "child", stranger)
    await cluster.settle()
    assert cluster.find(CONFIG_MAPS, "child")


async def test_kinds_that_come_later_are_collected_too(cluster: Any) -> None:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    spec = {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
    }
    cluster.kinds["example.com", "widgets"] = ("Widget", True)
    await cluster.create(CUSTOM_RESOURCE_DEFINITIONS, {"metadata": {"name": "widgets.example.com"}, "spec": spec})
    widget = None
    async with asyncio.timeout(10):
        while widget is None:
            with suppress(NotFoundError):  # not served yet
                widget = await make(cluster, "w", gvr=WIDGETS)
            await asyncio.sleep(0.02)
    await make(cluster, "child", widget)
    await cluster.settle(0.6)
    assert cluster.find(CONFIG_MAPS, "child")
    await cluster.delete(WIDGETS, "w", namespace="default")
    await cluster.eventually(lambda: not cluster.find(CONFIG_MAPS, "child"))


async def test_a_cycle_of_owners_can_be_deleted_in_the_foreground(cluster: Any) -> None:
    one = await make(cluster, "one")
    two = await make(cluster, "two", one)
    await cluster.patch(CONFIG_MAPS, "one", {"metadata": {"ownerReferences": [reference(two)]}}, namespace="default")
    await cluster.settle()
    await cluster.delete(CONFIG_MAPS, "one", namespace="default", propagation_policy="Foreground")
    await cluster.eventually(lambda: not cluster.find(CONFIG_MAPS, "one") and not cluster.find(CONFIG_MAPS, "two"))


async def test_every_namespace_gets_its_account_and_root_ca(cluster: Any) -> None:
    await cluster.create(NAMESPACES, {"metadata": {"name": "fresh"}})
    await cluster.eventually(
        lambda: (
            cluster.find(SERVICE_ACCOUNTS, "default", "fresh")
            and cluster.find(CONFIG_MAPS, "kube-root-ca.crt", "fresh")
        )
    )
    await cluster.delete(SERVICE_ACCOUNTS, "default", namespace="fresh")
    await cluster.patch(CONFIG_MAPS, "kube-root-ca.crt", {"data": {"ca.crt": "forged"}}, namespace="fresh")
    await cluster.eventually(
        lambda: (
            cluster.find(SERVICE_ACCOUNTS, "default", "fresh")
            and cluster.find(CONFIG_MAPS, "kube-root-ca.crt", "fresh")["data"] == {"ca.crt": "the CA"}
        )
    )


async def test_a_namespace_goes_with_all_that_is_in_it(cluster: Any) -> None:
    await cluster.create(NAMESPACES, {"metadata": {"name": "doomed"}})
    await cluster.eventually(lambda: cluster.find(SERVICE_ACCOUNTS, "default", "doomed"))
    await make(cluster, "held", namespace="doomed", finalizers=["example.com/hold"])
    spec = {"containers": [{"name": "c", "image": "i"}]}
    await cluster.create(PODS, {"metadata": {"name": "p", "namespace": "doomed"}, "spec": spec})
    await cluster.eventually(lambda: nested(cluster.find(PODS, "p", "doomed"), "status", "phase") == "Running")
    await cluster.delete(NAMESPACES, "doomed")
    condition = await cluster.eventually(
        lambda: (
            found
            if (found := find_condition(cluster.find(NAMESPACES, "doomed"), "NamespaceFinalizersRemaining"))
            and found["status"] == "True"
            else None
        )
    )
    assert condition["reason"] == "SomeFinalizersRemain"
    assert condition["message"].endswith("example.com/hold in 1 resource instances")
    remaining = find_condition(cluster.find(NAMESPACES, "doomed"), "NamespaceContentRemaining")
    assert remaining is not None
    assert remaining["message"] == "Some resources are remaining: configmaps. has 1 resource instances"
    assert cluster.find(NAMESPACES, "doomed")["status"]["phase"] == "Terminating"
    await cluster.patch(CONFIG_MAPS, "held", {"metadata": {"finalizers": None}}, namespace="doomed")
    await cluster.eventually(lambda: not cluster.find(NAMESPACES, "doomed"))
    assert not cluster.all(PODS, "doomed")
    assert not cluster.all(SERVICE_ACCOUNTS, "doomed")
