"""The SOCKS5 machine: RFC examples, wrong input, any split of the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.tunnel.errors import TunnelError
from bowsprit.tunnel.rules import Rule, allowed
from bowsprit.tunnel.socks5 import Connect, Fail, Reply, Send, Socks5Server, State
from bowsprit.tunnel.target import SshTarget

GREETING = b"\x05\x02\x00\x02"
REQUEST = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"


def failure(reply: Reply) -> bytes:
    return bytes([5, reply, 0, 1]) + bytes(6)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (b"\x01\x0a\x00\x00\x01", "10.0.0.1"),
        (b"\x03\x09localhost", "localhost"),
        (b"\x04" + bytes(15) + b"\x01", "::1"),
    ],
)
def test_connect_names_the_destination(address, host):
    machine = Socks5Server()
    assert machine.receive(GREETING) == [Send(b"\x05\x00")]
    assert machine.receive(b"\x05\x01\x00" + address + b"\x19\x2b") == [Connect(host, 6443)]
    assert machine.connected() == [Send(failure(Reply.SUCCEEDED))]
    assert machine.state is State.RELAY


def test_early_data_is_kept_for_the_connection():
    machine = Socks5Server()
    machine.receive(GREETING + REQUEST + b"GET /")
    assert machine.receive(b"api") == []
    machine.connected()
    assert machine.early_data() == b"GET /api"


def test_password_is_checked():
    good, bad = Socks5Server(("u", "p")), Socks5Server(("u", "p"))
    assert good.receive(GREETING) == [Send(b"\x05\x02")]
    assert good.receive(b"\x01\x01u\x01p") == [Send(b"\x01\x00")]
    bad.receive(GREETING)
    assert bad.receive(b"\x01\x01u\x01q") == [Send(b"\x01\x01"), Fail("wrong user or password")]
    assert bad.receive(REQUEST) == []


def test_a_client_that_offers_no_usable_method_is_told():
    assert Socks5Server(("u", "p")).receive(b"\x05\x01\x00")[0] == Send(b"\x05\xff")
    assert Socks5Server().receive(b"\x05\x01\x02")[0] == Send(b"\x05\xff")


@pytest.mark.parametrize(
    ("request_bytes", "reply"),
    [
        (b"\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", Reply.COMMAND_NOT_SUPPORTED),
        (b"\x05\x01\x00\x09\x7f\x00\x00\x01\x00\x50", Reply.ADDRESS_TYPE_NOT_SUPPORTED),
        (b"\x05\x01\x00\x03\x02a\n\x00\x50", Reply.GENERAL_FAILURE),
        (b"\x05\x01\x00\x03\x00\x00\x50", Reply.GENERAL_FAILURE),
        (b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00", Reply.GENERAL_FAILURE),
    ],
)
def test_unsupported_requests_get_their_reply(request_bytes, reply):
    machine = Socks5Server()
    machine.receive(GREETING)
    actions = machine.receive(request_bytes)
    assert actions[0] == Send(failure(reply))
    assert isinstance(actions[1], Fail)
    assert machine.state is State.FAILED


@pytest.mark.parametrize("first", [b"\x04\x01", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"])
def test_other_protocols_are_recognised_at_once(first):
    (action,) = Socks5Server().receive(first)
    assert isinstance(action, Fail)


@given(st.lists(st.integers(0, 40), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_actions(cuts):
    stream = b"\x05\x01\x02" + b"\x01\x04user\x06secret" + REQUEST + b"early"
    machine = Socks5Server(("user", "secret"))
    actions, position = [], 0
    for cut in [*cuts, len(stream)]:
        actions += machine.receive(stream[position : position + cut])
        position = min(len(stream), position + cut)
    if position < len(stream):
        actions += machine.receive(stream[position:])
    assert actions == [Send(b"\x05\x02"), Send(b"\x01\x00"), Connect("example.com", 443)]
    assert machine.early_data() == b"early"


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=40), max_size=10), st.booleans())
def test_no_input_breaks_the_machine(chunks, password):
    machine = Socks5Server(("u", "p") if password else None)
    for chunk in chunks:
        for action in machine.receive(chunk):
            assert isinstance(action, Send | Connect | Fail)
            if isinstance(action, Connect):
                assert action.host
                assert 0 < action.port < 65536


def test_rules():
    rules = [Rule.parse("api.example.com:6443"), Rule.parse("[::1]:*"), Rule.parse("*:443")]
    assert allowed(rules, "API.example.com.", 6443)
    assert allowed(rules, "0:0:0:0:0:0:0:1", 1)
    assert allowed(rules, "anything", 443)
    assert not allowed(rules, "api.example.com", 22)
    assert not allowed([], "a", 1)
    assert allowed(None, "a", 1)
    for wrong in ("a", ":1", "a:0", "a:b", "1::2:3", "a:65536"):
        with pytest.raises(ValueError):
            Rule.parse(wrong)


def test_targets():
    assert SshTarget.parse("ssh://ana@bastion:2222") == SshTarget("bastion", "ana", 2222)
    assert SshTarget.parse("ana@bastion") == SshTarget("bastion", "ana")
    assert str(SshTarget.parse("ssh://[::1]:22")) == "ssh://[::1]:22"
    for wrong in ("http://x", "ssh://", "ssh://a:b@c", "ssh://a/b", "ssh://a:99999", "ssh://-oProxyCommand=x"):
        with pytest.raises(TunnelError):
            SshTarget.parse(wrong)
