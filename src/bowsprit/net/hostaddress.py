"""This host's own address, as others reach it."""

from __future__ import annotations

import ipaddress
import socket


def host_address(towards: str = "") -> str:
    """The address from which this host speaks to another, or to the world; "" if it has none but loopback ones."""
    # Connecting a datagram socket sends nothing; it only asks the kernel for the route. 192.0.2.1 stands for "elsewhere".
    for target in filter(None, (towards, "192.0.2.1", "2001:db8::1")):
        try:
            family, kind, _, _, address = socket.getaddrinfo(target, 9, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind) as probe:
                probe.connect(address)
                found = str(probe.getsockname()[0]).partition("%")[0]
        except OSError:
            continue
        parsed = ipaddress.ip_address(found)
        if not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast):
            return found
    return ""
