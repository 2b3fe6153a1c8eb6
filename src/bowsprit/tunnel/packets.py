"""The short way of channel packets through an asyncssh connection that is encrypted with AES-GCM.

asyncssh takes some forty calls to move a packet between the socket and its channel, since it looks after every cipher,
compression, key exchange and log line there can be. Nearly all packets of a tunnel are data of an open channel under
AES-GCM (RFC 5647), without compression and between two key exchanges; those are done here, with asyncssh's own state.
Everything else takes asyncssh's way, packet by packet, so that the two never disagree.

What is used of asyncssh here is not public. `attach` says no where something is missing, and all goes on as without it.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import asyncssh
from asyncssh.packet import SSHPacket
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bowsprit.tunnel.channel import Channel

_IGNORE = 2
_CHANNEL_OPEN = 90
_CHANNEL_OPEN_CONFIRMATION = 91
_CHANNEL_WINDOW_ADJUST = 93
_CHANNEL_DATA = 94
_CHANNEL_EOF = 96
_CHANNEL_CLOSE = 97
_NOBODY_WAITS = frozenset(
    {_CHANNEL_WINDOW_ADJUST, _CHANNEL_EOF, _CHANNEL_CLOSE}
)  # sent with others, in one system call
_TAG = 16
_BLOCK = 16
_NEEDED = (
    "_recv_pkthdr", "_recv_handler", "_inpbuf", "_recv_seq", "_recv_encryption", "_decompressor", "_channels",
    "_send", "_send_seq", "_send_encryption", "_compressor", "_kex_complete", "_rekey_bytes", "_rekey_bytes_sent",
    "_rekey_seconds", "_rekey_time", "_max_recv_pktlen", "_transport",
)  # fmt: skip


class _Cipher:
    """AES-GCM with the key of asyncssh's cipher; the nonce stays with asyncssh, which counts on with it."""

    def __init__(self, encryption: Any) -> None:
        self.encryption = encryption
        self._state = encryption._cipher
        self._aes = AESGCM(self._state._key)

    def encrypt(self, packet: bytes, header: bytes) -> bytes:
        nonce: bytes = self._state._iv
        sealed = self._aes.encrypt(nonce, packet, header)
        self._state._iv = nonce[:4] + (int.from_bytes(nonce[4:]) + 1).to_bytes(8)
        return sealed

    def decrypt(self, sealed: bytes, header: bytes) -> bytes:
        """Does not count on: see `next`."""
        return self._aes.decrypt(self._state._iv, sealed, header)

    def next(self) -> None:
        nonce: bytes = self._state._iv
        self._state._iv = nonce[:4] + (int.from_bytes(nonce[4:]) + 1).to_bytes(8)


class QuickPackets:
    """The short way of one connection."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._slow_receive = connection._recv_pkthdr
        self._slow_send = connection.send_packet
        self._outgoing: _Cipher | None = None
        self._incoming: _Cipher | None = None
        self._held = b""

    def send_packet(self, pkttype: int, *parts: bytes, handler: Any = None) -> None:
        """In place of SSHConnection.send_packet."""
        connection = self._connection
        if pkttype == _IGNORE:
            # asyncssh puts one before every packet. It protects CBC ciphers (RFC 4251 section 9.3.1), none of which we offer.
            return
        encryption = connection._send_encryption
        cipher = self._outgoing
        if (
            pkttype < _CHANNEL_OPEN
            or not connection._kex_complete
            or connection._rekey_bytes_sent >= connection._rekey_bytes
            or (connection._rekey_seconds and time.monotonic() >= connection._rekey_time)
        ):
            self._go_slowly(pkttype, *parts, handler=handler)
            return
        if cipher is None or cipher.encryption is not encryption:
            if not _is_plain_gcm(encryption, connection._compressor):
                self._go_slowly(pkttype, *parts, handler=handler)
                return
            cipher = self._outgoing = _Cipher(encryption)
        payload = b"".join(parts)
        # RFC 4253 section 6: at least four octets of padding, up to whole blocks without the length field (RFC 5647).
        padding = _BLOCK - (len(payload) + 2) % _BLOCK
        if padding < 4:
            padding += _BLOCK
        length = len(payload) + 2 + padding
        header = length.to_bytes(4)
        packet = b"%c%c%b%b" % (padding, pkttype, payload, os.urandom(padding))
        sealed = header + cipher.encrypt(packet, header)
        connection._send_seq = (connection._send_seq + 1) & 0xFFFFFFFF
        connection._rekey_bytes_sent += length
        if pkttype in _NOBODY_WAITS:
            if not self._held:
                self._loop.call_soon(self._release)
            self._held += sealed
        else:
            held, self._held = self._held, b""
            connection._send(held + sealed if held else sealed)

    def _release(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._connection._send(held)

    def _go_slowly(self, pkttype: int, *parts: bytes, handler: Any) -> None:
        self._release()
        self._slow_send(pkttype, *parts, handler=handler)

    def receive(self) -> bool:
        """In place of SSHConnection._recv_pkthdr: takes the whole packets that have arrived, as long as they are channels'
        business; False when there is nothing more to do before more has arrived."""
        connection = self._connection
        encryption = connection._recv_encryption
        cipher = self._incoming
        if cipher is None or cipher.encryption is not encryption:
            if not _is_plain_gcm(encryption, connection._decompressor):
                return bool(self._slow_receive())
            cipher = self._incoming = _Cipher(encryption)
        buffer: bytes = connection._inpbuf
        start = 0
        while len(buffer) - start >= _BLOCK:
            header = buffer[start : start + 4]
            length = int.from_bytes(header)
            end = start + 4 + length + _TAG
            if length <= connection._max_recv_pktlen and end > len(buffer):
                break
            try:
                packet = cipher.decrypt(buffer[start + 4 : end], header)
            except InvalidTag:
                packet = b""  # asyncssh will find so, too, and knows what to say
            connection._inpbuf = buffer[start:]
            channel = _channel_of(packet, connection)
            if channel is None:
                return bool(self._slow_receive())
            cipher.next()
            connection._recv_seq = (connection._recv_seq + 1) & 0xFFFFFFFF
            start = end
            connection._inpbuf = b""  # of a packet that is done: should its channel fail, nothing of it is left
            _deliver(channel, packet)
            if connection._transport is None:
                return False
        connection._inpbuf = buffer[start:]
        return False


def attach(connection: asyncssh.SSHClientConnection) -> bool:
    """Let a connection's channel packets take the short way; False where asyncssh is not as expected."""
    if not all(hasattr(connection, name) for name in _NEEDED):
        return False
    quick = QuickPackets(connection)
    waiting_for_header = connection._recv_handler == connection._recv_pkthdr
    connection.send_packet = quick.send_packet  # type: ignore[method-assign]
    connection._recv_pkthdr = quick.receive  # type: ignore[method-assign]
    if waiting_for_header:
        connection._recv_handler = quick.receive
    return True


def _is_plain_gcm(encryption: Any, compressor: Any) -> bool:
    cipher = getattr(encryption, "_cipher", None)
    return (
        type(encryption).__name__ == "GCMEncryption"
        and compressor is None
        and isinstance(getattr(cipher, "_key", None), bytes)
        and isinstance(getattr(cipher, "_iv", None), bytes)
    )


def _channel_of(packet: bytes, connection: Any) -> Channel | None:
    """The channel of ours that a packet is for; None for everything that is asyncssh's."""
    if len(packet) < 6:
        return None
    kind = packet[1]
    if kind != _CHANNEL_OPEN_CONFIRMATION and not _CHANNEL_WINDOW_ADJUST <= kind <= _CHANNEL_CLOSE:
        return None
    channel = connection._channels.get(int.from_bytes(packet[2:6]))
    return channel if type(channel) is Channel else None


def _deliver(channel: Channel, packet: bytes) -> None:
    kind, padding = packet[1], packet[0]
    if kind == _CHANNEL_DATA:
        size = int.from_bytes(packet[6:10])
        if 10 + size + padding != len(packet):
            raise asyncssh.ProtocolError("a channel's data has not the length it claims")
        channel.receive(packet[10 : 10 + size])
    elif kind == _CHANNEL_OPEN_CONFIRMATION:
        fields = SSHPacket(packet[6:-padding])
        number, window, packet_size = fields.get_uint32(), fields.get_uint32(), fields.get_uint32()
        channel.process_open_confirmation(number, window, packet_size, fields)
    else:
        channel.process_packet(kind, 0, SSHPacket(packet[6:-padding]))
