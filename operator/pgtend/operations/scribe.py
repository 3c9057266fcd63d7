"""Writes what an operation has come to: one method for each thing that can be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pgtend.api.conditions import Reason, Verdict
from pgtend.api.postgresoperation import POSTGRES_OPERATION, OperationSpec, OperationStatus
from pgtend.api.reasons import OperationReason as R
from pgtend.core.clock import Clock, parse_rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.core.journal import mark_of
from pgtend.engine.loop import Outcome as Due
from pgtend.kube.index import Record
from pgtend.kube.status import Draft, StatusWriter
from pgtend.operations import telling
from pgtend.operations.admission import No
from pgtend.operations.place import LATER, Wait
from pgtend.operations.records import ItemRecords
from pgtend.operations.timing import Later
from pgtend.tasks.protocol import Item, ItemResult, TaskPlan
from pgtend.tasks.room import room
from pgtend.telemetry.metrics import METRICS

FIGURES = frozenset({"progress", "items", "changes"})


class Scribe:
    """`checked` where an admission policy has compared requestedBy with who asked."""

    def __init__(
        self, *, status: StatusWriter, records: ItemRecords, installation: str, checked: bool, clock: Clock
    ) -> None:
        self._status, self.records = status, records
        self._installation, self._checked, self._clock = installation, checked, clock

    def mark(self, record: Record) -> str:
        return mark_of(installation=self._installation, uid=record.uid)

    async def write(
        self,
        record: Record,
        status: OperationStatus,
        verdicts: Sequence[Verdict],
        figures: frozenset[str] = frozenset(),
    ) -> None:
        if not self._checked and isinstance(record.spec, OperationSpec):
            verdicts = telling.as_claim(verdicts, requested_by=record.spec.requested_by)
        draft = Draft(status=status, verdicts=verdicts, figures=figures)
        await self._status.write(POSTGRES_OPERATION, record, draft)

    async def wait(self, record: Record, spec: OperationSpec, wait: Wait) -> Due:
        """The target cannot be used now. A window that is waited for is still waited for while an operator starts."""
        again = Due(again=min(wait.again, self._left(spec)), jitter=False)
        if wait.starting and record.reason("Ready") == R.SCHEDULED:
            return again
        verdicts = telling.waiting(reason=wait.reason, message=wait.message, object=wait.object, until=spec.not_after)
        await self.write(record, telling.status_of(mark=self.mark(record)), verdicts)
        return again

    async def schedule(self, record: Record, spec: OperationSpec, target: ObjectKey, later: Later) -> Due:
        """It starts by itself, later."""
        status = telling.status_of(mark=self.mark(record), next_at=later.next_at)
        await self.write(record, status, telling.scheduled(target=target, message=later.message, reason=later.reason))
        again = LATER
        if later.next_at is not None:
            again = min(again, max(0.0, (later.next_at - self._clock.now()).total_seconds()))
        return Due(again=min(again, self._left(spec)), jitter=False)

    async def refuse(self, record: Record, no: No, plan: TaskPlan | None = None) -> Due:
        """For good, before anything was changed."""
        now = self._clock.now()
        verdicts = telling.refused(reason=no.reason, message=no.message, object=no.object, now=now)
        return await self.end(record, telling.status_of(mark=self.mark(record), plan=plan, finished_at=now), verdicts)

    async def over(self, record: Record, reason: Reason, message: str) -> Due:
        """Expired, or cancelled before it began."""
        status = telling.status_of(mark=self.mark(record), finished_at=self._clock.now())
        return await self.end(record, status, telling.over(reason=reason, message=message))

    async def end(self, record: Record, status: OperationStatus, verdicts: Sequence[Verdict]) -> Due:
        """The last word: with finishedAt nothing is looked at again."""
        if status.finished_at is None:
            status = status.model_copy(update={"finished_at": telling.stamp(self._clock.now())})
        await self.write(record, status, verdicts)
        type_ = record.spec.type if isinstance(record.spec, OperationSpec) else "Unknown"
        METRICS.operations.labels(type_, str(verdicts[0].reason)).inc()
        return Due()

    async def keep(
        self,
        record: Record,
        suffix: str,
        items: Sequence[Item],
        results: Mapping[str, ItemResult],
        before: OperationStatus | None = None,
    ) -> str | None:
        """All items, where the status has no room for them: the ConfigMap's name."""
        if len(items) <= room(items):
            return None
        facts = {item.object: item.facts for item in items}
        return await self.records.keep(record, suffix, telling.rows_of(items, results, before), facts)

    def _left(self, spec: OperationSpec) -> float:
        return max(0.0, (parse_rfc3339(spec.not_after) - self._clock.now()).total_seconds())
