"""What a server knows of its agents (backends), its clients (frontends), dials, and the connections between both (links)."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import Protocol

from bowsprit.konnectivity.identifiers import Identifiers
from bowsprit.konnectivity.stalls import Cancellable
from bowsprit.net.egress.packets import Packet

HIGH_WATER = 1024 * 1024  # how much may wait for an agent before its connections wait too


class DialFailure(Enum):
    """Why a dial failed: the label of ``dial_failure_count``."""

    NO_AGENT = "no_agent"
    ERROR_RESPONSE = "error_response"
    UNRECOGNIZED_RESPONSE = "unrecognized_response"
    SEND_RESPONSE = "send_rsp"
    BACKEND_CLOSE = "backend_close"
    BACKEND_DIAL_TIMEOUT = "backend_dial_timeout"
    FRONTEND_CLOSE = "frontend_close"


class AgentPort(Protocol):
    """The way to one agent. Nothing is lost in it; ``backlog`` says how much has not left yet."""

    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""

    def send(self, packet: Packet) -> None:
        """Send a packet."""

    def send_data(self, connect_id: int, data: bytes | memoryview) -> None:
        """Send DATA; the bytes are copied before the call returns."""

    def hold(self, on: bool) -> None:
        """Stop, or go on, acknowledging what the agent sends."""

    def retire(self) -> None:
        """Drop the agent: it does not take what we send, and would not notice a gentler end."""


class Backend:
    """One agent stream."""

    __slots__ = (
        "agent_id", "alive", "connected_at", "dials", "drain_order", "identifiers", "links", "peer_window",
        "port", "received", "sent", "waiting", "watched",
    )  # fmt: skip

    def __init__(
        self, port: AgentPort, agent_id: str, identifiers: Identifiers, now: float, peer_window: int | None = None
    ) -> None:
        self.port = port
        self.agent_id = agent_id
        self.identifiers = identifiers
        self.connected_at = now
        self.peer_window = peer_window  # credit per connection that the agent starts us with; None: a plain agent
        self.alive = True
        self.drain_order = 0  # 0: not draining; the later it began, the higher
        self.links: dict[int, Link] = {}
        self.dials: set[Dial] = set()
        self.waiting: dict[Link, None] = {}  # links with data for this agent, in turn
        self.watched = False  # data waits for this agent: a timer decides whether it has stopped taking any
        self.sent = 0
        self.received = 0

    @property
    def draining(self) -> bool:
        """Whether it has asked for no more dials."""
        return self.drain_order > 0

    @property
    def extended(self) -> bool:
        """Whether the agent speaks WINDOW and EOF."""
        return self.peer_window is not None

    @property
    def load(self) -> tuple[bool, int]:
        """What it has to do: whether it is behind with its data, and how many connections and dials it has."""
        return self.port.backlog > HIGH_WATER, len(self.links) + len(self.dials)


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
