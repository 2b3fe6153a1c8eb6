"""What goes to agents: each connection's data within its credit, waiting connections in turn. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from bowsprit.konnectivity.links import HIGH_WATER, Backend, Link
from bowsprit.konnectivity.stalls import Schedule
from bowsprit.net.egress.packets import Packet, PacketType

AGENT_STALL = 30.0  # grpc-go grants window in steps of up to 4 MiB, so a slow agent may look stopped for a while


class Uplink:
    """The way to all agents. ``counted`` sees each packet's type; ``emptied`` is told when a link's queue is out.

    ``retired`` hears why an agent is dropped.
    """

    def __init__(
        self,
        schedule: Schedule,
        counted: Callable[[int], None],
        emptied: Callable[[Link], None],
        retired: Callable[[str], None],
    ) -> None:
        self.bytes = 0
        self._schedule = schedule
        self._counted = counted
        self._emptied = emptied
        self._retired = retired

    def send(self, backend: Backend, packet: Packet) -> None:
        """Anything but a client's data."""
        if backend.alive:
            self._counted(packet.type)
            backend.port.send(packet)

    def forward(self, link: Link, item: Packet | memoryview, size: int) -> bool:
        """A client's data; False if it must wait."""
        if link.closing:
            _accepted(link, item, size)
            return True
        if link.queue or (link.credit is not None and link.credit <= 0):
            pass
        elif link.backend.port.backlog <= HIGH_WATER:
            self._send_data(link, item, size)
            return True
        else:
            self._wait(link)
        link.queue.append(item if isinstance(item, Packet) else bytes(item))
        link.queued += size
        return False

    def granted(self, link: Link, increment: int) -> None:
        """The agent takes so much more of one connection."""
        if link.credit is not None and increment > 0:
            link.credit += increment
            self._drain(link)

    def writable(self, backend: Backend) -> None:
        """The agent's stream takes more: waiting links send in turn."""
        while backend.waiting and backend.port.backlog <= HIGH_WATER:
            link = next(iter(backend.waiting))
            del backend.waiting[link]
            if link.queue and (link.credit is None or link.credit > 0):
                self._send_next(link)
                if link.queue:
                    backend.waiting[link] = None
                else:
                    self._emptied(link)

    def close(self, link: Link) -> None:
        """CLOSE_REQ, behind what is queued."""
        if not link.closing:
            link.closing = True
            if not link.queue:
                self.send(link.backend, Packet(PacketType.CLOSE_REQ, connect_id=link.connect_id))

    def _drain(self, link: Link) -> None:
        """Send what waits on a link, as far as credit and the agent's stream allow."""
        while link.queue and (link.credit is None or link.credit > 0):
            if link.backend.port.backlog > HIGH_WATER:
                self._wait(link)
                return
            self._send_next(link)
        if not link.queue:
            self._emptied(link)

    def _send_next(self, link: Link) -> None:
        item = link.queue.popleft()
        size = len(item.data) if isinstance(item, Packet) else len(item)
        link.queued -= size
        self._send_data(link, item, size)

    def _send_data(self, link: Link, item: Packet | bytes | memoryview, size: int) -> None:
        backend = link.backend
        self._counted(PacketType.DATA)
        backend.sent += size
        self.bytes += size
        if link.credit is not None:
            link.credit -= size
        if isinstance(item, Packet):
            backend.port.send(item)
        else:
            backend.port.send_data(link.connect_id, item)
        _accepted(link, item, size)

    def _wait(self, link: Link) -> None:
        """The agent's stream is full. One that takes nothing at all for long is retired: its connections fail, it returns.

        Upstream's agent stops so, for ever, when one endpoint stops reading.
        """
        backend = link.backend
        backend.waiting[link] = None
        if not backend.watched:
            backend.watched = True
            self._arm(backend)

    def _arm(self, backend: Backend) -> None:
        before = backend.sent - backend.port.backlog

        def check() -> None:
            if not backend.alive or not backend.waiting:
                backend.watched = False
            elif backend.sent - backend.port.backlog <= before:
                self._retired(f"agent {backend.agent_id!r} retired: it has taken nothing for {AGENT_STALL:g}s")
                backend.port.retire()
            else:
                self._arm(backend)

        self._schedule(AGENT_STALL, check)


def _accepted(link: Link, item: Packet | bytes | memoryview, size: int) -> None:
    if link.frontend is not None and not isinstance(item, memoryview):
        link.frontend.port.accepted(len(item.raw) + 5 if isinstance(item, Packet) else size)
