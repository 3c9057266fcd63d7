"""How a run ended: which items are left, whether a dump took the time, where the next window goes on. Sends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pgtend.api.maintenancerun import RunSpec
from pgtend.api.types import format_duration
from pgtend.core.clock import parse_rfc3339, rfc3339
from pgtend.kube.index import Record
from pgtend.maintenance import runs
from pgtend.maintenance.book import Known, begun, target_of
from pgtend.maintenance.judge import Ended
from pgtend.maintenance.memory import Memory, dry_types, listed
from pgtend.maintenance.plan import proposal
from pgtend.maintenance.runs import counts_of, key_of
from pgtend.maintenance.score import Key, Weighed, resume_point
from pgtend.tasks.protocol import Item, ItemResult, Outcome

LONGEST = timedelta(days=1)
"""How long an item may be at most where the window is gone and nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """`items` are those that were to be done, `resume` is where the next window goes on."""

    ended: Ended
    items: tuple[Item, ...]
    resume: Key | None


def end_of(
    record: Record,
    memory: Memory,
    *,
    known: Known | None,
    now: datetime,
    stopped: str | None = None,
    refused: str | None = None,
    skipped: str | None = None,
) -> End:
    """The end of a run that was begun, or that never could. Every item gets a result in the memory."""
    if memory.started_at is None and begun(record):
        # taken up only to be ended: what its status says is all that is known
        memory.started_at = parse_rfc3339(record.status["startedAt"])
        memory.results = runs.kept_results(record.status)
    dry = dry_types(known) if known is not None else frozenset()
    items = tuple(i for i in memory.items if str(i.type) not in dry) or memory.items or listed(record)
    for item in items:
        if key_of(item) not in memory.results:
            message = (stopped or refused or skipped or memory.why or "there was no time left")[:256]
            memory.results[key_of(item)] = ItemResult(outcome=Outcome.DEFERRED_NO_TIME, message=message)
    memory.waited(now)
    spec = record.parsed(RunSpec)
    starts_at, ends_at = parse_rfc3339(spec.starts_at), parse_rfc3339(spec.ends_at)
    failure = next((i for i in items if memory.results[key_of(i)].outcome.group == "failed"), None)
    following = known.timetable.next_slot(starts_at) if known is not None else None
    # a window that opens with the dump and has hours left was not starved; one that lost a quarter was
    lost = memory.backup_for * 4 >= ends_at - starts_at
    ended = Ended(
        target=target_of(record).name,
        planned=len(items),
        counts=counts_of(items, memory.results),
        finished_at=now,
        window_ends_at=ends_at,
        next_at=following.starts_at if following is not None else None,
        stopped=stopped,
        refused=refused,
        starved=_starved(record, memory, known, min(now, ends_at)) if lost and known is not None else None,
        skipped=skipped,
        failed_object=failure.object if failure is not None else None,
        failure=_failure(failure, memory.results[key_of(failure)]) if failure is not None else "",
        notes=tuple(dict.fromkeys(memory.notes)),
    )
    longest = known.timetable.window.duration - known.timetable.window.closing.cancel if known else LONGEST
    left = (
        Weighed(key_of(item), item.estimate)
        for item in items
        if memory.results[key_of(item)].outcome.group in ("deferred", "cancelled")
    )
    return End(ended=ended, items=items, resume=resume_point(left, longest.total_seconds()))


def _starved(record: Record, memory: Memory, known: Known, until: datetime) -> str:
    window = known.timetable.window
    ends_at = record.parsed(RunSpec).ends_at
    last = format_duration(window.closing.last_start)
    return (
        f"on {target_of(record).name} dumps of policy {memory.backup_policy} took {format_duration(memory.backup_for)}"
        f" of the window that ended {rfc3339(parse_rfc3339(ends_at))}, nothing may start in its last"
        f" {last}: move the window to {proposal(until, window.zone)} or the backup"
    )


def _failure(item: Item, result: ItemResult) -> str:
    state = f" ({result.sql_state})" if result.sql_state else ""
    return f"{item.type} of {item.object} failed{state}: {result.message}"
