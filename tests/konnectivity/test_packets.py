"""Packets: our DATA codec says what protobuf says, upstream's bytes are read and written as they are."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from konnectivity_transcripts import load, packet_of, shown

from bowsprit.net.egress import packets
from bowsprit.net.egress.messages import Packet as Message
from bowsprit.net.egress.packets import MalformedPacketError, Packet, PacketType

IDS = st.integers(0, 2**63 - 1)


@given(IDS, st.binary(min_size=1, max_size=300))
def test_data_is_written_as_protobuf_writes_it(connect_id: int, data: bytes) -> None:
    message = Message()
    message.type = 4
    message.data.connectID = connect_id
    message.data.data = data
    raw = packets.data_header(connect_id, len(data)) + data
    assert raw == message.SerializeToString()
    assert shown(packets.decode(raw)) == shown(Packet(PacketType.DATA, connect_id=connect_id, data=data))


@given(IDS, st.integers(-(2**63), 2**63 - 1), st.text(max_size=20), st.sampled_from(list(PacketType)))
def test_packets_survive_the_wire(connect_id: int, random: int, text: str, kind: PacketType) -> None:
    fields = {
        PacketType.DIAL_REQ: {"random": random, "address": text, "protocol": "tcp"},
        PacketType.DIAL_RSP: {"random": random, "error": text, "connect_id": connect_id},
        PacketType.CLOSE_REQ: {"connect_id": connect_id},
        PacketType.CLOSE_RSP: {"connect_id": connect_id, "error": text},
        PacketType.DATA: {"connect_id": connect_id, "data": text.encode()},
        PacketType.DIAL_CLS: {"random": random},
        PacketType.DRAIN: {},
        PacketType.WINDOW: {"connect_id": connect_id, "increment": 7},
        PacketType.EOF: {"connect_id": connect_id},
    }
    packet = Packet(kind, **fields[kind])  # type: ignore[arg-type]
    found = packets.decode(packet.encode())
    assert shown(found) == shown(packet)
    assert found.increment == packet.increment
    assert not found.empty


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_any_bytes_are_a_packet_or_malformed(raw: bytes) -> None:
    try:
        packet = packets.decode(raw)
    except MalformedPacketError:
        with pytest.raises(Exception, match=r"parsing|decode|Error"):
            Message().ParseFromString(raw)
        return
    message = Message()
    message.ParseFromString(raw)
    assert message.type == packet.type
    if packet.type == PacketType.DATA and not packet.empty:
        assert (message.data.connectID, message.data.data) == (packet.connect_id, packet.data)


def test_every_recorded_packet_is_read_as_recorded() -> None:
    count = 0
    for name in ("server-grpc", "server-http-connect", "agent", "pair"):
        for scenario in load(name):
            for step in scenario["steps"]:
                if "packet" in step and "raw" in step:
                    raw = base64.b64decode(step["raw"])
                    expected = packet_of(step, {})
                    assert shown(packets.decode(raw)) == shown(expected)
                    if not expected.empty and isinstance(expected.type, PacketType):
                        assert expected.encode() == raw
                    count += 1
    assert count > 600
