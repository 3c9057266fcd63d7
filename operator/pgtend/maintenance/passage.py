"""A run's way through its window, step by step: scheduled, waiting or begun, item after item, over.

The gate is asked before each item and every second (tasks/runner.py); what it refuses for now is waited for, what it
refuses for this window ends the run.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from pgtend.api.maintenancerun import RunSpec
from pgtend.api.reasons import RunReason as R
from pgtend.core.clock import Clock, rfc3339
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.engine.loop import Outcome as Due
from pgtend.gate.asking import Refusal
from pgtend.gate.reasons import GateReason
from pgtend.kube.index import Index, Record
from pgtend.maintenance import judge, runs
from pgtend.maintenance.blockers import OVER, Blockers, policy_of
from pgtend.maintenance.book import Book, Known, finished, target_of, window_of
from pgtend.maintenance.ending import end_of
from pgtend.maintenance.looking import Lookout
from pgtend.maintenance.memory import ASIDE, Memory, Place
from pgtend.maintenance.runs import key_of
from pgtend.maintenance.score import Key, stages
from pgtend.maintenance.scribe import Scribe
from pgtend.tasks.protocol import Item
from pgtend.tasks.runner import Order, Runner
from pgtend.telemetry.metrics import METRICS

# seconds: between two looks at what is waited for; between two writes of progress
EVERY, PACE = 2.0, 10.0
LONG = 300.0
PATIENCE = timedelta(minutes=10)
"""After the window's end: so long leftovers of a killed process are looked for."""
_BACKUP = frozenset({GateReason.WAITING_FOR_BACKUP, GateReason.BACKUP_DUE})


class Passage:
    """`wake` has an object reconciled, `drop` forgets a run that has ended."""

    def __init__(
        self,
        *,
        index: Index,
        book: Book,
        runner: Runner,
        blockers: Blockers,
        lookout: Lookout,
        scribe: Scribe,
        wake: Callable[[ObjectKey], None],
        drop: Callable[[ObjectKey], Due],
        clock: Clock,
    ) -> None:
        self._index, self._book, self._runner, self._blockers = index, book, runner, blockers
        self._lookout, self._scribe, self._wake, self._drop, self._clock = lookout, scribe, wake, drop, clock

    async def go(self, place: Place) -> Due:
        """The next step at this moment."""
        now = self._clock.now()
        if now < place.slot.starts_at:
            return await self._scheduled(place, now)
        claimed = self._claimed(place.record)
        if claimed and place.memory.started_at is None:
            return await self._take_up(place, now)
        if not claimed:
            return await self._begin(place, now)
        return await self._step(place, now)

    def _claimed(self, record: Record) -> bool:
        journal = self._scribe.journal(record)
        return journal is not None and journal.claimed_at is not None

    async def _scheduled(self, place: Place, now: datetime) -> Due:
        record = place.record
        again = max(0.05, min(LONG, (place.slot.starts_at - now).total_seconds() + 0.05))
        if record.reason("Ready") == R.SCHEDULED and record.status.get("observedGeneration") == record.generation:
            return Due(again=again, jitter=False)
        looked = self._lookout.look(place, "scheduled")
        if looked is None:
            return Due(again=EVERY)
        if isinstance(looked, Refusal):
            return Due(again=ASIDE)
        await self._scribe.scheduled(place, looked.items)
        return Due(again=again, jitter=False)

    async def _begin(self, place: Place, now: datetime) -> Due:
        """The window is open and nothing is claimed yet."""
        record, memory = place.record, place.memory
        types = place.slot.types(place.known.spec)
        active = [t for t in types if t not in place.dry]
        if now >= place.slot.ends_at:
            return await self.end(record, memory, known=place.known, skipped=memory.why or "nobody looked at it")
        if active and not place.observing:
            turn = self._blockers.turn(place)
            blocked = turn or self._blockers.ask(place, active[0], now)
            if blocked is not None and blocked.reason in OVER:
                # what it has waited for all the time says more than that the time is over
                said = turn.message if turn is not None else memory.why or blocked.message
                return await self.end(record, memory, known=place.known, skipped=said)
            if blocked is not None:
                return await self._wait(place, blocked, now)
        looked = self._lookout.look(place, "open", since=place.slot.starts_at, now=now)
        if looked is None:
            return Due(again=EVERY)
        if isinstance(looked, Refusal):
            return await self._wait(place, looked, now)
        memory.arrange(looked, resume=self._resume(place))
        if place.observing or not active:
            await self._scribe.only_planned(place)
            return self._ended(record)
        memory.started_at = now
        memory.waited(now)
        failpoint("maintenance.before_claim")
        await self._scribe.progress(record, memory, memory.results, ())
        failpoint("maintenance.claimed")
        self._wake(place.known.key)
        return Due(again=0.0, jitter=False)

    async def _take_up(self, place: Place, now: datetime) -> Due:
        """Claimed by a process that is gone: remove what it left, and go on."""
        record, memory = place.record, place.memory
        journal = self._scribe.journal(record)
        started = journal.claimed_at if journal is not None else None
        claimed = runs.claimed_items(record.status)
        looked = self._lookout.look(place, "taken up", sweep=claimed)
        if looked is None:
            return Due(again=EVERY)
        if isinstance(looked, Refusal):
            if now < place.slot.ends_at + PATIENCE:
                return Due(again=ASIDE)
            memory.started_at = started or now
            memory.results = runs.kept_results(record.status)
            memory.notes.append(f"leftovers of an earlier process were not looked for: {looked.message}")
            return await self.end(record, memory, known=place.known, skipped=looked.message)
        memory.arrange(looked, resume=self._resume(place))
        memory.take_up(record)
        memory.started_at = started or now
        memory.notes.append("the operator was restarted meanwhile")
        return Due(again=0.0, jitter=False)

    def _resume(self, place: Place) -> Key | None:
        """Where the last run of this window on this target had to stop."""
        others = [
            run
            for run in self._book.runs(place.known.key, place.target)
            if finished(run) and run.key != place.record.key
        ]
        newest = max(others, key=lambda run: str(run.parsed(RunSpec).starts_at), default=None)
        return runs.resume_of(newest.status) if newest is not None else None

    async def _step(self, place: Place, now: datetime) -> Due:
        """Begin the next items that are open, or end."""
        memory, known = place.memory, place.known
        opened = place.open_items(now)
        if not opened:
            return await self.end(place.record, memory, known=known)
        keys = [key_of(item) for item in opened if memory.aside.get(key_of(item), 0.0) <= self._clock.monotonic()]
        closing = known.timetable.window.closing
        over = place.slot.ends_at - closing.last_start
        if now >= over:
            return await self.end(place.record, memory, known=known, skipped=f"nothing starts after {rfc3339(over)}")
        if not keys:
            return Due(again=EVERY)
        stage = stages(keys)[0]
        type_ = stage[0].type
        refusal = self._blockers.ask(place, type_, now) or await self._blockers.pressed(place)
        if refusal is not None:
            if refusal.reason in OVER:
                return await self.end(place.record, memory, known=known, skipped=refusal.message)
            return await self._wait(place, refusal, now)
        memory.waited(now)
        chosen = set(stage)
        items = tuple(item for item in opened if key_of(item) in chosen)
        await self._scribe.progress(place.record, memory, memory.results, items)
        failpoint("maintenance.before_start")
        if self._blockers.ask(place, type_, self._clock.now()) is not None:
            return Due(again=EVERY)  # somebody else began while the record was written
        self._start(place, type_, items, now)
        return Due(again=PACE)

    def _start(self, place: Place, type_: str, items: tuple[Item, ...], now: datetime) -> None:
        known, memory = place.known, place.memory
        assert memory.looked is not None  # noqa: S101 - planned before anything is started
        entry = next(task for task in known.spec.tasks if task.type == type_)
        deadline = place.deadline
        if entry.timeout is not None:
            memory.until.setdefault(type_, now + entry.timeout.timedelta)
            deadline = min(deadline, memory.until[type_])
        ground = self._lookout.ground(place.target)
        assert ground is not None  # noqa: S101 - asked for its standing a moment ago
        self._runner.start(
            Order(
                holder=place.record.key,
                uid=place.record.uid,
                task=memory.looked.tasks[type_],
                ground=ground,
                items=items,
                run_policy=policy_of(place),
                window=known.key if place.slot.in_window else None,
                deadline=deadline,
                state=lambda: self._blockers.state(place.target, known.key),
                latest=lambda: self._lookout.ground(place.target),
                hold=lambda: self._blockers.pressed(place),
            )
        )

    async def _wait(self, place: Place, refusal: Refusal, now: datetime) -> Due:
        """Something is in the way for now; the record says so, and it is looked at again soon."""
        memory, record = place.memory, place.record
        reason = R.WAITING
        if refusal.reason in _BACKUP:
            reason = R.WAITING_FOR_BACKUP
            memory.waits_for_backup(refusal.object, now)
        else:
            memory.waited(now)
        if refusal.reason is GateReason.PAUSED:
            reason = R.PAUSED
        memory.why = refusal.message
        before = record.reason("Complete")
        await self._scribe.waiting(place, reason, refusal)
        if before != reason:
            self._wake(place.known.key)
        return Due(again=EVERY)

    # The end

    async def end(
        self,
        record: Record,
        memory: Memory,
        *,
        known: Known | None = None,
        stopped: str | None = None,
        refused: str | None = None,
        skipped: str | None = None,
    ) -> Due:
        """The last word on a run that was begun, or that never could."""
        end = end_of(
            record,
            memory,
            known=known,
            now=self._clock.now(),
            stopped=stopped,
            refused=refused,
            skipped=skipped,
        )
        for item in end.items:
            METRICS.items.labels(str(item.type), str(memory.results[key_of(item)].outcome)).inc()
        await self._scribe.over(
            record,
            memory,
            judge.finished(end.ended),
            started_at=memory.started_at,
            resume=end.resume,
            items=end.items,
        )
        return self._ended(record)

    def _ended(self, record: Record) -> Due:
        """The next of the window's targets, and the next window of the target, may have waited for it."""
        window, target = window_of(record), target_of(record)
        self._wake(window)
        for other in self._index.of_kind("MaintenanceRun"):
            if other.key == record.key or other.spec_error is not None or finished(other):
                continue
            if window_of(other) == window or target_of(other) == target:
                self._wake(other.key)
        return self._drop(record.key)
