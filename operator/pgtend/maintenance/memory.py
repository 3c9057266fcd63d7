"""What this process remembers of a run: its items in order, what came of each, and what it has waited for. The record
keeps what the next process needs (runs.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.findings import ObjectKey
from pgtend.gate.reasons import GateReason
from pgtend.kube.index import Record
from pgtend.maintenance import runs
from pgtend.maintenance.book import Known
from pgtend.maintenance.observe import Looked
from pgtend.maintenance.plan import Slot
from pgtend.maintenance.runs import key_of
from pgtend.maintenance.score import Key, served_from
from pgtend.tasks.protocol import Item, ItemResult, Outcome
from pgtend.tasks.registry import type_of
from pgtend.tasks.runner import Ending, Run

ASIDE = 15.0
"""Seconds until an item that gave way, or was cancelled, is tried again."""
TRIES = 3
_GONE = "not due any more when the operator had come back"
_AGAIN = frozenset({Outcome.DEFERRED_LOCKED, Outcome.DEFERRED_BLOCKING, Outcome.CANCELLED})


@dataclass(slots=True, kw_only=True)
class Memory:
    """Of one run. `until` is when a type's own timeout ends, `aside` when (monotonic) an item may be tried again,
    `backup_since` since when it waits for a dump, `backup_for` how long it has waited for dumps, `why` what it waited
    for last."""

    uid: str
    looked: Looked | None = None
    looked_at: datetime | None = None
    items: tuple[Item, ...] = ()
    results: dict[Key, ItemResult] = field(default_factory=dict)
    tries: dict[Key, int] = field(default_factory=dict)
    aside: dict[Key, float] = field(default_factory=dict)
    until: dict[str, datetime] = field(default_factory=dict)
    started_at: datetime | None = None
    written: float = 0.0
    notes: list[str] = field(default_factory=list)
    backup_since: datetime | None = None
    backup_for: timedelta = timedelta(0)
    backup_policy: str = ""
    why: str = ""

    @property
    def last_done(self) -> Key | None:
        done = [key_of(item) for item in self.items if key_of(item) in self.results]
        return done[-1] if done else None

    def waits_for_backup(self, policy: str | None, now: datetime) -> None:
        self.backup_since = self.backup_since or now
        self.backup_policy = policy or self.backup_policy

    def waited(self, now: datetime) -> None:
        """It does not wait for a dump any more."""
        if self.backup_since is not None:
            self.backup_for += now - self.backup_since
            self.backup_since = None

    def is_open(self, key: Key) -> bool:
        """Whether it is still to be done: not begun, or worth another try."""
        result = self.results.get(key)
        return result is None or (result.outcome in _AGAIN and self.tries.get(key, 0) < TRIES)

    def take_over(self, run: Run, *, monotonic: float) -> None:
        """Take the results of an order that has ended. What was never begun stays open."""
        type_ = str(run.order.task.type)
        for item in run.order.items:
            result = run.results.get(item.object)
            if result is None:
                continue
            key = Key(type_, item.object)
            if result.outcome is Outcome.CANCELLED and item.object != run.current:
                continue
            waits = run.deferred.get(item.object)
            if waits is not None and waits.reason is GateReason.BACKUP_DUE:
                continue  # there is time after the dump
            if result.outcome is Outcome.CANCELLED and run.ending is Ending.BROKEN:
                result = ItemResult(outcome=Outcome.FAILED, actual=result.actual, message=run.message[:256])
            self.results[key] = result
            if result.outcome in _AGAIN:
                self.tries[key] = self.tries.get(key, 0) + 1
                self.aside[key] = monotonic + ASIDE
        self.notes.extend(run.swept)
        if run.ending is Ending.BROKEN:
            for item in run.order.items:
                broken = ItemResult(outcome=Outcome.FAILED, message=run.message[:256])
                self.results.setdefault(Key(type_, item.object), broken)

    def arrange(self, looked: Looked, *, resume: Key | None) -> None:
        """Put what is due in order; `resume` is where the last window had to stop."""
        self.looked = looked
        self.notes.extend(looked.swept)
        for plan in looked.plans:
            self.notes.extend(plan.notes)
        order = served_from([key_of(item) for item in looked.items], resume)
        self.items = tuple(looked.items[i] for i in order)

    def take_up(self, record: Record) -> None:
        """Of a run that another process began: what it did is known from the record, or from the database, or is not
        due any more."""
        known = {key_of(item) for item in self.items}
        found = self.looked.found if self.looked is not None else {}
        self.results = {**found, **runs.kept_results(record.status)}
        before = tuple(item for item in listed(record) if key_of(item) not in known)
        for item in before:
            self.results.setdefault(key_of(item), ItemResult(outcome=Outcome.SUCCEEDED, message=_GONE))
        self.items = (*before, *self.items)
        if not record.status.get("truncated"):
            return
        # a record lists fifty: of the others its journal says how far they were done
        done = runs.last_done(record.status)
        position = next((i for i, item in enumerate(self.items) if key_of(item) == done), None)
        for item in self.items[: position + 1] if position is not None else ():
            self.results.setdefault(key_of(item), ItemResult(outcome=Outcome.SUCCEEDED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A run with all that it belongs to."""

    record: Record
    target: ObjectKey
    target_spec: TargetSpec
    known: Known
    slot: Slot
    memory: Memory

    @property
    def observing(self) -> bool:
        return "Observe" in (self.known.spec.mode, self.target_spec.mode)

    @property
    def dry(self) -> frozenset[str]:
        """The types that are only planned."""
        return dry_types(self.known)

    @property
    def deadline(self) -> datetime:
        """When what runs is cancelled."""
        return self.slot.ends_at - self.known.timetable.window.closing.cancel

    def open_items(self, now: datetime) -> list[Item]:
        """What is not done, in order. A type whose own timeout is over has none."""
        memory = self.memory
        tasks = memory.looked.tasks if memory.looked is not None else {}
        later = now + timedelta(seconds=1)
        return [
            item
            for item in memory.items
            if str(item.type) in tasks
            and str(item.type) not in self.dry
            and memory.until.get(str(item.type), later) > now
            and memory.is_open(key_of(item))
        ]


def dry_types(known: Known) -> frozenset[str]:
    return frozenset(task.type for task in known.spec.tasks if task.execution == "DryRun")


def listed(record: Record) -> tuple[Item, ...]:
    """The items that a record lists."""
    return tuple(
        Item(type=type_of(str(row["type"])), object=str(row["object"]), verb="", sql=str(row.get("sql") or ""))
        for row in record.status.get("items") or ()
    )
