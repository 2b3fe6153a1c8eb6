"""What a server knows of a dial, a frontend, and a connection between a frontend and an agent (a link)."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from bowsprit.net.egress.packets import Packet

if TYPE_CHECKING:
    from bowsprit.konnectivity.backends import Backend


class DialFailure(Enum):
    """Why a dial failed: the label of ``dial_failure_count``."""

    NO_AGENT = "no_agent"
    ERROR_RESPONSE = "error_response"
    UNRECOGNIZED_RESPONSE = "unrecognized_response"
    SEND_RESPONSE = "send_rsp"
    BACKEND_CLOSE = "backend_close"
    BACKEND_DIAL_TIMEOUT = "backend_dial_timeout"
    FRONTEND_CLOSE = "frontend_close"


class FrontendPort(Protocol):
    """The way to one client. Whatever form the client speaks, it must tell the router what has left (``delivered``)."""

    @property
    def half_close(self) -> bool:
        """Whether the client can be told the end of one direction."""

    @property
    def backlog(self) -> int:
        """Bytes given to ``deliver`` that the client has not taken yet."""

    def established(self, packet: Packet) -> None:
        """The dial succeeded."""

    def refused(self, failure: DialFailure, packet: Packet) -> None:
        """The dial failed: ``packet`` is the DIAL_RSP that says so."""

    def deliver(self, link: Link, packet: Packet) -> None:
        """DATA for the client; calls ``router.delivered(link, size)`` when it has left, now or later."""

    def send(self, packet: Packet) -> None:
        """Another packet for the client."""

    def end_of_data(self) -> None:
        """No more DATA comes; what the client sends is still wanted. Only with ``half_close``."""

    def closed(self, packet: Packet) -> None:
        """The connection is over (CLOSE_RSP); what was delivered still reaches the client."""

    def accepted(self, size: int) -> None:
        """``size`` bytes of the client's messages have gone on: it may send as much again."""


class Frontend:
    """One client: a Proxy stream, or an HTTP CONNECT connection."""

    __slots__ = ("backend", "dials", "first_id", "links", "port", "stopped", "tunnel")

    def __init__(self, port: FrontendPort, *, tunnel: bool = False) -> None:
        self.port = port
        self.tunnel = tunnel  # HTTP CONNECT: one dial, bytes instead of packets
        self.backend: Backend | None = None
        self.first_id = 0
        self.stopped = False  # whatever else it sends is discarded
        self.dials: set[Dial] = set()
        self.links: dict[int, Link] = {}


class Dial:
    """A DIAL_REQ without its answer."""

    __slots__ = ("address", "backend", "expire", "frontend", "random", "started")

    def __init__(self, frontend: Frontend, backend: Backend, random: int, address: str, started: float) -> None:
        self.frontend = frontend
        self.backend = backend
        self.random = random
        self.address = address
        self.started = started
        self.expire: Cancellable | None = None


class Cancellable(Protocol):
    """A timer."""

    def cancel(self) -> None:
        """Forget it."""


class Link:
    """An established connection.

    ``frontend`` is None when the client is gone and the rest of its data still flows to the agent.
    """

    __slots__ = (
        "address",
        "backend",
        "closing",
        "connect_id",
        "credit",
        "delivered",
        "eof_from_agent",
        "eof_from_client",
        "established_at",
        "frontend",
        "grant",
        "queue",
        "queued",
        "tunnel",
        "undelivered",
        "watched",
    )  # fmt: skip

    def __init__(self, dial: Dial, connect_id: int, now: float) -> None:
        self.frontend: Frontend | None = dial.frontend
        self.tunnel = dial.frontend.tunnel
        self.backend = dial.backend
        self.connect_id = connect_id
        self.address = dial.address
        self.established_at = now
        self.credit = dial.backend.peer_window  # what the agent still takes; None: no limit known
        self.queue: deque[Packet | bytes] = deque()  # for the agent
        self.queued = 0
        self.undelivered = 0  # from the agent, not yet left for the client
        self.delivered = 0  # given to the client's port since the beginning
        self.grant = 0  # left for the client, not yet granted to the agent
        self.closing = False  # CLOSE_REQ follows the queue, or has been sent
        self.eof_from_client = False
        self.eof_from_agent = False
        self.watched = False  # too much undelivered: a timer decides whether the client has stopped reading
