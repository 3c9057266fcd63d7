"""What a MaintenanceRun's record says while it waits, is under way and has ended, written through the status writer."""

from __future__ import annotations

import logging
import secrets as randoms
from collections.abc import Mapping, Sequence
from datetime import datetime

from pgtend.api.conditions import Verdict
from pgtend.api.maintenancerun import MAINTENANCE_RUN, RunSpec
from pgtend.api.reasons import RunReason as R
from pgtend.api.types import format_duration
from pgtend.core.clock import Clock, parse_rfc3339
from pgtend.core.failpoints import failpoint
from pgtend.core.journal import Journal, mark_of, read_journal
from pgtend.gate.asking import Refusal
from pgtend.kube.client import ApiError, KubeClient
from pgtend.kube.index import Record
from pgtend.kube.status import Draft, StatusWriter
from pgtend.maintenance import judge, runs
from pgtend.maintenance.book import target_of
from pgtend.maintenance.memory import Memory, Place
from pgtend.maintenance.runs import key_of
from pgtend.maintenance.score import Key, Weighed, fitting
from pgtend.tasks.protocol import Item, ItemResult
from pgtend.tasks.room import room

log = logging.getLogger(__name__)


class Scribe:
    """Writes in the name of this process; raises what the status writer raises."""

    def __init__(self, *, status: StatusWriter, client: KubeClient, installation: str, clock: Clock) -> None:
        self._status, self._client, self._installation, self._clock = status, client, installation, clock
        self._me = randoms.token_hex(6)

    def journal(self, record: Record) -> Journal | None:
        return read_journal(record.status, mark=self._mark(record))

    def _mark(self, record: Record) -> str:
        return mark_of(installation=self._installation, uid=record.uid)

    async def scheduled(self, place: Place, items: tuple[Item, ...]) -> None:
        time_left = place.slot.ends_at - place.slot.starts_at - place.known.timetable.window.closing.cancel
        fits = fitting((Weighed(key_of(i), i.estimate) for i in items), time_left.total_seconds())
        planned = f"{_count(len(items))} planned"
        if fits < len(items):
            planned += f", {fits} of them fit into {format_duration(time_left)}"
        status = runs.status_of(mark=self._mark(place.record), items=items, results={})
        verdicts = judge.scheduled(target=place.target.name, opens_at=place.slot.starts_at, planned=planned)
        await self._write(place.record, Draft(status=status, verdicts=verdicts))

    async def progress(
        self, record: Record, memory: Memory, results: Mapping[Key, ItemResult], claimed: Sequence[Item]
    ) -> None:
        """`claimed` are the items that may be under way."""
        done = [key_of(item) for item in memory.items if key_of(item) in results]
        status = runs.status_of(
            mark=self._mark(record),
            items=memory.items,
            results=results,
            started_at=memory.started_at,
            claimed_by=self._me,
            deadline=parse_rfc3339(record.parsed(RunSpec).ends_at),
            claimed=claimed,
            last_done=done[-1] if done else None,
        )
        verdicts = judge.running(target=target_of(record).name, planned=f"{_count(len(memory.items))} planned")
        memory.written = self._clock.monotonic()
        await self._write(record, Draft(status=status, verdicts=verdicts))

    async def waiting(self, place: Place, reason: R, refusal: Refusal) -> None:
        memory = place.memory
        begun = memory.started_at is not None
        verdicts = judge.waiting(
            target=place.target.name,
            reason=reason,
            message=refusal.message,
            object=refusal.object,
            begun=begun,
        )
        items = memory.items or (memory.looked.items if memory.looked is not None else ())
        status = runs.status_of(
            mark=self._mark(place.record),
            items=items,
            results=memory.results,
            started_at=memory.started_at,
            claimed_by=self._me if begun else None,
            deadline=place.slot.ends_at if begun else None,
            last_done=memory.last_done,
        )
        await self._write(place.record, Draft(status=status, verdicts=verdicts))

    async def only_planned(self, place: Place) -> None:
        """Observe, or nothing but DryRun: the plan is the result."""
        reason = R.OBSERVING if place.observing else R.DRY_RUN
        why = "the window or its target is in mode Observe" if place.observing else "no task has execution Run"
        text = f"{_count(len(place.memory.items))} planned; nothing was changed: {why}"
        verdicts = judge.planned_only(target=place.target.name, reason=reason, message=text)
        await self.over(place.record, place.memory, verdicts, started_at=None, resume=None, items=place.memory.items)

    async def over(
        self,
        record: Record,
        memory: Memory,
        verdicts: Sequence[Verdict],
        *,
        started_at: datetime | None,
        resume: Key | None,
        items: tuple[Item, ...],
    ) -> None:
        """The last word; `resume` is where the next window goes on."""
        stored = None
        if len(items) > room(items):
            try:
                stored = await runs.store_items(self._client, record, items, memory.results)
            except ApiError as error:
                log.warning("items not stored", extra={"object": str(record.key), "cause": str(error)})
        status = runs.status_of(
            mark=self._mark(record),
            items=items,
            results=memory.results,
            started_at=started_at,
            finished_at=self._clock.now(),
            claimed_by=self._me if started_at is not None else None,
            resume=resume,
            config_map=stored,
        )
        failpoint("maintenance.before_end")
        await self._write(record, Draft(status=status, verdicts=verdicts))
        failpoint("maintenance.ended")

    async def _write(self, record: Record, draft: Draft) -> None:
        await self._status.write(MAINTENANCE_RUN, record, draft)


def _count(items: int) -> str:
    return f"{items} item{'' if items == 1 else 's'}"
