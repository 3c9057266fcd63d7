"""When windows are open: pure arithmetic on half-open spans [starts_at, ends_at) in UTC.

The rules, all of them tested:
- A start is a wall time in the schedule's zone. In spring a start that the clock skips happens at the first moment
  after the gap; in autumn a start that the clock shows twice happens once, when it is shown first. This holds for
  cron of every ten minutes too: the repeated hour has no starts.
- The duration is elapsed time: 2h stays 2h when the clock changes meanwhile.
- Windows of one schedule never overlap: where the clock makes one run into the next start, it ends there.
- Exclusions beat everything. What they leave of a window is open, as one or more shorter windows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from pgtend.api.schedule import Schedule
from pgtend.api.types import format_duration
from pgtend.core.clock import rfc3339
from pgtend.gate.recurrence import HORIZON, starts_per_year, to_cron, walls
from pgtend.gate.walltime import ScheduleError, load_zone, moment_of, moments_of, wall_of


def occurrences(schedule: Schedule, *, zone: ZoneInfo, after: datetime, limit: int) -> tuple[datetime, ...]:
    """The next starts strictly after `after` (aware), in UTC, at most `limit`, none beyond five years.

    Raises ScheduleError where the schedule has no meaning.
    """
    return tuple(islice(_starts(schedule, zone, after), limit))


def _starts(schedule: Schedule, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    if after.tzinfo is None:
        raise ValueError("a moment without a zone is no moment")
    last = after.astimezone(UTC)
    for wall in walls(schedule, wall_of(after, zone)):
        start = moment_of(wall, zone)
        if start > last:  # several starts in a gap become one
            yield start
            last = start


def cronjob_starts(schedule: Schedule, *, zone: ZoneInfo, after: datetime, limit: int) -> tuple[datetime, ...]:
    """When Kubernetes starts a CronJob made of `to_cron(schedule)`, strictly after `after`, in UTC.

    It follows the clock more literally than windows do: what falls in a gap is not started that day, and what falls in
    a fold is started twice. Raises ScheduleError for what a CronJob cannot carry out.
    """
    return tuple(islice(_cronjob_starts(Schedule(cron=to_cron(schedule)), zone, after), limit))


def _cronjob_starts(schedule: Schedule, zone: ZoneInfo, after: datetime) -> Iterator[datetime]:
    second_showings: list[datetime] = []
    # Three hours earlier on the clock, because a fold shows earlier times again.
    for wall in walls(schedule, wall_of(after, zone) - timedelta(hours=3)):
        for index, moment in enumerate(moments_of(wall, zone)):
            if moment <= after:
                continue
            if index:
                heappush(second_showings, moment)
                continue
            while second_showings and second_showings[0] < moment:
                yield heappop(second_showings)
            yield moment


@dataclass(frozen=True, slots=True)
class Window:
    """A span in which disruptive work may run; the end is excluded. Both in UTC."""

    starts_at: datetime
    ends_at: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.starts_at <= moment < self.ends_at

    @property
    def duration(self) -> timedelta:
        return self.ends_at - self.starts_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """Both count back from a window's end: nothing starts in its last `last_start`, what runs is cancelled `cancel`
    before the end."""

    last_start: timedelta = timedelta(minutes=20)
    cancel: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A span, end excluded, in which no window is open."""

    name: str
    starts_at: datetime
    ends_at: datetime
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """All that says when one MaintenanceWindow is open. Make it with `calendar()`, which checks it."""

    schedule: Schedule
    zone: ZoneInfo
    duration: timedelta
    closing: Closing = Closing()
    exclusions: tuple[Exclusion, ...] = ()

    def window_at(self, now: datetime) -> Window | None:
        """The window that is open at `now`."""
        first = next(self._windows(now), None)
        return first if first is not None and now in first else None

    def next_windows(self, now: datetime, n: int) -> tuple[Window, ...]:
        """The next `n` windows that begin after `now`; fewer where five years hold fewer."""
        return tuple(islice((window for window in self._windows(now) if window.starts_at > now), n))

    def active_exclusion(self, now: datetime) -> Exclusion | None:
        """Of the exclusions in force at `now` the one that lasts longest."""
        active = [e for e in self.exclusions if e.starts_at <= now < e.ends_at]
        return max(active, key=lambda e: e.ends_at, default=None)

    def next_exclusion(self, now: datetime) -> Exclusion | None:
        """The next exclusion that begins after `now`."""
        return min((e for e in self.exclusions if e.starts_at > now), key=lambda e: e.starts_at, default=None)

    def _windows(self, after: datetime) -> Iterator[Window]:
        """Windows that end after `after`, in order."""
        after = after.astimezone(UTC)
        blocks = _merged(self.exclusions)
        cursor: datetime | None = after - self.duration
        while cursor is not None:
            resume: datetime | None = None
            for start, following in _with_following(_starts(self.schedule, self.zone, cursor)):
                if start > after + HORIZON:
                    return
                end = min(start + self.duration, following) if following else start + self.duration
                yield from (piece for piece in _without(Window(start, end), blocks) if piece.ends_at > after)
                # A long exclusion is jumped over, not walked through start by start.
                covering = next((b for b in blocks if b.starts_at <= start and end <= b.ends_at), None)
                if covering is not None and covering.ends_at > after + HORIZON:
                    return
                if covering is not None and covering.ends_at - self.duration > start:
                    resume = covering.ends_at - self.duration
                    break
            cursor = resume


def _with_following(starts: Iterator[datetime]) -> Iterator[tuple[datetime, datetime | None]]:
    last: datetime | None = None
    for start in starts:
        if last is not None:
            yield last, start
        last = start
    if last is not None:
        yield last, None


def _merged(exclusions: Iterable[Exclusion]) -> tuple[Window, ...]:
    merged: list[Window] = []
    for exclusion in sorted(exclusions, key=lambda e: e.starts_at):
        if merged and exclusion.starts_at <= merged[-1].ends_at:
            merged[-1] = Window(merged[-1].starts_at, max(merged[-1].ends_at, exclusion.ends_at))
        else:
            merged.append(Window(exclusion.starts_at, exclusion.ends_at))
    return tuple(merged)


def _without(window: Window, blocks: Sequence[Window]) -> Iterator[Window]:
    start = window.starts_at
    for block in blocks:
        if block.ends_at <= start or block.starts_at >= window.ends_at:
            continue
        if block.starts_at > start:
            yield Window(start, block.starts_at)
        start = block.ends_at
    if start < window.ends_at:
        yield Window(start, window.ends_at)


def check_schedule(schedule: Schedule, time_zone: str, *, now: datetime) -> ZoneInfo:
    """The zone, when schedule and zone have a meaning and a start within five years. Raises ScheduleError."""
    zone = load_zone(time_zone)
    if not occurrences(schedule, zone=zone, after=now, limit=1):
        raise ScheduleError(
            f"the schedule has no start within five years of {rfc3339(now)}: write days that exist"
            " and, in an rrule, an UNTIL that lies ahead"
        )
    return zone


def calendar(
    *,
    schedule: Schedule,
    time_zone: str,
    duration: timedelta,
    closing: Closing | None = None,
    exclusions: Iterable[Exclusion] = (),
    now: datetime,
) -> Calendar:
    """A checked Calendar. Raises ScheduleError with what to write instead."""
    closing = closing or Closing()
    zone = check_schedule(schedule, time_zone, now=now)
    if not timedelta(0) <= closing.cancel <= closing.last_start < duration:
        raise ScheduleError(
            f"closing counts back from the end: write cancel ({format_duration(closing.cancel)}) at most lastStart"
            f" ({format_duration(closing.last_start)}), and lastStart below duration ({format_duration(duration)})"
        )
    # On the wall clock, so that a change of the clock makes no difference to what is valid.
    gaps = [b - a for a, b in pairwise(islice(walls(schedule, wall_of(now, zone)), 500))]
    if gaps and duration > min(gaps):
        raise ScheduleError(
            f"duration {format_duration(duration)} reaches into the next start, which follows after"
            f" {format_duration(min(gaps))}: shorten duration or start less often"
        )
    checked = tuple(exclusions)
    for exclusion in checked:
        if exclusion.ends_at <= exclusion.starts_at:
            raise ScheduleError(f"exclusion {exclusion.name}: write `to` later than `from`")
    return Calendar(schedule=schedule, zone=zone, duration=duration, closing=closing, exclusions=checked)


def rarer_first(calendars: Iterable[tuple[str, Calendar]]) -> list[tuple[str, Calendar]]:
    """Named calendars in the order in which overlapping windows are served: the one that starts less often first,
    then by name."""
    return sorted(calendars, key=lambda item: (starts_per_year(item[1].schedule), item[0]))
