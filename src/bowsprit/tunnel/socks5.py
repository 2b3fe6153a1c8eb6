"""The server's side of SOCKS5 (RFC 1928) with optional user and password (RFC 1929), without I/O.

Theory. Bytes go in through `Socks5Server.receive`, which returns what to do next:

    METHODS  --greeting-->  AUTH (a password is wanted) | REQUEST
    AUTH     --user/password-->  REQUEST | FAILED
    REQUEST  --CONNECT-->  CONNECTING  (the driver dials, then calls `connected` or `refused`)
    CONNECTING --connected()--> RELAY: all later bytes belong to the connection

Every message has a length that is known from its first bytes and is at most 513 octets, so the buffer is bounded.
Malformed input never raises: it leads to FAILED with the reply, if the protocol has one, and a reason for the log.
"""

from __future__ import annotations

import hmac
import socket
from dataclasses import dataclass
from enum import Enum, IntEnum

VERSION = 5
_AUTH_VERSION = 1
_NO_AUTHENTICATION = 0x00
_USERNAME_PASSWORD = 0x02
_NO_ACCEPTABLE_METHODS = 0xFF
_CONNECT = 1
_IPV4, _DOMAIN, _IPV6 = 1, 3, 4
_LONGEST_MESSAGE = 513


class Reply(IntEnum):
    """RFC 1928 section 6, field REP."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


class State(Enum):
    """Where the exchange stands; see the module's theory."""

    METHODS = "methods"
    AUTH = "auth"
    REQUEST = "request"
    CONNECTING = "connecting"
    RELAY = "relay"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes for the client."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Connect:
    """The client wants a connection to ``host`` (a name, or an address in text) and ``port``."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Fail:
    """The exchange is over: close the connection after what was sent. ``reason`` is for the log."""

    reason: str


Action = Send | Connect | Fail


class Socks5Server:
    """One client's exchange.

    Args:
        credentials: user and password to demand, None to let everybody in.
    """

    def __init__(self, credentials: tuple[str, str] | None = None) -> None:
        self.state = State.METHODS
        self._credentials = credentials
        self._buffer = bytearray()

    def receive(self, data: bytes) -> list[Action]:
        """Take bytes from the client, in any pieces. Not to be called once the state is RELAY."""
        if self.state is State.FAILED:
            return []
        self._buffer += data
        actions: list[Action] = []
        while (step := self._step()) is not None:
            actions += step
        if self.state is State.CONNECTING and len(self._buffer) > 1 << 20:
            actions += self._fail(
                "the client sent more than 1 MiB before the connection was made", Reply.GENERAL_FAILURE
            )
        return actions

    def connected(self) -> list[Action]:
        """The driver has the connection: tell the client."""
        self.state = State.RELAY
        return [Send(_reply(Reply.SUCCEEDED))]

    def refused(self, reply: Reply, reason: str) -> list[Action]:
        """The driver could not connect: tell the client why."""
        return self._fail(reason, reply)

    @property
    def buffered(self) -> int:
        """How many octets wait for the connection."""
        return len(self._buffer)

    def early_data(self) -> bytes:
        """What the client sent after its request, for the connection; empties the buffer."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    def _step(self) -> list[Action] | None:
        match self.state:
            case State.METHODS:
                return self._methods()
            case State.AUTH:
                return self._auth()
            case State.REQUEST:
                return self._request()
            case _:
                return None

    def _take(self, length: int) -> bytes | None:
        assert length <= _LONGEST_MESSAGE
        if len(self._buffer) < length:
            return None
        message = bytes(self._buffer[:length])
        del self._buffer[:length]
        return message

    def _fail(self, reason: str, reply: Reply | None = None, answer: bytes = b"") -> list[Action]:
        self.state = State.FAILED
        self._buffer.clear()
        if reply is not None:
            answer = _reply(reply)
        return [Send(answer), Fail(reason)] if answer else [Fail(reason)]

    def _methods(self) -> list[Action] | None:
        # RFC 1928 section 3: VER, NMETHODS, METHODS.
        if not self._buffer:
            return None
        if self._buffer[0] != VERSION:
            return self._fail(f"not SOCKS5: the first byte is {self._buffer[0]:#04x}{_guess(self._buffer[0])}")
        if len(self._buffer) < 2:
            return None
        message = self._take(2 + self._buffer[1])
        if message is None:
            return None
        wanted = _USERNAME_PASSWORD if self._credentials else _NO_AUTHENTICATION
        if wanted not in message[2:]:
            missing = "user and password" if self._credentials else "no authentication"
            return self._fail(f"the client does not offer {missing}", answer=bytes([VERSION, _NO_ACCEPTABLE_METHODS]))
        self.state = State.AUTH if self._credentials else State.REQUEST
        return [Send(bytes([VERSION, wanted]))]

    def _auth(self) -> list[Action] | None:
        # RFC 1929 section 2: VER, ULEN, UNAME, PLEN, PASSWD.
        if not self._buffer:
            return None
        if self._buffer[0] != _AUTH_VERSION:
            return self._fail("malformed user and password", answer=bytes([_AUTH_VERSION, 1]))
        if len(self._buffer) < 2:
            return None
        user_length = self._buffer[1]
        if len(self._buffer) < 3 + user_length:
            return None
        message = self._take(3 + user_length + self._buffer[2 + user_length])
        if message is None:
            return None
        assert self._credentials is not None
        user, password = message[2 : 2 + user_length], message[3 + user_length :]
        good_user = hmac.compare_digest(user, self._credentials[0].encode())
        good_password = hmac.compare_digest(password, self._credentials[1].encode())
        if not (good_user and good_password):
            return self._fail("wrong user or password", answer=bytes([_AUTH_VERSION, 1]))
        self.state = State.REQUEST
        return [Send(bytes([_AUTH_VERSION, 0]))]

    def _request(self) -> list[Action] | None:
        # RFC 1928 section 4: VER, CMD, RSV, ATYP, DST.ADDR, DST.PORT.
        if len(self._buffer) < 5:
            return None
        version, command, _, kind, first = self._buffer[:5]
        if version != VERSION:
            return self._fail("malformed request", Reply.GENERAL_FAILURE)
        length = {_IPV4: 4, _IPV6: 16, _DOMAIN: 1 + first}.get(kind)
        if length is None:
            return self._fail(f"address type {kind} is not supported", Reply.ADDRESS_TYPE_NOT_SUPPORTED)
        message = self._take(4 + length + 2)
        if message is None:
            return None
        if command != _CONNECT:
            return self._fail(f"command {command} is not supported, only CONNECT", Reply.COMMAND_NOT_SUPPORTED)
        address, port = message[4:-2], int.from_bytes(message[-2:])
        if kind == _DOMAIN:
            host = _domain(address[1:])
            if host is None:
                return self._fail("malformed host name", Reply.GENERAL_FAILURE)
        else:
            host = socket.inet_ntop(socket.AF_INET if kind == _IPV4 else socket.AF_INET6, address)
        if port == 0:
            return self._fail("port 0", Reply.GENERAL_FAILURE)
        self.state = State.CONNECTING
        return [Connect(host, port)]


def _domain(octets: bytes) -> str | None:
    """A host name in text; None for what no resolver should see."""
    if not octets or not all(0x21 <= octet <= 0x7E for octet in octets):
        return None
    return octets.decode("ascii")


def _reply(code: Reply) -> bytes:
    # BND.ADDR and BND.PORT are not known at this end of the tunnel: zeros, as OpenSSH answers.
    return bytes([VERSION, code, 0, _IPV4, 0, 0, 0, 0, 0, 0])


def _guess(first: int) -> str:
    if first == 4:
        return " (SOCKS4 is not supported)"
    if chr(first).isalpha():
        return " (an HTTP proxy request? use socks5h:// in the client)"
    return ""
