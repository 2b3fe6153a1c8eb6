"""Watches: what a client sees, from where, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from apiserver_toys import WIDGETS, Client, widget

from bowsprit.apiserver.server import Server

INITIAL = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan"


class Events:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            line = await self.response.content.readline()
        return json.loads(line) if line else {}

    async def short(self, count: int) -> list[tuple[str, str]]:
        events = [await self.next() for _ in range(count)]
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]


@asynccontextmanager
async def watching(client: Client, query: str = "", path: str = WIDGETS, **headers: str) -> AsyncIterator[Events]:
    url = f"{client.base}{path}?watch=1{'&' + query if query else ''}"
    async with client.session.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        yield Events(response)


async def test_changes_are_seen_as_they_happen(client: Client) -> None:
    async with watching(client, "resourceVersion=0") as events:
        made = (await client.post(WIDGETS, widget("a"))).body
        assert await events.next() == {"type": "ADDED", "object": made}
        changed = (await client.merge(f"{WIDGETS}/a", {"spec": {"size": 2}})).body
        assert await events.next() == {"type": "MODIFIED", "object": changed}
        await client.delete(f"{WIDGETS}/a")
        last = await events.next()
        assert last["type"] == "DELETED"
        assert int(last["object"]["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])
        assert last["object"]["spec"] == {"size": 2}


async def test_the_head_comes_before_anything_happens(client: Client) -> None:
    async with watching(client) as events:
        assert events.response.headers["Content-Type"] == "application/json"
        assert events.response.headers["Transfer-Encoding"] == "chunked"
        assert events.response.headers["Audit-Id"]


async def test_without_a_version_the_state_comes_first(client: Client) -> None:
    for name in ("b", "a"):
        await client.post(WIDGETS, widget(name))
    for query in ("", "resourceVersion=0"):
        async with watching(client, query) as events:
            assert await events.short(2) == [("ADDED", "a"), ("ADDED", "b")]


async def test_from_a_version_only_what_follows(client: Client) -> None:
    for name in ("a", "b", "c"):
        await client.post(WIDGETS, widget(name))
    async with watching(client, "resourceVersion=2") as events:
        assert await events.short(2) == [("ADDED", "b"), ("ADDED", "c")]
    async with watching(client, "resourceVersion=4") as events:
        await client.delete(f"{WIDGETS}/b")
        assert await events.short(1) == [("DELETED", "b")]


async def test_other_namespaces_are_not_seen(client: Client) -> None:
    other = WIDGETS.replace("/ns/", "/other/")
    await client.post(WIDGETS, widget("before"))
    await client.post(other, widget("hidden"))
    async with watching(client, "resourceVersion=0") as events:
        await client.post(other, widget("x"))
        await client.post(WIDGETS, widget("y"))
        assert await events.short(2) == [("ADDED", "before"), ("ADDED", "y")]
    async with watching(client, "resourceVersion=2") as events:
        assert await events.short(1) == [("ADDED", "y")]


async def test_entering_and_leaving_a_selection(client: Client) -> None:
    async with watching(client, "labelSelector=k%3Da&resourceVersion=0") as events:
        await client.post(WIDGETS, widget("w"))
        await client.merge(f"{WIDGETS}/w", {"metadata": {"labels": {"k": "a"}}})
        await client.merge(f"{WIDGETS}/w", {"spec": {"size": 5}})
        left = (await client.merge(f"{WIDGETS}/w", {"metadata": {"labels": {"k": "b"}}})).body
        assert await events.short(2) == [("ADDED", "w"), ("MODIFIED", "w")]
        event = await events.next()
        assert event["type"] == "DELETED"
        assert event["object"]["metadata"]["labels"] == {"k": "a"}
        assert event["object"]["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    async with watching(client, "fieldSelector=metadata.name%3Dw&resourceVersion=0") as events:
        await client.post(WIDGETS, widget("x"))
        await client.delete(f"{WIDGETS}/w")
        assert await events.short(2) == [("ADDED", "w"), ("DELETED", "w")]


async def test_the_bookmark_that_ends_the_initial_events(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    async with watching(client, f"{INITIAL}&allowWatchBookmarks=true") as events:
        assert await events.short(1) == [("ADDED", "a")]
        assert await events.next() == {
            "type": "BOOKMARK",
            "object": {
                "kind": "Widget",
                "apiVersion": "toys.example/v1",
                "metadata": {"resourceVersion": "2", "annotations": {"k8s.io/initial-events-end": "true"}},
            },
        }
    async with watching(client, f"{INITIAL}&timeoutSeconds=1") as events:
        assert await events.short(1) == [("ADDED", "a")]
        assert await events.next() == {}


async def test_bookmarks_come_about_every_minute(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bowsprit.apiserver.verbs.watch.BOOKMARK_SECONDS", 0.05)
    await client.post(WIDGETS, widget("a"))
    async with watching(client, "resourceVersion=2&allowWatchBookmarks=true") as events:
        await client.post("/apis/toys.example/v1/crates", {"metadata": {"name": "elsewhere"}})
        event = await events.next()
        assert (event["type"], event["object"]["metadata"]) == ("BOOKMARK", {"resourceVersion": "3"})


async def test_a_version_that_is_forgotten_is_an_error_in_the_stream(server: Server, client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    collection = next(each for each in server.registry.collections() if each.resource.kind == "Widget")
    collection.cacher.oldest = 7
    async with watching(client, "resourceVersion=1") as events:
        event = await events.next()
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert event["object"]["message"] == "too old resource version: 1 (7)"
        assert await events.next() == {}


@pytest.mark.parametrize(
    ("query", "code", "message"),
    [
        ("sendInitialEvents=true", 422, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"),
        (
            "resourceVersionMatch=NotOlderThan&resourceVersion=1",
            422,
            "forbidden for watch unless sendInitialEvents is provided",
        ),
        ("continue=x", 422, "resourceVersionMatch is forbidden when continue is provided"),
        ("resourceVersion=abc", 500, "strconv.ParseUint"),
        ("timeoutSeconds=x", 400, "strconv.ParseInt"),
        ("labelSelector=a+b", 400, "unable to parse requirement"),
    ],
)
async def test_what_can_be_told_before_the_stream(client: Client, query: str, code: int, message: str) -> None:
    reply = await client.get(f"{WIDGETS}?watch=1&{query}")
    assert (reply.status, message in reply.body["message"]) == (code, True)


async def test_unusable_media_types(client: Client) -> None:
    reply = await client.call("GET", f"{WIDGETS}?watch=1", headers={"Accept": "application/yaml"})
    assert (reply.status, "application/json;stream=watch" in reply.raw.decode()) == (406, True)


async def test_the_legacy_paths(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    await client.post(WIDGETS, widget("b"))
    async with watching(client, path="/apis/toys.example/v1/watch/namespaces/ns/widgets/b") as events:
        assert await events.short(1) == [("ADDED", "b")]
    async with watching(client, path="/apis/toys.example/v1/watch/widgets") as events:
        assert await events.short(2) == [("ADDED", "a"), ("ADDED", "b")]


async def test_tables_have_their_columns_in_the_first_event(client: Client) -> None:
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    await client.post(WIDGETS, widget("a"))
    async with watching(client, "includeObject=None", **table) as events:
        first = (await events.next())["object"]
        assert [column["name"] for column in first["columnDefinitions"]] == ["Name", "Size"]
        assert first["rows"] == [{"cells": ["a", 1], "object": None}]
        await client.post(WIDGETS, widget("b"))
        assert (await events.next())["object"]["columnDefinitions"] is None


async def test_metadata_only(client: Client) -> None:
    partial = {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
    async with watching(client, **partial) as events:
        await client.post(WIDGETS, widget("a"))
        obj = (await events.next())["object"]
        assert (obj["kind"], sorted(obj)) == ("PartialObjectMetadata", ["apiVersion", "kind", "metadata"])


async def test_over_a_websocket(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    async with client.session.ws_connect(f"{client.base}{WIDGETS}?watch=1&resourceVersion=0") as socket:
        assert json.loads((await socket.receive(5)).data)["type"] == "ADDED"
        await client.delete(f"{WIDGETS}/a")
        assert json.loads((await socket.receive(5)).data)["type"] == "DELETED"


async def test_a_removed_kind_ends_its_watches(server: Server, client: Client) -> None:
    async with watching(client) as events:
        collection = next(each for each in server.registry.collections() if each.resource.kind == "Widget")
        server.registry.remove(collection.resource.gr)
        assert await events.next() == {}
    assert (await client.get(WIDGETS)).status == 404


async def test_all_watchers_see_the_same_in_the_same_order(client: Client) -> None:
    async with watching(client) as one, watching(client) as two, watching(client) as three:

        async def write(number: int) -> None:
            await client.post(WIDGETS, widget(f"w{number}"))
            await client.merge(f"{WIDGETS}/w{number}", {"spec": {"size": 2}})
            await client.delete(f"{WIDGETS}/w{number}")

        await asyncio.gather(*(write(number) for number in range(20)))
        seen = [[await events.next() for _ in range(60)] for events in (one, two, three)]
    assert seen[0] == seen[1] == seen[2]
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen[0]]
    assert revisions == sorted(set(revisions))


async def test_a_reader_that_stalls_misses_nothing_or_is_told(client: Client, server: Server) -> None:
    text = "x" * 50_000
    async with watching(client, "resourceVersion=0") as events:
        for number in range(60):
            await client.post(WIDGETS, widget(f"w{number:02}", text=text))
        await asyncio.sleep(0)
        names = [(await events.next())["object"]["metadata"]["name"] for _ in range(60)]
    assert names == [f"w{number:02}" for number in range(60)]


async def test_watches_of_clients_that_went_away_are_forgotten(client: Client, server: Server) -> None:
    collection = next(each for each in server.registry.collections() if each.resource.kind == "Widget")
    for _ in range(3):
        async with watching(client):
            assert collection.cacher.watcher_count == 1
        async with asyncio.timeout(5):
            while collection.cacher.watcher_count:
                await asyncio.sleep(0.01)
