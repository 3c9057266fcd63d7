"""MaintenanceRun's controller: finds the window and the target that a run belongs to, has it go its way (passage.py),
and ends it where one of them is there no more.

What is under way is in the journal; an operator that is killed in the middle is followed by one that removes what it
left and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pgtend.api.maintenancerun import RunSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.clock import Clock, parse_rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.core.journal import of_another
from pgtend.engine.dependents import Dependents
from pgtend.engine.loop import Outcome as Due
from pgtend.gate.busy import Busy
from pgtend.kube.client import KubeClient
from pgtend.kube.index import Index, Record
from pgtend.kube.status import StatusWriter
from pgtend.maintenance.blockers import Blockers
from pgtend.maintenance.book import Book, Known, begun, finished, target_of, window_of
from pgtend.maintenance.looking import Lookout
from pgtend.maintenance.memory import Memory, Place
from pgtend.maintenance.passage import EVERY, LONG, PACE, Passage
from pgtend.maintenance.score import Key
from pgtend.maintenance.scribe import Scribe
from pgtend.server.member import MemberSessions
from pgtend.server.registry import Registry
from pgtend.tasks.runner import Ending, Run, Runner


class RunController:
    """`busy_of` tells of a target's dumps, `wake` has an object reconciled; `runner` is shared with the operations, so
    that each sees what the other does."""

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
        runner: Runner,
        busy_of: Callable[[ObjectKey], Busy],
        braked: Callable[[], bool],
        wake: Callable[[ObjectKey], None],
        installation: str,
        clock: Clock,
    ) -> None:
        self._index, self._dependents, self._book, self._runner = index, dependents, book, runner
        self._installation, self._clock = installation, clock
        self._scribe = Scribe(status=status, client=client, installation=installation, clock=clock)
        self._lookout = Lookout(registry=registry, members=members, wake=wake, clock=clock)
        self._memory: dict[ObjectKey, Memory] = {}
        blockers = Blockers(
            index=index,
            registry=registry,
            book=book,
            runner=runner,
            memories=self._memory,
            busy_of=busy_of,
            braked=braked,
            clock=clock,
        )
        self._passage = Passage(
            index=index,
            book=book,
            runner=runner,
            blockers=blockers,
            lookout=self._lookout,
            scribe=self._scribe,
            wake=wake,
            drop=self._drop,
            clock=clock,
        )

    async def reconcile(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Due]:
        return {key: await self._one(key) for key in keys}

    async def close(self) -> None:
        await self._lookout.close()

    async def _one(self, key: ObjectKey) -> Due:
        record = self._index.get(key)
        run = self._runner.find(key)
        if run is not None and (record is None or record.deleting or record.uid != run.order.uid):
            self._runner.stop(key, Ending.CANCELLED, "the record was deleted")
            if run.finished_at is None:
                return Due(again=1.0)
            self._runner.forget(key)
            run = None
        if record is None or record.deleting or record.spec_error is not None or finished(record):
            return self._drop(key)
        if of_another(record.status, installation=self._installation, uid=record.uid) is not None:
            return self._drop(key)
        memory = self._recall(record)
        if run is not None:
            if run.finished_at is None:
                return await self._follow(record, memory, run)
            memory.take_over(run, monotonic=self._clock.monotonic())
            self._runner.forget(key)
        window, target = window_of(record), target_of(record)
        self._dependents.set(key, [target, window])
        known = self._book.get(window)
        if known is None:
            return await self._without_window(record, memory, window)
        found = self._index.get(target)
        if found is None or found.deleting or found.spec_error is not None or target not in known.admitted:
            if not begun(record):
                return Due(again=LONG)  # the window's controller takes it away
            why = known.refused.get(target) or f"target {target} is not served by the window any more"
            return await self._passage.end(record, memory, known=known, refused=why)
        return await self._go(record, memory, known, target, found.parsed(TargetSpec))

    def _recall(self, record: Record) -> Memory:
        memory = self._memory.get(record.key)
        if memory is None or memory.uid != record.uid:
            memory = self._memory[record.key] = Memory(uid=record.uid)
        return memory

    def _drop(self, key: ObjectKey) -> Due:
        self._memory.pop(key, None)
        self._lookout.forget(key)
        self._dependents.drop(key)
        return Due()

    async def _without_window(self, record: Record, memory: Memory, window: ObjectKey) -> Due:
        """The window is gone, has no meaning any more, or was not looked at yet after a start."""
        found = self._index.get(window)
        if found is None:
            return await self._passage.end(record, memory, stopped=f"window {window} does not exist")
        if not begun(record):
            return Due(again=LONG)
        if found.spec_error is None and not found.deleting:
            return Due(again=EVERY)
        return await self._passage.end(record, memory, stopped=f"window {window} is gone or not valid")

    async def _go(
        self, record: Record, memory: Memory, known: Known, target: ObjectKey, target_spec: TargetSpec
    ) -> Due:
        spec = record.parsed(RunSpec)
        starts_at, ends_at = parse_rfc3339(spec.starts_at), parse_rfc3339(spec.ends_at)
        slot = known.timetable.slot_from(starts_at)
        closed = None
        if slot is None or slot.ends_at != ends_at:
            closed = f"the schedule or the exclusions of window {known.key} have changed"
        elif known.spec.suspend:
            closed = f"window {known.key} has spec.suspend: true"
        if slot is None or closed is not None:
            if not begun(record):
                return Due(again=LONG)  # the window's controller takes it away
            return await self._passage.end(record, memory, known=known, stopped=closed)
        place = Place(record=record, target=target, target_spec=target_spec, known=known, slot=slot, memory=memory)
        return await self._passage.go(place)

    # While it runs

    async def _follow(self, record: Record, memory: Memory, run: Run) -> Due:
        """Write progress now and then; whether it may go on is watched by the runner itself."""
        known = self._book.get(window_of(record))
        if known is None:
            found = self._index.get(window_of(record))
            if found is None or found.deleting or found.spec_error is not None:
                self._runner.stop(record.key, Ending.CANCELLED, "the window is gone or not valid")
            return Due(again=EVERY)
        if self._clock.monotonic() - memory.written < PACE:
            return Due(again=PACE)
        results = {**memory.results, **{Key(str(run.order.task.type), o): r for o, r in run.results.items()}}
        rest = [item for item in run.order.items if item.object not in run.results]
        await self._scribe.progress(record, memory, results, rest)
        return Due(again=PACE)
