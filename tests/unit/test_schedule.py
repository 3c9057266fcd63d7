"""The schedule union: what parses, what does not, and that every refused text says what to write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from tests.unit.thorough import cases

from pgtend.api.schedule import Schedule, TimeZoneName, Week, Weekday
from pgtend.gate.reasons import GateReason
from pgtend.gate.recurrence import parse_cron, starts_per_year, to_cron, walls, warnings
from pgtend.gate.rules import parse_rule
from pgtend.gate.walltime import ScheduleError, load_zone, wall
from pgtend.gate.windows import check_schedule

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
DAILY: dict[str, Any] = {"daily": {"at": "02:00"}}
WEEKLY: dict[str, Any] = {"weekly": {"days": ["Sunday"], "at": "02:00"}}
LAST_SUNDAY: dict[str, Any] = {"monthly": {"week": "Last", "days": ["Sunday"], "at": "02:00"}}
SECOND_DAY: dict[str, Any] = {"monthly": {"dayOfMonth": 2, "at": "07:00"}}


def schedule(spec: dict[str, Any]) -> Schedule:
    return Schedule.model_validate(spec)


@pytest.mark.parametrize("spec", [DAILY, WEEKLY, LAST_SUNDAY, SECOND_DAY, {"cron": "*/10 * * * *"}])
def test_each_form_survives_the_wire(spec: dict[str, Any]) -> None:
    assert schedule(spec).to_wire() == spec


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "exactly one of"),
        ({**DAILY, **WEEKLY}, "exactly one of"),
        ({"daily": {}}, "Field required"),
        ({"daily": {"at": "2:00"}}, "quoted time"),
        ({"daily": {"at": 120}}, "valid string"),
        ({"weekly": {"days": [], "at": "02:00"}}, "at least 1"),
        ({"weekly": {"days": ["Sun"], "at": "02:00"}}, "Sunday"),
        ({"monthly": {"at": "02:00"}}, "either week and days, or dayOfMonth"),
        ({"monthly": {"week": "Last", "at": "02:00"}}, "either week and days, or dayOfMonth"),
        ({"monthly": {"dayOfMonth": 2, "days": ["Sunday"], "at": "02:00"}}, "either week and days, or dayOfMonth"),
        ({"monthly": {"dayOfMonth": 2, "week": "Last", "days": ["Sunday"], "at": "02:00"}}, "either week and days"),
        ({"monthly": {"dayOfMonth": 32, "at": "02:00"}}, "less than or equal to 31"),
        ({"monthly": {"week": "Fifth", "days": ["Sunday"], "at": "02:00"}}, "Last"),
        ({"hourly": {}}, "Extra inputs"),
    ],
)
def test_what_does_not_parse_says_why(spec: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        schedule(spec)


def test_weekdays_count_as_python_does() -> None:
    assert [day.number for day in Weekday] == list(range(7))
    assert Weekday.SUNDAY.number == NOW.weekday()
    assert [str(week) for week in Week] == ["First", "Second", "Third", "Fourth", "Last"]


def test_the_zones_grammar_admits_every_zone_and_no_path() -> None:
    adapter = TypeAdapter(TimeZoneName)
    for name in ("Etc/UTC", "UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "America/Port-au-Prince"):
        assert adapter.validate_python(name) == name
        assert load_zone(name).key == name
    for name in ("../etc/passwd", "/etc/localtime", "", "Europe/", "+01:00", "Europe/Ber lin"):
        with pytest.raises(ValidationError):
            adapter.validate_python(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("europe/berlin", "did you mean Europe/Berlin"),
        ("Europe/Berlni", "did you mean Europe/Berlin"),
        ("Mars/Phobos", "write an IANA name such as"),
        ("localtime", "is unknown"),
        ("right/UTC", "is unknown"),
    ],
)
def test_an_unknown_zone_is_refused_with_a_likely_one(name: str, says: str) -> None:
    with pytest.raises(ScheduleError, match=says) as caught:
        load_zone(name)
    assert caught.value.reason is GateReason.INVALID_SCHEDULE
    assert not caught.value.transient


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("61 * * * *", "bad minute"),
        ("0 24 * * *", "bad hour"),
        ("0 0 0 * *", "bad day-of-month"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 * 13 *", "bad month"),
        ("0 0 * * FUNDAY", "bad day-of-week"),
        ("0 2 * * FRI-MON", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("@daily", "five fields"),
        ("0 0 2 * * *", "five fields"),
        ("TZ=Europe/Berlin 0 2 * * *", "the zone belongs in timeZone"),
        ("0 2 25-31 * SUN", "match either one"),
        ("0 2 */2 * MON", "match either one"),
        ("0 2 ? * SUN", "match either one"),
        ("0 0 * 2 MON#5", "no start within five years"),
    ],
)
def test_a_wrong_cron_says_which_field_and_what_to_write(cron: str, says: str) -> None:
    with pytest.raises(ScheduleError, match=says):
        check_schedule(schedule({"cron": cron}), "Etc/UTC", now=NOW)


@given(st.text(alphabet="0123456789*/,-#LWSUNMO ?@", max_size=40))
def test_any_text_is_a_cron_or_is_refused_with_words(text: str) -> None:
    try:
        parsed = parse_cron(text, wall(2026))
    except ScheduleError as error:
        assert "write" in error.message
    else:
        assert next(parsed, wall(2027)) > wall(2026)


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("every sunday", "is not understood"),
        ("FREQ=WEEKLY;BYDAY=SU", "say the time of day"),
        ("FREQ=WEEKLY;BYHOUR=2;BYMINUTE=0", "say the day"),
        ("FREQ=YEARLY;BYDAY=SU;BYHOUR=2;BYMINUTE=0", "says its month"),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=SU;BYHOUR=2;BYMINUTE=0", "INTERVAL counts from a start"),
        ("FREQ=WEEKLY;BYDAY=-1SU;BYHOUR=2;BYMINUTE=0", "a number needs FREQ=MONTHLY"),
        ("FREQ=MONTHLY;BYDAY=6SU;BYHOUR=2;BYMINUTE=0", "a number needs FREQ=MONTHLY"),
        ("FREQ=MONTHLY;BYDAY=0SU;BYHOUR=2;BYMINUTE=0", "a number needs FREQ=MONTHLY"),
        ("FREQ=MONTHLY;BYDAY=XX;BYHOUR=2;BYMINUTE=0", "BYDAY takes MO"),
        ("FREQ=MONTHLY;BYMONTHDAY=0;BYHOUR=2;BYMINUTE=0", "count from 1"),
        ("FREQ=HOURLY;BYMINUTE=0", "write cron"),
        ("FREQ=DAILY;INTERVAL=0;BYHOUR=2;BYMINUTE=0", "numbers from 1 to 999"),
        ("FREQ=DAILY;COUNT=3;BYHOUR=2;BYMINUTE=0", "write UNTIL"),
        ("FREQ=DAILY;BYHOUR=25;BYMINUTE=0", "BYHOUR takes numbers"),
        ("FREQ=DAILY;BYSECOND=0;BYHOUR=2;BYMINUTE=0", "'BYSECOND=0' is not supported"),
        ("FREQ=DAILY;FREQ=WEEKLY", "given twice"),
        ("FREQ=DAILY;BYHOUR=2;BYMINUTE=0;BYSETPOS=1", "BYSETPOS is supported for FREQ=MONTHLY"),
        ("FREQ=DAILY;BYHOUR=2;BYMINUTE=0;WKST=XX", "WKST is one of"),
        ("FREQ=DAILY;BYHOUR=2;BYMINUTE=0;UNTIL=20271231", "wall time of timeZone without Z"),
        ("FREQ=DAILY;BYHOUR=2;BYMINUTE=0;UNTIL=20271231T000000Z", "wall time of timeZone without Z"),
        ("DTSTART;TZID=Europe/Berlin:20260104T020000\nRRULE:FREQ=DAILY", "the zone is timeZone"),
        ("DTSTART:20260104T020001\nRRULE:FREQ=DAILY", "whole minute"),
        ("DTSTART:20260104T020000", "exactly one rule"),
        ("RRULE:FREQ=DAILY\nEXDATE:20260104T020000", "are exclusions"),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30;BYHOUR=2;BYMINUTE=0", "no start within five years"),
        ("FREQ=DAILY;BYHOUR=2;BYMINUTE=0;UNTIL=20251231T235900", "no start within five years"),
    ],
)
def test_a_wrong_rule_says_what_to_write(rule: str, says: str) -> None:
    with pytest.raises(ScheduleError, match=says):
        check_schedule(schedule({"rrule": rule}), "Etc/UTC", now=NOW)


_numbered = st.builds(
    lambda n, d: f"{n}{d}", st.sampled_from([1, 2, 3, 4, 5, -1, -2, -5]), st.sampled_from(["MO", "SU"])
)
_plain = st.lists(st.sampled_from(["MO", "TU", "WE", "TH", "FR", "SA", "SU"]), min_size=1, max_size=4, unique=True)


@st.composite
def rules(draw: st.DrawFn) -> str:
    frequency = draw(st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]))
    parts = [f"FREQ={frequency}", f"INTERVAL={draw(st.integers(1, 5))}"]
    if months := draw(st.sets(st.integers(1, 12), max_size=3)):
        parts.append("BYMONTH=" + ",".join(map(str, sorted(months))))
    if draw(st.booleans()):
        days = draw(st.integers(-31, 31).filter(bool))
        parts.append(f"BYMONTHDAY={days}")
    if draw(st.booleans()):
        numbered = frequency in ("MONTHLY", "YEARLY") and draw(st.booleans())
        parts.append("BYDAY=" + (draw(_numbered) if numbered else ",".join(draw(_plain))))
    if hours := draw(st.sets(st.integers(0, 23), max_size=2)):
        parts.append("BYHOUR=" + ",".join(map(str, sorted(hours))))
    if frequency == "MONTHLY" and len(hours) < 2 and draw(st.booleans()):
        parts.append(f"BYSETPOS={draw(st.sampled_from([1, 2, -1]))}")
    if draw(st.booleans()):
        parts.append("WKST=" + draw(st.sampled_from(["MO", "SU"])))
    if draw(st.booleans()):
        parts.append("UNTIL=99930630T120000")
    return ";".join(parts)


def _to_the_end(rule: Iterable[datetime]) -> Iterator[datetime]:
    """Some weekly rules end with an error where the year 9999 does."""
    try:
        yield from rule
    except ValueError as error:
        assert "year 10000" in str(error)


# dateutil searches a rule that never matches up to the year 9999; near that year it gives up in time.
@cases(300)
@given(rules(), st.datetimes(min_value=wall(9990), max_value=wall(9992)))
def test_rules_agree_with_dateutil(rule: str, start: datetime) -> None:
    start = start.replace(second=0, microsecond=0)
    after, limit = wall(9992, 3, 1), wall(9997, 3, 1)
    mine = list(parse_rule(f"DTSTART:{start:%Y%m%dT%H%M%S} RRULE:{rule}").walls(after, limit))
    theirs = takewhile(lambda found: found <= limit, _to_the_end(rrulestr(rule, dtstart=start)))
    assert mine == [found for found in theirs if found > after]


@pytest.mark.parametrize(("week_start", "days"), [("MO", [5, 10, 19, 24]), ("SU", [5, 17, 19, 31])])
def test_where_a_week_begins_matters_to_every_other_week(week_start: str, days: list[int]) -> None:
    # The example of RFC 5545, section 3.3.10, moved to 2025, when August has the same weekdays.
    rule = parse_rule(f"DTSTART:20250805T090000 RRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=TU,SU;WKST={week_start}")
    assert [found.day for found in rule.walls(wall(2025, 8, 1), wall(2025, 9, 1))] == days


def test_a_rule_begins_with_its_start_not_with_the_day_of_its_start() -> None:
    rule = parse_rule("DTSTART:20260104T020000 RRULE:FREQ=DAILY;BYHOUR=1,3")
    assert next(rule.walls(wall(2026), wall(2027))) == wall(2026, 1, 4, 3)


@pytest.mark.parametrize(
    ("spec", "cron"),
    [
        (DAILY, "0 2 * * *"),
        (WEEKLY, "0 2 * * 0"),
        ({"weekly": {"days": ["Saturday", "Monday", "Sunday"], "at": "23:59"}}, "59 23 * * 0,1,6"),
        ({"weekly": {"days": [str(day) for day in Weekday], "at": "23:59"}}, "59 23 * * *"),
        (SECOND_DAY, "0 7 2 * *"),
        ({"cron": "0 2 * * 7"}, "0 2 * * 0"),
        ({"cron": "*/10 * * * *"}, "*/10 * * * *"),
        ({"cron": "0 2 * jan-mar fri,sat-7"}, "0 2 * jan-mar 0,5,6"),
        ({"cron": "0 2 * * 1/2"}, "0 2 * * 0,1,3,5"),
        ({"cron": "0 2 1,15 * *"}, "0 2 1,15 * *"),
    ],
)
def test_as_cron_for_kubernetes(spec: dict[str, Any], cron: str) -> None:
    assert to_cron(schedule(spec)) == cron


@pytest.mark.parametrize(
    "spec",
    [
        LAST_SUNDAY,
        {"rrule": "FREQ=DAILY;BYHOUR=2;BYMINUTE=0"},
        {"cron": "0 2 L * *"},
        {"cron": "0 2 LW * *"},
        {"cron": "0 2 * * 0L"},
        {"cron": "0 2 * * SUN#2"},
    ],
)
def test_what_no_cronjob_can_do_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ScheduleError, match="cannot be carried out by a CronJob: write"):
        to_cron(schedule(spec))


@st.composite
def crons(draw: st.DrawFn) -> str:
    def numbers(low: int, high: int) -> str:
        return draw(
            st.one_of(
                st.just("*"),
                st.integers(low, high).map(str),
                st.integers(2, 7).map("*/{}".format),
                st.tuples(st.integers(low, high), st.integers(low, high)).map(lambda t: f"{min(t)}-{max(t)}"),
                st.lists(st.integers(low, high), min_size=2, max_size=3).map(lambda n: ",".join(map(str, n))),
            )
        )

    by_weekday = draw(st.booleans())
    month = draw(st.sampled_from(["*", "1-6", "JAN,jul", "2"]))
    days = "*" if by_weekday else draw(st.sampled_from(["*", "1", "28", "1,15", "10-20", "*/5"]))
    return f"{numbers(0, 59)} {numbers(0, 23)} {days} {month} {numbers(0, 7) if by_weekday else '*'}"


@cases(100)
@given(crons())
def test_the_converted_cron_means_the_same(cron: str) -> None:
    converted = to_cron(schedule({"cron": cron}))
    assert "7" not in converted.split()[4].replace("*/7", "")
    begin = wall(2026)
    same = zip(
        islice(walls(schedule({"cron": cron}), begin), 200),
        islice(walls(schedule({"cron": converted}), begin), 200),
        strict=True,
    )
    assert all(a == b for a, b in same)


def test_how_often_in_a_year() -> None:
    assert starts_per_year(schedule(DAILY)) == 365.25
    assert starts_per_year(schedule(WEEKLY)) == pytest.approx(52.2, abs=0.3)
    assert starts_per_year(schedule(LAST_SUNDAY)) == 12
    assert starts_per_year(schedule({"monthly": {"dayOfMonth": 31, "at": "02:00"}})) == 7
    assert starts_per_year(schedule({"cron": "*/10 * * * *"})) == 365.25 * 144
    assert starts_per_year(schedule({"cron": "0 0 29 2 *"})) == 0.25
    assert starts_per_year(
        schedule({"rrule": "DTSTART:20300106T020000 RRULE:FREQ=WEEKLY;INTERVAL=2"})
    ) == pytest.approx(26, abs=0.3)


@pytest.mark.parametrize(("day", "lacking"), [(29, "most years"), (30, "February"), (31, "five months")])
def test_a_day_that_not_every_month_has_is_warned_of(day: int, lacking: str) -> None:
    (text,) = warnings(schedule({"monthly": {"dayOfMonth": day, "at": "02:00"}}))
    assert lacking in text
    assert warnings(schedule({"monthly": {"dayOfMonth": 28, "at": "02:00"}})) == warnings(schedule(DAILY)) == ()
