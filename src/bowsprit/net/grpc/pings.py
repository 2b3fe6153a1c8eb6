"""Grpc-go's keepalive enforcement: a client's pings that come too often are strikes, the third ends the connection."""

from __future__ import annotations

from collections.abc import Callable

from bowsprit.net.grpc.limits import Options

_MAX_STRIKES = 2  # grpc-go's maxPingStrikes
_IDLE_INTERVAL = 7200.0  # grpc-go: without streams and without permission, two hours


class PingPolice:
    """Judges the pings of one client.

    ``allowed``: the client has announced that it probes us. ``excused``: we have sent something since its last ping; grpc-go
    pings for what it receives, once a round trip, to measure.
    """

    def __init__(self, options: Options, clock: Callable[[], float]) -> None:
        self.allowed = False
        self.excused = False
        self._options = options
        self._clock = clock
        self._last = float("-inf")
        self._strikes = 0

    def tolerates(self, *, idle: bool) -> bool:
        """Whether the ping that has just come is still in order. ``idle``: there are no streams."""
        excused, self.excused = self.excused, False
        if self.allowed:
            return True
        now = self._clock()
        floor = self._options.min_ping_interval
        if idle and not self._options.ping_without_stream:
            floor = _IDLE_INTERVAL
        early = now - self._last < floor
        self._last = now
        if excused:
            self._strikes = 0
        elif early:
            self._strikes += 1
        return self._strikes <= _MAX_STRIKES
