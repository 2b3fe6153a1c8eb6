"""Objects in and out: create, read, change, as clients of Kubernetes expect it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from apiserver_toys import CRATES, WIDGETS, Client, widget

from bowsprit.apiserver.collection import World
from bowsprit.apiserver.server import Server


async def test_a_created_object_has_what_the_server_gives_it(client: Client) -> None:
    reply = await client.post(WIDGETS, {**widget("a"), "status": {"x": 1}})
    assert reply.status == 201
    meta = reply.body["metadata"]
    assert list(reply.body) == ["kind", "apiVersion", "metadata", "spec"]
    assert list(meta) == [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "managedFields",
    ]
    assert meta["generation"] == 1
    assert reply.body["spec"] == {"size": 1}
    read = await client.get(f"{WIDGETS}/a")
    assert read.body == reply.body
    assert read.headers["Audit-Id"]
    assert read.headers["Cache-Control"] == "no-cache, private"
    assert "Server" not in read.headers


async def test_a_version_on_a_new_object_is_refused_at_last(client: Client) -> None:
    body = widget("versioned")
    body["metadata"]["resourceVersion"] = "7"
    reply = await client.post(WIDGETS, body)
    assert (reply.status, reply.body["message"]) == (500, "resourceVersion should not be set on objects to be created")
    body["metadata"]["resourceVersion"] = "0"
    assert (await client.post(WIDGETS, body)).status == 201


async def test_system_fields_of_the_client_are_ignored(client: Client) -> None:
    body = widget("a")
    body["metadata"] |= {
        "uid": "mine",
        "creationTimestamp": "2001-01-01T00:00:00Z",
        "deletionTimestamp": "2001-01-01T00:00:00Z",
        "selfLink": "/x",
        "labels": {"b": "2", "a": "1"},
    }
    meta = (await client.post(WIDGETS, body)).body["metadata"]
    assert meta["uid"] != "mine"
    assert meta["creationTimestamp"] > "2020"
    assert "deletionTimestamp" not in meta
    assert "selfLink" not in meta
    assert list(meta["labels"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (
            {"metadata": {"name": "A_"}},
            422,
            'Widget.toys.example "A_" is invalid: metadata.name: Invalid value: "A_": a lowercase',
        ),
        ({"metadata": {}}, 422, "metadata.name: Required value: name or generateName is required"),
        ({"metadata": {"name": "a", "namespace": "x"}}, 400, "the namespace of the provided object does not match"),
        ({"spec": {"size": -1}}, 422, "spec.size: Invalid value: -1: must not be negative"),
        ({"kind": "Crate"}, 400, "unknown conversion"),
        ({"kind": "Nope"}, 400, 'no kind "Nope" is registered for version "toys.example/v1"'),
        (
            {"metadata": {"name": "a", "labels": {"a b": "c"}}},
            422,
            'metadata.labels: Invalid value: "a b": name part must',
        ),
        ({"metadata": {"name": "a", "finalizers": ["a b"]}}, 422, 'metadata.finalizers: Invalid value: "a b"'),
    ],
)
async def test_bad_objects_are_refused_with_the_reason(client: Client, change: Any, code: int, message: str) -> None:
    reply = await client.post(WIDGETS, {**widget("a"), **change})
    assert reply.status == code
    assert reply.body["kind"] == "Status"
    assert reply.body["code"] == code
    assert message in reply.body["message"]


async def test_names_are_taken_once(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    again = await client.post(WIDGETS, widget("a"))
    assert (again.status, again.body["reason"]) == (409, "AlreadyExists")
    assert again.body["message"] == 'widgets.toys.example "a" already exists'
    assert (await client.get(f"{WIDGETS}/b")).body["message"] == 'widgets.toys.example "b" not found'


async def test_generated_names_have_five_random_characters(client: Client) -> None:
    body = widget("")
    body["metadata"] = {"generateName": "g" * 70}
    name = (await client.post(WIDGETS, body)).body["metadata"]["name"]
    assert len(name) == 63
    assert name.startswith("g" * 58)


async def test_generated_names_are_tried_eight_times(server: Server, client: Client) -> None:
    suffixes = iter(["aaaaa", "aaaaa", "bbbbb", *["aaaaa"] * 8])
    collection = next(each for each in server.registry.collections() if each.resource.kind == "Widget")
    collection.world = World(choose=lambda alphabet, count: list(next(suffixes)))
    body = widget("")
    body["metadata"] = {"generateName": "g-"}
    names = [(await client.post(WIDGETS, body)).body["metadata"]["name"] for _ in range(2)]
    assert names == ["g-aaaaa", "g-bbbbb"]
    failed = await client.post(WIDGETS, body)
    assert (failed.status, failed.body["reason"]) == (409, "AlreadyExists")
    assert next(suffixes, None) is None


async def test_an_update_must_name_the_current_version_or_none(client: Client) -> None:
    made = (await client.post(WIDGETS, widget("a"))).body
    first = await client.put(f"{WIDGETS}/a", {**made, "spec": {"size": 2}})
    assert (first.status, first.body["metadata"]["generation"]) == (200, 2)
    stale = await client.put(f"{WIDGETS}/a", {**made, "spec": {"size": 3}})
    assert (stale.status, stale.body["reason"]) == (409, "Conflict")
    assert stale.body["message"] == (
        'Operation cannot be fulfilled on widgets.toys.example "a": the object has been modified; please apply your changes to '
        "the latest version and try again"
    )
    unconditional = await client.put(f"{WIDGETS}/a", widget("a", size=3))
    assert unconditional.status == 200


async def test_an_update_that_changes_nothing_keeps_the_version(client: Client) -> None:
    made = (await client.post(WIDGETS, widget("a", size=2, color="blue"))).body
    same = await client.put(f"{WIDGETS}/a", widget("a", color="blue", size=2))
    assert same.body["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    changed = await client.put(f"{WIDGETS}/a", widget("a", color="blue", size=2.0))
    assert changed.body["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]


async def test_metadata_that_is_immutable(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    reply = await client.merge(f"{WIDGETS}/a", {"metadata": {"uid": "4444"}})
    assert reply.status == 422
    assert reply.body["message"].endswith('metadata.uid: Invalid value: "4444": field is immutable')
    assert len(reply.body["details"]["causes"]) == 2
    other_uid = {**widget("a"), "metadata": {"name": "a", "uid": "4444"}}
    conflict = await client.put(f"{WIDGETS}/a", other_uid)
    assert conflict.status == 409
    assert "Precondition failed: UID in precondition: 4444, UID in object meta: " in conflict.body["message"]


async def test_names_in_body_and_path_must_agree(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    assert (await client.put(f"{WIDGETS}/a", widget("b"))).body["message"] == (
        "the name of the object (b) does not match the name on the URL (a)"
    )
    assert (await client.put(f"{WIDGETS}/nope", widget("nope"))).status == 404


async def test_the_status_subresource_changes_only_the_status(client: Client) -> None:
    await client.post(WIDGETS, widget("a", size=2))
    reply = await client.merge(
        f"{WIDGETS}/a/status", {"spec": {"size": 9}, "status": {"size": 2}, "metadata": {"labels": {"a": "b"}}}
    )
    assert reply.status == 200
    assert (reply.body["spec"], reply.body["status"]) == ({"size": 2}, {"size": 2})
    assert "labels" not in reply.body["metadata"]
    main = await client.merge(f"{WIDGETS}/a", {"spec": {"size": 3}, "status": {"size": 7}})
    assert (main.body["spec"], main.body["status"]) == ({"size": 3}, {"size": 2})
    assert main.body["metadata"]["generation"] == 2


async def test_the_scale_subresource(client: Client) -> None:
    await client.post(WIDGETS, widget("a", size=2))
    scale = (await client.get(f"{WIDGETS}/a/scale")).body
    assert (scale["kind"], scale["apiVersion"], scale["spec"]) == ("Scale", "autoscaling/v1", {"replicas": 2})
    reply = await client.put(f"{WIDGETS}/a/scale", {**scale, "spec": {"replicas": 5}})
    assert (reply.status, reply.body["spec"]) == (200, {"replicas": 5})
    assert (await client.put(f"{WIDGETS}/a/scale", {**scale, "spec": {"replicas": 6}})).status == 409
    patched = await client.merge(f"{WIDGETS}/a/scale", {"spec": {"replicas": 7}})
    assert patched.body["spec"] == {"replicas": 7}
    assert (await client.get(f"{WIDGETS}/a")).body["spec"] == {"size": 7}
    negative = await client.merge(f"{WIDGETS}/a/scale", {"spec": {"replicas": -1}})
    assert "must be greater than or equal to 0" in negative.body["message"]


async def test_json_patch(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    json_patch = {"Content-Type": "application/json-patch+json"}
    path = f"{WIDGETS}/a"
    reply = await client.call("PATCH", path, [{"op": "replace", "path": "/spec/size", "value": 4}], headers=json_patch)
    assert (reply.status, reply.body["spec"]) == (200, {"size": 4})
    failed = await client.call("PATCH", path, [{"op": "test", "path": "/spec/size", "value": 5}], headers=json_patch)
    assert (failed.status, failed.body["reason"]) == (422, "Invalid")
    assert (await client.call("PATCH", path, {"op": "x"}, headers=json_patch)).status == 400
    invalid = await client.call(
        "PATCH", path, [{"op": "replace", "path": "/spec/size", "value": -4}], headers=json_patch
    )
    assert (invalid.status, invalid.body["details"]["causes"][0]["field"]) == (422, "spec.size")
    unknown = await client.call("PATCH", path, {}, headers={"Content-Type": "text/plain"})
    assert (unknown.status, unknown.body["message"]) == (415, "415: Unsupported Media Type")


async def test_a_dry_run_changes_nothing(client: Client) -> None:
    dry = await client.post(f"{WIDGETS}?dryRun=All", widget("a"))
    assert dry.status == 201
    assert "resourceVersion" not in dry.body["metadata"]
    assert (await client.get(f"{WIDGETS}/a")).status == 404
    made = (await client.post(WIDGETS, widget("a"))).body
    assert (await client.post(f"{WIDGETS}?dryRun=All", widget("a"))).status == 409
    changed = await client.put(f"{WIDGETS}/a?dryRun=All", widget("a", size=8))
    assert changed.body["spec"] == {"size": 8}
    assert (await client.delete(f"{WIDGETS}/a?dryRun=All")).body["status"] == "Success"
    assert (await client.get(f"{WIDGETS}/a")).body == made
    assert (await client.post(f"{WIDGETS}?dryRun=Some", widget("b"))).body["message"] == (
        'CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All"'
    )


async def test_repeated_fields_warn_or_fail(client: Client) -> None:
    data = b'{"apiVersion":"toys.example/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"size":1,"size":2}}'
    json_type = {"Content-Type": "application/json"}
    strict = await client.call("POST", f"{WIDGETS}?fieldValidation=Strict", data=data, headers=json_type)
    assert strict.status == 400
    assert strict.body["message"] == (
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: duplicate field "spec.size"'
    )
    warned = await client.call("POST", WIDGETS, data=data, headers=json_type)
    assert warned.status == 201
    assert warned.headers.getall("Warning") == ['299 - "duplicate field \\"spec.size\\""']


async def test_warnings_are_quoted_and_sent_once(client: Client) -> None:
    reply = await client.post(
        "/apis/toys.example/v1beta1/namespaces/ns/widgets",
        {**widget("a", color="red"), "apiVersion": "toys.example/v1beta1"},
    )
    assert reply.headers.getall("Warning") == [
        '299 - "toys.example/v1beta1 Widget is deprecated"',
        '299 - "spec.color: \\"red\\" is \\"loud\\""',
    ]


async def test_one_object_in_two_versions(client: Client) -> None:
    old = "/apis/toys.example/v1beta1/namespaces/ns/widgets"
    await client.post(WIDGETS, widget("a"))
    assert (await client.get(f"{old}/a")).body["apiVersion"] == "toys.example/v1beta1"
    assert [item["apiVersion"] for item in [(await client.get(old)).body]] == ["toys.example/v1beta1"]
    mismatch = await client.post(WIDGETS, {**widget("b"), "apiVersion": "toys.example/v1beta1"})
    assert mismatch.body["message"] == (
        "the API version in the data (toys.example/v1beta1) does not match the expected API version (toys.example/v1)"
    )


async def test_concurrent_patches_all_arrive(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    replies = await asyncio.gather(
        *(client.merge(f"{WIDGETS}/a", {"metadata": {"labels": {f"k{number}": "v"}}}) for number in range(20))
    )
    assert {reply.status for reply in replies} == {200}
    assert len((await client.get(f"{WIDGETS}/a")).body["metadata"]["labels"]) == 20


async def test_cluster_scoped_objects_have_no_namespace(client: Client) -> None:
    body = {"apiVersion": "toys.example/v1", "kind": "Crate", "metadata": {"name": "c", "namespace": "x"}}
    assert "namespace" not in (await client.post(CRATES, body)).body["metadata"]
    assert (await client.get("/apis/toys.example/v1/namespaces/ns/crates")).status == 404
    assert (await client.post("/apis/toys.example/v1/widgets", widget("a"))).status == 405
