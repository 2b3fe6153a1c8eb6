"""One HTTP/2 connection, client or server side, without I/O: bytes in, bytes out, events to handlers.

The ``h2`` library keeps the protocol: preface, SETTINGS, HEADERS and HPACK, PING, RST_STREAM, stream states, all validation.
DATA, WINDOW_UPDATE and GOAWAY are handled here instead: DATA is where the bytes are, and in ``h2`` each frame costs several
times the work of everything else we do with it (buffering, three copies, state machine, events); GOAWAY because ``h2`` then
refuses to finish streams that are still allowed (RFC 9113 6.8). So flow control is ours in both directions.
An end of stream is given to ``h2`` as an empty DATA frame, which keeps its stream states true.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Protocol

import h2.exceptions
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    Event,
    PingAckReceived,
    PingReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings

from bowsprit.net.grpc import metadata as md
from bowsprit.net.grpc import request
from bowsprit.net.grpc.limits import KIB, Budget, Options
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.pings import PingPolice
from bowsprit.net.grpc.request import MalformedRequestError, RefusedRequestError
from bowsprit.net.grpc.status import Status, StatusCode, status_of_http, status_of_reset
from bowsprit.net.grpc.stream import Part, Stream, StreamHandler

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER = 9
_DATA, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0x0, 0x3, 0x4, 0x6, 0x7, 0x8
_END_STREAM, _ACK, _PADDED = 0x1, 0x1, 0x8
_MAX_WINDOW = 2**31 - 1
_DEFAULT_WINDOW = 65_535
_MAX_CONTROL = 64 * KIB
_LOW_WATER = 256 * KIB
_TURN = 256 * KIB  # how much one stream may send before the next one has its turn
# Frames that cost us work and the peer nothing (CVE-2019-9512, -9515, -9518, CVE-2023-44487).
_CONTROL_BURST, _CONTROL_RATE = 1000, 200.0


class ConnectionHandler(Protocol):
    """What the driver does for a connection."""

    def stream_opened(self, stream: Stream, headers: Metadata) -> StreamHandler | None:
        """Server: a call begins; None if it has been refused."""

    def wants_flush(self) -> None:
        """There is output to write."""

    def connection_failed(self, reason: str) -> None:
        """The peer broke the protocol; close the transport once the output (a GOAWAY) is written."""

    def ping_acknowledged(self) -> None:
        """The answer to our ping is here."""


class ProtocolViolationError(Exception):
    """The peer did what HTTP/2 or our limits forbid."""

    def __init__(self, code: ErrorCodes, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Connection:
    """See the module. ``blocked`` says that the transport takes no more."""

    def __init__(
        self, handler: ConnectionHandler, options: Options, clock: Callable[[], float], *, client: bool
    ) -> None:
        self.options = options
        self.client = client
        self.streams: dict[int, Stream] = {}
        self.blocked = False
        self.closed = False
        self.going_away = False  # the peer takes no more streams
        self.peer_max_frame = 16_384
        self._handler = handler
        self._clock = clock
        self._h2 = _h2_connection(options, client)
        self._output: list[bytes] = []
        self._carry = b""
        self._preface_left = 0 if client else len(PREFACE)
        self._backlogged: dict[int, Stream] = {}
        self._send_window = _DEFAULT_WINDOW
        self._initial_send_window = _DEFAULT_WINDOW
        self._receive_window = options.connection_window
        self._receive_unacknowledged = 0
        self._highest_peer_stream = 0
        self._data_stream: Stream | None = None
        self._data_left = 0
        self._data_ends = False
        self._control = Budget(_CONTROL_BURST, _CONTROL_RATE, clock)
        self.pings = PingPolice(options, clock)
        self._h2.initiate_connection()
        self._take_h2_output()
        self.send_window_update(0, options.connection_window - _DEFAULT_WINDOW)

    # -- output -------------------------------------------------------------------------------------------------------

    def take_output(self) -> list[bytes]:
        """The bytes to write, in order; the list is the caller's."""
        output, self._output = self._output, []
        return output

    def emit(self, chunk: bytes) -> None:
        """Append to the output."""
        if not self._output:
            self._handler.wants_flush()
        self._output.append(chunk)

    def _take_h2_output(self) -> None:
        data = self._h2.data_to_send()
        if data:
            self.emit(data)

    def send_data_now(self, stream: Stream, prefix: bytes, parts: Sequence[Part], size: int) -> bool:
        """Send a message as one DATA frame if windows, frame size and transport allow it at once."""
        if (
            self.blocked
            or size > self.peer_max_frame
            or size > stream.send_window
            or size > self._send_window
            or self._backlogged
        ):
            return False
        stream.send_window -= size
        self._send_window -= size
        self.emit(b"".join((struct.pack("!HBBBI", size >> 8, size & 0xFF, 0, 0, stream.stream_id), prefix, *parts)))
        self.pings.excused = True
        return True

    def emit_data(self, stream: Stream, chunk: memoryview) -> None:
        """One DATA frame; the caller has checked the windows."""
        size = len(chunk)
        stream.send_window -= size
        self._send_window -= size
        self.emit(b"".join((struct.pack("!HBBBI", size >> 8, size & 0xFF, 0, 0, stream.stream_id), chunk)))
        self.pings.excused = True

    def enqueue(self, stream: Stream) -> None:
        """The stream has a backlog: send what may be sent, the rest when windows or the transport open."""
        self._backlogged[stream.stream_id] = stream
        self.pump()

    def pump(self) -> None:
        """Let waiting streams send in turns, until windows or transport close."""
        drained: dict[int, Stream] = {}
        while self._backlogged and not self.blocked and self._send_window > 0:
            progress = False
            for stream in list(self._backlogged.values()):
                if stream.waiting and not self.blocked and self._send_window > 0:
                    progress = stream.pump(min(_TURN, self._send_window)) > 0 or progress
                if not stream.backlog:
                    self._backlogged.pop(stream.stream_id, None)
                if stream.backlog < _LOW_WATER:
                    drained[stream.stream_id] = stream
            if not progress:
                break
        for stream in drained.values():
            if not stream.closed:
                stream.handler.writable(stream)

    def unblock(self) -> None:
        """The transport takes output again."""
        self.blocked = False
        self.pump()

    def send_window_update(self, stream_id: int, increment: int) -> None:
        """WINDOW_UPDATE for a stream, or for the connection (0)."""
        if increment > 0 and not self.closed:
            self.emit(struct.pack("!HBBBII", 0, 4, _WINDOW_UPDATE, 0, stream_id, increment))

    def send_headers(self, stream: Stream, headers: Metadata, *, end_stream: bool = False) -> None:
        """HEADERS: a request, a response or trailers."""
        self.pings.excused = True
        self._send_h2(lambda: self._h2.send_headers(stream.stream_id, list(headers), end_stream=end_stream))

    def end_stream(self, stream: Stream, trailers: list[tuple[str, str]]) -> None:
        """Our side of a stream is over: trailers (server) or an empty DATA frame with END_STREAM (client)."""
        if self.client:
            self._send_h2(lambda: self._h2.end_stream(stream.stream_id))
        elif stream.headers_sent:
            self.send_headers(stream, trailers, end_stream=True)
        else:
            stream.headers_sent = True
            block = [(":status", str(stream.http_status or 200)), ("content-type", stream.content_type), *trailers]
            self.send_headers(stream, block, end_stream=True)
        if not self.client:
            if not stream.remote_ended:  # the client need not send the rest (RFC 9113 8.1)
                self.reset_stream(stream, ErrorCodes.NO_ERROR)
            status = md.status_of_trailers(trailers) or Status(StatusCode.UNKNOWN)
            stream.close(status, trailers)

    def reset_stream(self, stream: Stream, code: ErrorCodes) -> None:
        """RST_STREAM."""
        self._send_h2(lambda: self._h2.reset_stream(stream.stream_id, code))

    def _send_h2(self, action: Callable[[], None]) -> None:
        if self.closed:
            return
        try:
            action()
        except (h2.exceptions.StreamClosedError, h2.exceptions.NoSuchStreamError):
            return  # the peer ended it in what we have not read yet
        self._take_h2_output()

    def forget(self, stream: Stream) -> None:
        """The stream is closed."""
        self.streams.pop(stream.stream_id, None)
        self._backlogged.pop(stream.stream_id, None)
        if self._data_stream is stream:
            self._data_stream = None

    # -- calls --------------------------------------------------------------------------------------------------------

    def open(self, path: str, handler: StreamHandler, *, authority: str, scheme: str, headers: Metadata) -> Stream:
        """Client: begin a call. Raises ConnectionError when the connection takes no more."""
        if self.closed or self.going_away:
            raise ConnectionError("the connection is closing")
        if len(self.streams) >= self._h2.remote_settings.max_concurrent_streams:
            raise ConnectionError("the server allows no more concurrent streams")
        stream = Stream(self, self._h2.get_next_available_stream_id(), handler, self._initial_send_window)
        stream.headers_sent = True
        self.streams[stream.stream_id] = stream
        request = [
            (":method", "POST"), (":scheme", scheme), (":path", path), (":authority", authority),
            ("content-type", "application/grpc"), ("te", "trailers"),
        ]  # fmt: skip
        self.send_headers(stream, [*request, *headers])
        return stream

    def ping(self) -> None:
        """Ask for a sign of life."""
        if not self.closed:
            self._h2.ping(b"bowsprit")
            self._take_h2_output()

    def go_away(self, code: ErrorCodes = ErrorCodes.NO_ERROR, debug: str = "") -> None:
        """GOAWAY: the peer opens no more streams; those open go on."""
        if not self.closed:
            body = struct.pack("!II", self._highest_peer_stream, int(code)) + debug.encode()
            self.emit(struct.pack("!HBBBI", 0, len(body), _GOAWAY, 0, 0) + body)

    def lost(self, reason: str) -> None:
        """The transport is gone: every call ends with UNAVAILABLE."""
        self.closed = True
        for stream in list(self.streams.values()):
            stream.close(Status(StatusCode.UNAVAILABLE, reason))

    def refuse(self, stream: Stream, status: Status) -> None:
        """End a call because of what the peer sent on it."""
        if self.client:
            stream.reset(ErrorCodes.CANCEL, status)
        else:
            stream.finish(status)

    # -- input --------------------------------------------------------------------------------------------------------

    def receive(self, view: memoryview) -> None:
        """Bytes from the peer; ``view`` need only live during the call."""
        if self.closed:
            return
        try:
            self._receive(view)
        except ProtocolViolationError as exc:
            self._fail(exc.code, str(exc))
        except h2.exceptions.ProtocolError as exc:
            self._take_h2_output()  # h2 has written its own GOAWAY
            self._fail(ErrorCodes(exc.error_code), str(exc) or type(exc).__name__, say=False)

    def _fail(self, code: ErrorCodes, reason: str, *, say: bool = True) -> None:
        if say:
            self.go_away(code, reason)
        self.closed = True
        self._handler.connection_failed(reason)

    def _receive(self, view: memoryview) -> None:
        if self._carry:
            view = memoryview(self._carry + bytes(view))
            self._carry = b""
        position, end = self._skip_preface(view), len(view)
        if self._preface_left:
            self._carry = bytes(view)
            return
        while position < end and not self.closed:
            if self._data_left:
                take = min(self._data_left, end - position)
                self._data_left -= take
                stream = self._data_stream
                if stream is not None and not stream.closed:
                    stream.feed(view[position : position + take])
                position += take
                if not self._data_left:
                    self._end_of_data()
                continue
            if end - position < _HEADER:
                break
            high, low, kind, flags, stream_id = struct.unpack_from("!HBBBI", view, position)
            length = (high << 8) | low
            if kind == _DATA and not flags & _PADDED:
                self._begin_data(stream_id & _MAX_WINDOW, length, bool(flags & _END_STREAM))
                position += _HEADER
                continue
            if length > (self.options.max_frame if kind == _DATA else _MAX_CONTROL):
                raise ProtocolViolationError(ErrorCodes.FRAME_SIZE_ERROR, f"frame of {length} bytes")
            if end - position < _HEADER + length:
                break
            self._control_frame(kind, flags, stream_id & _MAX_WINDOW, view[position : position + _HEADER + length])
            position += _HEADER + length
        if position < end:
            self._carry = bytes(view[position:])

    def _skip_preface(self, view: memoryview) -> int:
        if not self._preface_left:
            return 0
        got = bytes(view[: len(PREFACE)])
        if not PREFACE.startswith(got):
            raise ProtocolViolationError(ErrorCodes.PROTOCOL_ERROR, "not an HTTP/2 client preface")
        if len(got) < len(PREFACE):
            return 0
        self._preface_left = 0
        self._h2.receive_data(PREFACE)
        return len(PREFACE)

    def _begin_data(self, stream_id: int, length: int, ends: bool) -> None:
        if length > self.options.max_frame:
            raise ProtocolViolationError(ErrorCodes.FRAME_SIZE_ERROR, f"frame of {length} bytes")
        if length > self._receive_window:
            raise ProtocolViolationError(ErrorCodes.FLOW_CONTROL_ERROR, "connection window exceeded")
        self._receive_window -= length
        self._receive_unacknowledged += length
        if self._receive_unacknowledged * 4 >= self.options.connection_window:
            increment, self._receive_unacknowledged = self._receive_unacknowledged, 0
            self._receive_window += increment
            self.send_window_update(0, increment)
        stream = self.streams.get(stream_id)
        if stream is None or stream.remote_ended:
            self._refuse_data(stream_id, stream)
            stream = None
        elif length > stream.receive_window:
            stream.reset(ErrorCodes.FLOW_CONTROL_ERROR, Status(StatusCode.INTERNAL, "stream window exceeded"))
            stream = None
        else:
            stream.receive_window -= length
        if not length and not ends and not self._control.spend():
            raise ProtocolViolationError(ErrorCodes.ENHANCE_YOUR_CALM, "too many empty frames")
        self._data_stream, self._data_left, self._data_ends = stream, length, ends
        if not length:
            self._end_of_data()

    def _refuse_data(self, stream_id: int, stream: Stream | None) -> None:
        """DATA for a stream that is not open: fine if it once was (in flight when it ended), else a violation."""
        known = stream_id <= self._highest_peer_stream if stream_id % 2 != self.client else True
        if not stream_id or not known or (self.client and stream_id >= self._h2.get_next_available_stream_id()):
            raise ProtocolViolationError(ErrorCodes.PROTOCOL_ERROR, f"DATA on idle stream {stream_id}")
        if stream is not None:
            stream.reset(ErrorCodes.STREAM_CLOSED, Status(StatusCode.INTERNAL, "DATA after the end of the stream"))

    def _end_of_data(self) -> None:
        stream, self._data_stream = self._data_stream, None
        if self._data_ends and stream is not None and not stream.closed:
            self._data_ends = False
            self._feed_h2(struct.pack("!HBBBI", 0, 0, _DATA, _END_STREAM, stream.stream_id))

    def _control_frame(self, kind: int, flags: int, stream_id: int, frame: memoryview) -> None:
        if kind == _WINDOW_UPDATE:
            self._window_update(stream_id, frame)
        elif kind == _GOAWAY:
            self._received_go_away(frame)
        elif kind == _DATA:  # padded
            padding = frame[_HEADER] if len(frame) > _HEADER else 255
            if padding > len(frame) - _HEADER - 1:
                raise ProtocolViolationError(ErrorCodes.PROTOCOL_ERROR, "padding longer than the frame")
            self._begin_data(stream_id, len(frame) - _HEADER, bool(flags & _END_STREAM))
            if self._data_left:
                stream, self._data_left = self._data_stream, 0
                if stream is not None:
                    stream.feed(frame[_HEADER + 1 : len(frame) - padding])
                    stream.acknowledge(padding + 1)
                self._end_of_data()
        else:
            answered = kind == _PING and not flags & _ACK and self.pings.excused
            if kind in (_RST_STREAM, _SETTINGS, _PING) and not answered and not self._control.spend():
                raise ProtocolViolationError(ErrorCodes.ENHANCE_YOUR_CALM, "too many control frames")
            self._feed_h2(bytes(frame))

    def _window_update(self, stream_id: int, frame: memoryview) -> None:
        if len(frame) != _HEADER + 4:
            raise ProtocolViolationError(ErrorCodes.FRAME_SIZE_ERROR, "WINDOW_UPDATE of the wrong size")
        increment = int.from_bytes(frame[_HEADER:], "big") & _MAX_WINDOW
        if not stream_id:
            self._send_window += increment
            if not increment or self._send_window > _MAX_WINDOW:
                raise ProtocolViolationError(ErrorCodes.FLOW_CONTROL_ERROR, "connection window out of range")
        else:
            stream = self.streams.get(stream_id)
            if stream is None:
                return
            stream.send_window += increment
            if not increment or stream.send_window > _MAX_WINDOW:
                stream.reset(ErrorCodes.FLOW_CONTROL_ERROR, Status(StatusCode.INTERNAL, "stream window out of range"))
        if self._backlogged:
            self.pump()

    def _received_go_away(self, frame: memoryview) -> None:
        if len(frame) < _HEADER + 8:
            raise ProtocolViolationError(ErrorCodes.FRAME_SIZE_ERROR, "GOAWAY of the wrong size")
        last, code = struct.unpack_from("!II", frame, _HEADER)
        debug = bytes(frame[_HEADER + 8 : _HEADER + 264]).decode("utf-8", "replace")
        self.going_away = True
        if self.client:
            reason = f"connection closed by the server: GOAWAY code {code} {debug}".rstrip()
            for stream in list(self.streams.values()):
                if stream.stream_id > last & _MAX_WINDOW:
                    stream.close(Status(StatusCode.UNAVAILABLE, reason))

    # -- h2's events --------------------------------------------------------------------------------------------------

    def _feed_h2(self, data: bytes) -> None:
        events = self._h2.receive_data(data)
        self._take_h2_output()
        for event in events:
            self._event(event)

    def _event(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._request(event)
        elif isinstance(event, ResponseReceived):
            self._response(event)
        elif isinstance(event, TrailersReceived):
            if (stream := self.streams.get(event.stream_id or 0)) is not None and self.client:
                stream.headers = md.application(_text(event.headers))
                self._trailers(stream, _text(event.headers))
        elif isinstance(event, StreamEnded):
            self._remote_end(event.stream_id or 0)
        elif isinstance(event, StreamReset):
            if (stream := self.streams.get(event.stream_id or 0)) is not None:
                stream.close(status_of_reset(int(event.error_code or 0)))
        elif isinstance(event, RemoteSettingsChanged):
            self._settings(event)
        elif isinstance(event, PingAckReceived):
            self._handler.ping_acknowledged()
        elif isinstance(event, PingReceived) and not self.pings.tolerates(idle=not self.streams) and not self.client:
            raise ProtocolViolationError(ErrorCodes.ENHANCE_YOUR_CALM, "too_many_pings")

    def _request(self, event: RequestReceived) -> None:
        headers = _text(event.headers)
        stream_id = event.stream_id or 0
        self._highest_peer_stream = max(self._highest_peer_stream, stream_id)
        stream = Stream(self, stream_id, _Refused(), self._initial_send_window)
        self.streams[stream_id] = stream
        try:
            call = request.read(headers)
        except MalformedRequestError as exc:
            stream.reset(ErrorCodes.PROTOCOL_ERROR, Status(StatusCode.INTERNAL, f"malformed request: {exc}"))
            return
        except RefusedRequestError as exc:
            stream.http_status = exc.http_status
            stream.finish(exc.status)
            return
        stream.content_type, stream.timeout = call.content_type, call.timeout
        handler = self._handler.stream_opened(stream, headers)
        if handler is not None:
            stream.handler = handler

    def _response(self, event: ResponseReceived) -> None:
        stream = self.streams.get(event.stream_id or 0)
        if stream is None:
            return
        headers = _text(event.headers)
        status = "".join(md.values(headers, ":status"))
        stream.http_status = int(status) if status.isdigit() else 0
        if md.values(headers, "grpc-status"):  # trailers-only
            stream.handler.headers_received(stream, ())
            self._trailers(stream, headers)
        elif stream.http_status == 200:
            stream.handler.headers_received(stream, md.application(headers))
        else:
            stream.reset(ErrorCodes.CANCEL, status_of_http(stream.http_status))

    def _trailers(self, stream: Stream, trailers: Metadata) -> None:
        status = md.status_of_trailers(trailers) or status_of_http(stream.http_status)
        stream.remote_ended = True
        if not stream.local_ended:
            self.reset_stream(stream, ErrorCodes.NO_ERROR if status.ok else ErrorCodes.CANCEL)
        stream.close(status, md.application(trailers))

    def _remote_end(self, stream_id: int) -> None:
        stream = self.streams.get(stream_id)
        if stream is None:
            return
        stream.remote_ended = True
        if self.client:
            text = "server closed the stream without sending trailers"
            stream.close(Status(StatusCode.INTERNAL, text))
        elif stream.mid_message:
            stream.finish(Status(StatusCode.INTERNAL, "unexpected EOF"))
        else:
            stream.handler.half_closed(stream)

    def _settings(self, event: RemoteSettingsChanged) -> None:
        changed = event.changed_settings
        self.peer_max_frame = min(self._h2.remote_settings.max_frame_size, 1 << 20)
        if SettingCodes.INITIAL_WINDOW_SIZE in changed:
            delta = self._h2.remote_settings.initial_window_size - self._initial_send_window
            self._initial_send_window += delta
            for stream in list(self.streams.values()):
                stream.send_window += delta
                if stream.send_window > _MAX_WINDOW:
                    raise ProtocolViolationError(ErrorCodes.FLOW_CONTROL_ERROR, "stream window out of range")
            self.pump()


class _Refused:
    """The handler of a stream that nobody serves."""

    def headers_received(self, stream: Stream, headers: Metadata) -> None:
        """Nothing: clients have handlers."""

    def message_received(self, stream: Stream, message: bytes) -> None:
        """Dropped."""

    def half_closed(self, stream: Stream) -> None:
        """Nothing to do."""

    def writable(self, stream: Stream) -> None:
        """Nothing to send."""

    def ended(self, stream: Stream, status: Status, trailers: Metadata) -> None:
        """Nobody to tell."""


def _h2_connection(options: Options, client: bool) -> H2Connection:
    connection = H2Connection(
        H2Configuration(client_side=client, header_encoding=None, validate_inbound_headers=client)
    )
    values = {
        SettingCodes.INITIAL_WINDOW_SIZE: options.stream_window,
        SettingCodes.MAX_FRAME_SIZE: options.max_frame,
        SettingCodes.MAX_HEADER_LIST_SIZE: options.max_headers,
        SettingCodes.ENABLE_PUSH: 0,
    }
    if not client:
        values[SettingCodes.MAX_CONCURRENT_STREAMS] = options.max_streams
    connection.local_settings = Settings(client=client, initial_values=values)
    connection.decoder.max_header_list_size = options.max_headers
    connection.max_inbound_frame_size = _MAX_CONTROL
    return connection


def _text(headers: object) -> list[tuple[str, str]]:
    return [(name.decode("utf-8", "replace"), value.decode("utf-8", "replace")) for name, value in headers or ()]  # type: ignore[attr-defined]
