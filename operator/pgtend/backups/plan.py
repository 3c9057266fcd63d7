"""When a policy's runs are due, and which image takes them. Pure: the clock is handed in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.schedule import Daily, Monthly, Schedule, Weekly
from pgtend.api.types import TimeOfDay
from pgtend.gate.recurrence import to_cron
from pgtend.gate.walltime import ScheduleError, load_zone
from pgtend.gate.windows import cronjob_starts

LAST_MINUTE = 23 * 60 + 59
GRACE = 0.1
"""Of the span between two starts: so much later a backup may be there before it is overdue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """A schedule that a CronJob carries out, checked. `cron` is what the CronJob is given."""

    schedule: Schedule
    cron: str
    zone: ZoneInfo

    def next_after(self, moment: datetime) -> datetime | None:
        """The first start after `moment`, None where there is none within five years."""
        return next(iter(cronjob_starts(self.schedule, zone=self.zone, after=moment, limit=1)), None)

    def overdue_after(self, last: datetime) -> tuple[datetime, timedelta] | None:
        """When the start that follows `last` (the start of the last backup) should have led to one, and the age that
        this allows."""
        starts = cronjob_starts(self.schedule, zone=self.zone, after=last, limit=2)
        if len(starts) < 2:
            return None
        allowed = (starts[1] - starts[0]) * (1 + GRACE)
        return starts[0] + allowed - (starts[1] - starts[0]), allowed


def timetable(spec: PolicySpec, *, policy: str = "") -> Timetable:
    """`policy` is its namespace/name, by which it is spread. Raises ScheduleError where the schedule or the zone has no
    meaning to a CronJob."""
    zone, schedule = load_zone(spec.time_zone), spread(spec, policy)
    return Timetable(schedule=schedule, cron=to_cron(schedule), zone=zone)


def spread(spec: PolicySpec, policy: str) -> Schedule:
    """The schedule, later by the policy's share of `spec.scheduleSpread`: always the same for a name, and on the same
    day, so that days of the week and of the month stay what they are. Raises ScheduleError."""
    schedule, minutes = spec.schedule, int(spec.schedule_spread.seconds // 60)
    if not minutes:
        return schedule
    for name in ("daily", "weekly", "monthly"):
        given: Daily | Weekly | Monthly | None = getattr(schedule, name)
        if given is not None:
            hour, minute = given.at.hour_minute
            most = min(minutes, LAST_MINUTE - hour * 60 - minute)
            share = int.from_bytes(hashlib.sha256(policy.encode()).digest()[:8], "big") % (most + 1)
            hour, minute = divmod(hour * 60 + minute + share, 60)
            moved = given.model_copy(update={"at": TimeOfDay(f"{hour:02d}:{minute:02d}")})
            return schedule.model_copy(update={name: moved})
    raise ScheduleError("scheduleSpread goes with daily, weekly and monthly: write one of them, or leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsImages:
    """`template` holds `{major}`; `majors` are those that there is an image of, empty for all."""

    template: str = ""
    majors: frozenset[int] = frozenset()

    def of(self, major: int) -> str | None:
        """The image for a server of this major. For 14 that of 15 will do: its dumps restore there."""
        if not self.template:
            return None
        for candidate in (major, 15) if major == 14 else (major,):
            if not self.majors or candidate in self.majors:
                return self.template.replace("{major}", str(candidate))
        return None


def major_of(version: str) -> int | None:
    """Of `17.7` or `18beta1 (Debian ...)`."""
    digits = ""
    for character in version:
        if not character.isdigit():
            break
        digits += character
    return int(digits) if digits else None
