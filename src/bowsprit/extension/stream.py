"""Stream: what a connect subresource talks on, the same over plain HTTP and WebSocket.

Over HTTP what is sent are the pieces of a chunked answer, and what is received those of the request's body; over WebSocket
both are messages. The answer begins with the first piece that is sent: a function that fails before is answered with a Status.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, cast

from aiohttp import WSMsgType, web

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import ConnectHandler
from bowsprit.extension.declaration import Connection
from bowsprit.extension.hooks import Hooks, awaited
from bowsprit.extension.kind import Kind

if TYPE_CHECKING:
    from bowsprit.apiserver.connection import ConnectionHandler

SEND_SECONDS = 60.0  # a client that takes nothing for so long is gone
HEARTBEAT_SECONDS = 30.0
LARGEST_MESSAGE = 4 << 20
_BEARER = "base64url.bearer.authorization.k8s.io."


class Stream:
    """One client connection."""

    def __init__(self, request: web.BaseRequest, query: Mapping[str, str]) -> None:
        self._request = request
        self._response: web.StreamResponse | None = None
        self._opening = asyncio.Lock()
        self.query = query
        """The request's query parameters."""
        self.is_websocket = request.headers.get("Upgrade", "").lower() == "websocket"
        self.content_type = "text/plain; charset=utf-8"
        """Of a plain HTTP answer; set it before the first piece is sent."""

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self._request.method

    @property
    def protocol(self) -> str:
        """The WebSocket subprotocol that was agreed on, "" if there is none."""
        response = self._response
        return (response.ws_protocol or "") if isinstance(response, web.WebSocketResponse) else ""

    async def open(self) -> None:
        """Begin the answer. Done by itself when the first piece is sent or received."""
        async with self._opening:
            if self._response is not None:
                return
            if self.is_websocket:
                offered = self._request.headers.get("Sec-WebSocket-Protocol", "").split(",")
                names = [name.strip() for name in offered if name.strip() and not name.strip().startswith(_BEARER)]
                response: web.StreamResponse = web.WebSocketResponse(
                    protocols=names, heartbeat=HEARTBEAT_SECONDS, max_msg_size=LARGEST_MESSAGE
                )
            else:
                response = web.StreamResponse(headers={"Content-Type": self.content_type})
                response.enable_chunked_encoding()
            await response.prepare(self._request)
            self._response = response

    async def send(self, data: bytes | str) -> None:
        """Send a piece or message; waits while the client is slow. Raises ConnectionError when it is gone."""
        await self.open()
        response = self._response
        assert response is not None
        try:
            async with asyncio.timeout(SEND_SECONDS):
                if not isinstance(response, web.WebSocketResponse):
                    await response.write(data.encode() if isinstance(data, str) else data)
                elif isinstance(data, str):
                    await response.send_str(data)
                else:
                    await response.send_bytes(data)
        except TimeoutError as failure:
            raise ConnectionResetError("the client takes nothing") from failure

    async def __aiter__(self) -> AsyncIterator[bytes | str]:
        """What the client sends, until it has sent everything."""
        if not self.is_websocket:
            async for piece in self._request.content.iter_any():
                yield piece
            return
        await self.open()
        socket = self._response
        assert isinstance(socket, web.WebSocketResponse)
        async for message in socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                yield message.data

    async def end(self) -> web.StreamResponse:
        """Finish the answer."""
        await self.open()
        response = self._response
        assert response is not None
        with contextlib.suppress(ConnectionError, RuntimeError, TimeoutError):
            async with asyncio.timeout(SEND_SECONDS):
                if isinstance(response, web.WebSocketResponse):
                    await response.close()
                else:
                    await response.write_eof()
        return response

    async def fail(self, message: str) -> None:
        """End an answer that has begun: a WebSocket with code 1011, plain HTTP by breaking off."""
        if isinstance(self._response, web.WebSocketResponse):
            with contextlib.suppress(ConnectionError, RuntimeError, TimeoutError):
                async with asyncio.timeout(SEND_SECONDS):
                    await self._response.close(code=1011, message=message.encode()[:120])
        elif self._request.transport is not None:
            self._request.transport.abort()

    @property
    def begun(self) -> bool:
        """Whether the answer has begun."""
        return self._response is not None


def connect_handler(connection: Connection, hooks: Hooks) -> ConnectHandler:
    """Calls an author's function with object, context and stream, and makes what it gives the answer."""

    async def handle(ctx: RequestContext, name: str, request: web.BaseRequest) -> web.StreamResponse:
        with hooks.answering(name):
            obj = await hooks.fetch(ctx, name)
            stream = Stream(request, ctx.query)
            try:
                await _while_connected(_talk(connection, obj, ctx, stream), request)
            except ConnectionError:
                if not stream.begun:
                    raise
            except Exception as failure:
                if not stream.begun:
                    raise
                hooks.log_failure(connection.name, ctx, failure)
                await stream.fail("internal error")
                return await stream.end()
            return await stream.end()

    return handle


async def _talk(connection: Connection, obj: Kind, ctx: RequestContext, stream: Stream) -> None:
    made: Any = connection.function(obj, ctx, stream)
    is_generator: bool = inspect.isasyncgen(made)
    if not is_generator:
        given = await awaited(made)
        if given is not None:
            await stream.send(given)
        return
    # A WebSocket's closing is seen only by reading.
    reading = asyncio.ensure_future(_read_away(stream)) if stream.is_websocket else None
    try:
        sending = asyncio.ensure_future(_send_all(made, stream))
        try:
            await asyncio.wait({sending} | ({reading} if reading else set()), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(sending)
        if not sending.cancelled():
            sending.result()
    finally:
        if reading is not None:
            await _cancelled(reading)
        await made.aclose()


async def _send_all(pieces: AsyncIterator[bytes | str], stream: Stream) -> None:
    async for piece in pieces:
        await stream.send(piece)


async def _read_away(stream: Stream) -> None:
    async for _ in stream:
        pass


async def _cancelled(task: asyncio.Future[None]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


async def _while_connected(work: Coroutine[Any, Any, None], request: web.BaseRequest) -> None:
    """Runs the work until it is done or the connection is gone. Raises ConnectionResetError then."""
    protocol = cast("ConnectionHandler", request.protocol)
    task = asyncio.ensure_future(work)
    gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def lost() -> None:
        if not gone.done():
            gone.set_result(None)

    protocol.on_lost(lost)
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        protocol.off_lost(lost)
        await _cancelled(task)
    if task.cancelled():
        raise ConnectionResetError("the client is gone")
    task.result()
