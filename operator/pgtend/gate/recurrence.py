"""Which wall times a schedule names, without any zone: five spellings, one stream of naive datetimes.

Kept apart from `windows.py` so that cron's and RFC 5545's quirks stay in one place. What two readers of the same text
would read differently is refused rather than guessed; the message says what to write.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from itertools import count, islice, takewhile

from cronsim import CronSim, CronSimError

from pgtend.api.schedule import Monthly, Schedule, Week, Weekday
from pgtend.gate.rules import parse_rule
from pgtend.gate.walltime import ScheduleError, wall

HORIZON = timedelta(days=5 * 366)
"""How far ahead a start is looked for."""

_CRON_EXAMPLE = "0 2 * * SUN"


def walls(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    """Naive wall times strictly after the naive `after`, in order, for at most HORIZON. Raises ScheduleError."""
    if schedule.cron is not None:
        stream: Iterator[datetime] = parse_cron(schedule.cron, after)
    elif schedule.rrule is not None:
        stream = parse_rule(schedule.rrule).walls(after, after + HORIZON)
    else:
        stream = _structured(schedule, after)
    limit = after + HORIZON
    return takewhile(lambda start: start <= limit, stream)


def _structured(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    if schedule.monthly is not None:
        dates, at = _monthly_dates(schedule.monthly, after.date()), schedule.monthly.at
    elif schedule.weekly is not None:
        numbers = {day.number for day in schedule.weekly.days}
        dates, at = (d for d in _dates(after.date()) if d.weekday() in numbers), schedule.weekly.at
    elif schedule.daily is not None:
        dates, at = _dates(after.date()), schedule.daily.at
    else:
        raise AssertionError("the model admits no schedule without a member")
    clock = time(*at.hour_minute)
    return (start for start in (datetime.combine(d, clock) for d in dates) if start > after)


def _dates(first: date) -> Iterator[date]:
    return (first + timedelta(days=n) for n in count())


def _monthly_dates(monthly: Monthly, first: date) -> Iterator[date]:
    for month in count(first.year * 12 + first.month - 1):
        year, month_number = month // 12, month % 12 + 1
        length = calendar.monthrange(year, month_number)[1]
        if monthly.day_of_month is not None:
            days = [monthly.day_of_month] if monthly.day_of_month <= length else []
        else:
            days = sorted({_day_in_month(year, month_number, day, monthly.week) for day in monthly.days or ()})
        yield from (date(year, month_number, day) for day in days)


def _day_in_month(year: int, month: int, weekday: Weekday, week: Week | None) -> int:
    first_weekday, length = calendar.monthrange(year, month)
    first = 1 + (weekday.number - first_weekday) % 7
    if week is Week.LAST:
        return first + (length - first) // 7 * 7
    return first + 7 * tuple(Week).index(week or Week.FIRST)


def parse_cron(text: str, after: datetime) -> CronSim:
    """Five fields, names of days and months, `L` and `#` as Debian's cron. Naive, so that no zone takes part.

    Restricting both day fields is refused: cron reads it as "either", `0 2 25-31 * SUN` starts on Wednesday the 25th,
    and the readers of cron do not agree on what `*/2` is in that case.
    """
    fields = text.split()
    if len(fields) != 5:
        hint = "the zone belongs in timeZone; " if "TZ=" in text.upper() else ""
        raise ScheduleError(
            f"cron {text!r}: {hint}write the five fields minute, hour, day-of-month, month, day-of-week,"
            f" as in {_CRON_EXAMPLE!r}"
        )
    if fields[2] != "*" and fields[4] != "*":
        raise ScheduleError(
            f"cron {text!r}: with both day fields given cron starts on days that match either one:"
            " leave one of them '*', or write monthly: {week, days, at}"
        )
    try:
        return CronSim(text, after)
    except (CronSimError, ValueError, TypeError, AssertionError) as error:
        detail = str(error).lower() or "not understood"
        raise ScheduleError(
            f"cron {text!r}: {detail}: write minute 0-59, hour 0-23, day-of-month 1-31 that the month has,"
            f" month 1-12 or JAN-DEC, day-of-week 0-7 or SUN-SAT, as in {_CRON_EXAMPLE!r}"
        ) from error


def to_cron(schedule: Schedule) -> str:
    """The schedule as a cron expression that a CronJob of Kubernetes reads in the same way.

    Kubernetes knows neither `L` nor `#`, and no 7 for Sunday: the day-of-week field comes out as numbers from 0.
    Raises ScheduleError for what cron or Kubernetes cannot say (rrule, monthly.week, cron with L or #).
    """
    if schedule.daily is not None:
        hour, minute = schedule.daily.at.hour_minute
        return f"{minute} {hour} * * *"
    if schedule.weekly is not None:
        hour, minute = schedule.weekly.at.hour_minute
        return f"{minute} {hour} * * {_cron_weekdays({(day.number + 1) % 7 for day in schedule.weekly.days})}"
    if schedule.monthly is not None:
        if schedule.monthly.day_of_month is None:
            raise ScheduleError(
                "monthly.week cannot be carried out by a CronJob: write monthly: {dayOfMonth, at}, weekly or daily"
            )
        hour, minute = schedule.monthly.at.hour_minute
        return f"{minute} {hour} {schedule.monthly.day_of_month} * *"
    if schedule.cron is None:
        raise ScheduleError("rrule cannot be carried out by a CronJob: write daily, weekly, monthly or cron")
    parsed = parse_cron(schedule.cron, wall(2026))
    weekdays = {day for day in parsed.weekdays if isinstance(day, int)}
    if len(weekdays) != len(parsed.weekdays) or min(parsed.days) < 1:
        raise ScheduleError(
            f"cron {schedule.cron!r}: L and # cannot be carried out by a CronJob: write days as numbers or names"
        )
    fields = schedule.cron.split()
    return " ".join([*fields[:4], "*" if fields[4] == "*" else _cron_weekdays({day % 7 for day in weekdays})])


def _cron_weekdays(numbers: set[int]) -> str:
    return "*" if len(numbers) == 7 else ",".join(str(number) for number in sorted(numbers))


@lru_cache(maxsize=1024)
def starts_per_year(schedule: Schedule) -> float:
    """How often a schedule starts, as a mean over four years: the smaller is the rarer."""
    begin = wall(2024)
    if schedule.rrule is not None and (start := parse_rule(schedule.rrule).start) is not None:
        begin = max(begin, start)
    end, factor, counted = begin + timedelta(days=1461), 1, schedule
    if schedule.cron is not None:
        # Days are counted and multiplied, for a cron of every minute names two million starts.
        parsed = parse_cron(schedule.cron, begin)
        factor = len(parsed.minutes) * len(parsed.hours)
        counted = Schedule(cron=" ".join(["0", "0", *schedule.cron.split()[2:]]))
    found = takewhile(lambda start: start < end, walls(counted, begin - timedelta(minutes=1)))
    return factor * sum(1 for _ in islice(found, 100_000)) / 4


def warnings(schedule: Schedule) -> tuple[str, ...]:
    """What is allowed but seldom meant, in words for a message."""
    day = schedule.monthly.day_of_month if schedule.monthly is not None else None
    if day is None or day <= 28:
        return ()
    lacking = {29: "February of most years", 30: "February", 31: "five months of the year"}[day]
    return (f"monthly.dayOfMonth {day} does not start in {lacking}: write 28 or less to start each month",)
