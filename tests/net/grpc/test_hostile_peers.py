"""What a peer may not do, and that it costs the peer its connection and us nothing else."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.net.grpc.connection import Connection
from bowsprit.net.grpc.limits import Budget, Options
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.status import OK, Status
from bowsprit.net.grpc.stream import Stream, StreamHandler

REQUEST = [
    (":method", "POST"), (":scheme", "http"), (":path", "/t/E"), (":authority", "x"), ("content-type", "application/grpc"),
    ("te", "trailers"),
]  # fmt: skip


class Recorder:
    """Driver and stream handler in one."""

    def __init__(self) -> None:
        self.failed = ""
        self.messages: list[bytes] = []
        self.ends: list[Status] = []
        self.opened = 0
        self.streams: list[Stream] = []

    def stream_opened(self, stream: Stream, headers: Metadata) -> StreamHandler | None:
        self.opened += 1
        self.streams.append(stream)
        return self

    def wants_flush(self) -> None: ...

    def connection_failed(self, reason: str) -> None:
        self.failed = reason

    def ping_acknowledged(self) -> None: ...

    def headers_received(self, stream: Stream, headers: Metadata) -> None: ...

    def message_received(self, stream: Stream, message: bytes) -> None:
        self.messages.append(message)

    def half_closed(self, stream: Stream) -> None:
        stream.finish(OK)

    def writable(self, stream: Stream) -> None: ...

    def ended(self, stream: Stream, status: Status, trailers: Metadata) -> None:
        self.ends.append(status)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return struct.pack("!HBBBI", len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream_id) + payload


def served(**options: Any) -> tuple[Recorder, Connection, H2Connection, list[float]]:
    """A server connection and the h2 client that talks to it; the clock is the list's item."""
    clock = [0.0]
    recorder = Recorder()
    connection = Connection(recorder, Options(**options), lambda: clock[0], client=False)
    peer = H2Connection(H2Configuration(client_side=True))
    peer.initiate_connection()
    connection.receive(memoryview(peer.data_to_send()))
    return recorder, connection, peer, clock


def request(connection: Connection, peer: H2Connection, stream_id: int = 1) -> None:
    peer.send_headers(stream_id, REQUEST)
    connection.receive(memoryview(peer.data_to_send()))


def test_a_flood_of_pings_ends_the_connection() -> None:
    recorder, connection, peer, _ = served()
    request(connection, peer)
    for _ in range(5):
        connection.receive(memoryview(frame(6, 0, 0, bytes(8))))
    assert recorder.failed == "too_many_pings"
    assert b"too_many_pings" in b"".join(connection.take_output())


def test_pings_that_measure_what_we_send_are_no_abuse() -> None:
    recorder, connection, peer, _ = served()
    request(connection, peer)
    for _ in range(3000):  # once a round trip
        recorder.streams[0].send((b"data",))
        connection.receive(memoryview(frame(6, 0, 0, bytes(8))))
    assert not recorder.failed


def test_rare_pings_are_answered_for_ever() -> None:
    recorder, connection, peer, clock = served(min_ping_interval=30.0)
    request(connection, peer)
    for _ in range(50):
        clock[0] += 31.0
        connection.receive(memoryview(frame(6, 0, 0, bytes(8))))
    assert not recorder.failed


@pytest.mark.parametrize(
    "junk",
    [frame(4, 0, 0), frame(0, 0, 1), frame(4, 0, 0, struct.pack("!HI", 0x9, 7))],
    ids=["settings", "empty-data", "unknown-setting"],
)
def test_floods_of_cheap_frames_end_the_connection(junk: bytes) -> None:
    recorder, connection, peer, _ = served()
    request(connection, peer)
    for _ in range(1200):
        connection.receive(memoryview(junk))
    assert recorder.failed.startswith("too many")


def test_rapid_reset_ends_the_connection() -> None:
    recorder, connection, peer, _ = served()
    for number in range(1, 4001, 2):
        peer.send_headers(number, REQUEST)
        peer.reset_stream(number)
        connection.receive(memoryview(peer.data_to_send()))
        if recorder.failed:
            break
    assert recorder.failed
    assert recorder.opened <= 1001


def test_more_streams_than_allowed_end_the_connection() -> None:
    recorder, connection, _, _ = served(max_streams=10)
    peer = H2Connection(H2Configuration(client_side=True))
    peer.initiate_connection()
    peer.clear_outbound_data_buffer()
    for number in range(1, 41, 2):
        peer.send_headers(number, REQUEST)
    connection.receive(memoryview(peer.data_to_send()))
    assert recorder.failed
    assert recorder.opened <= 10


def test_headers_beyond_the_limit_end_the_connection() -> None:
    recorder, connection, peer, _ = served(max_headers=4096)
    peer.send_headers(1, [*REQUEST, *((f"x-{number}", "v" * 100) for number in range(60))])
    connection.receive(memoryview(peer.data_to_send()))
    assert recorder.failed
    assert recorder.opened == 0


def test_a_message_beyond_the_limit_ends_its_call_only() -> None:
    recorder, connection, peer, _ = served(max_message=1000)
    request(connection, peer)
    connection.receive(memoryview(frame(0, 0, 1, b"\0" + struct.pack(">I", 1001) + b"abc")))
    assert [status.message for status in recorder.ends] == ["grpc: received message larger than max (1001 vs. 1000)"]
    assert not recorder.failed


def test_a_peer_that_ignores_its_window_is_cut_off() -> None:
    recorder, connection, peer, _ = served(stream_window=65_535)
    request(connection, peer)
    connection.receive(memoryview(frame(0, 0, 1, b"\0" + struct.pack(">I", 1 << 20) + bytes(60_000))))
    connection.receive(memoryview(frame(0, 0, 1, bytes(60_000)) * 2))
    assert recorder.ends or recorder.failed or recorder.streams[0].receive_window >= 0
    recorder, connection, peer, _ = served(stream_window=65_535)
    request(connection, peer)
    connection.receive(memoryview(frame(0, 0, 1, (b"\0" + struct.pack(">I", 10_000) + bytes(10_000)) * 7)))
    assert [status.message for status in recorder.ends] == ["stream window exceeded"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (frame(0, 0, 7, b"x"), "DATA on idle stream 7"),
        (frame(0, 0, 0, b"x"), "DATA on idle stream 0"),
        (frame(8, 0, 0, bytes(4)), "connection window out of range"),
        (frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2, "connection window out of range"),
        (frame(8, 0, 0, bytes(3)), "WINDOW_UPDATE of the wrong size"),
        (frame(7, 0, 0, bytes(3)), "GOAWAY of the wrong size"),
        (frame(0, 8, 1, b"\xff"), "padding longer than the frame"),
        (frame(1, 4, 1, bytes(70_000)), "frame of 70000 bytes"),
        (frame(9, 4, 1, b""), ""),
        (frame(1, 4, 2, b"\x82"), ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_violations_end_the_connection_with_a_reason(bad: bytes, reason: str) -> None:
    recorder, connection, peer, _ = served()
    request(connection, peer)
    connection.receive(memoryview(bad))
    assert recorder.failed
    assert reason in recorder.failed
    assert b"\x07" in b"".join(connection.take_output())  # a GOAWAY


def test_http_1_is_refused() -> None:
    recorder = Recorder()
    connection = Connection(recorder, Options(), lambda: 0.0, client=False)
    connection.receive(memoryview(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert recorder.failed == "not an HTTP/2 client preface"


def test_budgets_refill_with_time() -> None:
    clock = [0.0]
    budget = Budget(2, 1.0, lambda: clock[0])
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    clock[0] = 1.5
    assert [budget.spend(), budget.spend()] == [True, False]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(min_size=0, max_size=200), max_size=8))
def test_no_bytes_raise(chunks: list[bytes]) -> None:
    _recorder, connection, peer, _ = served()
    request(connection, peer)
    for chunk in chunks:
        connection.receive(memoryview(chunk))
    connection.take_output()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=60)), max_size=12
    ),
    st.integers(1, 7),
)
def test_no_frames_raise_however_they_are_cut(frames: list[tuple[int, int, int, bytes]], step: int) -> None:
    _recorder, connection, peer, _ = served()
    request(connection, peer)
    data = b"".join(frame(*parts) for parts in frames)
    for start in range(0, len(data), step):
        connection.receive(memoryview(data[start : start + step]))


def transfer(source: Connection, target: Connection, step: int) -> bool:
    data = b"".join(source.take_output())
    for start in range(0, len(data), step):
        target.receive(memoryview(data[start : start + step]))
    return bool(data)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.binary(max_size=300).flatmap(lambda unit: st.integers(0, 400).map(lambda times: unit * times)), max_size=8
    ),
    st.integers(1, 5000).map(lambda step: step * 13),
    st.sampled_from([65_535, 100_000, 1 << 20]),
)
def test_messages_arrive_whole_and_in_order(messages: list[bytes], step: int, window: int) -> None:
    options = Options(stream_window=window, connection_window=max(window, 70_000), max_frame=16_384)
    far = Recorder()
    server = Connection(far, options, lambda: 0.0, client=False)
    near = Recorder()
    client = Connection(near, options, lambda: 0.0, client=True)
    stream = client.open("/t/E", near, authority="x", scheme="http", headers=())
    for message in messages:
        stream.send((message,))
    stream.end()
    received = 0
    while transfer(client, server, step) | transfer(server, client, step):
        for message in far.messages[received:]:
            if not far.streams[0].closed:
                far.streams[0].acknowledge(len(message) + 5)
        received = len(far.messages)
    assert far.messages == messages
    assert near.ends == [OK]
