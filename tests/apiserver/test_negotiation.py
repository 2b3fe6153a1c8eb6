"""Representations: what clients may ask for and send."""

from __future__ import annotations

import json
import zlib

import pytest
from apiserver_toys import WIDGETS, Client, widget

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


@pytest.mark.parametrize(
    ("accept", "status", "content_type"),
    [
        ("", 200, "application/json"),
        ("*/*", 200, "application/json"),
        ("application/yaml;q=0.5,application/json;q=0.9", 200, "application/json"),
        ("application/yaml", 200, "application/yaml"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", 200, "application/json"),
        ("application/json;charset=utf-8", 200, "application/json"),
        ("application/vnd.kubernetes.protobuf,application/json", 200, "application/json"),
        ("application/foo, application/json", 200, "application/json"),
        ("application/*", 406, "application/json"),
        ("text/xml", 406, "application/json"),
        (TABLE, 200, "application/json"),
        (f"{PARTIAL},application/json", 200, "application/json"),
        ("application/json;as=Nonsense;v=v1;g=meta.k8s.io", 406, "application/json"),
        ("application/json;as=Nonsense;v=v1;g=meta.k8s.io,application/json", 200, "application/json"),
    ],
)
async def test_accept(client: Client, accept: str, status: int, content_type: str) -> None:
    await client.post(WIDGETS, widget("a"))
    reply = await client.get(f"{WIDGETS}/a", Accept=accept)
    assert (reply.status, reply.headers["Content-Type"]) == (status, content_type)


async def test_refusals_name_what_would_do(client: Client) -> None:
    reply = await client.get(f"{WIDGETS}/a", Accept="text/xml")
    assert reply.body["message"] == (
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )
    assert reply.body["details"] == {}
    body = await client.call("POST", WIDGETS, data=b"<a/>", headers={"Content-Type": "text/xml"})
    assert body.status == 415
    assert body.body["message"].startswith(
        "the body of the request was in an unknown format - accepted media types include: "
    )


async def test_yaml_in_both_directions(client: Client) -> None:
    data = b"apiVersion: toys.example/v1\nkind: Widget\nmetadata: {name: yam}\nspec: {size: 3}\n"
    made = await client.call(
        "POST", WIDGETS, data=data, headers={"Content-Type": "application/yaml", "Accept": "application/yaml"}
    )
    assert made.status == 201
    text = made.raw.decode()
    assert text.startswith("apiVersion: toys.example/v1\nkind: Widget\nmetadata:\n  creationTimestamp: ")
    assert text.endswith("spec:\n  size: 3\n")
    missing = await client.get(f"{WIDGETS}/none", Accept="application/yaml")
    assert missing.raw.decode().startswith("apiVersion: v1\ncode: 404\n")


async def test_tables(client: Client) -> None:
    await client.post(WIDGETS, widget("a", size=2))
    await client.post(WIDGETS, widget("b", size=3))
    table = (await client.get(WIDGETS, Accept=TABLE)).body
    assert (table["kind"], table["apiVersion"], table["metadata"]) == (
        "Table",
        "meta.k8s.io/v1",
        {"resourceVersion": "3"},
    )
    assert [row["cells"] for row in table["rows"]] == [["a", 2], ["b", 3]]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    whole = (await client.get(f"{WIDGETS}?includeObject=Object", Accept=TABLE)).body
    assert whole["rows"][0]["object"]["spec"] == {"size": 2}
    one = (await client.get(f"{WIDGETS}/a?includeObject=None", Accept=TABLE)).body
    assert one["rows"] == [{"cells": ["a", 2], "object": None}]
    bad = await client.get(f"{WIDGETS}?includeObject=Wat", Accept=TABLE)
    assert (bad.status, "must be 'Metadata', 'Object', 'None', or empty" in bad.body["message"]) == (400, True)
    status = await client.call("DELETE", f"{WIDGETS}/a", headers={"Accept": TABLE})
    assert status.body["kind"] == "Status"
    await client.post("/apis/toys.example/v1/crates", {"metadata": {"name": "c"}})
    default = (await client.get("/apis/toys.example/v1/crates", Accept=TABLE)).body
    assert [column["name"] for column in default["columnDefinitions"]] == ["Name", "Created At"]


async def test_metadata_only(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    one = (await client.get(f"{WIDGETS}/a", Accept=PARTIAL)).body
    assert (one["kind"], "spec" in one) == ("PartialObjectMetadata", False)
    many = (await client.get(WIDGETS, Accept=PARTIAL.replace("Metadata;", "MetadataList;"))).body
    assert (many["kind"], many["items"][0]["kind"]) == ("PartialObjectMetadataList", "PartialObjectMetadata")
    wrong = await client.get(WIDGETS, Accept=PARTIAL)
    assert (
        wrong.body["message"]
        == "you requested PartialObjectMetadata, but the requested object is a list (*toys.WidgetList)"
    )


async def test_pretty_printing(client: Client) -> None:
    await client.post(WIDGETS, widget("a"))
    for path, headers in ((f"{WIDGETS}/a?pretty=1", {}), (f"{WIDGETS}/a", {"User-Agent": "curl/8.0"})):
        reply = await client.call("GET", path, headers=headers)
        assert reply.raw.startswith(b'{\n  "kind": "Widget",\n')
    plain = await client.call("GET", f"{WIDGETS}/a?pretty=false", headers={"User-Agent": "curl/8.0"})
    assert plain.raw.startswith(b'{"kind":"Widget",')
    assert plain.raw.endswith(b"}\n")


async def test_only_big_answers_are_compressed(client: Client) -> None:
    await client.post(WIDGETS, widget("small"))
    await client.post(WIDGETS, widget("big", text="z" * 200_000))
    small = await client.get(f"{WIDGETS}/small", Accept_Encoding="gzip")
    assert "Content-Encoding" not in small.headers
    big = await client.get(f"{WIDGETS}/big", Accept_Encoding="gzip")
    assert (big.headers["Content-Encoding"], big.headers["Vary"]) == ("gzip", "Accept-Encoding")
    assert json.loads(zlib.decompress(big.raw, 31))["metadata"]["name"] == "big"


async def test_bodies_have_a_limit(client: Client) -> None:
    reply = await client.post(WIDGETS, widget("huge", text="z" * (3 << 20)))
    assert (reply.status, reply.body["reason"]) == (413, "RequestEntityTooLarge")
    assert reply.body["message"] == "Request entity too large: limit is 3145728"

    async def endless() -> object:
        for _ in range(50):
            yield b"x" * 100_000

    json_type = {"Content-Type": "application/json"}
    async with client.session.post(client.base + WIDGETS, data=endless(), headers=json_type) as response:
        assert response.status == 413


@pytest.mark.parametrize(
    "data", [b"", b"[", b"[]", b"null", b'{"kind": 1}', b"\xff\xfe", b'{"a":' * 3000, b"12", b'{"metadata": []}']
)
async def test_malformed_bodies_are_bad_requests(client: Client, data: bytes) -> None:
    for media_type in ("application/json", "application/yaml"):
        reply = await client.call("POST", WIDGETS, data=data, headers={"Content-Type": media_type})
        assert reply.status in (400, 422), reply.body
        assert reply.body["kind"] == "Status"


async def test_a_client_that_asks_first_is_told_to_go_on(client: Client) -> None:
    import asyncio

    host, port = client.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    data = json.dumps(widget("asked", text="z" * 5000)).encode()
    head = f"POST {WIDGETS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    writer.write(f"{head}Expect: 100-continue\r\n\r\n".encode())
    async with asyncio.timeout(5):
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert await reader.readline() == b"\r\n"
        writer.write(data)
        assert await reader.readline() == b"HTTP/1.1 201 Created\r\n"
    writer.close()
