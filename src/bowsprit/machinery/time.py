"""metav1.Time, MicroTime and Duration: texts to values and back. No clock is read here.

Upstream: k8s.io/apimachinery/pkg/apis/meta/v1 (Time has whole seconds, MicroTime exactly six digits), Go's time package
for the error texts.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.goformat import quote

RFC3339 = "2006-01-02T15:04:05Z07:00"
RFC3339_MICRO = "2006-01-02T15:04:05.000000Z07:00"

_FAST = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
# (layout element, pattern, name of the part in "out of range", smallest, largest)
_PARTS: tuple[tuple[str, str, str, int, int], ...] = (
    ("2006", r"\d{4}", "year", 0, 9999),
    ("-", "-", "", 0, 0),
    ("01", r"\d{2}", "month", 1, 12),
    ("-", "-", "", 0, 0),
    ("02", r"\d{2}", "day", 1, 31),
    ("T", "T", "", 0, 0),
    ("15", r"\d{1,2}", "hour", 0, 23),
    (":", ":", "", 0, 0),
    ("04", r"\d{2}", "minute", 0, 59),
    (":", ":", "", 0, 0),
    ("05", r"\d{2}", "second", 0, 59),
)
_COMPILED = tuple(
    (element, re.compile(pattern, re.ASCII), part, low, high) for element, pattern, part, low, high in _PARTS
)
_FRACTION = re.compile(r"[.,](\d+)", re.ASCII)
_ZONE = re.compile(r"Z|([+-])(\d{2}):(\d{2})", re.ASCII)


def format_time(moment: datetime | float) -> str:
    """`2024-01-01T00:00:00Z`; a number is seconds since 1970. Parts of a second are cut off."""
    return _utc(moment).strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)


def format_micro_time(moment: datetime | float) -> str:
    """`2024-01-01T00:00:00.000000Z`."""
    return _utc(moment).strftime("%Y-%m-%dT%H:%M:%S.%fZ").zfill(27)


def _utc(moment: datetime | float) -> datetime:
    if isinstance(moment, datetime):
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    return datetime.fromtimestamp(moment, UTC)


def parse_time(text: str) -> datetime:
    """Read a Time: RFC 3339 with any offset, with or without a fraction. UTC. Raises DecodeError with Go's text."""
    if _FAST.fullmatch(text):
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    return _parse(text, RFC3339, fraction_digits=None)


def parse_micro_time(text: str) -> datetime:
    """Read a MicroTime: exactly six digits after the point. UTC. Raises DecodeError with Go's text."""
    return _parse(text, RFC3339_MICRO, fraction_digits=6)


def _parse(text: str, layout: str, fraction_digits: int | None) -> datetime:
    def fail(rest: str, element: str) -> DecodeError:
        return DecodeError(
            f"parsing time {quote(text)} as {quote(layout)}: cannot parse {quote(rest)} as {quote(element)}"
        )

    numbers: list[int] = []
    at = 0
    for element, pattern, part, low, high in _COMPILED:
        match = pattern.match(text, at)
        if match is None:
            raise fail(text[at:], element)
        if part:
            number = int(match.group())
            if not low <= number <= high:
                raise DecodeError(f"parsing time {quote(text)}: {part} out of range")
            numbers.append(number)
        at = match.end()
    fraction = _FRACTION.match(text, at)
    micros = 0
    if fraction_digits is not None:
        if fraction is None or len(fraction.group(1)) < fraction_digits or text[at] != ".":
            raise fail(text[at:], "." + "0" * fraction_digits)
        micros = int(fraction.group(1)[:6])
        at += 1 + fraction_digits
    elif fraction is not None:
        micros = int(fraction.group(1)[:6].ljust(6, "0"))
        at = fraction.end()
    zone = _ZONE.match(text, at)
    if zone is None:
        raise fail(text[at:], "Z07:00")
    if zone.end() != len(text):
        raise DecodeError(f"parsing time {quote(text)}: extra text: {quote(text[zone.end() :])}")
    return _moment(text, numbers, micros, zone)


def _moment(text: str, numbers: list[int], micros: int, zone: re.Match[str]) -> datetime:
    offset = timedelta()
    if zone.group(1):
        hours, minutes = int(zone.group(2)), int(zone.group(3))
        if hours > 24 or minutes > 59:
            part = "hour" if hours > 24 else "minute"
            raise DecodeError(f"parsing time {quote(text)}: time zone offset {part} out of range")
        offset = timedelta(hours=hours, minutes=minutes) * (-1 if zone.group(1) == "-" else 1)
    year, month, day, hour, minute, second = numbers
    try:
        return datetime(year, month, day, hour, minute, second, micros, UTC) - offset
    except ValueError:
        raise DecodeError(f"parsing time {quote(text)}: day out of range") from None
    except OverflowError:
        raise DecodeError(f"parsing time {quote(text)}: year out of range") from None


_NANOSECONDS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ms": 1000_000,
    "s": 1000_000_000,
    "m": 60_000_000_000,
    "h": 3600_000_000_000,
}
_DURATION_PART = re.compile(r"(\d*)(?:\.(\d*))?([^\d.]*)", re.ASCII)


def parse_duration(text: str) -> int:
    """Nanoseconds of a Go duration: `1h30m`, `1.5s`, `-2ms`. Raises DecodeError with Go's text."""
    rest = text[1:] if text[:1] in {"+", "-"} else text
    if rest == "0":
        return 0
    if not rest:
        raise DecodeError(f"time: invalid duration {quote(text)}")
    total = 0
    while rest:
        match = _DURATION_PART.match(rest)
        if match is None or not (match.group(1) or match.group(2)):
            raise DecodeError(f"time: invalid duration {quote(text)}")
        whole, fraction, unit = match.group(1), match.group(2) or "", match.group(3)
        if not unit:
            raise DecodeError(f"time: missing unit in duration {quote(text)}")
        if unit not in _NANOSECONDS:
            raise DecodeError(f"time: unknown unit {quote(unit)} in duration {quote(text)}")
        scale = _NANOSECONDS[unit]
        total += int(whole or 0) * scale
        if fraction:
            total += int(fraction) * scale // 10 ** len(fraction)
        rest = rest[match.end() :]
    if total >= 2**63 + (text[0] == "-"):
        raise DecodeError(f"time: invalid duration {quote(text)}")
    return -total if text[0] == "-" else total


def format_duration(nanoseconds: int) -> str:
    """Go's Duration.String: `1h0m0s`, `1.5s`, `20ms`, `0s`."""
    sign = "-" if nanoseconds < 0 else ""
    left = abs(nanoseconds)
    if left < 1_000_000_000:
        if left == 0:
            return "0s"
        for unit, scale in (("ms", 1_000_000), ("µs", 1000), ("ns", 1)):
            if left >= scale:
                return sign + _decimal(left, scale) + unit
    minutes, rest = divmod(left, 60_000_000_000)
    seconds = _decimal(rest, 1_000_000_000) + "s"
    if not minutes:
        return sign + seconds
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}h{minutes}m{seconds}" if hours else f"{sign}{minutes}m{seconds}"


def _decimal(number: int, scale: int) -> str:
    whole, fraction = divmod(number, scale)
    if not fraction:
        return str(whole)
    return f"{whole}." + str(fraction).rjust(len(str(scale)) - 1, "0").rstrip("0")
