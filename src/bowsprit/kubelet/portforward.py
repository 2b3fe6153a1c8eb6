"""Port forwarding: pairs of streams, and what is behind the ports of a simulated container.

Upstream: cri-streaming/pkg/streaming/portforward. A simulated container has a small service on each port that it declares:
it answers HTTP requests with a line about itself, and sends anything else back as it came.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from aiohttp import web

from bowsprit.kubelet.multiplex import Multiplexer, Stream
from bowsprit.kubelet.upgrade import Refused, payload
from bowsprit.machinery.objects import Obj

PROTOCOL = "portforward.k8s.io"
_MAX_HEAD = 64 << 10
_MAX_PORTS = 64
_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS ")
_SOCKET_PROTOCOL = "v4.channel.k8s.io"


class Pipe(Protocol):
    """One forwarded connection, seen from the pod."""

    async def read(self) -> bytes:
        """The client's bytes; b"" at their end."""
        ...

    async def write(self, data: bytes) -> None:
        """Send to the client."""
        ...


Connect = Callable[[Obj, int, Pipe], Awaitable[bool]]
"""Serve a connection to a pod's port until it ends; False (at once) if this pod's ports are not one's own."""


async def simulated(pod: Obj, port: int, pipe: Pipe) -> bool:
    """The service of a simulated container; ports that no container declares refuse connections."""
    if port not in declared_ports(pod):
        return False
    head = await pipe.read()
    if not any(head.startswith(method) or method.startswith(head) for method in _METHODS):
        while head:
            await pipe.write(head)
            head = await pipe.read()
        return True
    while head:
        while b"\r\n\r\n" not in head:
            more = await pipe.read()
            if not more or len(head) > _MAX_HEAD:
                return True
            head += more
        lines, _, rest = head.partition(b"\r\n\r\n")
        await pipe.write(_answer(pod, port, lines))
        length = next((line[15:] for line in lines.lower().split(b"\r\n") if line.startswith(b"content-length:")), b"0")
        if b"connection: close" in lines.lower() or not length.strip().isdigit():
            return True
        left = int(length) - len(rest)
        while left > 0 and (more := await pipe.read()):
            left, rest = left - len(more), more
        head = rest[len(rest) + left :] if left < 0 else b""
        head = head or await pipe.read()
    return True


def declared_ports(pod: Obj) -> set[int]:
    """The container ports of a pod."""
    return set(_ports(pod))


def _ports(pod: Obj) -> Iterator[int]:
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("protocol", "TCP") == "TCP":
                yield int(port["containerPort"])


def _answer(pod: Obj, port: int, head: bytes) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].decode("latin-1")
    meta = pod["metadata"]
    body = f"simulated pod {meta['namespace']}/{meta['name']} port {port}: {method.decode()} {path}\n".encode()
    fields = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    return fields if method == b"HEAD" else fields + body


class PortForward:
    """Serves the connections of one port-forward request."""

    def __init__(self, pod: Obj, connect: Connect) -> None:
        self._pod = pod
        self._connect = connect

    async def failure(self, port: int, pipe: Pipe) -> str:
        """Serve a connection; says what went wrong."""
        name = self._pod["metadata"]["name"]
        try:
            if await self._connect(self._pod, port, pipe):
                return ""
            problem = (
                f"failed to connect to localhost:{port} inside simulated pod {name}: dial tcp4 127.0.0.1:{port}: connect: "
                "connection refused (no container declares this port)"
            )
        except OSError as exc:
            problem = f"failed to connect to localhost:{port} inside pod {name}: {exc.strerror or exc}"
        return f"error forwarding port {port} to pod {name}, uid {self._pod['metadata'].get('uid', '')}: {problem}"

    # -- SPDY ------------------------------------------------------------------------------------------------------------

    async def serve(self, connection: Multiplexer) -> None:
        """Until the client goes: each pair of an error and a data stream is a connection."""
        pairs: dict[str, dict[str, Stream]] = {}
        tasks: set[asyncio.Task[None]] = set()
        try:
            while (stream := await connection.accept()) is not None:
                sort, port = stream.headers.get("streamtype", ""), stream.headers.get("port", "")
                if sort not in ("error", "data") or not (port.isdigit() and 0 < int(port) < 65536):
                    await stream.reset()
                    continue
                pair = pairs.setdefault(_request_id(stream, sort), {})
                pair[sort] = stream
                if len(pair) == 2:
                    pairs.pop(_request_id(stream, sort))
                    work = self._serve_pair(int(pair["data"].headers["port"]), pair["data"], pair["error"])
                    task = asyncio.create_task(work, name="forwarded connection")
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve_pair(self, port: int, data: Stream, error: Stream) -> None:
        problem = await self.failure(port, data)
        if problem:
            await error.write(problem.encode())
            await error.close()
            await data.reset()
            return
        await data.close()
        await error.close()

    # -- WebSocket channels ----------------------------------------------------------------------------------------------

    async def serve_socket(self, request: web.BaseRequest) -> web.StreamResponse:
        """Two channels per port of the query, data and error; each begins with the port (upstream websocket.go)."""
        texts = [text for value in request.query.getall("port", []) for text in value.split(",")]
        if not texts or len(texts) > _MAX_PORTS or not all(text.isdigit() and 0 < int(text) < 65536 for text in texts):
            raise Refused(400, 'query parameter "port" is required\n')
        socket = web.WebSocketResponse(protocols=(_SOCKET_PROTOCOL,), max_msg_size=1 << 20, heartbeat=30.0)
        await socket.prepare(request)
        pipes = [_SocketPipe(socket, 2 * number) for number in range(len(texts))]
        for pipe, text in zip(pipes, texts, strict=True):
            await pipe.begin(int(text))
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._serve_pipe(int(text), pipe)) for pipe, text in zip(pipes, texts, strict=True)
            ]
            async for message in socket:
                data = payload(message)
                if data and data[0] % 2 == 0 and data[0] // 2 < len(pipes) and not tasks[data[0] // 2].done():
                    await pipes[data[0] // 2].put(data[1:])
            for task in tasks:
                task.cancel()
        return socket

    async def _serve_pipe(self, port: int, pipe: _SocketPipe) -> None:
        problem = await self.failure(port, pipe)
        if problem:
            await pipe.tell(problem)


class _SocketPipe:
    """A pair of channels."""

    def __init__(self, socket: web.WebSocketResponse, channel: int) -> None:
        self._socket = socket
        self._channel = channel
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(16)

    async def begin(self, port: int) -> None:
        for channel in (self._channel, self._channel + 1):
            await self._socket.send_bytes(bytes([channel]) + port.to_bytes(2, "little"))

    async def put(self, data: bytes) -> None:
        await self._waiting.put(data)

    async def read(self) -> bytes:
        return await self._waiting.get()

    async def write(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(bytes([self._channel]) + data)

    async def tell(self, problem: str) -> None:
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(bytes([self._channel + 1]) + problem.encode())


def _request_id(stream: Stream, sort: str) -> str:
    """Which streams belong together; very old clients do not say, but open the error stream first."""
    named = stream.headers.get("requestid", "")
    return named or f"#{stream.number - 2 if sort == 'data' else stream.number}"
