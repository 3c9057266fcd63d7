"""One batch of users on one target that can be used: look, decide whose, keep the Secrets, plan, apply, look again.

The order is the safety: what there is comes before what to do, the Secret before the role, and a verdict after a look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from pgtend.api.base import GROUP, VERSION
from pgtend.api.databaseuser import DATABASE_USER
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import TargetReason
from pgtend.core.clock import Clock
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.kube.client import ApiError, KubeClient, Resource
from pgtend.kube.index import Index, record_of
from pgtend.postgres.scram import verifier
from pgtend.server.server import Server
from pgtend.users.apply import Applied, apply
from pgtend.users.case import Case, ask_of, credential_of, password_of
from pgtend.users.claim import Claimant, is_marked, judge_claim, mine
from pgtend.users.effective import effective
from pgtend.users.judge import Facts, judge, not_unique
from pgtend.users.keeper import Keeper
from pgtend.users.logins import Logins
from pgtend.users.look import Looker
from pgtend.users.observe.read import Ask
from pgtend.users.pace import Pace
from pgtend.users.plan import DIFFERS, NOT_ABSENT, Plan, weight
from pgtend.users.plan_logins import login_of, plan_user
from pgtend.users.plan_role import unalterable
from pgtend.users.state import Observed, Problem
from pgtend.users.undoing import FINALIZER

T = TypeVar("T")
USERS = Resource(GROUP, VERSION, DATABASE_USER.plural)
AT_ONCE = 16
SHARED_SECONDS = 20.0
HEAVY = 50_000
"""Comparisons of names, about 50 ms of them, from which on a plan is made beside the loop."""


class Tender:
    """Works for all targets, one batch per target at a time (the lane sees to that)."""

    def __init__(
        self, *, client: KubeClient, index: Index, keeper: Keeper, installation: str, clock: Clock, pace: Pace
    ) -> None:
        self._pace = pace
        self._client, self._index, self._keeper = client, index, keeper
        self._installation, self._clock = installation, clock
        self._logins = Logins(keeper=keeper, clock=clock)
        self._lookers: dict[ObjectKey, tuple[Server, Looker]] = {}
        self._shared: dict[ObjectKey, tuple[Server, float, Observed]] = {}

    async def tend(self, server: Server, cases: Sequence[Case], *, everybody: Callable[[], Ask] | None = None) -> None:
        """Bring each role to its spec and judge it. `everybody` is given where all cases are due by the clock alone:
        then one look at all of the target's users serves every batch of this turn.

        Raises PgtendError where the target's maintenance database cannot be read: then nothing was done.
        """
        observed = await self._observe(server, cases, everybody)
        held = self._held(server)
        mine = [case for case in cases if self._is_mine(case, observed)]
        await at_once(self._keep(case, server.spec, observed, held) for case in mine)
        mine = [case for case in mine if case.error is None]
        await at_once(self._logins.compare(case, observed) for case in mine)
        if held is None:
            await self._logins.probe(server, mine, observed)
        for case in mine:
            case.turn, case.held = self._logins.turn(case), held.message if held is not None else None
            case.plan = await _planned(case, observed)
            case.effective = effective(case.wanted, observed)
            if case.observing is None and held is not None and (case.plan.differences or not _written(case)):
                case.failed = case.failed or Problem(
                    reason=held.reason, message=held.message, object=held.object, transient=True
                )
        changed = [case for case in mine if self._is_to_do(case, held) and self._is_its_turn(case, server)]
        if changed:
            observed = await self._apply(server, changed, observed)
        if held is None:
            await self._logins.change_over(server, mine, observed)
        for case in mine:
            if case.error is None:
                self._judge(case, server.spec, observed)

    def looker(self, server: Server) -> Looker:
        known = self._lookers.get(server.key)
        if known is None or known[0] is not server:
            known = self._lookers[server.key] = (server, Looker(server))
        return known[1]

    def forget(self, key: ObjectKey) -> None:
        """A user or a target is gone."""
        self._logins.forget(key)
        self._lookers.pop(key, None)
        self._shared.pop(key, None)

    async def _observe(self, server: Server, cases: Sequence[Case], everybody: Callable[[], Ask] | None) -> Observed:
        looker = self.looker(server)
        if everybody is None:
            return await looker.look(ask_of(cases))
        now = self._clock.monotonic()
        self._shared = {k: entry for k, entry in self._shared.items() if now - entry[1] < SHARED_SECONDS}
        shared = self._shared.get(server.key)
        if shared is not None and shared[0] is server:
            return shared[2]
        observed = await looker.look(everybody())
        self._shared[server.key] = (server, now, observed)
        return observed

    def _held(self, server: Server) -> PgtendError | None:
        """Why nothing may be written to this target now, if so."""
        if server.spec.mode == "Observe":
            return None  # said by each case's `observing`
        try:
            server.writable()
        except PgtendError as error:
            return error
        if server.spec.credentials.users is None:
            text = f"target {server.key} has no credentials.users: add it (pgtend target init-sql prints the role)"
            return PgtendError(TargetReason.CAPABILITY_MISSING, text, object="credentials.users", transient=False)
        return None

    def _is_mine(self, case: Case, observed: Observed) -> bool:
        me = Claimant(
            key=case.key,
            created=case.record.created,
            asks=case.spec.adoption,
            admitted=case.admitted.adoption,
        )
        claim = judge_claim(
            wanted=case.wanted,
            observed=observed,
            me=me,
            rivals=case.rivals.get(case.wanted.role, ()),
            installation=self._installation,
            lives=case.lives,
            tended=case.tended,
        )
        case.unique, case.adopts = claim.verdict, claim.adopts
        for name in case.others if case.unique.status == "True" else ():
            # a login is made by us or left alone: nobody else's becomes one
            login = judge_claim(
                wanted=login_of(case.wanted, name, login=True),
                observed=observed,
                me=replace(me, asks="Never"),
                rivals=case.rivals.get(name, ()),
                installation=self._installation,
            )
            if login.verdict.status != "True":
                case.unique = login.verdict
                break
        if case.unique.status == "True":
            return True
        case.judged = not_unique(case.unique, case.admitted, role=case.wanted.role, previous=case.record.status)
        return False

    async def _keep(self, case: Case, target: TargetSpec, observed: Observed, held: PgtendError | None) -> None:
        """The finalizer, then the Secret: both stand before the first statement."""
        key, status = case.key, case.record.status
        role = observed.roles.get(case.wanted.role)
        try:
            if case.observing is not None:
                case.kept = await self._keeper.look(key, case.spec, status=status)
                return
            if held is None:
                await self._finalizer(case)
            case.kept = await self._keeper.keep(
                key,
                case.spec,
                target,
                # of a role that becomes ours nobody has the password yet
                role_exists=role is not None and not case.adopts,
                status=status,
                alterable=role is None or role.alterable,
                write=held is None,
            )
            if case.kept.stuck and role is not None:
                case.refused = unalterable(role, observed)
        except ApiError as error:
            case.error = error

    async def _finalizer(self, case: Case) -> None:
        """Only where something outside must be undone. A record that changed under us is refused by the test."""
        record = case.record
        wanted = case.spec.deletion_policy != "Retain"
        if wanted == (FINALIZER in record.finalizers):
            return
        finalizers = [*record.finalizers, FINALIZER] if wanted else [f for f in record.finalizers if f != FINALIZER]
        answer = await self._client.json_patch(
            USERS,
            record.key.namespace,
            record.key.name,
            [
                {"op": "test", "path": "/metadata/resourceVersion", "value": record.resource_version},
                {"op": "add", "path": "/metadata/finalizers", "value": finalizers},
            ],
        )
        case.record = record_of(DATABASE_USER, answer)
        self._index.put(case.record)

    def _is_to_do(self, case: Case, held: PgtendError | None) -> bool:
        return bool(case.plan and case.plan.actions) and held is None and case.observing is None

    def _is_its_turn(self, case: Case, server: Server) -> bool:
        """Not all logins that a change of specs turns off are turned off at once."""
        if case.plan is None or not case.plan.disables:
            return True
        case.failed = self._pace.take(server.key, server.spec.max_destructive_per_pass)
        return case.failed is None

    async def _apply(self, server: Server, cases: Sequence[Case], observed: Observed) -> Observed:
        """Carry the plans out and look again at whom they concern: what is still to do then is the verdict."""
        passwords = {role: password_of(case, role) for case in cases if case.plan for role in case.plan.given}
        given = {role: password for role, password in passwords.items() if password is not None}
        made = await asyncio.gather(*(asyncio.to_thread(verifier, password) for password in given.values()))
        verifiers = dict.fromkeys(passwords) | dict(zip(given, made, strict=True))
        done: Applied = await apply(server, {c.key: c.plan.actions for c in cases if c.plan}, verifiers)
        for case in cases:
            case.failed = done.failed.get(case.key)
            self._logins.given(case, observed, done=case.key in done.roles)
        after = await self.looker(server).look(ask_of(cases))
        await at_once(self._logins.compare(case, after) for case in cases)
        for case in cases:
            before = case.plan.differences if case.plan else ()
            case.plan = await _planned(case, after)
            case.effective = effective(case.wanted, after)
            if case.failed is None and not case.plan.differences:
                case.corrected = tuple(text for text in before if not (case.rotated and text in (DIFFERS, NOT_ABSENT)))
            if case.adopts and is_marked(
                after.roles.get(case.wanted.role), key=case.key, installation=self._installation
            ):
                case.unique, case.adopted = mine(case.wanted), case.unique
        acted = {role for case in cases for role in (case.wanted.role, *case.others)}
        return replace(
            after,
            logging=observed.logging,
            roles={**{name: role for name, role in observed.roles.items() if name not in acted}, **after.roles},
            databases={**observed.databases, **after.databases},
        )

    def _judge(self, case: Case, target: TargetSpec, observed: Observed) -> None:
        assert case.plan and case.unique  # noqa: S101 - all planned
        facts = Facts(
            wanted=case.wanted,
            admitted=case.admitted,
            unique=case.unique,
            plan=case.plan,
            password=self._logins.facts(case, target, observed),
            role_exists=case.wanted.role in observed.roles,
            failed=case.failed,
            observing=case.observing,
            grantor=observed.grantor,
            effective=case.effective,
        )
        case.judged = judge(facts, previous=case.record.status, now=self._clock.now())


async def _planned(case: Case, observed: Observed) -> Plan:
    """Beside the loop where it is much: thousands of patterns against thousands of tables take a minute, and the Lease
    does not wait."""
    assert case.turn is not None  # noqa: S101 - set before
    how = partial(plan_user, wanted=case.wanted, observed=observed, credential=credential_of(case), turn=case.turn)
    return how() if weight(case.wanted, observed) < HEAVY else await asyncio.to_thread(how)


def _written(case: Case) -> bool:
    return case.kept is not None and case.kept.written


async def at_once(work: Iterable[Awaitable[T]]) -> list[T]:
    """All of it, a bounded number at a time; the first exception ends it."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(item: Awaitable[T]) -> T:
        async with slots:
            return await item

    return list(await asyncio.gather(*(one(item) for item in work)))
