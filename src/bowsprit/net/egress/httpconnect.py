"""Connections through a Konnectivity server in HTTP CONNECT mode, over its unix socket."""

from __future__ import annotations

import asyncio
import os
import socket

from bowsprit.net.dial import DialError, join_host_port

TIMEOUT = 30.0
_MAX_HEAD = 64 * 1024
_MAX_BODY = 4 * 1024


class UdsConnectDialer:
    """Sends the CONNECT that kube-apiserver sends, and answers the socket itself: nothing copies its bytes."""

    def __init__(self, uds: str, timeout: float = TIMEOUT) -> None:
        self._uds = uds
        self._timeout = timeout

    async def open(self, host: str, port: int) -> socket.socket:
        """A connected, non-blocking socket. Raises DialError with the server's words."""
        loop = asyncio.get_running_loop()
        address = join_host_port(host, port)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            async with asyncio.timeout(self._timeout):
                await loop.sock_connect(sock, self._uds)
                await loop.sock_sendall(sock, f"CONNECT {address} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                head = await self._read_head(loop, sock)
                status = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
                if len(status) < 2 or status[1] != "200":
                    body = await loop.sock_recv(sock, _MAX_BODY)
                    text = (
                        body.decode("utf-8", "replace").strip() or " ".join(status[1:]) or "malformed answer to CONNECT"
                    )
                    raise DialError(f"proxy {self._uds}: dial {address}: {text}")
        except TimeoutError:
            sock.close()
            raise DialError(f"proxy {self._uds}: dial {address}: timed out") from None
        except DialError:
            sock.close()
            raise
        except OSError as exc:
            sock.close()
            reason = os.strerror(exc.errno).lower() if exc.errno else str(exc)
            raise DialError(exc.errno, f"proxy {self._uds}: dial {address}: {reason}") from exc
        except BaseException:
            sock.close()
            raise
        return sock

    async def _read_head(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
        """The header block, and not a byte more: what follows is the connection's."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if len(head) > _MAX_HEAD:
                raise DialError(f"proxy {self._uds}: the answer to CONNECT has no end")
            byte = await loop.sock_recv(sock, 1)
            if not byte:
                raise DialError(f"proxy {self._uds}: closed the connection before it answered CONNECT")
            head += byte
            try:
                ahead = head[-3:] + sock.recv(_MAX_HEAD, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            end = ahead.find(b"\r\n\r\n")
            take = (end + 4 if end >= 0 else len(ahead)) - len(head[-3:])
            head += sock.recv(take) if take > 0 else b""
        return head
