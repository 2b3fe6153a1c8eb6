"""The pooled connections to one backend: dialled, secured, kept while they are good, made anew when the certificate changes."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from datetime import datetime

from bowsprit.aggregator.connection import IDLE_SECONDS, MAX_IDLE, BackendError, Connection, tls_failure
from bowsprit.aggregator.trust import ClientCertificate, TrustError, bundle_of, context_for, refusal, unverified_context
from bowsprit.machinery.objects import Obj
from bowsprit.net.dial import Dialer, DialError, discard

logger = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0  # Go's TLSHandshakeTimeout
_LOOK_SECONDS = 2.0
_CERTIFICATE_SECONDS = 1.0  # how often the files of the client certificate are looked at, at most


class Pool:
    """See the module's docstring.

    Args:
        spec: the APIService's spec.
        server_name: whom the certificate must name.
        now: UTC, for the words about expired certificates.
        no_names: called when a certificate was refused because it has no names.

    Raises:
        TrustError: the bundle or the client certificate cannot be used.
    """

    def __init__(
        self,
        spec: Obj,
        server_name: str,
        dialer: Dialer,
        client: ClientCertificate | None,
        now: Callable[[], datetime],
        no_names: Callable[[], None],
    ) -> None:
        self._spec = spec
        self._server_name = server_name
        self._dialer = dialer
        self._client = client
        self._now = now
        self._no_names = no_names
        self._idle: list[tuple[tuple[str, int], Connection]] = []
        self._open: set[Connection] = set()
        self._made: dict[Connection, tuple[tuple[str, int], ssl.SSLContext]] = {}  # to where, and showing what
        self._closed = False
        self._version = client.version() if client is not None else ()
        self._looked = 0.0
        self._context = context_for(spec, client)

    def retire(self) -> None:
        """Begin nothing new; what is under way goes on to its end."""
        self._closed = True
        self.close_idle()

    def close(self) -> None:
        """Close every connection; exchanges that are under way hear of it."""
        self._closed = True
        for connection in tuple(self._open):
            if connection.transport is not None:
                connection.transport.abort()

    def close_idle(self) -> None:
        """Close the connections that nobody uses."""
        idle, self._idle = self._idle, []
        for _, connection in idle:
            if connection.transport is not None:
                connection.transport.close()

    def trim(self) -> None:
        """Close what has been idle for too long."""
        since = asyncio.get_running_loop().time() - IDLE_SECONDS
        for entry in [entry for entry in self._idle if entry[1].idle_since < since]:
            self._idle.remove(entry)
            if entry[1].transport is not None:
                entry[1].transport.close()

    async def acquire(self, host: str, port: int, *, fresh: bool = False) -> Connection:
        """A connection that carries nothing. `fresh`: none that was used before. Raises BackendError."""
        self._follow_certificate()
        address = (host, port)
        if not fresh:
            for position in range(len(self._idle) - 1, -1, -1):
                if self._idle[position][0] == address:
                    connection = self._idle.pop(position)[1]
                    if connection.transport is not None and not connection.transport.is_closing():
                        return connection
        return await self._connect(host, port)

    def _follow_certificate(self) -> None:
        """New connections show the certificate that is in the files now."""
        loop_time = asyncio.get_running_loop().time()
        if self._client is None or loop_time < self._looked + _CERTIFICATE_SECONDS:
            return
        self._looked = loop_time
        version = self._client.version()
        if version == self._version or not version:
            return
        try:
            self._context = context_for(self._spec, self._client)
        except TrustError as failure:
            logger.warning(
                "the proxy client certificate has changed and cannot be used, the old one stays: %s", failure
            )
            return  # half written, perhaps: looked at again
        self._version = version
        self.close_idle()

    async def _connect(self, host: str, port: int) -> Connection:
        try:
            sock = await self._dialer.open(host, port)
        except DialError as exc:
            raise BackendError(str(exc.strerror or exc)) from exc
        loop = asyncio.get_running_loop()
        context = self._context
        try:
            _, connection = await loop.create_connection(
                lambda: Connection(self._release, self._forget),
                sock=sock,
                ssl=context,
                server_hostname=self._server_name,
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
        except BaseException as exc:
            discard(sock)
            raise await self._told(exc, host, port) from exc
        self._open.add(connection)
        self._made[connection] = ((host, port), context)
        return connection

    async def _told(self, exc: BaseException, host: str, port: int) -> BaseException:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return BackendError(f"tls: failed to verify certificate: {await self._refusal(exc, host, port)}")
        if isinstance(exc, ssl.SSLError):
            return BackendError(tls_failure(exc))
        if isinstance(exc, ConnectionAbortedError | TimeoutError):
            return BackendError("net/http: TLS handshake timeout")
        if isinstance(exc, ConnectionResetError):
            return BackendError("read: connection reset by peer" if exc.errno else "EOF")
        return BackendError(str(exc)) if isinstance(exc, OSError) else exc

    async def _refusal(self, exc: ssl.SSLCertVerificationError, host: str, port: int) -> str:
        """Python does not give a certificate that it refuses: ask for it once more, for the message alone."""
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                sock = await self._dialer.open(host, port)
                try:
                    _, writer = await asyncio.open_connection(
                        sock=sock, ssl=unverified_context(), server_hostname=self._server_name
                    )
                except BaseException:
                    discard(sock)
                    raise
            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.transport.abort()
            text, nameless = refusal(der, self._server_name, bundle_of(self._spec), self._now())
        except (OSError, ValueError, TypeError, TimeoutError):
            return f"x509: {exc.verify_message}"
        if nameless:
            self._no_names()
        return text

    def _release(self, connection: Connection) -> None:
        address, context = self._made[connection]
        outdated = context is not self._context  # the certificate has changed while it was busy
        if self._closed or outdated or len(self._idle) >= MAX_IDLE:
            if connection.transport is not None:
                connection.transport.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append((address, connection))

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._made.pop(connection, None)
        self._idle = [entry for entry in self._idle if entry[1] is not connection]
