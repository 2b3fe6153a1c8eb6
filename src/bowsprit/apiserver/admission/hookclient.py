"""Posting an AdmissionReview: one pooled HTTPS client for all webhooks of a server.

Upstream: k8s.io/apiserver/pkg/util/webhook/client.go. Failures are told with the words of Go's HTTP client, because operators
search for them.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bowsprit.machinery.codec import encode_json
from bowsprit.machinery.errors import generic
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj
from bowsprit.net.dial import Dialer
from bowsprit.pki.trusting import trusting

if TYPE_CHECKING:
    import aiohttp

_LARGEST_ANSWER = 3 << 20
_CONNECTIONS = 64
_HEADERS = {
    "User-Agent": "kube-apiserver-admission",
    "Accept": "application/json, */*",
    "Content-Type": "application/json",
    "Accept-Encoding": "gzip",
}

Resolve = Callable[[str, str, int], Awaitable[tuple[str, int]]]
"""Where a service (namespace, name, port) is reached; raises LookupError with the text to tell."""


class CallError(Exception):
    """A webhook could not be asked; the text is the cause."""


class HookClient:
    """See the module's docstring.

    Args:
        resolve: where services are.
        dialer: how services are reached when it is not directly (egress selection); then each call has its own connection.
        url_dialer: the same for webhooks given as URL.
    """

    def __init__(self, resolve: Resolve, dialer: Dialer | None = None, url_dialer: Dialer | None = None) -> None:
        self._resolve = resolve
        self._dialer = dialer
        self._url_dialer = url_dialer
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def close(self) -> None:
        """Close pooled connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def post(self, config: Obj, review: Obj, seconds: float) -> bytes:
        """The answer's body.

        Args:
            config: a WebhookClientConfig.
            review: what to send.
            seconds: the webhook's timeout; the connection is part of it.

        Raises:
            CallError: no good answer came in time.
        """
        import aiohttp

        from bowsprit.net.dial_connector import DialConnector

        url, target, server_name = await self._target(config, seconds)
        context = self._context(config.get("caBundle") or "")
        try:
            async with asyncio.timeout(seconds):
                dialer = self._url_dialer if server_name is None else self._dialer
                if dialer is not None:
                    connector = DialConnector(dialer, context=context, server_hostname=server_name or "")
                    async with aiohttp.ClientSession(connector=connector, headers=_HEADERS) as session:
                        status, body = await _exchange(session, target, review)
                else:
                    status, body = await _exchange(self._pooled(), target, review, context, server_name)
        except TimeoutError:
            raise CallError(f"Post {quote(url)}: context deadline exceeded") from None
        except aiohttp.ClientError as exc:
            raise CallError(f"Post {quote(url)}: {_cause(exc)}") from exc
        if len(body) > _LARGEST_ANSWER:
            raise CallError(f"Post {quote(url)}: the answer is larger than {_LARGEST_ANSWER} bytes")
        if not 200 <= status < 300:
            raise CallError(_refusal(status, body))
        return body

    def _pooled(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
            self._session = aiohttp.ClientSession(connector=connector, headers=_HEADERS)
        return self._session

    async def _target(self, config: Obj, seconds: float) -> tuple[str, str, str | None]:
        """(the URL to tell, the URL to dial, the name that the certificate must have)."""
        query = f"timeout={int(seconds)}s"
        service = config.get("service")
        if not service:
            url = str(config.get("url") or "")
            joined = f"{url}{'&' if '?' in url else '?'}{query}"
            return joined, joined, None
        namespace, name, port = service.get("namespace", ""), service.get("name", ""), int(service.get("port") or 443)
        path = service.get("path") or ""
        path = path if not path or path.startswith("/") else f"/{path}"
        server_name = f"{name}.{namespace}.svc"
        url = f"https://{server_name}:{port}{path}?{query}"
        try:
            host, target_port = await self._resolve(namespace, name, port)
        except LookupError as exc:
            raise CallError(f"Post {quote(url)}: {exc.args[0] if exc.args else exc}") from exc
        host = f"[{host}]" if ":" in host else host
        return url, f"https://{host}:{target_port}{path}?{query}", server_name

    def _context(self, bundle: str) -> ssl.SSLContext:
        context = self._contexts.get(bundle)
        if context is None:
            if len(self._contexts) >= _CONNECTIONS:
                self._contexts.clear()
            try:
                context = trusting(b64decode(bundle))
            except (ValueError, ssl.SSLError) as exc:
                raise CallError(f"unable to load root certificates: {exc}") from exc
            self._contexts[bundle] = context
        return context


async def _exchange(
    session: aiohttp.ClientSession,
    url: str,
    review: Obj,
    context: ssl.SSLContext | bool = True,
    server_name: str | None = None,
) -> tuple[int, bytes]:
    """Status and body (at most one byte more than may be)."""
    async with session.post(
        url, data=encode_json(review), ssl=context, server_hostname=server_name, allow_redirects=False
    ) as answer:
        body = bytearray()
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > _LARGEST_ANSWER:
                break
        return answer.status, bytes(body)


def _cause(exc: aiohttp.ClientError) -> str:
    import aiohttp

    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: x509: {exc.certificate_error}"
    if isinstance(exc, aiohttp.ClientConnectorSSLError):
        return f"remote error: tls: {exc}"
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {exc.host}: no such host"
    if isinstance(exc, aiohttp.ClientConnectorError):
        words = {
            errno.ECONNREFUSED: "connection refused",
            errno.ENETUNREACH: "network is unreachable",
            errno.EHOSTUNREACH: "no route to host",
            errno.ETIMEDOUT: "i/o timeout",
        }
        number = exc.os_error.errno or 0
        return f"dial tcp {exc.host}:{exc.port}: connect: {words.get(number, exc.os_error.strerror or str(exc))}"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(exc, aiohttp.InvalidURL):
        return f"unsupported protocol scheme {quote(urlsplit(str(exc)).scheme)}"
    return str(exc) or type(exc).__name__


def _refusal(status: int, body: bytes) -> str:
    """What client-go makes of an answer that is no success (NewGenericServerResponse)."""
    if status >= 500:
        text = body[:2048].decode("utf-8", "replace").strip() or "unknown"
        if status not in (503, 504):
            return f"an error on the server ({quote(text)}) has prevented the request from succeeding"
    return generic(status).message
