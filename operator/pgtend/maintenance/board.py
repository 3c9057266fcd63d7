"""What a window's status says: when it is open, whom it serves, how its last runs ended. Values in, values out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pgtend.api.maintenancewindow import (
    LastRunStatus,
    Span,
    TargetsStatus,
    WindowStatus,
)
from pgtend.api.reasons import RunReason
from pgtend.api.types import Timestamp
from pgtend.core.clock import rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.kube.index import Record
from pgtend.kube.status import Draft
from pgtend.maintenance import judge
from pgtend.maintenance.book import Known, begun, finished, target_of
from pgtend.maintenance.judge import Trouble, WindowView
from pgtend.maintenance.served import Served


def draft(*, known: Known, served: Served, unready: Sequence[Trouble], runs: Sequence[Record], now: datetime) -> Draft:
    """`unready` says which targets have no plan and why, `runs` are those of this window."""
    spec, times = known.spec, known.timetable
    open_now = times.window.window_at(now) if not spec.suspend else None
    upcoming = times.window.next_windows(now, 3)
    exclusion = times.window.active_exclusion(now)
    excluded = None
    if exclusion is not None:
        why = f" ({exclusion.reason})" if exclusion.reason else ""
        excluded = f"exclusion {exclusion.name}{why} until {rfc3339(exclusion.ends_at)}"
    last = _last(known, runs)
    observing = spec.mode == "Observe" or (
        bool(served.admitted) and all(target.mode == "Observe" for target in served.admitted.values())
    )
    view = WindowView(
        suspended=spec.suspend,
        observing=observing,
        matched=served.matched,
        admitted=len(served.admitted),
        troubles=served.troubles,
        blocks=(*unready, *_blocks(known, runs, last)),
        open_until=open_now.ends_at if open_now is not None else None,
        excluded=excluded,
        next_at=upcoming[0].starts_at if upcoming else None,
    )
    status = WindowStatus(
        targets=TargetsStatus(
            matched=served.matched,
            running=sum(1 for run in runs if begun(run) and not finished(run)),
            failed=sum(1 for run in last if run.reason("Complete") == RunReason.FAILED),
        ),
        next_at=_stamp(upcoming[0].starts_at) if upcoming and not spec.suspend else None,
        current=_span(open_now.starts_at, open_now.ends_at) if open_now is not None else None,
        upcoming=tuple(_span(span.starts_at, span.ends_at) for span in upcoming) if not spec.suspend else (),
        last_run=_last_run(last),
    )
    return Draft(status=status, verdicts=judge.window(view))


def _last(known: Known, runs: Sequence[Record]) -> list[Record]:
    """Of each target the run that ended last."""
    newest: dict[ObjectKey, Record] = {}
    for run in runs:
        if not finished(run) or target_of(run) not in known.admitted:
            continue
        before = newest.get(target_of(run))
        if before is None or str(before.status["finishedAt"]) < str(run.status["finishedAt"]):
            newest[target_of(run)] = run
    return list(newest.values())


def _blocks(known: Known, runs: Sequence[Record], last: Sequence[Record]) -> list[Trouble]:
    """What runs wait for now, and what took the time of those that ended last."""
    waiting = [run for run in runs if not finished(run)]
    found = []
    for run in (*waiting, *last):
        reason = judge.block_of(run.reason("Complete"))
        if reason is None or (run in waiting and target_of(run) not in known.admitted):
            continue
        message = next(c["message"] for c in run.status["conditions"] if c["type"] == "Complete")
        found.append(Trouble(reason=reason, message=message, object=target_of(run).name))
    return found


def _last_run(last: Sequence[Record]) -> LastRunStatus | None:
    newest = max(last, key=lambda run: str(run.status["finishedAt"]), default=None)
    if newest is None:
        return None
    counts = newest.status.get("counts") or {}
    started = newest.status.get("startedAt")
    return LastRunStatus(
        started_at=Timestamp(started) if started else None,
        finished_at=Timestamp(newest.status["finishedAt"]),
        succeeded=counts.get("succeeded", 0),
        deferred=counts.get("deferred", 0),
        failed=counts.get("failed", 0),
    )


def _span(starts_at: datetime, ends_at: datetime) -> Span:
    return Span(starts_at=_stamp(starts_at), ends_at=_stamp(ends_at))


def _stamp(moment: datetime) -> Timestamp:
    return Timestamp(rfc3339(moment))
