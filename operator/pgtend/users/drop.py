"""Drops a role, or says what stands in the way: nothing is changed before all that depends on it has been looked at.

What the role owns goes to the heir that the spec names, in every database, or blocks. Its login is taken away before
its sessions are waited for or ended. To reassign and to end, our login needs the role's own rights: as its
administrator it gives itself a membership, which ends with the role.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgtend.api.reasons import UserReason as R
from pgtend.core.actions import Action
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.server.server import Server
from pgtend.users.actions import (
    AlterRole,
    DropOwned,
    DropRole,
    EndSessions,
    GrantMembership,
    ReassignOwned,
    RevokePrivileges,
    RoleOptions,
)
from pgtend.users.apply import apply
from pgtend.users.judge import number
from pgtend.users.look import Looker
from pgtend.users.observe.depends import Dependents
from pgtend.users.observe.read import Ask
from pgtend.users.obstacles import ONE_OF, listed, obstacle
from pgtend.users.pace import Pace
from pgtend.users.plan import Credential, Plan, plan
from pgtend.users.state import OPTIONS_SINCE, Observed, Problem, RoleState
from pgtend.users.wanted import Wanted

ENDING_SECONDS = 5.0
"""How long sessions that were told to end may take: each answers when it next looks, on a busy machine not at once."""
PAUSE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What the spec says of dropping."""

    heir: str | None = None
    sessions: str = "Refuse"


class Dropper:
    def __init__(self, *, looker: Callable[[Server], Looker], pace: Pace) -> None:
        self._looker, self._pace = looker, pace

    async def drop(
        self, server: Server, key: ObjectKey, role: RoleState, observed: Observed, how: How
    ) -> Problem | None:
        """One attempt; None where the role is gone. Raises PgtendError where the target cannot be read."""
        looker = self._looker(server)
        problem = _sessions(role, how)
        if problem is not None:
            return problem
        found = await looker.dependents(role.name, how.heir)
        problem = await obstacle(looker, role.name, found, how.heir, observed)
        problem = problem or self._pace.take(server.key, server.spec.max_destructive_per_pass)
        if problem is not None:
            return problem
        problem = await self._without_sessions(server, key, role, found, how, observed)
        if problem is not None:
            return problem
        problem = await self._without_objects(server, key, role.name, found, how, observed)
        if problem is not None:
            return problem
        drop = DropRole(object=role.name, verb="drop role", role=role.name)
        problem = await self._carry_out(server, key, [drop])
        if problem is not None and problem.reason is R.DROP_BLOCKED:
            return await self._named(looker, role.name, how, problem, _emptied(role.name, observed).problems)
        return problem

    async def blocked(self, server: Server, role: RoleState, observed: Observed, how: How) -> Problem | None:
        """What stands in the way, as far as it can be seen before anything is changed."""
        problem = _sessions(role, how) if how.sessions == "Refuse" else None
        if problem is not None:
            return problem
        looker = self._looker(server)
        found = await looker.dependents(role.name, how.heir)
        return await obstacle(looker, role.name, found, how.heir, observed)

    async def _without_sessions(
        self, server: Server, key: ObjectKey, role: RoleState, found: Dependents, how: How, observed: Observed
    ) -> Problem | None:
        name = role.name
        if role.login:
            options = RoleOptions(login=False)
            off = AlterRole(object=name, verb="disable role", role=name, options=options)
            problem = await self._carry_out(server, key, [off])
            if problem is not None:
                return problem
        ends = bool(role.sessions) and how.sessions == "Terminate"
        if ends:
            problem = await self._as_member(server, key, name, found, observed)
            end = EndSessions(object=name, verb="end the sessions of role", role=name)
            problem = problem or await self._carry_out(server, key, [end])
            if problem is not None:
                return problem
        left = await self._left(server, name, ENDING_SECONDS if ends else 0.0)
        return _waiting(name, left) if left else None

    async def _left(self, server: Server, role: str, patience: float) -> int:
        """Sessions that there still are after so many seconds. Who logged in just before the login was taken away is
        seen now."""
        loop = asyncio.get_running_loop()
        end = loop.time() + patience
        while True:
            after = (await self._looker(server).look(Ask(roles=frozenset({role})))).roles.get(role)
            left = after.sessions if after is not None else 0
            if not left or loop.time() >= end:
                return left
            await asyncio.sleep(PAUSE)

    async def _without_objects(
        self, server: Server, key: ObjectKey, role: str, found: Dependents, how: How, observed: Observed
    ) -> Problem | None:
        """Nothing that depends on it is left: first the privileges, since DROP OWNED ends no grant of a third; then,
        with the role's own rights, all else."""
        revokes = [action for action in _emptied(role, observed).actions if isinstance(action, RevokePrivileges)]
        problem = await self._carry_out(server, key, revokes) if revokes else None
        found = await self._looker(server).dependents(role, how.heir) if revokes else found
        if problem is not None or not found.places:
            return problem
        problem = await self._as_member(server, key, role, found, observed)
        steps: list[Action] = []
        maintenance = server.spec.maintenance_database
        # what belongs to the server is done first, in the maintenance database, where its lock is
        for place in sorted({p.database if p.database != maintenance else None for p in found.places}, key=str):
            owned = any(p.owned for p in found.places if p.database in (place, maintenance if place is None else place))
            where = place or maintenance
            if owned and how.heir is not None:
                verb = f"give {how.heir} what is owned in database {where} by"
                steps.append(ReassignOwned(object=role, verb=verb, role=role, database=place, to=how.heir))
            verb = f"take away the privileges in database {where} of"
            steps.append(DropOwned(object=role, verb=verb, role=role, database=place))
        return problem or await self._carry_out(server, key, steps)

    async def _as_member(
        self, server: Server, key: ObjectKey, role: str, found: Dependents, observed: Observed
    ) -> Problem | None:
        """Our login becomes a member of the role, where it is not; its administrator may do that."""
        if found.member:
            return None
        option = True if observed.version >= OPTIONS_SINCE else None
        grant = GrantMembership(
            object=role,
            verb="become a member of",
            role=observed.grantor,
            group=role,
            admin=False,
            inherit=option,
            set_=option,
        )
        return await self._carry_out(server, key, [grant])

    async def _named(self, looker: Looker, role: str, how: How, problem: Problem, others: Sequence[Problem]) -> Problem:
        """The same with what depends on it by name; `others` are privileges that we may not revoke."""
        found = await looker.dependents(role, how.heir)
        named = await looker.named(role, found, owned=False)
        if not named:
            return problem
        count = sum(place.owned + place.others for place in found.places)
        text = f"role {role} cannot be dropped, since {count} objects depend on it ({listed(named, count)}): "
        text += others[0].message if others else ONE_OF
        return Problem(reason=R.DROP_BLOCKED, object=role, message=text)

    async def _carry_out(self, server: Server, key: ObjectKey, actions: Sequence[Action]) -> Problem | None:
        failpoint("users.finalize.before_sql")
        done = await apply(server, {key: actions}, {})
        failpoint("users.finalize.after_sql")
        return done.failed.get(key)


def _emptied(role: str, observed: Observed) -> Plan:
    """The plan for a role without any grants."""
    return plan(
        wanted=Wanted(role=role, mark="", prunes_others=True), observed=observed, credential=Credential(ready=False)
    )


def _sessions(role: RoleState, how: How) -> Problem | None:
    if role.sessions and how.sessions == "Wait" and not role.login:
        return _waiting(role.name, role.sessions)
    if role.sessions and how.sessions == "Refuse":
        text = f"role {role.name} has {number(role.sessions, 'session')}: end them, or set drop.sessions"
        return Problem(reason=R.SESSIONS_REMAIN, object=role.name, message=text, sessions=role.sessions)
    return None


def _waiting(role: str, sessions: int) -> Problem:
    text = f"role {role} has no login any more, and still {number(sessions, 'session')}: waits for them to end"
    return Problem(reason=R.SESSIONS_REMAIN, object=role, message=text, sessions=sessions)
