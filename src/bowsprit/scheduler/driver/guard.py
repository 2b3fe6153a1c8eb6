"""Plugins of users run in a thread of their own, with a deadline: one that hangs must not stop the scheduler.

A thread cannot be ended from outside. One that is overdue is abandoned: the attempt fails, a new thread takes its place,
and when the plugin comes back after all, its thread finds that out before it touches anything and ends.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, TypeVar

from bowsprit.scheduler.profile import Profile

T = TypeVar("T")
MAX_HANGING = 16  # threads that plugins may hold; beyond, attempts fail at once
_GUARDED = (
    "pre_filter", "add_pod", "remove_pod", "filter", "filter_rows", "explain", "post_filter", "pre_score", "score",
    "score_rows", "normalize", "reserve", "unreserve", "permit", "post_bind",
)  # fmt: skip


class Overdue(Exception):
    """A plugin has not answered in time; `plugin` and `method` say which."""

    def __init__(self, plugin: str, method: str, seconds: float):
        super().__init__(f'plugin "{plugin}" has not answered at {method} within {seconds:g}s')
        self.plugin, self.method = plugin, method


class Abandoned(BaseException):
    """Raised in a thread that nobody waits for any more; not an Exception, so that nothing on the way handles it."""


class _Call:
    """One piece of work and where it is."""

    def __init__(self) -> None:
        self.at: tuple[str, str] | None = None
        self._abandoned = False
        self._lock = threading.Lock()

    def abandon(self) -> None:
        with self._lock:
            self._abandoned = True

    def enter(self, plugin: str, method: str) -> None:
        with self._lock:
            if self._abandoned:
                raise Abandoned
            self.at = (plugin, method)

    def leave(self) -> None:
        with self._lock:
            if self._abandoned:
                raise Abandoned
            self.at = None


_current: ContextVar[_Call | None] = ContextVar("scheduler plugin call", default=None)


def is_foreign(plugin: Any) -> bool:
    """Whether a plugin is not one of ours."""
    return not type(plugin).__module__.startswith("bowsprit.scheduler.")


def _watched(plugin: Any, name: str) -> Callable[..., Any]:
    method = getattr(plugin, name)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        current = _current.get()
        if current is None:
            return method(*args, **kwargs)
        current.enter(plugin.name, name)
        try:
            return method(*args, **kwargs)
        finally:
            current.leave()

    return call


class Guard:
    """The thread in which cycles of profiles with foreign plugins run. `seconds` is the deadline of one piece of work."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._work: SimpleQueue[Callable[[], None] | None] | None = None
        self._hanging: dict[_Call, tuple[str, str]] = {}

    def watch(self, profile: Profile) -> bool:
        """Prepare a profile's foreign plugins; False when it has none."""
        foreign = [plugin for plugin in profile.plugins.values() if is_foreign(plugin)]
        for plugin in foreign:
            for name in _GUARDED:
                if callable(getattr(plugin, name, None)):
                    setattr(plugin, name, _watched(plugin, name))
        return bool(foreign)

    @property
    def hanging(self) -> int:
        """Threads that wait for a plugin that is overdue."""
        return len(self._hanging)

    def _thread(self) -> SimpleQueue[Callable[[], None] | None]:
        if self._work is None:
            work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
            self._work = work

            def loop() -> None:
                while (job := work.get()) is not None:
                    job()

            threading.Thread(target=loop, name="scheduler plugins", daemon=True).start()
        return self._work

    async def run(self, work: Callable[[], T]) -> T:
        """The answer of `work`. Raises Overdue when a plugin in it does not answer, and whatever `work` raises."""
        if len(self._hanging) >= MAX_HANGING:
            plugin, method = next(iter(self._hanging.values()))
            raise Overdue(plugin, method, self._seconds)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        call = _Call()

        def deliver(result: T | None, error: BaseException | None) -> None:
            self._hanging.pop(call, None)
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        def job() -> None:
            token = _current.set(call)
            result: T | None = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as exc:  # carried to the caller; Abandoned ends here, its caller has gone
                error = exc
            finally:
                _current.reset(token)
            try:
                loop.call_soon_threadsafe(deliver, result, error)
            except RuntimeError:
                return  # the loop was closed while the plugin hung

        thread = self._thread()
        thread.put(job)
        done, _ = await asyncio.wait({answer}, timeout=self._seconds)
        if done or call.at is None:
            return await answer
        where = call.at
        call.abandon()
        self._hanging[call] = where
        thread.put(None)  # should the plugin come back, its thread ends
        self._work = None
        answer.cancel()
        raise Overdue(*where, self._seconds)

    def close(self) -> None:
        """End the thread when it is done."""
        if self._work is not None:
            self._work.put(None)
            self._work = None
