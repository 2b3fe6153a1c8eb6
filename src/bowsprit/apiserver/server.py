"""The server: the chain that every request goes through, and its life from start to graceful end.

The order is upstream's (DefaultBuildHandlerChain): failures become a 500, audit id, request info, timeout, authentication,
impersonation, limits, authorization, then the endpoint. It is written as one function instead of nested handlers: a GET
passes it in a few microseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from random import getrandbits
from time import perf_counter
from typing import Any, cast
from uuid import UUID

from aiohttp import web

from bowsprit.apiserver import dispatch, tls
from bowsprit.apiserver.access import (
    Attributes,
    Authenticator,
    Authorizer,
    Credentials,
    Decision,
    Impersonator,
    forbidden_error,
)
from bowsprit.apiserver.admit import Admission, AllowAll
from bowsprit.apiserver.answer import NOSNIFF, TEXT, Answer, Sent, header_lines, not_found_answer
from bowsprit.apiserver.collection import World
from bowsprit.apiserver.connection import ConnectionHandler, HTTPServer, Request
from bowsprit.apiserver.discovery import DiscoveryIndex
from bowsprit.apiserver.health import Health
from bowsprit.apiserver.housekeeping import keep_house
from bowsprit.apiserver.inflight import InFlight
from bowsprit.apiserver.metrics import Metrics
from bowsprit.apiserver.openapi import OpenAPI
from bowsprit.apiserver.registry import Registry
from bowsprit.apiserver.representation import status_answer
from bowsprit.apiserver.request import RequestContext, RequestInfo, request_info
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.codec import encode_json
from bowsprit.machinery.errors import StatusError, internal_error
from bowsprit.machinery.names import GroupVersion
from bowsprit.store.protocol import Store, StoreError

logger = logging.getLogger("bowsprit.apiserver")

Handler = Callable[[RequestContext, web.BaseRequest], Awaitable["Answer | Sent | web.StreamResponse"]]

_MAX_WARNING_BYTES = 4096
_MAX_WARNING_CHARS = 256
_WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
# Upstream's timeout filter lies outside the chain: it knows neither the client's wishes nor the flow control's headers.
_TIMED_OUT = encode_json(
    {
        "metadata": {},
        "status": "Failure",
        "message": "Timeout: request did not complete within the allotted timeout",
        "reason": "Timeout",
        "details": {},
        "code": 504,
    }
)
_NOT_FOR_MACHINES = (
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for "
    "debugging purposes only."
)
_PANIC = "This request caused apiserver to panic. Look in the logs for details."


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Limits and names of a server. Times are in seconds."""

    max_requests_in_flight: int = 400
    max_mutating_requests_in_flight: int = 200
    request_timeout: float = 60.0
    write_timeout: float = 34.0
    shutdown_delay: float = 0.0
    shutdown_timeout: float = 60.0
    flow_schema_uid: str = ""  # for X-Kubernetes-PF-FlowSchema-UID; made up when empty
    priority_level_uid: str = ""
    version: Mapping[str, str] = field(default_factory=dict)  # the body of /version
    flags: Mapping[str, str] = field(default_factory=dict)  # for /flagz; no secrets
    server_address: str = ""  # in legacy /api: host:port that clients should use


def new_uuid() -> str:
    """A random UUID for an audit id: it must be distinct, not secret."""
    return str(UUID(int=getrandbits(128), version=4))


class Server:
    """See the module's docstring. Kinds are added to `registry`, other paths with `mount`."""

    def __init__(
        self,
        store: Store,
        *,
        authenticator: Authenticator,
        authorizer: Authorizer,
        impersonator: Impersonator | None = None,
        admission: Admission | None = None,
        options: ServerOptions | None = None,
        world: World | None = None,
    ) -> None:
        self.options = options or ServerOptions()
        self.world = world or World()
        self.store = store
        self.registry = Registry(store, self.world)
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.impersonator = impersonator
        self.admission: Admission = admission or AllowAll()
        self.metrics = Metrics(self.registry)
        self.health = Health(self.world.monotonic)
        self.in_flight = InFlight(self.options.max_requests_in_flight, self.options.max_mutating_requests_in_flight)
        self.metrics.in_flight = self.in_flight
        self.discovery = DiscoveryIndex(self.registry, self.options.server_address)
        self.openapi = OpenAPI()
        self._paths: dict[str, Handler] = {}
        self._prefixes: dict[str, Handler] = {}
        self._group_versions: dict[tuple[str, str], Handler] = {}
        self._flow = header_lines(
            [
                ("X-Kubernetes-Pf-Flowschema-Uid", self.options.flow_schema_uid or new_uuid()),
                ("X-Kubernetes-Pf-Prioritylevel-Uid", self.options.priority_level_uid or new_uuid()),
            ]
        )
        self._created = self.world.monotonic()
        self._http: HTTPServer | None = None
        self._listeners: list[asyncio.Server] = []
        self._shutting_down = False
        self._housekeeping: asyncio.Task[None] | None = None
        self.health.add("loopback-serving-certificate", self._check_listening, readyz=False)
        self.health.add("etcd", self._check_store, readyz=False)
        self.health.add("informer-sync", self._check_ready, livez=False, healthz=False)
        dispatch.mount_standard(self)

    async def _check_listening(self) -> None:
        """Good once the server listens: it is its own client without a certificate of its own."""
        if not self._listeners:
            raise RuntimeError("the server does not listen yet")

    async def _check_ready(self) -> None:
        """Requests can be served: the server listens and its storage answers."""
        await self._check_listening()
        await self._check_store()

    async def _check_store(self) -> None:
        """The health check with upstream's name: whether the storage answers."""
        await self.store.get("/registry/health")

    def set_flow_control(self, flow_schema_uid: str, priority_level_uid: str) -> None:
        """The UIDs that answers name as the flow schema and priority level that let them through."""
        self._flow = header_lines(
            [
                ("X-Kubernetes-Pf-Flowschema-Uid", flow_schema_uid),
                ("X-Kubernetes-Pf-Prioritylevel-Uid", priority_level_uid),
            ]
        )

    # -- what is served ------------------------------------------------------------------------------------------------

    def mount(self, path: str, handler: Handler, *, prefix: bool = False) -> None:
        """Serves a path, or everything below it (`prefix`), after authentication and authorization."""
        (self._prefixes if prefix else self._paths)[path] = handler

    def unmount(self, path: str) -> None:
        self._paths.pop(path, None)
        self._prefixes.pop(path, None)

    def mount_group_version(self, group: str, version: str, handler: Handler) -> None:
        """Hands everything below /apis/<group>/<version> (/api/<version>) to a handler: it wins over the registry."""
        self._group_versions[group, version] = handler

    def unmount_group_version(self, group: str, version: str) -> None:
        self._group_versions.pop((group, version), None)

    def mounted_group_versions(self) -> Sequence[tuple[str, str]]:
        return list(self._group_versions)

    def index(self) -> list[str]:
        """Every path that is served, for /."""
        paths = {*self._paths, *self.health.paths(), "/apis/"} - {"/", "/api/", "/version/"}
        for gv in (*self.registry.group_versions(), *(GroupVersion(*each) for each in self._group_versions)):
            if gv.group:
                paths |= {f"/apis/{gv.group}", f"/apis/{gv.group}/{gv.version}"}
            else:
                paths.add(f"/api/{gv.version}")
        return sorted(paths)

    def status_page(self) -> str:
        """/statusz: the process in a few lines for people (upstream component-base/zpages/statusz)."""
        up = int(self.world.monotonic() - self._created)
        started = self.world.now() - timedelta(seconds=up)
        version = self.options.version
        return (
            f"\napiserver statusz\n{_NOT_FOR_MACHINES}\n\n"
            f"Started: {started:%a %b %e %H:%M:%S UTC %Y}\nUp: {up // 3600} hr {up // 60 % 60:02} min {up % 60:02} sec\n"
            f"Go version: {version.get('goVersion', '')}\nBinary version: {version.get('gitVersion', '').removeprefix('v')}\n"
            f"Emulation version: {version.get('emulationMajor', '')}.{version.get('emulationMinor', '')}\n"
            "Paths: /flagz /healthz /livez /metrics /readyz /statusz /version\n"
        )

    def flags_page(self) -> str:
        """/flagz: the command line's settings (upstream component-base/zpages/flagz)."""
        lines = "".join(f"{name}={value}\n" for name, value in sorted(self.options.flags.items()))
        return f"\napiserver flagz\n{_NOT_FOR_MACHINES}\n\n{lines}"

    # -- life ----------------------------------------------------------------------------------------------------------

    async def start(
        self, host: str | Sequence[str], port: int, ssl_context: ssl.SSLContext | None = None
    ) -> tuple[str, int]:
        """Listens; gives the address of the first socket. The context is made to ask for client certificates."""
        loop = asyncio.get_running_loop()
        if ssl_context is not None:
            tls.ask_for_client_certificates(ssl_context)
        self._http = self._http or HTTPServer(self._handle, loop)
        listener = await loop.create_server(
            cast(Any, self._http), host, port, ssl=ssl_context, backlog=1024, reuse_address=True
        )
        self._listeners.append(listener)
        if self._housekeeping is None:
            self._housekeeping = asyncio.create_task(keep_house(self.registry), name="housekeeping")
        name = listener.sockets[0].getsockname()
        return name[0], name[1]

    async def stop(self) -> None:
        """Fails readiness, waits the delay, stops listening, drains, ends the watches, closes connections."""
        if self._shutting_down:
            return
        self._shutting_down = True
        self.health.shutting_down = True
        if self.options.shutdown_delay:
            await asyncio.sleep(self.options.shutdown_delay)
        for listener in self._listeners:
            listener.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.options.shutdown_timeout):
                await self.in_flight.drained()
        self.registry.stop()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeping
        await asyncio.sleep(0)
        if self._http is not None:
            self._http.pre_shutdown()
            await self._http.shutdown(timeout=2.0)
        for listener in self._listeners:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await listener.wait_closed()

    # -- the chain ---------------------------------------------------------------------------------------------------

    async def _handle(self, request: Request) -> Answer | Sent | web.StreamResponse:
        """From a request to its answer; nothing escapes but cancellation."""
        begun = self.world.monotonic()
        headers = request.headers
        audit_id = headers.get("Audit-Id", "")[:64] or new_uuid()
        ctx = RequestContext(
            RequestInfo("", ""),
            _NOBODY,
            self.world.now(),
            audit_id,
            user_agent=headers.get("User-Agent", ""),
        )
        exchange = _Exchange(self, request, ctx)
        answer: Answer | Sent | web.StreamResponse
        try:
            answer = await exchange.run()
        except StatusError as failure:
            answer = status_answer(failure, headers.get("Accept", ""), ctx)
        except StoreError as failure:
            logger.error("%s %s: %s", request.method, request.path, failure)
            answer = status_answer(internal_error(str(failure)), headers.get("Accept", ""), ctx)
        except TimeoutError:
            answer = Answer(504, _TIMED_OUT, TEXT)
            exchange.time_out()
        except ConnectionError:
            return Sent(499, 0, keep_alive=False)
        except Exception:
            logger.exception("%s %s panicked (audit id %s)", request.method, request.path, audit_id)
            answer = status_answer(internal_error(_PANIC), headers.get("Accept", ""), ctx)
        finally:
            exchange.release()
        if isinstance(answer, Answer):
            answer.common = exchange.common(answer)
            if not answer.gzip and "Accept-Encoding" in headers:
                answer.gzip = "gzip" in headers["Accept-Encoding"]
        self.metrics.observe(ctx, exchange.sort, answer, self.world.monotonic() - begun)
        return answer


_NOBODY = UserInfo("")
_DECISIONS = {Decision.ALLOW: "allowed", Decision.DENY: "denied", Decision.NO_OPINION: "no-opinion"}


class _Exchange:
    """One request on its way through the chain."""

    __slots__ = ("_admitted", "_counted", "_nosniff", "ctx", "request", "server", "sort")

    def __init__(self, server: Server, request: Request, ctx: RequestContext) -> None:
        self.server = server
        self.request = request
        self.ctx = ctx
        self.sort = ""  # "read", "write" or "long": how the request is counted
        self._counted = False
        self._admitted = False
        self._nosniff = False

    async def run(self) -> Answer | Sent | web.StreamResponse:
        server, request, ctx = self.server, self.request, self.ctx
        raw = request._message.path
        if "?" in raw:
            ctx.query = cast(Mapping[str, str], request.query)
            path = request.path
        else:
            path = request.path if "%" in raw else raw
        info = ctx.info = request_info(request.method, path, ctx.query)
        await self._authenticate()
        self._limit(info)
        attributes = Attributes(
            ctx.user,
            info.verb,
            info.group,
            info.version,
            info.resource,
            info.subresource,
            info.namespace,
            info.name,
            path,
            info.is_resource,
            info.field_selector,
            info.label_selector,
        )
        begun = perf_counter()
        decision, reason = await server.authorizer.authorize(attributes)
        server.metrics.authorized(_DECISIONS[decision], perf_counter() - begun)
        if decision is not Decision.ALLOW:
            raise forbidden_error(attributes, reason)
        if info.is_resource and (self.sort == "read" or (info.group, info.version) in server._group_versions):
            return await dispatch.resource(server, self)  # other servers' handlers have limits of their own
        if self.sort == "long":
            return await self._dispatch(info)
        limit = (
            server.options.write_timeout
            if info.verb in _WRITES and info.is_resource
            else server.options.request_timeout
        )
        async with asyncio.timeout(limit):
            return await self._dispatch(info)

    async def _dispatch(self, info: RequestInfo) -> Answer | Sent | web.StreamResponse:
        server = self.server
        if info.is_resource:
            return await dispatch.resource(server, self)
        handler = server._paths.get(info.path)
        if handler is None:
            handler = self._handler_below(info.path)
        if handler is None:
            return not_found_answer()
        return await self.mounted(handler)

    def _handler_below(self, path: str) -> Handler | None:
        parts = path.rstrip("/").split("/")
        if len(parts) == 4 and parts[1] == "apis":
            foreign = self.server._group_versions.get((parts[2], parts[3]))
            if foreign is not None:
                return foreign
        if len(parts) == 3 and parts[1] == "api":
            foreign = self.server._group_versions.get(("", parts[2]))
            if foreign is not None:
                return foreign
        found = dispatch.discovery_handler(self.server, path.split("/"))
        if found is not None:
            return found
        best = ""
        for prefix in self.server._prefixes:
            if path.startswith(prefix) and len(prefix) > len(best):
                best = prefix
        return self.server._prefixes[best] if best else None

    async def mounted(self, handler: Handler) -> Answer | Sent | web.StreamResponse:
        """Runs a handler that makes its own answer."""
        self.request.common = self.common()
        self.ctx.http = self.request
        return await handler(self.ctx, self.request)

    async def _authenticate(self) -> None:
        server, request, ctx = self.server, self.request, self.ctx
        headers = request.headers
        connection = cast(ConnectionHandler, request.protocol).peer
        protocols: Sequence[str] = ()
        if "Sec-WebSocket-Protocol" in headers:
            protocols = [name.strip() for name in headers["Sec-WebSocket-Protocol"].split(",")]
        attempts = server.metrics.authentication
        begun = perf_counter()
        try:
            authenticated = await server.authenticator.authenticate(Credentials(headers, connection, protocols))
        except StatusError:
            attempts["error"] += 1
            raise
        if authenticated is None:
            attempts["failure"] += 1
            raise StatusError("Unauthorized", code=401, reason="Unauthorized")
        attempts["success"] += 1
        ctx.user = authenticated.user
        server.metrics.authenticated(ctx.user.name, perf_counter() - begun)
        if server.impersonator is not None and _impersonates(headers):
            info = ctx.info
            wanted = Attributes(
                ctx.user,
                info.verb,
                info.group,
                info.version,
                info.resource,
                info.subresource,
                info.namespace,
                info.name,
                info.path,
                info.is_resource,
            )
            try:
                user = await server.impersonator.impersonate(ctx.user, headers, wanted)
            except StatusError:
                self._nosniff = True  # upstream's filter answers every refusal like a 403
                raise
            if user is not None:
                ctx.user = user

    def _limit(self, info: RequestInfo) -> None:
        """Max-in-flight: 429 beyond the limits; long-running requests do not count."""
        self.sort = self.server.in_flight.sort_of(info, self.request.method)
        self._admitted = True
        self.server.in_flight.enter(self.sort, self.ctx.user)
        self._counted = True
        if self.sort == "long":
            self.server.metrics.long_running(self.ctx, 1)

    def time_out(self) -> None:
        """The answer is not the chain's own."""
        self._admitted = False

    def release(self) -> None:
        """Gives the place among the requests in flight back."""
        if self._counted:
            self._counted = False
            self.server.in_flight.leave(self.sort)
            if self.sort == "long":
                self.server.metrics.long_running(self.ctx, -1)

    # -- headers -------------------------------------------------------------------------------------------------------

    def common(self, answer: Answer | None = None) -> bytes:
        """The header lines that every answer of this request has."""
        own_caching = answer is not None and any(name == "Cache-Control" for name, _ in answer.headers)
        lines = f"Audit-Id: {self.ctx.audit_id.translate(_SAFE)}\r\n".encode("utf-8", "replace")
        if not own_caching:
            lines += b"Cache-Control: no-cache, private\r\n"
        if self._admitted:
            lines += self.server._flow
        if self._nosniff and answer is not None and NOSNIFF not in answer.headers:
            lines += header_lines([NOSNIFF])
        if self.ctx.warnings:
            lines += header_lines(("Warning", text) for text in warning_values(self.ctx.warnings))
        return lines


_SAFE = dict.fromkeys((*range(32), 127))


def _impersonates(headers: Mapping[str, str]) -> bool:
    return (
        "Impersonate-User" in headers
        or "Impersonate-Group" in headers
        or "Impersonate-Uid" in headers
        or any(map(_is_impersonated_extra, headers))
    )


@lru_cache(1024)
def _is_impersonated_extra(name: str) -> bool:
    return name.lower().startswith("impersonate-extra-")


def warning_values(texts: Sequence[str]) -> list[str]:
    """Warning header values: quoted, at most 4 KiB together (upstream warning.recorder)."""
    total = sum(len(text.encode()) for text in texts)
    if total > _MAX_WARNING_BYTES:
        texts = [text if len(text) <= _MAX_WARNING_CHARS else text[:_MAX_WARNING_CHARS] for text in texts]
    values = []
    size = 0
    for text in texts:
        size += len(text.encode())
        if size > _MAX_WARNING_BYTES:
            break
        clean = "".join(char if char.isprintable() else " " for char in text)
        escaped = clean.replace("\\", "\\\\").replace('"', '\\"')
        values.append(f'299 - "{escaped}"')
    return values
