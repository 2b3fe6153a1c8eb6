"""Packets as values, and their wire form.

DATA, the packet with the bytes, is read and written here by hand (a tag, two varints and the payload, in the order in which
every protobuf library writes them); everything else, and any DATA in another shape, goes through protobuf.

Between our own server and agent, announced by the metadata ``bowsprit-window``: WINDOW gives the peer credit to send DATA on
one connection, EOF says that no more DATA follows on one connection while the other direction goes on (TCP's half-close).
Peers that do not know them ignore unknown types, as upstream's switch statements do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from google.protobuf.message import DecodeError

from bowsprit.net.egress.messages import Packet as _Message

WINDOW_HEADER = "bowsprit-window"
PROBE_HEADER = "bowsprit-probe"  # milliseconds of silence after which an agent of ours pings a server of ours
PROXY = "/ProxyService/Proxy"
CONNECT = "/AgentService/Connect"
# What grpc-go says of a message that is no protobuf; scripts grep for it.
_UNMARSHAL_ERROR = "grpc: failed to unmarshal the received message: "
_BAD_WIRE_FORMAT = "proto: cannot parse invalid wire-format data"
_BAD_TEXT = "string field contains invalid UTF-8"


class PacketType(IntEnum):
    """Upstream's, and ours from 100 on."""

    DIAL_REQ = 0
    DIAL_RSP = 1
    CLOSE_REQ = 2
    CLOSE_RSP = 3
    DATA = 4
    DIAL_CLS = 5
    DRAIN = 6
    WINDOW = 100
    EOF = 101


_PAYLOAD: dict[int, str] = {
    PacketType.DIAL_REQ: "dialRequest",
    PacketType.DIAL_RSP: "dialResponse",
    PacketType.CLOSE_REQ: "closeRequest",
    PacketType.CLOSE_RSP: "closeResponse",
    PacketType.DATA: "data",
    PacketType.DIAL_CLS: "closeDial",
    PacketType.DRAIN: "drain",
    PacketType.WINDOW: "window",
    PacketType.EOF: "endOfData",
}


class MalformedPacketError(ValueError):
    """Not a Packet."""


@dataclass(slots=True)
class Packet:
    """One packet; which fields mean something depends on ``type``. ``raw`` is its wire form, if it came from the wire.

    ``data`` may be a view of ``raw``: a payload is not copied to be passed on. ``type`` is an int when it is none of
    PacketType. ``empty`` says that the payload was missing: a peer's fault that stops upstream's programs, and that ours
    log and ignore.
    """

    type: int
    connect_id: int = 0
    random: int = 0
    error: str = ""
    protocol: str = ""
    address: str = ""
    data: bytes | memoryview = b""
    increment: int = 0
    empty: bool = False
    raw: bytes = b""

    def encode(self) -> bytes:
        """The wire form."""
        return self.raw or _encode(self)


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= 0xFFFFFFFFFFFFFFFF
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def data_header(connect_id: int, size: int) -> bytes:
    """What precedes ``size`` (> 0) payload bytes in a DATA packet."""
    head = b"\x08" + _varint(connect_id) if connect_id else b""
    body = head + b"\x1a" + _varint(size)
    return b"\x08\x04\x22" + _varint(len(body) + size) + body


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
        if shift > 63:
            raise IndexError


def _decode_data(raw: bytes) -> Packet | None:
    """The usual shape of a DATA packet; None for any other."""
    try:
        if raw[:3] != b"\x08\x04\x22":
            return None
        size, position = _read_varint(raw, 3)
        if position + size != len(raw) or raw[position] != 0x08:
            return None
        connect_id, position = _read_varint(raw, position + 1)
        if raw[position] != 0x1A:
            return None
        size, position = _read_varint(raw, position + 1)
        if position + size != len(raw) or connect_id >> 63:
            return None
    except IndexError:
        return None
    return Packet(PacketType.DATA, connect_id=connect_id, data=memoryview(raw)[position:], raw=raw)


def decode(raw: bytes) -> Packet:
    """A packet from its wire form. Raises MalformedPacketError."""
    packet = _decode_data(raw)
    if packet is not None:
        return packet
    message = _Message()
    try:
        message.ParseFromString(raw)
    except DecodeError as exc:
        fault = _BAD_TEXT if "UTF-8" in str(exc) else _BAD_WIRE_FORMAT
        raise MalformedPacketError(_UNMARSHAL_ERROR + fault) from exc
    kind: int = message.type
    packet = Packet(kind, raw=raw)
    name = _PAYLOAD.get(kind)
    if name is None:
        return packet
    if message.WhichOneof("payload") != name:
        packet.empty = kind != PacketType.DRAIN
        return packet
    payload = getattr(message, name)
    if kind == PacketType.DIAL_REQ:
        packet.protocol, packet.address, packet.random = payload.protocol, payload.address, payload.random
    elif kind == PacketType.DIAL_RSP:
        packet.error, packet.connect_id, packet.random = payload.error, payload.connectID, payload.random
    elif kind == PacketType.CLOSE_RSP:
        packet.error, packet.connect_id = payload.error, payload.connectID
    elif kind == PacketType.DATA:
        packet.connect_id, packet.data = payload.connectID, payload.data
    elif kind == PacketType.DIAL_CLS:
        packet.random = payload.random
    elif kind == PacketType.WINDOW:
        packet.connect_id, packet.increment = payload.connectID, payload.increment
    elif kind in (PacketType.CLOSE_REQ, PacketType.EOF):
        packet.connect_id = payload.connectID
    return packet


def _encode(packet: Packet) -> bytes:
    kind = packet.type
    message = _Message()
    message.type = kind
    payload = getattr(message, _PAYLOAD[kind])
    payload.SetInParent()
    if kind == PacketType.DIAL_REQ:
        payload.protocol, payload.address, payload.random = packet.protocol, packet.address, packet.random
    elif kind == PacketType.DIAL_RSP:
        payload.error, payload.connectID, payload.random = packet.error, packet.connect_id, packet.random
    elif kind == PacketType.CLOSE_RSP:
        payload.error, payload.connectID = packet.error, packet.connect_id
    elif kind == PacketType.DATA:
        payload.connectID, payload.data = packet.connect_id, bytes(packet.data)
    elif kind == PacketType.DIAL_CLS:
        payload.random = packet.random
    elif kind == PacketType.WINDOW:
        payload.connectID, payload.increment = packet.connect_id, packet.increment
    elif kind in (PacketType.CLOSE_REQ, PacketType.EOF):
        payload.connectID = packet.connect_id
    return message.SerializeToString()


def type_name(kind: int) -> str:
    """The label that metrics use: upstream's name, or the number of an unknown type as protobuf prints it."""
    try:
        return PacketType(kind).name
    except ValueError:
        return str(kind)
