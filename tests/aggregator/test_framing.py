"""Answers on the wire: heads, chunks, and what is no HTTP; however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.aggregator.framing import Chunks, MalformedAnswerError, parse_head


def test_a_head():
    head = parse_head(b"HTTP/1.1 200 OK\r\nContent-Length: 12 \r\nX-A:b\r\nx-a: c", bodiless=False)
    assert (head.status, head.length, head.chunked, head.keep_alive) == (200, 12, False, True)
    assert head.get(b"x-a") == b"b"
    assert [field[1:] for field in head.fields][1:] == [(b"X-A", b"b"), (b"x-a", b"c")]


@pytest.mark.parametrize(
    ("lines", "length", "chunked", "keep_alive"),
    [
        (b"HTTP/1.1 200 OK", None, False, True),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5", 0, False, True),
        (b"HTTP/1.1 304 \r\nTransfer-Encoding: chunked", 0, False, True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5", None, True, True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\nContent-Length: 5", 5, False, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1", 1, False, False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1", 1, False, True),
    ],
)
def test_where_the_body_ends(lines, length, chunked, keep_alive):
    head = parse_head(lines, bodiless=False)
    assert (head.length, head.chunked, head.keep_alive) == (length, chunked, keep_alive)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-x",
        b"HTTP/2 200 OK",
        b"HTTP/1.1 99 OK",
        b"HTTP/1.1 200 OK\r\nbad header",
        b"HTTP/1.1 200 OK\r\n folded: x",
        b"HTTP/1.1 200 OK\r\nA B: x",
        b"HTTP/1.1 200 OK\r\nA: x\ny: z",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
    ],
)
def test_what_is_no_answer(data):
    with pytest.raises(MalformedAnswerError):
        parse_head(data, bodiless=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=60), max_size=6), st.data())
def test_chunks_are_found_wherever_they_are_cut(pieces, data):
    wire = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: x\r\n\r\n"
    after = b"next"
    whole, chunks, payload, taken = wire + after, Chunks(), [], 0
    while taken < len(whole) and not chunks.done:
        step = data.draw(st.integers(1, len(whole) - taken))
        taken += chunks.feed(whole[taken : taken + step], payload)
    assert chunks.done
    assert whole[taken:] == after
    assert b"".join(payload) == b"".join(pieces)


@pytest.mark.parametrize("data", [b"x\r\n", b"5\nhello", b"2\r\nabc\r\n", b"-1\r\n", b"0x2\r\nab\r\n", b"1" * 20_000])
def test_what_are_no_chunks(data):
    with pytest.raises(MalformedAnswerError):
        Chunks().feed(data)
