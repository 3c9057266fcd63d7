"""When an operation may start: what the gate says, as a decision about the operation. Pure.

Waiting for a window is no trouble, but only for one that opens before notAfter; what will never be possible is refused
at once, not when somebody has waited for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pgtend.api.conditions import Reason
from pgtend.api.postgresoperation import OperationSpec
from pgtend.api.reasons import OperationReason as R
from pgtend.core.clock import parse_rfc3339
from pgtend.gate.asking import Refusal, Request, State
from pgtend.gate.classes import RunPolicy, TaskClass, TaskType
from pgtend.gate.decide import Permit, decide
from pgtend.gate.reasons import GateReason
from pgtend.operations.admission import No


@dataclass(frozen=True, slots=True, kw_only=True)
class Later:
    """It may start later. `next_at` is when asking again makes sense, None where that depends on other work."""

    message: str
    next_at: datetime | None
    reason: Reason = R.SCHEDULED


def policy_of(spec: OperationSpec, type_: TaskType) -> RunPolicy:
    """What the spec says; else in a window where the type is disruptive, and at once where it is not."""
    if spec.run_policy is not None:
        return RunPolicy(spec.run_policy)
    return RunPolicy.IN_WINDOW if type_.task_class is TaskClass.DISRUPTIVE else RunPolicy.IMMEDIATELY


def when(*, spec: OperationSpec, type_: TaskType, object: str, state: State, now: datetime) -> Later | No | None:
    """None where it may start now. `object` is what it acts on, for messages; whether an item fits before the end is
    asked of each item when its turn comes."""
    answer = decide(
        Request(
            target=state.target,
            type=type_,
            object=object,
            run_policy=policy_of(spec, type_),
            estimate=timedelta(0),
            timeout=spec.limit.timedelta,
        ),
        state,
        now,
    )
    return None if isinstance(answer, Permit) else _refused(answer, spec, policy_of(spec, type_))


def _refused(refusal: Refusal, spec: OperationSpec, policy: RunPolicy) -> Later | No:
    outside = refusal.reason is GateReason.OUTSIDE_WINDOW
    if outside and policy is RunPolicy.IMMEDIATELY:
        return No(reason=R.OUTSIDE_WINDOW, message=refusal.message, object=refusal.object)
    never = outside and refusal.retry_at is None
    if never or (refusal.retry_at is not None and refusal.retry_at > parse_rfc3339(spec.not_after)):
        text = f"{refusal.message}, and notAfter is {spec.not_after}"
        return No(reason=R.NO_WINDOW_BEFORE_EXPIRY, message=text, object=refusal.object)
    return Later(message=refusal.message, next_at=refusal.retry_at)
