"""Passing a request on to an extension API server, on behalf of the user who sent it, and the answer back as it comes.

Upstream: kube-aggregator pkg/apiserver/handler_proxy.go. Failures are plain text, as upstream's. The bytes of an answer's body
go from the backend's connection to the client's within one turn of the event loop; a client that reads slowly stops the backend.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from bowsprit.aggregator.backend import Backend, Gunzip, request_bytes
from bowsprit.aggregator.connection import BackendError, Connection
from bowsprit.aggregator.framing import Head
from bowsprit.aggregator.identity import passed_fields, target_of
from bowsprit.aggregator.upgrade import forward_upgrade, wants_upgrade
from bowsprit.apiserver.answer import Answer, Sent, chunk, date_header, status_line, text_answer
from bowsprit.net.dial import join_host_port

if TYPE_CHECKING:
    from aiohttp import web

    from bowsprit.apiserver.connection import ConnectionHandler
    from bowsprit.apiserver.request import RequestContext

DISCOVERY_SECONDS = 5.0
REDIRECTED = "the backend attempted to redirect this request, which is not permitted"
UNAVAILABLE = "service unavailable\n"
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_NOT_BACK = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te"}
    | {b"trailer", b"transfer-encoding", b"upgrade", b"content-length"}
    | {b"access-control-allow-credentials", b"access-control-allow-headers"}
    | {b"access-control-allow-methods", b"access-control-allow-origin"}
)


async def forward(
    backend: Backend, ctx: RequestContext, request: web.BaseRequest, *, seconds: float, long_running: bool
) -> Answer | Sent:
    """The backend's answer, or why there is none.

    Args:
        seconds: the limit of requests that are not long-running.
        long_running: whether this one is.

    Raises:
        TimeoutError: the limit has passed.
    """
    if not backend.available:
        return text_answer(503, UNAVAILABLE)
    if backend.pool is None:
        return text_answer(500, f"{backend.failure}\n")
    try:
        address = await backend.address()
    except LookupError:
        return text_answer(503, UNAVAILABLE)
    if wants_upgrade(request):
        return await forward_upgrade(backend, address, ctx, request)
    info = ctx.info
    limit: float | None = seconds
    discovery = not info.is_resource and len(info.path.strip("/").split("/")) == 3
    if discovery:
        # Clients ask every server for it: one that is slow must not hold them up.
        limit = min(seconds, DISCOVERY_SECONDS)
    elif long_running:
        limit = None
    relay = Relay(request)
    try:
        async with asyncio.timeout(limit):
            await _pass(backend, address, ctx, request, relay)
        return relay.sent()
    except TimeoutError:
        relay.abort()
        if relay.begun:
            return relay.sent()
        if discovery:
            return text_answer(503, "error trying to reach service: context deadline exceeded\n")
        raise
    except BackendError as failure:
        if relay.begun:
            relay.abort()
            return relay.sent()
        if relay.redirected:
            return text_answer(502, REDIRECTED, ())
        return text_answer(503, f"error trying to reach service: {failure}\n")
    finally:
        relay.leave()


async def _pass(
    backend: Backend, address: tuple[str, int], ctx: RequestContext, request: web.BaseRequest, relay: Relay
) -> None:
    assert backend.pool is not None
    path, query = target_of(request)
    fields = passed_fields(ctx, request, join_host_port(*address), path)
    body, streamed = _body_at_hand(request)
    if streamed:
        length = request.content_length
        fields.append(("Content-Length", str(length)) if length is not None else ("Transfer-Encoding", "chunked"))
    elif body or request.method in ("POST", "PUT", "PATCH"):
        fields.append(("Content-Length", str(len(body))))
    message = request_bytes(request.method, f"{path}?{query}" if query else path, fields, body)
    fresh = streamed
    while True:
        connection = await backend.pool.acquire(*address, fresh=fresh)
        reused = connection.used
        try:
            await relay.carry(connection, message, request if streamed else None)
            return
        except BackendError as failure:
            # As Go: the server may have closed an idle connection just when it was used again.
            if not (reused and failure.unanswered and request.method in _IDEMPOTENT and not body):
                raise
            fresh = True


def _body_at_hand(request: web.BaseRequest) -> tuple[bytes, bool]:
    """(the body, False) when it has come already, else (b"", True): it is passed on as it comes."""
    if not request.body_exists:
        return b"", False
    if request.content.is_eof():
        return request.content.read_nowait(-1), False
    return b"", True


class Relay:
    """An answer on its way from a connection to the client."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._client = cast("ConnectionHandler", request.protocol)
        self._connection: Connection | None = None
        self._wake: asyncio.Future[None] | None = None
        self._over = False
        self._error: BackendError | None = None
        self._pending = b""
        self._gunzip: Gunzip | None = None
        self._chunking = False  # the client gets chunks that we make
        self._raw = False  # the client gets the backend's chunks
        self._keep_alive = request.keep_alive
        self._finished = False
        self._status = 0
        self._bytes = 0
        self.begun = False
        self.redirected = False
        self._client.on_lost(self._client_lost)

    def leave(self) -> None:
        """The request is over."""
        self._client.off_lost(self._client_lost)

    def sent(self) -> Sent:
        """What was sent."""
        return Sent(self._status or 499, self._bytes, keep_alive=self._keep_alive and self._finished)

    def abort(self) -> None:
        """Give up; a client that has had a part of the answer sees its connection break."""
        if self._connection is not None:
            self._connection.abort()
        if self.begun and not self._finished and self._client.transport is not None:
            self._client.transport.abort()

    async def carry(self, connection: Connection, message: bytes, body_of: web.BaseRequest | None) -> None:
        """Send the request and see the answer through. Raises BackendError."""
        self._connection = connection
        self._over, self._error = False, None
        connection.begin(self, message, bodiless=self._request.method == "HEAD")
        sender = asyncio.ensure_future(_send_body(body_of, connection)) if body_of is not None else None
        loop = asyncio.get_running_loop()
        try:
            while not self._over:
                self._wake = loop.create_future()
                await self._wake
                if not self._over and connection.held:
                    await self._client._drain_helper()
                    if not self._over:  # else somebody else may have the connection
                        connection.proceed()
        except ConnectionError:
            connection.abort()
        finally:
            self._wake = None
            if sender is not None:
                if not sender.done():
                    connection.abort()  # the answer came before the question's end: what is left cannot be told apart
                sender.cancel()
                await asyncio.gather(sender, return_exceptions=True)
            if not self._over:
                connection.abort()
        if self._error is not None:
            raise self._error

    def _stir(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _client_lost(self) -> None:
        if self._connection is not None:
            self._connection.abort()
        self._over = True
        self._stir()

    # -- Exchange --------------------------------------------------------------------------------------------------------

    @property
    def wants_payload(self) -> bool:
        return self._gunzip is not None or self._chunking

    def on_head(self, head: Head, *, more: bool) -> None:
        if head.status == 101:
            self._give_up(BackendError("unexpected upgrade"))
            return
        if 300 <= head.status < 400 and head.get(b"location"):
            self.redirected = True
            self._give_up(BackendError(REDIRECTED))
            return
        request = self._request
        asked = "Accept-Encoding" in request.headers or "Range" in request.headers or request.method == "HEAD"
        if not asked and head.get(b"content-encoding").lower() == b"gzip":
            self._gunzip = Gunzip()  # we asked for it, the client did not
        self._status = head.status
        self._pending = self._head_bytes(head)
        self.begun = True
        if not more:
            self._write(b"")

    def _head_bytes(self, head: Head) -> bytes:
        request = self._request
        parts = [status_line(head.status), getattr(request, "common", b"")]
        dated = False
        connection = head.get(b"connection")
        named = {word.strip() for word in connection.lower().split(b",")} if connection else ()
        for lower, name, value in head.fields:
            if lower in _NOT_BACK or lower in named:
                continue
            if lower == b"content-encoding" and self._gunzip is not None:
                continue
            dated = dated or lower == b"date"
            parts += (name, b": ", value, b"\r\n")
        if not dated:
            parts.append(date_header())
        modern = request.version >= (1, 1)
        if head.length is not None and (request.method == "HEAD" or self._gunzip is None):
            length = head.get(b"content-length")
            if request.method != "HEAD" and head.status not in (204, 304):
                parts.append(b"Content-Length: %d\r\n" % head.length)
            elif length:
                parts.append(b"Content-Length: %b\r\n" % length)
        elif modern:
            self._raw = head.chunked and self._gunzip is None
            self._chunking = not self._raw
            parts.append(b"Transfer-Encoding: chunked\r\n")
        else:
            self._keep_alive = False  # the body ends with the connection
        if not self._keep_alive:
            parts.append(b"Connection: close\r\n")
        parts.append(b"\r\n")
        return b"".join(parts)

    def on_data(self, wire: bytes, payload: list[bytes]) -> None:
        if self._raw:
            self._write(wire)
            return
        if self._gunzip is not None:
            try:
                content = self._gunzip.feed(payload)
            except BackendError as failure:
                self._give_up(failure)
                return
        else:
            content = b"".join(payload) if len(payload) != 1 else payload[0]
        self._write(chunk(content) if self._chunking and content else content)

    def on_end(self, error: BackendError | None) -> None:
        self._over = True
        self._error = error
        if error is None and not self._finished:
            self._finished = True
            self._write(b"0\r\n\r\n" if self._chunking else b"")
        self._stir()

    def _write(self, data: bytes) -> None:
        transport = self._client.transport
        if transport is None:
            self._client_lost()
            return
        if self._pending:
            data, self._pending = self._pending + data, b""
        if data:
            self._bytes += len(data)
            transport.write(data)
            if self._client.writing_paused and not self._over:
                if self._connection is not None:
                    self._connection.hold()
                self._stir()

    def _give_up(self, failure: BackendError) -> None:
        if self._connection is not None:
            self._connection.abort()
        self._over = True
        self._error = failure
        self._stir()


async def _send_body(request: web.BaseRequest, connection: Connection) -> None:
    """The rest of a request's body, as it comes."""
    chunked = request.content_length is None
    async for piece in request.content.iter_any():
        await connection.write(chunk(piece) if chunked else piece)
    if chunked:
        await connection.write(b"0\r\n\r\n")
