"""What can go wrong with a tunnel.

TunnelError           something the user can act on; reason and hint
└── ForwardError      one destination could not be reached; carries the SOCKS reply
"""

from __future__ import annotations

from bowsprit.tunnel.socks5 import Reply


class TunnelError(Exception):
    """A tunnel could not be opened, or broke for good.

    Args:
        message: what went wrong, one line.
        reason: a stable CamelCase identifier.
        hint: what to do about it.
    """

    def __init__(self, message: str, *, reason: str = "TunnelFailed", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.hint = hint


class ForwardError(TunnelError):
    """The far end could not, or would not, connect to one destination."""

    def __init__(self, message: str, reply: Reply, *, reason: str = "ForwardFailed") -> None:
        super().__init__(message, reason=reason)
        self.reply = reply
