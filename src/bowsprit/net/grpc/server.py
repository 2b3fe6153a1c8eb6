"""A gRPC server: listeners on TCP (with TLS) and unix sockets, calls dispatched by path, bounded stopping."""

from __future__ import annotations

import asyncio
import socket
import ssl as tls
from collections.abc import Awaitable, Callable, Mapping

from bowsprit.net.grpc import metadata as md
from bowsprit.net.grpc.call import Call
from bowsprit.net.grpc.limits import Options
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.request import unserved
from bowsprit.net.grpc.status import GrpcError, Status, StatusCode
from bowsprit.net.grpc.stream import Stream, StreamHandler
from bowsprit.net.grpc.transport import GrpcProtocol

# Makes the handler of a new call; it may answer or finish the stream at once.
HandlerFactory = Callable[[GrpcProtocol, Stream, Metadata], StreamHandler]
_BACKLOG = 1024
_HANDSHAKE_TIMEOUT = 30.0
_POLL = 0.02


class Server:
    """Serves ``handlers`` (by ``/Service/Method``) on any number of listeners, to at most ``max_connections`` clients."""

    def __init__(
        self, handlers: Mapping[str, HandlerFactory], options: Options | None = None, *, max_connections: int = 16_384
    ) -> None:
        self._handlers = handlers
        self._options = options or Options()
        self._max_connections = max_connections
        self._listeners: list[asyncio.AbstractServer] = []
        self.protocols: set[GrpcProtocol] = set()

    async def listen(self, host: str, port: int, *, ssl: tls.SSLContext | None = None) -> int:
        """Listen on TCP; all interfaces if ``host`` is empty. Answers the port."""
        loop = asyncio.get_running_loop()
        handshake = _HANDSHAKE_TIMEOUT if ssl else None
        server = await loop.create_server(
            self._protocol, host or None, port, backlog=_BACKLOG, ssl=ssl, ssl_handshake_timeout=handshake
        )
        self._listeners.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def listen_socket(self, sock: socket.socket) -> None:
        """Listen on a bound unix socket."""
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_unix_server(self._protocol, sock=sock, backlog=_BACKLOG))

    def _protocol(self) -> asyncio.BaseProtocol:
        if len(self.protocols) >= self._max_connections:
            return _Busy()
        protocol = GrpcProtocol(self._options, client=False, opener=self._open, on_closed=self._closed)
        self.protocols.add(protocol)
        return protocol

    def _closed(self, protocol: GrpcProtocol, reason: str) -> None:
        self.protocols.discard(protocol)

    def _open(self, protocol: GrpcProtocol, stream: Stream, headers: Metadata) -> StreamHandler | None:
        path = "".join(md.values(headers, ":path"))
        factory = self._handlers.get(path)
        if factory is None:
            stream.finish(unserved(path, self._handlers))
            return None
        return factory(protocol, stream, headers)

    def drain(self) -> None:
        """Stop listening and tell clients to open no more calls (GOAWAY)."""
        for listener in self._listeners:
            listener.close()
        for protocol in list(self.protocols):
            protocol.drain()

    async def stop(self, grace: float = 0.0) -> None:
        """Stop listening; with ``grace`` seconds for open calls (GOAWAY), then close every connection."""
        for listener in self._listeners:
            listener.close()
        if grace > 0:
            self.drain()
            for _ in range(int(grace / _POLL)):
                if not any(protocol.connection.streams for protocol in self.protocols):
                    break
                await asyncio.sleep(_POLL)
        for protocol in list(self.protocols):
            protocol.close()
        for _ in range(50):
            if not self.protocols:
                break
            await asyncio.sleep(0.002)
        for protocol in list(self.protocols):
            protocol.abort()
        self._listeners.clear()


class _Busy(asyncio.Protocol):
    """A connection beyond the limit: closed at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def awaitable(serve: Callable[[Call, Metadata], Awaitable[None]], tasks: set[asyncio.Task[None]]) -> HandlerFactory:
    """A handler written as a coroutine: GrpcError becomes the status, its return OK. ``tasks`` owns the running ones."""

    def factory(protocol: GrpcProtocol, stream: Stream, headers: Metadata) -> StreamHandler:
        call = Call(protocol)
        call.attach(stream)

        async def run() -> None:
            try:
                await serve(call, md.application(headers))
            except GrpcError as exc:
                call.finish(exc.status)
            except Exception as exc:
                call.finish(Status(StatusCode.UNKNOWN, str(exc)))
                raise
            else:
                call.finish()

        task = asyncio.get_running_loop().create_task(run(), name=f"grpc-{stream.stream_id}")
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return call

    return factory
