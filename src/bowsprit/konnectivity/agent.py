"""The proxy-agent: finds all servers behind one address, serves each through a tunnel, drains and ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import ssl
import time
import uuid
from functools import partial
from pathlib import Path

from bowsprit.client.rest import RestClient
from bowsprit.konnectivity import certificates, godial, kubeclient, pages
from bowsprit.konnectivity.agentmetrics import AgentMetrics
from bowsprit.konnectivity.agentoptions import AgentOptions
from bowsprit.konnectivity.agentports import ServerStream, connect
from bowsprit.konnectivity.certificates import CertificateError
from bowsprit.konnectivity.leases import LeaseCounter
from bowsprit.konnectivity.metrics import CONTENT_TYPE
from bowsprit.konnectivity.negotiation import introduction, peer_window
from bowsprit.konnectivity.pages import Page, PageServer, Request
from bowsprit.konnectivity.profiling import Profiling
from bowsprit.konnectivity.serveroptions import OptionsError
from bowsprit.konnectivity.tunnel import WINDOW, Endpoint, Tunnel
from bowsprit.net.egress import packets
from bowsprit.net.egress.packets import PROBE_HEADER, WINDOW_HEADER, MalformedPacketError
from bowsprit.net.grpc.client import Channel
from bowsprit.net.grpc.limits import MIB, Options
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.status import GrpcError, Status, StatusCode
from bowsprit.net.grpc.stream import Stream

log = logging.getLogger(__name__)

_NANO = 1e9
_STREAM_WINDOW = 8 * MIB
_HEADERS_TIMEOUT = 20.0
_BACKOFF_FACTOR, _JITTER = 1.5, 0.1
_DIAL_BACKOFF_CAP = 2.0  # a server that cannot be reached costs nobody anything to try again soon
_DRAIN_IDLE = 8.0  # servers may still send dials that were on their way, or have no other agent
_POLL = 0.1
_PROBE_TIMEOUT = 4.0
_ATTEMPTS, _NEXT_ATTEMPT = 10, 2.0


class AgentError(Exception):
    """The agent cannot start; the message is upstream's."""


class DuplicateServerError(Exception):
    """The address led to a server that we are connected to."""


class ServerConnection:
    """One Connect stream and its tunnel."""

    def __init__(self, agent: ProxyAgent, channel: Channel) -> None:
        self._agent = agent
        self._channel = channel
        self._dials: set[asyncio.Task[None]] = set()
        self._port: ServerStream | None = None
        self._stream: Stream | None = None
        self._early: list[bytes] = []
        self.headers: asyncio.Future[Metadata] = asyncio.get_running_loop().create_future()
        self.tunnel: Tunnel | None = None
        self.server_id = ""
        self.connected_at = time.monotonic()
        self.ended_status: Status | None = None

    async def open(self, metadata: Metadata) -> tuple[str, int]:
        """Connect; the server's ID and how many servers there are. Raises GrpcError, ValueError."""
        stream = self._channel.open(packets.CONNECT, self, metadata=metadata)
        try:
            async with asyncio.timeout(_HEADERS_TIMEOUT):
                headers = await self.headers
        except TimeoutError:
            raise GrpcError(StatusCode.DEADLINE_EXCEEDED, "no answer of the server to Connect") from None
        self.server_id, count = introduction(headers)
        self._stream = stream
        return self.server_id, count

    def serve(self) -> None:
        """Serve the server's packets, those that came right behind its headers first."""
        stream, headers = self._stream, self.headers.result()
        assert stream is not None
        window = peer_window(headers)
        port = self._port = ServerStream(stream)
        port.extended = window is not None
        if port.extended:
            self._channel.protocol.probe(self._agent.options.probe_interval / _NANO, _PROBE_TIMEOUT)
        loop = asyncio.get_running_loop()
        self.tunnel = Tunnel(port, self._dial, loop.call_later, peer_window=window)
        early, self._early = self._early, []
        for message in early:
            self.message_received(stream, message)

    def close(self) -> None:
        """End the connection to the server."""
        self._channel.protocol.close()

    # -- StreamHandler ------------------------------------------------------------------------------------------------

    def headers_received(self, stream: Stream, headers: Metadata) -> None:
        if not self.headers.done():
            self.headers.set_result(headers)

    def message_received(self, stream: Stream, message: bytes) -> None:
        if self.tunnel is None or self._port is None:
            self._early.append(message)  # not acknowledged: bounded by the stream's window
            return
        self._port.received(len(message) + 5)
        try:
            packet = packets.decode(message)
        except MalformedPacketError as exc:
            stream.reset(status=Status(StatusCode.INTERNAL, str(exc)))
            return
        self.tunnel.packet(packet)

    def half_closed(self, stream: Stream) -> None:
        """Servers only."""

    def writable(self, stream: Stream) -> None:
        if self.tunnel is not None:
            self.tunnel.writable()

    def ended(self, stream: Stream, status: Status, trailers: Metadata) -> None:
        self.ended_status = status
        if not self.headers.done():
            self.headers.set_exception(GrpcError(status.code, status.message))
            self.headers.exception()  # whoever waits sees it; nobody else need
        for task in list(self._dials):
            task.cancel()
        if self.tunnel is not None:
            self.tunnel.end()
            self._agent.disconnected(self, status)
        self.close()

    # -- dials --------------------------------------------------------------------------------------------------------

    def _dial(self, endpoint: Endpoint) -> None:
        task = asyncio.get_running_loop().create_task(self._dial_endpoint(endpoint))
        self._dials.add(task)
        task.add_done_callback(self._dials.discard)

    async def _dial_endpoint(self, endpoint: Endpoint) -> None:
        tunnel, metrics = self.tunnel, self._agent.metrics
        assert tunnel is not None
        start = time.monotonic()
        try:
            await godial.dial(endpoint.network, endpoint.address, partial(connect, tunnel, endpoint))
        except godial.DialFailedError as exc:
            metrics.dial_failed(timeout=exc.timeout)
            tunnel.dial_failed(endpoint, str(exc))
            return
        metrics.dialled(time.monotonic() - start)


class ProxyAgent:
    """One agent. ``health_port`` and ``admin_port`` are known after ``start``.

    With ``validate=False`` those ports may be 0: a free one is taken.
    """

    def __init__(self, options: AgentOptions, *, validate: bool = True) -> None:
        self.options = options
        self.agent_id = options.agent_id or os.environ.get("PROXY_AGENT_ID") or str(uuid.uuid4())
        self.metrics = AgentMetrics()
        self.servers: dict[str, ServerConnection] = {}
        self.draining = False
        self.health_port = self.admin_port = 0
        self._validate = validate
        self._received_count = 0
        self._client: RestClient | None = None
        self._counter: LeaseCounter | None = None
        self._sync: asyncio.Task[None] | None = None
        self._health: PageServer | None = None
        self._admin: PageServer | None = None
        self._last_error = ""
        self._connected = asyncio.Event()
        self.metrics.watch(lambda: [each.tunnel for each in self.servers.values() if each.tunnel is not None])

    # -- start and stop -----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to connect. Raises AgentError."""
        options = self.options
        if self._validate:
            try:
                options.validate()
            except OptionsError as exc:
                raise AgentError(f"failed to validate agent options with {exc}") from exc
        try:
            certificates.client_context(options.ca_cert, options.agent_cert, options.agent_key, options.alpn_proto)
            if options.count_server_leases:
                self._client = kubeclient.connect(options.kubeconfig)
        except (CertificateError, kubeclient.KubeClientError) as exc:
            raise AgentError(f"failed to run proxy connection with {exc}") from exc
        loop = asyncio.get_running_loop()
        if self._client is not None:
            selector = options.lease_label_selector
            self._counter = LeaseCounter(self._client, options.lease_namespace, selector, self.metrics)
            self._counter.start()
        self._sync = loop.create_task(self._sync_forever(), name="server-sync")
        await self._start_pages()

    async def wait_ready(self, seconds: float) -> None:
        """Return when a server is connected. Raises AgentError with the last failure when the time is over."""
        try:
            async with asyncio.timeout(seconds):
                await self._connected.wait()
        except TimeoutError:
            reason = self._last_error or "no answer"
            raise AgentError(f"agent {self.agent_id!r} is not connected after {seconds:g}s: {reason}") from None

    async def drain(self) -> None:
        """Ask for no more dials; answers once connections are over, or the grace period is."""
        if not self.draining:
            self.draining = True
            for server in self.servers.values():
                if server.tunnel is not None:
                    server.tunnel.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.options.graceful_shutdown_timeout / _NANO
        idle_since = loop.time()
        while loop.time() < deadline:
            if self.connections:
                idle_since = loop.time()
            elif loop.time() - idle_since >= _DRAIN_IDLE:
                break
            await asyncio.sleep(min(_POLL, max(0.0, deadline - loop.time())))

    async def stop(self) -> None:
        """Disconnect from all servers; endpoints get what is queued for them."""
        if self._sync is not None:
            self._sync.cancel()
            await asyncio.gather(self._sync, return_exceptions=True)
        tunnels = [server.tunnel for server in self.servers.values() if server.tunnel is not None]
        for server in list(self.servers.values()):
            server.close()
        for tunnel in tunnels:
            tunnel.end()
        for _ in range(20):
            if not any(tunnel.endpoints for tunnel in tunnels):
                break
            await asyncio.sleep(0.005)
        if self._counter is not None:
            await self._counter.stop()
        if self._client is not None:
            await self._client.close()
        for page_server in (self._health, self._admin):
            if page_server is not None:
                await page_server.stop()

    @property
    def connections(self) -> int:
        """Open endpoint connections, and dials."""
        tunnels = [server.tunnel for server in self.servers.values() if server.tunnel is not None]
        return sum(len(tunnel.endpoints) + len(tunnel.dialling) for tunnel in tunnels)

    @property
    def ready(self) -> bool:
        """Whether a server is connected."""
        return bool(self.servers)

    # -- servers ------------------------------------------------------------------------------------------------------

    def server_count(self) -> int:
        """How many servers there should be (aggregateServerCounter)."""
        received = self._received_count or 1
        if self._counter is None:
            count = received
        else:
            count = self._counter.count()
            if self.options.server_count_source == "max":
                count = max(count, received)
            count = count or 1
        self.metrics.known_servers.set(count)
        return count

    async def _sync_forever(self) -> None:
        """Upstream's sync loop: look, sleep; failures back off."""
        interval = self.options.sync_interval / _NANO
        cap = self.options.sync_interval_cap / _NANO
        backoff = interval
        while True:
            delay = interval
            try:
                await self.connect_once()
                backoff = interval
            except DuplicateServerError:
                backoff = interval
            except (GrpcError, ValueError, OSError, CertificateError) as exc:
                self._last_error = str(exc)
                log.error('"cannot connect once" err="%s"', str(exc).replace("\\", "\\\\").replace('"', '\\"'))
                unreachable = isinstance(exc, GrpcError) and exc.message.startswith("connection error")
                delay = min(backoff, _DIAL_BACKOFF_CAP) if unreachable else backoff
                backoff = min(backoff * _BACKOFF_FACTOR, cap)
            await asyncio.sleep(delay * (1 + random.random() * _JITTER))

    async def connect_once(self) -> None:
        """Connect to one more server, if some are missing. Raises DuplicateServerError and what connecting raises."""
        if self.draining:
            return
        count = self.server_count()
        if not self.options.sync_forever and len(self.servers) >= count > 0:
            return
        options = self.options
        context = certificates.client_context(
            options.ca_cert, options.agent_cert, options.agent_key, options.alpn_proto
        )
        metadata = [("agentid", self.agent_id), ("agentidentifiers", options.agent_identifiers)]
        metadata.append((WINDOW_HEADER, str(WINDOW)))
        metadata.append((PROBE_HEADER, str(options.probe_interval // 1_000_000)))
        if options.service_account_token_path:
            metadata.append(("authorization", f"Bearer {_read_token(options.service_account_token_path)}"))
        settings = Options(
            stream_window=_STREAM_WINDOW,
            keepalive_time=max(10.0, options.keepalive_time / _NANO),  # grpc-go's floor
            ping_without_stream=True,
        )
        channel = await self._connect(context, settings)
        connection = ServerConnection(self, channel)
        try:
            server_id, received = await connection.open(metadata)
            if connection.ended_status is not None:
                reason = connection.ended_status.message or connection.ended_status.code.name
                raise GrpcError(StatusCode.UNAVAILABLE, f"the server ended the stream at once: {reason}")
            if server_id in self.servers:
                raise DuplicateServerError(server_id)
        except BaseException:
            channel.protocol.close()
            raise
        self.servers[server_id] = connection
        connection.serve()
        self._received_count = received
        self.metrics.servers.set(len(self.servers))
        self._connected.set()
        log.info("connected to server %r, which counts %d servers", server_id, received)
        self._drain_if_asked(connection)

    def _drain_if_asked(self, connection: ServerConnection) -> None:
        if self.draining and connection.tunnel is not None:
            connection.tunnel.drain()

    async def _connect(self, context: ssl.SSLContext, settings: Options) -> Channel:
        """Connect; while an attempt waits, others begin: the network may come back between two SYNs of the first."""
        host, port = self.options.proxy_server_host, self.options.proxy_server_port
        attempts: set[asyncio.Task[Channel]] = set()
        try:
            for _ in range(_ATTEMPTS):
                attempts.add(asyncio.ensure_future(Channel.connect(host, port, ssl=context, options=settings)))
                done, attempts = await asyncio.wait(
                    attempts, timeout=_NEXT_ATTEMPT, return_when=asyncio.FIRST_COMPLETED
                )
                channels = [task.result() for task in done if task.exception() is None]
                for spare in channels[1:]:
                    spare.protocol.abort()
                if channels:
                    return channels[0]
                for task in done:
                    task.result()  # raises
            raise GrpcError(StatusCode.UNAVAILABLE, f"connection error: no answer from {host}:{port}")
        finally:
            for task in attempts:
                task.cancel()
            for late in await asyncio.gather(*attempts, return_exceptions=True):
                if isinstance(late, Channel):
                    late.protocol.abort()

    def disconnected(self, connection: ServerConnection, status: Status) -> None:
        """A stream is over."""
        if connection.tunnel is not None:
            self.metrics.tunnel_ended(connection.tunnel)
        if self.servers.get(connection.server_id) is connection:
            del self.servers[connection.server_id]
            self.metrics.servers.set(len(self.servers))
            self.metrics.stream_ended(status)
            self._last_error = status.message
            log.info("disconnected from server %r: %s", connection.server_id, status.message or status.code.name)

    # -- pages --------------------------------------------------------------------------------------------------------

    async def _start_pages(self) -> None:
        options = self.options
        admin: dict[str, pages.Handler] = {"/metrics": self._metrics_redirect, "/status": self._status_page}
        if options.enable_profiling:
            admin.update(Profiling().routes())
        health: dict[str, pages.Handler] = {
            "/metrics": lambda request: Page(self.metrics.registry.render(), content_type=CONTENT_TYPE),
            "/healthz": lambda request: Page("ok"),
            "/ready": self._ready_page,
            "/readyz": self._ready_page,
        }
        self._health, self._admin = PageServer(health), PageServer(admin)
        self.health_port = await self._listen(
            "health", self._health, options.health_server_host, options.health_server_port
        )
        self.admin_port = await self._listen(
            "admin", self._admin, options.admin_bind_address, options.admin_server_port
        )

    async def _listen(self, name: str, server: PageServer, host: str, port: int) -> int:
        """Upstream logs and goes on when a port cannot be had."""
        try:
            if port > 65535:
                raise OSError(f"listen tcp: address {port}: invalid port")
            return await server.start(host, port)
        except OSError as exc:
            reason = f"listen tcp {host}:{port}: bind: {os.strerror(exc.errno).lower()}" if exc.errno else str(exc)
            log.error('"%s server could not listen" err="%s"', name, reason)
            return 0

    def _ready_page(self, request: Request) -> Page:
        if not self.ready:
            return Page("[+]ping ok\n[-]server-connected failed: no servers connected\n", 503)
        if "verbose" in request.query:
            return Page("[+]ping ok\n[+]server-connected ok\ncheck passed\n")
        return Page("ok")

    def _metrics_redirect(self, request: Request) -> Page:
        host = request.host.rpartition(":")[0] if request.host.rpartition(":")[2].isdigit() else request.host
        return pages.redirect(f"//{host}:{self.health_port or self.options.health_server_port}/metrics")

    def _status_page(self, request: Request) -> Page:
        return Page(json.dumps(self.status()), content_type="application/json")

    def status(self) -> dict[str, object]:
        """What `bowsprit konnectivity status` shows."""
        now = time.monotonic()
        return {
            "role": "agent",
            "agentID": self.agent_id,
            "ready": self.ready,
            "draining": self.draining,
            "serverAddress": f"{self.options.proxy_server_host}:{self.options.proxy_server_port}",
            "serverCount": self.server_count(),
            "connections": self.connections,
            "servers": [
                {
                    "serverID": server.server_id,
                    "connections": len(server.tunnel.endpoints) if server.tunnel else 0,
                    "dials": len(server.tunnel.dialling) if server.tunnel else 0,
                    "bytesSent": server.tunnel.sent if server.tunnel else 0,
                    "bytesReceived": server.tunnel.received if server.tunnel else 0,
                    "connectedSeconds": round(now - server.connected_at, 1),
                }
                for server in self.servers.values()
            ],
            "lastError": self._last_error,
        }


def _read_token(path: str) -> str:
    """The token, without the newline that many files end in: it would make the header invalid."""
    return Path(path).read_text().strip()
