"""Cron expressions: five fields or a macro, as robfig/cron's standard parser reads them. No clock.

    minute hour day-of-month month day-of-week      each: * | a | a-b | a-b/n | */n | names | lists of these
    @hourly @daily @midnight @weekly @monthly @yearly @annually @every <duration>

When both day fields are restricted, a day matches if either does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bowsprit.machinery.time import parse_duration

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
_HORIZON = timedelta(days=5 * 366)


class ScheduleError(ValueError):
    """An expression that cannot be read."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something is due, in a time zone."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool
    zone: tzinfo
    every: timedelta | None = None

    @classmethod
    def parse(cls, text: str, zone_name: str | None = None) -> Schedule:
        """Read an expression. Raises ScheduleError."""
        zone = _zone(zone_name)
        text = text.strip()
        if text.startswith("@every "):
            try:
                every = timedelta(microseconds=parse_duration(text[7:].strip()) // 1000)
            except ValueError as exc:
                raise ScheduleError(f"failed to parse duration {text}: {exc}") from exc
            none: frozenset[int] = frozenset()
            return cls(none, none, none, none, none, True, True, zone, max(every, timedelta(seconds=1)))
        if text.startswith("@") and text not in _MACROS:
            raise ScheduleError(f"unrecognized descriptor: {text}")
        fields = _MACROS.get(text, text).split()
        if len(fields) != 5:
            raise ScheduleError(f"expected exactly 5 fields, found {len(fields)}: [{text}]")
        return cls(
            _field(fields[0], 0, 59, {}),
            _field(fields[1], 0, 23, {}),
            _field(fields[2], 1, 31, {}),
            _field(fields[3], 1, 12, _MONTHS),
            frozenset(day % 7 for day in _field(fields[4], 0, 7, _DAYS)),
            fields[2].startswith(("*", "?")),
            fields[4].startswith(("*", "?")),
            zone,
        )

    def next(self, after: datetime) -> datetime | None:
        """The first time after ``after``, in UTC; None if there is none within five years."""
        if self.every is not None:
            return (after + self.every).replace(microsecond=0)
        moment = after.astimezone(self.zone).replace(second=0, microsecond=0, fold=0) + timedelta(minutes=1)
        limit = moment + _HORIZON
        while moment < limit:
            if moment.month not in self.months:
                first = moment.replace(day=1, hour=0, minute=0)
                moment = (first + timedelta(days=32)).replace(day=1)
            elif not self._day_matches(moment):
                moment = moment.replace(hour=0, minute=0) + timedelta(days=1)
            elif moment.hour not in self.hours:
                moment = moment.replace(minute=0) + timedelta(hours=1)
            elif moment.minute not in self.minutes:
                moment += timedelta(minutes=1)
            else:
                due = moment.astimezone(UTC)
                if due.astimezone(self.zone).hour == moment.hour and due > after:
                    return due
                moment += timedelta(minutes=1)  # a time that the clocks skip
        return None

    def _day_matches(self, moment: datetime) -> bool:
        day, weekday = moment.day in self.days, moment.isoweekday() % 7 in self.weekdays
        return day and weekday if self.any_day or self.any_weekday else day or weekday


def _zone(name: str | None) -> tzinfo:
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ScheduleError(f"unknown time zone {name}") from exc


def _field(text: str, low: int, high: int, names: dict[str, int]) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, {}) if slash else 1
        if step <= 0:
            raise ScheduleError(f"step of range should be a positive number: {part}")
        if span in ("*", "?"):
            first, last = low, high
        else:
            start, dash, end = span.partition("-")
            first = _number(start, names)
            last = _number(end, names) if dash else (high if slash else first)
        if first < low or last > high or first > last:
            raise ScheduleError(f"{part} is out of the range {low}-{high}")
        values |= set(range(first, last + 1, step))
    return frozenset(values)


def _number(text: str, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not text.isdigit():
        raise ScheduleError(f"failed to parse number: {text!r}")
    return int(text)
