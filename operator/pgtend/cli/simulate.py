"""`pgtend window simulate`: the openings of MaintenanceWindows in a span of time, before they are applied: what runs in
each, which other window of the same target is open beside it and served first, which dumps fall into it. By the same
arithmetic as the operator's; nothing is looked up anywhere."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pgtend.api.maintenancewindow import WindowSpec
from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.types import format_duration
from pgtend.cli.options import printable
from pgtend.core.clock import rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.gate.classes import TaskClass, TaskType
from pgtend.gate.recurrence import starts_per_year
from pgtend.gate.walltime import load_zone
from pgtend.gate.windows import Window, cronjob_starts
from pgtend.kube.index import Record
from pgtend.maintenance.plan import Slot, Timetable, timetable

SCHEMA = "pgtend.dev/window-simulation/v1"
MOST = 20_000
"""Openings of one window; more than one an hour for two years nobody reads."""
SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """A start of a policy's dump on a target of the window."""

    policy: ObjectKey
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One opening, its end excluded. `beside` are other windows of one of its targets that are open meanwhile, and
    whether they are served first; `dumps` start in it."""

    window: ObjectKey
    slot: Slot
    tasks: tuple[str, ...]
    beside: tuple[tuple[ObjectKey, bool], ...] = ()
    dumps: tuple[Dump, ...] = ()

    @property
    def disruptive(self) -> bool:
        """Whether a dump stands in the way of some of it."""
        return any(one.task_class is TaskClass.DISRUPTIVE for one in TaskType if one.value in self.tasks)

    def document(self) -> dict[str, Any]:
        return {
            "window": f"{self.window.namespace}/{self.window.name}",
            "startsAt": rfc3339(self.slot.starts_at),
            "endsAt": rfc3339(self.slot.ends_at),
            "inWindow": self.slot.in_window,
            "tasks": list(self.tasks),
            "beside": [{"window": f"{k.namespace}/{k.name}", "servedFirst": first} for k, first in self.beside],
            "dumps": [{"policy": f"{d.policy.namespace}/{d.policy.name}", "at": rfc3339(d.at)} for d in self.dumps],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`lost` counts by window and exclusion the openings that an exclusion shortens or takes away; `unresolved` are
    windows of whose targets nothing is known."""

    openings: tuple[Opening, ...]
    lost: Mapping[tuple[ObjectKey, str], int]
    idle: tuple[ObjectKey, ...]
    unresolved: tuple[ObjectKey, ...]

    def only(self, windows: Collection[ObjectKey]) -> Plan:
        """The same of these windows."""
        return Plan(
            openings=tuple(one for one in self.openings if one.window in windows),
            lost={(key, name): n for (key, name), n in self.lost.items() if key in windows},
            idle=tuple(key for key in self.idle if key in windows),
            unresolved=tuple(key for key in self.unresolved if key in windows),
        )


def simulate(
    windows: Iterable[Record],
    *,
    policies: Iterable[Record] = (),
    targets: Iterable[Record] = (),
    start: datetime,
    end: datetime,
) -> Plan:
    """Openings that begin from `start` on and before `end`, in order. Suspended windows and policies have none. Raises
    ScheduleError with what to write instead."""
    known = tuple(targets)
    given = [(record, record.parsed(WindowSpec)) for record in windows]
    active = {record.key: (spec, timetable(spec, start)) for record, spec in given if not spec.suspend}
    served = {record.key: _targets(record.key, spec, known) for record, spec in given}
    rare = {key: (starts_per_year(spec.schedule), str(key)) for key, (spec, _) in active.items()}
    slots = {key: list(_slots(table, start, end)) for key, (_, table) in active.items()}
    dumps = [(place, dump) for record in policies for place, dump in _dumps(record, start, end)]
    openings = [
        Opening(
            window=key,
            slot=slot,
            tasks=slot.types(spec),
            beside=tuple(
                (other, rare[other] < rare[key])
                for other in active
                if other != key and served[key] & served[other] and _open_beside(slot, active[other][1])
            ),
            dumps=tuple(
                dump for place, dump in dumps if place in served[key] and slot.starts_at <= dump.at < slot.ends_at
            ),
        )
        for key, (spec, _) in active.items()
        for slot in slots[key]
    ]
    lost: Counter[tuple[ObjectKey, str]] = Counter()
    for key, (_, table) in active.items():
        lost.update({(key, name): n for name, n in _lost(table, start, end).items()})
    return Plan(
        openings=tuple(sorted(openings, key=lambda one: (one.slot.starts_at, rare[one.window]))),
        lost=lost,
        idle=tuple(record.key for record, spec in given if spec.suspend),
        unresolved=tuple(key for key, places in served.items() if not places),
    )


def _targets(window: ObjectKey, spec: WindowSpec, known: Sequence[Record]) -> frozenset[ObjectKey]:
    if spec.target_refs is not None:
        return frozenset(ObjectKey("PostgresTarget", r.namespace or window.namespace, r.name) for r in spec.target_refs)
    labels = spec.target_selector.match_labels if spec.target_selector is not None else {}
    return frozenset(
        one.key
        for one in known
        if one.key.namespace == window.namespace and all(one.labels.get(k) == v for k, v in labels.items())
    )


def _slots(table: Timetable, start: datetime, end: datetime) -> Iterator[Slot]:
    cursor = start - SECOND
    for _ in range(MOST):
        slot = table.next_slot(cursor)
        if slot is None or slot.starts_at >= end:
            return
        yield slot
        cursor = slot.starts_at
    raise ValueError(f"a window has more than {MOST} openings in that time: ask for fewer days")


def _open_beside(slot: Slot, other: Timetable) -> bool:
    if not slot.in_window:
        return False
    following = other.window.next_windows(slot.starts_at, 1)
    return other.window.window_at(slot.starts_at) is not None or any(w.starts_at < slot.ends_at for w in following)


def _dumps(policy: Record, start: datetime, end: datetime) -> Iterator[tuple[ObjectKey, Dump]]:
    spec = policy.parsed(PolicySpec)
    place = ObjectKey("PostgresTarget", spec.target_ref.namespace or policy.key.namespace, spec.target_ref.name)
    zone, cursor = load_zone(spec.time_zone), start - SECOND
    while not spec.suspend:
        for at in (found := cronjob_starts(spec.schedule, zone=zone, after=cursor, limit=400)):
            if at >= end:
                return
            yield place, Dump(policy=policy.key, at=at)
        if not found:
            return
        cursor = found[-1]


def _lost(table: Timetable, start: datetime, end: datetime) -> Counter[str]:
    """By exclusion: how many openings it takes away or cuts."""
    bare = Timetable(window=replace(table.window, exclusions=()))
    found: Counter[str] = Counter()
    for exclusion in table.window.exclusions:
        first, last = max(start, exclusion.starts_at - table.window.duration), min(end, exclusion.ends_at)
        for slot in _slots(bare, first, last) if first < last else ():
            if (
                Window(slot.starts_at, slot.ends_at).ends_at > exclusion.starts_at
                and slot.starts_at < exclusion.ends_at
            ):
                found[exclusion.name] += 1
    return found


def document(plan: Plan, start: datetime, end: datetime) -> str:
    lost = [
        {"window": f"{k.namespace}/{k.name}", "exclusion": name, "openings": n} for (k, name), n in plan.lost.items()
    ]
    return json.dumps(
        {
            "schema": SCHEMA,
            "from": rfc3339(start),
            "to": rfc3339(end),
            "openings": [one.document() for one in plan.openings],
            "lostToExclusions": lost,
            "suspended": [f"{k.namespace}/{k.name}" for k in plan.idle],
            "targetsUnknown": [f"{k.namespace}/{k.name}" for k in plan.unresolved],
        },
        indent=2,
    )


def lines(plan: Plan, zones: Mapping[ObjectKey, str], *, daily: bool) -> Iterator[str]:
    """For people. `zones` are the windows' time zones, in which moments are told, with their offset; `daily` has days
    listed on which only daily tasks run."""
    for one in plan.openings:
        if not one.slot.in_window and not daily:
            continue
        zone = load_zone(zones[one.window])
        begins, ends = one.slot.starts_at.astimezone(zone), one.slot.ends_at.astimezone(zone)
        name = f"{one.window.namespace}/{one.window.name}"
        kind = "" if one.slot.in_window else "  (daily tasks only)"
        tasks = ", ".join(one.tasks) or "no task"
        yield printable(f"{begins:%a %Y-%m-%d %H:%M%z} to {ends:%a %H:%M%z}  {name}  {tasks}{kind}")
        for other, first in one.beside:
            yield printable(
                f"    {other.namespace}/{other.name} is open too, and served {'first' if first else 'after it'}"
            )
        for dump in one.dumps if one.disruptive else ():
            at = dump.at.astimezone(zone)
            who = f"{dump.policy.namespace}/{dump.policy.name}"
            yield printable(
                f"    the dump of {who} starts at {at:%H:%M}: disruptive work ends before it, or waits for its end"
            )
    for key in zones:
        yield _summary(plan, key)


def _summary(plan: Plan, key: ObjectKey) -> str:
    mine = [one for one in plan.openings if one.window == key and one.slot.in_window]
    hours = sum((one.slot.ends_at - one.slot.starts_at for one in mine), timedelta())
    text = f"{key.namespace}/{key.name}: {len(mine)} openings, {format_duration(hours)} in all"
    if dumps := sum(bool(one.dumps) for one in mine):
        text += f", {dumps} with a dump in them"
    for (window, name), count in plan.lost.items():
        text += f"; exclusion {name} meets {count}" if window == key else ""
    if key in plan.idle:
        text += "; suspended"
    if key in plan.unresolved:
        text += "; its targets are not known: name files with PostgresTargets"
    return printable(text)
