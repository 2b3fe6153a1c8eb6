"""The protobuf messages of the protocol (konnectivity-client/proto/client/client.proto), made from a table at import.

Field numbers are upstream's; types 100 and 101 are ours, spoken only with a peer that has announced them (see packets.py).
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_STRING, _BYTES, _INT64, _ENUM, _MESSAGE = 9, 12, 3, 14, 11

TYPES = {"DIAL_REQ": 0, "DIAL_RSP": 1, "CLOSE_REQ": 2, "CLOSE_RSP": 3, "DATA": 4, "DIAL_CLS": 5, "DRAIN": 6}
_MESSAGES: dict[str, tuple[tuple[str, int, int], ...]] = {
    "DialRequest": (("protocol", 1, _STRING), ("address", 2, _STRING), ("random", 3, _INT64)),
    "DialResponse": (("error", 1, _STRING), ("connectID", 2, _INT64), ("random", 3, _INT64)),
    "CloseRequest": (("connectID", 1, _INT64),),
    "CloseResponse": (("error", 1, _STRING), ("connectID", 2, _INT64)),
    "CloseDial": (("random", 1, _INT64),),
    "Drain": (),
    "Data": (("connectID", 1, _INT64), ("error", 2, _STRING), ("data", 3, _BYTES)),
    "Window": (("connectID", 1, _INT64), ("increment", 2, _INT64)),
    "EndOfData": (("connectID", 1, _INT64),),
}
_PAYLOADS = (
    ("dialRequest", 2, "DialRequest"),
    ("dialResponse", 3, "DialResponse"),
    ("data", 4, "Data"),
    ("closeRequest", 5, "CloseRequest"),
    ("closeResponse", 6, "CloseResponse"),
    ("closeDial", 7, "CloseDial"),
    ("drain", 8, "Drain"),
    ("window", 100, "Window"),
    ("endOfData", 101, "EndOfData"),
)


class PacketMessage(Protocol):
    """The generated class, as far as we use it."""

    type: int
    dialRequest: Any
    dialResponse: Any
    data: Any
    closeRequest: Any
    closeResponse: Any
    closeDial: Any
    drain: Any
    window: Any
    endOfData: Any

    def SerializeToString(self) -> bytes:
        """The wire form."""

    def ParseFromString(self, data: bytes) -> int:
        """Fill from the wire form; raises google.protobuf.message.DecodeError."""

    def WhichOneof(self, group: str) -> str | None:
        """The payload that is set."""


def _build() -> type[PacketMessage]:
    file = descriptor_pb2.FileDescriptorProto(name="bowsprit/konnectivity.proto", syntax="proto3")
    types = file.enum_type.add(name="PacketType")
    for name, number in TYPES.items():
        types.value.add(name=name, number=number)
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, number, kind in fields:
            message.field.add(name=name, number=number, type=cast(Any, kind), label=cast(Any, 1), json_name=name)
    packet = file.message_type.add(name="Packet")
    packet.field.add(name="type", number=1, type=cast(Any, _ENUM), label=cast(Any, 1), type_name=".PacketType")
    packet.oneof_decl.add(name="payload")
    for name, number, kind_name in _PAYLOADS:
        packet.field.add(
            name=name, number=number, type=cast(Any, _MESSAGE), label=cast(Any, 1), type_name=f".{kind_name}",
            oneof_index=0, json_name=name,
        )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return cast(type[PacketMessage], message_factory.GetMessageClass(pool.FindMessageTypeByName("Packet")))


Packet = _build()
