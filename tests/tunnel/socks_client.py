"""A SOCKS5 client that speaks in bytes, for tests."""

from __future__ import annotations

import asyncio


async def connect(
    port: int, host: str, target_port: int, *, anything: bool = False
) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection through a SOCKS5 proxy on the loopback; returns the reply code first.

    With ``anything``, an end without a reply counts as code 255.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"\x05\x01\x00")
    assert await reader.readexactly(2) == b"\x05\x00"
    name = host.encode()
    writer.write(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + target_port.to_bytes(2, "big"))
    reply = await reader.read(10) if anything else await reader.readexactly(10)
    return reply[1] if reply else 255, reader, writer
