"""An operation from first sight to its claim: whether it may, when, what it would do; then it is started."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from pgtend.api.postgresoperation import OperationSpec
from pgtend.api.reasons import OperationReason as R
from pgtend.api.reasons import TargetReason
from pgtend.core.clock import Clock, parse_rfc3339
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.engine.loop import Outcome as Due
from pgtend.gate.classes import TaskClass
from pgtend.kube.index import Record
from pgtend.operations import telling
from pgtend.operations.admission import No, too_far
from pgtend.operations.asking import Asking
from pgtend.operations.place import Place, Places, Wait
from pgtend.operations.recovery import ended_of
from pgtend.operations.scribe import Scribe
from pgtend.operations.timing import Later, when
from pgtend.operations.underway import Underway
from pgtend.server.member import MemberSessions, may_act, needed
from pgtend.tasks.protocol import Breach, Ground, Objection, Task, TaskPlan
from pgtend.tasks.runner import Ending, Runner

# What is applied together with its first window may be seen before it: so long it is not refused for having none.
TOGETHER = timedelta(seconds=5)
# seconds between two looks at what does not wake us: whether a backup is committed by now
WAITING = 5.0
_BREACHES: dict[Breach, R] = {breach: R(breach.value) for breach in Breach}


class Beginning:
    """`underway` takes over what is claimed."""

    def __init__(
        self,
        *,
        places: Places,
        scribe: Scribe,
        runner: Runner,
        members: MemberSessions,
        underway: Underway,
        asking: Asking,
        clock: Clock,
    ) -> None:
        self._places, self._scribe, self._runner, self._members = places, scribe, runner, members
        self._underway, self._asking, self._clock = underway, asking, clock

    async def begin(self, record: Record, spec: OperationSpec) -> Due:
        now = self._clock.now()
        scribe = self._scribe
        if parse_rfc3339(spec.not_after) <= now:
            text = f"notAfter {spec.not_after} has passed: not one statement was sent"
            return await scribe.over(record, R.EXPIRED, text)
        if spec.cancel:
            return await scribe.over(record, R.CANCELLED, "cancelled before it began: nothing was done")
        if (no := too_far(spec, record.created)) is not None:
            return await scribe.refuse(record, no)
        place = await self._places.find(record, spec)
        if isinstance(place, No):
            return await scribe.refuse(record, place)
        if isinstance(place, Wait):
            return await scribe.wait(record, spec, place)
        task = self._asking.task(record, spec)
        ground = Ground(server=place.server, members=self._members)
        dry = spec.execution == "DryRun" or place.observing
        try:
            if not dry:
                if task.type.task_class is not TaskClass.DATA:
                    needed(place.server)  # what is Data has a credential of its own
                may_act(place.server)
                # a window is waited for without looking at anything
                if spec.run_policy != "Immediately" and (answer := self._when(place, task, place.target.name)):
                    return await self._not_now(place, answer, None)
            plan = await task.plan(ground)
        except PgtendError as error:
            if error.reason is TargetReason.CAPABILITY_MISSING:
                no = No(reason=R.CAPABILITY_MISSING, message=error.message, object=error.object)
                return await scribe.refuse(record, no)
            wait = Wait(reason=R.WAITING_FOR_TARGET, message=error.message, object=str(place.target))
            if isinstance(error.reason, R):
                wait = Wait(reason=error.reason, message=error.message, object=error.object, again=WAITING)
            return await scribe.wait(record, spec, wait)
        if plan.objection is not None:
            return await scribe.refuse(record, _no(plan.objection), plan=plan)
        if dry:
            verdicts = telling.dry(target=place.target, plan=plan, observing=place.observing)
            return await scribe.end(record, telling.status_of(mark=scribe.mark(record), plan=plan), verdicts)
        if plan.items and (answer := self._when(place, task, plan.items[0].object)):
            return await self._not_now(place, answer, plan)
        return await self._claim(place, task, ground, plan)

    def _when(self, place: Place, task: Task, object: str) -> Later | No | None:
        state = self._places.state(place.target)
        mine = self._runner.busy(place.target)
        state = replace(state, busy=replace(state.busy, running=(*state.busy.running, *mine)))
        return when(spec=place.spec, type_=task.type, object=object, state=state, now=self._clock.now())

    async def _not_now(self, place: Place, answer: Later | No, plan: TaskPlan | None) -> Due:
        if isinstance(answer, No):
            early = place.record.created + TOGETHER - self._clock.now()
            if answer.reason is R.NO_WINDOW_BEFORE_EXPIRY and early > timedelta(0):
                return Due(again=early.total_seconds(), jitter=False)
            return await self._scribe.refuse(place.record, answer, plan)
        return await self._scribe.schedule(place.record, place.spec, place.target, answer)

    async def _claim(self, place: Place, task: Task, ground: Ground, plan: TaskPlan) -> Due:
        record, spec, scribe = place.record, place.spec, self._scribe
        now = self._clock.now()
        if parse_rfc3339(spec.not_after) <= now:
            return await scribe.over(record, R.EXPIRED, f"notAfter {spec.not_after} passed before it could start")
        if not plan.items:
            ended = ended_of(task.type, {}, Ending.DONE, "", now, now, plan.notes)
            status = telling.status_of(mark=scribe.mark(record), plan=plan, started_at=now, finished_at=now)
            return await scribe.end(record, status, telling.finished(target=place.target, ended=ended))
        try:
            map_ = await scribe.keep(record, f"plan-{plan.plan_hash[7:15]}", plan.items, {})
        except PgtendError as error:
            return await scribe.refuse(record, No(reason=error.reason, message=error.message, object=error.object))
        deadline = now + spec.limit.timedelta
        status = telling.status_of(
            mark=scribe.mark(record),
            plan=plan,
            started_at=now,
            claimed_by=self._underway.me,
            deadline=deadline,
            config_map=map_,
        )
        failpoint("operations.before_claim")
        await scribe.write(record, status, telling.running(target=place.target, plan_text=telling.plan_text(plan)))
        failpoint("operations.claimed")
        self._underway.start(place, task, ground, plan, deadline=deadline, config_map=map_)
        return Due()


def _no(objection: Objection) -> No:
    return No(reason=_BREACHES[objection.breach], message=objection.message, object=objection.object)
