"""What is busy when on one target, as values: dumps that run or are about to, and disruptive work of our own.

Controllers build it from the policies, their CronJobs and Jobs, and from the runs' journals; the gate only reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from pgtend.api.schedule import Schedule
from pgtend.core.findings import ObjectKey
from pgtend.gate.windows import cronjob_starts

LOOK_AHEAD = 3
"""Starts of a policy that are looked at; the gate needs the first, a fold may put two into one window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpPlan:
    """When dumps of one policy start.

    `due` are the starts in order, in UTC: those that have passed without a Job and may still get one come first.
    Kubernetes makes the Job some seconds after the start, and after a skipped start as late as its starting deadline;
    without this a window that opens with the dump would be used in between.
    """

    policy: ObjectKey
    due: tuple[datetime, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveDump:
    """A dump Job that has been created and has not ended. `started_at` in UTC."""

    policy: ObjectKey
    job: str
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningItem:
    """Disruptive work that is claimed and unfinished: who does it, what it is and on what, since when (UTC)."""

    holder: ObjectKey
    type: str
    object: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """All of one target. Empty means that nothing stands in the way."""

    dump_plans: tuple[DumpPlan, ...] = ()
    active_dumps: tuple[ActiveDump, ...] = ()
    running: tuple[RunningItem, ...] = ()

    def late_dump(self, now: datetime) -> tuple[ObjectKey, datetime] | None:
        """The policy and the moment of a start that has passed while its Job does not exist yet."""
        late = [(start, plan.policy) for plan in self.dump_plans for start in plan.due if start <= now]
        return (min(late)[1], min(late)[0]) if late else None

    def next_dump(self, now: datetime) -> tuple[ObjectKey, datetime] | None:
        """The policy and the moment of the next start after `now`, of all policies."""
        ahead = [(start, plan.policy) for plan in self.dump_plans for start in plan.due if start > now]
        return (min(ahead)[1], min(ahead)[0]) if ahead else None


def dump_plan(
    *,
    policy: ObjectKey,
    schedule: Schedule,
    zone: ZoneInfo,
    now: datetime,
    handled_until: datetime,
    starting_deadline: timedelta,
    spread: timedelta = timedelta(0),
) -> DumpPlan:
    """The plan of one policy that is not suspended.

    `handled_until` is the CronJob's lastScheduleTime, or its creation where it has none: starts up to then have had
    their Job. `spread` is added to each start where the CronJob is delayed for a fleet. Raises ScheduleError for a
    schedule that a CronJob cannot carry out.
    """
    # A start that is older than the deadline is a missed run and gets no Job any more.
    after = max(handled_until, now - starting_deadline) - spread
    passed_and_next = cronjob_starts(schedule, zone=zone, after=after, limit=LOOK_AHEAD)
    ahead = cronjob_starts(schedule, zone=zone, after=now - spread, limit=LOOK_AHEAD)
    return DumpPlan(policy=policy, due=tuple(sorted({start + spread for start in (*passed_and_next, *ahead)})))
