"""One authenticated HTTP session to one API server: TLS, proxy, credentials, rate limit, retries, bounds."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import yarl

from bowsprit.client.config import RestConfig, load_client_certificate, tls_context
from bowsprit.client.credentials import ExecCredential, ExecPlugin, basic_auth, token_source
from bowsprit.client.errors import ConfigError, ConnectionFailed, ResponseTooLarge
from bowsprit.client.ratelimit import TokenBucket
from bowsprit.net.dial import Dialer, DirectDialer, proxy_dialer
from bowsprit.net.dial_connector import DialConnector
from bowsprit.net.proxy import ProxyRules

MAX_RETRIES = 10  # of answers with Retry-After (client-go rest.Request maxRetries)
_MAX_RETRY_AFTER = 60.0
_CONNECT_TIMEOUT = 30.0
_READ_BUFFER = 256 * 1024


@dataclass(frozen=True, slots=True)
class RawResponse:
    """An answer as it came; header names are case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Sends requests. Must be used, and closed, on one event loop."""

    def __init__(self, config: RestConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        scheme = urlsplit(config.server).scheme
        if scheme not in ("http", "https"):
            raise ConfigError(f"server {config.server!r}: the scheme must be https or http")
        self._https = scheme == "https"
        self._token = token_source(config, clock)
        self._plugin = ExecPlugin(config.exec_config, lambda: datetime.now(UTC)) if config.exec_config else None
        self._limiter = TokenBucket(config.qps, config.burst, clock)
        self._slots = asyncio.Semaphore(config.max_in_flight)
        self._dialer = _dialer(config)
        self._session: aiohttp.ClientSession | None = None
        self._session_certificate: bytes = b""
        self._closed = False

    async def close(self) -> None:
        """Close all connections; running requests fail."""
        self._closed = True
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> RawResponse:
        """One exchange with the whole answer in memory; retries what the server asks to retry (429/5xx with Retry-After).

        Raises ConnectionFailed or ResponseTooLarge. A GET is also repeated once when its connection broke.
        """
        attempt = 0
        while True:
            attempt += 1
            try:
                async with self._slots:
                    result = await self._exchange(method, path, params, body, headers, timeout)
            except ConnectionFailed:
                if method == "GET" and attempt == 1 and not self._closed:
                    continue
                raise
            delay = retry_after(result)
            if delay is None or attempt > MAX_RETRIES:
                return result
            await asyncio.sleep(delay)

    async def _exchange(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        timeout: float | None,
    ) -> RawResponse:
        async with self.open(method, path, params=params, body=body, headers=headers, timeout=timeout) as answer:
            content = await _read_bounded(answer, self.config.max_response_bytes)
            return RawResponse(answer.status, answer.headers, content)

    @asynccontextmanager
    async def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        endless: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange whose body the caller reads; ``endless`` means without a deadline for the whole."""
        await self._limiter.acquire()
        url = self.config.server + path + (f"?{urlencode(params, quote_via=quote)}" if params else "")
        total = None if endless else (timeout or self.config.timeout)
        limits = aiohttp.ClientTimeout(total=total, sock_connect=_CONNECT_TIMEOUT)
        sent: ExecCredential | None = None
        for attempt in (1, 2):
            credential = await self._plugin.credential(refused=sent) if self._plugin else None
            session = await self._ensure_session(credential)
            every = self._headers(credential)
            every.update(headers or {})
            try:
                async with session.request(
                    method, yarl.URL(url, encoded=True), data=body, headers=every, timeout=limits, allow_redirects=False
                ) as answer:
                    if answer.status == 401 and credential is not None and attempt == 1:
                        sent = credential  # as client-go: ask the plugin anew, once
                        continue
                    yield answer
                    return
            except aiohttp.ClientError as exc:
                raise ConnectionFailed(f"{method} {_shown(url)}: {_explain(exc)}") from exc
            except TimeoutError as exc:
                raise ConnectionFailed(f"{method} {_shown(url)}: no complete answer within {total}s") from exc

    async def _ensure_session(self, credential: ExecCredential | None) -> aiohttp.ClientSession:
        if self._closed:
            raise ConnectionFailed("the client is closed")
        certificate = credential.certificate if credential else b""
        if self._session is not None and certificate != self._session_certificate:
            old, self._session = self._session, None
            await old.close()
        if self._session is None:
            self._session_certificate = certificate
            context = tls_context(self.config) if self._https else None
            if context is not None and credential is not None and certificate:
                load_client_certificate(context, certificate, credential.key)
            connector = DialConnector(
                self._dialer, context=context, server_hostname=self.config.tls_server_name, limit=0
            )
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), read_bufsize=_READ_BUFFER
            )
        return self._session

    def _headers(self, credential: ExecCredential | None) -> dict[str, str]:
        headers = {"User-Agent": self.config.user_agent, "Accept": "application/json"}
        headers["Accept-Encoding"] = "identity" if self.config.disable_compression else "gzip"
        token = self._token() or (credential.token if credential else "")
        if token:
            headers["Authorization"] = f"Bearer {token}"
        elif self.config.username:
            headers["Authorization"] = basic_auth(self.config.username, self.config.password)
        if who := self.config.impersonate:
            headers["Impersonate-User"] = who.user
            if who.groups:
                headers["Impersonate-Group"] = ",".join(who.groups)
            if who.uid:
                headers["Impersonate-Uid"] = who.uid
            for key, values in who.extra.items():
                headers[f"Impersonate-Extra-{quote(key, safe='')}"] = ",".join(values)
        return headers


def retry_after(response: RawResponse) -> float | None:
    """Seconds to wait before trying again, or None if the answer is final (client-go: 429 or 5xx with the header)."""
    value = response.headers.get("Retry-After", "")
    if (response.status == 429 or response.status >= 500) and value.isdigit():
        return min(float(value), _MAX_RETRY_AFTER)
    return None


def with_component(config: RestConfig, component: str) -> RestConfig:
    """The same settings with the User-Agent of a component."""
    _, _, rest = config.user_agent.partition("/")
    return replace(config, user_agent=f"{component}/{rest}")


def _dialer(config: RestConfig) -> Dialer:
    if config.dialer is not None:
        return config.dialer
    url = config.proxy_url or ProxyRules.from_environment(os.environ).proxy_for(config.server)
    if not url:
        return DirectDialer(_CONNECT_TIMEOUT)
    try:
        return proxy_dialer(url)
    except ValueError as exc:
        raise ConfigError(f"proxy-url: {exc}") from exc


async def _read_bounded(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    if (answer.content_length or 0) > limit:
        raise ResponseTooLarge(f"answer of {answer.content_length} bytes exceeds the client's bound of {limit}")
    parts: list[bytes] = []
    size = 0
    async for chunk in answer.content.iter_any():
        size += len(chunk)
        if size > limit:
            raise ResponseTooLarge(f"answer exceeds the client's bound of {limit} bytes")
        parts.append(chunk)
    return b"".join(parts)


def _shown(url: str) -> str:
    return url.split("?", 1)[0]


def _explain(exc: Exception) -> str:
    cause: Any = getattr(exc, "os_error", None) or exc.__cause__ or exc
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
