"""Client connections: aiohttp's protocol with what the server wants to know about its peer, and who cares when it goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from bowsprit.apiserver.access import Connection
from bowsprit.apiserver.tls import peer_certificates
from bowsprit.machinery.codec import encode_json
from bowsprit.machinery.errors import StatusError, bad_request, internal_error

logger = logging.getLogger("bowsprit.apiserver")

IDLE_SECONDS = 90.0  # also bounds how long a client may take to send its headers
MAX_LINE_BYTES = 64 << 10  # selectors of a list are in the request line
MAX_HEADER_BYTES = 64 << 10
MAX_HEADERS = 256
LINGER_SECONDS = 2.0

Lost = Callable[[], None]
PrepareHook = Callable[["Request", web.StreamResponse], None]


class Request(web.BaseRequest):
    """A request; `prepare_hook` sees answers that handlers prepare themselves, before their head is written."""

    ATTRS = web.BaseRequest.ATTRS | frozenset({"common"})
    common: bytes = b""  # the header lines that every answer to this request has

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.popall("Server", None)
        for line in self.common.decode().split("\r\n")[:-1]:
            name, _, value = line.partition(": ")
            if name == "Warning":
                response.headers.add(name, value)
            else:
                response.headers.setdefault(name, value)


class ConnectionHandler(RequestHandler):
    """One connection."""

    def __init__(self, manager: HTTPServer, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            manager,
            loop=loop,
            access_log=cast(Any, None),
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
        )
        self._peer: Connection | None = None
        self._lost: set[Lost] = set()

    @property
    def peer(self) -> Connection:
        """Who is at the other end."""
        if self._peer is None:
            transport = self.transport
            ssl_object = transport.get_extra_info("ssl_object") if transport is not None else None
            address = transport.get_extra_info("peername") if transport is not None else None
            leaf, others = peer_certificates(ssl_object)
            self._peer = Connection(leaf, others, address[0] if isinstance(address, tuple) else str(address or ""))
        return self._peer

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What clients send is no error of ours; what we do is."""
        if isinstance(kw.get("exc_info"), HttpProcessingError):
            logger.debug(*args)
        else:
            logger.error(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP, or too much of it, is answered with a Status; the connection is closed."""
        self.log_exception("bad request from %s", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        failure = (
            _refusal(exc) if isinstance(exc, HttpProcessingError) else internal_error("the request was not understood")
        )
        answer = web.Response(
            status=failure.code, body=encode_json(failure.to_status()), content_type="application/json"
        )
        answer.force_close()
        return answer

    def on_lost(self, callback: Lost) -> None:
        """Calls back when the connection is gone."""
        if self.transport is None:
            callback()
        else:
            self._lost.add(callback)

    def off_lost(self, callback: Lost) -> None:
        self._lost.discard(callback)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        callbacks, self._lost = self._lost, set()
        for callback in callbacks:
            callback()


def _refusal(failure: HttpProcessingError) -> StatusError:
    """What a parser refuses, as a Status; beyond the limits (also the request line's, as in Go) it is a 431."""
    text = failure.message.partition("\n")[0].rstrip(": ")
    if isinstance(failure, LineTooLong) or "too many headers" in text.lower():
        return StatusError(
            f"the request's line or headers are too large: at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES >> 10} KiB are taken",
            code=431,
            reason="",
        )
    return bad_request(text or "the request is no HTTP/1.1")


class HTTPServer(web.Server):
    """The listener's protocol factory."""

    def __init__(self, handler: Callable[[Any], Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(handler, request_factory=self._request, loop=loop)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> Request:
        return Request(message, payload, protocol, writer, task, self._loop)

    def __call__(self) -> ConnectionHandler:
        return ConnectionHandler(self, self._loop)
