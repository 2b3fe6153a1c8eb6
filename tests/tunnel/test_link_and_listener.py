"""The tunnel with a real sshd: forwarding, half-close, refusals, loss and return of the server."""

from __future__ import annotations

import asyncio
import time

import pytest
from socks_client import connect

from bowsprit.tunnel.link import SshLink
from bowsprit.tunnel.listener import SocksListener
from bowsprit.tunnel.rules import Rule
from bowsprit.tunnel.socks5 import Reply


class Tunnel:
    def __init__(self, link: SshLink, listener: SocksListener) -> None:
        self.link, self.listener = link, listener


@pytest.fixture
async def tunnel(sshd):
    link = SshLink(sshd.options())
    await link.start()
    listener = SocksListener(link, port=0)
    await listener.start()
    yield Tunnel(link, listener)
    await listener.stop()
    await link.stop()


async def test_bytes_cross_in_both_directions_and_half_close_is_kept(tunnel, echo):
    code, reader, writer = await connect(tunnel.listener.port, "localhost", echo.port)
    assert code == Reply.SUCCEEDED
    payload = bytes(range(256)) * 20_000

    async def send() -> None:
        writer.write(payload)
        await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    received = await reader.read(-1)
    await sending
    assert received == b"hello " + payload + b" bye"
    writer.close()
    while tunnel.listener.traffic.active:
        await asyncio.sleep(0.01)
    assert tunnel.listener.traffic.bytes_up == len(payload)
    assert tunnel.listener.traffic.bytes_down == len(payload) + 10


async def test_refusals_have_the_right_reply(tunnel, unused_tcp_port):
    code, _, writer = await connect(tunnel.listener.port, "127.0.0.1", unused_tcp_port)
    assert code == Reply.CONNECTION_REFUSED
    writer.close()
    code, _, writer = await connect(tunnel.listener.port, "does-not-exist.invalid", 443)
    assert code == Reply.HOST_UNREACHABLE
    writer.close()


async def test_rules_refuse_what_they_do_not_name(sshd, echo):
    link = SshLink(sshd.options())
    await link.start()
    listener = SocksListener(link, port=0, rules=[Rule("localhost", echo.port)])
    await listener.start()
    code, _, writer = await connect(listener.port, "localhost", echo.port)
    assert code == Reply.SUCCEEDED
    writer.close()
    code, _, writer = await connect(listener.port, "127.0.0.1", echo.port)
    assert code == Reply.NOT_ALLOWED
    writer.close()
    await listener.stop()
    await link.stop()


async def test_a_restarted_server_is_found_again_and_the_listener_stays(tunnel, sshd, echo):
    _, reader, writer = await connect(tunnel.listener.port, "localhost", echo.port)
    assert await reader.readexactly(6) == b"hello "
    await asyncio.to_thread(sshd.kill)
    started = time.monotonic()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    assert time.monotonic() - started < 1.0
    writer.close()
    pending = asyncio.create_task(connect(tunnel.listener.port, "localhost", echo.port))
    await asyncio.sleep(0.3)
    assert not pending.done()
    await asyncio.to_thread(sshd.start)
    back = time.monotonic()
    code, reader, writer = await pending
    assert code == Reply.SUCCEEDED
    assert time.monotonic() - back < 2.0
    writer.close()
    assert tunnel.link.reconnects == 1
