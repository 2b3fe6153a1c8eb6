"""Agent identifiers (proto/header/header.go): a URL query of the addresses and roles an agent stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_plus

KINDS = ("ipv4", "ipv6", "host", "cidr", "default-route")
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # strconv.ParseBool; anything else is false here


class IdentifierError(ValueError):
    """The text is no usable set of identifiers; the message is upstream's."""


@dataclass(frozen=True, slots=True)
class Identifiers:
    """What an agent says of itself."""

    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    cidr: tuple[str, ...] = ()
    default_route: bool = False

    @property
    def destinations(self) -> tuple[str, ...]:
        """The hosts that the strategy ``destHost`` matches."""
        return (*self.ipv4, *self.ipv6, *self.host)


def parse_query(text: str) -> dict[str, list[str]]:
    """Go's url.ParseQuery: pairs up to the first error. Raises IdentifierError with its text."""
    result: dict[str, list[str]] = {}
    for pair in text.split("&"):
        if ";" in pair:
            raise IdentifierError("invalid semicolon separator in query")
        if not pair:
            continue
        key, _, value = pair.partition("=")
        for part in (key, value):
            bad = re.search(r"%(?![0-9A-Fa-f]{2})", part)
            if bad:
                raise IdentifierError(f'invalid URL escape "{part[bad.start() : bad.start() + 3]}"')
        result.setdefault(unquote_plus(key), []).append(unquote_plus(value))
    return result


def parse(text: str) -> Identifiers:
    """Identifiers as the server reads them: unknown keys are ignored. Raises IdentifierError."""
    try:
        query = parse_query(text)
    except IdentifierError as exc:
        raise IdentifierError(f"fail to parse url encoded string: {exc}") from None
    route = query.get("default-route", [])
    return Identifiers(
        tuple(query.get("ipv4", ())),
        tuple(query.get("ipv6", ())),
        tuple(query.get("host", ())),
        tuple(query.get("cidr", ())),
        bool(route) and route[0] in _TRUE,
    )


def validate(text: str) -> None:
    """What the agent demands of its own flag: known keys only. Raises IdentifierError."""
    for key in parse_query(text):
        if key not in KINDS:
            raise IdentifierError(f"unknown address type: {key}")
