"""The health and admin endpoints: a small HTTP/1.1 server for GET, with the answers of Go's mux."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from urllib.parse import parse_qs, urlsplit

log = logging.getLogger(__name__)

PLAIN = "text/plain; charset=utf-8"
_MAX_HEAD = 64 * 1024
_HEAD_TIMEOUT = 60.0
_IDLE_TIMEOUT = 180.0
_MAX_CONNECTIONS = 1024
_REASONS = {200: "OK", 301: "Moved Permanently", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error",
            503: "Service Unavailable"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Request:
    """A GET."""

    path: str
    query: Mapping[str, list[str]]
    host: str


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    body: str
    status: int = 200
    content_type: str = PLAIN
    headers: tuple[tuple[str, str], ...] = field(default=())


Handler = Callable[[Request], Page]
NOSNIFF = (("X-Content-Type-Options", "nosniff"),)
NOT_FOUND = Page("404 page not found\n", 404, headers=NOSNIFF)


def redirect(location: str) -> Page:
    """301, as net/http's Redirect writes it."""
    return Page(
        f'<a href="{location}">Moved Permanently</a>.\n\n', 301, "text/html; charset=utf-8", (("Location", location),)
    )


class PageServer:
    """Serves a table of paths; a path that ends in ``/`` serves what is below it too."""

    def __init__(self, routes: Mapping[str, Handler]) -> None:
        self._routes = dict(routes)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; answers the port. Raises OSError."""
        self._server = await asyncio.start_server(self._connected, host or None, port, limit=_MAX_HEAD)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the listener and all connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def answer(self, request: Request) -> Page:
        """The page of a request."""
        handler = self._routes.get(request.path)
        if handler is None:
            prefixes = [path for path in self._routes if path.endswith("/") and len(path) > 1]
            found = max((path for path in prefixes if request.path.startswith(path)), key=len, default=None)
            if found is None:
                return NOT_FOUND
            handler = self._routes[found]
        return handler(request)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if len(self._tasks) <= _MAX_CONNECTIONS:
                await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        except asyncio.CancelledError:
            pass  # by stop(), which nobody else waits for; asyncio before 3.12 logs a cancelled handler as a failure
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        timeout = _HEAD_TIMEOUT
        while True:
            async with asyncio.timeout(timeout):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            timeout = _IDLE_TIMEOUT
            line, *rest = head.split("\r\n")
            method, target, version = line.split(" ")
            headers = {name.strip().lower(): value.strip() for name, _, value in (row.partition(":") for row in rest)}
            parts = urlsplit(target)
            request = Request(parts.path, parse_qs(parts.query, keep_blank_values=True), headers.get("host", ""))
            try:
                page = self.answer(request)
            except Exception as exc:
                log.exception("page %s failed", parts.path)
                page = Page(f"{type(exc).__name__}\n", 500)
            if page.status == 301 and method not in ("GET", "HEAD"):
                page = replace(page, body="", content_type="")  # so http.Redirect
            close = (
                version == "HTTP/1.0"
                or headers.get("connection", "").lower() == "close"
                or method not in ("GET", "HEAD")
            )
            body = page.body.encode()
            fields = [("Content-Type", page.content_type)] if page.content_type else []
            fields += [*page.headers, ("Date", formatdate(usegmt=True))]
            fields += [("Content-Length", str(len(body)))] + ([("Connection", "close")] if close else [])
            block = "".join(f"{name}: {value}\r\n" for name, value in fields)
            writer.write(f"HTTP/1.1 {page.status} {_REASONS[page.status]}\r\n{block}\r\n".encode("latin-1"))
            if method != "HEAD":
                writer.write(body)
            await writer.drain()
            if close:
                return
