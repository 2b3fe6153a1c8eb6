"""Dials fail in Go's words: API servers, and those who read their logs, know these texts."""

from __future__ import annotations

import asyncio
import socket

import pytest

from bowsprit.konnectivity import godial
from bowsprit.konnectivity.godial import DialFailedError, Target, _resolver


async def never(family: int, target: Target) -> None:
    raise AssertionError(f"{target} was dialled")


@pytest.mark.parametrize(
    ("network", "address", "text"),
    [
        ("tcp4", "127.0.0.1:nope", "dial tcp4: lookup tcp/nope: unknown port"),
        ("udp4", "127.0.0.1:80x", "dial udp4: lookup udp/80x: unknown port"),
        ("tcp", "1.2.3.4.5:1", "dial tcp: lookup 1.2.3.4.5: no such host"),
        ("tcp", "256.0.0.1:1", "dial tcp: lookup 256.0.0.1: no such host"),
        ("tcp", "0x7f000001:1", f"dial tcp: lookup 0x7f000001 on {_resolver()}: no such host"),
        ("tcp6", "127.0.0.1:1", "dial tcp6: address 127.0.0.1: no suitable address found"),
        ("tcp4", "[::1]:1", "dial tcp4: address ::1: no suitable address found"),
        ("tcp", "127.0.0.1:99999", "dial tcp: address 99999: invalid port"),
        ("tcp6", "[::ffff:127.0.0.1]:1", "dial tcp6: address ::ffff:127.0.0.1: no suitable address found"),
        ("", "127.0.0.1:1", "dial: unknown network "),
        ("tcp", "", "dial tcp: missing address"),
        ("unix", "", "dial unix: missing address"),
    ],
)
async def test_what_cannot_be_dialled_is_said(network: str, address: str, text: str) -> None:
    with pytest.raises(DialFailedError) as raised:
        await godial.dial(network, address, never)
    assert str(raised.value) == text


async def test_a_name_without_an_address_of_the_family(monkeypatch: pytest.MonkeyPatch) -> None:
    async def only_ipv4(*args: object, **kwargs: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 1))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", only_ipv4, raising=False)
    with pytest.raises(DialFailedError) as raised:
        await godial.dial("tcp6", "node-1:1", never)
    assert str(raised.value) == "dial tcp6: address node-1: no suitable address found"


async def test_ipv4_in_ipv6_is_ipv4() -> None:
    dialled: list[tuple[int, Target]] = []

    async def connect(family: int, target: Target) -> None:
        dialled.append((family, target))

    for network in ("tcp", "tcp4"):
        await godial.dial(network, "[::ffff:127.0.0.1]:80", connect)
    assert dialled == [(socket.AF_INET, ("127.0.0.1", 80))] * 2
