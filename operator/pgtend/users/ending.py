"""How the sessions of a role end that is dropped or rotated out: by leave of the gate, as whatever is disruptive.

What a spec says of it (`drop.sessions`, `rotation.sessions`) is the wish; the gate says whether now, since the brake, a
suspended target or one that is only observed stop it as they stop all else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import TargetReason
from pgtend.core.actions import Action
from pgtend.core.findings import ObjectKey
from pgtend.gate.asking import Refusal, Request, State
from pgtend.gate.classes import RunPolicy, TaskType
from pgtend.gate.decide import Permit, decide
from pgtend.users.actions import EndSessions
from pgtend.users.state import Problem

TIMEOUT = timedelta(seconds=30)
"""Of the statement that tells them to."""
Permits = Mapping[str, Permit]
"""By the role whose sessions end."""


def may_end(role: str, *, target: ObjectKey, spec: TargetSpec, braked: bool, now: datetime) -> Permit | Refusal:
    """What the gate says."""
    request = Request(
        target=target,
        type=TaskType.END_SESSIONS,
        object=f"role {role}",
        run_policy=RunPolicy.IMMEDIATELY,
        estimate=timedelta(0),
        timeout=TIMEOUT,
    )
    return decide(request, State(target=target, mode=spec.mode, suspended=spec.suspend, brake=braked), now)


def permits(
    actions: Sequence[Action], *, target: ObjectKey, spec: TargetSpec, braked: bool, now: datetime
) -> dict[str, Permit] | Problem:
    """Leave for each role whose sessions these actions end, or why there is none."""
    given: dict[str, Permit] = {}
    for action in actions:
        if isinstance(action, EndSessions):
            answer = may_end(action.role, target=target, spec=spec, braked=braked, now=now)
            if isinstance(answer, Refusal):
                reason = TargetReason(answer.reason.value)
                return Problem(reason=reason, message=answer.message, object=answer.object, transient=True)
            given[action.role] = answer
    return given
