"""The health endpoint of a component: /healthz, /livez and /readyz over HTTPS, open to all as upstream's are."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping

from aiohttp import web

Check = Callable[[], str | None]
"""Answers None, or what is wrong."""


def report(checks: Mapping[str, Check], *, verbose: bool, exclude: set[str], path: str) -> tuple[int, str]:
    """Status code and body, in the form of every Kubernetes component."""
    lines = []
    failed = False
    for name, check in checks.items():
        if name in exclude:
            lines.append(f"[+]{name} excluded: ok")
        elif check() is None:
            lines.append(f"[+]{name} ok")
        else:
            failed = True
            lines.append(f"[-]{name} failed: reason withheld")
    if failed:
        return 500, "\n".join([*lines, f"{path} check failed", ""])
    if verbose:
        return 200, "\n".join([*lines, f"{path} check passed", ""])
    return 200, "ok"


class HealthServer:
    """Serves the checks until it is closed."""

    def __init__(self, checks: Mapping[str, Check], context: ssl.SSLContext | None) -> None:
        self._checks = checks
        self._context = context
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; answers the port (of use when 0 was asked for)."""
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=self._context).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        root, _, single = request.path.lstrip("/").partition("/")
        if root not in ("healthz", "livez", "readyz"):
            return web.Response(status=404, text="404 page not found\n")
        checks = self._checks
        if single:
            if single not in checks:
                return web.Response(status=404, text="404 page not found\n")
            checks = {single: checks[single]}
        exclude = set(request.query.getall("exclude", []))
        code, text = report(checks, verbose="verbose" in request.query, exclude=exclude, path=root)
        return web.Response(status=code, text=text, headers={"X-Content-Type-Options": "nosniff"})
