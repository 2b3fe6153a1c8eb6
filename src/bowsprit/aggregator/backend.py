"""One extension API server: how it is reached, and what is asked of it.

Upstream: kube-aggregator pkg/apiserver/{handler_proxy,handler_discovery}.go. The server name of TLS is always `<service>.<namespace>.svc`,
whatever address is dialled; the front proxy's client certificate says that the X-Remote-* headers may be believed.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64decode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bowsprit.aggregator.availability import PASSED, Condition, discovery_entries, unreachable
from bowsprit.machinery.codec import decode_json
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupVersion
from bowsprit.machinery.objects import Obj
from bowsprit.net.dial import Dialer, DialError
from bowsprit.net.dial_connector import DialConnector

if TYPE_CHECKING:
    import aiohttp

PROBES = 5
PROBE_SECONDS = 5.0
_LARGEST_DOCUMENT = 32 << 20
_CONNECTIONS = 32
_AGGREGATED = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"
)
AGGREGATOR_HEADERS = {"X-Remote-User": "system:kube-aggregator", "X-Remote-Group": "system:masters"}

Resolve = Callable[[str, str, int], Awaitable[tuple[str, int]]]
"""Where a Service (namespace, name, port) is reached; raises LookupError with the text to tell."""


class Backend:
    """The server behind one APIService's spec.

    Args:
        spec: the APIService's spec; it must name a service.
        client_certificate: certificate and key of the front proxy, if there are any.

    Raises:
        ValueError: the CA bundle or the certificate cannot be used.
    """

    def __init__(
        self, spec: Obj, resolve: Resolve, dialer: Dialer, client_certificate: tuple[Path, Path] | None
    ) -> None:
        self.spec = spec
        self.group_version = GroupVersion(spec.get("group", ""), spec["version"])
        self._resolve = resolve
        service = spec["service"]
        self._service = (service.get("namespace", ""), service.get("name", ""), int(service.get("port") or 443))
        self._server_name = f"{self._service[1]}.{self._service[0]}.svc"
        self._dialer = dialer
        self._context = _context(spec, client_certificate)
        self._session: aiohttp.ClientSession | None = None
        self.available = False

    @property
    def path(self) -> str:
        """Its discovery path."""
        group_version = self.group_version
        return f"/apis/{group_version.group}/{group_version.version}"

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def url(self) -> str:
        """The address now. Raises LookupError."""
        host, port = await self._resolve(*self._service)
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    @property
    def session(self) -> aiohttp.ClientSession:
        """The pooled client."""
        import aiohttp

        if self._session is None:
            connector = DialConnector(
                self._dialer, context=self._context, server_hostname=self._server_name, limit=_CONNECTIONS
            )
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._session

    async def probe(self) -> Condition:
        """Ask five times at once; one good answer is enough."""
        try:
            url = await self.url() + self.path
        except LookupError as exc:
            return unreachable(f"failing or missing response from {self.path}: {exc.args[0] if exc.args else exc}")
        tasks = [asyncio.ensure_future(self._probe_once(url)) for _ in range(PROBES)]
        problem = ""
        try:
            for finished in asyncio.as_completed(tasks):
                problem = await finished
                if not problem:
                    return PASSED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return unreachable(problem)

    async def _probe_once(self, url: str) -> str:
        import aiohttp

        try:
            async with (
                asyncio.timeout(PROBE_SECONDS),
                self.session.get(url, headers=AGGREGATOR_HEADERS, allow_redirects=False) as answer,
            ):
                return "" if 200 <= answer.status < 300 else f"bad status from {url}: {answer.status}"
        except TimeoutError:
            return f"failing or missing response from {url}: Get {quote(url)}: context deadline exceeded"
        except (aiohttp.ClientError, DialError, OSError) as exc:
            return f"failing or missing response from {url}: Get {quote(url)}: {failure_text(exc)}"

    async def resources(self) -> list[Obj]:
        """Its resources as aggregated discovery has them. Raises LookupError when it does not tell."""
        status, kind, body = await self._get("/apis", _AGGREGATED)
        if status == 200 and "as=APIGroupDiscoveryList" in kind:
            for group in _decoded(body).get("items") or ():
                if group.get("metadata", {}).get("name") == self.group_version.group:
                    for version in group.get("versions") or ():
                        if version.get("version") == self.group_version.version:
                            return list(version.get("resources") or ())
        status, _, body = await self._get(self.path, "application/json")
        if status != 200:
            raise LookupError(f"discovery answered {status}")
        return discovery_entries(_decoded(body).get("resources") or ())

    async def openapi(self) -> Obj | None:
        """Its OpenAPI v3 document, None when it has none."""
        try:
            path = f"/openapi/v3{self.path}"
            status, _, body = await self._get(path, "application/json")
        except LookupError:
            return None
        return _decoded(body) if status == 200 else None

    async def _get(self, path: str, accept: str) -> tuple[int, str, bytes]:
        import aiohttp

        headers = {**AGGREGATOR_HEADERS, "Accept": accept, "Accept-Encoding": "identity"}
        try:
            url = await self.url() + path
            async with (
                asyncio.timeout(PROBE_SECONDS),
                self.session.get(url, headers=headers, allow_redirects=False) as answer,
            ):
                body = bytearray()
                async for piece in answer.content.iter_any():
                    body += piece
                    if len(body) > _LARGEST_DOCUMENT:
                        raise LookupError(f"{path} is larger than {_LARGEST_DOCUMENT} bytes")
                return answer.status, answer.headers.get("Content-Type", ""), bytes(body)
        except (aiohttp.ClientError, DialError, OSError, TimeoutError) as exc:
            raise LookupError(failure_text(exc)) from exc


def _decoded(body: bytes) -> Obj:
    try:
        value: Any = decode_json(body)
    except DecodeError as exc:
        raise LookupError(f"malformed document: {exc}") from exc
    if not isinstance(value, dict):
        raise LookupError("malformed document: no JSON object")
    return value


def failure_text(exc: BaseException) -> str:
    """Why a connection failed, in Go's words where operators know them."""
    import aiohttp

    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        reason = getattr(exc.certificate_error, "verify_message", "") or str(exc.certificate_error)
        unknown = "self-signed" in reason or "unable to get" in reason
        text = "certificate signed by unknown authority" if unknown else reason
        return f"tls: failed to verify certificate: x509: {text}"
    if isinstance(exc, aiohttp.ClientConnectorError):
        if isinstance(exc.os_error, ConnectionRefusedError):
            return f"dial tcp {exc.host}:{exc.port}: connect: connection refused"
        return f"dial tcp {exc.host}:{exc.port}: {exc.os_error.strerror or exc.os_error}"
    if isinstance(exc, aiohttp.ServerDisconnectedError):
        return "EOF"
    return str(exc) or type(exc).__name__


def _context(spec: Obj, client_certificate: tuple[Path, Path] | None) -> ssl.SSLContext:
    bundle = spec.get("caBundle") or ""
    try:
        context = ssl.create_default_context(cadata=b64decode(bundle).decode() if bundle else None)
        if spec.get("insecureSkipTLSVerify"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if client_certificate is not None:
            context.load_cert_chain(*client_certificate)
    except (OSError, ValueError, ssl.SSLError) as exc:
        raise ValueError(f"cannot use the CA bundle or the proxy client certificate: {exc}") from exc
    return context
