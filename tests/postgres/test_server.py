"""A target's sessions stay warm, few and true to their Secret; in doubt a write is refused, here or by its guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from tests.fixtures.counters import SqlCounter
from tests.fixtures.plugin import Postgres, Proxies
from tests.fixtures.postgres import Login as Role
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.proxy import Proxy
from tests.postgres.server_kit import KEY, Endpoint, Policy, Secrets, monitor, secrets_for, serving, spec_for

from pgtend.api.postgrestarget import Credential, Credentials
from pgtend.api.reasons import TargetReason as R
from pgtend.core.clock import FakeClock
from pgtend.core.errors import PgtendError
from pgtend.kube.client import Forbidden, Unavailable
from pgtend.postgres import purposes
from pgtend.postgres.errors import SqlClass, classify
from pgtend.postgres.locks import LOCK_CLASS, Lock
from pgtend.postgres.purposes import Limits, Purpose
from pgtend.postgres.session import Session
from pgtend.server import write as write_module
from pgtend.server.member import MemberSessions
from pgtend.server.registry import Registry
from pgtend.server.server import IDLE_SECONDS, Server
from pgtend.server.standing import ServerIdentity, Standing
from pgtend.server.write import Statement, WriteSession, is_guard

ONE = sql.SQL("SELECT 1")


def use(server: Server, *, purpose: Purpose = Purpose.PROBE, database: str | None = None) -> object:
    return server.session(
        server.spec.members[0],
        purpose=purpose,
        role="monitor",
        credential=server.spec.credentials.monitor,
        database=database,
    )


async def fetch(server: Server, *, purpose: Purpose = Purpose.PROBE) -> Session:
    async with use(server, purpose=purpose) as session:  # type: ignore[attr-defined]
        await session.fetch(ONE)
        assert isinstance(session, Session)
        return session


def open_sessions(server: PostgresServer, role: Role) -> int:
    return int(server.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [role.user])[0][0])


async def settles(server: PostgresServer, role: Role, count: int) -> None:
    for _ in range(100):
        if open_sessions(server, role) == count:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{open_sessions(server, role)} sessions, not {count}")


@asynccontextmanager
async def reading(
    server: PostgresServer, *, at: Endpoint | None = None, clock: FakeClock | None = None, limit: int = 5
) -> AsyncIterator[tuple[Server, Secrets, Role]]:
    role = monitor(server)
    secrets = secrets_for(server, role)
    spec = spec_for({"a": at or server}, monitor=role.user, maxConnections=limit)
    async with serving(spec, secrets, clock=clock) as made:
        yield made, secrets, role


# Warm, few, true to the Secret


async def test_a_warm_session_is_used_again(server: PostgresServer, proxy: Proxies) -> None:
    through = proxy(server)
    async with reading(server, at=through) as (target, _, _):
        first = await fetch(target)
        mark = through.counts()
        for _ in range(5):
            assert await fetch(target) is first
        passed = through.counts() - mark
        assert (passed.connections, passed.round_trips) == (0, 5)


async def test_sessions_are_apart_by_purpose_and_database(server: PostgresServer) -> None:
    async with reading(server) as (target, _, role):
        database = server.fresh_database()
        first = await fetch(target)
        assert await fetch(target, purpose=Purpose.CATALOG) is not first
        async with use(target, database=database) as session:  # type: ignore[attr-defined]
            (row,) = await session.fetch(sql.SQL("SELECT current_database() AS d"))
            assert row["d"] == database
        assert await fetch(target) is first
        assert open_sessions(server, role) == 3


async def test_a_changed_secret_is_a_new_login(server: PostgresServer) -> None:
    async with reading(server) as (target, secrets, role):
        first = await fetch(target)
        server.execute(f"ALTER ROLE {role.user} PASSWORD 'another-one'")
        assert await fetch(target) is first, "a session that is open needs no password"
        secrets.put(role.user.replace("_", "-"), password="another-one")
        assert await fetch(target) is not first
        assert not first.usable
        await settles(server, role, 1)


async def test_a_rejected_login_reads_the_secret_anew_once(server: PostgresServer) -> None:
    async with reading(server) as (target, secrets, role):
        name = role.user.replace("_", "-")
        stale, secrets.data[name] = secrets.data[name], {"password": "of yesterday"}
        real = secrets.get

        async def get(namespace: str, which: str, *, fresh: bool = False) -> object:
            if fresh:
                secrets.data[name] = stale
            return await real(namespace, which, fresh=fresh)

        secrets.get = get  # type: ignore[method-assign, assignment]
        assert (await fetch(target)).usable
        mark = SqlCounter(server, user=role.user)
        stale["password"] = "wrong as well"
        await target.close()
    async with reading(server) as (target, secrets, role):
        secrets.put(role.user.replace("_", "-"), password="wrong")
        mark = SqlCounter(server, user=role.user)
        with pytest.raises(PgtendError) as caught:
            await fetch(target)
        assert caught.value.reason == "AuthenticationFailed"
        refused = [line for line in mark.lines() if "authentication failed" in line.text]
        assert len(refused) == 1, "the same password is not tried twice"


@pytest.mark.covers("PostgresTarget.reason.SecretMissing", "PostgresTarget.reason.SecretKeyMissing")
async def test_a_secret_that_vanished_ends_its_session(server: PostgresServer) -> None:
    async with reading(server) as (target, secrets, role):
        await fetch(target)
        name = role.user.replace("_", "-")
        kept = secrets.data.pop(name)
        for data, reason in ((None, R.SECRET_MISSING), ({"other": "x"}, R.SECRET_KEY_MISSING)):
            if data is not None:
                secrets.data[name] = data
            with pytest.raises(PgtendError) as caught:
                await fetch(target)
            assert caught.value.reason is reason
            await settles(server, role, 0)
        secrets.data[name] = kept
        await fetch(target)


async def test_while_the_api_server_is_away_a_warm_session_serves(server: PostgresServer) -> None:
    async with reading(server) as (target, secrets, _):
        first = await fetch(target)
        secrets.error = Unavailable(0, "Unreachable", "no route")
        assert await fetch(target) is first
        with pytest.raises(Unavailable):
            await fetch(target, purpose=Purpose.CATALOG)
        secrets.error = None
        assert await fetch(target) is first


@pytest.mark.covers("PostgresTarget.reason.SecretForbidden")
async def test_a_secret_that_may_not_be_read_is_a_reason_and_ends_the_session(server: PostgresServer) -> None:
    async with reading(server) as (target, secrets, role):
        await fetch(target)
        secrets.error = Forbidden(403, "Forbidden", "cannot get resource secrets")
        with pytest.raises(PgtendError, match="may not be read") as caught:
            await fetch(target)
        assert caught.value.reason is R.SECRET_FORBIDDEN
        await settles(server, role, 0)


@pytest.mark.covers("PostgresTarget.spec.tls.ca.secretRef.name", "PostgresTarget.spec.tls.ca.secretRef.key")
async def test_the_authority_comes_from_the_secret_and_key_that_the_spec_names(server: PostgresServer) -> None:
    role = monitor(server)
    secrets = secrets_for(server, role)
    secrets.put("elsewhere", root_pem=secrets.data["ca"]["ca_crt"])
    tls = {"ca": {"secretRef": {"name": "elsewhere", "key": "root.pem"}}}
    async with serving(spec_for({"a": server}, monitor=role.user, tls=tls), secrets) as target:
        await fetch(target)
    del secrets.data["elsewhere"]
    async with serving(spec_for({"a": server}, monitor=role.user, tls=tls), secrets) as target:
        with pytest.raises(PgtendError) as caught:
            await fetch(target)
        assert caught.value.object == "elsewhere"


@pytest.mark.covers(
    "PostgresTarget.spec.credentials.*.username",
    "PostgresTarget.spec.credentials.*.password.secretRef.name",
    "PostgresTarget.spec.credentials.*.password.secretRef.key",
    "PostgresTarget.spec.credentials.*.password.method",
    "PostgresTarget.spec.credentials.*.clientCertificate.secretRef.name",
)
@pytest.mark.parametrize("purpose", list(Credentials.model_fields))
@pytest.mark.filterwarnings("ignore:.*MD5")
async def test_each_purpose_logs_in_as_its_own_credential_says(
    server: PostgresServer, tmp_path: Path, purpose: str
) -> None:
    plain, certified = server.fresh_role(), server.fresh_role()
    old = server.fresh_name("old")
    with server.superuser_connect() as connection:
        connection.execute("SET password_encryption = 'md5'")
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'of old'").format(sql.Identifier(old)))
    server.add_hba(f"hostssl all {old} all md5", f"hostssl all {certified.user} all cert")
    issued = server.ca.issue(certified.user, folder=tmp_path)
    secrets = secrets_for(server)
    secrets.put("own", **{f"{purpose}-pw": plain.password, "password": "of somebody else"})
    secrets.put("old", password="of old\n")
    secrets.put("pair", tls_crt=issued.certificate.read_text(), tls_key=issued.key.read_text())
    for user, credential in (
        (plain.user, {"username": plain.user, "password": {"secretRef": {"name": "own", "key": f"{purpose}-pw"}}}),
        (old, {"username": old, "password": {"secretRef": {"name": "old"}, "method": "Md5"}}),
        (certified.user, {"username": certified.user, "clientCertificate": {"secretRef": {"name": "pair"}}}),
    ):
        monitor_ = {"username": "nobody", "password": {"secretRef": {"name": "absent"}}}
        spec = spec_for({"a": server}, credentials={"monitor": monitor_, purpose: credential})
        given = getattr(spec.credentials, purpose)
        async with serving(spec, secrets) as target:
            member = spec.members[0]
            async with target.session(member, purpose=Purpose.WORK, role=purpose, credential=given) as session:
                assert await session.fetch(sql.SQL("SELECT current_user AS me")) == [{"me": user}]


async def test_a_username_left_out_is_that_of_the_purpose(server: PostgresServer) -> None:
    async with serving(spec_for({"a": server}), secrets_for(server)) as target:
        bare = Credential.model_validate({"password": {"secretRef": {"name": "own"}}})
        target._secrets.put("own", password="wrong")  # type: ignore[attr-defined]
        with pytest.raises(PgtendError, match='"pgtend_users"'):
            async with target.session(target.spec.members[0], purpose=Purpose.WORK, role="users", credential=bare):
                raise AssertionError


@pytest.mark.covers("PostgresTarget.spec.maxConnections", "PostgresTarget.reason.TooManyConnections")
async def test_never_more_connections_than_allowed_even_when_asked_at_once(server: PostgresServer) -> None:
    async with reading(server, limit=3) as (target, _, role):
        most = 0
        go = asyncio.Event()

        async def hold(purpose: Purpose) -> str:
            nonlocal most
            try:
                async with use(target, purpose=purpose) as session:  # type: ignore[attr-defined]
                    await session.fetch(ONE)
                    most = max(most, open_sessions(server, role))
                    await go.wait()
                    return "held"
            except PgtendError as error:
                return str(error.reason)

        tasks = [asyncio.create_task(hold(p)) for p in (*Purpose, Purpose.WORK, Purpose.CATALOG)]
        for _ in range(1200):
            if sum(task.done() for task in tasks) == 4 and most == 3:
                break
            await asyncio.sleep(0.05)
        go.set()
        outcomes = await asyncio.gather(*tasks)
        assert sorted(outcomes) == ["TooManyConnections"] * 4 + ["held"] * 3
        assert most == 3
        await fetch(target)


async def test_an_idle_session_makes_room_but_not_the_probe_s(server: PostgresServer) -> None:
    async with reading(server, limit=2) as (target, _, role):
        probe = await fetch(target)
        work = await fetch(target, purpose=Purpose.WORK)
        await fetch(target, purpose=Purpose.CATALOG)
        assert probe.usable and not work.usable
        assert open_sessions(server, role) <= 2
        assert await fetch(target) is probe


async def test_two_of_one_slot_at_once_leave_one_warm(server: PostgresServer) -> None:
    async with reading(server) as (target, _, role):
        both = asyncio.Barrier(2)

        async def work() -> None:
            async with use(target) as session:  # type: ignore[attr-defined]
                await session.fetch(ONE)
                await both.wait()

        await asyncio.gather(work(), work())
        await settles(server, role, 1)


async def test_idle_sessions_end_after_a_while_and_the_probe_s_stays(server: PostgresServer) -> None:
    clock = FakeClock()
    async with reading(server, clock=clock) as (target, _, role):
        probe, work = await fetch(target), await fetch(target, purpose=Purpose.WORK)
        clock.advance(IDLE_SECONDS)
        await fetch(target)
        assert work.usable
        clock.advance(1)
        await fetch(target)
        assert probe.usable and not work.usable
        await settles(server, role, 1)


TERMINATE = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"


async def test_what_broke_in_use_is_not_kept(server: PostgresServer) -> None:
    async with reading(server) as (target, _, role):
        with pytest.raises(psycopg.Error):
            async with use(target) as session:  # type: ignore[attr-defined]
                server.execute(TERMINATE, [role.user])
                await session.fetch(ONE)
        assert await fetch(target) is not session


async def test_what_ended_while_idle_is_noticed_without_asking(server: PostgresServer, proxy: Proxies) -> None:
    """Also by whoever holds a session for an emergency: it must not turn out to be dead then."""
    through = proxy(server)
    async with reading(server, at=through) as (target, _, role):
        first = await fetch(target)
        mark = through.counts()
        assert all(first.usable for _ in range(100))
        assert (through.counts() - mark).round_trips == 0
        server.execute(TERMINATE, [role.user])
        await settles(server, role, 0)
        await asyncio.sleep(0.3)  # the proxy passes it on
        assert not first.usable, "at the first look"
        assert await fetch(target) is not first, "and nobody meets the dead one"


async def test_looking_at_a_session_does_not_disturb_who_uses_it(server: PostgresServer) -> None:
    async with reading(server) as (target, _, _), use(target) as session:  # type: ignore[attr-defined]
        work = asyncio.create_task(session.fetch(sql.SQL("SELECT pg_sleep(0.3), repeat('x', 1000000) AS x")))
        while not work.done():
            assert session.usable
            await asyncio.sleep(0.001)
        assert len((await work)[0]["x"]) == 1_000_000


async def test_a_failed_statement_keeps_its_session_an_open_transaction_does_not(server: PostgresServer) -> None:
    async with reading(server) as (target, _, _):
        first = await fetch(target)
        with pytest.raises(psycopg.errors.UndefinedTable):
            async with use(target) as session:  # type: ignore[attr-defined]
                await session.fetch(sql.SQL("SELECT * FROM nowhere"))
        assert await fetch(target) is first
        async with use(target) as session:  # type: ignore[attr-defined]
            await session.fetch(sql.SQL("BEGIN"))
        assert not first.usable
        second = await fetch(target)
        with pytest.raises(RuntimeError):
            async with use(target):  # type: ignore[attr-defined]
                raise RuntimeError
        assert not second.usable, "nobody knows in which state it was left"


async def test_closing_ends_what_is_idle_and_then_what_is_given_back(server: PostgresServer) -> None:
    async with reading(server) as (target, _, role):
        await fetch(target)
        async with use(target, purpose=Purpose.WORK) as session:  # type: ignore[attr-defined]
            await target.close()
            await settles(server, role, 1)
            await session.fetch(ONE)
        await settles(server, role, 0)


# Sessions kept for an emergency


async def test_an_emergency_session_follows_its_secret_and_its_server(server: PostgresServer) -> None:
    role = server.fresh_role("maintenance", "IN ROLE pg_signal_backend")
    secrets, name = secrets_for(server, role), role.user.replace("_", "-")
    credential = {"username": role.user, "password": {"secretRef": {"name": name}}}
    spec = spec_for({"a": server}, credentials={"monitor": credential, "maintenance": credential}, mode="Enforce")
    members = MemberSessions()
    async with serving(spec, secrets) as target:
        identity = ServerIdentity(system_identifier=str(server.system_identifier), timeline=1, lsn=0)
        target.standing = Standing(primary="a", identity=identity, refusal=None)

        def pids() -> list[int]:
            rows = server.execute("SELECT pid FROM pg_stat_activity WHERE usename = %s ORDER BY 1", [role.user])
            return [row[0] for row in rows]

        await members.keep(target)
        first = pids()
        await members.keep(target)
        assert pids() == first and len(first) == 1

        server.execute(TERMINATE, [role.user])
        await settles(server, role, 0)
        await asyncio.sleep(0.05)
        await members.keep(target)
        second = pids()
        assert len(second) == 1 and second != first

        server.execute(f"ALTER ROLE {role.user} PASSWORD 'renewed'")
        secrets.put(name, password="renewed")
        async with members.acting(target, target.spec.members[0]) as session:
            await members.keep(target)
            await session.fetch(ONE)
        assert pids() == second, "not while it is in use"
        await members.keep(target)
        await settles(server, role, 1)
        assert pids() != second

        del secrets.data[name]
        await members.keep(target)
        await settles(server, role, 0)
        await members.close()


# The registry


async def test_the_registry_gives_one_server_per_spec_and_loses_none(server: PostgresServer) -> None:
    role = monitor(server)
    registry = Registry(
        secrets=secrets_for(server, role),  # type: ignore[arg-type]
        policy=Policy().made(),
        installation="tests",
        clock=FakeClock(),
    )
    old_spec = spec_for({"a": server}, monitor=role.user)
    old = await registry.server(KEY, old_spec)
    assert await registry.server(KEY, spec_for({"a": server}, monitor=role.user)) is old
    await fetch(old)
    old.standing = Standing(primary="a", identity=None, refusal=None)
    new_spec = spec_for({"a": server}, monitor=role.user, maxConnections=7)
    made = await asyncio.gather(*(registry.server(KEY, new_spec) for _ in range(3)))
    assert made[0] is made[1] is made[2] is registry.find(KEY)
    assert made[0].standing is old.standing
    await settles(server, role, 0)
    other = await registry.server(KEY, spec_for({"b": server}, monitor=role.user))
    assert other.standing is None, "other members: nothing is known of them"
    await fetch(other)
    await registry.close()
    assert registry.find(KEY) is None
    await settles(server, role, 0)


# Writing


class Writing:
    """A target in Enforce that may be written to, with a role that may do anything, so that only pgtend refuses."""

    def __init__(self, server: PostgresServer, at: Proxy | None = None, mode: str = "Enforce") -> None:
        self.server = server
        self.role = server.fresh_role("users", "SUPERUSER")
        self.secrets = secrets_for(server, self.role)
        self.policy = Policy()
        self.spec = spec_for({"a": at or server}, monitor=self.role.user, users=self.role.user, mode=mode)
        self.counter = SqlCounter(server, user=self.role.user)

    @property
    def credential(self) -> Credential | None:
        return self.spec.credentials.users

    def standing(self, *, system: int | None = None, timeline: int = 1, primary: str = "a") -> Standing:
        identity = ServerIdentity(
            system_identifier=str(system or self.server.system_identifier), timeline=timeline, lsn=0
        )
        return Standing(primary=primary, identity=identity, refusal=None)

    @asynccontextmanager
    async def target(self) -> AsyncIterator[Server]:
        async with serving(self.spec, self.secrets, policy=self.policy) as made:
            made.standing = self.standing()
            yield made

    @asynccontextmanager
    async def session(self, target: Server) -> AsyncIterator[WriteSession]:
        async with target.write(role="users", credential=self.credential) as session:
            yield session

    def sent(self) -> list[str]:
        return [text for text in self.counter.statements() if "pgtend" in text or "CREATE" in text]


def create(name: str) -> Statement:
    return Statement(sql.SQL("CREATE TABLE public.{} ()").format(sql.Identifier(name)), "CREATE TABLE")


def exists(server: PostgresServer, name: str) -> bool:
    return bool(server.execute("SELECT to_regclass(%s) IS NOT NULL", [f"public.{name}"])[0][0])


async def test_a_transaction_is_one_round_trip_and_all_or_nothing(server: PostgresServer, proxy: Proxies) -> None:
    through, name = proxy(server), server.fresh_name()
    writing = Writing(server, through)
    async with writing.target() as target, writing.session(target) as session:
        mark = through.counts()
        await session.transaction([create(name), *(create(f"{name}_{n}") for n in range(20))], lock=Lock.SHARED)
        passed = through.counts() - mark
        assert (passed.connections, passed.round_trips) == (0, 1)
        assert exists(server, name) and exists(server, f"{name}_19")
        with pytest.raises(psycopg.errors.DuplicateTable):
            await session.transaction([create(f"{name}_new"), create(name)], lock=Lock.SHARED)
        assert not exists(server, f"{name}_new")
        await session.transaction([create(f"{name}_after")], lock=Lock.LOCAL)
        assert exists(server, f"{name}_after"), "the session serves on after a failure"


@pytest.mark.parametrize("place", [0, 10, 119])
async def test_the_first_failure_is_what_is_raised_and_nothing_remains(server: PostgresServer, place: int) -> None:
    """Also where there are more statements than the driver sends without looking at answers."""
    writing, name = Writing(server), server.fresh_name()
    statements = [create(f"{name}_{n}") for n in range(120)]
    statements[place] = Statement(sql.SQL("SELECT 1/0"), "SELECT")
    statements.append(Statement(sql.SQL("SELECT * FROM nowhere"), "SELECT"))
    async with writing.target() as target, writing.session(target) as session:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await session.transaction(statements, lock=Lock.SHARED)
        assert not exists(server, f"{name}_1")
        await session.transaction([create(name)], lock=Lock.SHARED)
    assert exists(server, name)


async def test_what_fails_only_at_the_commit_is_raised(server: PostgresServer) -> None:
    writing, name = Writing(server), server.fresh_name()
    server.execute(f"CREATE TABLE {name} (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    twice = Statement(sql.SQL("INSERT INTO public.{} VALUES (1), (1)").format(sql.Identifier(name)), "INSERT")
    async with writing.target() as target, writing.session(target) as session:
        with pytest.raises(psycopg.errors.UniqueViolation):
            await session.transaction([twice], lock=Lock.SHARED)
        assert await session.fetch(ONE)


@pytest.mark.parametrize("lock", list(Lock))
async def test_the_advisory_lock_is_held_until_the_end(server: PostgresServer, lock: Lock) -> None:
    writing, name = Writing(server), server.fresh_name()
    server.execute(f"CREATE TABLE {name} (who text, at timestamptz)")

    def note(who: str) -> Statement:
        insert = sql.SQL("INSERT INTO public.{} VALUES ({}, pg_catalog.clock_timestamp())")
        return Statement(insert.format(sql.Identifier(name), sql.Literal(who)), "INSERT")

    slow = Statement(sql.SQL("SELECT pg_sleep(1)"), "sleep")
    async with writing.target() as target, AsyncExitStack() as stack:
        session = await stack.enter_async_context(writing.session(target))
        work = asyncio.create_task(session.transaction([slow, note("first")], lock=lock))
        held: list[tuple[int, int]] = []
        while not held and not work.done():
            held = server.execute("SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory' AND granted")
            await asyncio.sleep(0.02)
        assert held == [(LOCK_CLASS, lock.value)]
        async with target.write(role="users", credential=writing.credential) as other:
            await other.transaction([note("second")], lock=lock)
        await work
    noted = server.execute(f"SELECT string_agg(who, ',' ORDER BY at) FROM {name}")  # noqa: S608 - a name of ours
    assert noted == [("first,second",)]


REFUSALS = {
    "Observing": lambda w, t: None,
    "BrakeOn": lambda w, t: setattr(w.policy, "brake", True),
    "NotLeading": lambda w, t: setattr(w.policy, "leads", False),
    "NotProbed": lambda w, t: setattr(t, "standing", None),
    "IdentityChanged": lambda w, t: setattr(
        t,
        "standing",
        Standing(primary=None, identity=None, refusal=PgtendError(R.IDENTITY_CHANGED, "another system")),
    ),
}


@pytest.mark.covers(
    "PostgresTarget.reason.BrakeOn",
    "PostgresTarget.reason.NotLeading",
    "PostgresTarget.reason.NotProbed",
    "PostgresTarget.reason.Observing",
)
@pytest.mark.parametrize("reason", list(REFUSALS))
async def test_a_write_is_refused_and_nothing_is_sent(server: PostgresServer, reason: str) -> None:
    writing = Writing(server, mode="Observe" if reason == "Observing" else "Enforce")
    async with writing.target() as target:
        REFUSALS[reason](writing, target)
        with pytest.raises(PgtendError) as caught:
            async with writing.session(target):
                raise AssertionError("no session is made")
        assert caught.value.reason == reason
    assert writing.counter.connections() == 0


@pytest.mark.parametrize("reason", [name for name in REFUSALS if name != "Observing"])
async def test_between_two_transactions_of_one_session_it_is_asked_again(server: PostgresServer, reason: str) -> None:
    """The process slept, or the brake was set: what was allowed when the session opened is not any more."""
    writing, name = Writing(server), server.fresh_name()
    async with writing.target() as target:
        with pytest.raises(PgtendError) as caught:
            async with writing.session(target) as session:
                await session.transaction([create(name)], lock=Lock.SHARED)
                before = len(writing.counter.statements())
                REFUSALS[reason](writing, target)
                await session.transaction([create(f"{name}_2")], lock=Lock.SHARED)
        assert caught.value.reason == reason
    assert exists(server, name) and not exists(server, f"{name}_2")
    assert len(writing.counter.statements()) == before


async def test_a_primary_that_moved_while_we_connected_is_not_written_to(server: PostgresServer) -> None:
    writing = Writing(server)
    async with writing.target() as target:
        with pytest.raises(PgtendError, match="has moved from a to b"):
            async with writing.session(target) as session:
                target.standing = writing.standing(primary="b")
                await session.transaction([create("never")], lock=Lock.SHARED)
        await target.close()
        with pytest.raises(PgtendError, match="look again"):
            async with writing.session(target):
                raise AssertionError
    assert not exists(server, "never")


@pytest.mark.covers("PostgresTarget.reason.CapabilityMissing")
async def test_without_the_credential_of_the_purpose_nothing_is_done(server: PostgresServer) -> None:
    writing = Writing(server)
    async with writing.target() as target:
        with pytest.raises(PgtendError) as caught:
            async with target.write(role="users", credential=None):
                raise AssertionError
    assert caught.value.reason == "CapabilityMissing" and "credentials.users" in caught.value.message


# The guard: the second line, on the server itself


async def guarded(writing: Writing, standing: Standing, *, says: str) -> None:
    name = writing.server.fresh_name()
    async with writing.target() as target:
        target.standing = standing
        with pytest.raises(psycopg.Error) as caught:
            async with writing.session(target) as session:
                await session.transaction([create(name)], lock=Lock.SHARED)
    assert is_guard(caught.value) and says in str(caught.value)
    assert classify(caught.value) is SqlClass.TRANSIENT
    assert not any("CREATE TABLE" in text for text in writing.counter.statements())


async def test_the_guard_stops_a_write_on_another_system_and_on_a_former_primary(server: PostgresServer) -> None:
    writing = Writing(server)
    await guarded(writing, writing.standing(system=1), says="another system")
    await guarded(writing, writing.standing(timeline=2), says="former primary")
    assert not exists(server, "never")


async def test_without_the_guard_both_would_be_written_to(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: nothing else stands in the way."""
    writing = Writing(server)
    monkeypatch.setattr(write_module, "_GUARD", sql.SQL("SELECT"))
    for number, standing in enumerate((writing.standing(system=1), writing.standing(timeline=2))):
        name = f"{server.fresh_name('unguarded')}_{number}"
        async with writing.target() as target:
            target.standing = standing
            async with writing.session(target) as session:
                await session.transaction([create(name)], lock=Lock.SHARED)
        assert exists(server, name)


@pytest.mark.parametrize("major", [14, 18])
async def test_the_guard_stops_a_write_on_a_standby_and_lets_it_pass_once_promoted(
    postgres: Postgres, major: int
) -> None:
    standby = postgres(major, role="standby", fresh=True)
    primary = standby.primary
    assert primary is not None
    writing = Writing(primary)
    primary.wait_replayed(standby)
    writing.server, writing.counter = standby, SqlCounter(standby, user=writing.role.user)
    writing.spec = spec_for({"a": standby}, monitor=writing.role.user, users=writing.role.user, mode="Enforce")
    await guarded(writing, writing.standing(), says="standby")
    standby.promote()
    async with writing.target() as target, writing.session(target) as session:
        await session.transaction([create("promoted")], lock=Lock.SHARED)
    assert exists(standby, "promoted")


async def test_a_write_that_finds_the_primary_lost_has_the_target_probed_at_once(postgres: Postgres) -> None:
    """It was demoted, it ended our session, it is gone; but not where the statement itself was at fault."""
    standby = postgres(18, role="standby", fresh=True)
    primary = standby.primary
    assert primary is not None
    writing, asked = Writing(primary), []
    primary.wait_replayed(standby)
    registry = Registry(
        secrets=writing.secrets,  # type: ignore[arg-type]
        policy=writing.policy.made(),
        installation="tests",
        clock=FakeClock(),
        doubtful=asked.append,
    )

    async def write(target: Server, query: str) -> None:
        async with writing.session(target) as session:
            await session.transaction([Statement(sql.SQL(query), "SELECT")], lock=Lock.SHARED)  # type: ignore[arg-type]

    target = await registry.server(KEY, writing.spec)
    target.standing = writing.standing()
    await write(target, "SELECT 1")
    with pytest.raises(psycopg.errors.DivisionByZero):
        await write(target, "SELECT 1/0")
    with pytest.raises(PgtendError, match="brake"):
        writing.policy.brake = True
        await write(target, "SELECT 1")
    writing.policy.brake = False
    assert asked == []
    with pytest.raises(psycopg.OperationalError):
        await write(target, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert asked == [KEY]
    primary.stop()
    with pytest.raises(PgtendError) as caught:
        await write(target, "SELECT 1")
    assert caught.value.reason is R.CONNECTION_REFUSED and asked == [KEY, KEY]
    spec = spec_for({"a": standby}, monitor=writing.role.user, users=writing.role.user, mode="Enforce")
    target = await registry.server(KEY, spec)
    target.standing = writing.standing()
    with pytest.raises(psycopg.Error) as refused:
        await write(target, "SELECT 1")
    assert is_guard(refused.value) and asked == [KEY] * 3
    await registry.close()


@pytest.mark.parametrize("grants", ["", "CREATEROLE"])
async def test_the_guard_needs_no_rights(server: PostgresServer, grants: str) -> None:
    role = server.fresh_role("users", grants)
    secrets = secrets_for(server, role)
    spec = spec_for({"a": server}, monitor=role.user, users=role.user, mode="Enforce")
    async with serving(spec, secrets) as target:
        target.standing = Writing(server).standing()
        async with target.write(role="users", credential=spec.credentials.users) as session:
            await session.transaction([Statement(sql.SQL("SELECT 1"), "SELECT 1")], lock=Lock.SHARED)


async def test_a_black_hole_in_the_middle_of_a_transaction_ends(
    server: PostgresServer, proxy: Proxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(statement=30_000, lock=3_000, idle_in_transaction=10_000, deadline=0.5)
    monkeypatch.setitem(purposes._LIMITS, Purpose.DDL, limits)
    through = proxy(server)
    writing = Writing(server, through)
    async with writing.target() as target:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5), writing.session(target) as session:
                through.black_hole()
                await asyncio.sleep(0.05)
                await session.transaction([create("lost")], lock=Lock.SHARED)
        through.heal()
        async with writing.session(target) as session:
            assert await session.fetch(sql.SQL("SELECT 1 AS one")) == [{"one": 1}]
