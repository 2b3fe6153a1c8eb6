"""The agent's protocol machine for one server: packets and endpoint events in, packets and endpoint actions out. No I/O.

The receive loop never waits for an endpoint: each has its own queue, in its port. A server of ours is told with WINDOW how
much it may still send for one connection; a plain server is not to be stopped for one connection alone, so up to
``buffer_limit`` is kept, then the server is held back while that endpoint makes progress, and an endpoint that makes none is
cut off. Whatever is queued is written before an endpoint is closed, in both directions (upstream drops it).
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Protocol

from bowsprit.konnectivity.stalls import Schedule, StallGuard
from bowsprit.net.egress.packets import Packet, PacketType

log = logging.getLogger(__name__)

WINDOW = 2 * 1024 * 1024
BUFFER_LIMIT = 8 * 1024 * 1024
_HIGH_WATER = 1024 * 1024
_BANNER_DELAY = 0.05
_SLACK = 4 * 1024 * 1024
_MAX_DIALS = 16_384

FROM_AGENT, TO_AGENT = "from_agent", "to_agent"


class ServerPort(Protocol):
    """The way to the server."""

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""

    def send(self, packet: Packet) -> None:
        """Send a packet."""

    def send_data(self, connect_id: int, data: bytes | memoryview) -> None:
        """Send DATA; copied before the call returns."""

    def hold(self, on: bool) -> None:
        """Stop, or go on, acknowledging what the server sends."""


class EndpointPort(Protocol):
    """The way to one endpoint."""

    @property
    def backlog(self) -> int:
        """Bytes given to ``write`` that the endpoint has not taken yet."""

    def write(self, data: bytes | memoryview) -> None:
        """Queue and write; calls ``tunnel.consumed`` as it leaves."""

    def write_eof(self) -> None:
        """After what is queued: no more data comes."""

    def finish(self) -> None:
        """After what is queued: close; then calls ``tunnel.lost``."""

    def abort(self) -> None:
        """Close now; then calls ``tunnel.lost``."""

    def pause(self, on: bool) -> None:
        """Stop, or go on, reading."""


class Endpoint:
    """One connection to an endpoint, or the attempt."""

    __slots__ = (
        "address", "answers", "closing", "connect_id", "credit", "early", "eof_from_endpoint", "eof_from_server",
        "error", "grant", "network", "paused", "port", "queue", "random", "unwritten", "written",
    )  # fmt: skip

    def __init__(self, connect_id: int, packet: Packet, credit: int | None) -> None:
        self.connect_id = connect_id
        self.random = packet.random
        self.network = packet.protocol
        self.address = packet.address
        self.port: EndpointPort | None = None
        self.credit = credit  # what the server still takes; None: no limit known
        self.queue: deque[bytes] = deque()  # for the server
        self.paused = False
        self.early = False  # a plain server may not have told its client yet that the dial succeeded
        self.written = 0  # given to the endpoint's port since the beginning
        self.unwritten = 0  # from the server, not yet written to the endpoint
        self.grant = 0
        self.closing = False
        self.answers = 0  # CLOSE_REQs that came while closing
        self.error = ""  # goes into CLOSE_RSP
        self.eof_from_endpoint = False
        self.eof_from_server = False


Dialler = Callable[[Endpoint], None]


class Tunnel:
    """See the module. ``dial`` starts a dial whose outcome comes back through ``dialled`` or ``dial_failed``."""

    def __init__(
        self,
        port: ServerPort,
        dial: Dialler,
        schedule: Schedule,
        *,
        peer_window: int | None = None,
        window: int = WINDOW,
        buffer_limit: int = BUFFER_LIMIT,
    ) -> None:
        self.endpoints: dict[int, Endpoint] = {}
        self.dialling: dict[int, Endpoint] = {}
        self.packets: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.ended = False
        self.sent = 0
        self.received = 0
        self._port = port
        self._dial = dial
        self._schedule = schedule
        self._peer_window = peer_window
        self._window = window
        self._buffer_limit = buffer_limit
        self._next_id = 0
        self._waiting: dict[Endpoint, None] = {}
        self._guard = StallGuard(port.hold, schedule)

    @property
    def _extended(self) -> bool:
        return self._peer_window is not None

    # -- from the server ----------------------------------------------------------------------------------------------

    def packet(self, packet: Packet) -> None:
        """A packet of the server."""
        kind = packet.type
        self.packets[TO_AGENT, kind] += 1
        if packet.empty:
            log.warning("packet %s without payload from the server ignored", PacketType(kind).name)
        elif kind == PacketType.DATA:
            self._data(packet)
        elif kind == PacketType.DIAL_REQ:
            self._dial_request(packet)
        elif kind == PacketType.CLOSE_REQ:
            self._close_request(packet)
        elif kind == PacketType.WINDOW and self._extended:
            endpoint = self.endpoints.get(packet.connect_id)
            if endpoint is not None and endpoint.credit is not None and packet.increment > 0:
                endpoint.credit += packet.increment
                self._drain(endpoint)
        elif kind == PacketType.EOF and self._extended:
            endpoint = self.endpoints.get(packet.connect_id)
            if endpoint is not None and not endpoint.eof_from_server and endpoint.port is not None:
                endpoint.eof_from_server = True
                if endpoint.eof_from_endpoint and not endpoint.queue:
                    self._close(endpoint)
                else:
                    endpoint.port.write_eof()

    def _dial_request(self, packet: Packet) -> None:
        self._next_id += 1
        endpoint = Endpoint(self._next_id, packet, self._peer_window)
        if len(self.dialling) >= _MAX_DIALS:
            self._send(Packet(PacketType.DIAL_RSP, random=packet.random, error="too many pending dials"))
            return
        self.dialling[endpoint.connect_id] = endpoint
        self._dial(endpoint)

    def _data(self, packet: Packet) -> None:
        if packet.connect_id == 0:
            return
        endpoint = self.endpoints.get(packet.connect_id)
        if endpoint is None:
            text = "unrecognized connectID"
            self._send(Packet(PacketType.CLOSE_RSP, connect_id=packet.connect_id, error=text))
            return
        self._told(endpoint)
        size = len(packet.data)
        self.received += size
        if endpoint.port is None or endpoint.closing or not size:
            return  # closing: what the endpoint has said may still be on its way
        endpoint.unwritten += size
        endpoint.written += size
        endpoint.port.write(packet.data)
        if endpoint.unwritten > self._buffer_limit:
            if self._extended and endpoint.unwritten > self._window + _SLACK:
                self._cut(endpoint, "the server sent more than it was granted")
            else:
                self._watch(endpoint)

    def _close_request(self, packet: Packet) -> None:
        endpoint = self.endpoints.get(packet.connect_id)
        if endpoint is None:
            self._send(Packet(PacketType.CLOSE_RSP, connect_id=packet.connect_id, error="Unknown connectID"))
        elif endpoint.closing and endpoint.port is not None:
            endpoint.answers += 1
        else:
            while endpoint.queue:  # what the endpoint has said, whether or not there is credit: it is a bounded rest
                self._send_data(endpoint, endpoint.queue.popleft())
            if endpoint.port is None:
                self._forget(endpoint)
            else:
                self._close(endpoint)

    def _close(self, endpoint: Endpoint) -> None:
        endpoint.closing = True
        self._pause(endpoint, True)
        if endpoint.port is not None:
            endpoint.port.finish()

    # -- from the driver: dials ---------------------------------------------------------------------------------------

    def dialled(self, endpoint: Endpoint, port: EndpointPort) -> None:
        """The endpoint is connected."""
        self.dialling.pop(endpoint.connect_id, None)
        endpoint.port = port
        if self.ended:
            port.abort()
            return
        self.endpoints[endpoint.connect_id] = endpoint
        self._send(Packet(PacketType.DIAL_RSP, connect_id=endpoint.connect_id, random=endpoint.random))
        if not self._extended:
            endpoint.early = True
            self._schedule(_BANNER_DELAY, lambda: self._told(endpoint))

    def _told(self, endpoint: Endpoint) -> None:
        """The client knows of the dial, for sure if it has sent something.

        Upstream's server answers CONNECT in one thread and forwards data in another: the first bytes of an endpoint that
        speaks first would often arrive before the 200 line.
        """
        if endpoint.early:
            endpoint.early = False
            self._drain(endpoint)

    def dial_failed(self, endpoint: Endpoint, error: str) -> None:
        """It is not."""
        self.dialling.pop(endpoint.connect_id, None)
        self._send(Packet(PacketType.DIAL_RSP, random=endpoint.random, error=error))

    # -- from endpoints -----------------------------------------------------------------------------------------------

    def endpoint_data(self, endpoint: Endpoint, data: memoryview) -> None:
        """The endpoint has sent something; ``data`` need only live during the call."""
        if endpoint.closing or self.ended:
            return
        if endpoint.queue or endpoint.early or (endpoint.credit is not None and endpoint.credit <= 0):
            endpoint.queue.append(bytes(data))
            self._pause(endpoint, True)
        elif self._port.backlog > _HIGH_WATER:
            endpoint.queue.append(bytes(data))
            self._waiting[endpoint] = None
            self._pause(endpoint, True)
        else:
            self._send_data(endpoint, data)

    def endpoint_eof(self, endpoint: Endpoint) -> None:
        """The endpoint sends no more."""
        endpoint.eof_from_endpoint = True
        if not endpoint.queue and not endpoint.early:
            self._end_of_queue(endpoint)

    def lost(self, endpoint: Endpoint, error: str = "") -> None:
        """The connection to the endpoint is gone; all it has said is sent, then CLOSE_RSP."""
        endpoint.port = None
        self._guard.release(endpoint)
        if self.endpoints.get(endpoint.connect_id) is not endpoint:
            return
        if (endpoint.queue or endpoint.early) and not endpoint.closing and not self.ended:
            endpoint.closing = True  # _end_of_queue goes on
            return
        self._forget(endpoint)

    def consumed(self, endpoint: Endpoint, size: int) -> None:
        """``size`` bytes have been written to the endpoint."""
        endpoint.unwritten -= size
        if endpoint.unwritten * 2 < self._buffer_limit:
            self._guard.release(endpoint)
        if self._extended and not endpoint.closing:
            endpoint.grant += size
            if endpoint.grant * 4 >= self._window:
                packet = Packet(PacketType.WINDOW, connect_id=endpoint.connect_id, increment=endpoint.grant)
                endpoint.grant = 0
                self._send(packet)

    # -- towards the server -------------------------------------------------------------------------------------------

    def writable(self) -> None:
        """The stream to the server takes more: waiting endpoints send in turn."""
        while self._waiting and self._port.backlog <= _HIGH_WATER:
            endpoint = next(iter(self._waiting))
            del self._waiting[endpoint]
            self._drain(endpoint, turn=True)

    def drain(self) -> None:
        """Ask the server for no more dials."""
        self._send(Packet(PacketType.DRAIN))

    def _drain(self, endpoint: Endpoint, *, turn: bool = False) -> None:
        if endpoint.early or self.endpoints.get(endpoint.connect_id) is not endpoint:
            return
        while endpoint.queue and (endpoint.credit is None or endpoint.credit > 0):
            if self._port.backlog > _HIGH_WATER:
                self._waiting[endpoint] = None
                return
            self._send_data(endpoint, endpoint.queue.popleft())
            if turn and endpoint.queue:
                self._waiting[endpoint] = None
                return
        if not endpoint.queue:
            self._end_of_queue(endpoint)

    def _end_of_queue(self, endpoint: Endpoint) -> None:
        if endpoint.port is None:
            self._forget(endpoint)
        elif endpoint.eof_from_endpoint and not endpoint.closing:
            if self._extended and not endpoint.eof_from_server:
                self._send(Packet(PacketType.EOF, connect_id=endpoint.connect_id))
            else:
                self._close(endpoint)
        else:
            self._pause(endpoint, endpoint.closing)

    def _send_data(self, endpoint: Endpoint, data: bytes | memoryview) -> None:
        self.packets[FROM_AGENT, PacketType.DATA] += 1
        size = len(data)
        self.sent += size
        if endpoint.credit is not None:
            endpoint.credit -= size
        self._port.send_data(endpoint.connect_id, data)

    def _send(self, packet: Packet) -> None:
        if not self.ended:
            self.packets[FROM_AGENT, packet.type] += 1
            self._port.send(packet)

    def _pause(self, endpoint: Endpoint, on: bool) -> None:
        if endpoint.paused != on and endpoint.port is not None:
            endpoint.paused = on
            endpoint.port.pause(on)

    def _forget(self, endpoint: Endpoint) -> None:
        if self.endpoints.pop(endpoint.connect_id, None) is None:
            return
        self._waiting.pop(endpoint, None)
        endpoint.queue.clear()
        self._send(Packet(PacketType.CLOSE_RSP, connect_id=endpoint.connect_id, error=endpoint.error))
        for _ in range(endpoint.answers):
            self._send(Packet(PacketType.CLOSE_RSP, connect_id=endpoint.connect_id, error="Unknown connectID"))

    def end(self) -> None:
        """The stream to the server is over: endpoints get what is queued for them, then close."""
        self.ended = True
        self._guard.forget()
        self._waiting.clear()
        for endpoint in list(self.endpoints.values()):
            endpoint.closing = True
            endpoint.queue.clear()
            if endpoint.port is not None:
                endpoint.port.finish()
            else:
                self._forget(endpoint)

    # -- endpoints that read too slowly behind plain servers ----------------------------------------------------------

    def _cut(self, endpoint: Endpoint, reason: str) -> None:
        log.warning("connection %d to %s cut: %s", endpoint.connect_id, endpoint.address, reason)
        endpoint.error = reason
        endpoint.closing = True
        endpoint.queue.clear()
        if endpoint.port is not None:
            endpoint.port.abort()

    def _watch(self, endpoint: Endpoint) -> None:
        def taken() -> int:
            return endpoint.written - (endpoint.port.backlog if endpoint.port is not None else 0)

        def cut() -> None:
            self._cut(endpoint, f"the endpoint has stopped reading and {endpoint.unwritten} bytes wait for it")

        self._guard.watch(endpoint, taken, cut)
