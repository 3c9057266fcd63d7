"""The words of a PostgresOperation's status: from what is known about a plan and a run to conditions and items. Pure
in effect: it reads values and sends nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pgtend.api.conditions import Reason, Verdict
from pgtend.api.postgresoperation import (
    ClaimedStatus,
    ItemStatus,
    JournalStatus,
    OperationStatus,
    PlanStatus,
    SizeStatus,
)
from pgtend.api.reasons import OperationReason as R
from pgtend.api.types import Timestamp, format_bytes, format_duration
from pgtend.core.clock import rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.gate.classes import TaskClass, TaskType
from pgtend.tasks.protocol import Item, ItemResult, Outcome, TaskPlan
from pgtend.tasks.room import fitted, room
from pgtend.tasks.runner import Ending, Run

ADMITTED = "admitted by target {}"


def refused(*, reason: Reason, message: str, object: str | None, now: datetime) -> list[Verdict]:
    """For good, before any statement that changes anything."""
    return [
        Verdict("Ready", "False", R.REFUSED, "nothing was done; see Accepted", object),
        Verdict("Accepted", "False", reason, message, object),
        Verdict("Complete", "False", R.REFUSED, f"refused {_clock(now)}, before anything was changed"),
        Verdict("Stalled", "True", R.REFUSED, "create a new operation"),
    ]


def waiting(*, reason: Reason, message: str, object: str | None, until: str) -> list[Verdict]:
    """The target cannot be used now; tried again until notAfter."""
    text = f"tried again until {until}"
    return [
        Verdict("Ready", "False", reason, f"{message}; {text}", object),
        Verdict("Accepted", "Unknown", reason, text, object, negligible=True),
        Verdict("Complete", "False", reason, "not started", object, negligible=True),
        Verdict("Reconciling", "True", reason, text),
    ]


def over(*, reason: Reason, message: str) -> list[Verdict]:
    """Expired, or cancelled before it began: all is well, and nothing was done."""
    return [
        Verdict("Ready", "True", reason, message),
        Verdict("Accepted", "Unknown", reason, "not looked for", negligible=True),
        Verdict("Complete", "False", reason, message, negligible=True),
    ]


def dry(*, target: ObjectKey, plan: TaskPlan, observing: bool) -> list[Verdict]:
    """The plan, and nothing else."""
    why = f"target {target} is observed" if observing else "execution is DryRun"
    text = f"{_planned(plan)}; nothing was changed: {why}"
    return [
        Verdict("Ready", "True", R.OBSERVING if observing else R.DRY_RUN, text),
        Verdict("Accepted", "True", R.ACCEPTED, ADMITTED.format(target.name)),
        Verdict("Complete", "True", R.DRY_RUN, text),
    ]


def as_claim(verdicts: Sequence[Verdict], *, requested_by: str | None) -> list[Verdict]:
    """The same where no admission policy has compared requestedBy with who really asked: the record says so."""
    who = f"that {requested_by} asks is a claim" if requested_by else "nobody says who asks"
    return [
        replace(verdict, message=f"{verdict.message}; {who}: no admission policy checked it")
        if verdict.type == "Accepted" and verdict.status == "True"
        else verdict
        for verdict in verdicts
    ]


def scheduled(*, target: ObjectKey, message: str, reason: Reason) -> list[Verdict]:
    """It waits for a window, or for what is in the way: no trouble."""
    return [
        Verdict("Ready", "True", reason, message),
        Verdict("Accepted", "True", R.ACCEPTED, ADMITTED.format(target.name)),
        Verdict("Complete", "False", reason, "not started", negligible=True),
    ]


def running(*, target: ObjectKey, plan_text: str) -> list[Verdict]:
    return [
        Verdict("Ready", "False", R.RUNNING, plan_text, negligible=True),
        Verdict("Accepted", "True", R.ACCEPTED, ADMITTED.format(target.name)),
        Verdict("Complete", "False", R.RUNNING, "it runs", negligible=True),
        Verdict("Reconciling", "True", R.RUNNING, "it runs"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How it went, whoever saw it: this process's run, or what was found after a restart. `outcomes` by object."""

    type: TaskType
    outcomes: Mapping[str, ItemResult]
    ending: Ending
    message: str
    started_at: datetime
    finished_at: datetime
    notes: Sequence[str] = ()

    @property
    def put_off(self) -> list[str]:
        """Objects that another run would take up. A session that went on to something else is not among them."""
        emergency = self.type.task_class is TaskClass.EMERGENCY
        groups = ("deferred",) if emergency else ("deferred", "cancelled")
        return [name for name, result in self.outcomes.items() if result.outcome.group in groups]

    @property
    def _own_reason(self) -> R | None:
        """What all that failed has failed for, where it says so."""
        said = {result.reason for result in self.outcomes.values() if result.outcome is Outcome.FAILED}
        found = said.pop() if len(said) == 1 else None
        return found if isinstance(found, R) else None

    @property
    def reason(self) -> R:
        groups = {result.outcome for result in self.outcomes.values()}
        if Outcome.INTERRUPTED in groups:
            return R.INTERRUPTED
        if self.ending is Ending.DONE and Outcome.FAILED not in groups:
            return R.DEFERRED if self.put_off else R.SUCCEEDED
        if self.ending is Ending.DONE and (own := self._own_reason) is not None:
            return own
        return {
            Ending.DONE: R.FAILED,
            Ending.CANCELLED: R.CANCELLED,
            Ending.TIMED_OUT: R.TIMED_OUT,
            Ending.STOPPED: R.STOPPED,
            Ending.BROKEN: R.FAILED,
        }[self.ending]


def finished(*, target: ObjectKey, ended: Ended) -> list[Verdict]:
    reason = ended.reason
    well = reason is R.SUCCEEDED
    summary = _summary(ended)
    first = next((o for o, r in ended.outcomes.items() if r.outcome.group == "failed"), None)
    first = first or next(iter(ended.put_off), None) if not well else None
    took = format_duration(ended.finished_at - ended.started_at)
    notes = "".join(f"; {note}" for note in ended.notes)
    verdicts = [
        Verdict("Ready", "True" if reason in (R.SUCCEEDED, R.CANCELLED) else "False", reason, summary + notes, first),
        Verdict("Accepted", "True", R.ACCEPTED, ADMITTED.format(target.name)),
        Verdict(
            "Complete",
            "True" if well else "False",
            reason,
            f"ended {_clock(ended.finished_at)}, {took} after the start" if well else summary,
            first,
            negligible=reason is R.CANCELLED,
        ),
    ]
    if verdicts[0].status == "False":
        verdicts.append(Verdict("Stalled", "True", reason, "create a new operation if it is still wanted"))
    return verdicts


def _summary(ended: Ended) -> str:
    done = sum(1 for result in ended.outcomes.values() if result.outcome is Outcome.SUCCEEDED)
    noun = "sessions ended" if ended.type is TaskType.TERMINATE_QUERIES else "items done"
    if not ended.outcomes:
        return "nothing fits the selection: nothing was to be done"
    text = f"{done} of {len(ended.outcomes)} {noun}"
    bad = [(o, r) for o, r in ended.outcomes.items() if r.outcome.group == "failed"]
    if bad:
        named = ", ".join(o for o, _ in bad[:3]) + (f" and {len(bad) - 3} more" if len(bad) > 3 else "")
        text += f"; {len(bad)} failed: {named}: {bad[0][1].message}"
    if ended.ending is Ending.DONE and ended.put_off:
        why = ended.outcomes[ended.put_off[0]].message
        text += f"; {len(ended.put_off)} put off: {ended.put_off[0]}: {why}"
    if ended.ending is not Ending.DONE:
        text += f"; stopped: {ended.message}"
    return text


def status_of(
    *,
    mark: str,
    plan: TaskPlan | None = None,
    results: Mapping[str, ItemResult] | None = None,
    started_at: datetime | None = None,
    finished_at: datetime | None = None,
    claimed_by: str | None = None,
    deadline: datetime | None = None,
    next_at: datetime | None = None,
    before: OperationStatus | None = None,
    config_map: str | None = None,
) -> OperationStatus:
    """The whole status but its conditions. `plan` None where it never came to one; `before` is what stood there when
    another process had begun: of what it had finished, its own rows are kept."""
    results = results or {}
    items = plan.items if plan is not None else ()
    unfinished = tuple(item for item in items if item.object not in results) if claimed_by and not finished_at else ()
    done = sum(1 for result in results.values() if result.outcome is Outcome.SUCCEEDED)
    return OperationStatus(
        plan_hash=plan.plan_hash if plan else None,
        plan=(before.plan if before else _plan(plan)) if plan else None,
        progress=f"{len(results)}/{len(items)}" if plan else None,
        started_at=stamp(started_at),
        finished_at=stamp(finished_at),
        items=fitted(rows_of(_shown(items, results), results, before)),
        truncated=True if len(items) > room(items) else None,
        items_config_map=config_map,
        next_at=stamp(next_at),
        changes=done if started_at is not None else None,
        journal=JournalStatus(
            mark=mark,
            claimed_at=stamp(started_at),
            claimed_by=claimed_by,
            deadline=stamp(deadline),
            unfinished=tuple(
                ClaimedStatus(object=item.object, facts=dict(item.facts))
                for item in unfinished[: room(unfinished)]
                if item.facts
            ),
        ),
    )


def run_status(
    *,
    mark: str,
    plan: TaskPlan,
    run: Run,
    claimed_by: str,
    before: OperationStatus | None = None,
    config_map: str | None = None,
) -> OperationStatus:
    """Of a run of this process, going on or ended."""
    return status_of(
        mark=mark,
        plan=plan,
        results=run.results,
        started_at=run.started_at,
        finished_at=run.finished_at,
        claimed_by=claimed_by,
        deadline=run.order.deadline,
        before=before,
        config_map=config_map,
    )


def kept(status: Mapping[str, Any]) -> OperationStatus:
    """What a status of our own says, for going on from it."""
    names = ("planHash", "plan", "progress", "startedAt", "items", "truncated", "itemsConfigMap", "changes", "journal")
    return OperationStatus.model_validate({name: status[name] for name in names if name in status})


def _shown(items: Sequence[Item], results: Mapping[str, ItemResult]) -> Sequence[Item]:
    """What there is room for: what failed first, then in the plan's order."""
    if len(items) <= room(items):
        return items
    failed = {name for name, result in results.items() if result.outcome.group == "failed"}
    listed = sorted(items, key=lambda item: item.object not in failed)
    return listed[: room(listed)]


def rows_of(
    items: Sequence[Item], results: Mapping[str, ItemResult], before: OperationStatus | None = None
) -> list[ItemStatus]:
    """One row for each item; what an earlier process had finished keeps the row that it wrote."""
    earlier = {row.object: row for row in before.items if row.outcome != Outcome.PLANNED} if before else {}
    return [earlier.get(item.object) or _item(item, results.get(item.object)) for item in items]


def _item(item: Item, result: ItemResult | None) -> ItemStatus:
    known = result.size_before if result is not None and result.size_before is not None else item.size_before
    before = format_bytes(known) if known is not None else None
    # of a session that is ended everything is in the other fields
    session = item.type.task_class is TaskClass.EMERGENCY
    after = format_bytes(result.size_after) if result is not None and result.size_after is not None else None
    return ItemStatus(
        type=str(item.type),
        object=item.object[:256],
        outcome=str(result.outcome if result is not None else Outcome.PLANNED),
        sql=item.sql[:256] or None if not session else None,
        sql_state=result.sql_state if result is not None else None,
        estimate=format_duration(item.estimate) if item.estimate is not None and not session else None,
        actual=format_duration(result.actual) if result is not None and result.actual > 0 else None,
        size=SizeStatus(before=before, after=after) if before or after else None,
        user=item.shown.get("user"),
        database=item.shown.get("database"),
        running=item.shown.get("running"),
        message=result.message[:256] if result is not None and result.message else None,
    )


def with_result(row: ItemStatus, result: ItemResult) -> ItemStatus:
    """A row of what an earlier process had begun, with what was found of it."""
    size = SizeStatus(after=format_bytes(result.size_after)) if result.size_after is not None else row.size
    return row.model_copy(
        update={
            "outcome": str(result.outcome),
            "message": result.message[:256] or None,
            "actual": format_duration(result.actual) if result.actual > 0 else row.actual,
            "size": size,
        }
    )


def _plan(plan: TaskPlan) -> PlanStatus:
    return PlanStatus(
        items=len(plan.items),
        estimate=format_duration(plan.estimate) if plan.estimate is not None else None,
        lock=str(plan.lock),
        sql=tuple(line[:256] for line in plan.sql[:10]),
    )


def _planned(plan: TaskPlan) -> str:
    notes = "".join(f"; {note}" for note in plan.notes)
    return f"{len(plan.items)} item{'' if len(plan.items) == 1 else 's'} planned{notes}"


def plan_text(plan: TaskPlan) -> str:
    return _planned(plan)


def stamp(moment: datetime | None) -> Timestamp | None:
    return Timestamp(rfc3339(moment)) if moment is not None else None


def _clock(moment: datetime) -> str:
    return rfc3339(moment)[11:]
