"""What the conditions of a window and of a run say. Pure: values in, verdicts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pgtend.api.conditions import Reason, Verdict
from pgtend.api.maintenancerun import CountsStatus
from pgtend.api.reasons import RunReason as R
from pgtend.api.reasons import WindowReason as W
from pgtend.api.types import format_duration
from pgtend.core.clock import rfc3339

_BLOCKERS = {
    R.WAITING_FOR_BACKUP: W.WAITING_FOR_BACKUP,
    R.STARVED_BY_BACKUP: W.STARVED_BY_BACKUP,
    R.WAITING: W.WAITING,
    R.PAUSED: W.PAUSED,
}
_BLOCK_ORDER = (W.TARGET_NOT_READY, W.WAITING_FOR_BACKUP, W.PAUSED, W.WAITING, W.STARVED_BY_BACKUP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What is wrong with one target: a window's Accepted or Unblocked says so. `object` is what is named."""

    reason: W
    message: str
    object: str | None = None


def invalid(reason: W, message: str) -> list[Verdict]:
    """A window whose spec has no meaning: nothing is open."""
    return [
        Verdict("Ready", "False", reason, "not in force; see Accepted", negligible=True),
        Verdict("Accepted", "False", reason, message),
        Verdict("Active", "Unknown", W.NOT_ACCEPTED, "not open while it is not accepted", negligible=True),
        Verdict("Unblocked", "Unknown", W.NOT_ACCEPTED, "not looked at while it is not accepted", negligible=True),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowView:
    """All that a window's verdicts come from. `troubles` of targets that are not served, `blocks` of those that are."""

    suspended: bool
    observing: bool
    matched: int
    admitted: int
    troubles: Sequence[Trouble] = ()
    blocks: Sequence[Trouble] = ()
    open_until: datetime | None = None
    excluded: str | None = None
    next_at: datetime | None = None


def window(view: WindowView) -> list[Verdict]:
    accepted = _accepted(view)
    return [_ready(view, accepted), accepted, _active(view), _unblocked(view)]


def _accepted(view: WindowView) -> Verdict:
    if view.troubles:
        first = view.troubles[0]
        more = f"; and {len(view.troubles) - 1} more" if len(view.troubles) > 1 else ""
        return Verdict("Accepted", "False", first.reason, f"{first.message}{more}", first.object)
    text = f"spec is valid and admitted by {view.admitted} of {view.matched} targets"
    return Verdict("Accepted", "True", W.ACCEPTED, text)


def _ready(view: WindowView, accepted: Verdict) -> Verdict:
    if view.suspended:
        return Verdict("Ready", "True", W.SUSPENDED, "spec.suspend is true: nothing starts")
    if not view.admitted:
        return Verdict("Ready", "False", accepted.reason, "no target is served; see Accepted", negligible=True)
    targets = f"{view.admitted} target{'' if view.admitted == 1 else 's'}"
    if view.observing:
        return Verdict("Ready", "True", W.OBSERVING, f"schedule is valid, {targets}; runs are planned, none is begun")
    return Verdict("Ready", "True", W.IN_FORCE, f"schedule is valid, {targets}")


def _active(view: WindowView) -> Verdict:
    following = f"opens {rfc3339(view.next_at)}" if view.next_at is not None else "does not open within five years"
    if view.suspended:
        return Verdict("Active", "False", W.SUSPENDED, "spec.suspend is true", negligible=True)
    if view.open_until is not None:
        return Verdict("Active", "True", W.WINDOW_OPEN, f"open until {rfc3339(view.open_until)}")
    if view.excluded is not None:
        return Verdict("Active", "False", W.EXCLUSION_ACTIVE, f"{view.excluded}; {following}", negligible=True)
    return Verdict("Active", "False", W.OUTSIDE_WINDOW, following, negligible=True)


def _unblocked(view: WindowView) -> Verdict:
    if not view.blocks:
        return Verdict("Unblocked", "True", W.AS_EXPECTED, "nothing stands in the way")
    first = min(view.blocks, key=lambda each: _BLOCK_ORDER.index(each.reason))
    return Verdict("Unblocked", "False", first.reason, first.message, first.object)


def block_of(reason: str) -> W | None:
    """The window's word for what a run waits for, or was starved by; None where nothing blocks."""
    return next((window for run, window in _BLOCKERS.items() if run == reason), None)


# A run


def scheduled(*, target: str, opens_at: datetime, planned: str) -> list[Verdict]:
    text = f"{planned}; the window opens {rfc3339(opens_at)}"
    return [
        Verdict("Ready", "True", R.SCHEDULED, text),
        _admitted(target),
        Verdict("Complete", "False", R.SCHEDULED, "the window is not open yet", negligible=True),
    ]


def waiting(*, target: str, reason: Reason, message: str, object: str | None, begun: bool) -> list[Verdict]:
    """The window is open and something is in the way."""
    verdicts = [
        Verdict("Ready", "True", R.SCHEDULED, "the window is open; see Complete")
        if not begun
        else Verdict("Ready", "False", R.RUNNING, "begun; see Complete", negligible=True),
        _admitted(target),
        Verdict("Complete", "False", reason, message, object),
    ]
    if begun:
        verdicts.append(Verdict("Reconciling", "True", reason, "waits"))
    return verdicts


def running(*, target: str, planned: str) -> list[Verdict]:
    return [
        Verdict("Ready", "False", R.RUNNING, planned, negligible=True),
        _admitted(target),
        Verdict("Complete", "False", R.RUNNING, "it runs", negligible=True),
        Verdict("Reconciling", "True", R.RUNNING, "it runs"),
    ]


def planned_only(*, target: str, reason: R, message: str) -> list[Verdict]:
    """DryRun or Observe: the plan, and nothing else."""
    return [
        Verdict("Ready", "True", reason, message),
        _admitted(target),
        Verdict("Complete", "True", R.DRY_RUN, message),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a run ended. `stopped` is why it was closed early, `refused` why the target does not admit it any more,
    `starved` how a dump took the time, `skipped` why nothing was begun, `failure` what the first failed item says."""

    target: str
    planned: int
    counts: CountsStatus
    finished_at: datetime
    window_ends_at: datetime
    next_at: datetime | None = None
    stopped: str | None = None
    refused: str | None = None
    starved: str | None = None
    skipped: str | None = None
    failed_object: str | None = None
    failure: str = ""
    notes: Sequence[str] = ()

    @property
    def reason(self) -> R:
        if self.counts.failed:
            return R.FAILED
        if self.stopped is not None or self.refused is not None:
            return R.CANCELLED
        left = self.counts.succeeded < self.planned
        if self.starved is not None and left:
            return R.STARVED_BY_BACKUP
        if self.skipped is not None and not self.counts.succeeded:
            return R.SKIPPED
        return R.SUCCEEDED if self.counts.succeeded or not left else R.SKIPPED


def finished(ended: Ended) -> list[Verdict]:
    reason, counts = ended.reason, ended.counts
    notes = "".join(f"; {note}" for note in ended.notes)
    left = ended.planned - counts.succeeded - counts.failed
    if counts.failed:
        summary = f"{counts.failed} of {ended.planned} items failed: {ended.failed_object}"
    elif not ended.planned:
        summary = "nothing was due"
    else:
        following = f" at {rfc3339(ended.next_at)}" if ended.next_at is not None else " in the next window"
        rest = f", {left} go{'es' if left == 1 else ''} on{following}" if left > 0 else ""
        summary = f"{counts.succeeded} of {ended.planned} item{'' if ended.planned == 1 else 's'} done{rest}"
    why = ended.refused or ended.stopped or ended.starved or ended.skipped
    told = summary
    if why is not None and reason is not R.SUCCEEDED and not counts.failed:
        told = f"{why}; {summary}" if ended.planned else why
    well = reason is R.SUCCEEDED
    accepted = _admitted(ended.target)
    if ended.refused is not None:
        accepted = Verdict("Accepted", "False", R.NOT_PERMITTED, ended.refused)
    verdicts = [
        Verdict("Ready", "False" if reason is R.FAILED else "True", reason, told + notes, negligible=True),
        accepted,
        Verdict(
            "Complete",
            "True" if well else "False",
            reason,
            _when(ended) if well else (ended.failure or told),
            ended.failed_object,
            negligible=reason in (R.CANCELLED, R.SKIPPED, R.STARVED_BY_BACKUP),
        ),
    ]
    if reason is R.FAILED:
        verdicts.append(Verdict("Stalled", "True", R.FAILED, "it is not tried again in this run"))
    return verdicts


def _when(ended: Ended) -> str:
    clock = f"{rfc3339(ended.finished_at)[11:]}"
    before = ended.window_ends_at - ended.finished_at
    return f"ended {clock}, {format_duration(before)} before the window"


def _admitted(target: str) -> Verdict:
    return Verdict("Accepted", "True", R.ACCEPTED, f"admitted by target {target}")
