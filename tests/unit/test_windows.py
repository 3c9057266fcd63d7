"""When windows are open: the production schedules, changes of the clock, exclusions, and the properties of all."""

from __future__ import annotations

import calendar as months
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.unit.thorough import cases

from pgtend.api.schedule import Schedule, Weekday
from pgtend.core.findings import ObjectKey
from pgtend.gate.busy import dump_plan
from pgtend.gate.recurrence import to_cron
from pgtend.gate.walltime import ScheduleError, load_zone, moment_of, moments_of, wall, wall_of
from pgtend.gate.windows import (
    Calendar,
    Closing,
    Exclusion,
    Window,
    calendar,
    cronjob_starts,
    occurrences,
    rarer_first,
)

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Kolkata", "Etc/UTC")
UTC_ZONE = load_zone("Etc/UTC")
HOUR = timedelta(hours=1)


def schedule(**spec: Any) -> Schedule:
    return Schedule.model_validate(spec)


DAILY = schedule(daily={"at": "02:00"})
WEEKLY = schedule(weekly={"days": ["Sunday"], "at": "02:00"})
LAST_SUNDAY = schedule(monthly={"week": "Last", "days": ["Sunday"], "at": "02:00"})


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def starts(of: Schedule, after: str, limit: int = 3, zone: str = "Etc/UTC") -> list[str]:
    found = occurrences(of, zone=load_zone(zone), after=utc(after), limit=limit)
    return [f"{moment:%Y-%m-%dT%H:%M}" for moment in found]


def span(start: str, end: str) -> Window:
    return Window(utc(start), utc(end))


def production(of: Schedule, hours: int, **more: Any) -> Calendar:
    return calendar(schedule=of, time_zone="Etc/UTC", duration=hours * HOUR, now=utc("2026-11-22T00:00"), **more)


class TestProduction:
    """The runbook's own times."""

    def test_daily_dump(self) -> None:
        assert starts(DAILY, "2026-11-22T01:59") == ["2026-11-22T02:00", "2026-11-23T02:00", "2026-11-24T02:00"]
        assert starts(DAILY, "2026-11-22T02:00", 1) == ["2026-11-23T02:00"]

    def test_weekly_window(self) -> None:
        weekly = production(WEEKLY, 2)
        assert weekly.window_at(utc("2026-11-22T01:59:59")) is None
        assert weekly.window_at(utc("2026-11-22T02:00")) == span("2026-11-22T02:00", "2026-11-22T04:00")
        assert weekly.window_at(utc("2026-11-22T03:59:59")) == span("2026-11-22T02:00", "2026-11-22T04:00")
        assert weekly.window_at(utc("2026-11-22T04:00")) is None
        assert weekly.next_windows(utc("2026-11-22T02:00"), 3) == (
            span("2026-11-29T02:00", "2026-11-29T04:00"),
            span("2026-12-06T02:00", "2026-12-06T04:00"),
            span("2026-12-13T02:00", "2026-12-13T04:00"),
        )

    def test_monthly_window(self) -> None:
        monthly = production(LAST_SUNDAY, 4)
        assert monthly.next_windows(utc("2026-11-22T02:00"), 3) == (
            span("2026-11-29T02:00", "2026-11-29T06:00"),
            span("2026-12-27T02:00", "2026-12-27T06:00"),
            span("2027-01-31T02:00", "2027-01-31T06:00"),
        )

    def test_both_open_on_the_last_sunday_and_the_rarer_goes_first(self) -> None:
        weekly, monthly = production(WEEKLY, 2), production(LAST_SUNDAY, 4)
        both = utc("2026-11-29T03:00")
        assert weekly.window_at(both) is not None
        assert monthly.window_at(both) is not None
        assert [name for name, _ in rarer_first([("a-weekly", weekly), ("monthly", monthly)])] == [
            "monthly",
            "a-weekly",
        ]

    def test_same_frequency_is_ordered_by_name(self) -> None:
        other = production(schedule(cron="0 3 * * SUN"), 1)
        assert [name for name, _ in rarer_first([("b", other), ("a", production(WEEKLY, 2))])] == ["a", "b"]

    def test_verification_and_restore_test(self) -> None:
        weekly = schedule(weekly={"days": ["Sunday"], "at": "07:00"})
        second = schedule(monthly={"dayOfMonth": 2, "at": "07:00"})
        assert starts(weekly, "2026-11-22T08:00", 1) == ["2026-11-29T07:00"]
        assert starts(second, "2026-11-22T08:00", 2) == ["2026-12-02T07:00", "2027-01-02T07:00"]

    def test_demo_window_nine_minutes_of_ten(self) -> None:
        demo = calendar(
            schedule=schedule(cron="*/10 * * * *"),
            time_zone="Etc/UTC",
            duration=timedelta(minutes=9),
            closing=Closing(last_start=timedelta(minutes=2), cancel=timedelta(minutes=1)),
            now=utc("2026-11-22T00:00"),
        )
        assert demo.window_at(utc("2026-11-22T14:08:59")) == span("2026-11-22T14:00", "2026-11-22T14:09")
        assert demo.window_at(utc("2026-11-22T14:09")) is None


class TestClockChanges:
    @pytest.mark.parametrize(
        ("zone", "at", "day_before", "expected"),
        [
            # Berlin: on 2026-03-29 02:00 becomes 03:00 (01:00Z).
            ("Europe/Berlin", "02:30", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
            ("Europe/Berlin", "02:00", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:00"]),
            ("Europe/Berlin", "03:00", "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T01:00"]),
            # New York: on 2026-03-08 02:00 becomes 03:00 (07:00Z).
            ("America/New_York", "02:45", "2026-03-07T12:00", ["2026-03-08T07:00", "2026-03-09T06:45"]),
            # Lord Howe: on 2026-10-04 02:00 becomes 02:30 (15:30Z the day before).
            ("Australia/Lord_Howe", "02:15", "2026-10-03T00:00", ["2026-10-03T15:30", "2026-10-04T15:15"]),
            # Casablanca: after Ramadan, on 2026-03-22 02:00 becomes 03:00 (02:00Z).
            ("Africa/Casablanca", "02:30", "2026-03-21T12:00", ["2026-03-22T02:00", "2026-03-23T01:30"]),
            # Apia left out the whole of 2011-12-30 (10:00Z).
            ("Pacific/Apia", "08:00", "2011-12-29T20:00", ["2011-12-30T10:00", "2011-12-30T18:00"]),
        ],
    )
    def test_a_start_in_the_gap_is_at_the_first_moment_after_it(
        self, zone: str, at: str, day_before: str, expected: list[str]
    ) -> None:
        assert starts(schedule(daily={"at": at}), day_before, 2, zone) == expected

    @pytest.mark.parametrize(
        ("zone", "at", "day_before", "expected"),
        [
            # Berlin: on 2026-10-25 03:00 becomes 02:00 (01:00Z).
            ("Europe/Berlin", "02:30", "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
            ("Europe/Berlin", "03:00", "2026-10-24T12:00", ["2026-10-25T02:00", "2026-10-26T02:00"]),
            # New York: on 2026-11-01 02:00 becomes 01:00 (06:00Z).
            ("America/New_York", "01:30", "2026-10-31T12:00", ["2026-11-01T05:30", "2026-11-02T06:30"]),
            # Lord Howe: on 2026-04-05 02:00 becomes 01:30 (15:00Z the day before).
            ("Australia/Lord_Howe", "01:45", "2026-04-04T00:00", ["2026-04-04T14:45", "2026-04-05T15:15"]),
            # Casablanca: before Ramadan, on 2026-02-15 03:00 becomes 02:00 (02:00Z).
            ("Africa/Casablanca", "02:30", "2026-02-14T12:00", ["2026-02-15T01:30", "2026-02-16T02:30"]),
        ],
    )
    def test_a_start_in_the_fold_is_once_at_its_first_showing(
        self, zone: str, at: str, day_before: str, expected: list[str]
    ) -> None:
        assert starts(schedule(daily={"at": at}), day_before, 2, zone) == expected

    def test_a_fold_asked_from_within_its_second_showing(self) -> None:
        assert starts(schedule(daily={"at": "02:30"}), "2026-10-25T01:10", 1, "Europe/Berlin") == ["2026-10-26T01:30"]

    def test_many_starts_in_a_gap_are_one(self) -> None:
        every_ten = schedule(cron="*/10 * * * *")
        assert starts(every_ten, "2026-03-29T00:50", 2, "Europe/Berlin") == ["2026-03-29T01:00", "2026-03-29T01:10"]

    def test_a_duration_is_elapsed_time(self) -> None:
        for day in ("2026-03-29", "2026-10-25"):
            window = calendar(
                schedule=schedule(daily={"at": "01:00"}),
                time_zone="Europe/Berlin",
                duration=4 * HOUR,
                now=utc("2026-01-01T00:00"),
            ).next_windows(utc(f"{day}T00:00") - 3 * HOUR, 1)[0]
            assert window.duration == 4 * HOUR

    def test_a_window_of_a_whole_day_gives_way_to_the_next(self) -> None:
        all_day = calendar(
            schedule=schedule(daily={"at": "00:00"}),
            time_zone="Europe/Berlin",
            duration=24 * HOUR,
            now=utc("2026-01-01T00:00"),
        )
        short, following = all_day.next_windows(utc("2026-03-28T12:00"), 2)
        assert short.duration == 23 * HOUR
        assert short.ends_at == following.starts_at

    @cases(100)
    @given(st.sampled_from(ZONES), st.datetimes(min_value=wall(2000), max_value=wall(2036)))
    def test_a_moment_shows_its_wall_time_or_ends_a_gap(self, name: str, shown: datetime) -> None:
        zone, shown = load_zone(name), shown.replace(second=0, microsecond=0)
        moment = moment_of(shown, zone)
        if moments_of(shown, zone):
            assert wall_of(moment, zone) == shown
        else:
            assert wall_of(moment, zone) > shown
            before = moment - timedelta(seconds=1)
            assert wall_of(before, zone) < shown
            assert before.astimezone(zone).utcoffset() != moment.astimezone(zone).utcoffset()

    def test_a_moment_without_a_zone_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no moment"):
            occurrences(DAILY, zone=UTC_ZONE, after=wall(2026), limit=1)


# What github.com/robfig/cron v3, which Kubernetes uses, answered for these.
@pytest.mark.parametrize(
    ("zone", "cron", "after", "expected"),
    [
        ("Europe/Berlin", "30 2 * * *", "2026-10-23T12:00", ["24T00:30", "25T00:30", "25T01:30", "26T01:30"]),
        ("Europe/Berlin", "30 2 * * *", "2026-03-27T12:00", ["28T01:30", "30T00:30", "31T00:30", "01T00:30"]),
        (
            "Europe/Berlin",
            "*/30 * * * *",
            "2026-10-24T23:15",
            ["24T23:30", "25T00:00", "25T00:30", "25T01:00", "25T01:30"],
        ),
        ("Europe/Berlin", "*/30 * * * *", "2026-03-29T00:15", ["29T00:30", "29T01:00", "29T01:30"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-02T12:00", ["02T14:45", "03T14:45", "04T14:45", "04T15:15"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2026-10-02T12:00", ["02T15:45", "04T15:15", "05T15:15"]),
        ("Asia/Beirut", "0 0 * * *", "2026-03-26T12:00", ["26T22:00", "27T22:00", "29T21:00"]),
        ("America/New_York", "0 2 * * *", "2026-03-06T12:00", ["07T07:00", "09T06:00", "10T06:00"]),
        ("Etc/UTC", "0 2 * * sun,3-6/2", "2026-03-06T12:00", ["08T02:00", "11T02:00", "13T02:00", "15T02:00"]),
        ("Etc/UTC", "5/20 * * * *", "2026-03-06T12:00", ["06T12:05", "06T12:25", "06T12:45", "06T13:05"]),
    ],
)
def test_a_cronjob_skips_a_gap_and_starts_twice_in_a_fold(
    zone: str, cron: str, after: str, expected: list[str]
) -> None:
    found = cronjob_starts(schedule(cron=cron), zone=load_zone(zone), after=utc(after), limit=len(expected))
    assert [f"{moment:%dT%H:%M}" for moment in found] == expected


def test_cronjob_starts_asked_from_within_a_fold() -> None:
    found = cronjob_starts(
        schedule(cron="*/30 * * * *"), zone=load_zone("Europe/Berlin"), after=utc("2026-10-25T00:45"), limit=3
    )
    assert found == (utc("2026-10-25T01:00"), utc("2026-10-25T01:30"), utc("2026-10-25T02:00"))


times = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
weekdays = st.lists(st.sampled_from([str(day) for day in Weekday]), min_size=1, max_size=7, unique=True)
cronlike = st.one_of(
    st.builds(lambda at: schedule(daily={"at": at}), times),
    st.builds(lambda days, at: schedule(weekly={"days": days, "at": at}), weekdays, times),
    st.builds(lambda day, at: schedule(monthly={"dayOfMonth": day, "at": at}), st.integers(1, 31), times),
    st.sampled_from([schedule(cron=c) for c in ("30 */3 * * *", "15,45 1-3 * * 1-5", "0 2 1,15 * *", "0 0 * 3,10 7")]),
)
schedules = st.one_of(
    cronlike,
    st.builds(
        lambda week, days, at: schedule(monthly={"week": week, "days": days, "at": at}),
        st.sampled_from(["First", "Second", "Third", "Fourth", "Last"]),
        weekdays,
        times,
    ),
    st.builds(
        lambda at: schedule(rrule=f"FREQ=MONTHLY;BYDAY=-1SU,1SA;BYHOUR={int(at[:2])};BYMINUTE={int(at[3:])}"), times
    ),
)
zones = st.sampled_from(ZONES).map(load_zone)
moments = st.datetimes(min_value=wall(2025), max_value=wall(2028), timezones=st.just(UTC))


@cases(100)
@given(schedules, zones, moments)
def test_starts_follow_strictly_and_in_order(of: Schedule, zone: Any, after: datetime) -> None:
    found = occurrences(of, zone=zone, after=after, limit=20)
    assert len(found) == 20
    assert all(a < b for a, b in pairwise([after, *found]))
    assert all(start.tzinfo is UTC for start in found)
    # Asking from anywhere before the first gives the same ones: nothing depends on when one asks.
    again = occurrences(of, zone=zone, after=after + (found[0] - after) / 2, limit=20)
    assert again == found


@cases(25)
@given(cronlike, st.sampled_from(ZONES), st.integers(2025, 2027))
def test_the_cron_form_agrees_over_a_year(of: Schedule, name: str, year: int) -> None:
    zone, begin, end = load_zone(name), datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)

    def within(other: Schedule) -> list[datetime]:
        found = occurrences(other, zone=zone, after=begin, limit=5000)
        return [start for start in found if start < end]

    assert within(of) == within(schedule(cron=to_cron(of)))


@cases(30)
@given(times, st.sampled_from(ZONES), st.integers(2025, 2027))
def test_fixed_times_agree_with_an_independent_cron_over_a_year(at: str, name: str, year: int) -> None:
    zone, begin = load_zone(name), datetime(year, 1, 1, tzinfo=UTC)
    mine = occurrences(schedule(daily={"at": at}), zone=zone, after=begin, limit=366)
    # Debian's cron, which has the same rules for a change of the clock, asked with the zone itself.
    theirs = CronSim(to_cron(schedule(daily={"at": at})), begin.astimezone(zone))
    assert list(mine) == [moment.astimezone(UTC) for moment in islice(theirs, 366)]


@given(
    st.integers(2000, 2099),
    st.sampled_from(list(Weekday)),
    st.sampled_from(["First", "Second", "Third", "Fourth", "Last"]),
)
def test_weeks_of_a_month_equal_a_paper_calendar(year: int, day: Weekday, week: str) -> None:
    expected = []
    for month in range(1, 13):
        column = [row[day.number] for row in months.monthcalendar(year, month) if row[day.number]]
        expected.append(
            date(year, month, column[-1 if week == "Last" else ["First", "Second", "Third", "Fourth"].index(week)])
        )
    of = schedule(monthly={"week": week, "days": [str(day)], "at": "02:00"})
    found = occurrences(of, zone=UTC_ZONE, after=datetime(year, 1, 1, tzinfo=UTC), limit=12)
    assert [start.date() for start in found] == expected


def test_two_days_of_a_week_are_each_their_own() -> None:
    of = schedule(monthly={"week": "First", "days": ["Saturday", "Sunday"], "at": "02:00"})
    # November 2026 begins on a Sunday.
    assert starts(of, "2026-10-31T00:00", 2) == ["2026-11-01T02:00", "2026-11-07T02:00"]


def test_a_day_that_the_month_lacks_is_left_out() -> None:
    of = schedule(monthly={"dayOfMonth": 31, "at": "02:00"})
    assert starts(of, "2026-08-31T02:00", 3) == ["2026-10-31T02:00", "2026-12-31T02:00", "2027-01-31T02:00"]


def exclusion(start: str, end: str, name: str = "sale") -> Exclusion:
    return Exclusion(name=name, starts_at=utc(start), ends_at=utc(end), reason="peak week")


class TestExclusions:
    def test_a_covered_window_does_not_open(self) -> None:
        weekly = production(WEEKLY, 2, exclusions=[exclusion("2026-11-27T00:00", "2026-12-01T00:00")])
        assert weekly.window_at(utc("2026-11-29T03:00")) is None
        assert weekly.next_windows(utc("2026-11-22T02:00"), 1) == (span("2026-12-06T02:00", "2026-12-06T04:00"),)

    def test_what_is_left_of_a_window_is_open(self) -> None:
        weekly = production(
            WEEKLY,
            2,
            exclusions=[
                exclusion("2026-11-29T02:30", "2026-11-29T02:45", "b"),
                exclusion("2026-11-29T00:00", "2026-11-29T02:10", "a"),
                exclusion("2026-11-29T03:30", "2026-11-29T05:00", "c"),
            ],
        )
        assert weekly.next_windows(utc("2026-11-22T02:00"), 2) == (
            span("2026-11-29T02:10", "2026-11-29T02:30"),
            span("2026-11-29T02:45", "2026-11-29T03:30"),
        )
        assert weekly.window_at(utc("2026-11-29T02:40")) is None
        assert weekly.window_at(utc("2026-11-29T02:45")) == span("2026-11-29T02:45", "2026-11-29T03:30")

    def test_an_exclusion_that_ends_with_the_start_takes_nothing(self) -> None:
        weekly = production(WEEKLY, 2, exclusions=[exclusion("2026-11-28T00:00", "2026-11-29T02:00")])
        assert weekly.window_at(utc("2026-11-29T02:00")) == span("2026-11-29T02:00", "2026-11-29T04:00")

    def test_the_tail_of_a_window_after_a_long_exclusion(self) -> None:
        weekly = production(WEEKLY, 2, exclusions=[exclusion("2026-11-15T00:00", "2026-11-29T03:00")])
        assert weekly.next_windows(utc("2026-11-14T00:00"), 2) == (
            span("2026-11-29T03:00", "2026-11-29T04:00"),
            span("2026-12-06T02:00", "2026-12-06T04:00"),
        )

    def test_for_ever(self) -> None:
        weekly = production(WEEKLY, 2, exclusions=[exclusion("2026-01-01T00:00", "9999-01-01T00:00")])
        assert weekly.window_at(utc("2026-11-29T03:00")) is None
        assert weekly.next_windows(utc("2026-11-29T03:00"), 1) == ()

    def test_which_one_is_active(self) -> None:
        short, long = (
            exclusion("2026-11-27T00:00", "2026-11-28T00:00"),
            exclusion("2026-11-27T06:00", "2026-12-01T00:00"),
        )
        weekly = production(WEEKLY, 2, exclusions=[short, long])
        assert weekly.active_exclusion(utc("2026-11-26T23:59:59")) is None
        assert weekly.active_exclusion(utc("2026-11-27T00:00")) == short
        assert weekly.active_exclusion(utc("2026-11-27T07:00")) == long
        assert weekly.active_exclusion(utc("2026-12-01T00:00")) is None
        assert weekly.next_exclusion(utc("2026-11-01T00:00")) == short
        assert weekly.next_exclusion(utc("2026-11-27T00:00")) == long
        assert weekly.next_exclusion(utc("2026-11-27T06:00")) is None

    @cases(100)
    @given(
        schedules,
        zones,
        moments,
        st.integers(1, 5000),
        st.lists(st.tuples(st.integers(-3000, 60000), st.integers(1, 30000)), max_size=6),
    )
    def test_no_window_touches_an_exclusion_and_none_overlaps_another(
        self, of: Schedule, zone: Any, now: datetime, minutes: int, spans: list[tuple[int, int]]
    ) -> None:
        exclusions = tuple(
            Exclusion(
                name=str(index),
                starts_at=now + timedelta(minutes=begin),
                ends_at=now + timedelta(minutes=begin + length),
            )
            for index, (begin, length) in enumerate(spans)
        )
        duration = timedelta(minutes=minutes)
        opens = Calendar(schedule=of, zone=zone, duration=duration, exclusions=exclusions)
        windows = opens.next_windows(now, 12)
        assert windows
        for window in windows:
            assert timedelta(0) < window.duration <= duration
            assert not any(e.starts_at < window.ends_at and window.starts_at < e.ends_at for e in exclusions)
            assert opens.window_at(window.starts_at) == window
            assert opens.window_at(window.ends_at - timedelta(microseconds=1)) == window
        assert all(a.ends_at <= b.starts_at for a, b in pairwise(windows))

    @cases(100)
    @given(
        schedules,
        zones,
        moments,
        st.integers(1, 600),
        st.lists(st.tuples(st.integers(-600, 3000), st.integers(1, 600)), max_size=3),
        st.integers(0, 40000),
    )
    def test_open_means_started_less_than_a_duration_ago_and_not_excluded(
        self, of: Schedule, zone: Any, now: datetime, minutes: int, spans: list[tuple[int, int]], later: int
    ) -> None:
        exclusions = tuple(
            Exclusion(name="x", starts_at=now + timedelta(minutes=b), ends_at=now + timedelta(minutes=b + n))
            for b, n in spans
        )
        opens = Calendar(schedule=of, zone=zone, duration=timedelta(minutes=minutes), exclusions=exclusions)
        asked = now + timedelta(minutes=later)
        begun = occurrences(of, zone=zone, after=asked - timedelta(minutes=minutes), limit=1)[0] <= asked
        excluded = any(e.starts_at <= asked < e.ends_at for e in exclusions)
        assert (opens.window_at(asked) is not None) == (begun and not excluded)


class TestChecks:
    @pytest.mark.parametrize(
        ("duration", "last_start", "cancel", "says"),
        [
            (2, 30, 40, "write cancel"),
            (2, 120, 5, r"lastStart below duration \(2h\)"),
            (0, 0, 0, "below duration"),
            (200, 20, 5, "reaches into the next start, which follows after 7d"),
        ],
    )
    def test_spans_that_cannot_work(self, duration: int, last_start: int, cancel: int, says: str) -> None:
        closing = Closing(last_start=timedelta(minutes=last_start), cancel=timedelta(minutes=cancel))
        with pytest.raises(ScheduleError, match=says):
            production(WEEKLY, duration, closing=closing)

    def test_the_least_gap_counts(self) -> None:
        with pytest.raises(ScheduleError, match="after 1d"):
            production(schedule(monthly={"week": "First", "days": ["Friday", "Saturday"], "at": "02:00"}), 25)

    def test_an_exclusion_that_ends_before_it_begins(self) -> None:
        with pytest.raises(ScheduleError, match="exclusion sale: write `to` later"):
            production(WEEKLY, 2, exclusions=[exclusion("2026-12-01T00:00", "2026-11-27T00:00")])

    def test_zone_and_schedule_are_checked(self) -> None:
        with pytest.raises(ScheduleError, match="did you mean Europe/Berlin"):
            calendar(schedule=WEEKLY, time_zone="Europe/Berln", duration=2 * HOUR, now=utc("2026-11-22T00:00"))
        with pytest.raises(ScheduleError, match="bad minute"):
            production(schedule(cron="61 * * * *"), 1)

    def test_a_change_of_the_clock_makes_no_window_invalid(self) -> None:
        for day in (f"2026-{month:02}-{d:02}T00:00" for month in (3, 10) for d in (23, 28, 29)):
            calendar(
                schedule=schedule(daily={"at": "00:00"}), time_zone="Europe/Berlin", duration=24 * HOUR, now=utc(day)
            )


class TestDumpPlan:
    POLICY = ObjectKey("PostgresBackupPolicy", "databases", "orders")

    def plan(
        self, now: str, handled_until: str, spread: int = 0, of: Schedule = DAILY, zone: str = "Etc/UTC"
    ) -> list[str]:
        made = dump_plan(
            policy=self.POLICY,
            schedule=of,
            zone=load_zone(zone),
            now=utc(now),
            handled_until=utc(handled_until),
            starting_deadline=HOUR,
            spread=timedelta(minutes=spread),
        )
        return [f"{start:%dT%H:%M}" for start in made.due]

    def test_before_the_start(self) -> None:
        assert self.plan("2026-11-22T01:00", "2026-11-21T02:00")[:1] == ["22T02:00"]

    def test_the_start_has_passed_and_has_no_job_yet(self) -> None:
        assert self.plan("2026-11-22T02:00:05", "2026-11-21T02:00")[:2] == ["22T02:00", "23T02:00"]

    def test_the_start_had_its_job(self) -> None:
        assert self.plan("2026-11-22T02:00:05", "2026-11-22T02:00")[:1] == ["23T02:00"]

    def test_a_missed_start_is_forgotten_after_the_deadline(self) -> None:
        assert self.plan("2026-11-22T02:59", "2026-11-20T02:00")[:1] == ["22T02:00"]
        assert self.plan("2026-11-22T03:00", "2026-11-20T02:00")[:1] == ["23T02:00"]

    def test_spread_delays(self) -> None:
        assert self.plan("2026-11-22T02:05", "2026-11-21T02:10", spread=10)[:1] == ["22T02:10"]
        assert self.plan("2026-11-22T02:11", "2026-11-21T02:10", spread=10)[:2] == ["22T02:10", "23T02:10"]

    def test_both_starts_of_a_fold_are_known(self) -> None:
        of = schedule(daily={"at": "02:30"})
        assert self.plan("2026-10-25T00:00", "2026-10-24T00:30", of=of, zone="Europe/Berlin")[:2] == [
            "25T00:30",
            "25T01:30",
        ]

    def test_many_missed_starts_do_not_hide_the_next(self) -> None:
        plan = self.plan("2026-11-22T02:55", "2026-11-22T00:00", of=schedule(cron="*/5 * * * *"))
        assert "22T03:00" in plan
        delayed = self.plan("2026-11-22T02:55", "2026-11-22T00:00", of=schedule(cron="*/5 * * * *"), spread=10)
        assert "22T03:00" in delayed


@given(moments, st.integers(1, 59))
def test_a_window_contains_its_start_and_not_its_end(start: datetime, minutes: int) -> None:
    window = Window(start, start + timedelta(minutes=minutes))
    assert start in window
    assert window.ends_at not in window
    assume(minutes > 1)
    assert start + timedelta(minutes=1) in window
