"""A client's socket on the event loop: an asyncio transport cut down to what a relay needs.

The loop's own transports take three turns of the loop to begin and two to end; this one reads the client's greeting in the
turn that accepted it. `abort` resets the connection, so that the client cannot take a cut for the end of the data.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Protocol

_PAUSE_ABOVE, _RESUME_BELOW = 256 << 10, 64 << 10
_BUFFER = memoryview(bytearray(256 << 10))  # shared: its content is copied out before anybody else can read
_RESET = struct.pack("=ii", 1, 0)


class StreamUser(Protocol):
    """Who is told what happens on a stream: the part of asyncio.Protocol that is needed."""

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""

    def eof_received(self) -> bool:
        """The client sends no more; False to close the stream."""

    def pause_writing(self) -> None:
        """The client does not keep up."""

    def resume_writing(self) -> None:
        """The client keeps up again."""

    def connection_lost(self, exc: Exception | None) -> None:
        """The last call; the stream is closed."""


class ClientStream:
    """Owns a connected socket and tells its user what arrives, from `start` on."""

    def __init__(self, sock: socket.socket, user: StreamUser) -> None:
        self._socket = sock
        self._descriptor = sock.fileno()
        self._user = user
        self._loop = asyncio.get_running_loop()
        self._unsent = bytearray()
        self._reading = False
        self._paused = False  # by the relay
        self._eof_wanted = self._eof_seen = False
        self._user_paused = False  # by us
        self._closing = self._closed = False
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def closing(self) -> bool:
        """Whether `close` or `abort` was called, or the connection broke."""
        return self._closing

    def start(self) -> None:
        """Begin to read, with what is there already."""
        self._readable()  # the greeting is answered before the loop is asked to tell of more
        self._watch()

    def pause_reading(self) -> None:
        """Leave what arrives in the kernel."""
        self._paused = True
        self._watch()

    def resume_reading(self) -> None:
        """Go on reading."""
        self._paused = False
        self._watch()

    def write(self, data: bytes) -> None:
        """Send bytes, now or when the client takes them; ignored once closing."""
        if self._closing or self._eof_wanted:
            return
        sent = 0
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as exc:
                self._finish(exc)
                return
        if sent < len(data):
            if not self._unsent:
                self._loop.add_writer(self._descriptor, self._writable)
            self._unsent += memoryview(data)[sent:]
            if len(self._unsent) > _PAUSE_ABOVE and not self._user_paused:
                self._user_paused = True
                self._user.pause_writing()

    def write_eof(self) -> None:
        """Send no more after what is unsent."""
        self._eof_wanted = True
        if not self._unsent and not self._closing:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close after what is unsent; nothing more is read."""
        if not self._closing:
            self._closing = True
            self._watch()
            if not self._unsent:
                self._finish(None)

    def abort(self) -> None:
        """Cut the connection now, and let the client know that it was cut."""
        if not self._closed:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._finish(ConnectionAbortedError())

    def _watch(self) -> None:
        wanted = not (self._paused or self._closing or self._eof_seen)
        if wanted and not self._reading:
            self._loop.add_reader(self._descriptor, self._readable)
        elif self._reading and not wanted:
            self._loop.remove_reader(self._descriptor)
        self._reading = wanted

    def _readable(self) -> None:
        try:
            size = self._socket.recv_into(_BUFFER)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._finish(exc)
            return
        if size:
            self._user.data_received(bytes(_BUFFER[:size]))
            return
        self._eof_seen = True
        self._watch()
        if not self._user.eof_received():
            self.close()

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._finish(exc)
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._descriptor)
            if self._closing:
                self._finish(None)
                return
            if self._eof_wanted:
                self.write_eof()
        if self._user_paused and len(self._unsent) <= _RESUME_BELOW:
            self._user_paused = False
            self._user.resume_writing()

    def _finish(self, exc: Exception | None) -> None:
        if self._closed:
            return
        self._closing = self._closed = True
        self._watch()
        if self._unsent:
            self._loop.remove_writer(self._descriptor)
            self._unsent.clear()
        self._socket.close()
        self._loop.call_soon(self._user.connection_lost, exc)
