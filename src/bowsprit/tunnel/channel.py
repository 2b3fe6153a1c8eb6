"""One forwarded TCP connection inside an SSH connection: a ``direct-tcpip`` channel (RFC 4254 sections 5 and 7.2).

Theory. A channel is a machine that asyncssh's connection feeds with packets and that sends packets through it; it has no
task, no future and no queue of its own, so that opening one costs one packet and no turn of the event loop. asyncssh's
own channel does the same in three times the time: it serves shells, terminals and text encodings, too.

    OPENING --confirmation--> OPEN --our CLOSE--> CLOSING --their CLOSE--> CLOSED
       |                        '------their CLOSE (answered with ours)------^
       '--failure, or the link is lost---------------------------------------'

Each direction ends on its own (EOF). What we have not yet been allowed to send waits here, and the peer is asked to pause
beyond `PAUSE_ABOVE` octets; what arrives is handed over at once, and while the peer pauses us the far end gets no new
window, so that at most `WINDOW` octets can arrive.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Protocol

import asyncssh
from asyncssh.packet import SSHPacket, SSHPacketHandler

WINDOW = 2 << 20  # OpenSSH's CHAN_TCP_WINDOW_DEFAULT
_PACKET = 32 << 10
PAUSE_ABOVE = 64 << 10
_RESUME_BELOW = 16 << 10

# RFC 4254 section 9.
_OPEN = 90
_WINDOW_ADJUST = 93
_DATA = 94
_EXTENDED_DATA = 95
_EOF = 96
_CLOSE = 97
_REQUEST = 98
_REQUEST_FAILURE = 100


class ChannelOpener(Protocol):
    """Who asks for a channel; exactly one of the two is called, once, unless the channel is closed before."""

    def channel_opened(self, channel: Channel) -> ChannelPeer:
        """The far end is connected and data may be written; answers who takes what arrives."""

    def channel_refused(self, error: asyncssh.ChannelOpenError | None) -> None:
        """The far end could not connect; None when the SSH connection was lost before it answered."""


class ChannelPeer(Protocol):
    """Who uses an open channel; `channel_lost` comes last."""

    def data_from_channel(self, data: bytes) -> None:
        """Bytes of the far end."""

    def eof_from_channel(self) -> None:
        """The far end will send no more."""

    def pause_to_channel(self) -> None:
        """Write no more for now."""

    def resume_to_channel(self) -> None:
        """Go on writing."""

    def channel_lost(self, error: Exception | None) -> None:
        """Both directions are closed; ``error`` when the SSH connection broke."""


class _State(Enum):
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Channel(SSHPacketHandler):
    """A channel of ``connection`` to ``host:port`` as the far end sees it; asks for it at once."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        opener: ChannelOpener,
        host: str,
        port: int,
        origin: tuple[str, int],
    ) -> None:
        self._connection = connection
        self._opener: ChannelOpener | None = opener
        self._peer: ChannelPeer | None = None
        self._state = _State.OPENING
        self._number = connection.add_channel(self)  # type: ignore[arg-type]
        self._remote = b""  # the far end's number, encoded
        self._send_window = 0
        self._send_packet = 0
        self._unsent = bytearray()
        self._eof_wanted = self._eof_sent = False
        self._close_wanted = False
        self._peer_paused = False
        self._receive_window = WINDOW
        self._reading = True
        self._send(
            _OPEN,
            _string(b"direct-tcpip"),
            _uint32(self._number),
            _uint32(WINDOW),
            _uint32(_PACKET),
            _string(host.encode()),
            _uint32(port),
            _string(origin[0].encode()),
            _uint32(origin[1]),
        )

    # The peer's side.

    def write(self, data: bytes) -> None:
        """Send bytes, now or as soon as the far end takes them; ignored once the channel is closing."""
        if self._state is not _State.OPEN or self._eof_wanted:
            return
        sent = 0 if self._unsent else self._transmit(data)
        if sent < len(data):
            self._unsent += data[sent:]
            self._balance()

    def write_eof(self) -> None:
        """Send no more after what is unsent."""
        self._eof_wanted = True
        self._flush()

    def close(self) -> None:
        """Close after what is unsent; nothing more is told to the opener or peer."""
        self._opener = self._peer = None
        self._close_wanted = True
        self._flush()

    def abort(self) -> None:
        """Close now; nothing more is told to the opener or peer."""
        self._unsent.clear()
        self.close()

    def pause_reading(self) -> None:
        """Let the far end send no more than the window that it has."""
        self._reading = False

    def resume_reading(self) -> None:
        """Let the far end go on."""
        self._reading = True
        self._widen()

    # asyncssh's side.

    def process_open_confirmation(self, number: int, window: int, packet_size: int, _packet: SSHPacket) -> None:
        """The far end is connected."""
        if self._state is not _State.OPENING or not packet_size:
            raise asyncssh.ProtocolError("a channel was confirmed twice, or for empty packets")
        self._remote = _uint32(number)
        self._send_window, self._send_packet = window, packet_size
        self._state = _State.OPEN
        opener, self._opener = self._opener, None
        if opener is not None:
            self._peer = opener.channel_opened(self)
        self._flush()

    def process_open_failure(self, code: int, reason: str, _language: str) -> None:
        """The far end could not connect."""
        if self._state is not _State.OPENING:
            raise asyncssh.ProtocolError("an open channel was refused")
        self._end(asyncssh.ChannelOpenError(code, reason[:200]))

    def process_connection_close(self, exc: Exception | None) -> None:
        """The SSH connection is gone."""
        self._unsent.clear()
        self._end(exc or ConnectionError("the SSH connection was closed"))

    def log_received_packet(self, *_: Any, **__: Any) -> None:
        """Nothing: a line per packet would cost more than the packet."""

    def log_sent_packet(self, *_: Any, **__: Any) -> None:
        """Nothing, as above."""

    # Both directions.

    def _received(self, _type: int, _sequence: int, packet: SSHPacket) -> None:
        self.receive(packet.get_string())

    def receive(self, data: bytes) -> None:
        """Take data of the far end."""
        self._count(len(data))
        if self._peer is not None and data:
            self._peer.data_from_channel(data)
        self._widen()

    def _received_extended(self, _type: int, _sequence: int, packet: SSHPacket) -> None:
        packet.get_uint32()
        self._count(len(packet.get_string()))  # there is no such data in a TCP connection: dropped
        self._widen()

    def _adjusted(self, _type: int, _sequence: int, packet: SSHPacket) -> None:
        self._send_window += packet.get_uint32()
        self._flush()

    def _eof(self, _type: int, _sequence: int, _packet: SSHPacket) -> None:
        if self._peer is not None:
            self._peer.eof_from_channel()

    def _closed(self, _type: int, _sequence: int, _packet: SSHPacket) -> None:
        self._send_close()
        self._end(None)

    def _requested(self, _type: int, _sequence: int, packet: SSHPacket) -> None:
        packet.get_string()
        if packet.get_boolean() and self._state is _State.OPEN:
            self._send(_REQUEST_FAILURE, self._remote)

    def _count(self, size: int) -> None:
        if size > self._receive_window or self._state is _State.OPENING:
            raise asyncssh.ProtocolError("a channel received more data than its window allows")
        self._receive_window -= size

    def _widen(self) -> None:
        if self._reading and self._receive_window <= WINDOW // 2 and self._state is _State.OPEN:
            self._send(_WINDOW_ADJUST, self._remote, _uint32(WINDOW - self._receive_window))
            self._receive_window = WINDOW

    def _flush(self) -> None:
        if self._state is not _State.OPEN:
            return
        if self._unsent:
            del self._unsent[: self._transmit(bytes(self._unsent))]
            self._balance()
        if not self._unsent:
            if self._close_wanted:
                self._send_close()
            elif self._eof_wanted and not self._eof_sent:
                self._eof_sent = True
                self._send(_EOF, self._remote)

    def _transmit(self, data: bytes) -> int:
        """Send what the window allows; answers how much that was."""
        sent, size = 0, len(data)
        while sent < size and self._send_window:
            length = min(size - sent, self._send_window, self._send_packet)
            part = data if length == size else memoryview(data)[sent : sent + length]
            self._send_window -= length
            sent += length
            self._send(_DATA, self._remote, _uint32(length), part)
        return sent

    def _balance(self) -> None:
        if self._peer is None:
            return
        if not self._peer_paused and len(self._unsent) > PAUSE_ABOVE:
            self._peer_paused = True
            self._peer.pause_to_channel()
        elif self._peer_paused and len(self._unsent) <= _RESUME_BELOW:
            self._peer_paused = False
            self._peer.resume_to_channel()

    def _send_close(self) -> None:
        if self._state is _State.OPEN:
            self._state = _State.CLOSING
            self._send(_CLOSE, self._remote)

    def _end(self, error: Exception | None) -> None:
        if self._state is not _State.CLOSED:
            self._state = _State.CLOSED
            self._connection.remove_channel(self._number)
        opener, self._opener = self._opener, None
        peer, self._peer = self._peer, None
        if opener is not None:
            opener.channel_refused(error if isinstance(error, asyncssh.ChannelOpenError) else None)
        elif peer is not None:
            peer.channel_lost(error)

    def _send(self, pkttype: int, *parts: bytes | memoryview) -> None:
        self._connection.send_packet(pkttype, *parts, handler=self)  # type: ignore[arg-type]

    # Raised errors (asyncssh.ProtocolError) make asyncssh end the connection.
    _packet_handlers = {  # noqa: RUF012 - declared so by the base class
        _WINDOW_ADJUST: _adjusted,
        _DATA: _received,
        _EXTENDED_DATA: _received_extended,
        _EOF: _eof,
        _CLOSE: _closed,
        _REQUEST: _requested,
    }


def _uint32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
