"""Deletion: finalizers, propagation, preconditions, grace periods, collections."""

from __future__ import annotations

import asyncio
from typing import Any

from apiserver_toys import CRATES, WIDGETS, Client, widget


def _options(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "DeleteOptions", **fields}


def _with_finalizers(name: str, *finalizers: str) -> dict[str, Any]:
    body = widget(name)
    body["metadata"]["finalizers"] = list(finalizers)
    return body


async def test_a_simple_object_goes_at_once(client: Client) -> None:
    made = (await client.post(WIDGETS, widget("a"))).body
    reply = await client.delete(f"{WIDGETS}/a")
    assert reply.status == 200
    assert reply.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "a", "group": "toys.example", "kind": "widgets", "uid": made["metadata"]["uid"]},
    }
    assert (await client.get(f"{WIDGETS}/a")).status == 404
    assert (await client.delete(f"{WIDGETS}/a")).status == 404


async def test_finalizers_keep_it_until_they_are_gone(client: Client) -> None:
    await client.post(WIDGETS, _with_finalizers("a", "x.example/1", "x.example/2"))
    marked = (await client.delete(f"{WIDGETS}/a")).body
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 0
    assert marked["metadata"]["deletionTimestamp"]
    assert marked["metadata"]["generation"] == 2
    assert (await client.delete(f"{WIDGETS}/a")).body == marked
    added = await client.merge(f"{WIDGETS}/a", {"metadata": {"finalizers": ["x.example/1", "x.example/3"]}})
    assert (added.status, "no new finalizers can be added" in added.body["message"]) == (422, True)
    one = await client.merge(f"{WIDGETS}/a", {"metadata": {"finalizers": ["x.example/2"]}})
    assert one.body["metadata"]["finalizers"] == ["x.example/2"]
    last = await client.merge(f"{WIDGETS}/a", {"metadata": {"finalizers": None}})
    assert last.status == 200
    assert last.body["metadata"]["resourceVersion"] == one.body["metadata"]["resourceVersion"]
    assert (await client.get(f"{WIDGETS}/a")).status == 404


async def test_the_propagation_policy_becomes_a_finalizer(client: Client) -> None:
    for name, policy, finalizers in (("f", "Foreground", ["foregroundDeletion"]), ("o", "Orphan", ["orphan"])):
        await client.post(WIDGETS, widget(name))
        reply = await client.delete(f"{WIDGETS}/{name}", _options(propagationPolicy=policy))
        assert reply.body["metadata"]["finalizers"] == finalizers
    gone = await client.delete(f"{WIDGETS}/f", _options(propagationPolicy="Background"))
    assert gone.body["status"] == "Success"
    await client.post(WIDGETS, widget("b"))
    bad = await client.delete(f"{WIDGETS}/b", _options(propagationPolicy="Sideways"))
    assert bad.body["message"] == (
        'DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sideways": supported values: '
        '"Foreground", "Background", "Orphan", "nil"'
    )
    both = await client.delete(f"{WIDGETS}/b", _options(propagationPolicy="Orphan", orphanDependents=True))
    assert both.status == 422
    left = await client.delete(f"{WIDGETS}/b?orphanDependents=false&dryRun=All")
    assert left.status == 200


async def test_preconditions(client: Client) -> None:
    meta = (await client.post(WIDGETS, widget("a"))).body["metadata"]
    wrong = await client.delete(f"{WIDGETS}/a", _options(preconditions={"uid": "other"}))
    assert (wrong.status, wrong.body["details"]["kind"]) == (409, "Widget")
    assert wrong.body["message"].startswith(
        'Operation cannot be fulfilled on Widget.toys.example "a": the UID in the precondition'
    )
    stale = await client.delete(f"{WIDGETS}/a", _options(preconditions={"resourceVersion": "1000"}))
    assert "the ResourceVersion in the precondition (1000) does not match" in stale.body["message"]
    right = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    assert (await client.delete(f"{WIDGETS}/a", _options(preconditions=right))).status == 200


async def test_grace_periods_can_only_shrink(client: Client) -> None:
    crate = {"apiVersion": "toys.example/v1", "kind": "Crate", "metadata": {"name": "c"}}
    await client.post(CRATES, crate)
    first = (await client.delete(f"{CRATES}/c")).body["metadata"]
    assert first["deletionGracePeriodSeconds"] == 30
    longer = (await client.delete(f"{CRATES}/c?gracePeriodSeconds=50")).body["metadata"]
    assert longer == first
    shorter = (await client.delete(f"{CRATES}/c?gracePeriodSeconds=5")).body["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 5
    assert shorter["deletionTimestamp"] < first["deletionTimestamp"]
    now = await client.delete(f"{CRATES}/c", _options(gracePeriodSeconds=0))
    assert now.body["metadata"]["deletionGracePeriodSeconds"] == 0
    assert (await client.get(f"{CRATES}/c")).status == 404
    await client.post(CRATES, {**crate, "idle": True})
    assert (await client.delete(f"{CRATES}/c")).body["kind"] == "Crate"
    assert (await client.get(f"{CRATES}/c")).status == 404


async def test_options_of_the_wrong_kind_or_type_are_refused(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    wrong = await client.delete(f"{WIDGETS}/a", {"apiVersion": "v1", "kind": "ConfigMap"})
    assert wrong.body["message"].startswith('no kind "ConfigMap" is registered for version "v1"')
    assert (await client.delete(f"{WIDGETS}/a?gracePeriodSeconds=x")).body["message"] == (
        'strconv.ParseInt: parsing "x": invalid syntax'
    )
    text = await client.delete(f"{WIDGETS}/a", _options(gracePeriodSeconds="5"))
    assert (
        "cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64"
        in text.body["message"]
    )
    xml = await client.call("DELETE", f"{WIDGETS}/a", data=b"x", headers={"Content-Type": "text/xml"})
    assert xml.status == 415


async def test_a_collection_is_deleted_by_selector(client: Client) -> None:
    for number in range(4):
        body = widget(f"w{number}")
        body["metadata"]["labels"] = {"odd": str(number % 2)}
        await client.post(WIDGETS, body)
    dry = await client.delete(f"{WIDGETS}?labelSelector=odd%3D1&dryRun=All")
    assert [item["metadata"]["name"] for item in dry.body["items"]] == ["w1", "w3"]
    reply = await client.delete(f"{WIDGETS}?labelSelector=odd%3D1")
    assert reply.body["kind"] == "WidgetList"
    assert [item["metadata"]["name"] for item in (await client.get(WIDGETS)).body["items"]] == ["w0", "w2"]
    assert (await client.delete("/apis/toys.example/v1/widgets")).status == 405


async def test_of_concurrent_deletions_one_succeeds(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    replies = await asyncio.gather(*(client.delete(f"{WIDGETS}/a") for _ in range(8)))
    assert sorted(reply.status for reply in replies) == [200] + [404] * 7
