"""Noticing that this machine's network has changed or that it was asleep, so that a dead connection is found at once."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

# linux/rtnetlink.h: RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_TICK = 1.0
_NAP = 2.0


class NetworkWatch:
    """Tells when links, addresses or routes changed (rtnetlink), or the machine slept: the boot clock ran on, the
    monotonic clock did not. Without rtnetlink (no Linux, or forbidden) sleep alone is noticed."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._socket: socket.socket | None = None
        self._asleep = _asleep()

    def start(self) -> None:
        """Begin to watch."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            self._socket.bind((0, _GROUPS))
        except (OSError, AttributeError):
            self.stop()
            return
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def stop(self) -> None:
        """End watching."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    async def wait(self, seconds: float) -> bool:
        """Wait for a change; False when there was none in that time."""
        deadline = time.monotonic() + seconds
        while not self._changed.is_set():
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_TICK, remaining)):
                    await self._changed.wait()
            if _asleep() - self._asleep > _NAP:
                self._asleep = _asleep()
                break
        self._changed.clear()
        return True

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # ENOBUFS, too, means that something has changed
            assert self._socket is not None
            while self._socket.recv(65536):
                pass
        self._changed.set()


def _asleep() -> float:
    """Seconds that this machine has slept since it started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
