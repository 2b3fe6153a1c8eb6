"""What a server answers to the headers of a call, in grpc-go's words."""

from __future__ import annotations

import struct

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ResponseReceived, StreamReset

from bowsprit.net.grpc import metadata, request
from bowsprit.net.grpc.connection import Connection
from bowsprit.net.grpc.limits import Options
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.request import MalformedRequestError, RefusedRequestError
from bowsprit.net.grpc.status import GrpcError, Status, StatusCode
from bowsprit.net.grpc.stream import Stream, StreamHandler

GOOD = {":method": "POST", ":scheme": "http", ":path": "/t/E", ":authority": "x", "content-type": "application/grpc"}


def headers(**changed: str) -> Metadata:
    fields = GOOD | {key.replace("_", "-") if key[0] != "p" else ":" + key[2:]: value for key, value in changed.items()}
    return list(fields.items())


@pytest.mark.parametrize(
    ("given", "http_status", "code", "text"),
    [
        (headers(p_method="GET"), 405, 13, 'Received a HEADERS frame with :method "GET" which should be POST'),
        (headers(content_type="text/plain"), 415, 3, 'invalid gRPC request content-type "text/plain"'),
        (headers(content_type="application/grpc-web"), 415, 3, 'invalid gRPC request content-type "application/grpc-web"'),
        ([(":method", "POST"), (":path", "/t/E")], 415, 3, 'invalid gRPC request content-type ""'),
        (headers(grpc_timeout="abc"), 400, 13, 'malformed grpc-timeout: transport: timeout unit is not recognized: "abc"'),
        (headers(grpc_timeout="1"), 400, 13, 'malformed grpc-timeout: transport: timeout string is too short: "1"'),
        (
            headers(grpc_timeout="123456789S"), 400, 13,
            'malformed grpc-timeout: transport: timeout string is too long: "123456789S"',
        ),
        (
            headers(grpc_timeout="-1S"), 400, 13,
            'malformed grpc-timeout: strconv.ParseUint: parsing "-1": invalid syntax',
        ),
        (headers(grpc_timeout="0n"), 200, 4, "context deadline exceeded"),
        (headers(grpc_encoding="gzip"), 200, 12, 'grpc: Decompressor is not installed for grpc-encoding "gzip"'),
        (
            [*headers(), ("host", "a"), ("host", "b")], 400, 13,
            "num values of :authority: 1, num values of host: 2, both must only have 1 value as per HTTP/2 spec",
        ),
    ],
)  # fmt: skip
def test_a_bad_request_is_told_what_is_wrong(given: Metadata, http_status: int, code: int, text: str) -> None:
    with pytest.raises(RefusedRequestError) as raised:
        request.read(given)
    assert (raised.value.http_status, int(raised.value.status.code), raised.value.status.message) == (
        http_status, code, text,
    )  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        ("connection", "close"),
        ("Upper", "x"),
        ("", "x"),
        (":path", "/u/F"),
        (":status", "200"),
        ("x", "a\x00b"),
        ("x y", "z"),
    ],
)
def test_headers_that_are_no_request_are_malformed(bad: tuple[str, str]) -> None:
    with pytest.raises(MalformedRequestError):
        request.read([*headers(), bad])


@pytest.mark.parametrize(
    ("given", "answered"),
    [
        ("application/grpc", "application/grpc"),
        ("application/grpc+proto", "application/grpc+proto"),
        ("application/grpc;proto", "application/grpc+proto"),
        ("application/grpc+", "application/grpc"),
    ],
)
def test_the_content_type_comes_back(given: str, answered: str) -> None:
    assert request.read(headers(content_type=given)) == request.Request("/t/E", answered, None)
    assert request.read(headers(grpc_timeout="250m", grpc_encoding="identity")).timeout == 0.25


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/t/F", "unknown method F for service t"),
        ("/u/E", "unknown service u"),
        ("/", 'malformed method name: "/"'),
        ("", 'malformed method name: ""'),
        ("E", 'malformed method name: "E"'),
    ],
)
def test_what_nobody_serves_is_named(path: str, text: str) -> None:
    assert request.unserved(path, {"/t/E"}).message == text


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (
            "authorization",
            "Bearer a\nb",
            'header key "authorization" contains value with non-printable ASCII characters',
        ),
        ("agentid", "ü", 'header key "agentid" contains value with non-printable ASCII characters'),
        ("grpc-x", "a", 'header key "grpc-x" is not allowed'),
    ],
)
def test_metadata_that_cannot_be_sent_is_refused(name: str, value: str, text: str) -> None:
    with pytest.raises(GrpcError) as raised:
        metadata.check([(name, value)])
    assert (raised.value.code, raised.value.message) == (StatusCode.INTERNAL, text)


class Served:
    """A driver and handler that keeps what comes."""

    def __init__(self) -> None:
        self.failed = ""
        self.headers: list[Metadata] = []
        self.connection = Connection(self, Options(), lambda: 0.0, client=False)
        settings = H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False)
        self.peer = H2Connection(settings)
        self.peer.initiate_connection()

    def call(self, extra: list[tuple[bytes, bytes]], body: bytes = b"") -> list[object]:
        fields = [(key.encode(), value.encode()) for key, value in GOOD.items()]
        self.peer.send_headers(1, [*fields, *extra])
        if body:
            self.peer.send_data(1, body)
        self.connection.receive(memoryview(self.peer.data_to_send()))
        return list(self.peer.receive_data(b"".join(self.connection.take_output())))

    def stream_opened(self, stream: Stream, headers: Metadata) -> StreamHandler | None:
        self.headers.append(headers)
        return self

    def wants_flush(self) -> None: ...

    def connection_failed(self, reason: str) -> None:
        self.failed = reason

    def ping_acknowledged(self) -> None: ...

    def headers_received(self, stream: Stream, headers: Metadata) -> None: ...

    def message_received(self, stream: Stream, message: bytes) -> None: ...

    def half_closed(self, stream: Stream) -> None: ...

    def writable(self, stream: Stream) -> None: ...

    def ended(self, stream: Stream, status: Status, trailers: Metadata) -> None: ...


@pytest.mark.parametrize("value", [b"Bearer ", b" x ", b"\xff\xfe"])
def test_values_that_other_servers_accept_are_accepted(value: bytes) -> None:
    """An empty token file makes upstream's agent send ``Bearer`` and a space: its call fails, not its connection."""
    served = Served()
    served.call([(b"authorization", value)])
    assert not served.failed
    assert served.headers[0][-1] == ("authorization", value.decode("utf-8", "replace"))


def test_a_malformed_request_costs_its_stream_only() -> None:
    served = Served()
    events = served.call([(b"connection", b"close")])
    assert [event.error_code for event in events if isinstance(event, StreamReset)] == [1]
    assert not served.failed
    assert not served.headers


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        (1, b"grpc: compressed flag set with identity or empty encoding"),
        (2, b"grpc: received unexpected payload format 2"),
    ],
)
def test_messages_that_cannot_be_read_end_their_call(flag: int, text: bytes) -> None:
    served = Served()
    events = served.call([], bytes([flag]) + struct.pack(">I", 2) + b"ab")
    [response] = [event for event in events if isinstance(event, ResponseReceived)]
    assert dict(response.headers or [])[b"grpc-message"] == text
    assert not served.failed
