"""What clients and far ends do wrong: malformed SOCKS, hasty and slow clients, refusals, lost links, too many at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from socks_client import connect

from bowsprit.net.ports import free_port
from bowsprit.tunnel import relay
from bowsprit.tunnel.errors import ForwardError, TunnelError
from bowsprit.tunnel.link import SshLink
from bowsprit.tunnel.listener import SocksListener
from bowsprit.tunnel.socks5 import Reply

SECONDS = 20


@contextlib.asynccontextmanager
async def tunnelled(options, **listening):
    link = SshLink(options)
    await link.start()
    listener = SocksListener(link, port=0, **listening)
    await listener.start()
    try:
        yield link, listener
    finally:
        await listener.stop()
        await link.stop()


async def drained(listener):
    async with asyncio.timeout(SECONDS):
        while listener.traffic.active:
            await asyncio.sleep(0.01)


async def exchange(port: int, *pieces: bytes) -> bytes:
    """Send pieces one by one, then our end of file; what comes until the other end closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(OSError):  # the other end may have had enough already
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
    try:
        async with asyncio.timeout(SECONDS):
            return await reader.read(-1)
    except ConnectionError:
        return b""
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def open_sockets() -> set[str]:
    """This process's sockets, by their inodes."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return {link for link in found if link.startswith("socket:")}


class Refusing:
    """An opener at whose far end nothing can be reached; counts what is open."""

    def __init__(self):
        self.wishes = 0

    def open(self, host, port, peer, origin):
        self.wishes += 1
        error = ForwardError(f"{host}:{port}", Reply.CONNECTION_REFUSED)
        return asyncio.get_running_loop().call_soon(peer.forward_refused, error)


greetings = st.sampled_from(
    [b"\x05\x01\x00", b"\x05\x02\x00\x02", b"\x05\x00", b"\x04\x01", b"GET / HTTP/1.1\r\n\r\n", b""]
)
requests = st.builds(
    lambda version, command, kind, body: bytes([version, command, 0, kind]) + body,
    st.sampled_from([5, 5, 5, 4, 0]),
    st.sampled_from([1, 1, 2, 3, 0, 255]),
    st.sampled_from([1, 3, 4, 0, 255]),
    st.binary(max_size=40),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(greetings, st.one_of(requests, st.binary(max_size=600)), st.lists(st.integers(1, 20), max_size=4)),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
)
def test_malformed_input_over_the_network_leaves_nothing_behind(clients, with_password):
    async def run():
        opener = Refusing()
        listener = SocksListener(opener, port=0, credentials=("u", "p") if with_password else None)
        await listener.start()
        before = open_sockets()

        async def one(greeting, body, cuts):
            stream = greeting + body
            pieces = []
            for cut in cuts:
                pieces.append(stream[:cut])
                stream = stream[cut:]
            answer = await exchange(listener.port, *pieces, stream)
            assert answer == b"" or answer[0] in (5, 1)
            assert len(answer) <= 2 + 2 + 10

        await asyncio.gather(*(one(*client) for client in clients))
        await drained(listener)
        assert listener._relays == set()
        assert open_sockets() <= before  # what other tests left may go meanwhile
        await listener.stop()

    asyncio.run(run())


async def test_bytes_that_come_one_by_one_and_data_that_does_not_wait(sshd, echo):
    async with tunnelled(sshd.options(), credentials=("user", "secret")) as (_, listener):
        stream = (
            b"\x05\x01\x02\x01\x04user\x06secret\x05\x01\x00\x03\x09localhost" + echo.port.to_bytes(2, "big") + b"early"
        )
        answer = await exchange(listener.port, *(bytes([octet]) for octet in stream))
        assert answer == b"\x05\x02\x01\x00\x05\x00\x00\x01" + bytes(6) + b"hello early bye"
        assert await exchange(listener.port, stream) == answer
        wrong = await exchange(listener.port, stream.replace(b"secret", b"Secret"))
        assert wrong == b"\x05\x02\x01\x01"
        await drained(listener)


@pytest.mark.parametrize("command", [2, 3])
async def test_bind_and_udp_are_not_supported(command):
    listener = SocksListener(Refusing(), port=0)
    await listener.start()
    answer = await exchange(listener.port, b"\x05\x01\x00\x05" + bytes([command]) + b"\x00\x01\x7f\x00\x00\x01\x00\x50")
    assert answer[3] == Reply.COMMAND_NOT_SUPPORTED
    await listener.stop()


async def test_a_client_that_says_nothing_is_let_go(monkeypatch):
    monkeypatch.setattr(relay, "HANDSHAKE_SECONDS", 0.05)
    listener = SocksListener(Refusing(), port=0)
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(SECONDS):
            await reader.read()
    writer.close()
    await drained(listener)
    await listener.stop()


async def test_what_cannot_be_reached_and_what_is_forbidden_differ(sshd, echo, tmp_path):
    sshd.config.write_text(
        sshd.config.read_text() + f"PermitOpen localhost:{echo.port} 127.0.0.1:1 no-such-name.invalid:1\n"
    )
    sshd.kill()
    sshd.start()
    async with tunnelled(sshd.options()) as (_, listener):
        replies = []
        for host, port in (
            ("localhost", echo.port),
            ("127.0.0.1", 1),
            ("no-such-name.invalid", 1),
            ("127.0.0.1", echo.port),
        ):
            code, _, writer = await connect(listener.port, host, port)
            replies.append(code)
            writer.close()
        assert replies == [Reply.SUCCEEDED, Reply.CONNECTION_REFUSED, Reply.HOST_UNREACHABLE, Reply.NOT_ALLOWED]
        await drained(listener)
        assert listener.traffic.failed == 3


async def test_a_server_that_forwards_nothing(sshd):
    sshd.config.write_text(sshd.config.read_text().replace("AllowTcpForwarding yes", "AllowTcpForwarding no"))
    sshd.kill()
    sshd.start()
    async with tunnelled(sshd.options()) as (_, listener):
        code, _, writer = await connect(listener.port, "127.0.0.1", 22)
        assert code == Reply.NOT_ALLOWED
        writer.close()


async def test_a_thousand_connections_are_open_at_once_in_one_ssh_connection(sshd, echo):
    async with tunnelled(sshd.options()) as (link, listener):
        opened = []
        for _ in range(10):
            opened += await asyncio.gather(*(connect(listener.port, "localhost", echo.port) for _ in range(100)))
        assert [code for code, _, _ in opened] == [Reply.SUCCEEDED] * 1000
        assert listener.traffic.active == 1000
        for number, (_, _, writer) in enumerate(opened):
            writer.write(b"%d" % number)
            writer.write_eof()
        for number, (_, reader, writer) in enumerate(opened):
            assert await reader.read(-1) == b"hello %d bye" % number
            writer.close()
        await drained(listener)
        assert link.reconnects == 0
        gc.collect()
        assert not [thing for thing in gc.get_objects() if isinstance(thing, relay.Relay)]


async def test_a_slow_reader_holds_up_the_sender_and_nobody_else(sshd, echo):
    async with tunnelled(sshd.options()) as (_, listener):
        _, _, slow_writer = await connect(listener.port, "localhost", echo.port)
        slow_writer.transport.set_write_buffer_limits(1 << 16)
        sent = 0

        async def flood():
            nonlocal sent
            while True:
                slow_writer.write(bytes(1 << 16))
                await slow_writer.drain()
                sent += 1 << 16

        flooding = asyncio.create_task(flood())
        before = -1
        while before != sent:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.3)
        assert sent < 64 << 20
        _, reader, writer = await connect(listener.port, "localhost", echo.port)
        assert await reader.readexactly(6) == b"hello "
        writer.close()
        flooding.cancel()
        slow_writer.transport.abort()
        await drained(listener)


async def test_a_client_s_reset_reaches_nobody_as_an_end(sshd, echo):
    async with tunnelled(sshd.options()) as (_, listener):
        _, reader, writer = await connect(listener.port, "localhost", echo.port)
        await reader.readexactly(6)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        writer.transport.abort()
        await drained(listener)


async def test_while_the_link_is_down_connections_wait_and_then_get_a_proper_error(sshd, echo):
    async with tunnelled(sshd.options(open_timeout=0.5)) as (link, listener):
        _, reader, writer = await connect(listener.port, "localhost", echo.port)
        await reader.readexactly(6)
        await asyncio.to_thread(sshd.kill)
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(SECONDS):
                await reader.readexactly(1)
        writer.close()
        started = time.monotonic()
        code, _, writer = await connect(listener.port, "localhost", echo.port)
        assert code == Reply.NETWORK_UNREACHABLE
        assert time.monotonic() - started >= 0.5
        writer.close()
        await asyncio.to_thread(sshd.start)
        async with asyncio.timeout(SECONDS):
            while not link.connected:
                await asyncio.sleep(0.01)
        code, _, writer = await connect(listener.port, "localhost", echo.port)
        assert code == Reply.SUCCEEDED
        writer.close()


async def test_a_client_that_gives_up_waiting_leaves_no_wish(sshd, echo):
    async with tunnelled(sshd.options(open_timeout=30)) as (link, listener):
        await asyncio.to_thread(sshd.kill)
        async with asyncio.timeout(SECONDS):
            while link.connected:
                await asyncio.sleep(0.01)
        _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"\x05\x01\x00\x05\x01\x00\x03\x09localhost" + echo.port.to_bytes(2, "big"))
        async with asyncio.timeout(SECONDS):
            while not link._waiting:
                await asyncio.sleep(0.01)
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01" + bytes(7))
        writer.transport.abort()
        await drained(listener)
        assert not link._waiting


async def test_a_key_that_changes_while_the_link_is_down_ends_the_tunnel(sshd):
    async with tunnelled(sshd.options(open_timeout=5)) as (link, listener):
        await asyncio.to_thread(sshd.kill)
        sshd.trust(sshd.client_key.with_suffix(".pub").read_text())
        waiting = asyncio.create_task(connect(listener.port, "localhost", 1))
        await asyncio.to_thread(sshd.start)
        async with asyncio.timeout(SECONDS):
            await link.wait_ended()
        assert link.fatal is not None
        assert link.fatal.reason == "HostKeyChanged"
        code, _, writer = await waiting
        assert code == Reply.NETWORK_UNREACHABLE
        writer.close()


async def test_a_silent_peer_is_noticed(sshd):
    """A server that stops answering without closing: its process is stopped, not killed."""
    options = sshd.options(keepalive_interval=0.2, keepalive_count=3)
    async with tunnelled(options) as (link, _):
        server = sshd.connections()
        for pid in server:
            with contextlib.suppress(ProcessLookupError):  # of the fixture's own look at the port
                os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(SECONDS):
            while link.reconnects == 0:
                await asyncio.sleep(0.02)
        for pid in server:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_both_addresses_of_localhost_or_none():
    taken = socket.socket(socket.AF_INET6)
    taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    taken.bind(("::1", 0))
    taken.listen()
    listener = SocksListener(Refusing(), host="localhost", port=taken.getsockname()[1])
    with pytest.raises(TunnelError) as caught:
        await listener.start()
    taken.close()
    assert caught.value.reason == "PortInUse"
    free = SocksListener(Refusing(), host="localhost", port=free_port())
    await free.start()
    for address in ("127.0.0.1", "::1"):
        _, writer = await asyncio.open_connection(address, free.port)
        writer.close()
    await free.stop()


async def test_the_long_way_of_packets_carries_the_same_bytes(sshd, echo):
    """Ciphers other than AES-GCM go through asyncssh; a rekeying in the middle does, too."""
    sshd.config.write_text(sshd.config.read_text() + "Ciphers chacha20-poly1305@openssh.com\n")
    sshd.kill()
    sshd.start()
    await _big_transfer(sshd, echo)
    sshd.config.write_text(sshd.config.read_text().replace("chacha20-poly1305", "aes128-gcm") + "RekeyLimit 300K\n")
    sshd.kill()
    sshd.start()
    await _big_transfer(sshd, echo)


async def _big_transfer(sshd, echo):
    payload = os.urandom(1 << 16) * 64
    async with tunnelled(sshd.options()) as (link, listener):
        _, reader, writer = await connect(listener.port, "localhost", echo.port)

        async def send():
            writer.write(payload)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        async with asyncio.timeout(SECONDS):
            assert await reader.read(-1) == b"hello " + payload + b" bye"
        await sending
        writer.close()
        assert link.reconnects == 0
