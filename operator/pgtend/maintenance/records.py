"""The runs of a window as records: one per target as soon as there is a plan, none for a slot that is not kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pgtend.api.maintenancerun import RunSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import WindowReason as W
from pgtend.core.clock import Clock, parse_rfc3339
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.kube.client import AlreadyExists, Conflict, KubeClient
from pgtend.kube.index import Index, Record
from pgtend.maintenance import runs
from pgtend.maintenance.book import Book, Known, begun, finished, target_of
from pgtend.maintenance.judge import Trouble
from pgtend.maintenance.observe import Background, Looked, look, tasks_for, usable
from pgtend.maintenance.plan import Slot, run_name
from pgtend.maintenance.served import Served
from pgtend.server.member import MemberSessions
from pgtend.server.registry import Registry
from pgtend.tasks.protocol import Ground

# seconds until a plan that could not be made is tried again
LATER = 15.0
KEPT = 20
"""Finished runs that are kept, per window and target."""


class RunRecords:
    """`wake` has a window reconciled when a plan is made."""

    def __init__(
        self,
        *,
        index: Index,
        client: KubeClient,
        registry: Registry,
        members: MemberSessions,
        book: Book,
        wake: Callable[[ObjectKey], None],
        clock: Clock,
    ) -> None:
        self._index, self._client, self._registry = index, client, registry
        self._members, self._book, self._clock = members, book, clock
        self._background = Background(wake)
        # of each window: the targets that no plan could be made for, and when that is tried again
        self._unready: dict[ObjectKey, dict[ObjectKey, tuple[float, Trouble]]] = {}

    async def close(self) -> None:
        await self._background.close()

    def forget(self, window: ObjectKey) -> None:
        self._background.forget(window)
        self._unready.pop(window, None)

    async def keep(self, known: Known, served: Served, now: datetime) -> list[Trouble]:
        """A run per target for the slot that is open or else the next; those of other slots go. Returns what is in the
        way of a plan."""
        wanted: dict[str, Slot] = {}
        unready = self._unready.setdefault(known.key, {})
        if not known.spec.suspend:
            for target in served.admitted:
                slot = self._slot_for(known, target, now)
                if slot is None:
                    continue
                name = run_name(window=known.key, target=target, starts_at=slot.starts_at)
                wanted[f"{target.namespace}/{name}"] = slot
                await self._keep_one(known, target, served.admitted[target], slot, name, unready)
        for gone in set(unready) - set(served.admitted):
            del unready[gone]
        for run in list(self._book.runs(known.key)):
            stale = wanted.get(str(run.key))
            ends = parse_rfc3339(run.parsed(RunSpec).ends_at)
            if not finished(run) and not begun(run) and (stale is None or stale.ends_at != ends):
                await self.delete(run)
        return [trouble for _, trouble in unready.values()]

    def _slot_for(self, known: Known, target: ObjectKey, now: datetime) -> Slot | None:
        """The slot that is open, until its run has ended; else the next one that has a task."""
        slot = known.timetable.slot_at(now)
        if slot is not None and slot.types(known.spec):
            name = run_name(window=known.key, target=target, starts_at=slot.starts_at)
            run = self._index.get(ObjectKey("MaintenanceRun", target.namespace, name))
            if run is None or not finished(run):
                return slot
        following = known.timetable.next_slot(now)
        while following is not None and not following.types(known.spec):
            following = known.timetable.next_slot(following.starts_at)
        return following

    async def _keep_one(
        self,
        known: Known,
        target: ObjectKey,
        target_spec: TargetSpec,
        slot: Slot,
        name: str,
        unready: dict[ObjectKey, tuple[float, Trouble]],
    ) -> None:
        run = ObjectKey("MaintenanceRun", target.namespace, name)
        if self._index.get(run) is not None:
            unready.pop(target, None)
            return
        failed = unready.get(target)
        if failed is not None and self._clock.monotonic() < failed[0]:
            return
        if target_spec.suspend:
            text = f"target {target} is suspended: set its spec.suspend to false"
            unready[target] = self._trouble(text, target)
            return
        try:
            acting = "Observe" not in (known.spec.mode, target_spec.mode)
            server = usable(self._registry.find(target), target, target_spec, acting=acting)
            tasks = tasks_for(known.spec, slot.types(known.spec))
            ground = Ground(server=server, members=self._members)

            async def plan() -> Looked:
                return await look(ground, tasks)

            looked = self._background.take(known.key, f"{name}/{known.generation}", plan)
        except PgtendError as error:
            unready[target] = self._trouble(f"no plan for {target}: {error.message}", target)
            return
        if looked is None:
            return
        content = runs.body(
            name=name, window=known.key, target=target, slot=slot, plan_hash=runs.combined_hash(looked.plans)
        )
        failpoint("maintenance.before_record")
        try:
            await self._client.create(runs.RESOURCE, target.namespace, content)
        except AlreadyExists:
            return
        unready.pop(target, None)
        failpoint("maintenance.after_record")

    def _trouble(self, text: str, target: ObjectKey) -> tuple[float, Trouble]:
        trouble = Trouble(reason=W.TARGET_NOT_READY, message=text, object=target.name)
        return self._clock.monotonic() + LATER, trouble

    async def delete(self, run: Record) -> None:
        failpoint("maintenance.before_drop_record")
        try:
            await self._client.delete(runs.RESOURCE, run.key.namespace, run.key.name, uid=run.uid)
        except Conflict:
            return

    async def clean(self, known: Known) -> None:
        """Of finished runs the newest are kept."""
        by_target: dict[ObjectKey, list[Record]] = {}
        for run in self._book.runs(known.key):
            if finished(run):
                by_target.setdefault(target_of(run), []).append(run)
        for done in by_target.values():
            done.sort(key=lambda run: str(run.parsed(RunSpec).starts_at))
            for run in done[:-KEPT]:
                await self.delete(run)
