"""Proxies that know hosts which nobody else knows: every name leads to this machine's loopback, and is noted."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Proxy:
    """HTTP CONNECT and SOCKS5 on one port each, on a thread of their own; with TLS in front of CONNECT if there is a context."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.targets: dict[str, list[str]] = {"http": [], "https": [], "socks5": []}
        self.ports: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Serve until the end."""
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(20)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(20)

    def url(self, scheme: str) -> str:
        """The proxy's address for a scheme, ``socks5h`` among them."""
        return f"{scheme}://localhost:{self.ports[scheme.removesuffix('h')]}"

    def take(self) -> dict[str, set[str]]:
        """What was asked for since the last time, by scheme."""
        taken = {scheme: set(found) for scheme, found in self.targets.items() if found}
        for found in self.targets.values():
            found.clear()
        return taken

    async def _start(self) -> None:
        for scheme, serve, context in (
            ("http", self._connect, None),
            ("https", self._connect, self._context),
            ("socks5", self._socks, None),
        ):
            server = await asyncio.start_server(
                lambda reader, writer, serve=serve, scheme=scheme: serve(reader, writer, scheme),
                "localhost",
                0,
                ssl=context,
            )
            self.ports[scheme] = server.sockets[0].getsockname()[1]
            for sock in server.sockets[1:]:
                sock.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, scheme: str) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split(" ", 2)
        assert method == "CONNECT"
        self.targets[scheme].append(target)
        await self._carry(reader, writer, int(target.rpartition(":")[2]), b"HTTP/1.1 200 OK\r\n\r\n")

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, scheme: str) -> None:
        await reader.readexactly(1)
        await reader.readexactly((await reader.readexactly(1))[0])
        writer.write(b"\x05\x00")
        assert await reader.readexactly(4) == b"\x05\x01\x00\x03"  # a name: not resolved by the client
        name = await reader.readexactly((await reader.readexactly(1))[0])
        port = int.from_bytes(await reader.readexactly(2), "big")
        self.targets[scheme].append(f"{name.decode()}:{port}")
        await self._carry(reader, writer, port, b"\x05\x00\x00\x01" + bytes(6))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, reply: bytes) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(reply)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
