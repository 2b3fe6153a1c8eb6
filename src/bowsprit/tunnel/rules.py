"""Which destinations a tunnel may be asked for."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """A destination ``host:port``; ``*`` stands for any host or any port."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``HOST:PORT``, ``*:PORT``, ``HOST:*``, ``[v6]:PORT``.

        Raises:
            ValueError: with a message for the user.
        """
        host, colon, port = text.rpartition(":")
        if not colon or not host:
            raise ValueError(f"{text!r} is not HOST:PORT")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        if bracketed or ":" in host:
            try:
                if not bracketed:
                    raise ValueError
                ipaddress.IPv6Address(host)
            except ValueError:
                raise ValueError(f"{text!r}: write IPv6 addresses in brackets, [::1]:6443") from None
        if port == "*":
            return cls(_canonical(host), None)
        if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
            raise ValueError(f"{text!r}: the port must be a number from 1 to 65535, or *")
        return cls(_canonical(host), int(port))

    def allows(self, host: str, port: int) -> bool:
        """Whether a destination falls under this rule. Names are compared as written, never resolved."""
        return self.port in (None, port) and self.host in ("*", _canonical(host))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{'*' if self.port is None else self.port}"


def allowed(rules: Iterable[Rule] | None, host: str, port: int) -> bool:
    """Whether any rule allows the destination; None allows everything, as ``ssh -D`` does."""
    return rules is None or any(rule.allows(host, port) for rule in rules)


def _canonical(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.rstrip(".").lower() or host
