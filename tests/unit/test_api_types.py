"""Values as users spell them: everything that the grammar takes has a value, and nothing else is taken."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pgtend.api.types import (
    Duration,
    HostName,
    ItemName,
    ObjectName,
    Percentage,
    Quantity,
    SecretKey,
    TimeOfDay,
    Timestamp,
    format_bytes,
    format_duration,
)

TEXT_TYPES = (Duration, Quantity, Percentage, TimeOfDay, Timestamp)
MILLISECONDS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
FACTORS = {
    "": 1,
    "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", timedelta(0)),
        ("45s", timedelta(seconds=45)),
        ("250ms", timedelta(milliseconds=250)),
        ("1h30m", timedelta(minutes=90)),
        ("5m5ms", timedelta(minutes=5, milliseconds=5)),
        ("30d", timedelta(days=30)),
        ("36500d", timedelta(days=36500)),
    ],
)
def test_duration(text: str, expected: timedelta) -> None:
    assert Duration(text).timedelta == expected
    assert Duration(text).seconds == expected.total_seconds()


@pytest.mark.parametrize(
    "text", ["", "5", "s", "1.5h", "-1s", "1 h", "1w", "1h\n", "5M", "36501d", "999999999d", "1s" * 6]
)
def test_duration_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration: write numbers with the units"):
        Duration(text)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(list(MILLISECONDS))), min_size=1, max_size=3))
def test_duration_is_the_sum_of_its_parts(parts: list[tuple[int, str]]) -> None:
    total = sum(count * MILLISECONDS[unit] for count, unit in parts)
    text = "".join(f"{count}{unit}" for count, unit in parts)
    if total > 36_500 * MILLISECONDS["d"]:
        with pytest.raises(ValueError, match="at most 36500d"):
            Duration(text)
    else:
        assert Duration(text).timedelta == timedelta(milliseconds=total)


@given(st.from_regex(re.compile(Duration.pattern), fullmatch=True))
def test_a_moment_less_any_duration_is_a_moment(text: str) -> None:
    try:
        duration = Duration(text)
    except ValueError:
        return
    assert datetime(2026, 11, 22, tzinfo=UTC) - duration.timedelta <= datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0s"), (0, "0s"), (0.4, "<1s"), (1, "1s"), (94, "94s"), (119.9, "119s"), (120, "2m"), (150, "2m30s"),
        (3600, "1h"), (3601, "1h"), (5400, "1h30m"), (86_400, "1d"), (90_061, "1d1h"), (86_400 * 31, "31d"),
    ],
)  # fmt: skip
def test_format_duration(seconds: float, expected: str) -> None:
    assert format_duration(seconds) == expected
    assert format_duration(timedelta(seconds=seconds)) == expected


@given(st.integers(1, 10**9))
def test_a_formatted_duration_loses_less_than_its_smaller_unit(seconds: int) -> None:
    shown = Duration(format_duration(seconds))
    assert shown.seconds <= seconds
    assert seconds - shown.seconds < max(1, seconds / 2)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("8Gi", 8 * 2**30), ("500M", 500_000_000), ("1.001k", 1001), ("0.5", 1), ("0.5Ki", 512), ("100", 100)],
)
def test_quantity(text: str, expected: int) -> None:
    assert Quantity(text).bytes == expected


@pytest.mark.parametrize("text", ["", "Gi", "-1", "1e3", "8GB", "8 Gi", "1.Gi", ".5Gi", "1K", "1.0001k"])
def test_quantity_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity: write a Kubernetes quantity"):
        Quantity(text)


@given(st.integers(0, 10**15 - 1), st.integers(0, 999), st.sampled_from(list(FACTORS)))
def test_quantity_is_exact_and_rounded_up(whole: int, thousandths: int, unit: str) -> None:
    exact = (whole + Fraction(thousandths, 1000)) * FACTORS[unit]
    got = Quantity(f"{whole}.{thousandths:03d}{unit}").bytes
    assert got - 1 < exact <= got


@given(st.integers(0, 2**60))
def test_format_bytes_never_claims_more_and_loses_less_than_half(value: int) -> None:
    shown = Quantity(format_bytes(value)).bytes
    assert shown <= value
    assert value - shown <= value / 2


def test_format_bytes() -> None:
    assert [format_bytes(n) for n in (0, 1023, 1024, 212 * 2**20, 2**50)] == ["0", "1023", "1Ki", "212Mi", "1Pi"]


def test_percentage() -> None:
    assert Percentage("80%").fraction == 0.8
    assert Percentage("300%").fraction == 3
    for text in ("80", "%", "8.5%", "-1%", "12345%"):
        with pytest.raises(ValueError, match="is no percentage"):
            Percentage(text)


@given(st.integers(0, 30), st.integers(0, 70))
def test_time_of_day(hour: int, minute: int) -> None:
    text = f"{hour:02d}:{minute:02d}"
    if hour < 24 and minute < 60:
        assert TimeOfDay(text).hour_minute == (hour, minute)
    else:
        with pytest.raises(ValueError, match="quoted time"):
            TimeOfDay(text)


@pytest.mark.parametrize(
    "text", ["2026-11-22T15:00:00Z", "2026-11-22T15:00:00.123456789+05:30", "2028-02-29T00:00:00Z"]
)
def test_timestamp(text: str) -> None:
    assert Timestamp(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22", "2026-11-22T15:00:00", "2026-11-22 15:00:00Z", "2026-02-30T00:00:00Z", "2026-13-01T00:00:00Z",
        "2026-11-22T24:00:01Z", "2026-11-22T15:00:60Z", "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00",
        "2026-11-22T15:00:00+99:00",
    ],
)  # fmt: skip
def test_timestamp_refused(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        Timestamp(text)


@given(st.from_regex(re.compile(Timestamp.pattern, re.ASCII), fullmatch=True))
def test_every_timestamp_taken_is_a_moment(text: str) -> None:
    try:
        taken = Timestamp(text)
    except ValueError:
        return
    assert datetime.fromisoformat(taken).astimezone(UTC).tzinfo is UTC


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_the_pattern_stands_as_a_whole_in_a_schema(kind: type[Duration]) -> None:
    """`^a|b$` would take what begins with a: an alternative at the top must be in parentheses."""
    depth, top_level = 0, []
    for char in kind.pattern:
        depth += (char == "(") - (char == ")")
        if char == "|" and depth == 0:
            top_level.append(char)
    assert not top_level


@pytest.mark.parametrize("kind", TEXT_TYPES)
def test_only_strings_are_taken(kind: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    values: list[Any] = [5, 5.0, True, None, [], b"5s"]
    for value in values:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (ItemName, ["a", "a-1", "0", "x" * 63], ["", "-a", "a-", "A", "a.b", "a_b", "x" * 64, "a\n"]),
        (ObjectName, ["a", "a.b-c", "x" * 253], ["", ".a", "a.", "A", "a/b", "x" * 254]),
        (SecretKey, ["tls.crt", "A_b-9"], ["", "a/b", "a b", "x" * 254]),
        (
            HostName,
            ["db", "10.0.0.1", "fd00::1", "a_b.Example.com"],
            ["", "-a", "a/b", "a b", "a@b", "/tmp/sock", "a,b"],
        ),
    ],
)
def test_names(kind: Any, good: list[str], bad: list[str]) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for text in good:
        assert adapter.validate_python(text) == text
    for text in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(text)
