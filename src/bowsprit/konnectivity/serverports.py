"""The server's ports: how packets reach agents, gRPC frontends and HTTP CONNECT clients over asyncio."""

from __future__ import annotations

import asyncio
import logging
import random
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import cast

from bowsprit.konnectivity import httpconnect
from bowsprit.konnectivity.links import Backend, DialFailure, Frontend, Link
from bowsprit.konnectivity.router import Router
from bowsprit.net.egress import packets
from bowsprit.net.egress.packets import MalformedPacketError, Packet, PacketType
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.status import OK, Status, StatusCode
from bowsprit.net.grpc.stream import Stream
from bowsprit.net.grpc.transport import GrpcProtocol, shared_buffer
from bowsprit.net.valve import Valve

log = logging.getLogger(__name__)

_PLAIN_CHUNK = 32 * 1024  # what upstream's server reads of a CONNECT client at once; plain agents get no more
_HTTP_HIGH_WATER = 256 * 1024
_FLUSH_DEADLINE = 60.0


class AgentStream:
    """An agent's Connect stream: a stream handler and the router's port at once."""

    def __init__(
        self, router: Router, protocol: GrpcProtocol, stream: Stream, on_end: Callable[[Status], None]
    ) -> None:
        self._router = router
        self._protocol = protocol
        self._stream = stream
        self._on_end = on_end
        self._held = False
        self._owed = 0
        self.backend: Backend | None = None  # set once the agent is admitted

    @property
    def backlog(self) -> int:
        return self._stream.backlog

    def send(self, packet: Packet) -> None:
        self._stream.send((packet.encode(),))

    def send_data(self, connect_id: int, data: bytes | memoryview) -> None:
        step = len(data) if self.backend is not None and self.backend.extended else _PLAIN_CHUNK
        for start in range(0, len(data), step):
            chunk = data[start : start + step]
            self._stream.send((packets.data_header(connect_id, len(chunk)), chunk))

    def hold(self, on: bool) -> None:
        self._held = on
        if not on and self._owed:
            owed, self._owed = self._owed, 0
            self._stream.acknowledge(owed)

    def retire(self) -> None:
        self._protocol.abort()

    def headers_received(self, stream: Stream, headers: Metadata) -> None:
        """Clients only."""

    def message_received(self, stream: Stream, message: bytes) -> None:
        if self._held:
            self._owed += len(message) + 5
        else:
            stream.acknowledge(len(message) + 5)
        if self.backend is None:
            return  # not admitted yet: upstream reads nothing before; agents wait for our headers
        try:
            packet = packets.decode(message)
        except MalformedPacketError as exc:
            stream.finish(Status(StatusCode.INTERNAL, str(exc)))
            return
        self._router.agent_packet(self.backend, packet)

    def half_closed(self, stream: Stream) -> None:
        stream.finish(OK)

    def writable(self, stream: Stream) -> None:
        if self.backend is not None:
            self._router.agent_writable(self.backend)

    def ended(self, stream: Stream, status: Status, trailers: Metadata) -> None:
        self._protocol.stream_done(stream)
        if self.backend is not None:
            self._router.agent_gone(self.backend)
        self._on_end(status)


class GrpcFrontend:
    """A Proxy stream of the API server."""

    half_close = False

    def __init__(
        self, router: Router, protocol: GrpcProtocol, stream: Stream, on_end: Callable[[Status], None]
    ) -> None:
        self._router = router
        self._protocol = protocol
        self._stream = stream
        self._on_end = on_end
        self._waiting: deque[tuple[Link, int]] = deque()
        self._waiting_bytes = 0
        self.frontend = Frontend(self)

    # -- FrontendPort -------------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        return self._stream.backlog + self._protocol.unwritten

    def established(self, packet: Packet) -> None:
        self.send(packet)

    def refused(self, failure: DialFailure, packet: Packet) -> None:
        self.send(packet)

    def deliver(self, link: Link, packet: Packet) -> None:
        self._stream.send((packet.encode(),))
        size = len(packet.data)
        if self._stream.backlog:
            self._waiting.append((link, size))
            self._waiting_bytes += size
        else:
            self._router.delivered(link, size)

    def send(self, packet: Packet) -> None:
        self._stream.send((packet.encode(),))

    def end_of_data(self) -> None:
        """Never called: half_close is False."""

    def closed(self, packet: Packet) -> None:
        self.send(packet)

    def accepted(self, size: int) -> None:
        self._stream.acknowledge(size)

    # -- StreamHandler ------------------------------------------------------------------------------------------------

    def headers_received(self, stream: Stream, headers: Metadata) -> None:
        """Clients only."""

    def message_received(self, stream: Stream, message: bytes) -> None:
        try:
            packet = packets.decode(message)
        except MalformedPacketError as exc:
            self._router.frontend_gone(self.frontend)
            stream.finish(Status(StatusCode.INTERNAL, str(exc)))
            return
        if packet.type != PacketType.DATA:
            stream.acknowledge(len(message) + 5)
        self._router.frontend_packet(self.frontend, packet)

    def half_closed(self, stream: Stream) -> None:
        self._router.frontend_gone(self.frontend)
        stream.finish(OK)

    def writable(self, stream: Stream) -> None:
        left = stream.backlog
        while self._waiting and self._waiting_bytes - self._waiting[0][1] >= left:
            link, size = self._waiting.popleft()
            self._waiting_bytes -= size
            self._router.delivered(link, size)

    def ended(self, stream: Stream, status: Status, trailers: Metadata) -> None:
        self._protocol.stream_done(stream)
        self._router.frontend_gone(self.frontend)
        self._on_end(status)


class HttpFrontend(asyncio.BufferedProtocol):
    """One HTTP CONNECT connection. ``peers`` is the server's set of them."""

    def __init__(
        self,
        router: Router,
        peers: set[HttpFrontend],
        limit: int = 16_384,
        on_count: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._router = router
        self._peers = peers
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._on_count = on_count
        self._transport: asyncio.Transport | None = None
        self._parser: httpconnect.HttpConnectParser | None = httpconnect.HttpConnectParser(
            lambda: formatdate(usegmt=True)
        )
        self._timer: asyncio.TimerHandle | None = None
        self._early = b""  # what the client sent before the dial was answered
        self._established = False
        self._eof = False
        self._input: Valve | None = None
        self._blocked = False
        self._out: deque[tuple[Link, bytes | memoryview]] = deque()
        self._finishing = False  # close once everything is out
        self._ending = False  # write EOF once everything is out
        self.half_close = False
        self.frontend = Frontend(self, tunnel=True)

    # -- asyncio ------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._peers) >= self._limit:
            self._transport.abort()
            return
        self._peers.add(self)
        self._on_count(len(self._peers))
        self._transport.set_write_buffer_limits(high=_HTTP_HIGH_WATER)
        self.half_close = self._transport.get_extra_info("ssl_object") is None
        self._input = Valve(self._transport)
        self._timer = self._loop.call_later(httpconnect.HEADER_TIMEOUT, self.abort)

    def get_buffer(self, sizehint: int) -> memoryview:
        return shared_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        view = shared_buffer()[:nbytes]
        if self._parser is not None:
            self._parse(view)
        elif not self._established:
            self._early += bytes(view)
            self._pause(True)
        elif not self._router.frontend_bytes(self.frontend, view):
            self._pause(True)

    def eof_received(self) -> bool:
        self._eof = True
        if self._parser is not None:
            self._act(self._parser.end())
            return False
        if not self.half_close:
            return False
        if self._established or self._peer_gone():
            self._end_of_input()
        return True

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        while self._out and not self._blocked:
            link, data = self._out.popleft()
            self._write(data)
            self._router.delivered(link, len(data))
        self._finish_if_out()

    def connection_lost(self, exc: Exception | None) -> None:
        self._peers.discard(self)
        self._on_count(len(self._peers))
        self._stop_timer()
        self._out.clear()
        self._router.frontend_gone(self.frontend)

    # -- requests -----------------------------------------------------------------------------------------------------

    def _parse(self, view: memoryview) -> None:
        assert self._parser is not None
        self._act(self._parser.feed(view))

    def _act(self, actions: Sequence[httpconnect.Connect | httpconnect.Reply]) -> None:
        for action in actions:
            if isinstance(action, httpconnect.Connect):
                self._parser = None
                self._stop_timer()
                self._early = action.rest
                number = random.getrandbits(63)
                packet = Packet(PacketType.DIAL_REQ, protocol="tcp", address=action.address, random=number)
                self._router.dial(self.frontend, number, action.address, packet)
            else:
                self._write(action.data)
                if action.close:
                    self._parser = None
                    self._finishing = True
                    self._finish_if_out()

    def _end_of_input(self) -> None:
        if self._peer_gone():
            self._router.frontend_gone(self.frontend)
            self.abort()
            return
        self._router.frontend_eof(self.frontend)
        if not self.frontend.links:  # a plain agent: CLOSE_REQ has been sent or will be
            self.finish()

    def _peer_gone(self) -> bool:
        """Whether a unix peer has closed both directions, which TCP does not tell."""
        sock: socket.socket | None = self._transport.get_extra_info("socket") if self._transport else None
        if sock is None or sock.family != socket.AF_UNIX:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    # -- FrontendPort -------------------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        waiting = sum(len(data) for _, data in self._out)
        return waiting + (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    def established(self, packet: Packet) -> None:
        self._established = True
        self._write(httpconnect.ESTABLISHED)
        early, self._early = self._early, b""
        if early and not self._router.frontend_bytes(self.frontend, memoryview(early)):
            self._pause(True)
        else:
            self._pause(False)
        if self._eof:
            self._end_of_input()

    def refused(self, failure: DialFailure, packet: Packet) -> None:
        self._write(httpconnect.refusal(failure, packet.error))
        self.finish()

    def deliver(self, link: Link, packet: Packet) -> None:
        if self._blocked or self._out:
            self._out.append((link, packet.data))
        else:
            self._write(packet.data)
            self._router.delivered(link, len(packet.data))

    def send(self, packet: Packet) -> None:
        """CLOSE_RSP and DIAL_CLS: the end."""
        self.finish()

    def end_of_data(self) -> None:
        self._ending = True
        self._finish_if_out()

    def closed(self, packet: Packet) -> None:
        if packet.error and self._out:
            self.abort()  # cut off: the client does not read
        self.finish()

    def accepted(self, size: int) -> None:
        if (
            self._input is not None
            and self._input.closed
            and not any(link.queue for link in self.frontend.links.values())
        ):
            self._pause(False)

    # -- the transport ------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Close once what was delivered is out; a client that does not take it is cut off after a minute."""
        if not self._finishing:
            self._finishing = True
            self._stop_timer()
            self._timer = self._loop.call_later(_FLUSH_DEADLINE, self.abort)
        self._finish_if_out()

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    def _finish_if_out(self) -> None:
        if self._out or self._transport is None or self._transport.is_closing():
            return
        if self._finishing:
            self._transport.close()
        elif self._ending:
            self._ending = False
            self._transport.write_eof()

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _pause(self, on: bool) -> None:
        if self._input is None:
            return
        if on:
            self._input.close()
        else:
            self._input.open()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
