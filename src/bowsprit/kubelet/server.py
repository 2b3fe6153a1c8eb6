"""The kubelet's HTTPS endpoint: logs, exec and attach of simulated containers, for all nodes of the process.

Who calls must show a certificate of the cluster's CA that stands for the API server or an administrator; only /healthz is
open. Streams use the WebSocket protocols (KEP-4006); SPDY is not spoken.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from aiohttp import WSMsgType, web

from bowsprit.kubelet import logs
from bowsprit.kubelet.commands import exit_status, run
from bowsprit.kubelet.logs import LogError, LogOptions
from bowsprit.machinery.objects import Obj

_STDIN, _STDOUT, _STDERR, _ERROR = 0, 1, 2, 3
_CLOSE = 255  # v5: the next byte names the channel that its sender has closed
_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_ALLOWED_NAMES = frozenset({"kube-apiserver-kubelet-client"})
_ALLOWED_GROUPS = frozenset({"system:masters", "kubeadm:cluster-admins"})
_FOLLOW_PERIOD = 0.5
_MAX_MESSAGE = 1 << 20
_STDIN_SECONDS = 3600.0


class KubeletServer:
    """Serves until stopped. ``find`` looks a pod up by namespace and name; ``pods`` lists all."""

    def __init__(
        self,
        find: Callable[[str, str], Obj | None],
        pods: Callable[[], list[Obj]],
        context: ssl.SSLContext,
        now: Callable[[], datetime],
    ) -> None:
        self._find = find
        self._pods = pods
        self._context = context
        self._now = now
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; answers the port."""
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=self._context).start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening and end all streams."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        if parts == ["healthz"]:
            return web.Response(text="ok")
        if not _authorized(request):
            return web.Response(status=401, text="Unauthorized")
        match parts:
            case ["pods"]:
                listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._pods()}
                return web.json_response(listed)
            case ["containerLogs", namespace, name, container]:
                return await self._logs(request, namespace, name, container)
            case ["exec" | "attach" as action, namespace, name, container]:
                return await self._stream(request, action, namespace, name, container)
            case ["portForward", _, _]:
                return web.Response(status=501, text="simulated pods have no ports to forward\n")
        return web.Response(status=404, text="404 page not found\n")

    async def _logs(self, request: web.BaseRequest, namespace: str, name: str, container: str) -> web.StreamResponse:
        pod = self._find(namespace, name)
        if pod is None:
            return web.Response(status=404, text=f'pod "{name}" not found\n')
        try:
            options = LogOptions.from_query(request.query, self._now())
            first = logs.selected(list(logs.lines(pod, container, options, self._now())), options)
        except LogError as exc:
            return web.Response(status=400, text=str(exc))
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        budget = options.limit_bytes
        for line in first:
            data = logs.render(*line, timestamps=options.timestamps)
            data = data if budget is None else data[:budget]
            budget = None if budget is None else budget - len(data)
            await response.write(data)
        if options.follow and not options.previous and (budget is None or budget > 0):
            async for line in self._following(namespace, name, container):
                await response.write(logs.render(*line, timestamps=options.timestamps))
        return response

    async def _following(self, namespace: str, name: str, container: str) -> Any:
        """New lines as they come, until the container ends or its pod goes."""
        options = LogOptions()
        pod = self._find(namespace, name)
        count = len(list(logs.lines(pod, container, options, self._now()))) if pod else 0
        while pod is not None and logs.is_running(pod, container):
            await asyncio.sleep(_FOLLOW_PERIOD)
            pod = self._find(namespace, name)
            if pod is None:
                return
            try:
                every = list(logs.lines(pod, container, options, self._now()))
            except LogError:
                return
            for line in every[count:]:
                yield line
            count = len(every)

    async def _stream(
        self, request: web.BaseRequest, action: str, namespace: str, name: str, container: str
    ) -> web.StreamResponse:
        pod = self._find(namespace, name)
        if pod is None:
            return web.Response(status=404, text=f'pod "{name}" not found\n')
        if not logs.is_running(pod, container):
            return web.Response(status=500, text=f'container not found ("{container}")')
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=400, text="Upgrade request required\n")
        socket = web.WebSocketResponse(protocols=_PROTOCOLS, max_msg_size=_MAX_MESSAGE, heartbeat=30.0)
        await socket.prepare(request)
        if action == "exec":
            await self._exec(socket, request.query.getall("command", []), pod, container, request.query)
        else:
            async for line in self._following(namespace, name, container):
                await _send(socket, _STDOUT, logs.render(*line, timestamps=False))
            await _send(socket, _ERROR, json.dumps(exit_status(0)).encode())
        await socket.close()
        return socket

    async def _exec(
        self, socket: web.WebSocketResponse, command: list[str], pod: Obj, container: str, query: Mapping[str, str]
    ) -> None:
        result = run(command, pod, container, self._now())
        if result.stdout:
            await _send(socket, _STDOUT, result.stdout.encode())
        if result.stderr:
            await _send(socket, _STDERR if query.get("tty") != "1" else _STDOUT, result.stderr.encode())
        if result.copies_stdin and query.get("input") == "1":
            async with asyncio.timeout(_STDIN_SECONDS):
                await _echo(socket)
        await _send(socket, _ERROR, json.dumps(exit_status(result.code)).encode())


async def _echo(socket: web.WebSocketResponse) -> None:
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == _CLOSE:
            return
        if channel == _STDIN:
            if not data and socket.ws_protocol != _PROTOCOLS[0]:
                return
            await _send(socket, _STDOUT, data)


async def _send(socket: web.WebSocketResponse, channel: int, data: bytes) -> None:
    await socket.send_bytes(bytes([channel]) + data)


def _authorized(request: web.BaseRequest) -> bool:
    """Whether the verified client certificate is the API server's or an administrator's."""
    peer = request.transport.get_extra_info("peercert") if request.transport else None
    if not peer:
        return False
    subject = {(key, value) for part in peer.get("subject", ()) for key, value in part}
    names = {value for key, value in subject if key == "commonName"}
    groups = {value for key, value in subject if key == "organizationName"}
    return bool(names & _ALLOWED_NAMES or groups & _ALLOWED_GROUPS)
