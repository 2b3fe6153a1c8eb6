"""Times and durations."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bowsprit.machinery import time
from bowsprit.machinery.codec import DecodeError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"),
        ("2024-01-01T01:30:00.999+01:30", "2024-01-01T00:00:00Z"),
        ("2024-01-01T00:00:00-05:00", "2024-01-01T05:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
    ],
)
def test_times(text: str, expected: str) -> None:
    assert time.format_time(time.parse_time(text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006"'),
        ("yesterday", 'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"'),
        ("2024-13-01T00:00:00Z", 'parsing time "2024-13-01T00:00:00Z": month out of range'),
        ("2024-02-30T00:00:00Z", 'parsing time "2024-02-30T00:00:00Z": day out of range'),
        ("2024-01-01", 'parsing time "2024-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T"'),
        (
            "2024-01-01T00:00:00",
            'parsing time "2024-01-01T00:00:00" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00"',
        ),
        ("2024-01-01T00:00:00Zx", 'parsing time "2024-01-01T00:00:00Zx": extra text: "x"'),
    ],
)
def test_times_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        time.parse_time(text)
    assert str(caught.value) == message


def test_micro_times_want_six_digits() -> None:
    assert (
        time.format_micro_time(time.parse_micro_time("2024-01-01T00:00:10.000120+01:00"))
        == "2023-12-31T23:00:10.000120Z"
    )
    with pytest.raises(DecodeError) as caught:
        time.parse_micro_time("2024-01-01T00:00:10Z")
    assert str(caught.value) == (
        'parsing time "2024-01-01T00:00:10Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000"'
    )


@given(st.datetimes(min_value=datetime(1, 1, 2), timezones=st.just(UTC)))
def test_times_round_trip(moment: datetime) -> None:
    assert time.parse_micro_time(time.format_micro_time(moment)) == moment
    assert time.parse_time(time.format_time(moment)) == moment.replace(microsecond=0)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("1m30s", 90 * 10**9),
        ("1h0m0s", 3600 * 10**9),
        ("1.5s", 15 * 10**8),
        ("20ms", 2 * 10**7),
        ("-2us", -2000),
        ("1.000000001s", 10**9 + 1),
    ],
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert time.parse_duration(text) == nanoseconds
    assert time.parse_duration(time.format_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("1", 'time: missing unit in duration "1"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("x", 'time: invalid duration "x"'),
    ],
)
def test_durations_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        time.parse_duration(text)
    assert str(caught.value) == message


@given(st.integers(-(2**63), 2**63 - 1))
def test_durations_round_trip(nanoseconds: int) -> None:
    assert time.parse_duration(time.format_duration(nanoseconds)) == nanoseconds
