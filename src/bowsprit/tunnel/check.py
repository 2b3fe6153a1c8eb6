"""Proving the way to an API server step by step, and saying where it breaks.

The steps of a context, in the order in which a request takes them:

    kubeconfig  the context names a server and usable credentials
    dns         the name of the first host on the way resolves: the SSH server, else the proxy, else the API server
    tcp         that host accepts connections
    hostkey     known_hosts knows the SSH server's key
    auth        the SSH server lets the user in
    proxy       something listens at proxy-url
    socks       the proxy opens a connection to the API server as the far end sees it
    tls         the API server's certificate is valid for its name
    readyz      the API server says that it is ready
    login       the API server accepts the credentials
    watch       a watch stays open and is not buffered on the way
    exec        a WebSocket upgrade passes

After the first failure the later steps are not tried. The SSH server is the given one, else that of the open tunnel whose
listener proxy-url names.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from bowsprit.client.config import RestConfig, tls_context
from bowsprit.client.errors import ClientError, ConfigError
from bowsprit.client.kubeconfig import Kubeconfig
from bowsprit.client.rest import RestClient
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.net.dial import Dialer, DirectDialer, proxy_dialer, proxy_port
from bowsprit.net.proxy import ProxyRules
from bowsprit.tunnel.errors import TunnelError
from bowsprit.tunnel.login import LinkOptions, Login
from bowsprit.tunnel.records import list_records
from bowsprit.tunnel.target import SshTarget

STEP_SECONDS = 10.0
_NAMESPACES = GroupVersionResource("", "v1", "namespaces")
_PODS = GroupVersionResource("", "v1", "pods")
_REVIEWS = GroupVersionResource("authentication.k8s.io", "v1", "selfsubjectreviews")


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step. ``outcome`` is ``ok``, ``fail`` or ``skip``; ``seconds`` is how long it took."""

    step: str
    outcome: str
    message: str
    hint: str = ""
    seconds: float = 0.0


class _Failure(Exception):
    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class _Skip(Exception):
    """The step does not apply; the text says why."""


class WayCheck:
    """The check of one context.

    Args:
        context: its name; None for the current one.
        kubeconfig: that file only; None for kubectl's rules.
        ssh: how to reach the SSH server, to have that part checked, too.
    """

    def __init__(self, context: str | None, kubeconfig: Path | None = None, ssh: LinkOptions | None = None) -> None:
        self._context = context
        self._kubeconfig = kubeconfig
        self._ssh = ssh
        self._login: Login | None = None
        self._first = ("", 0)
        self._ssh_socket: socket.socket | None = None
        self._auth_failure: TunnelError | None = None
        self._config: RestConfig | None = None
        self._server: SplitResult = urlsplit("")
        self._proxy = ""
        self._raw: socket.socket | None = None

    async def run(self) -> AsyncIterator[StepResult]:
        """Yield the results as they come; stop after the first failure."""
        steps: list[tuple[str, Callable[[], Awaitable[str]]]] = [
            ("kubeconfig", self._read_kubeconfig),
            ("dns", self._check_dns),
            ("tcp", self._check_tcp),
            ("hostkey", self._check_hostkey),
            ("auth", self._check_auth),
            ("proxy", self._check_proxy),
            ("socks", self._check_connect),
            ("tls", self._check_tls),
            ("readyz", self._check_readyz),
            ("login", self._check_login),
            ("watch", self._check_watch),
            ("exec", self._check_exec),
        ]
        try:
            for name, step in steps:
                result = await self._take(name, step)
                yield result
                if result.outcome == "fail":
                    return
        finally:
            for sock in (self._raw, self._ssh_socket):
                if sock is not None:
                    sock.close()

    async def _take(self, name: str, step: Callable[[], Awaitable[str]]) -> StepResult:
        started = time.monotonic()
        try:
            async with asyncio.timeout(STEP_SECONDS):
                message = await step()
        except _Skip as exc:
            return StepResult(name, "skip", str(exc))
        except _Failure as exc:
            return StepResult(name, "fail", exc.message, exc.hint, time.monotonic() - started)
        except TimeoutError:
            return StepResult(name, "fail", f"no answer within {STEP_SECONDS:g} s", seconds=time.monotonic() - started)
        except (ClientError, OSError) as exc:
            return StepResult(name, "fail", str(exc), seconds=time.monotonic() - started)
        return StepResult(name, "ok", message, seconds=time.monotonic() - started)

    @property
    def _where(self) -> str:
        return f"{self._server.hostname}:{self._server.port or 443}"

    async def _read_kubeconfig(self) -> str:
        try:
            self._config = Kubeconfig.load(self._kubeconfig).rest_config(self._context)
        except ConfigError as exc:
            raise _Failure(str(exc), exc.hint or "kubectl config get-contexts") from exc
        self._server = urlsplit(self._config.server)
        self._proxy = (
            self._config.proxy_url or ProxyRules.from_environment(os.environ).proxy_for(self._config.server) or ""
        )
        if self._server.scheme != "https":
            raise _Failure(
                f"the server's address is {self._config.server!r}, not https", "correct clusters[].cluster.server"
            )
        try:
            proxy_dialer(self._proxy or "socks5://none")
        except ValueError as exc:
            raise _Failure(f"proxy-url: {exc}", "use socks5://localhost:PORT") from exc
        self._ssh = self._ssh or _ssh_of(self._proxy)
        source = "proxy-url" if self._config.proxy_url else "the environment"
        return f"server {self._where}" + (f", through {self._proxy} ({source})" if self._proxy else ", directly")

    async def _check_dns(self) -> str:
        if self._ssh is not None:
            self._login = Login(self._ssh)
            try:
                self._first = await self._login.resolve()
            except TunnelError as exc:
                raise _Failure(exc.message, exc.hint) from exc
            if not self._first[0]:
                raise _Skip(f"{self._ssh.target} is reached over other hosts (~/.ssh/config)")
        elif self._proxy:
            url = urlsplit(self._proxy)
            self._first = (url.hostname or "", proxy_port(url))
        else:
            self._first = (self._server.hostname or "", self._server.port or 443)
        host, port = self._first
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise _Failure(
                f"{host} does not resolve: {exc.strerror}", "check the name, and this machine's DNS"
            ) from exc
        return f"{host} is {', '.join(dict.fromkeys(str(entry[4][0]) for entry in found))}"

    async def _check_tcp(self) -> str:
        host, port = self._first
        if not host:
            raise _Skip("as above")
        try:
            sock = await DirectDialer(STEP_SECONDS).open(host, port)
        except OSError as exc:
            hint = "is the host up, the port right, a firewall in between?"
            if self._ssh is None and self._proxy:
                hint = "open the tunnel: bowsprit tunnel open ssh://user@host, or ssh -D 1080 -q -N user@host"
            raise _Failure(f"{host}:{port} cannot be reached: {exc}", hint) from exc
        if self._login is None:
            sock.close()
        else:
            self._ssh_socket = sock
        return f"{host}:{port} accepts connections"

    async def _check_hostkey(self) -> str:
        if self._login is None:
            raise _Skip("no SSH server is known here (--ssh)")
        sock, self._ssh_socket = self._ssh_socket, None
        try:
            (await self._login.handshake(sock)).abort()
        except TunnelError as exc:
            if exc.reason not in ("PermissionDenied", "InvalidKey"):
                raise _Failure(exc.message, exc.hint) from exc
            self._auth_failure = exc
        return "known_hosts knows the server's key"

    async def _check_auth(self) -> str:
        if self._login is None:
            raise _Skip("no SSH server is known here (--ssh)")
        if self._auth_failure is not None:
            raise _Failure(self._auth_failure.message, self._auth_failure.hint)
        return f"logged in to {self._login.options.target}"

    async def _check_proxy(self) -> str:
        if not self._proxy:
            raise _Skip("the context uses no proxy")
        url = urlsplit(self._proxy)
        try:
            (await DirectDialer().open(url.hostname or "", proxy_port(url))).close()
        except OSError as exc:
            raise _Failure(
                f"nothing listens at {url.hostname}:{proxy_port(url)}: {exc}",
                "open the tunnel: bowsprit tunnel open ssh://user@host, or ssh -D 1080 -q -N user@host",
            ) from exc
        return f"{url.hostname}:{proxy_port(url)} listens"

    async def _check_connect(self) -> str:
        dialer: Dialer = proxy_dialer(self._proxy) if self._proxy else DirectDialer()
        try:
            self._raw = await dialer.open(self._server.hostname or "", self._server.port or 443)
        except OSError as exc:
            hint = (
                "the name is resolved, and the port reached, from the SSH server: check both there"
                if self._proxy
                else ""
            )
            raise _Failure(f"no connection to {self._where}: {exc}", hint) from exc
        return f"connected to {self._where}" + (" as the far end sees it" if self._proxy else "")

    async def _check_tls(self) -> str:
        assert self._config is not None
        assert self._raw is not None
        name = self._config.tls_server_name or self._server.hostname
        try:
            _, writer = await asyncio.open_connection(
                sock=self._raw, ssl=tls_context(self._config), server_hostname=name
            )
        except ssl.SSLCertVerificationError as exc:
            raise _Failure(
                f"the server's certificate is not accepted: {exc.verify_message}",
                "check certificate-authority-data, or tls-server-name where the address is not in the certificate",
            ) from exc
        except (ssl.SSLError, OSError) as exc:
            raise _Failure(f"no TLS with {self._where}: {exc}", "is this the API server's port?") from exc
        version = writer.get_extra_info("ssl_object").version()
        writer.transport.abort()
        verified = (
            "not verified (insecure-skip-tls-verify)" if self._config.insecure_skip_tls_verify else "certificate valid"
        )
        return f"{version}, {verified}"

    async def _check_readyz(self) -> str:
        async with self._client() as client:
            answer = await client.raw("GET", "/readyz", timeout=STEP_SECONDS)
        if answer.status in (401, 403):
            return f"answers, but tells its health only to others ({answer.status})"
        if answer.status != 200:
            raise _Failure(f"/readyz answers {answer.status}", "kubectl get --raw '/readyz?verbose'")
        return "ok"

    async def _check_login(self) -> str:
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        async with self._client() as client:
            try:
                user = (await client.create(_REVIEWS, review))["status"]["userInfo"].get("username", "?")
            except StatusError as exc:
                if exc.code == 401:
                    raise _Failure(
                        "the credentials are not accepted", "log in again, or renew the certificate or token"
                    ) from exc
                return f"accepted (the server does not tell as whom: {exc.message})"
        return f"as {user}"

    async def _check_watch(self) -> str:
        async with self._client() as client:
            try:
                started = time.monotonic()
                async for event in client.watch(_NAMESPACES, timeout_seconds=5):
                    return f"the first event ({event.type}) after {(time.monotonic() - started) * 1000:.0f} ms"
            except StatusError as exc:
                if exc.code == 403:
                    raise _Skip("this user may not watch namespaces") from exc
                raise _Failure(exc.message) from exc
        raise _Failure("the watch ended without an event", "something on the way buffers or cuts long answers")

    async def _check_exec(self) -> str:
        async with self._client() as client:
            try:
                pages = client.pages(_PODS, field_selector="status.phase=Running", limit=1)
                running = (await anext(pages)).get("items") or []
            except StatusError as exc:
                raise _Skip(f"this user may not list pods ({exc.code})") from exc
            if not running:
                raise _Skip("no running pod to try with")
            meta = running[0]["metadata"]
            answer = await client.raw(
                "GET",
                f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/exec",
                params={"command": "true", "stdout": "true"},
                headers={
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "Ym93c3ByaXQtY2hlY2stMQ==",
                    "Sec-WebSocket-Protocol": "v5.channel.k8s.io",
                },
                timeout=STEP_SECONDS,
            )
        if answer.status == 101:
            return "the upgrade passes"
        if answer.status in (401, 403):
            raise _Skip(f"this user may not exec ({answer.status})")
        text = answer.body.decode(errors="replace")[:200]
        raise _Failure(
            f"exec answers {answer.status}: {text}", "a proxy that does not pass upgrades, or a node that is down"
        )

    def _client(self) -> RestClient:
        assert self._config is not None
        return RestClient(self._config)


def _ssh_of(proxy: str) -> LinkOptions | None:
    """How the open tunnel whose listener a proxy URL names logs in; None where there is none."""
    url = urlsplit(proxy)
    if url.scheme not in ("socks5", "socks5h") or url.hostname not in ("localhost", "127.0.0.1", "::1"):
        return None
    for record in list_records():
        login = record.facts.get("login")
        if record.alive and login and record.facts["listen"].rpartition(":")[2] == str(proxy_port(url)):
            files = login["configFiles"]
            return LinkOptions(
                target=SshTarget.parse(record.facts["target"]),
                config_files=None if files is None else [Path(name) for name in files],
                known_hosts=Path(login["knownHosts"]) if login["knownHosts"] else None,
                identities=[Path(name) for name in login["identities"]],
            )
    return None
