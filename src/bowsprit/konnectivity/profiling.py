"""``/debug/pprof/`` with what Python has: a CPU profile, and the tasks of the event loop."""

from __future__ import annotations

import asyncio
import cProfile
import io
import pstats
import time
from collections.abc import Mapping

from bowsprit.konnectivity.pages import NOSNIFF, Handler, Page, Request, redirect

_INDEX = (
    "<html><head><title>/debug/pprof/</title></head><body><p>Profiles:</p><ul>"
    '<li><a href="profile?seconds=5">profile</a> (a second request with the same URL shows the result)</li>'
    '<li><a href="goroutine">goroutine</a> (asyncio tasks)</li></ul></body></html>'
)


class Profiling:
    """The profile endpoints. Not a pprof file: text that people read."""

    def __init__(self) -> None:
        self._profile: cProfile.Profile | None = None
        self._until = 0.0

    def routes(self) -> Mapping[str, Handler]:
        """For a PageServer."""
        return {
            "/debug/pprof": lambda request: redirect("/debug/pprof/"),
            "/debug/pprof/": self._below,
            "/debug/pprof/symbol": lambda request: Page("num_symbols: 1\n", headers=NOSNIFF),
            "/debug/pprof/profile": self._cpu,
            "/debug/pprof/trace": self._tasks,
        }

    def _below(self, request: Request) -> Page:
        if request.path == "/debug/pprof/":
            return Page(_INDEX, content_type="text/html; charset=utf-8", headers=NOSNIFF)
        if request.path == "/debug/pprof/goroutine":
            return self._tasks(request)
        return Page("Unknown profile\n", 404, headers=NOSNIFF)

    def _tasks(self, request: Request) -> Page:
        out = io.StringIO()
        for task in asyncio.all_tasks():
            out.write(f"task {task.get_name()}\n")
            task.print_stack(file=out)
        return Page(out.getvalue(), headers=NOSNIFF)

    def _cpu(self, request: Request) -> Page:
        now = time.monotonic()
        if self._profile is None:
            try:
                seconds = min(60.0, float(request.query.get("seconds", ["5"])[0]))
            except ValueError:
                return Page("seconds must be a number\n", 500, headers=NOSNIFF)
            self._profile = cProfile.Profile()
            self._profile.enable()
            self._until = now + seconds
            return Page(f"profiling for {seconds}s; ask again after that\n", headers=NOSNIFF)
        if now < self._until:
            return Page(f"profiling for another {self._until - now:.1f}s\n", headers=NOSNIFF)
        profile, self._profile = self._profile, None
        profile.disable()
        out = io.StringIO()
        pstats.Stats(profile, stream=out).sort_stats("cumulative").print_stats(60)
        return Page(out.getvalue(), headers=NOSNIFF)
