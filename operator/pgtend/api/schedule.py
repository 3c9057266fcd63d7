"""When something recurs: one union for every kind that has a schedule, so that users learn it once.

The models say what is written; what it means in time is arithmetic of `gate/windows.py`. What CEL can see (one member,
two forms of `monthly`) is checked by the API server; what it cannot (a zone's name, a cron field) becomes
`Accepted=False/InvalidSchedule`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from pgtend.api.base import ApiModel
from pgtend.api.types import TimeOfDay

DEFAULT_TIME_ZONE = "Etc/UTC"

# An IANA name such as Europe/Berlin. The grammar only; whether the zone exists is checked in Python.
TimeZoneName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$", max_length=64)
]


class Weekday(StrEnum):
    MONDAY = "Monday"
    TUESDAY = "Tuesday"
    WEDNESDAY = "Wednesday"
    THURSDAY = "Thursday"
    FRIDAY = "Friday"
    SATURDAY = "Saturday"
    SUNDAY = "Sunday"

    @property
    def number(self) -> int:
        """0 for Monday to 6 for Sunday, as `date.weekday()` counts."""
        return tuple(Weekday).index(self)


class Week(StrEnum):
    """Which of a weekday's days in a month; `Last` is the fourth or the fifth."""

    FIRST = "First"
    SECOND = "Second"
    THIRD = "Third"
    FOURTH = "Fourth"
    LAST = "Last"


Days = Annotated[tuple[Weekday, ...], Field(min_length=1, max_length=7, json_schema_extra={"x-list-type": "set"})]

_ONE_FORM = "monthly takes either week and days, or dayOfMonth"
_ONE_MEMBER = "schedule takes exactly one of daily, weekly, monthly, cron and rrule"


class Daily(ApiModel):
    at: TimeOfDay


class Weekly(ApiModel):
    days: Days
    at: TimeOfDay


class Monthly(ApiModel):
    """`{week, days, at}` starts on each of the days on its own: First with Saturday and Sunday is the first Saturday
    and the first Sunday. `{dayOfMonth, at}` starts in months that have the day only."""

    week: Week | None = None
    days: Days | None = None
    day_of_month: Annotated[int | None, Field(ge=1, le=31)] = None
    at: TimeOfDay
    cel = (("has(self.week) == has(self.days) && has(self.week) != has(self.dayOfMonth)", _ONE_FORM),)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.week is None) != (self.days is None) or (self.week is None) == (self.day_of_month is None):
            raise ValueError(_ONE_FORM)
        return self


class Schedule(ApiModel):
    """Exactly one member. `cron` has five fields; `rrule` is a rule of RFC 5545, with DTSTART where it needs one."""

    daily: Daily | None = None
    weekly: Weekly | None = None
    monthly: Monthly | None = None
    cron: Annotated[str | None, Field(min_length=1, max_length=128)] = None
    rrule: Annotated[str | None, Field(min_length=1, max_length=512)] = None
    cel = (
        (
            "[has(self.daily), has(self.weekly), has(self.monthly), has(self.cron), has(self.rrule)]"
            ".filter(given, given).size() == 1",
            _ONE_MEMBER,
        ),
    )

    @model_validator(mode="after")
    def _one_member(self) -> Self:
        members = (self.daily, self.weekly, self.monthly, self.cron, self.rrule)
        if sum(member is not None for member in members) != 1:
            raise ValueError(_ONE_MEMBER)
        return self
