"""An operation that is claimed: started, followed while it runs, taken up after a restart, and its end told."""

from __future__ import annotations

import logging
import secrets as randoms
from collections.abc import Mapping
from datetime import datetime, timedelta

from pgtend.api.postgresoperation import OperationSpec, OperationStatus
from pgtend.api.reasons import OperationReason as R
from pgtend.core.actions import Repeat
from pgtend.core.clock import Clock
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.core.journal import Journal
from pgtend.engine.dependents import Dependents
from pgtend.engine.loop import Outcome as Due
from pgtend.kube.index import Record
from pgtend.operations import telling
from pgtend.operations.asking import Asking
from pgtend.operations.place import SOON, Place, Places, target_of
from pgtend.operations.recovery import Begun, ended_of, followed, interrupted, rest_of
from pgtend.operations.scribe import FIGURES, Scribe
from pgtend.operations.timing import policy_of
from pgtend.server.member import MemberSessions, may_act
from pgtend.tasks.protocol import Ground, ItemResult, Outliving, Task, TaskPlan
from pgtend.tasks.runner import Ending, Order, Run, Runner

log = logging.getLogger(__name__)
# how long after its deadline an operation whose target cannot be asked is given up
PATIENCE = timedelta(seconds=60)
# seconds between two writes of the progress of a run
TELL_EVERY = 5.0


class Underway:
    """What this process knows of the operations that it has started."""

    def __init__(
        self,
        *,
        places: Places,
        scribe: Scribe,
        runner: Runner,
        members: MemberSessions,
        dependents: Dependents,
        asking: Asking,
        clock: Clock,
    ) -> None:
        self._places, self._scribe, self._runner, self._members = places, scribe, runner, members
        self._dependents, self._asking, self._clock = dependents, asking, clock
        self.me = randoms.token_hex(6)
        """This process, as a claim names it."""
        self._plans: dict[str, TaskPlan] = {}
        # of what another process had begun: the status as it stood
        self._before: dict[str, OperationStatus] = {}
        self._maps: dict[str, str] = {}
        self._told: dict[str, float] = {}

    def start(
        self,
        place: Place,
        task: Task,
        ground: Ground,
        plan: TaskPlan,
        *,
        deadline: datetime,
        config_map: str | None,
        done: Mapping[str, ItemResult] | None = None,
        started_at: datetime | None = None,
    ) -> None:
        """Have the runner carry out what is claimed. `done` is what an earlier process did of it."""
        self._plans[place.record.uid] = plan
        if config_map is not None:
            self._maps[place.record.uid] = config_map
        target = place.target
        self._runner.start(
            Order(
                holder=place.record.key,
                uid=place.record.uid,
                task=task,
                ground=ground,
                items=plan.items,
                run_policy=policy_of(place.spec, task.type),
                deadline=deadline,
                state=lambda: self._places.state(target),
                latest=lambda: self._ground(target),
                done=done or {},
                started_at=started_at,
            )
        )

    def _ground(self, target: ObjectKey) -> Ground | None:
        server = self._places.server(target)
        return Ground(server=server, members=self._members) if server is not None else None

    async def follow(self, record: Record, spec: OperationSpec, run: Run) -> Due:
        """Stop what was cancelled or is no longer admitted; tell how far it is, and how it ended."""
        plan, before = self._plans[record.uid], self._before.get(record.uid)
        target = run.order.ground.server.key
        mark, map_ = self._scribe.mark(record), self._maps.get(record.uid)
        if run.ending is None:
            if spec.cancel:
                self._runner.stop(record.key, Ending.CANCELLED, "spec.cancel was set")
            elif (why := await self._places.still_admitted(record, spec, target)) is not None:
                self._runner.stop(record.key, Ending.STOPPED, why)
            if run.order.task.repeat is Repeat.ONCE:
                return Due()  # over in seconds: the claim stands as it was written until then
            left = self._told.get(record.uid, -TELL_EVERY) + TELL_EVERY - self._clock.monotonic()
            if left > 0:
                return Due(again=left, jitter=False)
            status = telling.run_status(
                mark=mark, plan=plan, run=run, claimed_by=self.me, before=before, config_map=map_
            )
            self._told[record.uid] = self._clock.monotonic()
            verdicts = telling.running(target=target, plan_text=telling.plan_text(plan))
            await self._scribe.write(record, status, verdicts, FIGURES)
            return Due()
        finished = run.finished_at
        if finished is None:
            return Due(again=SOON)
        notes = (*plan.notes, *run.swept)
        ended = ended_of(run.order.task.type, run.results, run.ending, run.message, run.started_at, finished, notes)
        try:
            map_ = await self._scribe.keep(record, "items", plan.items, run.results, before)
        except PgtendError as error:
            log.warning("the list of items is not written", extra={"object": str(record.key), "cause": error.message})
        status = telling.run_status(mark=mark, plan=plan, run=run, claimed_by=self.me, before=before, config_map=map_)
        failpoint("operations.before_end")
        due = await self._scribe.end(record, status, telling.finished(target=target, ended=ended))
        failpoint("operations.ended")
        self._dependents.drop(record.key)
        self.forget(record.key, record.uid)
        return due

    async def go_on(self, record: Record, spec: OperationSpec, journal: Journal, claimed_at: datetime) -> Due:
        """Claimed, and no run of this process: look for what was done before the restart. What is Once is never
        repeated; of the rest what is left is done."""
        task = self._asking.task(record, spec)
        now = self._clock.now()
        deadline = journal.deadline or claimed_at
        begun = await self._read(record, journal)
        place = await self._places.find(record, spec)
        found: Mapping[str, ItemResult] = {}
        try:
            if not isinstance(place, Place):
                raise PgtendError(R.WAITING_FOR_TARGET, "the target could not be asked")
            ground = Ground(server=place.server, members=self._members)
            found = await task.find(ground, begun.open(task.type))
            if task.repeat is Repeat.IDEMPOTENT:
                may_act(place.server)
                rest = rest_of(type_=task.type, begun=begun, found=found, fresh=await task.plan(ground))
                self._before[record.uid] = begun.before.model_copy(update={"items": begun.rows})
                self.start(
                    place,
                    task,
                    ground,
                    rest.plan,
                    deadline=deadline,
                    config_map=begun.before.items_config_map,
                    done=rest.done,
                    started_at=claimed_at,
                )
                return Due()
            open_ = [item for item in begun.open(task.type) if item.object not in found]
            if isinstance(task, Outliving) and await task.going_on(open_):
                rest = followed(type_=task.type, begun=begun, found=found)
                self._before[record.uid] = begun.before.model_copy(update={"items": begun.rows})
                self.start(
                    place,
                    task,
                    ground,
                    rest.plan,
                    deadline=deadline,
                    config_map=begun.before.items_config_map,
                    done=rest.done,
                    started_at=claimed_at,
                )
                return Due()
            why = "it is still there and was left alone"
            if isinstance(task, Outliving):
                why = "what was started for it is not there any more, and is not started again"
        except PgtendError as error:
            if now < deadline + PATIENCE:
                return Due(again=SOON)
            why = error.message
        status, ended = interrupted(type_=task.type, begun=begun, journal=journal, found=found, otherwise=why, now=now)
        due = await self._scribe.end(record, status, telling.finished(target=target_of(record, spec), ended=ended))
        self._dependents.drop(record.key)
        return due

    async def _read(self, record: Record, journal: Journal) -> Begun:
        before = telling.kept(record.status)
        if before.items_config_map is not None:
            listed = await self._scribe.records.read(record, before.items_config_map)
            if listed is not None:
                said = {row.object: row for row in before.items}
                rows = tuple(said.get(row.object, row) for row in listed[0])
                return Begun(before=before, rows=rows, claimed=listed[1])
        return Begun(before=before, rows=before.items, claimed=journal.unfinished)

    def forget(self, key: ObjectKey, uid: str) -> None:
        self._runner.forget(key)
        for kept in (self._plans, self._before, self._maps, self._told):
            kept.pop(uid, None)
