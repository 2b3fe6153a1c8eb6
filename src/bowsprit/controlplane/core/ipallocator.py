"""Handing out addresses and ports of Services, without I/O.

Upstream: pkg/registry/core/service/{ipallocator,portallocator}. Addresses that are asked for by name come from anywhere in
the range; others are chosen at random from its upper part, so that the lower one stays free for static use (KEP-3070).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Choose = Callable[[int], int]
"""A random number below the argument."""

_MOST_HOSTS = 1 << 16


class AllocationError(Exception):
    """The address or port cannot be had; the text is upstream's."""


class RangeFullError(AllocationError):
    """Nothing is left."""


class AddressAllocator:
    """The addresses of one service range."""

    def __init__(self, cidr: str, choose: Choose) -> None:
        self.network: Network = ipaddress.ip_network(cidr)
        self._choose = choose
        self._used: dict[int, str] = {}
        last = 1 if self.network.version == 4 else 0  # IPv4 has a broadcast address
        self._size = min(self.network.num_addresses - 1 - last, _MOST_HOSTS)

    @property
    def family(self) -> str:
        return f"IPv{self.network.version}"

    @property
    def first(self) -> str:
        """The address of the kubernetes Service."""
        return str(self.network.network_address + 1)

    @property
    def _reserved(self) -> int:
        """How many of the lowest addresses are for static use only."""
        return min(256, max(16, self._size // 16)) if self._size >= 16 else 0

    def owner(self, address: str) -> str:
        """Who holds an address, "" when free."""
        return self._used.get(self._offset(address), "")

    def allocate(self, address: str, owner: str) -> None:
        """Take a certain address.

        Raises:
            AllocationError: it is outside the range or taken.
        """
        offset = self._offset(address)
        if not 1 <= offset <= self._size:
            raise AllocationError("the provided network does not match the current range")
        if self._used.get(offset, owner) != owner:
            raise AllocationError("provided IP is already allocated")
        self._used[offset] = owner

    def allocate_next(self, owner: str) -> str:
        """Take any free address.

        Raises:
            RangeFullError: there is none.
        """
        low, count = 1 + self._reserved, self._size - self._reserved
        for first, length in ((low, count), (1, self._reserved)):
            if length <= 0:
                continue
            start = self._choose(length)
            for step in range(length):
                offset = first + (start + step) % length
                if offset not in self._used:
                    self._used[offset] = owner
                    return str(self.network.network_address + offset)
        raise RangeFullError("range is full")

    def release(self, address: str) -> None:
        """Give an address back; unknown ones do not matter."""
        self._used.pop(self._offset(address), None)

    def _offset(self, address: str) -> int:
        ip = ipaddress.ip_address(address)
        return int(ip) - int(self.network.network_address) if ip.version == self.network.version else -1


class PortAllocator:
    """Node ports. A port is held per protocol: the same number may serve TCP and UDP of one Service."""

    def __init__(self, low: int, high: int, choose: Choose) -> None:
        self.low, self.high = low, high
        self._choose = choose
        self._used: dict[int, str] = {}

    def allocate(self, port: int, owner: str) -> None:
        """Take a certain port.

        Raises:
            AllocationError: it is outside the range or taken.
        """
        if not self.low <= port <= self.high:
            raise AllocationError(
                f"provided port is not in the valid range. The range of valid ports is {self.low}-{self.high}"
            )
        if self._used.get(port, owner) != owner:
            raise AllocationError("provided port is already allocated")
        self._used[port] = owner

    def allocate_next(self, owner: str) -> int:
        """Take any free port.

        Raises:
            RangeFullError: there is none.
        """
        count = self.high - self.low + 1
        # The lowest ports are left for static use (KEP-3682).
        reserved = min(86, max(16, count // 32)) if count >= 16 else 0
        for first, length in ((self.low + reserved, count - reserved), (self.low, reserved)):
            if length <= 0:
                continue
            start = self._choose(length)
            for step in range(length):
                port = first + (start + step) % length
                if port not in self._used:
                    self._used[port] = owner
                    return port
        raise RangeFullError("range is full")

    def release(self, ports: Iterable[int]) -> None:
        """Give ports back."""
        for port in ports:
            self._used.pop(port, None)
