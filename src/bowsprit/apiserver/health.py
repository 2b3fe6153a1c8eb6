"""/livez, /readyz, /healthz and a path per check (upstream server/healthz)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from bowsprit.apiserver.answer import NOSNIFF, TEXT, Answer, not_found_answer, text_answer
from bowsprit.apiserver.request import RequestContext

logger = logging.getLogger("bowsprit.apiserver")

CHECK_SECONDS = 2.0
ENDPOINTS = ("livez", "readyz", "healthz")

Check = Callable[[], Awaitable[None]]  # raises when failed


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    check: Check
    endpoints: frozenset[str]


class Health:
    """The named checks in the order in which they were added, `ping` first and, for readyz, `shutdown` last."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._checks: list[_Named] = []
        self._completed: set[str] = set()
        self.shutting_down = False
        self.add("ping", _nothing)
        self.add("log", _nothing)

    def add(self, name: str, check: Check, *, livez: bool = True, readyz: bool = True, healthz: bool = True) -> None:
        """Adds or replaces a check; it may take two seconds."""
        endpoints = frozenset(
            endpoint for endpoint, wanted in (("livez", livez), ("readyz", readyz), ("healthz", healthz)) if wanted
        )
        named = _Named(name, check, endpoints)
        for position, present in enumerate(self._checks):
            if present.name == name:
                self._checks[position] = named
                return
        self._checks.append(named)

    def remove(self, name: str) -> None:
        """Takes a check away."""
        self._checks = [each for each in self._checks if each.name != name]

    def add_post_start_hook(self, name: str, *, livez: bool = True) -> Callable[[], None]:
        """Adds the check `poststarthook/<name>`, which fails until the returned callable has been called."""

        async def check() -> None:
            if name not in self._completed:
                raise RuntimeError("not finished")

        self.add(f"poststarthook/{name}", check, livez=livez)
        return lambda: self._completed.add(name)

    def checks(self, endpoint: str) -> list[tuple[str, Check]]:
        named = [(each.name, each.check) for each in self._checks if endpoint in each.endpoints]
        if endpoint == "readyz":
            named.append(("shutdown", self._not_shutting_down))
        return named

    def paths(self) -> list[str]:
        """Every path that is served."""
        return [
            path
            for endpoint in ENDPOINTS
            for path in (f"/{endpoint}", *(f"/{endpoint}/{name}" for name, _ in self.checks(endpoint)))
        ]

    async def _not_shutting_down(self) -> None:
        if self.shutting_down:
            raise RuntimeError("process is shutting down")

    async def serve(self, ctx: RequestContext, request: web.BaseRequest) -> Answer:
        """Answers /<endpoint> and /<endpoint>/<check>."""
        endpoint, slash, name = ctx.info.path[1:].partition("/")
        checks = self.checks(endpoint)
        if slash:
            for each, check in checks:
                if each == name:
                    return await self._serve_one(check)
            return not_found_answer()
        return await self._serve_all(ctx, endpoint, checks)

    async def _serve_one(self, check: Check) -> Answer:
        problem = await _run(check)
        if problem:
            return text_answer(500, f"internal server error: {problem}\n")
        return Answer(200, b"ok", TEXT)

    async def _serve_all(self, ctx: RequestContext, endpoint: str, checks: list[tuple[str, Check]]) -> Answer:
        query = ctx.query
        excluded = set(query.getall("exclude", [])) if query and hasattr(query, "getall") else set()
        unknown = sorted(excluded - {name for name, _ in checks})
        lines = []
        failed = False
        for name, check in checks:
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok\n")
                continue
            problem = await _run(check)
            if problem:
                failed = True
                logger.warning("%s check %s failed: %s", endpoint, name, problem)
                lines.append(f"[-]{name} failed: reason withheld\n")
            else:
                lines.append(f"[+]{name} ok\n")
        if unknown:
            quoted = " ".join(f'"{name}"' for name in unknown)
            lines.append(f"warn: some health checks cannot be excluded: no matches for {quoted}\n")
        if failed:
            return text_answer(500, "".join(lines) + f"{endpoint} check failed\n")
        if query and "verbose" in query:
            return Answer(200, ("".join(lines) + f"{endpoint} check passed\n").encode(), TEXT, (NOSNIFF,))
        return Answer(200, b"ok", TEXT, (NOSNIFF,))


async def _run(check: Check) -> str:
    """What is wrong, "" if nothing."""
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except TimeoutError:
        return "context deadline exceeded"
    except Exception as failure:
        return str(failure) or type(failure).__name__
    return ""


async def _nothing() -> None:
    return None
