"""What our own programs announce to each other in metadata; upstream's ignore it, and announce nothing."""

from __future__ import annotations

from bowsprit.net.egress.packets import PROBE_HEADER, WINDOW_HEADER
from bowsprit.net.grpc import metadata as md
from bowsprit.net.grpc.limits import MIB
from bowsprit.net.grpc.metadata import Metadata

_MAX_WINDOW = 64 * MIB
_MAX_DIGITS = 10


def peer_window(headers: Metadata) -> int | None:
    """The credit per connection that the peer starts us with, in bytes; None for upstream's."""
    return min(_number(headers, WINDOW_HEADER), _MAX_WINDOW) or None


def probe_interval(headers: Metadata) -> float:
    """How often an agent of ours pings, in seconds; one by default."""
    return max(0.1, (_number(headers, PROBE_HEADER) or 1000) / 1000)


def _number(headers: Metadata, key: str) -> int:
    """The one decimal number of a key; 0 for anything else."""
    found = md.values(headers, key)
    if len(found) != 1 or len(found[0]) > _MAX_DIGITS or not found[0].isascii() or not found[0].isdecimal():
        return 0
    return int(found[0])
