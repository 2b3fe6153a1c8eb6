"""The agents of a server, and which of them serves a dial (pkg/server/*backend_manager.go). No I/O.

A strategy that finds an agent wins over the next in the list, even if the agent drains and a later strategy had a ready one:
so upstream. Among several agents upstream picks at random; here the one with the fewest connections and dials is picked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum

from bowsprit.konnectivity.links import Backend


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
