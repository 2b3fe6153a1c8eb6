"""Upgraded connections (WebSocket, SPDY): the bytes of both sides are copied until one of them ends.

Upstream: apimachinery/pkg/util/proxy UpgradeAwareHandler. Each has a connection of its own to the backend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, cast

from bowsprit.aggregator.backend import Backend, request_bytes
from bowsprit.aggregator.connection import BackendError, Connection
from bowsprit.aggregator.framing import Head
from bowsprit.aggregator.identity import target_of, upgrade_fields
from bowsprit.apiserver.answer import Answer, Sent, status_line, text_answer
from bowsprit.net.dial import join_host_port
from bowsprit.net.valve import Valve

if TYPE_CHECKING:
    from aiohttp import web

    from bowsprit.apiserver.connection import ConnectionHandler
    from bowsprit.apiserver.request import RequestContext

HANDSHAKE_SECONDS = 30.0
_ECHO_SECONDS = 10.0


def wants_upgrade(request: web.BaseRequest) -> bool:
    """Upstream httpstream.IsUpgradeRequest."""
    return any("upgrade" in value.lower() for value in request.headers.getall("Connection", []))


async def forward_upgrade(
    backend: Backend, address: tuple[str, int], ctx: RequestContext, request: web.BaseRequest
) -> Answer | Sent:
    """Join the client with the backend if it agrees; else its refusal, or 503."""
    assert backend.pool is not None
    path, query = target_of(request)
    fields = upgrade_fields(ctx, request, join_host_port(*address))
    message = request_bytes(request.method, f"{path}?{query}" if query else path, fields)
    pool = backend.pool
    return await join(lambda: pool.acquire(*address, fresh=True), message, request)


async def join(connect: Callable[[], Awaitable[Connection]], message: bytes, request: web.BaseRequest) -> Answer | Sent:
    """Send a request for an upgrade to a new connection and join it with the client's if it agrees; else its refusal, or 503."""
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            connection = await connect()
    except BackendError as failure:
        return text_answer(503, f"error dialing backend: {failure}\n")
    except TimeoutError:
        return text_answer(503, "error dialing backend: i/o timeout\n")
    tunnel = _Tunnel(request, connection)
    try:
        connection.begin(tunnel, message, bodiless=False)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                head = await tunnel.answered
        except BackendError as failure:
            return text_answer(503, f"{failure}\n")
        if head.status != 101 and head.status < 400:
            return text_answer(503, f"invalid upgrade response: status code {head.status}\n")
        if head.status == 101:
            await tunnel.ended
        else:
            async with asyncio.timeout(_ECHO_SECONDS):
                await tunnel.ended
        return Sent(head.status, tunnel.bytes, keep_alive=False)
    finally:
        tunnel.close()


class _Tunnel:
    """The exchange, and the client's side of it."""

    def __init__(self, request: web.BaseRequest, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        self._client = cast("ConnectionHandler", request.protocol)
        self._connection = connection
        self._chunked = False
        self._joined = False
        self.bytes = 0
        self.answered: asyncio.Future[Head] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._client.on_lost(self._client_lost)

    def close(self) -> None:
        """Both sides end; what the client has not read yet is still sent."""
        self._client.off_lost(self._client_lost)
        self._connection.throttle = None
        self._connection.close()
        if self._joined and self._client.transport is not None:
            self._client.transport.close()
        if self.answered.done() and not self.answered.cancelled():
            self.answered.exception()

    def _client_lost(self) -> None:
        if not self.answered.done():
            self.answered.set_exception(BackendError("the client is gone"))
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    # -- Exchange --------------------------------------------------------------------------------------------------------

    wants_payload = True

    def on_head(self, head: Head, *, more: bool) -> None:
        if self.answered.done():
            return
        if head.status == 101 or head.status >= 400:
            self._joined = True
            lines = [status_line(head.status), *(b"%b: %b\r\n" % field[1:] for field in head.fields)]
            if head.status != 101:
                lines.append(b"Connection: close\r\n")
            self._chunked = head.chunked
            self._to_client(b"".join([*lines, b"\r\n"]))
        if head.status == 101:
            self._join()
        self.answered.set_result(head)

    def on_data(self, wire: bytes, payload: list[bytes]) -> None:
        if self._joined:
            self._to_client(wire)

    def on_end(self, error: BackendError | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(error or BackendError("EOF"))
        self._end()

    def _to_client(self, data: bytes) -> None:
        transport = self._client.transport
        if transport is not None:
            self.bytes += len(data)
            transport.write(data)

    # -- the client's side -----------------------------------------------------------------------------------------------

    def _join(self) -> None:
        """From here on the client's bytes are no HTTP."""
        transport = self._client.transport
        backend = self._connection.transport
        if transport is None or backend is None:
            self._end()
            return
        side = _ClientSide(self._client, transport, self._connection, self._end)
        self._connection.throttle = side.throttle
        transport.set_protocol(side)
        early, self._client._message_tail = self._client._message_tail, b""
        if early:
            backend.write(early)


class _ClientSide(asyncio.Protocol):
    """Stands in for the HTTP protocol of the client's connection, which still learns of its end."""

    def __init__(
        self,
        http: ConnectionHandler,
        transport: asyncio.Transport,
        backend: Connection,
        ended: Callable[[], None],
    ) -> None:
        self._http = http
        self._valve = Valve(transport)
        self._backend = backend
        self._ended = ended

    def throttle(self, full: bool) -> None:
        """The backend reads too slowly, or can take more again."""
        self._valve.close() if full else self._valve.open()

    def data_received(self, data: bytes) -> None:
        transport = self._backend.transport
        if transport is not None and not transport.is_closing():
            transport.write(data)

    def pause_writing(self) -> None:
        self._http.pause_writing()
        self._backend.hold()

    def resume_writing(self) -> None:
        self._http.resume_writing()
        self._backend.proceed()

    def eof_received(self) -> bool:
        self._ended()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)
        self._ended()
