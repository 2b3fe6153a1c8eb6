"""The kubelet's HTTPS endpoint: logs, exec, attach and port-forward of simulated containers, for all nodes of the process.

Who calls must show a certificate of the cluster's CA that stands for the API server or an administrator; only /healthz is
open. Streams come over SPDY/3.1 or WebSockets (KEP-4006).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from aiohttp import web

from bowsprit.kubelet import logs
from bowsprit.kubelet.commands import Result, exit_status, hostname, output, run
from bowsprit.kubelet.files import LARGEST, Files
from bowsprit.kubelet.logs import LogError, LogOptions
from bowsprit.kubelet.multiplex import Multiplexer
from bowsprit.kubelet.portforward import PROTOCOL as FORWARD_PROTOCOL
from bowsprit.kubelet.portforward import Connect, PortForward, simulated
from bowsprit.kubelet.terminal import converse
from bowsprit.kubelet.upgrade import (
    CHANNEL_PROTOCOLS,
    STDERR,
    STDOUT,
    TUNNEL_PROTOCOL,
    Channels,
    Finished,
    Refused,
    SocketChannels,
    SpdyChannels,
    chosen_protocol,
    is_spdy,
    is_websocket,
    serve_spdy,
    serve_tunnel,
)
from bowsprit.machinery.objects import Obj

_SPDY_STREAMS = {"input": "stdin", "output": "stdout", "error": "stderr"}
_ALLOWED_NAMES = frozenset({"kube-apiserver-kubelet-client"})
_ALLOWED_GROUPS = frozenset({"system:masters", "kubeadm:cluster-admins"})
_FOLLOW_PERIOD = 0.5
_STDIN_SECONDS = 3600.0


class KubeletServer:
    """Serves until stopped. ``find`` looks a pod up by namespace and name; ``pods`` lists all.

    ``connect`` (may be replaced) serves forwarded connections, ``lines`` reads logs.
    """

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
        self._files: dict[tuple[str, str], Files] = {}
        self.connect: Connect = simulated
        self.lines = logs.lines

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
        try:
            return await self._route(request, parts)
        except Refused as refusal:
            return web.Response(status=refusal.status, text=str(refusal))
        except ConnectionError:  # the client is gone, as most are at the end of `kubectl logs -f`
            return Finished()

    async def _route(self, request: web.BaseRequest, parts: list[str]) -> web.StreamResponse:
        match parts:
            case ["pods"]:
                listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._pods()}
                return web.json_response(listed)
            case ["containerLogs", namespace, name, container]:
                return await self._logs(request, namespace, name, container)
            case ["exec" | "attach" as action, namespace, name, container]:
                return await self._stream(request, action, namespace, name, container)
            case ["portForward", namespace, name]:
                return await self._port_forward(request, namespace, name)
        return web.Response(status=404, text="404 page not found\n")

    async def _logs(self, request: web.BaseRequest, namespace: str, name: str, container: str) -> web.StreamResponse:
        pod = self._find(namespace, name)
        if pod is None:
            return web.Response(status=404, text=f'pod "{name}" not found\n')
        try:
            options = LogOptions.from_query(request.query, self._now())
            first = logs.selected(list(self.lines(pod, container, options, self._now())), options)
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
        count = len(list(self.lines(pod, container, options, self._now()))) if pod else 0
        while pod is not None and logs.is_running(pod, container):
            await asyncio.sleep(_FOLLOW_PERIOD)
            pod = self._find(namespace, name)
            if pod is None:
                return
            try:
                every = list(self.lines(pod, container, options, self._now()))
            except LogError:
                return
            for line in every[count:]:
                yield line
            count = len(every)

    # -- exec, attach, port-forward ------------------------------------------------------------------------------------

    async def _stream(
        self, request: web.BaseRequest, action: str, namespace: str, name: str, container: str
    ) -> web.StreamResponse:
        pod = self._find(namespace, name)
        if pod is None:
            return web.Response(status=404, text=f'pod "{name}" not found\n')
        if not logs.is_running(pod, container):
            return web.Response(status=500, text=f'container not found ("{container}")')
        query = request.query
        terminal = query.get("tty") == "1"

        async def work(channels: Channels) -> None:
            if action == "exec":
                code = await self._exec(channels, query.getall("command", []), pod, container, query)
            else:
                code = await self._attach(channels, pod, container, query)
            await channels.finish(exit_status(code))

        if is_spdy(request):
            names = ["error", *(name for key, name in _SPDY_STREAMS.items() if query.get(key) == "1")]
            if terminal:
                names = [*(name for name in names if name != "stderr"), "resize"]
            return await serve_spdy(
                request,
                chosen_protocol(request, CHANNEL_PROTOCOLS),
                lambda streams: _with_channels(streams, names, work),
            )
        if not is_websocket(request):
            raise Refused(400, "Upgrade request required\n")
        socket = await SocketChannels.accept(request)
        await work(socket)
        return socket.socket

    async def _exec(
        self, channels: Channels, command: list[str], pod: Obj, container: str, query: Mapping[str, str]
    ) -> int:
        files = self._files_of(pod, container)
        has_stdin = query.get("input") == "1"
        result = run(command, pod, container, self._now(), files)
        if result.interactive:
            if not has_stdin:
                return 0
            return await self._converse(channels, pod, container, tty=query.get("tty") == "1")
        if result.takes_stdin is not None:
            result = result.takes_stdin(await _all_of(channels) if has_stdin else b"")
        await _report(channels, result, tty=query.get("tty") == "1")
        if result.copies_stdin and has_stdin:
            async with asyncio.timeout(_STDIN_SECONDS):
                while data := await channels.read():
                    await channels.write(STDOUT, data)
        return result.code

    async def _attach(self, channels: Channels, pod: Obj, container: str, query: Mapping[str, str]) -> int:
        if query.get("input") == "1" and _container_spec(pod, container).get("stdin"):
            return await self._converse(channels, pod, container, tty=query.get("tty") == "1")
        async for line in self._following(pod["metadata"]["namespace"], pod["metadata"]["name"], container):
            await channels.write(STDOUT, logs.render(*line, timestamps=False))
        return 0

    async def _converse(self, channels: Channels, pod: Obj, container: str, *, tty: bool) -> int:
        files = self._files_of(pod, container)

        def execute(line: str) -> Result:
            return run(["sh", "-c", line], pod, container, self._now(), files)

        return await converse(channels, execute, tty=tty)

    async def _port_forward(self, request: web.BaseRequest, namespace: str, name: str) -> web.StreamResponse:
        pod = self._find(namespace, name)
        if pod is None:
            return web.Response(status=404, text=f'pod "{name}" not found\n')
        if (pod.get("status") or {}).get("phase") != "Running":
            return web.Response(status=500, text=f"unable to forward port because pod is not running: {name}\n")
        forward = PortForward(pod, self.connect)
        if is_spdy(request):
            return await serve_spdy(request, chosen_protocol(request, (FORWARD_PROTOCOL,)), forward.serve)
        if not is_websocket(request):
            raise Refused(400, "Upgrade request required\n")
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        return await (
            serve_tunnel(request, forward.serve) if TUNNEL_PROTOCOL in offered else forward.serve_socket(request)
        )

    def _files_of(self, pod: Obj, container: str) -> Files:
        """The container's files; those of pods that are gone are dropped."""
        key = (str(pod["metadata"].get("uid", "")), container)
        if key not in self._files:
            present = {str(item["metadata"].get("uid", "")) for item in self._pods()}
            self._files = {each: files for each, files in self._files.items() if each[0] in present}
            self._files[key] = Files(hostname(pod))
        return self._files[key]


async def _with_channels(streams: Multiplexer, names: list[str], work: Callable[[Channels], Awaitable[None]]) -> None:
    channels = await SpdyChannels.accept(streams, names)
    if channels is not None:
        await work(channels)


async def _all_of(channels: Channels) -> bytes:
    data = b""
    while len(data) <= LARGEST and (more := await channels.read()):
        data += more
    return data


async def _report(channels: Channels, result: Result, *, tty: bool) -> None:
    out, err = output(result), result.stderr.encode()
    if tty:
        out, err = (out + err).replace(b"\n", b"\r\n"), b""
    await channels.write(STDOUT, out)
    await channels.write(STDERR, err)


def _container_spec(pod: Obj, name: str) -> Obj:
    spec = pod["spec"]
    every = (*spec["containers"], *(spec.get("initContainers") or ()), *(spec.get("ephemeralContainers") or ()))
    return next((item for item in every if item["name"] == name), {})


def _authorized(request: web.BaseRequest) -> bool:
    """Whether the verified client certificate is the API server's or an administrator's."""
    peer = request.transport.get_extra_info("peercert") if request.transport else None
    if not peer:
        return False
    subject = {(key, value) for part in peer.get("subject", ()) for key, value in part}
    names = {value for key, value in subject if key == "commonName"}
    groups = {value for key, value in subject if key == "organizationName"}
    return bool(names & _ALLOWED_NAMES or groups & _ALLOWED_GROUPS)
