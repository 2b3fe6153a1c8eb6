"""The awaitable view of a stream: one object for a client's call and, reversed, for a server's handler."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from bowsprit.net.grpc.limits import KIB
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.status import OK, GrpcError, Status, StatusCode
from bowsprit.net.grpc.stream import Stream
from bowsprit.net.grpc.transport import GrpcProtocol

_HIGH_WATER = 256 * KIB


class Call:
    """Messages of one call. The peer is held back while received messages are not taken."""

    def __init__(self, protocol: GrpcProtocol) -> None:
        self._protocol = protocol
        self._stream: Stream | None = None
        self._inbox: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._headers: Metadata | None = None
        self._half_closed = False
        self.status: Status | None = None
        self.trailers: Metadata = ()

    def attach(self, stream: Stream) -> None:
        """The stream behind this call."""
        self._stream = stream

    # -- StreamHandler ------------------------------------------------------------------------------------------------

    def headers_received(self, stream: Stream, headers: Metadata) -> None:
        self._headers = headers
        self._changed.set()

    def message_received(self, stream: Stream, message: bytes) -> None:
        self._inbox.append(message)
        self._changed.set()

    def half_closed(self, stream: Stream) -> None:
        self._half_closed = True
        self._changed.set()

    def writable(self, stream: Stream) -> None:
        self._changed.set()

    def ended(self, stream: Stream, status: Status, trailers: Metadata) -> None:
        self.status = status
        self.trailers = trailers
        self._protocol.stream_done(stream)
        self._changed.set()

    # -- for users ----------------------------------------------------------------------------------------------------

    @property
    def stream(self) -> Stream:
        """The stream."""
        assert self._stream is not None
        return self._stream

    async def headers(self) -> Metadata:
        """Client: the response's metadata. Raises GrpcError if the call failed before there was any."""
        while self._headers is None and self.status is None:
            await self._wait()
        if self._headers is None:
            assert self.status is not None
            raise GrpcError(self.status.code, self.status.message)
        return self._headers

    async def send(self, message: bytes) -> None:
        """Send a message; waits while much of what was sent is still here. Raises GrpcError when the call is over."""
        while self.status is None and self.stream.backlog > _HIGH_WATER:
            await self._wait()
        if self.status is not None:
            raise GrpcError(self.status.code if not self.status.ok else StatusCode.INTERNAL, self.status.message)
        self.stream.send((message,))

    async def receive(self) -> bytes | None:
        """The next message; None at the end of a call that succeeded (client) or of the client's messages (server).

        Raises GrpcError when the call failed.
        """
        while not self._inbox:
            if self.status is not None:
                if self.status.ok:
                    return None
                raise GrpcError(self.status.code, self.status.message)
            if self._half_closed:
                return None
            await self._wait()
        message = self._inbox.popleft()
        self.stream.acknowledge(len(message) + 5)
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.receive()) is not None:
            yield message

    def end(self) -> None:
        """Client: no more messages."""
        self.stream.end()

    def cancel(self) -> None:
        """Abort the call; nothing if it is over."""
        if self.status is None:
            self.stream.reset()

    def send_headers(self, metadata: Metadata = ()) -> None:
        """Server: answer with metadata before the first message."""
        self.stream.send_headers(metadata)

    def finish(self, status: Status = OK, metadata: Metadata = ()) -> None:
        """Server: end the call."""
        self.stream.finish(status, metadata)

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()
