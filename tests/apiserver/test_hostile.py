"""Hostile bytes: every one is a 4xx or a closed connection; nothing crashes, nothing stays behind."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os

import pytest
from apiserver_toys import WIDGETS, Client, widget
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bowsprit.apiserver.connection import MAX_HEADER_BYTES, MAX_LINE_BYTES
from bowsprit.apiserver.server import Server
from bowsprit.apiserver.strategy import Strategy


async def _send(client: Client, data: bytes, *, wait: bool = True, end: bool = True) -> bytes:
    host, port = client.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    try:
        if wait:
            if end:
                writer.write_eof()
            async with asyncio.timeout(5):
                return await reader.read(1 << 16)
        return b""
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _post(body: bytes, *headers: str) -> bytes:
    lines = [f"POST {WIDGETS} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS on a plain port
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * (2 * MAX_LINE_BYTES) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (2 * MAX_HEADER_BYTES) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        _post(b"", "Content-Length: -1"),
        _post(b"", "Content-Length: 99999999999"),
        _post(b"", "Content-Length: 5", "Transfer-Encoding: chunked"),
        _post(b"zz\r\n", "Transfer-Encoding: chunked"),
        _post(b"5\r\nab", "Transfer-Encoding: chunked"),
        _post(b"{", "Content-Length: 10"),
        b"GET /%ff%00%zz HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /apis/toys.example/v1/namespaces/%2e%2e/widgets/..%2f..?labelSelector=%ff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_no_malformed_request_gets_a_5xx(client: Client, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    with caplog.at_level(logging.ERROR, "bowsprit"):
        answer = await _send(client, data)
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 200")), answer[:200]
    assert "Traceback" not in caplog.text
    assert (await client.get("/livez")).status == 200


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (2 * MAX_HEADER_BYTES) + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000 + b"\r\n", 431),
        (b"GET /" + b"a" * (2 * MAX_LINE_BYTES) + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (_post(b"zz\r\n", "Transfer-Encoding: chunked"), 400),
    ],
)
async def test_what_is_no_http_is_answered_with_a_status(client: Client, data: bytes, code: int) -> None:
    head, _, body = (await _send(client, data, end=False)).partition(b"\r\n\r\n")
    status = json.loads(body)
    assert head.split()[1] == str(code).encode()
    assert (status["kind"], status["code"], status["status"]) == ("Status", code, "Failure")


async def test_thousands_of_hostile_requests_leave_nothing_behind(server: Server, client: Client) -> None:
    bomb = gzip.compress(b"0" * 20_000_000)
    deep = b'{"a":' * 50_000
    broken = [
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 300 + b"\r\n",
        _post(b"{", "Content-Length: 10"),
        _post(bomb, "Content-Encoding: gzip", f"Content-Length: {len(bomb)}"),
        _post(deep, f"Content-Length: {len(deep)}"),
        _post(b"k8s\0\x0a\xff\xff\xff\xff\x0f", "Content-Length: 10", "X-Odd: protobuf"),
        _post(b"5\r\nab", "Transfer-Encoding: chunked"),
        f"GET {WIDGETS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    ]

    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())

    async def storm(rounds: int) -> None:
        for _ in range(rounds):
            await asyncio.gather(*(_send(client, data, wait=number % 8 != 7) for number, data in enumerate(broken * 4)))

    await storm(2)  # whatever is made once is there now
    async with asyncio.timeout(10):
        while any(server.in_flight.counts.values()):
            await asyncio.sleep(0.01)
    before, memory = held(), resident()
    await storm(60)
    async with asyncio.timeout(10):
        while any(server.in_flight.counts.values()) or held() > before:
            await asyncio.sleep(0.01)
    assert resident() - memory < 32 << 20
    assert (await client.get("/livez")).status == 200


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


_KEYS = st.sampled_from(
    [
        "kind",
        "apiVersion",
        "metadata",
        "name",
        "namespace",
        "labels",
        "finalizers",
        "ownerReferences",
        "managedFields",
        "spec",
        "size",
        "status",
        "op",
        "path",
        "value",
        "$patch",
        "generateName",
        "uid",
        "resourceVersion",
        "preconditions",
    ]
)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**70),
    st.floats(allow_nan=False),
    st.sampled_from(
        ["", "a", "Widget", "toys.example/v1", "add", "/spec/size", "/metadata", "-", "../x", "\ud800", "x" * 300]
    ),
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_KEYS, inner, max_size=5)),
    max_leaves=12,
)
_OBJECTS = _VALUES.map(
    lambda value: (
        {"kind": "Widget", "apiVersion": "toys.example/v1", "metadata": {"name": "a"}, "spec": {}}
        | (value if isinstance(value, dict) else {"spec": value})
    )
)
_BODIES = st.one_of(
    st.binary(max_size=200),
    _VALUES.map(lambda value: json.dumps(value).encode()),
    _OBJECTS.map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=80, deadline=None)
@given(_BODIES)
@example(b'{"preconditions":{"uid":false}}')
@example(b'{"apiVersion":null}')
def test_no_body_is_a_crash(data: bytes) -> None:
    asyncio.run(_no_crash(data))


async def _no_crash(data: bytes) -> None:
    from apiserver_toys import ADMIN, widgets

    from bowsprit.apiserver.access import AllowAlways, FixedUser
    from bowsprit.store.memory import MemoryStore

    server = Server(MemoryStore(), authenticator=FixedUser(ADMIN), authorizer=AllowAlways())
    anything = widgets()
    anything.strategy = Strategy()
    await server.registry.add(anything)
    host, port = await server.start("127.0.0.1", 0)
    import aiohttp

    async with aiohttp.ClientSession() as session:
        client = Client(f"http://{host}:{port}", session)
        await client.post(WIDGETS, widget("a"))
        types = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
        for media_type in types:
            reply = await client.call("POST", WIDGETS, data=data, headers={"Content-Type": media_type})
            assert reply.status in (201, 400, 409, 415, 422), (media_type, reply.body)
        for patch_type in ("json-patch+json", "merge-patch+json", "apply-patch+yaml"):
            path = f"{WIDGETS}/a?fieldManager=m" if patch_type.startswith("apply") else f"{WIDGETS}/a"
            reply = await client.call("PATCH", path, data=data, headers={"Content-Type": f"application/{patch_type}"})
            assert reply.status in (200, 201, 400, 409, 415, 422) or (
                reply.status == 500 and "typed patch" in reply.body["message"]
            ), (patch_type, reply.body)
        reply = await client.call("DELETE", f"{WIDGETS}/a", data=data, headers={"Content-Type": "application/json"})
        assert reply.status in (200, 400, 404, 409, 422), reply.body  # 409: a precondition
    await server.stop()


async def test_dropped_connections_leave_nothing_behind(server: Server, client: Client) -> None:
    body = widget("x", text="y" * 100_000)
    data = json.dumps(body).encode()
    for cut in (10, 100, 1000, 50_000):
        await _send(client, _post(data, f"Content-Length: {len(data)}")[:cut], wait=False)
        await _send(client, f"GET {WIDGETS}?watch=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode(), wait=False)
    async with asyncio.timeout(5):
        while any(server.in_flight.counts.values()):
            await asyncio.sleep(0.01)
    assert (await client.get(f"{WIDGETS}/x")).status == 404
