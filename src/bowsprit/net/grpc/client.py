"""A client's connection to one server."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl as tls
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from bowsprit import __version__
from bowsprit.net.grpc import metadata as md
from bowsprit.net.grpc.call import Call
from bowsprit.net.grpc.limits import Options
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.status import GrpcError, StatusCode
from bowsprit.net.grpc.stream import Stream, StreamHandler
from bowsprit.net.grpc.transport import GrpcProtocol

USER_AGENT = f"bowsprit/{__version__}"
CONNECT_TIMEOUT = 20.0  # grpc-go's minimum connect timeout


class Channel:
    """One HTTP/2 connection; it does not reconnect. ``closed_reason`` says why it ended."""

    def __init__(self, protocol: GrpcProtocol, authority: str, scheme: str) -> None:
        self.protocol = protocol
        self._authority = authority
        self._scheme = scheme

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        *,
        ssl: tls.SSLContext | None = None,
        server_hostname: str | None = None,
        options: Options | None = None,
        timeout: float = CONNECT_TIMEOUT,
    ) -> Channel:
        """Connect over TCP, with TLS if ``ssl`` is given. Raises GrpcError UNAVAILABLE."""
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        hostname = (server_hostname or host) if ssl else None
        loop = asyncio.get_running_loop()
        return await cls._open(
            f"tcp {authority}", authority, bool(ssl), timeout,
            loop.create_connection(_factory(options), host, port, ssl=ssl, server_hostname=hostname),
        )  # fmt: skip

    @classmethod
    async def connect_unix(
        cls, path: str, *, options: Options | None = None, timeout: float = CONNECT_TIMEOUT
    ) -> Channel:
        """Connect to a unix socket, without TLS, with the authority that grpc-go sends."""
        loop = asyncio.get_running_loop()
        opening = loop.create_unix_connection(_factory(options), path)
        return await cls._open(f"unix {path}", quote(path, safe=""), False, timeout, opening)

    @classmethod
    async def connect_socket(
        cls,
        sock: socket.socket,
        authority: str,
        *,
        ssl: tls.SSLContext | None = None,
        server_hostname: str | None = None,
        options: Options | None = None,
        timeout: float = CONNECT_TIMEOUT,
    ) -> Channel:
        """Use a connected socket, for example one that went through a proxy."""
        hostname = (server_hostname or authority.rpartition(":")[0].strip("[]")) if ssl else None
        loop = asyncio.get_running_loop()
        opening = loop.create_connection(_factory(options), sock=sock, ssl=ssl, server_hostname=hostname)
        return await cls._open(authority, authority, bool(ssl), timeout, opening)

    @classmethod
    async def _open(
        cls,
        target: str,
        authority: str,
        secure: bool,
        timeout: float,
        opening: Coroutine[Any, Any, tuple[asyncio.Transport, GrpcProtocol]],
    ) -> Channel:
        try:
            async with asyncio.timeout(timeout):
                transport, protocol = await opening
        except TimeoutError:
            raise _unreachable(target, "i/o timeout") from None
        except (OSError, tls.SSLError) as exc:
            number = (
                exc.errno if isinstance(exc, OSError) and not isinstance(exc, (tls.SSLError, socket.gaierror)) else None
            )
            raise _unreachable(target, f"connect: {os.strerror(number).lower()}" if number else str(exc)) from exc
        negotiated = transport.get_extra_info("ssl_object")
        if negotiated is not None and negotiated.selected_alpn_protocol() not in ("h2", None):
            transport.abort()
            raise GrpcError(StatusCode.UNAVAILABLE, "the server does not speak HTTP/2 (ALPN)")
        return cls(protocol, authority, "https" if secure else "http")

    @property
    def closed(self) -> bool:
        """Whether the connection is over."""
        return self.protocol.connection.closed

    @property
    def closed_reason(self) -> str:
        """Why it is over."""
        return self.protocol.closed_reason or ""

    def open(
        self, path: str, handler: StreamHandler, *, metadata: Metadata = (), timeout: float | None = None
    ) -> Stream:
        """Begin a call with a callback handler.

        Raises GrpcError: UNAVAILABLE when the connection takes no more, INTERNAL for metadata that cannot be sent.
        """
        md.check(metadata)
        headers = [("user-agent", USER_AGENT), *metadata]
        if timeout is not None:
            headers.insert(0, ("grpc-timeout", md.encode_timeout(timeout)))
        try:
            stream = self.protocol.connection.open(
                path, handler, authority=self._authority, scheme=self._scheme, headers=headers
            )
        except ConnectionError as exc:
            raise GrpcError(StatusCode.UNAVAILABLE, self.closed_reason or str(exc)) from exc
        if timeout is not None:
            self.protocol.deadline(stream, timeout)
        return stream

    def stream(self, path: str, *, metadata: Metadata = (), timeout: float | None = None) -> Call:
        """Begin a bidirectional call."""
        call = Call(self.protocol)
        call.attach(self.open(path, call, metadata=metadata, timeout=timeout))
        return call

    async def unary(self, path: str, request: bytes, *, metadata: Metadata = (), timeout: float | None = None) -> bytes:
        """One message there, one back. Raises GrpcError."""
        call = self.stream(path, metadata=metadata, timeout=timeout)
        try:
            await call.send(request)
            call.end()
            response = await call.receive()
            if response is None or await call.receive() is not None:
                raise GrpcError(StatusCode.INTERNAL, "a unary call needs exactly one response message")
            return response
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close the connection; open calls end with UNAVAILABLE."""
        self.protocol.close()
        await asyncio.sleep(0)


def _unreachable(target: str, reason: str) -> GrpcError:
    """As grpc-go words it."""
    text = f'connection error: desc = "transport: Error while dialing: dial {target}: {reason}"'
    return GrpcError(StatusCode.UNAVAILABLE, text)


def _factory(options: Options | None) -> Callable[[], GrpcProtocol]:
    return lambda: GrpcProtocol(options or Options(), client=True)
