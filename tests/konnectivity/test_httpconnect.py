"""The CONNECT parser: cut anywhere it says the same, and no bytes confuse it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.konnectivity import httpconnect
from bowsprit.konnectivity.httpconnect import Connect, HttpConnectParser, Reply
from bowsprit.konnectivity.links import DialFailure


def parser() -> HttpConnectParser:
    return HttpConnectParser(lambda: "Mon, 01 Jan 2001 00:00:00 GMT")


def feed(data: bytes, step: int | None = None) -> list[Connect | Reply]:
    machine, result = parser(), []
    for start in range(0, len(data), step or len(data) or 1):
        chunk = data[start : start + (step or len(data))]
        if result and (isinstance(result[-1], Connect) or result[-1].close):
            break
        result += machine.feed(chunk)
    return result


LINES = st.sampled_from(
    [
        b"CONNECT 10.0.0.1:1 HTTP/1.1", b"GET / HTTP/1.1", b"GET http://a/b HTTP/1.0", b"OPTIONS * HTTP/1.1", b"CONNECT",
        b"CONNECT [::1]:80 HTTP/1.1", b"POST /x HTTP/1.1", b"hello", b"CONNECT a b c HTTP/1.1", b"GET / HTTP/3.0", b"",
    ]
)  # fmt: skip
HEADERS = st.sampled_from(
    [
        b"Host: x", b"Host: a b", b"X: 1", b" folded", b"bad", b"Content-Length: 3", b"Content-Length: -1",
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"Connection: close", b"B\xffd: x", b"X: \x01",
    ]
)  # fmt: skip


@settings(max_examples=200)
@given(
    LINES, st.lists(HEADERS, max_size=4), st.sampled_from([b"\r\n", b"\n"]), st.binary(max_size=20), st.integers(1, 9)
)
def test_cuts_do_not_matter(line: bytes, headers: list[bytes], end: bytes, body: bytes, step: int) -> None:
    data = end.join([line, *headers, b"", b""]) + body
    whole, pieces = feed(data), feed(data, step)
    assert [type(each) for each in whole] == [type(each) for each in pieces] or len(whole) > len(pieces)
    for one, other in zip(whole, pieces, strict=False):
        if isinstance(one, Connect) and isinstance(other, Connect):
            assert one.address == other.address
            assert one.rest.startswith(other.rest)
        else:
            assert one == other


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=80), max_size=5))
def test_no_bytes_raise(chunks: list[bytes]) -> None:
    machine = parser()
    for chunk in chunks:
        for action in machine.feed(chunk):
            if isinstance(action, Connect) or action.close:
                return


@pytest.mark.parametrize(
    ("request_line", "address"),
    [
        ("CONNECT 10.0.0.5:10250 HTTP/1.1", "10.0.0.5:10250"),
        ("CONNECT [fd00::1]:443 HTTP/1.1", "[fd00::1]:443"),
        ("CONNECT node-1 HTTP/1.1", "node-1"),
        ("CONNECT user@node:1 HTTP/1.1", "node:1"),
        ("CONNECT node:1/path HTTP/1.1", "node:1"),
        ("CONNECT /path HTTP/1.1", "from-host:9"),
    ],
)
def test_the_target_is_the_request_line(request_line: str, address: str) -> None:
    found = feed(f"{request_line}\r\nHost: from-host:9\r\n\r\nrest".encode())
    assert found == [Connect(address, b"rest")]


@pytest.mark.parametrize(
    ("head", "start"),
    [
        ("GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 400 Bad Request: missing required Host header\r\n"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a b\r\n\r\n", b"HTTP/1.1 400 Bad Request: malformed Host header\r\n"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n"),
        ("CONNECT a:1 HTTP/1.1\r\nX : y\r\n\r\n", b"HTTP/1.1 400 Bad Request: invalid header name\r\n"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a/b\r\n\r\n", b"HTTP/1.1 400 Bad Request: malformed Host header\r\n"),
        ("GET / HTTP/1.1\r\nHost: x\r\nExpect: x\r\n\r\n", b"HTTP/1.1 417 Expectation Failed\r\n"),
        ("GET / HTTP/1.1\r\nno colon\r\n", b"HTTP/1.1 400 Bad Request\r\n"),
        ("CONNECT a:1#x HTTP/1.1\r\n", b"HTTP/1.1 400 Bad Request\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"HTTP/1.1 501 Not Implemented\r\n"),
        ("CONNECT a:1 HTTP/2.0\r\n\r\n", b"HTTP/1.1 505 HTTP Version Not Supported: unsupported protocol version\r\n"),
    ],
)
def test_bad_requests_are_told_why(head: str, start: bytes) -> None:
    (reply,) = feed(head.encode("latin-1"))
    assert isinstance(reply, Reply)
    assert reply.close
    assert reply.data.startswith(start)


REFUSED = b"HTTP/1.1 405 Method Not Allowed\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize(
    ("data", "closes"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc" + NEXT, [False, False]),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\r\n" + NEXT, [False, False]),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n", [True]),
        (CHUNKED + b"3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n" + NEXT, [False, False]),
        (CHUNKED + b"0\r\n\r\n" + NEXT, [False, False]),
        (CHUNKED + b"0\r\nno colon\r\n\r\n", [True]),
        (CHUNKED + b"g\r\n", [True]),
        (CHUNKED + b"5\r\nhello", []),
        (CHUNKED + b"100000\r\n" + bytes(300_000), [True]),
    ],
)
def test_bodies_are_read_past_before_the_answer(data: bytes, closes: list[bool], step: int) -> None:
    replies = feed(data, max(step, len(data) // 200))
    assert all(isinstance(reply, Reply) and reply.data.startswith(REFUSED) for reply in replies)
    assert [reply.close for reply in replies if isinstance(reply, Reply)] == closes


def test_the_end_of_input_within_a_body_closes() -> None:
    machine = parser()
    assert machine.feed(CHUNKED + b"5\r\nhe") == []
    (reply,) = machine.end()
    assert reply.close
    assert reply.data.startswith(REFUSED)


def test_old_clients_keep_their_connection_if_they_ask() -> None:
    (reply,) = feed(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert isinstance(reply, Reply)
    assert not reply.close
    assert b"\r\nConnection: keep-alive\r\n" in reply.data
    (reply,) = feed(b"GET / HTTP/1.0\r\n\r\n")
    assert isinstance(reply, Reply)
    assert reply.close
    assert b"Connection" not in reply.data


def test_connection_close_is_honoured() -> None:
    (reply,) = feed(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert isinstance(reply, Reply)
    assert reply.close
    assert b"\r\nConnection: close\r\n" in reply.data


@pytest.mark.parametrize(
    ("data", "answered"), [(b"", False), (b"C", True), (b"CONNECT a:1 HTTP/1.1\r\nHost: x\r\n", True)]
)
def test_the_end_of_input_within_a_head_is_a_bad_request(data: bytes, answered: bool) -> None:
    machine = parser()
    assert machine.feed(data) == []
    replies = machine.end()
    assert [reply.data[:16] for reply in replies] == ([b"HTTP/1.1 400 Bad"] if answered else [])
    assert all(reply.close for reply in replies)


def test_an_endless_head_is_refused() -> None:
    machine = parser()
    actions = []
    for _ in range(70):
        actions += machine.feed(b"CONNECT a:1 HTTP/1.1\r\nX: " + b"a" * 16_384)
        if actions:
            break
    assert isinstance(actions[0], Reply)
    assert actions[0].data.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ("dial tcp: i/o timeout", 504),
        ("Timeout", 504),
        ("socket: too many open files", 503),
        ("tls: bad", 502),
        ("", 502),
    ],
)
def test_dial_errors_have_a_status(error: str, status: int) -> None:
    assert httpconnect.status_of(error) == status
    assert httpconnect.refusal(DialFailure.ERROR_RESPONSE, error).startswith(f"HTTP/1.1 {status} ".encode())
