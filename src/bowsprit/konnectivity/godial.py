"""Dialling endpoints like Go's net.DialTimeout, with its error texts: they travel to the API server's users.

What differs between resolvers (their address in the text) follows this machine's /etc/resolv.conf.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

DIAL_TIMEOUT = 5.0
_NETWORKS = {
    "tcp": (socket.AF_UNSPEC, socket.SOCK_STREAM),
    "tcp4": (socket.AF_INET, socket.SOCK_STREAM),
    "tcp6": (socket.AF_INET6, socket.SOCK_STREAM),
    "udp": (socket.AF_UNSPEC, socket.SOCK_DGRAM),
    "udp4": (socket.AF_INET, socket.SOCK_DGRAM),
    "udp6": (socket.AF_INET6, socket.SOCK_DGRAM),
    "unix": (socket.AF_UNIX, socket.SOCK_STREAM),
}
_RESOURCE_ERRORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EAFNOSUPPORT}
Target = tuple[object, ...] | str
Connect = Callable[[int, Target], Awaitable[object]]  # a family and a socket address of it
_Address = tuple[int, Target]


class DialFailedError(Exception):
    """The dial failed; the text is Go's. ``timeout`` as net.Error.Timeout()."""

    def __init__(self, text: str, *, timeout: bool = False) -> None:
        super().__init__(text)
        self.timeout = timeout


def split_host_port(address: str) -> tuple[str, str]:
    """Go's net.SplitHostPort. Raises ValueError with its text, without the address."""
    colon = address.rfind(":")
    if colon < 0:
        raise ValueError("missing port in address")
    if address.startswith("["):
        end = address.find("]")
        if end < 0:
            raise ValueError("missing ']' in address")
        if end + 1 == len(address):
            raise ValueError("missing port in address")
        if end + 1 != colon:
            raise ValueError("too many colons in address" if address[end + 1] == ":" else "missing port in address")
        host = address[1:end]
        if "[" in host:
            raise ValueError("unexpected '[' in address")
    else:
        host = address[:colon]
        if ":" in host:
            raise ValueError("too many colons in address")
        if "[" in address or "]" in address:
            raise ValueError(f"unexpected '{'[' if '[' in address else ']'}' in address")
    return host, address[colon + 1 :]


async def dial(network: str, address: str, connect: Connect, timeout: float = DIAL_TIMEOUT) -> None:
    """Let ``connect`` try what the address stands for, until one answers. Raises DialFailedError."""
    if network not in _NETWORKS:
        raise DialFailedError(f"dial{' ' + network if network else ''}: unknown network {network}")
    if not address:
        raise DialFailedError(f"dial {network}: missing address")
    try:
        async with asyncio.timeout(timeout):
            if network == "unix":
                await _connect_all(network, address, [(socket.AF_UNIX, address)], connect, timeout)
                return
            host, port = _parse(network, address)
            await _connect_all(network, address, await _resolve(network, host, port), connect, timeout)
    except TimeoutError:
        raise DialFailedError(f"dial {network} {address}: i/o timeout", timeout=True) from None


def _parse(network: str, address: str) -> tuple[str, int]:
    try:
        host, service = split_host_port(address)
    except ValueError as exc:
        raise DialFailedError(f"dial {network}: address {address}: {exc}") from None
    if re.fullmatch(r"[+-]?[0-9]+", service) or not service:
        port = int(service or 0)
        if not 0 <= port <= 65535:
            raise DialFailedError(f"dial {network}: address {service}: invalid port")
        return host, port
    try:
        return host, socket.getservbyname(service.lower(), network[:3])
    except (OSError, ValueError):
        protocol = network.rstrip("46")
        raise DialFailedError(f"dial {network}: lookup {protocol}/{service}: unknown port") from None


async def _resolve(network: str, host: str, port: int) -> list[_Address]:
    family, kind = _NETWORKS[network]
    if family is not socket.AF_INET6 and _is_ipv4(host):  # nearly always, so without a look-up
        return [(socket.AF_INET, (host, port))]
    literal = _literal(host)
    if isinstance(literal, ipaddress.IPv6Address) and literal.ipv4_mapped and family is not socket.AF_INET6:
        return await _resolve(network, str(literal.ipv4_mapped), port)
    if literal is not None:
        mapped = isinstance(literal, ipaddress.IPv6Address) and literal.ipv4_mapped is not None
        wanted = socket.AF_INET if literal.version == 4 or mapped else socket.AF_INET6
        if family not in (socket.AF_UNSPEC, wanted):
            raise DialFailedError(f"dial {network}: address {host}: no suitable address found")
        infos = socket.getaddrinfo(host, port, wanted, kind, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV)
        return [(int(info[0]), info[4]) for info in infos]
    if not host:  # the local system
        both: list[_Address] = [(socket.AF_INET, ("127.0.0.1", port)), (socket.AF_INET6, ("::1", port, 0, 0))]
        return [each for each in both if family in (socket.AF_UNSPEC, each[0])]
    if not _is_domain_name(host):
        raise DialFailedError(f"dial {network}: lookup {host}: no such host")
    if _is_old_ipv4(host):
        raise DialFailedError(f"dial {network}: lookup {host} on {_resolver()}: no such host")
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=kind)
    except socket.gaierror as exc:
        raise DialFailedError(f"dial {network}: {lookup_failure(host, exc)}") from None
    except UnicodeError:
        raise DialFailedError(f"dial {network}: lookup {host}: no such host") from None
    infos = [info for info in infos if family in (socket.AF_UNSPEC, info[0])]
    if not infos:
        raise DialFailedError(f"dial {network}: address {host}: no suitable address found")
    return [(int(info[0]), info[4]) for info in sorted(infos, key=lambda info: info[0] == socket.AF_INET6)]


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _is_old_ipv4(host: str) -> bool:
    """Whether the C library would read a name like ``0x7f000001`` as an address, which Go asks the DNS about."""
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True


def lookup_failure(host: str, exc: socket.gaierror) -> str:
    """Why a name has no address, in the words of Go's net.DNSError."""
    if not _is_domain_name(host):
        return f"lookup {host}: no such host"
    misbehaving = exc.errno == socket.EAI_AGAIN and _resolver_answers()
    return f"lookup {host} on {_resolver()}: {'server misbehaving' if misbehaving else 'no such host'}"


async def _connect_all(network: str, address: str, targets: list[_Address], connect: Connect, timeout: float) -> None:
    """The first address that answers; the error of the first that was tried (Go's dialParallel)."""
    failure: DialFailedError | None = None
    for family, target in targets:
        try:
            if len(targets) == 1:
                await connect(family, target)
            else:
                async with asyncio.timeout(timeout / len(targets)):
                    await connect(family, target)
            return
        except (OSError, TimeoutError) as exc:
            failure = failure or _failure(network, address, family, target, exc)
    raise failure or DialFailedError(f"dial {network}: address {address}: no suitable address found")


def _is_ipv4(host: str) -> bool:
    try:
        return len(socket.inet_pton(socket.AF_INET, host)) == 4
    except OSError:
        return False


def _failure(network: str, address: str, family: int, target: object, exc: Exception) -> DialFailedError:
    shown = address
    if isinstance(target, tuple) and not address.startswith(":"):
        shown = f"[{target[0]}]:{target[1]}" if family == socket.AF_INET6 else f"{target[0]}:{target[1]}"
    if isinstance(exc, TimeoutError) and getattr(exc, "errno", None) is None:
        return DialFailedError(f"dial {network} {shown}: i/o timeout", timeout=True)
    number = getattr(exc, "errno", None) or 0
    reason = os.strerror(number).lower() if number else str(exc)
    call = "socket" if number in _RESOURCE_ERRORS else "connect"
    return DialFailedError(f"dial {network} {shown}: {call}: {reason}", timeout=number == errno.ETIMEDOUT)


def _is_domain_name(name: str) -> bool:
    """Go's net.isDomainName, roughly: letters, digits, ``-`` and ``_`` in labels of at most 63; not digits alone."""
    labels = name.removesuffix(".").split(".")
    if not re.search(r"[^0-9.]", name):
        return False
    pattern = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
    return len(name) <= 254 and all(pattern.fullmatch(label) for label in labels)


def _nameservers() -> list[str]:
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except OSError:
        return []
    return [parts[1] for parts in map(str.split, lines) if len(parts) > 1 and parts[0] == "nameserver"]


def _resolver() -> str:
    server = (_nameservers() or ["127.0.0.1"])[0]
    return f"[{server}]:53" if ":" in server else f"{server}:53"


def _resolver_answers() -> bool:
    """Whether a resolver is configured; without one glibc says "try again" for every name."""
    return bool(_nameservers())
