"""An aiohttp connector on top of a Dialer: the dialer makes the socket, TLS and HTTP go over it."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

from aiohttp import BaseConnector, ClientConnectorCertificateError, ClientConnectorError, ClientConnectorSSLError
from aiohttp.client_proto import ResponseHandler

from bowsprit.net.dial import Dialer, discard

if TYPE_CHECKING:
    from aiohttp import ClientRequest


class DialConnector(BaseConnector):
    """Connections of one aiohttp session.

    Args:
        dialer: opens the raw connection, perhaps through a proxy.
        context: used for https URLs; required for them.
        server_hostname: the name to verify and send as SNI, if it is not the URL's host.
    """

    def __init__(
        self,
        dialer: Dialer,
        *,
        context: ssl.SSLContext | None = None,
        server_hostname: str = "",
        limit: int = 0,
        keepalive_timeout: float = 60.0,
        handshake_timeout: float = 10.0,
    ) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        self._dialer = dialer
        self._context = context
        self._server_hostname = server_hostname
        self._handshake_timeout = handshake_timeout

    async def _create_connection(self, req: ClientRequest, traces: list[Any], timeout: Any) -> ResponseHandler:
        host = req.url.raw_host
        port = req.url.port
        if host is None or port is None:
            raise ValueError(f"no host in URL {req.url}")
        options: dict[str, Any] = {}
        if req.url.scheme == "https":
            if self._context is None:
                raise ValueError("a https URL needs a TLS context")
            options = {
                "ssl": self._context,
                "server_hostname": (self._server_hostname or host).rstrip("."),
                "ssl_handshake_timeout": self._handshake_timeout,
            }
        try:
            async with asyncio.timeout(timeout.sock_connect):
                sock = await self._dialer.open(host, port)
                try:
                    _, protocol = await asyncio.get_running_loop().create_connection(
                        self._factory, sock=sock, **options
                    )
                except BaseException:
                    discard(sock)
                    raise
        except ssl.CertificateError as exc:
            raise ClientConnectorCertificateError(req.connection_key, exc) from exc
        except ssl.SSLError as exc:
            raise ClientConnectorSSLError(req.connection_key, exc) from exc
        except TimeoutError as exc:
            raise ClientConnectorError(req.connection_key, OSError(None, "i/o timeout")) from exc
        except OSError as exc:
            # aiohttp prints strerror, which a DialError has not.
            said = exc if exc.strerror else OSError(None, str(exc))
            raise ClientConnectorError(req.connection_key, said) from exc
        assert isinstance(protocol, ResponseHandler)
        return protocol
