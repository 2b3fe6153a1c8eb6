"""Dialers: from (host, port) to a connected socket, directly or through a proxy.

A dialer answers a plain non-blocking socket, so that TLS, HTTP and gRPC all go on top of it, on asyncio and uvloop alike.
Proxies resolve the target's name themselves, for ``socks5`` as for ``socks5h``: so does Go's client (net/http, x/net/proxy).
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from bowsprit.net.valve import ValvedReader
from bowsprit.pki.trusting import trusting

DEFAULT_TIMEOUT = 30.0
_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_MAX_CONNECT_REPLY = 16 * 1024
_PUMP_CHUNK = 64 * 1024
_DISCARD_SECONDS = 1.0


class DialError(OSError):
    """No connection: name resolution, the TCP connect, or the proxy failed."""


class Dialer(Protocol):
    """Opens connections."""

    async def open(self, host: str, port: int) -> socket.socket:
        """A connected, non-blocking socket, owned by the caller. Raises DialError."""
        ...


class DirectDialer:
    """Connects without a proxy: each address of the name in turn, all within ``timeout`` seconds."""

    def __init__(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._timeout = timeout

    async def open(self, host: str, port: int) -> socket.socket:
        """See Dialer.open."""
        loop = asyncio.get_running_loop()
        failure: Exception | None = None
        tried = join_host_port(host, port)
        try:
            async with asyncio.timeout(self._timeout):
                addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                share = self._timeout / max(1, len(addresses))  # as Go's partialDeadline: no address eats all the time
                for family, kind, proto, _, address in addresses:
                    sock = socket.socket(family, kind, proto)
                    try:
                        sock.setblocking(False)
                        async with asyncio.timeout(share):
                            await loop.sock_connect(sock, address)
                    except (OSError, TimeoutError) as exc:
                        sock.close()
                        if failure is None:  # as Go, tell of the first
                            failure, tried = exc, join_host_port(str(address[0]), int(address[1]))
                    except BaseException:
                        sock.close()
                        raise
                    else:
                        _tune(sock)
                        return sock
        except TimeoutError as exc:
            failure = failure or exc
        except OSError as exc:
            raise DialError(exc.errno, f"dial tcp: lookup {host}: {exc.strerror or exc}") from exc
        reason = "i/o timeout" if isinstance(failure, TimeoutError) else _reason(failure)
        raise DialError(getattr(failure, "errno", None), f"dial tcp {tried}: {reason}") from failure


class SocksDialer:
    """SOCKS5 (RFC 1928, 1929) or plain HTTP CONNECT, through python-socks; names travel to the proxy unresolved."""

    def __init__(self, url: SplitResult, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._url = url
        self._timeout = timeout

    async def open(self, host: str, port: int) -> socket.socket:
        """See Dialer.open."""
        from python_socks import ProxyError, ProxyTimeoutError, ProxyType
        from python_socks.async_.asyncio import Proxy

        proxy = Proxy(
            ProxyType.HTTP if self._url.scheme == "http" else ProxyType.SOCKS5,
            str(self._url.hostname),
            proxy_port(self._url),
            username=unquote(self._url.username) if self._url.username else None,
            password=unquote(self._url.password) if self._url.password is not None else None,
            rdns=True,
        )
        try:
            sock: socket.socket = await proxy.connect(host, port, timeout=self._timeout)
        except (ProxyError, ProxyTimeoutError, OSError, TimeoutError) as exc:
            target = join_host_port(host, port)
            raise DialError(f"proxy {redacted(self._url)}: connect to {target}: {_reason(exc)}") from exc
        sock.setblocking(False)
        _tune(sock)
        return sock


async def _refusal(reply: bytes, reader: asyncio.StreamReader) -> str:
    """What a proxy that refuses says in plain text, for the end of a message; nothing if it says it slowly."""
    if b"content-type: text/plain" not in reply.lower():
        return ""
    try:
        async with asyncio.timeout(1.0):
            body = (await reader.read(1024)).decode("utf-8", "replace")
    except (TimeoutError, OSError):
        return ""
    return ": " + " ".join(body.split()) if body.strip() else ""


class TLSConnectDialer:
    """HTTP CONNECT to a proxy that itself speaks TLS.

    The tunnel lies inside the proxy's TLS stream, so the caller gets one end of a socket pair and a task carries the bytes:
    neither asyncio nor uvloop layers TLS on a foreign transport.
    """

    def __init__(
        self,
        url: SplitResult,
        context: ssl.SSLContext | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        server_hostname: str = "",
    ) -> None:
        self._url = url
        self._server_hostname = server_hostname or str(url.hostname)
        self._context = context
        self._timeout = timeout
        self._bridges: set[asyncio.Task[None]] = set()

    async def open(self, host: str, port: int) -> socket.socket:
        """See Dialer.open."""
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await self._connect(join_host_port(host, port))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as exc:
            target = join_host_port(host, port)
            raise DialError(f"proxy {redacted(self._url)}: connect to {target}: {_reason(exc)}") from exc
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        bridge = asyncio.get_running_loop().create_task(_bridge(ours, reader, writer), name="https-proxy-bridge")
        self._bridges.add(bridge)
        bridge.add_done_callback(self._bridges.discard)
        return theirs

    async def _connect(self, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = self._context or trusting()
        loop = asyncio.get_running_loop()
        reader = ValvedReader(limit=_MAX_CONNECT_REPLY, loop=loop)
        transport, protocol = await loop.create_connection(
            lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
            str(self._url.hostname),
            proxy_port(self._url),
            ssl=context,
            server_hostname=self._server_hostname,
        )
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            head = [f"CONNECT {target} HTTP/1.1", f"Host: {target}", "User-Agent: bowsprit"]
            if self._url.username:
                credentials = f"{unquote(self._url.username)}:{unquote(self._url.password or '')}".encode()
                head.append("Proxy-Authorization: Basic " + base64.b64encode(credentials).decode())
            writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
            reply = await reader.readuntil(b"\r\n\r\n")
            status = reply.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
            if len(status) < 2 or status[1] != "200":
                raise ConnectionError(
                    " ".join(status[1:]) + await _refusal(reply, reader) or "malformed answer to CONNECT"
                )
        except BaseException:
            writer.close()
            raise
        return reader, writer


def proxy_dialer(url: str, *, context: ssl.SSLContext | None = None, timeout: float = DEFAULT_TIMEOUT) -> Dialer:
    """A dialer through the proxy at ``url`` (http, https, socks5, socks5h); ``context`` verifies a https proxy.

    Raises ValueError, saying what is wrong with the URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError(f"proxy URL {redacted(parts)!r}: scheme must be one of http, https, socks5, socks5h")
    if not parts.hostname:
        raise ValueError(f"proxy URL {redacted(parts)!r}: no host")
    try:
        proxy_port(parts)
    except ValueError as exc:
        raise ValueError(f"proxy URL {redacted(parts)!r}: {exc}") from None
    if parts.scheme == "https":
        return TLSConnectDialer(parts, context, timeout)
    return SocksDialer(parts, timeout)


def proxy_port(url: SplitResult) -> int:
    """The port of a proxy URL, or its scheme's default."""
    return url.port or _DEFAULT_PORTS[url.scheme]


def redacted(url: SplitResult) -> str:
    """The URL without its password, fit for messages and logs."""
    if url.password is None:
        return url.geturl()
    return url._replace(netloc=f"{url.username}:xxxxx@{url.netloc.rpartition('@')[2]}").geturl()


def discard(sock: socket.socket) -> None:
    """Close a socket that may have been handed to a transport in vain.

    A failed transport closes it itself, a moment later: a file descriptor that is free before would soon be another's. Closing
    twice does no harm.
    """
    asyncio.get_running_loop().call_later(_DISCARD_SECONDS, sock.close)


def join_host_port(host: str, port: int) -> str:
    """``host:port``, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _reason(exc: Exception | None) -> str:
    if isinstance(exc, TimeoutError):
        return "i/o timeout"
    if isinstance(exc, OSError) and not isinstance(exc, ssl.SSLError) and exc.errno and exc.errno > 0:
        return f"connect: {os.strerror(exc.errno).lower()}"  # the loop's own text repeats the address
    return str(exc or "no addresses")


def _tune(sock: socket.socket) -> None:
    """No delay for small writes; keep-alive probes as Go's dialer sets them, so that a dead peer ends a silent watch."""
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)


async def _bridge(sock: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes both ways until both directions have ended, or one of them failed."""
    local_reader, local_writer = await asyncio.open_connection(sock=sock)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(_PUMP_CHUNK):
            if sink.is_closing():  # uvloop's transports raise RuntimeError when written to then
                return
            sink.write(chunk)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()
        else:  # TLS has no half-close: the end of one direction ends the tunnel
            sink.close()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, local_writer))
            group.create_task(pump(local_reader, writer))
    except* OSError:
        pass
    finally:
        local_writer.close()
        writer.close()
