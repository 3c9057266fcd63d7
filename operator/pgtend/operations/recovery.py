"""What becomes of an operation that another process began: of a Once task what the database tells, and nothing is
repeated; of an idempotent one the rest is done. Pure: from what was written and what was found to what is said or done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pgtend.api.postgresoperation import ItemStatus, OperationStatus
from pgtend.core.journal import Claimed, Journal
from pgtend.gate.classes import TaskType
from pgtend.operations import telling
from pgtend.operations.telling import Ended
from pgtend.tasks.protocol import GOES_ON, Item, ItemResult, Outcome, TaskPlan, outcome_of
from pgtend.tasks.runner import Ending


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What was written down: all rows in the plan's order, and what finds the items again."""

    before: OperationStatus
    rows: tuple[ItemStatus, ...]
    claimed: tuple[Claimed, ...]

    @property
    def finished(self) -> dict[str, ItemResult]:
        """By object; what an earlier process had said, without its figures, which stand in its rows."""
        return {row.object: result_of(row) for row in self.rows if row.outcome != Outcome.PLANNED}

    def open(self, type_: TaskType) -> tuple[Item, ...]:
        """The items that nobody has said the end of."""
        done = self.finished
        return tuple(
            Item(type=type_, object=c.object, verb="", sql="", facts=c.facts)
            for c in self.claimed
            if c.object not in done
        )


def result_of(row: ItemStatus) -> ItemResult:
    return ItemResult(outcome=outcome_of(row.outcome), sql_state=row.sql_state, message=row.message or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What is to be done on: `plan` has all items, `done` by object what is finished."""

    plan: TaskPlan
    done: Mapping[str, ItemResult]


def rest_of(*, type_: TaskType, begun: Begun, found: Mapping[str, ItemResult], fresh: TaskPlan) -> Rest:
    """What is left of an idempotent task. An item that the database shows as done, or that is not due any more, is
    done; nothing is taken up that was not planned."""
    done = {**begun.finished, **found}
    due = {item.object: item for item in fresh.items}
    facts = {claimed.object: claimed.facts for claimed in begun.claimed}
    items = []
    for row in begun.rows:
        item = due.get(row.object) or Item(type=type_, object=row.object, verb="", sql=row.sql or "")
        # what was written with the claim finds what the first try has left, a newer look would not
        items.append(replace(item, facts=facts.get(row.object, item.facts)))
        if row.object not in done and row.object not in due:
            text = "nothing was left to do after a restart of the operator"
            done[row.object] = ItemResult(outcome=Outcome.SUCCEEDED, message=text)
    plan = TaskPlan(
        type=type_,
        items=tuple(items),
        plan_hash=begun.before.plan_hash or fresh.plan_hash,
        sql=begun.before.plan.sql if begun.before.plan is not None else (),
        notes=("the operator ended in between, and the next one went on",),
    )
    return Rest(plan=plan, done=done)


def followed(*, type_: TaskType, begun: Begun, found: Mapping[str, ItemResult]) -> Rest:
    """What goes on without us, to be followed to its end and begun by nobody."""
    facts = {claimed.object: claimed.facts for claimed in begun.claimed}
    items = tuple(
        Item(type=type_, object=row.object, verb=GOES_ON, sql=row.sql or "", facts=facts.get(row.object, {}))
        for row in begun.rows
    )
    plan = TaskPlan(
        type=type_,
        items=items,
        plan_hash=begun.before.plan_hash or "",
        sql=begun.before.plan.sql if begun.before.plan is not None else (),
    )
    return Rest(plan=plan, done={**begun.finished, **found})


def interrupted(
    *, type_: TaskType, begun: Begun, journal: Journal, found: Mapping[str, ItemResult], otherwise: str, now: datetime
) -> tuple[OperationStatus, Ended]:
    """The end of what is not repeated: each item as found, else Interrupted with `otherwise` as the reason."""
    text = f"the operator ended in the middle; {otherwise}"
    results = {
        claimed.object: found.get(claimed.object, ItemResult(outcome=Outcome.INTERRUPTED, message=text))
        for claimed in begun.claimed
        if claimed.object not in begun.finished
    }
    rows = tuple(
        telling.with_result(row, results[row.object]) if row.object in results else row for row in begun.before.items
    )
    outcomes: dict[str, ItemResult] = {**{row.object: result_of(row) for row in begun.rows}, **results}
    done = sum(1 for result in outcomes.values() if result.outcome is Outcome.SUCCEEDED)
    before = begun.before
    status = before.model_copy(
        update={
            "items": rows,
            "progress": f"{len(outcomes)}/{len(outcomes)}",
            "changes": done,
            "finished_at": telling.stamp(now),
            "journal": before.journal.model_copy(update={"unfinished": ()}) if before.journal is not None else None,
        }
    )
    started_at = journal.claimed_at or now
    return status, ended_of(type_, outcomes, Ending.DONE, "", started_at, now, ())


def ended_of(
    type_: TaskType,
    results: Mapping[str, ItemResult],
    ending: Ending,
    message: str,
    started_at: datetime,
    finished_at: datetime,
    notes: Sequence[str],
) -> Ended:
    return Ended(
        type=type_,
        outcomes=results,
        ending=ending,
        message=message,
        started_at=started_at,
        finished_at=finished_at,
        notes=notes,
    )
