"""The OpenAPI endpoints: hashes, caching, redirects, the protobuf form."""

from __future__ import annotations

import hashlib

import pytest
from apiserver_toys import Client

from bowsprit.apiserver.openapi import PROTOBUF_V2
from bowsprit.apiserver.server import Server

PATH = "/openapi/v3/apis/toys.example/v1"


@pytest.fixture
def made(server: Server) -> list[str]:
    """Says which documents were made, in order."""
    calls: list[str] = []

    def supplier(name: str) -> object:
        def make() -> dict[str, str]:
            calls.append(name)
            return {"openapi": "3.0.0", "of": name}

        return make

    server.openapi.put("apis/toys.example/v1", supplier("v1"))  # type: ignore[arg-type]
    server.openapi.put("api/v1", supplier("core"))  # type: ignore[arg-type]
    server.openapi.set_v2(supplier("v2"))  # type: ignore[arg-type]
    return calls


async def test_the_index_names_hashes_that_stay_good(client: Client, made: list[str]) -> None:
    index = await client.get("/openapi/v3")
    assert (index.status, index.headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    url = index.body["paths"]["apis/toys.example/v1"]["serverRelativeURL"]
    document = await client.get(url)
    assert url == f"{PATH}?hash={hashlib.sha512(document.raw).hexdigest().upper()}"
    assert document.headers["Cache-Control"] == "public, immutable"
    assert document.headers["Expires"]
    wrong = await client.get(f"{PATH}?hash=ABC")
    assert (wrong.status, wrong.headers["Location"]) == (301, url)
    again = await client.get(PATH, If_None_Match=document.headers["Etag"])
    assert (again.status, again.raw) == (304, b"")
    assert sorted(made) == ["core", "v1"]
    assert (await client.get(PATH)).headers["Cache-Control"] == "no-cache, private"


async def test_what_is_not_there(client: Client, made: list[str]) -> None:
    assert (await client.get("/openapi/v3/apis/nope/v1")).status == 404
    assert (await client.get(PATH, Accept="text/xml")).status == 406
    assert (await client.get("/openapi/v2", Accept="text/xml")).status == 406


async def test_a_changed_document_is_made_anew(server: Server, client: Client, made: list[str]) -> None:
    first = await client.get(PATH)
    server.openapi.put("apis/toys.example/v1", lambda: {"changed": "yes"})
    second = await client.get(PATH)
    assert (second.body, second.headers["Etag"] != first.headers["Etag"]) == ({"changed": "yes"}, True)
    server.openapi.drop("apis/toys.example/v1")
    assert (await client.get(PATH)).status == 404


@pytest.mark.parametrize("media_type", [PROTOBUF_V2, PROTOBUF_V2.replace("@", ".")])
async def test_v2_in_both_forms(server: Server, client: Client, made: list[str], media_type: str) -> None:
    server.openapi.encode_v2 = lambda document: b"proto:" + document["of"].encode()
    plain = await client.get("/openapi/v2")
    assert (plain.body["of"], plain.headers.getall("Vary")) == ("v2", ["Accept-Encoding", "Accept"])
    packed = await client.get("/openapi/v2", Accept=media_type)
    # The type that Go's mime package can read, however the client spelt it.
    assert (packed.raw, packed.headers["Content-Type"]) == (b"proto:v2", PROTOBUF_V2.replace("@", "."))
    assert (await client.get("/openapi/v2", If_None_Match=plain.headers["Etag"])).status == 304
