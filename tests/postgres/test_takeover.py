"""Before a new leader's first write on a server, what an earlier one left there has ended, and nothing else has."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest
from psycopg import sql
from tests.fixtures.counters import SqlCounter
from tests.fixtures.plugin import Postgres, Proxies
from tests.fixtures.postgres import Login as Role
from tests.fixtures.postgres import PostgresServer
from tests.postgres.server_kit import KEY, Endpoint, Policy, secrets_for, spec_for

from pgtend.api.reasons import TargetReason as R
from pgtend.core.clock import SystemClock
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.postgres.locks import Lock
from pgtend.postgres.purposes import Purpose
from pgtend.server import takeover
from pgtend.server.member import MemberSessions
from pgtend.server.registry import Registry
from pgtend.server.server import Server
from pgtend.server.standing import ServerIdentity, Standing
from pgtend.server.takeover import Takeover
from pgtend.server.write import Statement

NOTHING = Statement(sql.SQL("SELECT 1"), "SELECT 1")


class Leaders:
    """One target, and as many leaders of it one after the other as a test wants."""

    def __init__(
        self, server: PostgresServer, *, at: Endpoint | None = None, signals: bool = True, key: ObjectKey = KEY
    ) -> None:
        self.server, self.key = server, key
        self.users = server.fresh_role("users", "CREATEROLE")
        self.maintenance = server.fresh_role("maint", "IN ROLE pg_signal_backend, pg_monitor" if signals else "")
        self.secrets = secrets_for(server, self.users, self.maintenance)
        self.spec = spec_for(
            {"a": at or server},
            credentials={
                name: {"username": role.user, "password": {"secretRef": {"name": role.user.replace("_", "-")}}}
                for name, role in (
                    ("monitor", self.maintenance),
                    ("users", self.users),
                    ("maintenance", self.maintenance),
                )
            },
            mode="Enforce",
            maxConnections=10,
        )
        self.registries: list[Registry] = []

    async def next(self, *, installation: str = "tests", key: ObjectKey | None = None) -> Server:
        registry = Registry(
            secrets=self.secrets,  # type: ignore[arg-type]
            policy=Policy().made(),
            installation=installation,
            clock=SystemClock(),
        )
        self.registries.append(registry)
        made = await registry.server(key or self.key, self.spec)
        identity = ServerIdentity(system_identifier=str(self.server.system_identifier), timeline=1, lsn=0)
        made.standing = Standing(primary="a", identity=identity, refusal=None)
        return made

    @asynccontextmanager
    async def over(self) -> AsyncIterator[Leaders]:
        try:
            yield self
        finally:
            for registry in self.registries:
                await registry.close()

    def there(self, role: Role, purpose: str) -> list[int]:
        """The sessions of a purpose: that run their long statement, or that are kept for signals."""
        found = self.server.execute(
            "SELECT pid FROM pg_stat_activity WHERE usename = %s AND application_name LIKE %s AND query LIKE %s"
            " ORDER BY 1",
            [role.user, f"pgtend/%/{purpose}/%", "%" if purpose == "signal" else "%pg_sleep%"],
        )
        return [row[0] for row in found]

    async def appears(self, role: Role, purpose: str, count: int = 1) -> list[int]:
        for _ in range(500):
            if len(found := self.there(role, purpose)) == count:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"{found}, not {count} of {purpose}")


async def sleeping(target: Server, *, role: str, purpose: Purpose) -> None:
    """A long statement of a leader, until somebody ends it."""
    async with target.write(role=role, credential=getattr(target.spec.credentials, role), purpose=purpose) as session:
        await session.fetch(sql.SQL("SELECT pg_sleep(600)"))


async def looking(target: Server) -> None:
    """As `sleeping`, by a leader that has not written anything yet."""
    credential = target.spec.credentials.users
    assert credential is not None
    async with target.session(
        target.spec.members[0], purpose=Purpose.WORK, role="users", credential=credential
    ) as session:
        await session.fetch(sql.SQL("SELECT pg_sleep(600)"))


async def write(target: Server, *statements: Statement, role: str = "users") -> None:
    async with target.write(role=role, credential=getattr(target.spec.credentials, role)) as session:
        await session.transaction(statements or [NOTHING], lock=Lock.SHARED)


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("signals", [True, False])
async def test_a_long_statement_of_an_earlier_leader_ends_before_the_first_write(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, signals: bool, guard: bool
) -> None:
    """Of every login, whether or not one may end the other's. The control: with the guard off it runs on."""
    if not guard:

        async def nothing(*_: object, **__: object) -> None: ...

        monkeypatch.setattr(Takeover, "ensure", nothing)
    name = server.fresh_name()
    async with Leaders(server, signals=signals).over() as leaders:
        old = await leaders.next()
        work = asyncio.create_task(sleeping(old, role="maintenance", purpose=Purpose.WORK))
        (working,) = await leaders.appears(leaders.maintenance, "work")
        lane = asyncio.create_task(sleeping(old, role="users", purpose=Purpose.DDL))
        (laning,) = await leaders.appears(leaders.users, "lane")
        counter = SqlCounter(server)
        new = await leaders.next()
        await write(new, Statement(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)), "CREATE ROLE"))
        left = {*leaders.there(leaders.maintenance, "work"), *leaders.there(leaders.users, "lane")}
        assert ({working, laning} & left == set()) == guard
        if guard:
            for task in (work, lane):
                with pytest.raises(psycopg.OperationalError, match="administrator command"):
                    await task
            order = [
                line.pid if "administrator command" in line.text else "new"
                for line in counter.lines()
                if "administrator command" in line.text or "CREATE ROLE" in line.text
            ]
            assert order[-1] == "new" and {working, laning} <= set(order[:-1]), "both had ended before"
        for task in (work, lane):
            task.cancel()
            with suppress(asyncio.CancelledError, psycopg.Error):
                await task


async def test_it_costs_one_round_trip_once(server: PostgresServer, proxy: Proxies) -> None:
    through = proxy(server)
    async with Leaders(server, at=through).over() as leaders:
        target = await leaders.next()
        credential = target.spec.credentials.maintenance
        async with target.session(
            target.spec.members[0], purpose=Purpose.DDL, role="maintenance", credential=credential
        ) as session:
            await session.fetch(sql.SQL("SELECT 1"))
        mark = through.counts()
        await write(target, role="maintenance")
        await write(target, role="maintenance")
        passed = through.counts() - mark
        assert (passed.connections, passed.round_trips) == (0, 3)


async def test_what_is_not_an_earlier_leader_s_goes_on(server: PostgresServer) -> None:
    """Sessions of our own, of other installations, of other logins that borrow our name, and those that only read."""
    stranger = server.fresh_role()
    async with Leaders(server).over() as leaders:
        foreign, old = await leaders.next(installation="other"), await leaders.next()
        kept = [
            asyncio.create_task(sleeping(foreign, role="maintenance", purpose=Purpose.WORK)),
            asyncio.create_task(sleeping(old, role="users", purpose=Purpose.CATALOG)),
        ]
        await leaders.appears(leaders.users, "catalog")
        with server.connect(stranger, application_name="pgtend/tests/lane/x") as borrowed:
            new = await leaders.next()
            ours = await leaders.next(key=ObjectKey("PostgresTarget", "db", "twin"))
            await asyncio.sleep(0.5)  # its session is opened well after `new` has begun to lead
            kept.append(asyncio.create_task(sleeping(ours, role="maintenance", purpose=Purpose.WORK)))
            await leaders.appears(leaders.maintenance, "work", 2)
            await write(new)
            await write(new, role="maintenance")
            assert borrowed.execute("SELECT 1").fetchone() == (1,)
        await asyncio.sleep(0.2)
        assert not any(task.done() for task in kept)
        for task in kept:
            task.cancel()
            with suppress(asyncio.CancelledError, psycopg.Error):
                await task


async def test_a_leader_that_slept_ends_nothing_of_its_successor(server: PostgresServer) -> None:
    """Its session is older than theirs, however late it asks."""
    async with Leaders(server).over() as leaders:
        old = await leaders.next()
        async with old.session(
            old.spec.members[0], purpose=Purpose.DDL, role="users", credential=old.spec.credentials.users
        ):
            new = await leaders.next()
            work = asyncio.create_task(looking(new))
            await leaders.appears(leaders.users, "work")
        await write(old)
        await asyncio.sleep(0.2)
        assert not work.done()
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def test_an_act_on_a_member_takes_over_there_too(postgres: Postgres) -> None:
    standby = postgres(18, role="standby", fresh=True)
    primary = standby.primary
    assert primary is not None
    leaders = Leaders(primary, at=standby)
    primary.wait_replayed(standby)
    leaders.server = standby
    members, later = MemberSessions(), MemberSessions()
    async with leaders.over():
        old = await leaders.next()
        await members.keep(old)
        (kept,) = await leaders.appears(leaders.maintenance, "signal")
        new = await leaders.next()
        await later.keep(new)
        await leaders.appears(leaders.maintenance, "signal", 2)
        async with later.acting(new, new.spec.members[0]) as session:
            assert kept not in leaders.there(leaders.maintenance, "signal")
            assert await session.fetch(sql.SQL("SELECT 1 AS one")) == [{"one": 1}]
        await members.close()
        await later.close()


@pytest.mark.covers("PostgresTarget.reason.TakingOver")
async def test_while_something_does_not_end_nothing_is_written(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "PATIENCE", 0.5)
    async with Leaders(server).over() as leaders:
        old = await leaders.next()
        work = asyncio.create_task(sleeping(old, role="users", purpose=Purpose.WORK))
        (pid,) = await leaders.appears(leaders.users, "work")
        os.kill(pid, signal.SIGSTOP)
        counter = SqlCounter(server, user=leaders.users.user)
        try:
            new = await leaders.next()
            for _ in range(2):
                with pytest.raises(PgtendError) as caught:
                    await write(new, Statement(sql.SQL("CREATE ROLE never"), "CREATE ROLE"))
                assert caught.value.reason is R.TAKING_OVER and str(pid) in caught.value.message
            assert not any("CREATE ROLE" in text for text in counter.statements())
        finally:
            os.kill(pid, signal.SIGCONT)
        with pytest.raises(psycopg.OperationalError):
            await work
        await write(new)


async def test_another_system_is_left_alone(server: PostgresServer) -> None:
    async with Leaders(server).over() as leaders:
        old = await leaders.next()
        work = asyncio.create_task(sleeping(old, role="users", purpose=Purpose.WORK))
        await leaders.appears(leaders.users, "work")
        new = await leaders.next()
        new.standing = Standing(
            primary="a", identity=ServerIdentity(system_identifier="1", timeline=1, lsn=0), refusal=None
        )
        with pytest.raises(psycopg.Error, match="another system"):
            await write(new)
        assert not work.done()
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def test_a_login_that_fails_holds_no_other_one_up(server: PostgresServer) -> None:
    async with Leaders(server).over() as leaders:
        leaders.secrets.put(leaders.maintenance.user.replace("_", "-"), password="wrong")
        target = await leaders.next()
        started = time.monotonic()
        await write(target)
        with pytest.raises(PgtendError) as caught:
            await write(target, role="maintenance")
        assert caught.value.reason is R.AUTHENTICATION_FAILED
        assert time.monotonic() - started < 5
