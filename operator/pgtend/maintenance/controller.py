"""MaintenanceWindow's controller: says whether the window can be kept, publishes when it is open for whom, and writes
a run for each target as soon as there is a plan for the next opening."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from pgtend.api.maintenancewindow import (
    MAINTENANCE_WINDOW,
    WindowSpec,
    WindowStatus,
)
from pgtend.api.reasons import WindowReason as W
from pgtend.core.clock import Clock
from pgtend.core.findings import ObjectKey
from pgtend.engine.dependents import Dependents
from pgtend.engine.loop import Outcome as Due
from pgtend.gate.recurrence import starts_per_year
from pgtend.gate.walltime import ScheduleError
from pgtend.kube.client import ApiError, KubeClient
from pgtend.kube.index import Index, Record
from pgtend.kube.status import Draft, StatusWriter
from pgtend.maintenance import board, judge
from pgtend.maintenance.book import Book, Known, begun, finished
from pgtend.maintenance.judge import Trouble
from pgtend.maintenance.plan import Timetable, timetable
from pgtend.maintenance.records import LATER, RunRecords
from pgtend.maintenance.served import Labels, Served, Targets
from pgtend.server.member import MemberSessions
from pgtend.server.registry import Registry
from pgtend.telemetry.metrics import METRICS

log = logging.getLogger(__name__)
# seconds: the longest between two looks
LONG = 300.0


class WindowController:
    """`labels_of` gives the labels of a namespace (None where they may not be read); `wake` has an object reconciled;
    `watched` are the namespaces that this installation sees, empty for all."""

    def __init__(
        self,
        *,
        index: Index,
        client: KubeClient,
        registry: Registry,
        status: StatusWriter,
        members: MemberSessions,
        dependents: Dependents,
        book: Book,
        labels_of: Labels,
        wake: Callable[[ObjectKey], None],
        watched: Collection[str],
        clock: Clock,
    ) -> None:
        self._index, self._status, self._dependents, self._book = index, status, dependents, book
        self._wake, self._clock = wake, clock
        self._targets = Targets(index=index, dependents=dependents, labels_of=labels_of, watched=watched)
        self._records = RunRecords(
            index=index,
            client=client,
            registry=registry,
            members=members,
            book=book,
            wake=wake,
            clock=clock,
        )

    async def reconcile(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Due]:
        return {key: await self._one(key) for key in keys}

    async def close(self) -> None:
        await self._records.close()

    async def prime(self) -> None:
        """Fill the book before anybody is served: an operation that waits for a window must not be told at a start of
        the operator that there is none."""
        now = self._clock.now()
        for record in self._index.of_kind("MaintenanceWindow"):
            if record.deleting or record.spec_error is not None:
                continue
            with suppress(ScheduleError):
                await self._know(record, record.parsed(WindowSpec), now)

    async def _know(self, record: Record, spec: WindowSpec, now: datetime) -> tuple[Known, Served]:
        """Publish when the window is open for whom. Raises ScheduleError."""
        times, rate = self._times(record, spec, now)
        served = await self._targets.serve(record.key, spec)
        known = Known(
            key=record.key,
            uid=record.uid,
            generation=record.generation,
            spec=spec,
            timetable=times,
            rate=rate,
            admitted=frozenset(served.admitted),
            refused=dict(served.refused),
        )
        self._book.put(known)
        return known, served

    async def _one(self, key: ObjectKey) -> Due:
        record = self._index.get(key)
        if record is None or record.deleting:
            await self._forget(key)
            return Due()
        if record.spec_error is not None:
            return await self._invalid(record, W.INVALID_SPEC, f"{record.spec_error}: correct it")
        spec = record.parsed(WindowSpec)
        now = self._clock.now()
        try:
            known, served = await self._know(record, spec, now)
        except ScheduleError as error:
            return await self._invalid(record, W.INVALID_SCHEDULE, error.message)
        unready = await self._records.keep(known, served, now)
        await self._records.clean(known)
        await self._tell(record, known, served, unready, now)
        for run in self._book.runs(key):
            if not finished(run):
                self._wake(run.key)
        again = self._until_next(known.timetable, now)
        if unready:
            again = min(again, LATER)
        return Due(again=again, jitter=False)

    def _times(self, record: Record, spec: WindowSpec, now: datetime) -> tuple[Timetable, float]:
        """Checked once per generation: reading a cron line for five hundred starts costs milliseconds."""
        known = self._book.get(record.key)
        if known is not None and (known.uid, known.generation) == (record.uid, record.generation):
            return known.timetable, known.rate
        return timetable(spec, now), starts_per_year(spec.schedule)

    def _until_next(self, times: Timetable, now: datetime) -> float:
        """Seconds until the window opens or closes, an exclusion ends, or a daily slot begins."""
        slot, following = times.slot_at(now), times.next_slot(now)
        moments = [slot.ends_at] if slot is not None else []
        moments += [following.starts_at] if following is not None else []
        exclusion = times.window.active_exclusion(now)
        moments += [exclusion.ends_at] if exclusion is not None else []
        ahead = times.window.next_exclusion(now)
        moments += [ahead.starts_at] if ahead is not None else []
        nearest = min((each - now).total_seconds() for each in moments) if moments else LONG
        return max(0.05, min(LONG, nearest + 0.05))

    async def _tell(
        self, record: Record, known: Known, served: Served, unready: Sequence[Trouble], now: datetime
    ) -> None:
        runs = list(self._book.runs(known.key))
        draft = board.draft(known=known, served=served, unready=unready, runs=runs, now=now)
        METRICS.conditions.tell(known.key, draft.verdicts)
        await self._status.write(MAINTENANCE_WINDOW, record, draft)

    async def _invalid(self, record: Record, reason: W, message: str) -> Due:
        self._book.drop(record.key)
        self._dependents.drop(record.key)
        self._records.forget(record.key)
        for run in list(self._book.runs(record.key)):
            if not finished(run) and not begun(run):
                await self._records.delete(run)
        status = WindowStatus()
        await self._status.write(
            MAINTENANCE_WINDOW, record, Draft(status=status, verdicts=judge.invalid(reason, message))
        )
        return Due()

    async def _forget(self, key: ObjectKey) -> None:
        """The window is gone: what was only planned goes with it, what was done stays on record."""
        self._book.drop(key)
        self._dependents.drop(key)
        self._records.forget(key)
        for run in list(self._book.runs(key)):
            if finished(run):
                continue
            if begun(run):
                self._wake(run.key)
                continue
            try:
                await self._records.delete(run)
            except ApiError as error:
                log.warning("run not deleted", extra={"object": str(run.key), "cause": str(error)})
        METRICS.forget(key)
