"""Recurrence rules of RFC 5545, as far as a calendar of windows needs them.

Expanded here, day by day, rather than by dateutil (which the tests compare with): dateutil takes what a rule leaves out
from the present, drops `-1` of `FREQ=WEEKLY;BYDAY=-1SU` without a word, and searches a rule that never matches up to
the year 9999. Here a rule says day and time itself or brings a DTSTART, and a search costs at most its days.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from typing import NoReturn

from pgtend.gate.walltime import ScheduleError

_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_EXAMPLE = "FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=0"
_START_EXAMPLE = "DTSTART:20260104T020000"
_KEYS = {
    *("FREQ", "INTERVAL", "UNTIL", "WKST", "BYMONTH", "BYMONTHDAY", "BYDAY", "BYHOUR", "BYMINUTE", "BYSETPOS"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. Empty sets do not restrict. `days` are (n, weekday): n counts within the month (in a yearly rule
    without months within the year), from the end if negative; 0 is every one. `positions` choose among a month's
    days, as BYSETPOS does."""

    frequency: str
    interval: int
    start: datetime | None
    until: datetime | None
    week_start: int
    months: frozenset[int]
    month_days: frozenset[int]
    days: frozenset[tuple[int, int]]
    times: tuple[time, ...]
    positions: frozenset[int]

    def walls(self, after: datetime, limit: datetime) -> Iterator[datetime]:
        """Naive wall times after `after`, in order, none after `limit`."""
        for day in self._dates(max(after.date(), self.start.date() if self.start else after.date()), limit.date()):
            for clock in self.times:
                wall = datetime.combine(day, clock)
                if (self.until is not None and wall > self.until) or wall > limit:
                    return
                if wall > after and (self.start is None or wall >= self.start):
                    yield wall

    def _dates(self, first: date, last: date) -> Iterator[date]:
        if not self.positions:
            days = (first + timedelta(days=n) for n in range((last - first).days + 1))
            yield from (day for day in days if self._on(day))
            return
        month = first.replace(day=1)
        while month <= last:
            length = calendar.monthrange(month.year, month.month)[1]
            matching = [day for day in (month.replace(day=n) for n in range(1, length + 1)) if self._on(day)]
            chosen = {n - 1 if n > 0 else len(matching) + n for n in self.positions}
            yield from (day for index, day in enumerate(matching) if index in chosen and first <= day <= last)
            month = (month + timedelta(days=32)).replace(day=1)

    def _on(self, day: date) -> bool:
        if self.months and day.month not in self.months:
            return False
        length = calendar.monthrange(day.year, day.month)[1]
        if self.month_days and not self.month_days & {day.day, day.day - length - 1}:
            return False
        if self.days and not any(day.weekday() == weekday and self._nth(day, n) for n, weekday in self.days):
            return False
        return self.interval == 1 or (self._period(day) - self._period(self._first())) % self.interval == 0

    def _nth(self, day: date, n: int) -> bool:
        if n == 0:
            return True
        if self.frequency == "YEARLY" and not self.months:
            position, length = day.timetuple().tm_yday, 366 if calendar.isleap(day.year) else 365
        else:
            position, length = day.day, calendar.monthrange(day.year, day.month)[1]
        return n == ((position - 1) // 7 + 1 if n > 0 else -((length - position) // 7 + 1))

    def _first(self) -> date:
        assert self.start is not None  # noqa: S101 - parse_rule admits an interval with a start only
        return self.start.date()

    def _period(self, day: date) -> int:
        if self.frequency == "DAILY":
            return day.toordinal()
        if self.frequency == "WEEKLY":
            return (day.toordinal() - 1 - self.week_start) // 7
        return day.year * 12 + day.month if self.frequency == "MONTHLY" else day.year


@lru_cache(maxsize=256)
def parse_rule(text: str) -> Rule:
    """`[DTSTART:...] [RRULE:]FREQ=...`. Raises ScheduleError with what to write."""
    start: datetime | None = None
    rules: list[str] = []
    for line in text.upper().split():
        name, colon, value = line.rpartition(":")
        if name == "DTSTART":
            start = _stamp(text, "DTSTART:", value)
        elif name in ("RRULE", "") and (colon or "=" in value):
            rules.append(value)
        else:
            _refuse(
                text,
                f"{line!r} is not understood: write one rule such as {_EXAMPLE}, before it {_START_EXAMPLE} where it"
                " needs a start; the zone is timeZone, moments to leave out are exclusions",
            )
    if len(rules) != 1:
        _refuse(text, f"write exactly one rule, such as {_EXAMPLE}")
    return _rule(text, _parts(text, rules[0]), start)


def _parts(text: str, rule: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in rule.strip(";").split(";"):
        key, _, value = part.partition("=")
        if key == "COUNT":
            _refuse(text, "COUNT is not supported: write UNTIL=20271231T235900")
        if key not in _KEYS or not value:
            _refuse(text, f"{part!r} is not supported: write parts of {', '.join(sorted(_KEYS))}")
        if key in parts:
            _refuse(text, f"{key} is given twice")
        parts[key] = value
    return parts


def _rule(text: str, parts: Mapping[str, str], start: datetime | None) -> Rule:
    frequency = parts.get("FREQ", "")
    if frequency not in ("DAILY", "WEEKLY", "MONTHLY", "YEARLY"):
        _refuse(text, "FREQ is DAILY, WEEKLY, MONTHLY or YEARLY; for what starts more often write cron")
    months = _numbers(text, parts, "BYMONTH", 1, 12)
    month_days = _numbers(text, parts, "BYMONTHDAY", -31, 31)
    days = _weekdays(text, parts.get("BYDAY", ""), frequency, bool(months))
    hours = _numbers(text, parts, "BYHOUR", 0, 23)
    minutes = _numbers(text, parts, "BYMINUTE", 0, 59)
    positions = _numbers(text, parts, "BYSETPOS", -31, 31)
    interval = min(_numbers(text, parts, "INTERVAL", 1, 999) or {1})
    week_start = parts.get("WKST", "MO")
    if week_start not in _DAYS:
        _refuse(text, "WKST is one of " + ", ".join(_DAYS))
    # 0 of a month, or of a set, is nothing.
    if 0 in month_days or 0 in positions:
        _refuse(text, "BYMONTHDAY and BYSETPOS count from 1, or from -1 for the last")
    if start is None:
        if interval != 1:
            _refuse(text, f"INTERVAL counts from a start: write {_START_EXAMPLE} before the rule")
        if not hours or not minutes:
            _refuse(text, f"say the time of day with BYHOUR and BYMINUTE, as in {_EXAMPLE}")
        if not (days or month_days or frequency == "DAILY"):
            _refuse(text, f"say the day with BYDAY or BYMONTHDAY, as in {_EXAMPLE}")
        if frequency == "YEARLY" and not months and not any(n for n, _ in days):
            _refuse(text, "a yearly rule says its month with BYMONTH, or a numbered BYDAY such as -1SU")
    else:
        hours, minutes = hours or {start.hour}, minutes or {start.minute}
        if not days and not month_days:
            if frequency == "WEEKLY":
                days = {(0, start.weekday())}
            elif frequency != "DAILY":
                month_days = {start.day}
                months = months or ({start.month} if frequency == "YEARLY" else set())
    if positions and (frequency != "MONTHLY" or len(hours) * len(minutes) > 1):
        _refuse(text, "BYSETPOS is supported for FREQ=MONTHLY with one time of day")
    return Rule(
        frequency=frequency,
        interval=interval,
        start=start,
        until=_stamp(text, "UNTIL=", parts["UNTIL"]) if "UNTIL" in parts else None,
        week_start=_DAYS.index(week_start),
        months=frozenset(months),
        month_days=frozenset(month_days),
        days=frozenset(days),
        times=tuple(time(hour, minute) for hour in sorted(hours) for minute in sorted(minutes)),
        positions=frozenset(positions),
    )


def _numbers(text: str, parts: Mapping[str, str], key: str, low: int, high: int) -> set[int]:
    words = parts[key].split(",") if key in parts else []
    if not all(re.fullmatch(r"[+-]?[0-9]{1,3}", word) and low <= int(word) <= high for word in words):
        _refuse(text, f"{key} takes numbers from {low} to {high}")
    return {int(word) for word in words}


def _weekdays(text: str, value: str, frequency: str, has_months: bool) -> set[tuple[int, int]]:
    days: set[tuple[int, int]] = set()
    for word in value.split(",") if value else []:
        match = re.fullmatch(r"([+-]?[0-9]{1,2})?(MO|TU|WE|TH|FR|SA|SU)", word)
        if match is None:
            _refuse(text, f"BYDAY takes {', '.join(_DAYS)}, in a monthly rule with a number such as -1SU")
        n = int(match.group(1) or 0)
        limit = {"MONTHLY": 5, "YEARLY": 5 if has_months else 53}.get(frequency, 0)
        if abs(n) > limit or (n == 0 and match.group(1)):
            _refuse(text, f"{word} in BYDAY: a number needs FREQ=MONTHLY (1 to 5, -1 for the last) or YEARLY")
        days.add((n, _DAYS.index(match.group(2))))
    return days


def _stamp(text: str, name: str, value: str) -> datetime:
    try:
        if not re.fullmatch("[0-9]{8}T[0-9]{6}", value):
            raise ValueError(value)
        stamp = datetime.strptime(value, "%Y%m%dT%H%M%S")  # noqa: DTZ007 - wall time, the zone comes later
    except ValueError:
        _refuse(text, f"write {name}20271231T020000, wall time of timeZone without Z")
    if name == "DTSTART:" and stamp.second:
        _refuse(text, "DTSTART is a whole minute")
    return stamp


def _refuse(text: str, what: str) -> NoReturn:
    raise ScheduleError(f"rrule {text!r}: {what}")
