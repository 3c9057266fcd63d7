"""The one place that says whether work may start now.

`decide()` is a pure function of what is asked, what is known and the time. A `Permit` is made nowhere else, and what
is disruptive cannot be called without one, so no code path goes round the gate. The refusals come in the order in which
somebody on call wants to read them: what stops everything, what the time says, what is in the way on the target.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pgtend.api.types import format_duration
from pgtend.core.clock import rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.gate.asking import Refusal, Request, State, TargetWindow
from pgtend.gate.busy import Busy
from pgtend.gate.classes import RunPolicy, TaskClass, TaskType
from pgtend.gate.reasons import GateReason
from pgtend.gate.windows import Window

DUMP_MARGIN = timedelta(seconds=60)
"""Disruptive work ends, or is cancelled, this long before a dump starts."""
DEFAULT_TIMEOUT = timedelta(hours=1)
"""The limit of work outside a window that brings no timeout of its own."""

_TOKEN = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """Leave to start one piece of work now. Only `decide()` makes it.

    `deadline` (UTC) is the moment at which the work is cancelled if it still runs; `reason` says in words why it may
    run; `window` names the window that it runs in, if it needs one.
    """

    target: ObjectKey
    type: TaskType
    task_class: TaskClass
    object: str
    granted_at: datetime
    deadline: datetime
    reason: str
    window: ObjectKey | None = None
    token: InitVar[Any]

    def __post_init__(self, token: Any) -> None:
        if token is not _TOKEN:
            raise TypeError("a Permit comes from gate.decide() only")


@dataclass(frozen=True, slots=True)
class _Limit:
    """A moment at which the work would be cancelled, with the refusal that its estimate meets."""

    at: datetime
    reason: GateReason
    because: str
    object: str | None = None
    retry_at: datetime | None = None


def decide(request: Request, state: State, now: datetime) -> Permit | Refusal:
    """Whether `request` may start at `now` (aware). Raises ValueError where request and state do not belong together.

    Harmless, Online, Emergency and Data work waits for a window only if `runPolicy: InWindow` asks for it; Disruptive
    work needs an open window or OverrideWindow, in which case dumps, exclusions and the limit of one disruptive task
    per target still hold.
    """
    if request.target != state.target:
        raise ValueError(f"asked about {request.target}, told about {state.target}")
    if now.tzinfo is None or request.estimate < timedelta(0):
        raise ValueError("now needs a zone, and an estimate is not negative")
    now = now.astimezone(UTC)
    disruptive = request.type.task_class is TaskClass.DISRUPTIVE
    refusal = _stopped(state, request.object_mode) or (_excluded(state, now) if disruptive else None)
    if refusal is not None:
        return refusal
    needs_window = request.run_policy is RunPolicy.IN_WINDOW or (
        disruptive and request.run_policy is not RunPolicy.OVERRIDE_WINDOW
    )
    limits: list[_Limit] = []
    granting: TargetWindow | None = None
    if needs_window:
        found = _open_window(request, state, now)
        if isinstance(found, Refusal):
            return found
        granting, window = found
        limits.append(_window_limit(granting, window, request.estimate))
    if request.timeout is not None or not needs_window:
        timeout = request.timeout or DEFAULT_TIMEOUT
        because = f"its timeout of {format_duration(timeout)}: raise timeout or narrow select"
        limits.append(_Limit(now + timeout, GateReason.NOT_ENOUGH_TIME, because))
    if disruptive:
        if (refusal := _dump_in_the_way(state.busy, now) or _other_work(state.busy)) is not None:
            return refusal
        limits.extend(_dump_limits(state.busy, now))
        limits.extend(_exclusion_limits(state, now))
    # Online and emergency work outside a window may be cut off: what it has done stays done.
    if needs_window or disruptive:
        for limit in sorted(limits, key=lambda each: each.at):
            if now + request.estimate > limit.at:
                return Refusal(
                    reason=limit.reason,
                    message=f"{request.type} of {request.object} is estimated at {format_duration(request.estimate)}"
                    f" and would not end before {limit.because}",
                    object=limit.object,
                    retry_at=limit.retry_at,
                )
    return Permit(
        target=request.target,
        type=request.type,
        task_class=request.type.task_class,
        object=request.object,
        granted_at=now,
        deadline=min(limit.at for limit in limits),
        reason=_why(request, granting),
        window=granting.key if granting else None,
        token=_TOKEN,
    )


def recheck(permit: Permit, state: State, now: datetime) -> Refusal | None:
    """Why work that runs with this permit must be stopped before its deadline; None while it may go on.

    People may have set the brake, suspended or withdrawn the window, added an exclusion or started a backup meanwhile.
    Raises ValueError where permit and state do not belong together.
    """
    if permit.target != state.target:
        raise ValueError(f"asked about {permit.target}, told about {state.target}")
    if (stopped := _stopped(state, "Enforce")) is not None:
        return stopped
    if permit.window is not None:
        window = next((w for w in _windows(state) if w.key == permit.window), None)
        if window is None or window.calendar.window_at(now) is None:
            return Refusal(
                reason=GateReason.OUTSIDE_WINDOW,
                message=f"window {permit.window} is no longer open for {state.target.name}",
                object=str(permit.window),
            )
    if permit.task_class is not TaskClass.DISRUPTIVE:
        return None
    refusal = _excluded(state, now) or _dump_in_the_way(state.busy, now)
    if refusal is None and (due := state.busy.next_dump(now)) is not None and due[1] - DUMP_MARGIN <= now:
        refusal = Refusal(
            reason=GateReason.BACKUP_DUE,
            message=f"the dump of policy {due[0].name} starts {rfc3339(due[1])}",
            object=due[0].name,
        )
    return refusal


def _stopped(state: State, object_mode: str) -> Refusal | None:
    if state.brake:
        return Refusal(reason=GateReason.BRAKE_ON, message="the installation's brake is set: release it to go on")
    if state.suspended:
        return Refusal(
            reason=GateReason.SUSPENDED,
            message=f"target {state.target} has spec.suspend: true",
            object=str(state.target),
        )
    if "Observe" in (state.mode, object_mode):
        whose = f"target {state.target} is" if state.mode == "Observe" else "the object is"
        return Refusal(
            reason=GateReason.OBSERVING,
            message=f"{whose} in mode Observe: set spec.mode: Enforce when the plan looks right",
            object=str(state.target) if state.mode == "Observe" else None,
        )
    return None


def _windows(state: State) -> Iterator[TargetWindow]:
    return (window for window in state.windows if not window.suspended)


def _excluded(state: State, now: datetime) -> Refusal | None:
    for window in _windows(state):
        if (exclusion := window.calendar.active_exclusion(now)) is not None:
            why = f" ({exclusion.reason})" if exclusion.reason else ""
            return Refusal(
                reason=GateReason.EXCLUSION_ACTIVE,
                message=f"exclusion {exclusion.name}{why} of window {window.key} holds until"
                f" {rfc3339(exclusion.ends_at)}: wait, or change it there",
                object=str(window.key),
                retry_at=exclusion.ends_at,
            )
    return None


def _open_window(request: Request, state: State, now: datetime) -> tuple[TargetWindow, Window] | Refusal:
    """The open window that leaves the most time, or why there is none to start in."""
    usable = [w for w in _windows(state) if request.window in (None, w.key)]
    found = [(w, span) for w in usable if (span := w.calendar.window_at(now)) is not None]
    ahead = [(span.starts_at, w.key) for w in usable for span in w.calendar.next_windows(now, 1)]
    following = min(ahead, default=None)
    if not found:
        return _outside(request, state, now, following)
    startable = [(w, span) for w, span in found if now < span.ends_at - w.calendar.closing.last_start]
    if not startable:
        closing, span = max(found, key=lambda item: item[1].ends_at)
        return Refusal(
            reason=GateReason.WINDOW_CLOSING,
            message=f"window {closing.key} ends {rfc3339(span.ends_at)} and nothing starts in its last"
            f" {format_duration(closing.calendar.closing.last_start)}{_next_text(following)}",
            object=str(closing.key),
            retry_at=following[0] if following else None,
        )
    return max(startable, key=lambda item: item[1].ends_at - item[0].calendar.closing.cancel)


def _outside(request: Request, state: State, now: datetime, following: tuple[datetime, ObjectKey] | None) -> Refusal:
    if request.run_policy is RunPolicy.IN_WINDOW:
        named = next((w for w in state.windows if w.key == request.window), None)
        if named is not None and named.suspended:
            return Refusal(
                reason=GateReason.SUSPENDED,
                message=f"window {named.key} has spec.suspend: true",
                object=str(named.key),
            )
        message = (
            f"window {following[1]} opens {rfc3339(following[0])}"
            if following
            else f"no window selects {request.target.name}: create a MaintenanceWindow or use OverrideWindow"
        )
    else:
        message = (
            f"{request.type} {request.type.effect} {request.object} and no window of {request.target.name} is open at"
            f" {now.astimezone(UTC):%H:%M:%SZ}: create it with runPolicy InWindow"
            f" ({f'next {rfc3339(following[0])}' if following else 'when there is a window'}) or OverrideWindow"
        )
    return Refusal(
        reason=GateReason.OUTSIDE_WINDOW,
        message=message,
        object=request.target.name,
        retry_at=following[0] if following else None,
    )


def _next_text(following: tuple[datetime, ObjectKey] | None) -> str:
    return f": goes on {rfc3339(following[0])} in window {following[1]}" if following else ""


def _window_limit(granting: TargetWindow, window: Window, estimate: timedelta) -> _Limit:
    calendar = granting.calendar
    stop = window.ends_at - calendar.closing.cancel
    because = f"{rfc3339(stop)}, when window {granting.key} cancels what runs"
    following = next((w.starts_at for w in calendar.next_windows(window.starts_at, 1)), None)
    if estimate > calendar.duration - calendar.closing.cancel:
        because += f": it fits no window of {format_duration(calendar.duration)}, lengthen duration or narrow select"
        following = None
    return _Limit(stop, GateReason.NOT_ENOUGH_TIME, because, str(granting.key), following)


def _dump_in_the_way(busy: Busy, now: datetime) -> Refusal | None:
    if busy.active_dumps:
        dump = min(busy.active_dumps, key=lambda each: each.started_at)
        return Refusal(
            reason=GateReason.WAITING_FOR_BACKUP,
            message=f"the dump of policy {dump.policy.name} runs since {rfc3339(dump.started_at)}",
            object=dump.policy.name,
        )
    if (late := busy.late_dump(now)) is not None:
        return Refusal(
            reason=GateReason.WAITING_FOR_BACKUP,
            message=f"the dump of policy {late[0].name} was due {rfc3339(late[1])} and its Job is about to start",
            object=late[0].name,
        )
    return None


def _other_work(busy: Busy) -> Refusal | None:
    if busy.running:
        other = min(busy.running, key=lambda each: each.since)
        return Refusal(
            reason=GateReason.TARGET_BUSY,
            message=f"{other.type} of {other.object} runs since {rfc3339(other.since)} for {other.holder.kind}"
            f" {other.holder}",
            object=str(other.holder),
        )
    return None


def _dump_limits(busy: Busy, now: datetime) -> Iterator[_Limit]:
    if (due := busy.next_dump(now)) is not None:
        policy, start = due
        yield _Limit(
            start - DUMP_MARGIN,
            GateReason.BACKUP_DUE,
            f"{format_duration(DUMP_MARGIN)} before the dump of policy {policy.name} at {rfc3339(start)}",
            policy.name,
            None,
        )


def _exclusion_limits(state: State, now: datetime) -> Iterator[_Limit]:
    for window in _windows(state):
        if (exclusion := window.calendar.next_exclusion(now)) is not None:
            yield _Limit(
                exclusion.starts_at - window.calendar.closing.cancel,
                GateReason.NOT_ENOUGH_TIME,
                f"exclusion {exclusion.name} of window {window.key} begins at {rfc3339(exclusion.starts_at)}",
                str(window.key),
                exclusion.ends_at,
            )


def _why(request: Request, granting: TargetWindow | None) -> str:
    if granting is not None:
        return f"window {granting.key} is open"
    if request.type.task_class is TaskClass.DISRUPTIVE:
        return "runPolicy OverrideWindow"
    return f"{request.type.task_class.value} work runs at any time"
