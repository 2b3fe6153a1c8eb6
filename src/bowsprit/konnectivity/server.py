"""The proxy-server: listeners, their TLS, authentication of agents, endpoints, bounded shutdown."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import random
import socket
import ssl
import stat
import time
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

from bowsprit.client.rest import RestClient
from bowsprit.konnectivity import godial, kubeclient, pages, serveroptions
from bowsprit.konnectivity.backends import Backends, parse_strategies
from bowsprit.konnectivity.certificates import CertificateError, server_context
from bowsprit.konnectivity.identifiers import Identifiers
from bowsprit.konnectivity.leases import LeaseController
from bowsprit.konnectivity.links import Backend
from bowsprit.konnectivity.metrics import CONTENT_TYPE
from bowsprit.konnectivity.negotiation import identity, peer_window, probe_interval
from bowsprit.konnectivity.pages import Page, PageServer, Request
from bowsprit.konnectivity.profiling import Profiling
from bowsprit.konnectivity.router import FROM_AGENT, FROM_CLIENT, Router
from bowsprit.konnectivity.servermetrics import ServerMetrics
from bowsprit.konnectivity.serveroptions import MODE_GRPC, OptionsError, ServerOptions
from bowsprit.konnectivity.serverports import AgentStream, GrpcFrontend, HttpFrontend
from bowsprit.konnectivity.tokens import TokenAuthenticator, TokenRejectedError
from bowsprit.net.egress.packets import CONNECT, PROXY, WINDOW_HEADER
from bowsprit.net.grpc import metadata as md
from bowsprit.net.grpc.limits import MIB, Options
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.server import Server
from bowsprit.net.grpc.status import Status, StatusCode
from bowsprit.net.grpc.stream import Stream, StreamHandler
from bowsprit.net.grpc.transport import GrpcProtocol

log = logging.getLogger(__name__)

T = TypeVar("T")
_NANO = 1e9
_BACKLOG = 1024
_HANDSHAKE_TIMEOUT = 30.0
_AGENT_STREAM_WINDOW = 8 * MIB
_POLL = 0.02
_PROBE_TIMEOUT = 5.0  # an agent of ours that does not answer for so long is gone: the network may have lost it silently


class ServerError(Exception):
    """The server cannot start; the message is upstream's."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    """An agent's Connect, before it is admitted."""

    protocol: GrpcProtocol
    stream: Stream
    headers: Metadata
    port: AgentStream
    agent_id: str
    identifiers: Identifiers


class ProxyServer:
    """One server. ``agent_port``, ``server_port``, ``admin_port`` and ``health_port`` are known after ``start``.

    With ``validate=False`` ports may be 0: a free one is taken (tests, and servers inside another process).
    """

    def __init__(self, options: ServerOptions, *, validate: bool = True) -> None:
        self.options = options
        self.server_id = options.server_id or os.environ.get("PROXY_SERVER_ID") or str(uuid.uuid4())
        self.metrics = ServerMetrics()
        self.server_port = self.agent_port = self.admin_port = self.health_port = 0
        self._validate = validate
        self._client: RestClient | None = None
        self._authenticator: TokenAuthenticator | None = None
        self._leases: LeaseController | None = None
        self._agents: Server | None = None
        self._frontends: Server | None = None
        self._http_listener: asyncio.Server | None = None
        self._http: set[HttpFrontend] = set()
        self._admin: PageServer | None = None
        self._health: PageServer | None = None
        self._admissions: set[asyncio.Task[None]] = set()
        self._started_at = time.time()
        self._make_router()

    def _make_router(self) -> None:
        try:
            strategies = parse_strategies(self.options.proxy_strategies)
        except ValueError:
            strategies = []  # validation says so
        self.backends = Backends(strategies, random.choice)
        self.router = Router(
            self.backends,
            self.metrics,
            clock=time.monotonic,
            schedule=lambda delay, action: asyncio.get_running_loop().call_later(delay, action),
            dial_timeout=self.options.backend_dial_timeout / _NANO,
        )
        self.metrics.watch(self.router)

    # -- start --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen everywhere. Raises ServerError; what was started is stopped again."""
        if self._validate:
            try:
                self.options.validate()
            except OptionsError as exc:
                raise ServerError(f"failed to validate server options with {exc}") from exc
        try:
            await self._start()
        except BaseException:
            await self.stop(force=True)
            raise

    async def _start(self) -> None:
        options = self.options
        if options.needs_client:
            try:
                self._client = kubeclient.connect(
                    options.kubeconfig,
                    qps=options.kubeconfig_qps,
                    burst=options.kubeconfig_burst,
                    in_cluster_fallback=True,
                )
            except kubeclient.KubeClientError as exc:
                raise ServerError(str(exc)) from exc
            if options.token_authentication:
                self._authenticator = TokenAuthenticator(
                    self._client, options.agent_namespace, options.agent_service_account,
                    options.authentication_audience, time.monotonic,
                )  # fmt: skip
        try:
            await self._start_frontend()
        except (CertificateError, OSError) as exc:
            raise ServerError(f"failed to run the frontend server: {exc}") from exc
        try:
            await self._start_agent_listener()
        except (CertificateError, OSError) as exc:
            raise ServerError(f"failed to run the agent server: {exc}") from exc
        try:
            labels = serveroptions.parse_labels(options.lease_label)
        except OptionsError as exc:
            raise ServerError(str(exc)) from exc
        if options.enable_lease_controller and self._client is not None:
            self._leases = LeaseController(self._client, self.server_id, options.lease_namespace, labels, self.metrics)
            self._leases.start()
        await self._start_pages()

    async def _start_frontend(self) -> None:
        options = self.options
        secure = None
        if not options.uds_name:
            alpn = ["h2"] if options.mode == MODE_GRPC else ["http/1.1"]
            secure = self._context(options.server_cert, options.server_key, options.server_ca_cert, alpn)
        listener = _unix_socket(options.uds_name, options.delete_existing_uds_file) if options.uds_name else None
        if options.mode == MODE_GRPC:
            settings = Options(keepalive_time=options.frontend_keepalive_time / _NANO)
            self._frontends = Server({PROXY: self._proxy}, settings)
            if listener is not None:
                await self._frontends.listen_socket(listener)
            else:
                host, port = options.server_bind_address, options.server_port
                self.server_port = await _listening(host, port, self._frontends.listen(host, port, ssl=secure))
            return
        loop = asyncio.get_running_loop()
        if listener is not None:
            self._http_listener = await loop.create_unix_server(self._http_frontend, sock=listener, backlog=_BACKLOG)
            return
        host, port = options.server_bind_address, options.server_port
        self._http_listener = await _listening(
            host, port,
            loop.create_server(
                self._http_frontend, host or None, port, ssl=secure, backlog=_BACKLOG,
                ssl_handshake_timeout=_HANDSHAKE_TIMEOUT,
            ),
        )  # fmt: skip
        self.server_port = int(self._http_listener.sockets[0].getsockname()[1])

    def _context(self, cert: str, key: str, client_ca: str, alpn: list[str]) -> ssl.SSLContext:
        return server_context(
            cert, key, client_ca, alpn=alpn, tls_min_version=self.options.tls_min_version,
            cipher_suites=self.options.cipher_suites,
        )  # fmt: skip

    async def _start_agent_listener(self) -> None:
        options = self.options
        context = self._context(options.cluster_cert, options.cluster_key, options.cluster_ca_cert, ["h2"])
        settings = Options(
            stream_window=_AGENT_STREAM_WINDOW,
            keepalive_time=options.keepalive_time / _NANO,
            min_ping_interval=30.0,
            ping_without_stream=True,
        )
        self._agents = Server({CONNECT: self._connect}, settings)
        host, port = options.agent_bind_address, options.agent_port
        self.agent_port = await _listening(host, port, self._agents.listen(host, port, ssl=context))

    async def _start_pages(self) -> None:
        options = self.options

        def metrics(request: Request) -> Page:
            return Page(self.metrics.registry.render(), content_type=CONTENT_TYPE)

        def ready(request: Request) -> Page:
            if self.backends.ready:
                return Page("ok")
            return Page("no connection to any proxy agent", 500)

        admin: dict[str, pages.Handler] = {"/metrics": metrics, "/status": self._status_page}
        if options.enable_profiling:
            admin.update(Profiling().routes())
        self._admin = PageServer(admin)
        self._health = PageServer(
            {"/metrics": metrics, "/healthz": lambda request: Page("ok"), "/ready": ready, "/readyz": ready}
        )
        for name, page_server in (("admin", self._admin), ("health", self._health)):
            host, port = getattr(options, f"{name}_bind_address"), getattr(options, f"{name}_port")
            try:
                setattr(self, f"{name}_port", await _listening(host, port, page_server.start(host, port)))
            except OSError as exc:
                log.error('"%s server could not listen" err="%s"', name, exc)

    # -- status -------------------------------------------------------------------------------------------------------

    def _status_page(self, request: Request) -> Page:
        return Page(json.dumps(self.status()), content_type="application/json")

    def status(self) -> dict[str, object]:
        """What `bowsprit konnectivity status` shows."""
        now = time.monotonic()
        return {
            "role": "server",
            "serverID": self.server_id,
            "mode": self.options.mode,
            "strategies": [strategy.value for strategy in self.backends.strategies],
            "ready": self.backends.ready,
            "uptimeSeconds": round(time.time() - self._started_at, 1),
            "pendingDials": len(self.router.dials),
            "connections": self.router.established,
            "bytesToAgents": self.router.bytes_to_agents,
            "bytesFromAgents": self.router.bytes_from_agents,
            "agents": [
                {
                    "agentID": backend.agent_id,
                    "draining": backend.draining,
                    "extended": backend.extended,
                    "connections": len(backend.links),
                    "dials": len(backend.dials),
                    "bytesSent": backend.sent,
                    "bytesReceived": backend.received,
                    "connectedSeconds": round(now - backend.connected_at, 1),
                    "identifiers": list(backend.identifiers.destinations),
                }
                for backend in self.backends.all()
            ],
            "lastErrors": list(self.router.last_errors),
        }

    # -- streams ------------------------------------------------------------------------------------------------------

    def _http_frontend(self) -> HttpFrontend:
        return HttpFrontend(self.router, self._http, on_count=self.metrics.set_http_connections)

    def _proxy(self, protocol: GrpcProtocol, stream: Stream, headers: Metadata) -> StreamHandler:
        self.metrics.grpc_connections.inc("Proxy")

        def ended(status: Status) -> None:
            self.metrics.grpc_connections.inc("Proxy", by=-1)
            self.metrics.stream_ended(FROM_CLIENT, status)

        return GrpcFrontend(self.router, protocol, stream, ended)

    def _connect(self, protocol: GrpcProtocol, stream: Stream, headers: Metadata) -> StreamHandler:
        self.metrics.grpc_connections.inc("Connect")

        def ended(status: Status) -> None:
            self.metrics.grpc_connections.inc("Connect", by=-1)
            self.metrics.stream_ended(FROM_AGENT, status)
            if port.backend is not None:
                backend = port.backend
                log.info("agent %r disconnected: %s (%d connected)", backend.agent_id, status.message or status.code.name,
                         len(self.backends))  # fmt: skip
                self.metrics.agent_gone(backend.agent_id, backend.sent, backend.received)

        port = stream.handler = AgentStream(self.router, protocol, stream, ended)
        try:
            agent_id, agent_identifiers = identity(headers)
        except ValueError as exc:
            stream.finish(Status(StatusCode.UNKNOWN, str(exc)))
            return port
        arrival = _Arrival(protocol, stream, headers, port, agent_id, agent_identifiers)
        if self._authenticator is None:
            self._admit(arrival)
        else:
            coroutine = self._authenticate(self._authenticator, arrival)
            task = asyncio.get_running_loop().create_task(coroutine, name=f"admit-{agent_id}")
            self._admissions.add(task)
            task.add_done_callback(self._admissions.discard)
        return port

    async def _authenticate(self, authenticator: TokenAuthenticator, arrival: _Arrival) -> None:
        try:
            await authenticator.authenticate(md.values(arrival.headers, "authorization"))
        except TokenRejectedError as exc:
            log.warning("agent %r is not admitted: %s", arrival.agent_id, exc)
            arrival.stream.finish(Status(StatusCode.UNKNOWN, str(exc)))
            return
        self._admit(arrival)

    def _admit(self, arrival: _Arrival) -> None:
        if arrival.stream.closed:
            return
        answer = [("serverid", self.server_id), ("servercount", str(self.options.server_count))]
        window = peer_window(arrival.headers)
        if window is not None:
            answer.append((WINDOW_HEADER, str(self.router.window)))
            arrival.protocol.probe(2 * probe_interval(arrival.headers), _PROBE_TIMEOUT)
        arrival.stream.send_headers(answer)
        backend = Backend(arrival.port, arrival.agent_id, arrival.identifiers, time.monotonic(), window)
        arrival.port.backend = backend
        self.router.agent_connected(backend)
        log.info("agent %r connected (%d connected)", arrival.agent_id, len(self.backends))

    # -- stop ---------------------------------------------------------------------------------------------------------

    async def stop(self, *, force: bool = False) -> None:
        """Stop within the graceful-shutdown-timeout: no new work, open connections go on until then; 0 ends them now."""
        grace = 0.0 if force else self.options.graceful_shutdown_timeout / _NANO
        for task in list(self._admissions):
            task.cancel()
        if self._http_listener is not None:
            self._http_listener.close()
        if grace > 0:
            loop = asyncio.get_running_loop()
            deadline = loop.time() + grace
            for server in (self._frontends, self._agents):
                if server is not None:
                    server.drain()
            while self.router.established or self.router.dials:
                await asyncio.sleep(_POLL)
                if loop.time() >= deadline:
                    log.warning(
                        "graceful shutdown timed out after %gs: %d connections cut", grace, self.router.established
                    )
                    break
        for frontend in list(self._http):
            frontend.finish() if grace > 0 else frontend.abort()
        for server in (self._frontends, self._agents):
            if server is not None:
                await server.stop()
        for frontend in list(self._http):
            frontend.abort()
        for page_server in (self._admin, self._health):
            if page_server is not None:
                await page_server.stop()
        if self._leases is not None:
            await self._leases.stop()
            self._leases = None
        if self._client is not None:
            await self._client.close()
            self._client = None
        if self.options.uds_name and (self._frontends or self._http_listener):
            _remove_socket(self.options.uds_name)


async def _listening(host: str, port: int, opening: Awaitable[T]) -> T:
    """Await a listener; its failure is worded as Go's."""
    if port > 65535:
        close = getattr(opening, "close", None)
        if close is not None:
            close()
        raise OSError(f"failed to listen on {host}:{port}: listen tcp: address {port}: invalid port")
    try:
        return await opening
    except socket.gaierror as exc:
        raise OSError(f"failed to listen on {host}:{port}: listen tcp: {godial.lookup_failure(host, exc)}") from exc
    except OSError as exc:
        reason = os.strerror(exc.errno).lower() if exc.errno else str(exc)
        raise OSError(f"failed to listen on {host}:{port}: listen tcp {host}:{port}: bind: {reason}") from exc


def _unix_socket(path: str, delete_existing: bool) -> socket.socket:
    """A bound socket of mode 0770, so that only owner and group connect (upstream binds under umask 0007)."""
    if delete_existing:
        _remove_socket(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o007)
    try:
        sock.bind(path)
    except OSError as exc:
        sock.close()
        reason = os.strerror(exc.errno or errno.EINVAL).lower()  # no number: the path is too long for an address
        text = f"listen unix {path}: bind: {reason}"
        raise OSError(f"failed to get uds listener: failed to listen(unix) name {path}: {text}") from exc
    finally:
        os.umask(before)
    sock.setblocking(False)
    return sock


def _remove_socket(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except OSError:
        pass
