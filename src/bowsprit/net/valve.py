"""Stopping a transport's input for a while, without losing what precedes the end of a TLS connection."""

from __future__ import annotations

import asyncio
from typing import cast


class Valve:
    """Over one transport. A little that has been read already may still arrive after ``close``.

    With TLS the transport below is stopped, by its buffer's limits: when a peer closes while ``pause_reading`` holds,
    uvloop's TLS (0.22, SSLProtocol._do_flush) drops what it has not delivered, and never tells the end.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._tls = transport.get_extra_info("ssl_object") is not None
        self.closed = False

    def close(self) -> None:
        """Let nothing more in."""
        if self.closed or self._transport.is_closing():
            return
        self.closed = True
        if self._tls:  # later: the end of the callback that delivers data would open it again
            asyncio.get_running_loop().call_soon(self._stop_below)
        else:
            self._transport.pause_reading()

    def _stop_below(self) -> None:
        if self.closed and not self._transport.is_closing():
            self._transport.set_read_buffer_limits(high=0)  # type: ignore[attr-defined]

    def open(self) -> None:
        """Go on."""
        if not self.closed or self._transport.is_closing():
            return
        self.closed = False
        if self._tls:
            self._transport.set_read_buffer_limits()  # type: ignore[attr-defined]
        else:
            self._transport.resume_reading()


class ValvedReader(asyncio.StreamReader):
    """A stream reader that stops its transport with a Valve."""

    def set_transport(self, transport: asyncio.BaseTransport) -> None:
        super().set_transport(_Valved(cast(asyncio.Transport, transport)))


class _Valved(asyncio.ReadTransport):
    """As much of a transport as a stream reader uses."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._valve = Valve(transport)

    def pause_reading(self) -> None:
        self._valve.close()

    def resume_reading(self) -> None:
        self._valve.open()
