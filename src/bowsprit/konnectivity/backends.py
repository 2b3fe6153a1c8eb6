"""The agents of a server, and which of them serves a dial (pkg/server/*backend_manager.go). No I/O.

A strategy that finds an agent wins over the next in the list, even if the agent drains and a later strategy had a ready one:
so upstream. Among several agents upstream picks at random; here the one with the fewest connections and dials is picked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from bowsprit.konnectivity.identifiers import Identifiers
from bowsprit.net.egress.packets import Packet

if TYPE_CHECKING:
    from bowsprit.konnectivity.links import Dial, Link


HIGH_WATER = 1024 * 1024  # how much may wait for an agent before its connections wait too


class Strategy(Enum):
    """How the agent for a dial is found."""

    DEFAULT = "default"
    DEST_HOST = "destHost"
    DEFAULT_ROUTE = "defaultRoute"


def parse_strategies(text: str) -> list[Strategy]:
    """The flag's comma list. Raises ValueError with upstream's text."""
    if not text:
        raise ValueError("proxy strategies cannot be empty")
    result = []
    for name in text.split(","):
        if not name:
            continue
        try:
            result.append(Strategy(name))
        except ValueError:
            raise ValueError(f"unknown proxy strategy: {name}") from None
    if not result:
        raise ValueError("proxy strategies cannot be empty")
    return result


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
        "agent_id", "alive", "connected_at", "dials", "drain_order", "held", "identifiers", "links", "peer_window",
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
        self.held: set[Link] = set()  # links that do not take what this agent sends
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


class Backends:
    """All agent streams, by agent; for one agent the first stream counts, later ones are duplicates about to go."""

    def __init__(self, strategies: Sequence[Strategy], choose: Callable[[Sequence[Backend]], Backend]) -> None:
        self.strategies = tuple(strategies)
        self._choose = choose
        self._drains = 0
        self._by_agent: dict[str, list[Backend]] = {}
        self._by_host: dict[str, list[Backend]] = {}
        self._by_route: dict[str, list[Backend]] = {}

    def add(self, backend: Backend) -> None:
        """An agent is ready to serve."""
        for index, keys in self._indexes(backend):
            for key in keys:
                index.setdefault(key, []).append(backend)

    def drain(self, backend: Backend) -> None:
        """It wants no more dials; it is asked only if all others drain too."""
        if not backend.draining:
            self._drains += 1
            backend.drain_order = self._drains

    def remove(self, backend: Backend) -> None:
        """It is gone."""
        for index, keys in self._indexes(backend):
            for key in set(keys):
                remaining = [other for other in index.get(key, ()) if other is not backend]
                if remaining:
                    index[key] = remaining
                else:
                    index.pop(key, None)

    def _indexes(self, backend: Backend) -> Iterable[tuple[dict[str, list[Backend]], Sequence[str]]]:
        yield self._by_agent, (backend.agent_id,)
        yield self._by_host, backend.identifiers.destinations
        if backend.identifiers.default_route:
            yield self._by_route, (backend.agent_id,)

    def pick(self, address: str) -> Backend | None:
        """The agent for a dial to ``address``, by the strategies in turn."""
        for strategy in self.strategies:
            if strategy is Strategy.DEST_HOST:
                found = self._by_host.get(host_of(address), [])
                picked = next((backend for backend in found if not backend.draining), found[0] if found else None)
            else:
                picked = self._least_loaded(self._by_agent if strategy is Strategy.DEFAULT else self._by_route)
            if picked is not None:
                return picked
        return None

    def _least_loaded(self, index: dict[str, list[Backend]]) -> Backend | None:
        first = [next((b for b in streams if not b.draining), streams[0]) for streams in index.values()]
        if not first:
            return None
        candidates = [backend for backend in first if not backend.draining]
        if not candidates:
            return max(first, key=lambda backend: backend.drain_order)  # it will live longest
        least = min(backend.load for backend in candidates)
        return self._choose([backend for backend in candidates if backend.load == least])

    def count(self, strategy: Strategy) -> int:
        """What ``ready_backends`` shows: agents, or identifiers for ``destHost``."""
        if strategy is Strategy.DEST_HOST:
            return len(self._by_host)
        return len(self._by_agent if strategy is Strategy.DEFAULT else self._by_route)

    @property
    def ready(self) -> bool:
        """Whether any strategy has an agent (upstream looks at the first strategy only)."""
        return any(self.count(strategy) for strategy in self.strategies)

    def all(self) -> list[Backend]:
        """Every stream."""
        return [backend for streams in self._by_agent.values() for backend in streams]

    def __len__(self) -> int:
        return len(self._by_agent)


def host_of(address: str) -> str:
    """The host that ``destHost`` compares (pkg/util RemovePortFromHost)."""
    if address.count(":") < 2:
        return address.split(":", 1)[0]
    if "[" in address:
        address = address[: address.rindex(":")]
    return address.strip("[]")
