"""One extension API server, as one APIService describes it: how it is reached, and what the aggregator itself asks of it.

Upstream: kube-aggregator pkg/apiserver/handler_proxy.go and its controllers' clients.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from bowsprit.aggregator.connection import BackendError, Connection
from bowsprit.aggregator.framing import Head
from bowsprit.aggregator.pool import Pool
from bowsprit.aggregator.trust import ClientCertificate, TrustError
from bowsprit.machinery.names import GroupVersion
from bowsprit.machinery.objects import Obj, find_condition
from bowsprit.net.dial import Dialer, join_host_port

LARGEST_DOCUMENT = 32 << 20
Fields = Sequence[tuple[str, str]]

Resolve = Callable[[str, str, int], Awaitable[tuple[str, int]]]
"""Where a Service (namespace, name, port) is reached; raises LookupError with the text to tell."""


@dataclass(frozen=True, slots=True)
class Way:
    """What backends share: how services are found and reached, who we are, and the time."""

    resolve: Resolve
    dialer: Dialer
    client: ClientCertificate | None
    now: Callable[[], datetime]
    no_names: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete answer."""

    status: int
    body: bytes
    content_type: str = ""
    etag: str = ""


class Backend:
    """See the module's docstring. `failure` says why nobody can talk to it, "" if all is well with its spec."""

    def __init__(self, name: str, spec: Obj, way: Way) -> None:
        self.name = name
        self.spec = spec
        self.group_version = GroupVersion(spec.get("group", ""), spec["version"])
        service = spec["service"]
        self.service = (service.get("namespace", ""), service.get("name", ""), int(service.get("port") or 443))
        self.available = False
        self.failure = ""
        self.pool: Pool | None = None
        self._resolve = way.resolve
        server_name = f"{self.service[1]}.{self.service[0]}.svc"
        try:
            self.pool = Pool(spec, server_name, way.dialer, way.client, way.now, way.no_names)
        except TrustError as failure:
            self.failure = str(failure)

    @property
    def path(self) -> str:
        """Its discovery path."""
        group, version = self.group_version.group, self.group_version.version
        return f"/apis/{group}/{version}" if group else f"/api/{version}"

    def follow(self, item: Obj) -> None:
        """Requests are passed on while the APIService's condition says so, whoever wrote it."""
        condition = find_condition(item, "Available") or {}
        self.available = condition.get("status") == "True"

    def retire(self) -> None:
        """Its registration has changed or gone; requests that are under way go on."""
        if self.pool is not None:
            self.pool.retire()

    def close(self) -> None:
        """Close its connections."""
        if self.pool is not None:
            self.pool.close()

    async def address(self) -> tuple[str, int]:
        """Where it is now. Raises LookupError."""
        return await self._resolve(*self.service)

    async def fetch(self, address: tuple[str, int], path: str, fields: Fields) -> Fetched:
        """GET a document of bounded size. The caller sets the time limit.

        Raises:
            BackendError: no complete answer came.
        """
        pool = self.pool
        if pool is None:
            raise BackendError(self.failure)
        host = join_host_port(*address)
        request = request_bytes("GET", path, [("Host", host), *fields, ("Accept-Encoding", "gzip")])
        for fresh in (False, True):
            connection = await pool.acquire(*address, fresh=fresh)
            reused = connection.used
            collector = _Collector(connection)
            try:
                connection.begin(collector, request, bodiless=False)
                return await collector.done
            except BackendError as failure:
                if not (reused and failure.unanswered):
                    raise
            finally:
                if not collector.complete:
                    connection.abort()
        raise AssertionError("a fresh connection is never a reused one")

    async def ask(self, path: str, fields: Fields, user: str, groups: Sequence[str], seconds: float) -> Fetched:
        """GET as one of the aggregator's own users, as any other request goes; without an answer there is a 503."""
        if not self.available:
            return Fetched(503, b"service unavailable\n")
        try:
            address = await self.address()
            host = join_host_port(*address)
            identity = [("X-Remote-User", user), *(("X-Remote-Group", group) for group in groups)]
            forwarded = [("X-Forwarded-Host", host), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Uri", path)]
            async with asyncio.timeout(seconds):
                return await self.fetch(address, path, [*fields, *forwarded, *identity])
        except (LookupError, BackendError) as failure:
            return Fetched(503, f"error trying to reach service: {failure}\n".encode())
        except TimeoutError:
            return Fetched(503, b"request timed out")


def request_bytes(method: str, target: str, fields: Fields, body: bytes = b"") -> bytes:
    """A request as it goes onto the wire."""
    lines = [f"{method} {target} HTTP/1.1\r\n", *[f"{name}: {value}\r\n" for name, value in fields], "\r\n"]
    return "".join(lines).encode("utf-8", "surrogateescape") + body


class Gunzip:
    """Undoes gzip piece by piece, each as far as it goes."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(31)

    def feed(self, pieces: Sequence[bytes], largest: int = 0) -> bytes:
        """Content for compressed pieces; `largest` bounds it. Raises BackendError."""
        try:
            made = [self._stream.decompress(piece, largest) for piece in pieces]
        except zlib.error as exc:
            raise BackendError("gzip: invalid header") from exc
        if self._stream.unconsumed_tail:
            raise BackendError(f"the document is larger than {largest} bytes")
        return b"".join(made)


class _Collector:
    """An exchange whose answer is kept."""

    wants_payload = True

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._head: Head | None = None
        self._gunzip: Gunzip | None = None
        self._body = bytearray()
        self.complete = False
        self.done: asyncio.Future[Fetched] = asyncio.get_running_loop().create_future()

    def on_head(self, head: Head, *, more: bool) -> None:
        self._head = head
        if head.get(b"content-encoding").lower() == b"gzip":
            self._gunzip = Gunzip()

    def on_data(self, wire: bytes, payload: list[bytes]) -> None:
        try:
            if self._gunzip is not None:
                self._body += self._gunzip.feed(payload, LARGEST_DOCUMENT)
            else:
                self._body += b"".join(payload)
            if len(self._body) > LARGEST_DOCUMENT:
                raise BackendError(f"the document is larger than {LARGEST_DOCUMENT} bytes")
        except BackendError as failure:
            self._connection.abort()
            self.on_end(failure)

    def on_end(self, error: BackendError | None) -> None:
        self.complete = True
        if self.done.done():
            return
        head = self._head
        if error is not None or head is None:
            self.done.set_exception(error or BackendError("EOF"))
            return
        content_type = head.get(b"content-type").decode("latin-1")
        self.done.set_result(Fetched(head.status, bytes(self._body), content_type, head.get(b"etag").decode("latin-1")))
