"""The agent's ports: endpoints over TCP, UDP and unix sockets, and the stream to a server."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import cast

from bowsprit.konnectivity.godial import Target
from bowsprit.konnectivity.tunnel import Endpoint, Tunnel
from bowsprit.net.egress import packets
from bowsprit.net.egress.packets import Packet
from bowsprit.net.grpc.stream import Stream
from bowsprit.net.grpc.transport import shared_buffer

_HIGH_WATER = 256 * 1024
_PLAIN_CHUNK = 64 * 1024
_STALL = 30.0  # how long a closing endpoint may take nothing of what is left for it


class ServerStream:
    """The Connect stream as the tunnel's port."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._held = False
        self._owed = 0
        self.extended = False

    @property
    def backlog(self) -> int:
        return self._stream.backlog

    def send(self, packet: Packet) -> None:
        self._stream.send((packet.encode(),))

    def send_data(self, connect_id: int, data: bytes | memoryview) -> None:
        step = len(data) if self.extended else _PLAIN_CHUNK
        for start in range(0, len(data), step):
            chunk = data[start : start + step]
            self._stream.send((packets.data_header(connect_id, len(chunk)), chunk))

    def hold(self, on: bool) -> None:
        self._held = on
        if not on and self._owed:
            owed, self._owed = self._owed, 0
            self._stream.acknowledge(owed)

    def received(self, size: int) -> None:
        """A message of ``size`` bytes is here: acknowledge it, unless held."""
        if self._held:
            self._owed += size
        else:
            self._stream.acknowledge(size)


class EndpointProtocol(asyncio.BufferedProtocol):
    """A stream connection to an endpoint."""

    def __init__(self, tunnel: Tunnel, endpoint: Endpoint) -> None:
        self._tunnel = tunnel
        self._endpoint = endpoint
        self._transport: asyncio.Transport | None = None
        self._out: deque[bytes | memoryview] = deque()
        self._blocked = False
        self._ending = False
        self._finishing = False
        self._linger: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        if self._endpoint.network != "unix":
            _keep_alive(transport.get_extra_info("socket"))
        self._tunnel.dialled(self._endpoint, self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return shared_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._tunnel.endpoint_data(self._endpoint, shared_buffer()[:nbytes])

    def eof_received(self) -> bool:
        self._tunnel.endpoint_eof(self._endpoint)
        return True

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        while self._out and not self._blocked:
            data = self._out.popleft()
            self._write(data)
        self._end_if_out()

    def connection_lost(self, exc: Exception | None) -> None:
        self._out.clear()
        if self._linger is not None:
            self._linger.cancel()
        self._tunnel.lost(self._endpoint, str(exc or ""))

    # -- EndpointPort -------------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        return sum(map(len, self._out)) + (self._transport.get_write_buffer_size() if self._transport else 0)

    def write(self, data: bytes | memoryview) -> None:
        if self._blocked or self._out:
            self._out.append(data)
        else:
            self._write(data)

    def write_eof(self) -> None:
        self._ending = True
        self._end_if_out()

    def finish(self) -> None:
        if self._finishing:
            return
        self._finishing = True
        self._watch_flush(-1)
        self._end_if_out()

    def abort(self) -> None:
        self._finishing = True
        self._out.clear()
        if self._transport is not None:
            # Not at once: this may be connection_made, in which uvloop does not own the socket's descriptor yet.
            asyncio.get_running_loop().call_soon(self._transport.abort)

    def pause(self, on: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if on:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)
            self._tunnel.consumed(self._endpoint, len(data))

    def _end_if_out(self) -> None:
        if self._out or self._transport is None or self._transport.is_closing():
            return
        if self._finishing:
            self._transport.close()
        elif self._ending:
            self._ending = False
            self._transport.write_eof()

    def _watch_flush(self, before: int) -> None:
        """Cut an endpoint off that takes nothing of the rest."""
        transport = self._transport
        if transport is None:
            return
        left = self.backlog
        if left == before:
            transport.abort()
        else:
            self._linger = asyncio.get_running_loop().call_later(_STALL, self._watch_flush, left)


class DatagramEndpoint(asyncio.DatagramProtocol):
    """A connected UDP socket: each packet's data is a datagram, as with Go's net.Conn."""

    def __init__(self, tunnel: Tunnel, endpoint: Endpoint) -> None:
        self._tunnel = tunnel
        self._endpoint = endpoint
        self._transport: asyncio.DatagramTransport | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        self._tunnel.dialled(self._endpoint, self)

    def datagram_received(self, data: bytes, addr: object) -> None:
        if not self._paused:  # datagrams may be lost
            self._tunnel.endpoint_data(self._endpoint, memoryview(data))

    def error_received(self, exc: Exception) -> None:
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.lost(self._endpoint, str(exc or ""))

    @property
    def backlog(self) -> int:
        return 0

    def write(self, data: bytes | memoryview) -> None:
        if self._transport is not None:
            self._transport.sendto(data)
            self._tunnel.consumed(self._endpoint, len(data))

    def write_eof(self) -> None:
        """UDP has no end."""

    def finish(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause(self, on: bool) -> None:
        self._paused = on


async def connect(tunnel: Tunnel, endpoint: Endpoint, family: int, target: Target) -> None:
    """Connect an endpoint to a socket address; ``tunnel.dialled`` is called on the way. Raises OSError."""
    loop = asyncio.get_running_loop()
    factory = lambda: EndpointProtocol(tunnel, endpoint)  # noqa: E731
    if endpoint.network.startswith("udp"):
        sock = await _connected(family, socket.SOCK_DGRAM, target)
        await loop.create_datagram_endpoint(lambda: DatagramEndpoint(tunnel, endpoint), sock=sock)
    elif family == socket.AF_UNIX:
        await loop.create_unix_connection(factory, str(target))
    elif family == socket.AF_INET:  # at once: a third of the work of connecting a socket first
        await loop.create_connection(factory, str(target[0]), cast(int, target[1]))
    else:
        sock = await _connected(family, socket.SOCK_STREAM, target)
        await loop.create_connection(factory, sock=sock)


async def _connected(family: int, kind: int, target: Target) -> socket.socket:
    sock = socket.socket(family, kind)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock


def _keep_alive(sock: socket.socket) -> None:
    """Go's defaults (net.ListenConfig.KeepAlive): a dead peer is noticed in minutes, not hours."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
