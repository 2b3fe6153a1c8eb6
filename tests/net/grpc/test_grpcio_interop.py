"""Both ways with grpcio: its client against our server, our client against its server."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from bowsprit.net.grpc import server as grpc_server
from bowsprit.net.grpc.call import Call
from bowsprit.net.grpc.client import Channel
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.server import Server, awaitable
from bowsprit.net.grpc.status import GrpcError, StatusCode

SIZES = [0, 1, 5000, 16_384, 70_000, 1 << 20, (4 << 20) - 16]


async def echo(call: Call, metadata: Metadata) -> None:
    call.send_headers([("seen", ",".join(f"{key}={value}" for key, value in metadata if key.startswith("x-")))])
    async for message in call:
        await call.send(message)


async def fail(call: Call, metadata: Metadata) -> None:
    await call.receive()
    raise GrpcError(StatusCode.NOT_FOUND, "no such thing: 100 % größer")


async def sleep(call: Call, metadata: Metadata) -> None:
    await call.receive()
    await asyncio.sleep(30)


@pytest.fixture
async def unix_server(tmp_path: Path) -> AsyncIterator[str]:
    tasks: set[asyncio.Task[None]] = set()
    handlers = {
        f"/t/{name}": awaitable(function, tasks)
        for name, function in (("Echo", echo), ("Fail", fail), ("Sleep", sleep))
    }
    server = Server(handlers)
    path = str(tmp_path / "grpc.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.setblocking(False)
    await server.listen_socket(listener)
    yield path
    await server.stop()
    for task in list(tasks):
        task.cancel()


def stub(channel: Any, kind: str, name: str) -> Any:
    return getattr(channel, kind)(f"/t/{name}", request_serializer=bytes, response_deserializer=bytes)


async def test_grpcio_streams_through_our_server(unix_server: str) -> None:
    options = [("grpc.max_receive_message_length", 8 << 20)]
    async with grpc.aio.insecure_channel(f"unix:{unix_server}", options) as channel:
        call = stub(channel, "stream_stream", "Echo")(metadata=(("x-a", "1"), ("x-b", "two")))
        for size in SIZES:
            message = os.urandom(size)
            await call.write(message)
            assert await call.read() == message
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert dict(await call.initial_metadata())["seen"] == "x-a=1,x-b=two"
        assert await call.code() is grpc.StatusCode.OK


async def test_grpcio_sees_our_statuses(unix_server: str) -> None:
    async with grpc.aio.insecure_channel(f"unix:{unix_server}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub(channel, "unary_unary", "Fail")(b"x")
        assert (raised.value.code(), raised.value.details()) == (
            grpc.StatusCode.NOT_FOUND,
            "no such thing: 100 % größer",
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub(channel, "unary_unary", "Nothing")(b"x")
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub(channel, "unary_unary", "Sleep")(b"x", timeout=0.1)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub(channel, "unary_unary", "Echo")(bytes(5 << 20))
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert raised.value.details() == "grpc: received message larger than max (5242880 vs. 4194304)"


async def test_many_grpcio_streams_at_once(unix_server: str) -> None:
    async with grpc.aio.insecure_channel(f"unix:{unix_server}") as channel:

        async def one(number: int) -> None:
            message = bytes([number % 256]) * (number * 997)
            assert await stub(channel, "unary_unary", "Echo")(message) == message

        await asyncio.gather(*(one(number) for number in range(100)))


class _Oracle(grpc.GenericRpcHandler):
    def service(self, details: Any) -> Any:
        async def bidi(requests: Any, context: Any) -> Any:
            await context.send_initial_metadata([("seen", dict(details.invocation_metadata)["x-a"])])
            async for request in requests:
                yield request

        async def unary(request: bytes, context: Any) -> bytes:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "über 100 %")
            return b""

        if details.method == "/t/Echo":
            return grpc.stream_stream_rpc_method_handler(bidi)
        return grpc.unary_unary_rpc_method_handler(unary) if details.method == "/t/Fail" else None


async def test_our_client_streams_through_grpcios_server(tmp_path: Path) -> None:
    server = grpc.aio.server(handlers=[_Oracle()], options=[("grpc.max_receive_message_length", 8 << 20)])
    path = str(tmp_path / "oracle.sock")
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        channel = await Channel.connect_unix(path)
        call = channel.stream("/t/Echo", metadata=[("x-a", "yes")])
        for size in SIZES:
            message = os.urandom(size)
            await call.send(message)
            assert await call.receive() == message
        call.end()
        assert await call.receive() is None
        assert dict(await call.headers())["seen"] == "yes"
        with pytest.raises(GrpcError) as raised:
            await channel.unary("/t/Fail", b"x", metadata=[("x-a", "y")])
        assert (raised.value.code, raised.value.message) == (StatusCode.FAILED_PRECONDITION, "über 100 %")
        with pytest.raises(GrpcError) as raised:
            await channel.unary("/t/Nothing", b"x", metadata=[("x-a", "y")])
        assert raised.value.code is StatusCode.UNIMPLEMENTED
        await channel.close()
    finally:
        await server.stop(0)


async def test_mutual_tls_with_grpcio(tmp_path: Path) -> None:
    import ssl

    authority = trustme.CA()
    server_pair, client_pair = authority.issue_cert("localhost"), authority.issue_cert("client@example.org")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_pair.configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    tasks: set[asyncio.Task[None]] = set()
    server = grpc_server.Server({"/t/Echo": awaitable(echo, tasks)})
    port = await server.listen("127.0.0.1", 0, ssl=context)
    credentials = grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(), client_pair.private_key_pem.bytes(), client_pair.cert_chain_pems[0].bytes()
    )
    try:
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
            message = os.urandom(300_000)
            assert await stub(channel, "unary_unary", "Echo")(message) == message
        without = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        async with grpc.aio.secure_channel(f"localhost:{port}", without) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await stub(channel, "unary_unary", "Echo")(b"x", timeout=5)
    finally:
        await server.stop()
