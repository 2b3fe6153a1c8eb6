"""A token bucket (client-go flowcontrol.NewTokenBucketRateLimiter)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class TokenBucket:
    """Lets ``burst`` calls through at once and ``qps`` per second after that; the others wait their turn in order."""

    def __init__(
        self,
        qps: float,
        burst: int,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._qps = qps
        self._burst = max(1, burst)
        self._clock = clock
        self._sleep = sleep
        self._tokens = float(self._burst)
        self._updated = clock()

    def reserve(self) -> float:
        """Take one token now, on credit if need be; answers the seconds to wait before acting."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._updated) * self._qps) - 1
        self._updated = now
        return max(0.0, -self._tokens / self._qps)

    def try_take(self) -> bool:
        """Take a token if there is one."""
        if self.reserve() == 0:
            return True
        self._tokens += 1
        return False

    async def acquire(self) -> None:
        """Wait until a call is allowed; without a rate (``qps`` <= 0) return at once."""
        if self._qps > 0 and (delay := self.reserve()) > 0:
            await self._sleep(delay)
