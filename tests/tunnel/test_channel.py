"""The SSH channel as a machine: windows, ends, refusals, wrong packets; no connection needed."""

from __future__ import annotations

import asyncssh
import pytest
from asyncssh.packet import SSHPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.tunnel.channel import PAUSE_ABOVE, WINDOW, Channel

OPEN, ADJUST, DATA, EOF, CLOSE, REQUEST, REQUEST_FAILURE = 90, 93, 94, 96, 97, 98, 100


class Connection:
    """What a channel needs of asyncssh's connection; remembers what was sent."""

    def __init__(self):
        self.sent: list[tuple[int, bytes]] = []
        self.channels = {}

    def add_channel(self, channel):
        self.channels[7] = channel
        return 7

    def remove_channel(self, number):
        del self.channels[number]

    def send_packet(self, kind, *parts, handler):
        self.sent.append((kind, b"".join(parts)))

    def data(self) -> bytes:
        return b"".join(body[8:] for kind, body in self.sent if kind == DATA)

    def kinds(self) -> list[int]:
        return [kind for kind, _ in self.sent]


class Peer:
    """Opener and peer; remembers what it was told."""

    def __init__(self):
        self.told = []
        self.received = b""

    def channel_opened(self, channel):
        self.told.append("opened")
        return self

    def channel_refused(self, error):
        self.told.append(("refused", error and error.code))

    def data_from_channel(self, data):
        self.received += data

    def eof_from_channel(self):
        self.told.append("eof")

    def pause_to_channel(self):
        self.told.append("pause")

    def resume_to_channel(self):
        self.told.append("resume")

    def channel_lost(self, error):
        self.told.append(("lost", error is not None))


def uint32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def opened(window=1000, packet=100):
    connection, peer = Connection(), Peer()
    channel = Channel(connection, peer, "api.example.com", 6443, ("127.0.0.1", 5))
    channel.process_open_confirmation(3, window, packet, SSHPacket(b""))
    return connection, peer, channel


def feed(channel, kind, body=b""):
    assert channel.process_packet(kind, 0, SSHPacket(body))


def test_it_asks_for_a_direct_tcpip_channel():
    connection, _, _ = opened()
    kind, body = connection.sent[0]
    packet = SSHPacket(body)
    assert kind == OPEN
    assert packet.get_string() == b"direct-tcpip"
    assert [packet.get_uint32() for _ in range(3)] == [7, WINDOW, 32768]
    assert (packet.get_string(), packet.get_uint32()) == (b"api.example.com", 6443)
    assert (packet.get_string(), packet.get_uint32()) == (b"127.0.0.1", 5)


def test_no_more_is_sent_than_the_window_and_the_packet_size_allow():
    connection, peer, channel = opened(window=250, packet=100)
    channel.write(bytes(range(250)) + b"rest")
    assert [len(body) - 8 for kind, body in connection.sent if kind == DATA] == [100, 100, 50]
    channel.write_eof()
    assert EOF not in connection.kinds()
    feed(channel, ADJUST, uint32(1000))
    assert connection.data() == bytes(range(250)) + b"rest"
    assert connection.kinds()[-1] == EOF
    assert peer.told == ["opened"]


def test_the_writer_is_paused_while_too_much_is_unsent():
    _, peer, channel = opened(window=0)
    channel.write(bytes(PAUSE_ABOVE))
    assert peer.told == ["opened"]
    channel.write(b"x")
    assert peer.told == ["opened", "pause"]
    feed(channel, ADJUST, uint32(1 << 20))
    assert peer.told == ["opened", "pause", "resume"]


def test_the_far_end_gets_window_back_only_while_we_read():
    connection, peer, channel = opened()
    channel.pause_reading()
    for _ in range(WINDOW // 65536):
        channel.receive(bytes(65536))
    assert ADJUST not in connection.kinds()
    with pytest.raises(asyncssh.ProtocolError):
        channel.receive(b"x")
    channel.resume_reading()
    assert connection.sent[-1] == (ADJUST, uint32(3) + uint32(WINDOW))
    channel.receive(b"more")
    assert len(peer.received) == WINDOW + 4


def test_both_ends_close():
    connection, peer, channel = opened()
    feed(channel, EOF)
    channel.close()
    assert connection.kinds()[-1] == CLOSE
    channel.write(b"late")
    feed(channel, CLOSE)
    assert connection.kinds().count(CLOSE) == 1
    assert connection.channels == {}
    assert peer.told == ["opened", "eof"]  # who closed is told nothing more


def test_a_close_of_the_far_end_is_answered_and_told():
    connection, peer, channel = opened(window=0)
    channel.write(b"never sent")
    feed(channel, CLOSE)
    assert connection.kinds()[-1] == CLOSE
    assert peer.told == ["opened", ("lost", False)]
    assert connection.channels == {}


def test_refusals_and_lost_connections_are_told_once():
    connection, peer = Connection(), Peer()
    channel = Channel(connection, peer, "a", 1, ("b", 2))
    channel.process_open_failure(asyncssh.OPEN_CONNECT_FAILED, "Connection refused", "")
    assert peer.told == [("refused", asyncssh.OPEN_CONNECT_FAILED)]
    peer = Peer()
    channel = Channel(connection, peer, "a", 1, ("b", 2))
    channel.process_connection_close(None)
    assert peer.told == [("refused", None)]
    connection, peer, channel = opened()
    channel.process_connection_close(ConnectionError())
    channel.process_connection_close(None)
    assert peer.told == ["opened", ("lost", True)]


def test_a_wish_withdrawn_before_the_answer_closes_what_then_opens():
    connection, peer = Connection(), Peer()
    channel = Channel(connection, peer, "a", 1, ("b", 2))
    channel.abort()
    channel.process_open_confirmation(3, 10, 10, SSHPacket(b""))
    assert connection.sent[-1] == (CLOSE, uint32(3))
    assert peer.told == []


def test_requests_are_refused_and_unknown_packets_left_to_others():
    connection, _, channel = opened()
    feed(channel, REQUEST, uint32(4) + b"what" + b"\x01")
    assert connection.sent[-1] == (REQUEST_FAILURE, uint32(3))
    assert not channel.process_packet(150, 0, SSHPacket(b""))


@pytest.mark.parametrize("again", ["confirm", "refuse"])
def test_a_second_answer_breaks_the_protocol(again):
    _, _, channel = opened()
    with pytest.raises(asyncssh.ProtocolError):
        if again == "confirm":
            channel.process_open_confirmation(3, 1, 1, SSHPacket(b""))
        else:
            channel.process_open_failure(1, "", "")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(min_size=1, max_size=300),
            st.integers(1, 500),
        ),
        max_size=30,
    ),
    st.integers(0, 300),
    st.integers(1, 64),
)
def test_any_order_of_writes_and_windows_keeps_the_bytes(steps, window, packet):
    connection, _, channel = opened(window=window, packet=packet)
    written, allowed = b"", window
    for step in steps:
        if isinstance(step, bytes):
            channel.write(step)
            written += step
        else:
            feed(channel, ADJUST, uint32(step))
            allowed += step
        assert connection.data() == written[:allowed]
    channel.close()
    assert (connection.kinds()[-1] == CLOSE) == (len(written) <= allowed)
