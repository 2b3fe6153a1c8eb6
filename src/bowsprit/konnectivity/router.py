"""The server's protocol machine: packets of frontends and agents in, packets out through ports. No I/O.

Per connection and direction there is one bounded queue, and no queue is shared: a client or an endpoint that stops reading
stops itself alone. Towards an agent of ours the bound is credit that it grants (WINDOW). From a plain agent we cannot stop
one connection only; up to ``buffer_limit`` is kept, then the whole agent is held back as long as that client makes progress,
and a client that makes none is cut off.
Packet sequences and texts are those of pkg/server/server.go; where we differ on purpose it says so.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol, TypeVarTuple

from bowsprit.konnectivity.backends import Backends
from bowsprit.konnectivity.links import HIGH_WATER, Backend, Dial, DialFailure, Frontend, Link
from bowsprit.konnectivity.stalls import Schedule, StallGuard
from bowsprit.konnectivity.uplink import Uplink
from bowsprit.net.egress.packets import Packet, PacketType

log = logging.getLogger(__name__)

WINDOW = 2 * 1024 * 1024  # what an agent of ours may send on one connection before we grant more
BUFFER_LIMIT = 8 * 1024 * 1024
_SLACK = 4 * 1024 * 1024  # one message may overrun the window
_MAX_DIALS = 65_536

FROM_CLIENT, TO_CLIENT, FROM_AGENT, TO_AGENT = "from_client", "to_client", "from_agent", "to_agent"


class Observer(Protocol):
    """What is measured as it happens; gauges are read from the router."""

    def dial_failed(self, failure: DialFailure) -> None:
        """``dial_failure_count``."""

    def dialled(self, seconds: float) -> None:
        """``dial_duration_seconds``."""

    def frontend_wrote(self, seconds: float) -> None:
        """``frontend_write_duration_seconds``."""

    def connection_ended(self, seconds: float) -> None:
        """``connection_duration_seconds``."""


Ts = TypeVarTuple("Ts")


class Router:
    """See the module. Time comes from ``clock`` and ``schedule``."""

    def __init__(
        self,
        backends: Backends,
        observer: Observer,
        *,
        clock: Callable[[], float],
        schedule: Schedule,
        dial_timeout: float = 0.0,
        window: int = WINDOW,
        buffer_limit: int = BUFFER_LIMIT,
    ) -> None:
        self.backends = backends
        self.window = window
        self.packets: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.dials: dict[int, Dial] = {}
        self.bytes_from_agents = 0
        self.last_errors: list[str] = []
        self._guards: dict[Backend, StallGuard] = {}
        self._uplink = Uplink(schedule, self._count_to_agent, self._end_of_queue, self._note)
        self._observer = observer
        self._clock = clock
        self._schedule = schedule
        self._dial_timeout = dial_timeout
        self._buffer_limit = buffer_limit

    @property
    def established(self) -> int:
        """How many connections there are."""
        return sum(len(backend.links) for backend in self.backends.all())

    @property
    def bytes_to_agents(self) -> int:
        """How much data agents have been sent."""
        return self._uplink.bytes

    def _count_to_agent(self, kind: int) -> None:
        self.packets[TO_AGENT, kind] += 1

    @property
    def held_back(self) -> int:
        """How many agents are stopped because clients of theirs are behind."""
        return sum(len(guard) > 0 for guard in self._guards.values())

    # -- frontends ----------------------------------------------------------------------------------------------------

    def dial(self, frontend: Frontend, random: int, address: str, packet: Packet) -> None:
        """Ask an agent to dial; the answer comes through the frontend's port."""
        backend = self.backends.pick(address)
        if backend is None or len(self.dials) >= _MAX_DIALS:
            self._note(f"no agent for a dial to {address!r} ({len(self.backends)} connected)")
            self._observer.dial_failed(DialFailure.NO_AGENT)
            frontend.stopped = True
            self._refuse(frontend, DialFailure.NO_AGENT, random, "No agent available")
            return
        frontend.backend = backend
        dial = Dial(frontend, backend, random, address, self._clock())
        replaced = self.dials.get(random)
        if replaced is not None:
            self._forget_dial(replaced)  # the client's fault; upstream overwrites too
        self.dials[random] = dial
        frontend.dials.add(dial)
        backend.dials.add(dial)
        if self._dial_timeout > 0:
            dial.expire = self._schedule(self._dial_timeout, lambda: self._dial_expired(dial))
        self._uplink.send(backend, packet)

    def frontend_packet(self, frontend: Frontend, packet: Packet) -> None:
        """A packet of a gRPC frontend. For DATA ``port.accepted`` follows, now or later."""
        self.packets[FROM_CLIENT, packet.type] += 1
        kind = packet.type
        if kind == PacketType.DATA:
            self._frontend_data(frontend, packet)
        elif frontend.stopped:
            return
        elif packet.empty:
            log.warning("packet %s without payload from a frontend ignored", PacketType(kind).name)
        elif kind == PacketType.DIAL_REQ:
            self.dial(frontend, packet.random, packet.address, packet)
        elif kind == PacketType.CLOSE_REQ:
            self._frontend_close_request(frontend, packet)
        elif kind == PacketType.DIAL_CLS:
            dial = self.dials.get(packet.random)
            if dial is not None:
                self._forget_dial(dial)
                self._observer.dial_failed(DialFailure.FRONTEND_CLOSE)

    def _frontend_close_request(self, frontend: Frontend, packet: Packet) -> None:
        backend = frontend.backend
        if backend is None:
            self._close_frontend(frontend, packet.connect_id, "backend uninitialized")
            return
        frontend.stopped = True
        link = frontend.links.get(packet.connect_id)
        if not backend.alive:
            self._close_frontend(frontend, packet.connect_id, "CLOSE_REQ to backend failed")
        elif link is not None:
            self._uplink.close(link)
        else:
            self._uplink.send(backend, packet)

    def _frontend_data(self, frontend: Frontend, packet: Packet) -> None:
        size = len(packet.raw) + 5
        backend, connect_id = frontend.backend, packet.connect_id
        if frontend.stopped or packet.empty or (backend is not None and connect_id == 0):
            frontend.port.accepted(size)
            return
        if backend is None:
            frontend.stopped = True
            frontend.port.accepted(size)
            self._close_frontend(frontend, connect_id, "backend not initialized")
            return
        if frontend.first_id == 0:
            frontend.first_id = connect_id
        link = frontend.links.get(connect_id)
        if frontend.first_id != connect_id or (link is None and connect_id in backend.links):
            frontend.port.accepted(size)
            self._mismatch(frontend, backend, connect_id)
        elif link is not None:
            self._uplink.forward(link, packet, len(packet.data))
        else:
            if backend.alive:
                self._uplink.send(backend, packet)  # the agent answers that it does not know the connection
            frontend.port.accepted(size)

    def _mismatch(self, frontend: Frontend, backend: Backend, connect_id: int) -> None:
        """A second connection on one stream. Ours differs: another frontend's connection is never touched."""
        frontend.stopped = True
        ids = [connect_id] if connect_id == frontend.first_id else [connect_id, frontend.first_id]
        for each in ids:
            if each in frontend.links or each not in backend.links:
                self._uplink.send(backend, Packet(PacketType.CLOSE_REQ, connect_id=each))
        for each in ids:
            self._close_frontend(frontend, each, "mismatched connection IDs")

    def frontend_bytes(self, frontend: Frontend, data: memoryview) -> bool:
        """Bytes of an HTTP CONNECT client. False: they are queued, ``port.accepted`` tells when they have gone."""
        for link in frontend.links.values():
            return self._uplink.forward(link, data, len(data))
        return True

    def frontend_eof(self, frontend: Frontend) -> None:
        """An HTTP CONNECT client sends no more, but still reads."""
        for link in list(frontend.links.values()):
            if link.backend.extended:
                link.eof_from_client = True
                if not link.queue:
                    self._end_of_queue(link)
            else:
                self.frontend_gone(frontend)

    def frontend_gone(self, frontend: Frontend) -> None:
        """A client is gone: its dials are cancelled, the rest of its data flows, then the agent closes."""
        frontend.stopped = True
        for dial in list(frontend.dials):
            self._forget_dial(dial)
            if frontend.tunnel:  # the agent's answer will be answered with CLOSE_REQ
                self._observer.dial_failed(DialFailure.FRONTEND_CLOSE)
            else:
                self._uplink.send(dial.backend, Packet(PacketType.DIAL_CLS, random=dial.random))
        for link in list(frontend.links.values()):
            self._unwatch(link)
            self._abandon(link)
        frontend.links.clear()

    def delivered(self, link: Link, size: int) -> None:
        """``size`` bytes have left for the client."""
        link.undelivered -= size
        if link.undelivered * 2 < self._buffer_limit:
            self._unwatch(link)
        if not link.closing:
            self._grant(link, size)

    def _grant(self, link: Link, size: int) -> None:
        """Let an agent of ours send as much again; told to it in steps of a quarter of the window."""
        link.grant += size
        if link.backend.extended and link.grant * 4 >= self.window:
            packet = Packet(PacketType.WINDOW, connect_id=link.connect_id, increment=link.grant)
            link.grant = 0
            self._uplink.send(link.backend, packet)

    def _abandon(self, link: Link) -> None:
        """No client any more. What it has sent still goes to the agent, and CLOSE_REQ follows.

        What the agent sends meanwhile is dropped, but granted: it may wait for that to end the connection itself.
        """
        link.frontend = None
        link.closing = True
        if link.queue:
            self._grant(link, link.undelivered)
        else:
            self._end_of_queue(link)

    # -- agents -------------------------------------------------------------------------------------------------------

    def agent_connected(self, backend: Backend) -> None:
        """An agent is there."""
        self.backends.add(backend)
        self._guards[backend] = StallGuard(backend.port.hold, self._schedule)

    def agent_writable(self, backend: Backend) -> None:
        """The agent's stream takes more."""
        self._uplink.writable(backend)

    def agent_packet(self, backend: Backend, packet: Packet) -> None:
        """A packet of an agent."""
        kind = packet.type
        self.packets[FROM_AGENT, kind] += 1
        if packet.empty:
            log.warning("packet %s without payload from agent %r ignored", PacketType(kind).name, backend.agent_id)
        elif kind == PacketType.DATA:
            self._agent_data(backend, packet)
        elif kind == PacketType.DIAL_RSP:
            self._dial_response(backend, packet)
        elif kind == PacketType.CLOSE_RSP:
            self._close_response(backend, packet)
        elif kind == PacketType.WINDOW and backend.extended:
            link = backend.links.get(packet.connect_id)
            if link is not None:
                self._uplink.granted(link, packet.increment)
        elif kind == PacketType.EOF and backend.extended:
            self._agent_eof(backend, packet)
        elif kind == PacketType.DRAIN:
            self.backends.drain(backend)
        elif kind == PacketType.DIAL_CLS:
            self._agent_dial_close(packet)

    def _agent_data(self, backend: Backend, packet: Packet) -> None:
        if packet.connect_id == 0:
            return
        size = len(packet.data)
        link = backend.links.get(packet.connect_id)
        if link is None:
            self._uplink.send(backend, Packet(PacketType.CLOSE_REQ, connect_id=packet.connect_id))
            return
        backend.received += size
        self.bytes_from_agents += size
        frontend = link.frontend
        if frontend is None:
            if link.queue:
                self._grant(link, size)
            return
        link.undelivered += size
        link.delivered += size
        self._write(frontend, PacketType.DATA, frontend.port.deliver, link, packet)
        if link.undelivered > self._buffer_limit:
            if backend.extended and link.undelivered > self.window + _SLACK:
                self._cut(link, "the agent sent more than it was granted")
            else:
                self._watch(link)

    def _dial_response(self, backend: Backend, packet: Packet) -> None:
        dial = self.dials.get(packet.random)
        if dial is None:
            self._observer.dial_failed(DialFailure.UNRECOGNIZED_RESPONSE)
            if packet.connect_id != 0:
                self._uplink.send(backend, Packet(PacketType.CLOSE_REQ, connect_id=packet.connect_id))
            return
        self._forget_dial(dial)
        if packet.error:
            self._note(f"agent {backend.agent_id!r} could not dial {dial.address!r}: {packet.error}")
            self._observer.dial_failed(DialFailure.ERROR_RESPONSE)
            port = dial.frontend.port
            self._write(dial.frontend, PacketType.DIAL_RSP, port.refused, DialFailure.ERROR_RESPONSE, packet)
            return
        now = self._clock()
        dial.backend = backend  # whoever answers has the connection
        if packet.connect_id in backend.links:
            self._cut(backend.links[packet.connect_id], "the agent used its connectID again")
        link = Link(dial, packet.connect_id, now)
        backend.links[packet.connect_id] = link
        dial.frontend.links[packet.connect_id] = link
        self._observer.dialled(now - dial.started)
        self._write(dial.frontend, PacketType.DIAL_RSP, dial.frontend.port.established, packet)

    def _close_response(self, backend: Backend, packet: Packet) -> None:
        link = backend.links.get(packet.connect_id)
        if link is None:
            return
        answered = link.closing
        self._remove_link(link)
        frontend = link.frontend
        if frontend is None:
            return
        frontend.links.pop(link.connect_id, None)
        self._write(frontend, PacketType.CLOSE_RSP, frontend.port.closed, packet)
        if frontend.tunnel and not answered and not backend.extended:
            self._uplink.send(backend, Packet(PacketType.CLOSE_REQ, connect_id=link.connect_id))  # so upstream's tunnel

    def _write(self, frontend: Frontend, kind: PacketType, action: Callable[[*Ts], None], *arguments: *Ts) -> None:
        """What an agent has for a client: counted, and timed."""
        self._count(frontend, kind)
        start = self._clock()
        action(*arguments)
        self._observer.frontend_wrote(self._clock() - start)

    def _count(self, frontend: Frontend, kind: PacketType) -> None:
        if not frontend.tunnel:  # an HTTP CONNECT client is sent bytes, no packets
            self.packets[TO_CLIENT, kind] += 1

    def _agent_eof(self, backend: Backend, packet: Packet) -> None:
        """The endpoint sends no more. A client that cannot be told so sees its connection closed, as always upstream."""
        link = backend.links.get(packet.connect_id)
        if link is None or link.eof_from_agent:
            return
        link.eof_from_agent = True
        frontend = link.frontend
        if frontend is None:
            return
        if link.eof_from_client and not link.queue:
            self._finish_link(link)
        elif frontend.port.half_close:
            frontend.port.end_of_data()
        else:
            self._finish_link(link)

    def _finish_link(self, link: Link) -> None:
        """Both directions are over, or the client cannot tell one from both."""
        frontend = link.frontend
        if frontend is not None:
            frontend.links.pop(link.connect_id, None)
            self._count(frontend, PacketType.CLOSE_RSP)
            frontend.port.closed(Packet(PacketType.CLOSE_RSP, connect_id=link.connect_id))
        self._abandon(link)

    def _agent_dial_close(self, packet: Packet) -> None:
        dial = self.dials.get(packet.random)
        if dial is not None:
            self._forget_dial(dial)
            self._observer.dial_failed(DialFailure.BACKEND_CLOSE)
            self._write(dial.frontend, PacketType.DIAL_CLS, dial.frontend.port.send, packet)

    def agent_gone(self, backend: Backend) -> None:
        """An agent's stream has ended: its connections close, its dials fail, at once (upstream's #126)."""
        if not backend.alive:
            return
        backend.alive = False
        self.backends.remove(backend)
        self._guards.pop(backend, None)
        backend.waiting.clear()
        for link in list(backend.links.values()):
            self._remove_link(link)
            frontend = link.frontend
            if frontend is not None:
                frontend.links.pop(link.connect_id, None)
                self._count(frontend, PacketType.CLOSE_RSP)
                frontend.port.closed(Packet(PacketType.CLOSE_RSP, connect_id=link.connect_id))
        for dial in list(backend.dials):
            self._forget_dial(dial)
            self._observer.dial_failed(DialFailure.BACKEND_CLOSE)
            text = f"agent {backend.agent_id!r} disconnected while dialling {dial.address} ({len(self.backends)} connected)"
            self._note(text)
            self._refuse(dial.frontend, DialFailure.BACKEND_CLOSE, dial.random, text)

    # -- ends of dials and links --------------------------------------------------------------------------------------

    def _dial_expired(self, dial: Dial) -> None:
        if self.dials.get(dial.random) is not dial:
            return
        self._forget_dial(dial)
        self._note(
            f"agent {dial.backend.agent_id!r} did not answer the dial to {dial.address!r} in {self._dial_timeout}s"
        )
        self._observer.dial_failed(DialFailure.BACKEND_DIAL_TIMEOUT)
        text = "timed out waiting for backend dial"
        self._refuse(dial.frontend, DialFailure.BACKEND_DIAL_TIMEOUT, dial.random, text)
        if dial.backend.port.backlog > HIGH_WATER:
            dial.backend.port.retire()  # it has not even taken the DIAL_REQ

    def _forget_dial(self, dial: Dial) -> None:
        if self.dials.get(dial.random) is dial:
            del self.dials[dial.random]
        dial.frontend.dials.discard(dial)
        dial.backend.dials.discard(dial)
        if dial.expire is not None:
            dial.expire.cancel()

    def _refuse(self, frontend: Frontend, failure: DialFailure, random: int, error: str) -> None:
        self._count(frontend, PacketType.DIAL_RSP)
        frontend.port.refused(failure, Packet(PacketType.DIAL_RSP, random=random, error=error))

    def _close_frontend(self, frontend: Frontend, connect_id: int, error: str) -> None:
        self._count(frontend, PacketType.CLOSE_RSP)
        frontend.port.send(Packet(PacketType.CLOSE_RSP, connect_id=connect_id, error=error))

    def _end_of_queue(self, link: Link) -> None:
        """All that the client has sent is with the agent."""
        if link.closing:
            if link.frontend is None and not link.tunnel:
                self._remove_link(link)  # upstream keeps a tunnel's connection until CLOSE_RSP, a stream's not
            self._uplink.send(link.backend, Packet(PacketType.CLOSE_REQ, connect_id=link.connect_id))
        elif link.eof_from_client:
            if link.eof_from_agent:
                self._finish_link(link)
            else:
                self._uplink.send(link.backend, Packet(PacketType.EOF, connect_id=link.connect_id))

    def _remove_link(self, link: Link) -> None:
        if link.backend.links.get(link.connect_id) is link:
            del link.backend.links[link.connect_id]
            self._observer.connection_ended(self._clock() - link.established_at)
        link.backend.waiting.pop(link, None)
        link.closing = True
        link.queue.clear()
        self._unwatch(link)

    def _cut(self, link: Link, reason: str) -> None:
        """Close one connection for a fault, and say why."""
        self._note(f"connection {link.connect_id} of agent {link.backend.agent_id!r} to {link.address!r} cut: {reason}")
        frontend = link.frontend
        self._remove_link(link)
        self._uplink.send(link.backend, Packet(PacketType.CLOSE_REQ, connect_id=link.connect_id))
        if frontend is not None:
            frontend.links.pop(link.connect_id, None)
            self._count(frontend, PacketType.CLOSE_RSP)
            frontend.port.closed(Packet(PacketType.CLOSE_RSP, connect_id=link.connect_id, error=reason))

    # -- clients that read too slowly behind plain agents -------------------------------------------------------------

    def _watch(self, link: Link) -> None:
        def taken() -> int:
            return link.delivered - (link.frontend.port.backlog if link.frontend is not None else 0)

        def cut() -> None:
            self._cut(link, f"the client has stopped reading and {link.undelivered} bytes wait for it")

        guard = self._guards.get(link.backend)
        if guard is not None:
            guard.watch(link, taken, cut)

    def _unwatch(self, link: Link) -> None:
        guard = self._guards.get(link.backend)
        if guard is not None:
            guard.release(link)

    def _note(self, error: str) -> None:
        log.info("%s", error)
        self.last_errors.append(error)
        del self.last_errors[:-20]
