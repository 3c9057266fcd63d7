"""When a window runs what, and what its runs are called. Pure: the clock is handed in.

A slot is one opening, for which a run is written. A task with `runPolicy: Daily` has openings of its own: at
the time of day at which the window starts, on days without a window too. Where both meet they are one slot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from pgtend.api.maintenancewindow import WindowSpec
from pgtend.api.schedule import Daily, Schedule
from pgtend.api.types import TimeOfDay
from pgtend.core.clock import parse_rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.core.names import short_hash
from pgtend.gate.walltime import moment_of, wall, wall_of
from pgtend.gate.windows import Calendar, Closing, Exclusion, Window, calendar, occurrences

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """A window's openings: `window` of the schedule, `daily` of its daily tasks (None where it has none)."""

    window: Calendar
    daily: Calendar | None = None

    def slot_at(self, now: datetime) -> Slot | None:
        """The slot that is open at `now`; of two the window's."""
        found = self.window.window_at(now) or (self.daily.window_at(now) if self.daily is not None else None)
        return self._slot(found) if found is not None else None

    def next_slot(self, now: datetime) -> Slot | None:
        """The next slot that begins after `now`."""
        ahead = [*self.window.next_windows(now, 1), *(self.daily.next_windows(now, 1) if self.daily else ())]
        first = min(ahead, key=lambda each: (each.starts_at, -each.duration), default=None)
        return self._slot(first) if first is not None else None

    def slot_from(self, starts_at: datetime) -> Slot | None:
        """The slot that begins exactly then."""
        slot = self.slot_at(starts_at)
        return slot if slot is not None and slot.starts_at == starts_at else None

    def _slot(self, span: Window) -> Slot:
        in_window = self.window.window_at(span.starts_at)
        on_day = self.daily.window_at(span.starts_at) if self.daily is not None else None
        return Slot(
            starts_at=span.starts_at,
            ends_at=span.ends_at,
            in_window=in_window is not None,
            daily=on_day is not None and on_day.starts_at == span.starts_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One opening, its end excluded. `in_window` and `daily` say which tasks belong to it."""

    starts_at: datetime
    ends_at: datetime
    in_window: bool
    daily: bool

    def types(self, spec: WindowSpec) -> tuple[str, ...]:
        """The types that run in it, in the order of the spec."""
        return tuple(task.type for task in spec.tasks if (self.daily if task.run_policy == "Daily" else self.in_window))


def timetable(spec: WindowSpec, now: datetime) -> Timetable:
    """Raises ScheduleError with what to write instead."""
    closing = Closing(last_start=spec.closing.last_start.timedelta, cancel=spec.closing.cancel.timedelta)
    checked = calendar(
        schedule=spec.schedule,
        time_zone=spec.time_zone,
        duration=spec.duration.timedelta,
        closing=closing,
        exclusions=(
            Exclusion(
                name=exclusion.name,
                starts_at=parse_rfc3339(exclusion.from_),
                ends_at=parse_rfc3339(exclusion.to),
                reason=exclusion.reason or "",
            )
            for exclusion in spec.exclusions
        ),
        now=now,
    )
    if not any(task.run_policy == "Daily" for task in spec.tasks):
        return Timetable(window=checked)
    at = _time_of_day(spec.schedule, checked.zone, now)
    daily = replace(checked, schedule=Schedule(daily=Daily(at=at)), duration=min(checked.duration, DAY))
    return Timetable(window=checked, daily=daily)


def _time_of_day(schedule: Schedule, zone: ZoneInfo, now: datetime) -> TimeOfDay:
    """When on a day the window starts; of several starts on one day the first."""
    for form in (schedule.daily, schedule.weekly, schedule.monthly):
        if form is not None:
            return form.at
    day = wall_of(occurrences(schedule, zone=zone, after=now, limit=1)[0], zone).date()
    midnight = moment_of(wall(day.year, day.month, day.day), zone)
    first = occurrences(schedule, zone=zone, after=midnight - timedelta(seconds=1), limit=1)[0]
    return TimeOfDay(f"{wall_of(first, zone):%H:%M}")


def run_name(*, window: ObjectKey, target: ObjectKey, starts_at: datetime) -> str:
    """`<window>-<h>-<start>`: h keeps windows and targets of other namespaces apart."""
    seconds = f"{starts_at:%S}" if starts_at.second else ""
    return f"{window.name}-{short_hash(f'{window}/{target}')}-{starts_at:%Y%m%d-%H%M}{seconds}"


def proposal(ended: datetime, zone: ZoneInfo, margin: timedelta = timedelta(minutes=15)) -> str:
    """A time of day for a window whose dump ended then: the next full hour that leaves some margin."""
    shown = wall_of(ended + margin, zone)
    full = shown.replace(minute=0, second=0, microsecond=0)
    return f"{full if full == shown else full + timedelta(hours=1):%H:%M}"
