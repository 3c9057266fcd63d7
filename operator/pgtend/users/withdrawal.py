"""What becomes of a login that the target does not admit any more, where it says onWithdrawal: Disable.

Consent that is lost for a moment, as by a label that somebody takes away and puts back, must break nothing: for the
length of the grace the role is left as it is, and afterwards no more is taken than the login. Whoever is admitted again
is tended again, which gives back what was taken: the status says which logins that were, since one that somebody else
has switched off is to stay off.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pgtend.api.databaseuser import UserSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.actions import Action
from pgtend.core.clock import Clock, parse_rfc3339, rfc3339
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.kube.events import EventRecorder
from pgtend.kube.index import Record
from pgtend.server.server import Server
from pgtend.users import judge as judges
from pgtend.users.actions import AlterRole, RoleOptions
from pgtend.users.admission import Refusal
from pgtend.users.apply import apply
from pgtend.users.claim import is_marked
from pgtend.users.door import Target
from pgtend.users.judge import Judged
from pgtend.users.look import Looker
from pgtend.users.observe.read import Ask
from pgtend.users.pace import Pace
from pgtend.users.state import Disabled, Problem
from pgtend.users.wanted import derived, role_name

log = logging.getLogger(__name__)


def withdrawn_at(record: Record, now: datetime) -> str | None:
    """Since when the object is not admitted any more, as its status remembers; None where it never was."""
    status = record.status
    if status.get("withdrawnAt"):
        return str(status["withdrawnAt"])
    accepted = any(c["type"] == "Accepted" and c["status"] == "True" for c in status.get("conditions") or ())
    return rfc3339(now) if accepted or (status.get("password") or {}).get("changedAt") else None


def ends_at(since: str, spec: TargetSpec) -> datetime | None:
    """When the login is disabled; None where it is kept."""
    if spec.on_withdrawal == "Keep" or spec.mode == "Observe":
        return None
    return parse_rfc3339(since) + timedelta(seconds=spec.withdrawal_grace.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """One user after the pass. `due` is in how many seconds its grace is over; `problem` why its login is not off."""

    record: Record
    judged: Judged
    due: float | None = None
    problem: Problem | None = None


class Withdrawer:
    def __init__(
        self,
        *,
        looker: Callable[[Server], Looker],
        events: EventRecorder,
        installation: str,
        clock: Clock,
        pace: Pace,
    ) -> None:
        self._looker, self._events = looker, events
        self._installation, self._clock, self._pace = installation, clock, pace

    async def settle(self, target: Target, refused: Sequence[tuple[Record, Refusal]]) -> list[Settled]:
        """Leave them as they are until the target's grace is over, if it says so at all; judge each."""
        now = self._clock.now()
        since = {record.key: withdrawn_at(record, now) for record, _ in refused}
        ends: dict[ObjectKey, datetime] = {}
        for record, _ in refused:
            began, spec = since[record.key], record.parsed(UserSpec)
            end = ends_at(began, target.spec) if began and target.spec and spec.mode != "Observe" else None
            if end is not None:
                ends[record.key] = end
        over = [(record.key, _role(record)) for record, _ in refused if record.key in ends and ends[record.key] <= now]
        found: Mapping[ObjectKey, Disabled] = {}
        if over and (target.problem is not None or target.server is None):
            found = {key: Disabled(problem=target.problem) for key, _ in over}
        elif over and target.server is not None:
            found = await self.disable(target.server, over)
        return [
            await self._settled(record, refusal, since[record.key], found.get(record.key), ends.get(record.key), now)
            for record, refusal in refused
        ]

    async def _settled(
        self,
        record: Record,
        refusal: Refusal,
        since: str | None,
        disabled: Disabled | None,
        end: datetime | None,
        now: datetime,
    ) -> Settled:
        role = _role(record)
        if disabled is not None and disabled.now:
            note = f"the login of role {role} is disabled: {refusal.what}"
            await self._events.say(record, reason="LoginDisabled", note=note, warning=True)
            log.info("login disabled", extra={"object": str(record.key), "role": role})
        verdict = judges.refused(
            refusal,
            role=role,
            previous=record.status,
            now=now,
            withdrawn=since,
            disabled=disabled,
            ends=end if end is not None and end > now else None,
        )
        return Settled(
            record=record,
            judged=verdict,
            due=(end - now).total_seconds() + 0.1 if end is not None and end > now else None,
            problem=disabled.problem if disabled is not None else None,
        )

    async def disable(self, server: Server, users: Sequence[tuple[ObjectKey, str]]) -> Mapping[ObjectKey, Disabled]:
        """Take the logins of these roles away, where they carry the mark of their object; one look for all."""
        families = {key: (role, *derived(role)) for key, role in users}
        try:
            server.writable()
            asked = frozenset(name for family in families.values() for name in family)
            observed = await self._looker(server).look(Ask(roles=asked))
        except PgtendError as error:
            problem = Problem(reason=error.reason, message=error.message, object=error.object, transient=True)
            return {key: Disabled(problem=problem) for key, _ in users}
        found: dict[ObjectKey, Disabled] = {}
        actions: dict[ObjectKey, list[Action]] = {}
        for key, family in families.items():
            states = [s for name in family if (s := observed.roles.get(name)) is not None]
            mine = [s for s in states if is_marked(s, key=key, installation=self._installation)]
            logins, sessions = [state.name for state in mine if state.login], sum(state.sessions for state in mine)
            found[key] = Disabled(off=bool(mine), now=tuple(logins), sessions=sessions)
            if not logins:
                continue
            paced = self._pace.take(server.key, server.spec.max_destructive_per_pass)
            if paced is not None:
                found[key] = Disabled(problem=paced)
                continue
            options = RoleOptions(login=False)
            actions[key] = [AlterRole(object=one, verb="disable role", role=one, options=options) for one in logins]
        if actions:
            done = await apply(server, actions, {})
            found |= {key: Disabled(problem=problem) for key, problem in done.failed.items()}
        return found


def _family(role: str) -> tuple[str, ...]:
    """With those that log in for it."""
    return role, *derived(role)


def _role(record: Record) -> str:
    return role_name(record.key, record.parsed(UserSpec))
