"""Logins that are taken away: of whom the target does not admit any more, after its grace; never too many at once."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tests.fixtures.postgres import PostgresServer
from tests.postgres.test_users_tend import Ground, again, conditions
from tests.postgres.users_ground import INSTALLATION, reached

from pgtend.api.conditions import Verdict
from pgtend.api.databaseuser import DATABASE_USER
from pgtend.api.reasons import UserReason as R
from pgtend.core.clock import FakeClock
from pgtend.kube.events import EventRecorder
from pgtend.kube.index import Record, record_of
from pgtend.server.server import Server
from pgtend.users.admission import Refusal
from pgtend.users.door import Target
from pgtend.users.pace import PASS_SECONDS, Pace
from pgtend.users.tend import Case
from pgtend.users.withdrawal import Settled, Withdrawer

WITHDRAWN = Refusal(
    reason=R.NOT_PERMITTED, about="shop", what="no entry admits shop", next_step="ask for one", withdrawn=True
)


class Said:
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[str] = []

    async def say(self, record: Record, *, reason: str, note: str, warning: bool) -> None:
        self.events.append(f"{record.key.name} {reason}")


class Withdrawals:
    def __init__(self, ground: Ground, server: Server) -> None:
        self.clock, self.said = FakeClock(), Said()
        self.target = Target(key=server.key, spec=server.spec, server=server)
        self.withdrawer = Withdrawer(
            looker=ground.tender.looker,
            events=cast(EventRecorder, self.said),
            installation=INSTALLATION,
            clock=self.clock,
            pace=Pace(self.clock),
        )

    async def settle(self, *records: Record) -> list[Settled]:
        return await self.withdrawer.settle(self.target, [(record, WITHDRAWN) for record in records])


def later(case: Case, settled: Settled) -> Record:
    """The same object with the status that it was settled with."""
    body = {
        "metadata": {
            "name": case.key.name,
            "namespace": case.key.namespace,
            "uid": "1",
            "resourceVersion": "2",
            "creationTimestamp": "2026-11-22T10:00:00Z",
        },
        "spec": {"targetRef": {"name": "orders"}},
        "status": settled.judged.status.to_wire(),
    }
    return record_of(DATABASE_USER, body)


def logins(server: PostgresServer, *cases: Case) -> list[bool]:
    names = [case.wanted.role for case in cases]
    rows = server.execute("SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = ANY(%s)", [names])
    found = dict(rows)
    return [found[name] for name in names]


def ready(settled: Settled) -> Verdict:
    return next(v for v in settled.judged.verdicts if v.type == "Ready")


@pytest.mark.covers(
    "PostgresTarget.spec.onWithdrawal", "PostgresTarget.spec.withdrawalGrace", "DatabaseUser.reason.LoginDisabled"
)
async def test_a_login_is_taken_after_the_grace_and_given_back(server: PostgresServer) -> None:
    ground = Ground(server)
    async with reached(server, onWithdrawal="Disable", withdrawalGrace="2h") as target:
        case = ground.case(ground.name())
        await ground.tender.tend(target, [case])
        withdrawals = Withdrawals(ground, target)
        with server.connect(case.key.name, "postgres", password=f"password of {case.key.name}") as session:
            (first,) = await withdrawals.settle(again(ground, case).record)
            assert (first.due, first.problem) == (7200.1, None)
            assert first.judged.status.withdrawn_at is not None
            withdrawals.clock.advance(7199)
            (still,) = await withdrawals.settle(later(case, first))
            assert logins(server, case) == [True], "within the grace nothing is touched"
            assert ready(still).reason == R.NOT_PERMITTED
            withdrawals.clock.advance(2)
            (over,) = await withdrawals.settle(later(case, still))
            assert logins(server, case) == [False]
            assert over.judged.status.remaining_sessions == 1
            assert over.judged.status.withdrawn_at == first.judged.status.withdrawn_at
            assert ready(over).reason == R.LOGIN_DISABLED
            assert session.execute("SELECT 1").fetchone() == (1,), "NOLOGIN ends no session"
            (steady,) = await withdrawals.settle(later(case, over))
            assert steady.judged == over.judged
        assert withdrawals.said.events == [f"{case.key.name} LoginDisabled"]
        # admitted again
        back = ground.case(case.key.name, status=over.judged.status.to_wire())
        await ground.tender.tend(target, [back])
        assert conditions(back)["Ready"] == ("True", "InForce")
        assert back.judged is not None and back.judged.status.withdrawn_at is None
        assert logins(server, case) == [True]


@pytest.mark.parametrize("how", ["Keep", "Observe", "another's", "never admitted"])
async def test_what_is_not_to_be_disabled_is_left(server: PostgresServer, how: str) -> None:
    ground = Ground(server)
    terms: dict[str, Any] = {"onWithdrawal": "Keep" if how == "Keep" else "Disable", "withdrawalGrace": "0s"}
    async with reached(server, **terms) as target:
        case = ground.case(ground.name())
        await ground.tender.tend(target, [case])
        status = again(ground, case).record.status
        asked = ground.case(case.key.name, status={} if how == "never admitted" else dict(status))
        if how == "Observe":
            asked = ground.case(case.key.name, status=dict(status), mode="Observe")
        elif how == "another's":
            server.execute(f'COMMENT ON ROLE "{case.wanted.role}" IS NULL')
        withdrawals = Withdrawals(ground, target)
        (settled,) = await withdrawals.settle(asked.record)
        assert logins(server, case) == [True]
        assert settled.problem is None
        assert (settled.judged.status.withdrawn_at is None) == (how == "never admitted")
        assert withdrawals.said.events == []


@pytest.mark.covers("PostgresTarget.spec.maxDestructivePerPass", "DatabaseUser.reason.TooManyAtOnce")
async def test_no_more_are_disabled_at_once_than_the_target_allows(server: PostgresServer) -> None:
    ground, clock = Ground(server), FakeClock()
    ground.tender._pace = Pace(clock)
    async with reached(server, maxDestructivePerPass=2, onWithdrawal="Disable", withdrawalGrace="0s") as target:
        cases = [ground.case(ground.name()) for _ in range(5)]
        await ground.tender.tend(target, cases)
        assert all(logins(server, *cases))
        off = [again(ground, case, login=False) for case in cases]
        await ground.tender.tend(target, off)
        assert sum(logins(server, *cases)) == 3
        waiting = [case for case in off if conditions(case)["Ready"] == ("False", "TooManyAtOnce")]
        assert len(waiting) == 3
        # the same pass, looked at again; what is no more than waiting is no failure that is tried with growing pauses
        off = [again(ground, case, login=False) for case in off]
        await ground.tender.tend(target, off)
        assert sum(logins(server, *cases)) == 3
        assert not any(p.transient for case in off for p in case.trouble)
        clock.advance(PASS_SECONDS)
        off = [again(ground, case, login=False) for case in off]
        await ground.tender.tend(target, off)
        assert sum(logins(server, *cases)) == 1
        # what is not destructive waits for nobody
        on = [again(ground, case, login=True) for case in off]
        await ground.tender.tend(target, on)
        assert all(logins(server, *cases))
        # withdrawn ones are counted alike
        withdrawals = Withdrawals(ground, target)
        settled = await withdrawals.settle(*(again(ground, case).record for case in on))
        assert sum(logins(server, *cases)) == 3
        assert [s.problem.reason for s in settled if s.problem is not None] == [R.TOO_MANY_AT_ONCE] * 3
