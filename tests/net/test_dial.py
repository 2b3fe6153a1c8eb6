"""Dialing directly and through proxies of every kind, with small real proxies on the other side."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme
import uvloop

from bowsprit.net.dial import DialError, DirectDialer, proxy_dialer

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
        sink.close()

    await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)


class Proxy:
    """A SOCKS5 or CONNECT proxy that sends everything to one port, and notes what it was asked for."""

    def __init__(self, port: int, *, refuse: bool = False) -> None:
        self.port = port
        self.refuse = refuse
        self.asked: list[str] = []

    async def socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        if 2 in methods:
            writer.write(b"\x05\x02")
            _, length = await reader.readexactly(2)
            user = await reader.readexactly(length)
            password = await reader.readexactly((await reader.readexactly(1))[0])
            self.asked.append(f"{user.decode()}:{password.decode()}")
            writer.write(b"\x01\x00")
        else:
            writer.write(b"\x05\x00")
        head = await reader.readexactly(4)
        if head[3] == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = ".".join(str(byte) for byte in await reader.readexactly(4))
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append(f"{host}:{port}")
        writer.write(b"\x05" + (b"\x05" if self.refuse else b"\x00") + b"\x00\x01\x00\x00\x00\x00\x00\x00")
        if self.refuse:
            writer.close()
            return
        await relay(reader, writer, self.port)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head.split(" ")[1])
        self.asked += [line for line in head.split("\r\n") if line.startswith("Proxy-Authorization")]
        if self.refuse:
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await relay(reader, writer, self.port)


async def round_trip(dialer: Any, host: str, port: int, size: int = 300_000) -> None:
    sock = await dialer.open(host, port)
    assert sock.getblocking() is False
    reader, writer = await asyncio.open_connection(sock=sock)
    payload = bytes(range(256)) * (size // 256)
    writer.write(payload)
    assert await asyncio.wait_for(reader.readexactly(len(payload)), 10) == payload
    writer.close()


async def test_direct() -> None:
    async with serving(echo) as port:
        await round_trip(DirectDialer(), "localhost", port)


async def test_direct_failures_are_explained() -> None:
    with pytest.raises(DialError, match=r"dial tcp 127\.0\.0\.1:1: connect: connection refused"):
        await DirectDialer().open("127.0.0.1", 1)
    with pytest.raises(DialError, match=r"lookup no-such-host\.invalid"):
        await DirectDialer().open("no-such-host.invalid", 1)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_socks_sends_names_unresolved(scheme: str) -> None:
    async with serving(echo) as target:
        proxy = Proxy(target)
        async with serving(proxy.socks) as port:
            await round_trip(proxy_dialer(f"{scheme}://127.0.0.1:{port}"), "only-there.internal", 6443)
        assert proxy.asked == ["only-there.internal:6443"]


async def test_socks_with_a_password() -> None:
    async with serving(echo) as target:
        proxy = Proxy(target)
        async with serving(proxy.socks) as port:
            await round_trip(proxy_dialer(f"socks5://ann:p%40ss@127.0.0.1:{port}"), "h", 1)
        assert proxy.asked[0] == "ann:p@ss"


async def test_http_connect() -> None:
    async with serving(echo) as target:
        proxy = Proxy(target)
        async with serving(proxy.connect) as port:
            await round_trip(proxy_dialer(f"http://127.0.0.1:{port}"), "far.internal", 443)
        assert proxy.asked[0] == "far.internal:443"


async def test_https_proxy_and_its_bridge() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with serving(echo) as target:
        proxy = Proxy(target)
        async with serving(proxy.connect, context) as port:
            dialer = proxy_dialer(f"https://u:p@127.0.0.1:{port}", context=trust)
            await round_trip(dialer, "far.internal", 443)
            with pytest.raises(DialError, match="certificate"):
                await proxy_dialer(f"https://127.0.0.1:{port}").open("far.internal", 443)
        assert proxy.asked == ["far.internal:443", "Proxy-Authorization: Basic dTpw"]


async def test_a_tls_proxy_that_closes_early_is_heard_to_its_end() -> None:
    """The client reads slowly: most of what the proxy has sent waits when its end arrives."""
    authority = trustme.CA()
    context, trust = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(trust)
    data = bytes(9_000_000)

    def serve(listener: socket.socket) -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as client:
            client.recv(1000)
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            client.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = asyncio.create_task(asyncio.to_thread(serve, listener))
        sock = await proxy_dialer(f"https://127.0.0.1:{listener.getsockname()[1]}", context=trust).open("far", 443)
        reader, writer = await asyncio.open_connection(sock=sock)
        got = 0
        while chunk := await reader.read(65_536):
            got += len(chunk)
            await asyncio.sleep(0.001)
        await served
    writer.close()
    assert got == len(data)


@pytest.mark.parametrize("kind", ["socks5", "http"])
async def test_refusals_name_the_proxy_but_not_its_password(kind: str) -> None:
    proxy = Proxy(1, refuse=True)
    async with serving(proxy.socks if kind == "socks5" else proxy.connect) as port:
        with pytest.raises(DialError) as caught:
            await proxy_dialer(f"{kind}://ann:secret@127.0.0.1:{port}").open("far", 443)
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://h:1", "h:1080", "socks5://", "http://h:99999", "socks4://h"])
def test_urls_that_name_no_proxy(url: str) -> None:
    with pytest.raises(ValueError, match="proxy URL"):
        proxy_dialer(url)


def test_everything_works_on_uvloop_too() -> None:
    async def both() -> None:
        await test_direct()
        await test_socks_sends_names_unresolved("socks5")
        await test_https_proxy_and_its_bridge()
        await test_a_tls_proxy_that_closes_early_is_heard_to_its_end()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both())
