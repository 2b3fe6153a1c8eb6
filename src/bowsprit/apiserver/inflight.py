"""Requests in flight: counted by sort, refused beyond the limits (upstream WithMaxInFlightLimit)."""

from __future__ import annotations

import asyncio

from bowsprit.apiserver.request import RequestInfo
from bowsprit.apiserver.user import SYSTEM_PRIVILEGED_GROUP, UserInfo
from bowsprit.machinery.errors import too_many_requests

LONG_RUNNING_VERBS = frozenset({"watch", "proxy"})
LONG_RUNNING_SUBRESOURCES = frozenset({"attach", "exec", "proxy", "log", "portforward"})
_READ_VERBS = frozenset({"get", "list", "watch"})
RETRY_AFTER_SECONDS = 1


class InFlight:
    """The counters: `read` and `write` requests are limited, `long` ones are not."""

    def __init__(self, max_reads: int, max_writes: int) -> None:
        self._limits = {"read": max_reads, "write": max_writes}
        self.counts = {"read": 0, "write": 0, "long": 0}
        self.peaks = {"read": 0, "write": 0}
        self.refused = 0
        self.long_running_subresources = set(LONG_RUNNING_SUBRESOURCES)
        self._idle: asyncio.Event | None = None

    def sort_of(self, info: RequestInfo, method: str) -> str:
        """ "read", "write" or "long"."""
        if info.is_resource:
            if info.verb in LONG_RUNNING_VERBS or info.subresource in self.long_running_subresources:
                return "long"
            return "read" if info.verb in _READ_VERBS else "write"
        return "read" if method in ("GET", "HEAD", "OPTIONS") else "write"

    def enter(self, sort: str, user: UserInfo) -> None:
        """Raises 429 when too many are under way already; system:masters are never refused."""
        count = self.counts[sort] + 1
        limit = self._limits.get(sort, 0)
        if limit and count > limit and SYSTEM_PRIVILEGED_GROUP not in user.groups:
            self.refused += 1
            raise too_many_requests("Too many requests, please try again later.", RETRY_AFTER_SECONDS)
        self.counts[sort] = count
        if sort in self.peaks and count > self.peaks[sort]:
            self.peaks[sort] = count

    def leave(self, sort: str) -> None:
        self.counts[sort] -= 1
        if self._idle is not None and not self.counts["read"] and not self.counts["write"]:
            self._idle.set()

    async def drained(self) -> None:
        """Waits until no limited request is under way."""
        if self.counts["read"] or self.counts["write"]:
            self._idle = asyncio.Event()
            await self._idle.wait()
