"""Lists: selectors, pages from one snapshot, resource versions, expired tokens."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest
from apiserver_toys import WIDGETS, Client, widget

from bowsprit.apiserver.server import Server

ALL = "/apis/toys.example/v1/widgets"


async def _fill(client: Client, count: int = 6) -> None:
    for number in range(count):
        body = widget(f"w{number}", color="red" if number % 2 else "blue")
        body["metadata"]["labels"] = {"n": str(number)}
        await client.post(WIDGETS, body)


def _names(reply: Any) -> list[str]:
    return [item["metadata"]["name"] for item in reply.body["items"]]


async def test_a_list_is_sorted_and_has_the_newest_version(client: Client) -> None:
    empty = (await client.get(WIDGETS)).body
    assert empty == {
        "kind": "WidgetList",
        "apiVersion": "toys.example/v1",
        "metadata": {"resourceVersion": "1"},
        "items": [],
    }
    for name in ("b", "a", "c"):
        await client.post(WIDGETS, widget(name))
    await client.post(WIDGETS.replace("/ns/", "/another/"), widget("z"))
    reply = await client.get(WIDGETS)
    assert _names(reply) == ["a", "b", "c"]
    assert reply.body["metadata"] == {"resourceVersion": "5"}
    assert list(reply.body["items"][0]) == ["metadata", "spec"]
    everywhere = await client.get(ALL)
    assert [item["metadata"]["namespace"] for item in everywhere.body["items"]] == ["another", "ns", "ns", "ns"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("labelSelector=n%3D1", ["w1"]),
        ("labelSelector=n+in+(1,2)", ["w1", "w2"]),
        ("labelSelector=!n", []),
        ("fieldSelector=metadata.name%3Dw3", ["w3"]),
        ("fieldSelector=metadata.name!%3Dw3", ["w0", "w1", "w2", "w4", "w5"]),
        ("fieldSelector=spec.color%3Dred", ["w1", "w3", "w5"]),
        ("fieldSelector=spec.color%3Dred,metadata.name%3Dw0", []),
        ("fieldSelector=spec.color%3Dred&labelSelector=n>2", ["w3", "w5"]),
    ],
)
async def test_selectors(client: Client, query: str, names: list[str]) -> None:
    await _fill(client)
    assert _names(await client.get(f"{WIDGETS}?{query}")) == names


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("labelSelector=a+b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("fieldSelector=spec.size%3D1", "field label not supported: spec.size"),
        ("fieldSelector=x", "invalid selector: 'x'; can't understand 'x'"),
        ("limit=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("resourceVersion=abc", 'invalid resource version: resourceVersion: Invalid value: "abc": strconv.ParseUint'),
        ("continue=garbage", "invalid continue token: continue key is not valid: invalid character"),
        ("resourceVersion=1&continue=eyJ2Ijoi", "specifying resource version is not allowed when using continue"),
    ],
)
async def test_bad_parameters_are_told(client: Client, query: str, message: str) -> None:
    reply = await client.get(f"{WIDGETS}?{query}")
    assert (reply.status, reply.body["reason"]) == (400, "BadRequest")
    assert reply.body["message"].startswith(message)


async def test_unselectable_fields_of_a_kind_without_own_ones(client: Client) -> None:
    reply = await client.get("/apis/toys.example/v1/crates?fieldSelector=spec.x%3D1")
    assert reply.body["message"] == '"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"'


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("resourceVersionMatch=Exact", "resourceVersionMatch is forbidden unless resourceVersion is provided"),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            'resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
        ),
        ("resourceVersion=1&resourceVersionMatch=Foo", 'Unsupported value: "Foo"'),
        ("sendInitialEvents=true", "sendInitialEvents is forbidden for list"),
    ],
)
async def test_parameters_that_do_not_go_together(client: Client, query: str, message: str) -> None:
    reply = await client.get(f"{WIDGETS}?{query}")
    assert (reply.status, reply.body["reason"], reply.body["details"]["kind"]) == (422, "Invalid", "ListOptions")
    assert message in reply.body["message"]


async def test_pages_show_one_snapshot(client: Client) -> None:
    await _fill(client)
    first = await client.get(f"{WIDGETS}?limit=2")
    assert _names(first) == ["w0", "w1"]
    meta = first.body["metadata"]
    assert meta["remainingItemCount"] == 4
    token = json.loads(base64.urlsafe_b64decode(meta["continue"] + "=="))
    assert token == {"v": "meta.k8s.io/v1", "rv": 7, "start": "/w1\x00"}
    await client.post(WIDGETS, widget("w22"))
    await client.delete(f"{WIDGETS}/w3")
    await client.merge(f"{WIDGETS}/w2", {"spec": {"size": 9}})
    second = await client.get(f"{WIDGETS}?limit=3&continue={quote(meta['continue'])}")
    assert _names(second) == ["w2", "w3", "w4"]
    assert second.body["items"][0]["spec"]["size"] == 1
    assert second.body["metadata"]["resourceVersion"] == meta["resourceVersion"]
    rest = await client.get(f"{WIDGETS}?continue={quote(second.body['metadata']['continue'])}")
    assert _names(rest) == ["w5"]
    assert rest.body["metadata"] == {"resourceVersion": "7"}


async def test_pages_with_a_selector_do_not_count_the_rest(client: Client) -> None:
    await _fill(client)
    first = (await client.get(f"{WIDGETS}?limit=2&fieldSelector=spec.color%3Dred")).body
    assert "remainingItemCount" not in first["metadata"]
    second = await client.get(
        f"{WIDGETS}?fieldSelector=spec.color%3Dred&continue={quote(first['metadata']['continue'])}"
    )
    assert _names(second) == ["w5"]


async def test_tokens_do_not_lead_out_of_the_collection(client: Client) -> None:
    await _fill(client)
    for start in ("../crates/", "/../x", "/ns/../../x"):
        token = base64.urlsafe_b64encode(json.dumps({"v": "meta.k8s.io/v1", "rv": 6, "start": start}).encode()).decode()
        reply = await client.get(f"{WIDGETS}?continue={quote(token)}")
        assert (reply.status, start in reply.body["message"]) == (400, True)


async def test_an_expired_token_gives_one_that_goes_on_inconsistently(server: Server, client: Client) -> None:
    await _fill(client)
    token = (await client.get(f"{WIDGETS}?limit=2")).body["metadata"]["continue"]
    await client.post(WIDGETS, widget("w22"))
    collection = next(each for each in server.registry.collections() if each.resource.kind == "Widget")
    await server.store.compact(server.store.revision)
    collection.cacher.oldest = server.store.revision
    expired = await client.get(f"{WIDGETS}?limit=2&continue={quote(token)}")
    assert (expired.status, expired.body["reason"]) == (410, "Expired")
    again = await client.get(f"{WIDGETS}?limit=9&continue={quote(expired.body['metadata']['continue'])}")
    assert _names(again) == ["w2", "w22", "w3", "w4", "w5"]
    gone = await client.get(f"{WIDGETS}?resourceVersion=3&resourceVersionMatch=Exact")
    assert (gone.status, gone.body["message"]) == (410, "The resourceVersion for the provided list is too old: 3")


async def test_exact_and_not_older_versions(server: Server, client: Client) -> None:
    await _fill(client, 4)
    assert _names(await client.get(f"{WIDGETS}?resourceVersion=3&resourceVersionMatch=Exact")) == ["w0", "w1"]
    assert len(_names(await client.get(f"{WIDGETS}?resourceVersion=3&resourceVersionMatch=NotOlderThan"))) == 4
    assert len(_names(await client.get(f"{WIDGETS}?resourceVersion=0"))) == 4
    assert _names(await client.get(f"{WIDGETS}?resourceVersion=3&limit=5")) == ["w0", "w1"]


async def test_versions_of_the_future_time_out(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bowsprit.apiserver.verbs.list.FRESH_SECONDS", 0.01)
    monkeypatch.setattr("bowsprit.apiserver.verbs.get.FRESH_SECONDS", 0.01)
    await _fill(client, 1)
    for path in (
        f"{WIDGETS}?resourceVersion=99",
        f"{WIDGETS}?resourceVersion=99&resourceVersionMatch=Exact",
        f"{WIDGETS}/w0?resourceVersion=99",
    ):
        reply = await client.get(path)
        assert (reply.status, reply.headers["Retry-After"]) == (504, "1")
        assert reply.body["message"] == "Timeout: Too large resource version: 99, current: 2"
        assert reply.body["details"] == {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }


async def test_big_lists_come_whole(client: Client) -> None:
    text = "x" * 100_000
    for number in range(25):
        await client.post(WIDGETS, widget(f"w{number:02}", text=text))
    reply = await client.get(WIDGETS, Accept_Encoding="identity")
    assert len(_names(reply)) == 25
    assert int(reply.headers["Content-Length"]) == len(reply.raw) > 2_500_000
    packed = await client.get(WIDGETS, Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    import zlib

    assert zlib.decompress(packed.raw, 31) == reply.raw
    one = await client.get(f"{WIDGETS}/w00", Accept_Encoding="gzip")
    assert "Content-Encoding" not in one.headers
