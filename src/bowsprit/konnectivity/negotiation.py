"""What agents and servers tell each other in metadata; the window and the probes are ours, upstream's ignore them."""

from __future__ import annotations

import re

from bowsprit.konnectivity import identifiers
from bowsprit.machinery.goformat import quote
from bowsprit.net.egress.packets import PROBE_HEADER, WINDOW_HEADER
from bowsprit.net.grpc import metadata as md
from bowsprit.net.grpc.limits import MIB
from bowsprit.net.grpc.metadata import Metadata

_MAX_WINDOW = 64 * MIB
_MAX_DIGITS = 10
_COUNT_DIGITS = 18


def identity(headers: Metadata) -> tuple[str, identifiers.Identifiers]:
    """An agent's ID, and what it stands for. Raises ValueError with upstream's text."""
    ids = md.values(headers, "agentid")
    if len(ids) != 1:
        raise ValueError(f"expected one agent ID in the context, got [{' '.join(ids)}]")
    found = md.values(headers, "agentidentifiers")
    if len(found) > 1:
        raise ValueError(f"expected at most one set of agent identifiers in the context, got [{' '.join(found)}]")
    return ids[0], identifiers.parse(found[0]) if found else identifiers.Identifiers()


def introduction(headers: Metadata) -> tuple[str, int]:
    """A server's ID, and how many servers it counts. Raises ValueError with upstream's text."""
    ids, counts = md.values(headers, "serverid"), md.values(headers, "servercount")
    if len(ids) != 1:
        raise ValueError(f"expected one server ID in the context, got [{' '.join(ids)}]")
    if len(counts) != 1:
        raise ValueError(f"expected one server count, got {len(counts)}")
    text = counts[0].strip()
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        raise ValueError(f"strconv.Atoi: parsing {quote(text)}: invalid syntax")
    if len(text) > _COUNT_DIGITS:
        raise ValueError(f"strconv.Atoi: parsing {quote(text)}: value out of range")
    return ids[0], int(text)


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
