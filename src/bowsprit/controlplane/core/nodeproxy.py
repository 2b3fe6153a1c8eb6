"""``pods/log|exec|attach|portforward|proxy``, ``nodes/proxy``, ``services/proxy``: requests that end outside the API server.

Upstream: pkg/registry/core/pod/{strategy.go,rest}. Kubelets are reached at the address and port of their Node, with the API
server's client certificate; pods and services at their addresses. Upgraded connections are passed on byte for byte, so
that the kubelet decides on the protocol.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from bowsprit.aggregator.backend import request_bytes
from bowsprit.aggregator.connection import Connection, tls_failure
from bowsprit.aggregator.upgrade import join, wants_upgrade
from bowsprit.apiserver.answer import Answer, Sent
from bowsprit.apiserver.lookup import Listers
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import ConnectSubresource
from bowsprit.machinery import fielderrors
from bowsprit.machinery.codec import encode_json
from bowsprit.machinery.errors import (
    StatusError,
    UnknownError,
    bad_request,
    internal_error,
    invalid,
    not_found,
    service_unavailable,
    unknown,
)
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupKind, GroupResource, GroupVersionKind
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import parse_ip
from bowsprit.net.dial import Dialer, discard, join_host_port
from bowsprit.net.dial_connector import DialConnector

PODS = GroupResource("", "pods")
NODES = GroupResource("", "nodes")
SERVICES = GroupResource("", "services")
_ENDPOINTS = GroupResource("", "endpoints")
_KUBELET_PORT = 10250
_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_FAILURES = (aiohttp.ClientError, OSError, TimeoutError)
_TRANSLATED = "v5.channel.k8s.io"
_ERROR_CHANNEL = b"\x03"
_BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
_STREAMS = ("stdin", "stdout", "stderr", "tty")
_HOP_HEADERS = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "authorization",
    }
)


Reply = Answer | Sent | web.StreamResponse


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a request goes on to."""

    scheme: str
    host: str
    port: int

    def url(self, path: str, query: str = "") -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{path}{'?' + query if query else ''}"


class _Unreachable(UnknownError):
    """No connection to a kubelet, pod or service; ``cause`` is what the dialer or the TLS handshake said."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"error dialing backend: {cause}")
        self.cause = cause


class NodeProxy:
    """Answers the subresources.

    Args:
        listers: pods, nodes, services.
        dialer: how to reach the cluster's network (egress selection).
        kubelet_tls: the context for kubelets, with the API server's client certificate.
    """

    def __init__(self, listers: Listers, dialer: Dialer, kubelet_tls: ssl.SSLContext) -> None:
        self._listers = listers
        self._dialer = dialer
        self._kubelet_tls = kubelet_tls
        self._unverified = ssl.create_default_context()  # as upstream's transport for pods and services is
        self._unverified.check_hostname = False
        self._unverified.verify_mode = ssl.CERT_NONE

    def subresources(self) -> dict[GroupResource, dict[str, ConnectSubresource]]:
        """What to add to pods, nodes and services."""
        proxy_verbs = ("create", "delete", "get", "patch", "update")
        methods = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

        def proxy(kind: str, handler: Any) -> ConnectSubresource:
            gvk = GroupVersionKind("", "v1", kind)
            return ConnectSubresource("proxy", gvk, handler, methods=methods, verbs=proxy_verbs, takes_path=True)

        def stream(name: str, kind: str, handler: Any) -> ConnectSubresource:
            return ConnectSubresource(name, GroupVersionKind("", "v1", kind), handler)

        log = ConnectSubresource(
            "log", GroupVersionKind("", "v1", "Pod"), self.log, methods=("GET",), verbs=("get",), connects=False
        )
        return {
            PODS: {
                "log": log,
                "exec": stream("exec", "PodExecOptions", self.exec),
                "attach": stream("attach", "PodAttachOptions", self.attach),
                "portforward": stream("portforward", "PodPortForwardOptions", self.port_forward),
                "proxy": proxy("PodProxyOptions", self.pod_proxy),
            },
            NODES: {"proxy": proxy("NodeProxyOptions", self.node_proxy)},
            SERVICES: {"proxy": proxy("ServiceProxyOptions", self.service_proxy)},
        }

    async def log(self, ctx: RequestContext, name: str, request: web.BaseRequest) -> web.StreamResponse:
        """The log of a container."""
        query = ctx.query
        if errors := _log_errors(query):
            raise invalid(GroupKind("", "PodLogOptions"), name, errors)
        pod = self._pod(ctx, name)
        container = _container(pod, query.get("container", ""))
        if not pod["spec"].get("nodeName"):
            return web.Response(status=204)
        kubelet = self._kubelet(pod["spec"]["nodeName"], PODS)
        passed = [(key, value) for key, value in query.items() if key != "container"]
        url = kubelet.url(f"/containerLogs/{ctx.info.namespace}/{name}/{container}", urlencode(passed))
        async with self._session(self._kubelet_tls) as session:
            try:
                answer = await self._send(session, request, url, method="GET")
            except _FAILURES as exc:
                raise unknown(f"Get {quote(url)}: {_cause(exc)}") from exc
            return await _stream_back(answer, request)

    async def exec(self, ctx: RequestContext, name: str, request: web.BaseRequest) -> Reply:
        """Run a command in a container."""
        return await self._streams(ctx, name, request, "exec")

    async def attach(self, ctx: RequestContext, name: str, request: web.BaseRequest) -> Reply:
        """Attach to a running container."""
        return await self._streams(ctx, name, request, "attach")

    async def _streams(self, ctx: RequestContext, name: str, request: web.BaseRequest, action: str) -> Reply:
        pod, query = self._pod(ctx, name), ctx.query
        container = _container(pod, query.get("container", ""))
        kubelet = self._kubelet(self._host(pod), PODS)
        passed = [("command", value) for value in request.query.getall("command", [])]
        kubelet_names = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
        passed += [(kubelet_names[key], "1") for key in _STREAMS if query.get(key, "").lower() in ("1", "true")]
        path = f"/{action}/{ctx.info.namespace}/{name}/{container}?{urlencode(sorted(passed, key=itemgetter(0)))}"
        try:
            return await self._upgrade(request, kubelet, path, self._kubelet_tls)
        except _Unreachable as exc:
            if (protocol := _error_channel(request)) is None:
                raise
            url = quote(kubelet.url(path))
            failure = internal_error(f"error sending request: Post {url}: {exc.cause}")
            return await _refuse_streams(request, protocol, failure)

    async def port_forward(self, ctx: RequestContext, name: str, request: web.BaseRequest) -> Reply:
        """Forward ports of a pod."""
        pod = self._pod(ctx, name)
        kubelet = self._kubelet(self._host(pod), PODS)
        ports = urlencode([("port", value) for value in request.query.getall("ports", [])])
        path = f"/portForward/{ctx.info.namespace}/{name}?{ports}"
        return await self._upgrade(request, kubelet, path.rstrip("?"), self._kubelet_tls)

    async def pod_proxy(self, ctx: RequestContext, name: str, request: web.BaseRequest) -> Reply:
        """HTTP to a pod."""
        scheme, name, port = _split_target(name)
        pod = self._pod(ctx, name)
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise bad_request(f"pod {name} does not have a host assigned")
        number = int(port) if port.isdigit() else _port_of_pod(pod, port) or 80
        return await self._proxy(ctx, request, _Target(scheme or "http", address, number))

    async def node_proxy(self, ctx: RequestContext, name: str, request: web.BaseRequest) -> Reply:
        """HTTP to a kubelet."""
        scheme, name, port = _split_target(name)
        kubelet = self._kubelet(name, NODES)
        if port.isdigit() and int(port) != kubelet.port:
            kubelet = _Target(scheme or "http", kubelet.host, int(port))
        return await self._proxy(ctx, request, kubelet, self._kubelet_tls)

    async def service_proxy(self, ctx: RequestContext, name: str, request: web.BaseRequest) -> Reply:
        """HTTP to an endpoint of a Service."""
        scheme, name, port = _split_target(name)
        namespace = ctx.info.namespace
        service = self._listers(SERVICES).get(namespace, name)
        if service is None:
            raise not_found(SERVICES, name)
        for subset in (self._listers(_ENDPOINTS).get(namespace, name) or {}).get("subsets") or ():
            number = _port_of_subset(service, subset, port)
            if subset.get("addresses") and number:
                target = _Target(scheme or "http", subset["addresses"][0]["ip"], number)
                return await self._proxy(ctx, request, target)
        raise service_unavailable(f'no endpoints available for service "{name}"')

    def _pod(self, ctx: RequestContext, name: str) -> Obj:
        pod = self._listers(PODS).get(ctx.info.namespace, name)
        if pod is None:
            raise not_found(PODS, name)
        return pod

    @staticmethod
    def _host(pod: Obj) -> str:
        node = str(pod["spec"].get("nodeName") or "")
        if not node:
            raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        return node

    def _kubelet(self, node_name: str, resource: GroupResource) -> _Target:
        node = self._listers(NODES).get("", node_name)
        if node is None:
            raise not_found(resource, node_name)  # upstream names the resource of the request here, too
        status = node.get("status") or {}
        port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or _KUBELET_PORT
        by_kind = {item.get("type"): item.get("address") for item in status.get("addresses") or ()}
        for kind in ("Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"):
            # Upstream's order, but a host name that is no address means nothing to a resolver for a simulated node:
            # an address is preferred where both are known.
            if kind == "Hostname" and by_kind.get("InternalIP") and not parse_ip(by_kind.get(kind, "")):
                continue
            if by_kind.get(kind):
                return _Target("https", by_kind[kind], int(port))
        raise service_unavailable(f"no preferred addresses found; known addresses: {status.get('addresses') or []}")

    async def _proxy(
        self, ctx: RequestContext, request: web.BaseRequest, target: _Target, tls: ssl.SSLContext | None = None
    ) -> Reply:
        tls = (tls or self._unverified) if target.scheme == "https" else None
        path = "/" + "/".join(ctx.info.parts[3:])
        if ctx.info.path.endswith("/") and not path.endswith("/"):
            path += "/"
        if wants_upgrade(request):
            query = request.query_string
            return await self._upgrade(request, target, f"{path}?{query}" if query else path, tls)
        async with self._session(tls) as session:
            url = target.url(path, request.query_string)
            try:
                answer = await self._send(session, request, url, method=request.method)
            except _FAILURES as exc:
                raise service_unavailable(f"error trying to reach service: {_cause(exc)}") from exc
            return await _stream_back(answer, request)

    @asynccontextmanager
    async def _session(self, tls: ssl.SSLContext | None) -> AsyncIterator[aiohttp.ClientSession]:
        connector = DialConnector(self._dialer, context=tls)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            yield session

    async def _send(
        self, session: aiohttp.ClientSession, request: web.BaseRequest, url: str, *, method: str
    ) -> aiohttp.ClientResponse:
        headers = CIMultiDict(
            (name, value) for name, value in request.headers.items() if name.lower() not in _HOP_HEADERS
        )
        body = request.content if request.body_exists else None
        return await session.request(method, url, headers=headers, data=body, allow_redirects=False)

    async def _upgrade(
        self, request: web.BaseRequest, target: _Target, path: str, tls: ssl.SSLContext | None
    ) -> Answer | Sent:
        """Join the client's connection with one to the target, whatever they speak (SPDY, WebSocket)."""
        if not wants_upgrade(request):
            raise bad_request("Upgrade request required")

        async def connect() -> Connection:
            try:
                sock = await self._dialer.open(target.host, target.port)
            except OSError as exc:
                raise _Unreachable(_cause(exc)) from exc
            try:
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(lambda _: None, lambda _: None),
                    sock=sock,
                    ssl=tls,
                    server_hostname=target.host if tls else None,
                )
            except (OSError, ssl.SSLError) as exc:
                discard(sock)
                raise _Unreachable(tls_failure(exc) if isinstance(exc, ssl.SSLError) else str(exc)) from exc
            return connection

        host = join_host_port(target.host, target.port)
        return await join(connect, request_bytes(request.method, path, _upgrade_fields(request, host)), request)


def _upgrade_fields(request: web.BaseRequest, host: str) -> list[tuple[str, str]]:
    """The request's fields without the caller's credentials."""
    fields = [("Host", host)]
    for name, value in request.headers.items():
        lower = name.lower()
        if lower in ("host", "authorization") or lower.startswith(("x-remote-", "impersonate-")):
            continue
        if lower == "sec-websocket-protocol":
            words = [word.strip() for word in value.split(",")]
            value = ", ".join(word for word in words if not word.startswith(_BEARER_PROTOCOL))
        fields.append((name, value))
    return fields


def _cause(exc: BaseException) -> str:
    """What the dialer said; aiohttp wraps it in a text of its own."""
    if isinstance(exc, aiohttp.ClientConnectorError):
        exc = exc.os_error
    if isinstance(exc, ssl.SSLError):
        return tls_failure(exc)
    return str((exc.strerror if isinstance(exc, OSError) else "") or exc)


async def _stream_back(answer: aiohttp.ClientResponse, request: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, reason=answer.reason)
    for name, value in answer.headers.items():
        if name.lower() not in _HOP_HEADERS:
            response.headers.add(name, value)
    await response.prepare(request)
    async for chunk in answer.content.iter_any():
        await response.write(chunk)
    await response.write_eof()
    return response


def _error_channel(request: web.BaseRequest) -> str | None:
    """The protocol of a WebSocket client that upstream translates for, and so answers before it knows of the kubelet."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "").split(",")
    return _TRANSLATED if _TRANSLATED in (word.strip() for word in offered) else None


async def _refuse_streams(request: web.BaseRequest, protocol: str, failure: StatusError) -> web.StreamResponse:
    """Accept the WebSocket and write the failure on its error channel (upstream StreamTranslatorHandler)."""
    socket = web.WebSocketResponse(protocols=[protocol], timeout=_CLOSE_SECONDS)
    await socket.prepare(request)
    status = {key: value for key, value in failure.to_status().items() if key not in ("kind", "apiVersion")}
    await socket.send_bytes(_ERROR_CHANNEL + encode_json(status))
    await socket.close()
    return socket


def _split_target(text: str) -> tuple[str, str, str]:
    """``[https:]name[:port]`` as proxy paths write it (upstream SplitSchemeNamePort)."""
    parts = text.split(":")
    if len(parts) == 1:
        return "", parts[0], ""
    if len(parts) == 2:
        return "", parts[0], parts[1]
    if len(parts) == 3 and parts[0] in ("http", "https"):
        return parts[0], parts[1], parts[2]
    raise bad_request(f"invalid target request {quote(text)}")


def _container(pod: Obj, name: str) -> str:
    """The container that is meant (upstream podutil and LogLocation)."""
    spec, pod_name = pod["spec"], pod["metadata"]["name"]
    regular = [item["name"] for item in spec.get("containers") or ()]
    inits = [item["name"] for item in spec.get("initContainers") or ()]
    ephemerals = [item["name"] for item in spec.get("ephemeralContainers") or ()]
    if name:
        if name not in regular + inits + ephemerals:
            raise bad_request(f"container {name} is not valid for pod {pod_name}")
        return name
    if len(regular) == 1 and not inits and not ephemerals:
        return str(regular[0])
    if len(regular) == 1:
        return str(regular[0])
    text = f"a container name must be specified for pod {pod_name}, choose one of: [{' '.join(regular)}]"
    if inits:
        text += f" or one of the init containers: [{' '.join(inits)}]"
    if ephemerals:
        text += f" or one of the ephemeral containers: [{' '.join(ephemerals)}]"
    raise bad_request(text)


def _log_errors(query: Mapping[str, str]) -> list[FieldError]:
    def number(field: str) -> int | None:
        text = query.get(field)
        try:
            return None if not text else int(text)
        except ValueError:
            raise bad_request(f"strconv.ParseInt: parsing {quote(str(text))}: invalid syntax") from None

    errors: list[FieldError] = []
    if (tail := number("tailLines")) is not None and tail < 0:
        errors.append(fielderrors.invalid("tailLines", tail, "must be greater than or equal to 0"))
    if (limit := number("limitBytes")) is not None and limit < 1:
        errors.append(fielderrors.invalid("limitBytes", limit, "must be greater than 0"))
    since = number("sinceSeconds")
    if since is not None and query.get("sinceTime"):
        errors.append(fielderrors.forbidden("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified"))
    elif since is not None and since < 1:
        errors.append(fielderrors.invalid("sinceSeconds", since, "must be greater than 0"))
    return errors


def _port_of_pod(pod: Obj, name: str) -> int:
    ports = [port for item in pod["spec"].get("containers") or () for port in item.get("ports") or ()]
    if not name:
        return int(ports[0].get("containerPort", 0)) if ports else 0
    return next((int(port["containerPort"]) for port in ports if port.get("name") == name), 0)


def _port_of_subset(service: Obj, subset: Obj, wanted: str) -> int:
    ports = subset.get("ports") or []
    if not wanted:
        return int(ports[0]["port"]) if len(ports) == 1 else 0
    names = {str(port.get("port")): port.get("name", "") for port in service["spec"].get("ports") or ()}
    name = names.get(wanted, wanted)
    return next((int(port["port"]) for port in ports if port.get("name", "") == name), 0)
