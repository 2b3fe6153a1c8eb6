"""One connection through a Konnectivity server in gRPC mode, as a socket (konnectivity-client's single-use tunnel).

The protocol runs in this event loop; the caller gets one end of a socket pair. Each dial has a stream and an HTTP/2
connection of its own, as with the API server's client, so one slow connection holds nobody back.
"""

from __future__ import annotations

import asyncio
import random
import select
import socket
from typing import cast

from bowsprit.net.dial import DialError, join_host_port
from bowsprit.net.egress import packets
from bowsprit.net.egress.packets import PROXY, MalformedPacketError, Packet, PacketType
from bowsprit.net.grpc.client import Channel
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.status import GrpcError, Status
from bowsprit.net.grpc.stream import Stream
from bowsprit.net.grpc.transport import shared_buffer

DIAL_TIMEOUT = 30.0  # konnectivity-client's limits
CLOSE_TIMEOUT = 10.0
_HIGH_WATER = 256 * 1024


class GrpcDialer:
    """Dials through a server's unix socket."""

    def __init__(self, uds: str, timeout: float = DIAL_TIMEOUT) -> None:
        self._uds = uds
        self._timeout = timeout
        self._tunnels: set[_Tunnel] = set()

    async def open(self, host: str, port: int) -> socket.socket:
        """A connected, non-blocking socket. Raises DialError with the agent's or the server's words."""
        address = join_host_port(host, port)
        try:
            async with asyncio.timeout(self._timeout):
                channel = await Channel.connect_unix(self._uds, timeout=self._timeout)
                tunnel = _Tunnel(channel, self._tunnels)
                try:
                    return await tunnel.dial(address)
                except BaseException:
                    tunnel.give_up()
                    raise
        except TimeoutError:
            raise DialError(f"proxy {self._uds}: dial {address}: timed out") from None
        except GrpcError as exc:
            raise DialError(f"proxy {self._uds}: dial {address}: {exc.message}") from exc


class _Tunnel(asyncio.BufferedProtocol):
    """Stream handler towards the server, protocol towards the caller's socket."""

    def __init__(self, channel: Channel, peers: set[_Tunnel]) -> None:
        self._channel = channel
        self._peers = peers
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Packet] = self._loop.create_future()
        self._random = random.getrandbits(63)
        self._connect_id = 0
        self._stream: Stream | None = None
        self._transport: asyncio.Transport | None = None
        self._unacknowledged = 0
        self._blocked = False
        self._closing: asyncio.TimerHandle | None = None
        self._paused = False
        self._early: list[bytes | memoryview] = []  # what came before the caller's socket was there
        self._over = False
        self._attached = False

    async def dial(self, address: str) -> socket.socket:
        self._peers.add(self)
        self._stream = self._channel.open(PROXY, self)
        request = Packet(PacketType.DIAL_REQ, protocol="tcp", address=address, random=self._random)
        self._stream.send((request.encode(),))
        answer = await self._answer
        if answer.error:
            raise DialError(answer.error)
        self._connect_id = answer.connect_id
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        try:
            await self._loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        # Not before: until here uvloop does not own the descriptor, and a transport closed earlier has it closed twice.
        self._attached = True
        if self._over:
            self._leave()
        return theirs

    def give_up(self) -> None:
        """The dial is not wanted any more: tell the server, and leave."""
        if self._stream is not None and not self._stream.closed and not self._connect_id:
            self._stream.send((Packet(PacketType.DIAL_CLS, random=self._random).encode(),))
        self._leave()

    def _leave(self) -> None:
        self._over = True
        self._peers.discard(self)
        if self._closing is not None:
            self._closing.cancel()
        self._channel.protocol.close()
        if self._attached and self._transport is not None and not self._transport.is_closing():
            self._transport.close()

    # -- the caller's socket ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        early, self._early = self._early, []
        for data in early:
            self._transport.write(data)
        if not self._blocked:
            self.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        return shared_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        view = shared_buffer()[:nbytes]
        if self._stream is not None:
            self._stream.send((packets.data_header(self._connect_id, nbytes), view))
            if self._stream.backlog > _HIGH_WATER and not self._paused and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        """A caller that only ends its direction cannot be expressed: the protocol has no half-close; wait for the answer."""
        sock: socket.socket | None = self._transport.get_extra_info("socket") if self._transport else None
        if sock is not None:
            poll = select.poll()
            poll.register(sock.fileno(), select.POLLIN)
            if not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0)):
                return True
        return False

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        if self._stream is not None and self._unacknowledged:
            size, self._unacknowledged = self._unacknowledged, 0
            self._stream.acknowledge(size)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._stream is None or self._stream.closed:
            self._leave()
            return
        self._stream.send((Packet(PacketType.CLOSE_REQ, connect_id=self._connect_id).encode(),))
        self._closing = self._loop.call_later(CLOSE_TIMEOUT, self._leave)

    # -- the server's stream ------------------------------------------------------------------------------------------

    def headers_received(self, stream: Stream, headers: Metadata) -> None:
        """Nothing in them."""

    def message_received(self, stream: Stream, message: bytes) -> None:
        try:
            packet = packets.decode(message)
        except MalformedPacketError:
            self._leave()
            return
        if packet.type == PacketType.DATA:
            if self._transport is None:
                self._early.append(packet.data)  # bounded: not acknowledged before the socket is there
                self._unacknowledged += len(message) + 5
                return
            if packet.data and not self._transport.is_closing():
                self._transport.write(packet.data)
            self._unacknowledged += len(message) + 5
            if not self._blocked:
                self.resume_writing()
            return
        stream.acknowledge(len(message) + 5)
        if packet.type == PacketType.DIAL_RSP and packet.random == self._random and not self._answer.done():
            self._answer.set_result(packet)
        elif packet.type in (PacketType.CLOSE_RSP, PacketType.DIAL_CLS):
            if not self._answer.done():
                self._answer.set_result(Packet(PacketType.DIAL_RSP, error=packet.error or "the proxy closed the dial"))
            self._leave()

    def half_closed(self, stream: Stream) -> None:
        """Servers only."""

    def writable(self, stream: Stream) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def ended(self, stream: Stream, status: Status, trailers: Metadata) -> None:
        if not self._answer.done():
            self._answer.set_exception(GrpcError(status.code, status.message))
            self._answer.exception()
        self._leave()
