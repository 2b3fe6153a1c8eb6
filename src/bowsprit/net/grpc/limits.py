"""What one side allows the other, and token buckets against floods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Bounds and timings of one HTTP/2 connection; sizes are bytes, times seconds.

    Args:
        stream_window: how much the peer may send on a stream before we acknowledge.
        connection_window: the same for the connection; acknowledged at once, streams hold the back-pressure.
        max_frame: the largest frame we accept; the cost of receiving is per frame, so it is large.
        max_message: the largest message we accept (grpc-go's default is 4 MiB).
        max_headers: the largest header list we accept.
        max_streams: how many streams a client may have open.
        keepalive_time: idle time after which we ping; 0 never pings.
        keepalive_timeout: how long the answer to a ping may take.
        min_ping_interval: pings more frequent than this end in GOAWAY ``too_many_pings`` (grpc-go's enforcement policy).
        ping_without_stream: whether idle connections may ping.
        high_water: bytes that may wait in the transport before sending stops.
    """

    stream_window: int = 1 * MIB
    connection_window: int = 64 * MIB
    max_frame: int = 1 * MIB
    max_message: int = 4 * MIB
    max_headers: int = 64 * KIB
    max_streams: int = 16_384
    keepalive_time: float = 0.0
    keepalive_timeout: float = 20.0
    min_ping_interval: float = 300.0
    ping_without_stream: bool = False
    high_water: int = 512 * KIB


class Budget:
    """A token bucket: ``burst`` events at once, ``rate`` per second for ever."""

    __slots__ = ("_burst", "_clock", "_rate", "_since", "_tokens")

    def __init__(self, burst: int, rate: float, clock: Callable[[], float]) -> None:
        self._burst = float(burst)
        self._rate = rate
        self._clock = clock
        self._tokens = float(burst)
        self._since = clock()

    def spend(self) -> bool:
        """Take one token; False when there is none."""
        if self._tokens < 1.0:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._since) * self._rate)
            self._since = now
            if self._tokens < 1.0:
                return False
        self._tokens -= 1.0
        return True
