"""Tasks that work off a queue of APIService names: a name is in one task's hands at a time, and no failure ends a task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from bowsprit.client.workqueue import ShutDown, WorkQueue

logger = logging.getLogger(__name__)


class Workers:
    """See the module's docstring.

    Args:
        queue: names; `sync` queues them again itself.
        sync: the work on one name.
        count: how many names are worked on at once.
    """

    def __init__(self, queue: WorkQueue[str], sync: Callable[[str], Awaitable[None]], count: int) -> None:
        self._queue = queue
        self._sync = sync
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        self._tasks = [
            asyncio.create_task(self._run(), name=f"aggregator-{self._queue.name}-{number}")
            for number in range(self._count)
        ]

    async def stop(self) -> None:
        """End, whatever is under way."""
        self._queue.shut_down()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                name = await self._queue.get()
            except ShutDown:
                return
            try:
                await self._sync(name)
            except Exception:
                logger.exception("%s: %s failed", self._queue.name, name)
                self._queue.add_rate_limited(name)
            finally:
                self._queue.done(name)
