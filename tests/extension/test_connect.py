"""Subresources that are connected to: plain HTTP and WebSocket streams, and what happens when one side goes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from bowsprit.extension import App, Kind, NotFound, RequestContext, Stream
from bowsprit.extension.options import ExtensionOptions
from bowsprit.extension.server import ExtensionServer

GROUP = "talk.example.com"
PATH = f"/apis/{GROUP}/v1/namespaces/default/talks/a"


class Talk(Kind):
    """A talk."""

    text: str = "hello"


class Talks:
    """The app, with what its streams have seen."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.app = app = App(GROUP)
        app.kind()(Talk)

        @app.connect(Talk, "log")
        async def log(obj: Talk, ctx: RequestContext, stream: Stream) -> AsyncIterator[str]:
            try:
                for number in range(3):
                    yield f"{obj.text} {number}\n"
                if stream.query.get("follow"):
                    await asyncio.Event().wait()
            finally:
                self.ended.set()

        @app.connect(Talk, "echo", methods=("GET", "POST"))
        async def echo(obj: Talk, ctx: RequestContext, stream: Stream) -> None:
            async for message in stream:
                await stream.send(message[::-1])

        @app.connect(Talk, "summary")
        def summary(obj: Talk, ctx: RequestContext, stream: Stream) -> str:
            stream.content_type = "application/json"
            return f'{{"length": {len(obj.text)}}}'

        @app.connect(Talk, "failing")
        async def failing(obj: Talk, ctx: RequestContext, stream: Stream) -> None:
            if stream.query.get("late"):
                await stream.send("begun")
                raise RuntimeError("later")
            raise NotFound


@asynccontextmanager
async def served(talks: Talks) -> AsyncIterator[aiohttp.ClientSession]:
    options = ExtensionOptions(standalone=True, bind_address="127.0.0.1", secure_port=0, shutdown_timeout=0.5)
    server = ExtensionServer(talks.app, options)
    _, port = await server.start()
    context = ssl.create_default_context(cadata=server.ca_bundle.decode())
    connector = aiohttp.TCPConnector(ssl=context)
    try:
        async with aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=connector) as session:
            made = {"apiVersion": f"{GROUP}/v1", "kind": "Talk", "metadata": {"name": "a"}}
            async with session.post(PATH.removesuffix("/a"), json=made) as answer:
                assert answer.status == 201
            yield session
    finally:
        await server.stop()


async def test_a_generator_is_sent_in_pieces_over_http() -> None:
    async with served(Talks()) as session, session.get(f"{PATH}/log") as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert await answer.text() == "hello 0\nhello 1\nhello 2\n"


async def test_a_generator_is_sent_in_messages_over_websocket() -> None:
    async with served(Talks()) as session, session.ws_connect(f"{PATH}/log") as socket:
        assert [message.data async for message in socket] == ["hello 0\n", "hello 1\n", "hello 2\n"]
        assert socket.close_code == 1000


@pytest.mark.parametrize("websocket", [False, True])
async def test_a_generator_ends_when_its_client_goes(websocket: bool) -> None:
    talks = Talks()
    async with served(talks) as session:
        if websocket:
            async with session.ws_connect(f"{PATH}/log?follow=1") as socket:
                await socket.receive()
        else:
            async with session.get(f"{PATH}/log?follow=1") as answer:
                await answer.content.readline()
                answer.close()
        async with asyncio.timeout(5):
            await talks.ended.wait()


async def test_both_sides_talk_over_websocket() -> None:
    async with served(Talks()) as session, session.ws_connect(f"{PATH}/echo", protocols=["v1.echo"]) as socket:
        assert socket.protocol == "v1.echo"
        await socket.send_str("abc")
        assert await socket.receive_str() == "cba"
        await socket.send_bytes(b"\x00\x01")
        assert await socket.receive_bytes() == b"\x01\x00"


async def test_a_body_is_streamed_over_http() -> None:
    async with served(Talks()) as session, session.post(f"{PATH}/echo", data=b"abc") as answer:
        assert await answer.read() == b"cba"


async def test_a_function_may_return_the_whole_answer() -> None:
    async with served(Talks()) as session, session.get(f"{PATH}/summary") as answer:
        assert answer.content_type == "application/json"
        assert await answer.json() == {"length": 5}


async def test_refusals_before_the_stream_begins_are_statuses() -> None:
    async with served(Talks()) as session:
        async with session.get(f"{PATH}/failing") as answer:
            assert (answer.status, (await answer.json())["reason"]) == (404, "NotFound")
        async with session.get(f"{PATH[:-1]}absent/log") as answer:
            assert answer.status == 404
        async with session.post(f"{PATH}/log") as answer:
            assert answer.status == 405


async def test_failures_behind_the_beginning_break_the_stream() -> None:
    async with served(Talks()) as session:
        async with session.ws_connect(f"{PATH}/failing?late=1") as socket:
            assert [message.data async for message in socket] == ["begun"]
            assert socket.close_code == 1011
        with pytest.raises(aiohttp.ClientPayloadError):
            async with session.get(f"{PATH}/failing?late=1") as answer:
                await answer.read()


async def test_discovery_shows_connections_with_their_verbs() -> None:
    async with served(Talks()) as session, session.get(f"/apis/{GROUP}/v1") as answer:
        entries = {entry["name"]: entry for entry in (await answer.json())["resources"]}
    assert entries["talks/log"]["verbs"] == ["get"]
    assert entries["talks/echo"]["verbs"] == ["create", "get"]
    assert entries["talks/log"]["kind"] == "TalkLogOptions"


async def test_openapi_describes_connections() -> None:
    async with served(Talks()) as session:
        async with session.get(f"/openapi/v3/apis/{GROUP}/v1") as answer:
            path = (await answer.json())["paths"][f"/apis/{GROUP}/v1/namespaces/{{namespace}}/talks/{{name}}/echo"]
        assert path["post"]["x-kubernetes-action"] == "connect"
        assert path["get"]["x-kubernetes-group-version-kind"]["kind"] == "TalkEchoOptions"
        async with session.get("/openapi/v2") as answer:
            assert f"/apis/{GROUP}/v1/namespaces/{{namespace}}/talks/{{name}}/log" in (await answer.json())["paths"]
