"""When a DatabaseUser with deletionPolicy Disable or Drop is deleted: undo outside, then let the object go.

The object is held back for a bounded time only. What cannot be undone by then goes to the ledger and is tried again
from there; where the role was not ours to act on (Observe, NotPermitted), it is only listed.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pgtend.api.databaseuser import DATABASE_USER, UserSpec
from pgtend.api.reasons import UserReason as R
from pgtend.core.actions import Action
from pgtend.core.clock import Clock, rfc3339
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.engine.loop import Outcome
from pgtend.kube.client import KubeClient, NotFound
from pgtend.kube.index import Record
from pgtend.kube.status import Draft, StatusWriter
from pgtend.server.ledger import Abandoned, Ledger
from pgtend.server.server import Server
from pgtend.users import judge as judges
from pgtend.users.actions import AlterRole, RoleOptions
from pgtend.users.apply import apply
from pgtend.users.claim import is_marked
from pgtend.users.drop import Dropper, How
from pgtend.users.keeper import Keeper
from pgtend.users.look import Looker
from pgtend.users.observe.read import Ask
from pgtend.users.pace import Pace
from pgtend.users.state import Problem
from pgtend.users.tend import USERS
from pgtend.users.undoing import FINALIZER, abandoned, lacking
from pgtend.users.wanted import derived, role_name, secret_name

log = logging.getLogger(__name__)
Policy = Literal["Disable", "Drop"]
REFUSED_SECONDS = 40.0
"""How long an object waits for a target that cannot be written to; the promise is 60 s."""
BLOCKED_SECONDS = 600.0
"""How long it waits, with its status telling why, for people to clear what blocks a drop."""
LOST_SECONDS = 3.0
"""For how long nobody else tries what has just not been reached: each would wait for it as long as the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the target is to a deletion. `never` is why the role is not ours to act on; `trouble` why it cannot be
    reached or written to now (`gone`: there is no such target, and nothing is kept of it); otherwise there is a
    `server`. `system` is its system identifier, where that is known."""

    target: ObjectKey
    server: Server | None = None
    never: Problem | None = None
    trouble: Problem | None = None
    gone: bool = False
    system: str | None = None


class Finisher:
    def __init__(
        self,
        *,
        client: KubeClient,
        keeper: Keeper,
        ledger: Ledger,
        status: StatusWriter,
        looker: Callable[[Server], Looker],
        installation: str,
        clock: Clock,
        pace: Pace,
    ) -> None:
        self._pace, self._dropper = pace, Dropper(looker=looker, pace=pace)
        self._client, self._keeper, self._ledger, self._status = client, keeper, ledger, status
        self._looker, self._installation, self._clock = looker, installation, clock
        self._since: dict[ObjectKey, float] = {}
        self._lost: dict[ObjectKey, tuple[float, Problem]] = {}

    async def finish(self, record: Record, spec: UserSpec, situation: Situation) -> Outcome:
        """One step towards the object's end. Raises kube.client.ApiError."""
        key = record.key
        if FINALIZER not in record.finalizers:
            return Outcome()
        policy = spec.deletion_policy
        if policy == "Retain":
            return await self._release(record)
        if situation.never is not None:
            await self._abandon(record, spec, situation, situation.never, retry=False)
            return await self._release(record)
        role, begun = role_name(key, spec), self._clock.monotonic()
        problem = situation.trouble
        if problem is None and situation.server is not None:
            how = How(heir=spec.drop.reassign_owned_to, sessions=spec.drop.sessions)
            problem = await self._try(lambda server: self.undo(server, key, role, policy, how), situation.server)
        if problem is None:
            if policy == "Drop":
                await self._keeper.remove(key, secret_name(key, spec))
            return await self._release(record)
        if problem.reason is R.TOO_MANY_AT_ONCE:
            judged = judges.undropped(problem, role=role, previous=record.status)
            await self._status.write(DATABASE_USER, record, Draft(status=judged.status, verdicts=judged.verdicts))
            return Outcome(again=self._pace.wait(situation.target), jitter=False)
        waited = self._clock.monotonic() - self._since.setdefault(key, begun)
        blocked = problem.reason in (R.DROP_BLOCKED, R.SESSIONS_REMAIN)
        if waited >= (BLOCKED_SECONDS if blocked else REFUSED_SECONDS) or situation.gone:
            await self._abandon(record, spec, situation, problem, retry=True)
            return await self._release(record)
        if blocked:
            judged = judges.undropped(problem, role=role, previous=record.status)
            await self._status.write(DATABASE_USER, record, Draft(status=judged.status, verdicts=judged.verdicts))
        return Outcome(again=15.0 if blocked else 5.0)

    async def let_go(self, record: Record) -> Outcome:
        """An object whose spec does not parse says neither which role nor what to do: it is not held back."""
        return await self._release(record) if FINALIZER in record.finalizers else Outcome()

    async def retry(self, entry: Abandoned, situation: Situation) -> Outcome:
        """One more attempt at what an object that is gone left behind."""
        if not entry.retry or situation.server is None or situation.trouble is not None or situation.never is not None:
            return Outcome(again=None if not entry.retry else 300.0)
        policy: Policy = "Drop" if entry.policy == "Drop" else "Disable"
        how = How(heir=entry.heir, sessions=entry.sessions)
        problem = await self._try(
            lambda server: self.undo(server, entry.key, entry.role, policy, how), situation.server
        )
        if problem is not None:
            if problem.reason is R.TOO_MANY_AT_ONCE:
                return Outcome(again=self._pace.wait(situation.target), jitter=False)
            log.info("still not undone", extra={"object": str(entry.key), "cause": problem.message})
            return Outcome(failed=True) if problem.transient else Outcome(again=300.0)
        await self._ledger.remove(entry.key)
        return Outcome()

    async def undo(self, server: Server, key: ObjectKey, role: str, policy: Policy, how: How) -> Problem | None:
        """Disable or drop the role and its logins where they carry this object's mark; None where nothing is left to
        do.

        Raises PgtendError where the target cannot be read.
        """
        server.writable()
        waits = self._pace.refused(server.key, server.spec.max_destructive_per_pass)
        if waits is not None:
            return waits  # each of fifty would look into every database, and five may go
        family = (*derived(role), role)
        observed = await self._looker(server).look(Ask(roles=frozenset(family)))
        found = (observed.roles.get(name) for name in family)
        states = [s for s in found if s is not None and is_marked(s, key=key, installation=self._installation)]
        if policy == "Disable":
            return await self._disable(server, key, [state.name for state in states if state.login])
        for state in states if len(states) > 1 else ():
            # a login is not dropped where the role, which comes last, cannot be
            problem = await self._dropper.blocked(server, state, observed, how)
            if problem is not None:
                return problem
        for state in states:
            problem = await self._dropper.drop(server, key, state, observed, how)
            if problem is not None:
                return problem
        return None

    async def _disable(self, server: Server, key: ObjectKey, roles: Sequence[str]) -> Problem | None:
        if not roles:
            return None
        paced = self._pace.take(server.key, server.spec.max_destructive_per_pass)
        if paced is not None:
            return paced
        options = RoleOptions(login=False)
        actions = [AlterRole(object=role, verb="disable role", role=role, options=options) for role in roles]
        return await self._carry_out(server, key, actions)

    async def _carry_out(self, server: Server, key: ObjectKey, actions: Sequence[Action]) -> Problem | None:
        failpoint("users.finalize.before_sql")
        done = await apply(server, {key: actions}, {})
        failpoint("users.finalize.after_sql")
        return done.failed.get(key)

    async def _try(self, work: Callable[[Server], Awaitable[Problem | None]], server: Server) -> Problem | None:
        since, lost = self._lost.get(server.key, (0.0, None))
        if lost is not None and self._clock.monotonic() - since < LOST_SECONDS:
            return lost
        self._lost.pop(server.key, None)
        try:
            return await work(server)
        except PgtendError as error:
            problem = Problem(reason=error.reason, message=error.message, object=error.object, transient=True)
            self._lost[server.key] = (self._clock.monotonic(), problem)
            return problem

    async def _abandon(
        self, record: Record, spec: UserSpec, situation: Situation, why: Problem, *, retry: bool
    ) -> None:
        entry = abandoned(
            record.key,
            spec,
            system=situation.system,
            reason=f"{why.reason}: {why.message}",
            since=rfc3339(self._clock.now()),
            retry=retry,
        )
        await self._ledger.add(lacking(entry) if situation.gone else entry)

    async def _release(self, record: Record) -> Outcome:
        failpoint("users.finalize.before_release")
        place = f"/metadata/finalizers/{record.finalizers.index(FINALIZER)}"
        with contextlib.suppress(NotFound):
            await self._client.json_patch(
                USERS,
                record.key.namespace,
                record.key.name,
                [{"op": "test", "path": place, "value": FINALIZER}, {"op": "remove", "path": place}],
            )
        self._since.pop(record.key, None)
        return Outcome()
