"""Warnings about addresses that are valid but not written as they should be (upstream GetWarningsForIP, GetWarningsForCIDR)."""

from __future__ import annotations

import ipaddress

from bowsprit.machinery.fielderrors import Path
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.validation import parse_ip


def address_warnings(text: str, where: Path) -> list[str]:
    """An IP address."""
    ip = parse_ip(text)
    if ip is None:
        return []
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    if mapped is not None:
        return [f"{where}: non-standard IP address {quote(text)} is invalid: use {quote(str(mapped))}"]
    if ip.version == 6 and str(ip) != text:
        return [f"{where}: IPv6 address {quote(text)} should be in RFC 5952 canonical format ({quote(str(ip))})"]
    return []


def range_warnings(text: str, where: Path) -> list[str]:
    """An address with its prefix length."""
    try:
        given = ipaddress.ip_interface(text)
    except ValueError:
        return []
    if given.ip != given.network.network_address:
        alone = f"{given.ip}/{given.max_prefixlen}"
        return [
            f"{where}: CIDR value {quote(text)} is ambiguous in this context (should be {quote(str(given.network))} or "
            f"{quote(alone)}?)"
        ]
    if given.version == 6 and str(given) != text:
        return [
            f"{where}: IPv6 CIDR value {quote(text)} should be in RFC 5952 canonical format ({quote(str(given.network))})"
        ]
    return []
