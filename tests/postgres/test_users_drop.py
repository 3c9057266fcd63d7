"""How roles are dropped, by the login of init-sql, no superuser: what they own, who is still there, and what blocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import psycopg
import pytest
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import INSTALLATION, Shop, User, initialize, reached, tend, user

from pgtend.core.clock import FakeClock, SystemClock
from pgtend.kube.secrets import SecretData
from pgtend.server.registry import Registry
from pgtend.server.server import Server
from pgtend.users.drop import How
from pgtend.users.finalize import Finisher, Policy
from pgtend.users.look import Looker
from pgtend.users.pace import Pace
from pgtend.users.state import Problem


class Ending:
    """What the controller does with an object that is being deleted, without Kubernetes."""

    def __init__(self, target: Server) -> None:
        self.target, looker = target, Looker(target)
        none = cast(Any, None)  # only `undo` is called
        self.finisher = Finisher(
            client=none,
            keeper=none,
            ledger=none,
            status=none,
            looker=lambda server: looker,
            installation=INSTALLATION,
            clock=SystemClock(),
            pace=Pace(SystemClock()),
        )

    async def drop(self, one: User) -> Problem | None:
        how = How(heir=one.spec.drop.reassign_owned_to, sessions=one.spec.drop.sessions)
        return await self.finisher.undo(self.target, one.key, one.role, "Drop", how)


def exists(server: PostgresServer, role: str) -> tuple[bool, ...] | None:
    rows = server.execute("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [role])
    return rows[0] if rows else None


def make(server: PostgresServer, database: str, role: str, *statements: str) -> None:
    """As the role itself would."""
    for statement in statements:
        server.execute(f'SET ROLE "{role}"; {statement}', dbname=database)


def until(check: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.covers("DatabaseUser.spec.drop.reassignOwnedTo")
async def test_what_it_owns_goes_to_the_heir_in_every_database(server: PostgresServer) -> None:
    shop, other = Shop.open(server), Shop.open(server)
    heir = server.fresh_role("heir").user
    server.execute(f"GRANT {heir} TO pgtend_users")
    group, friend = server.fresh_role("group").user, server.fresh_role("friend").user
    server.execute(f"GRANT {group} TO pgtend_users WITH ADMIN OPTION")
    handing = [{"role": group, "admin": True}]
    app = user(server, grants=[*shop.trio(), *other.trio()], memberOf=handing, drop={"reassignOwnedTo": heir})
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        quoted = f'"{app.role}"'
        for place in (shop, other):
            server.execute(f"GRANT CREATE ON SCHEMA shop TO {quoted}", dbname=place.name)
            make(
                server,
                place.name,
                app.role,
                "CREATE TABLE shop.made (id int)",
                "INSERT INTO shop.made VALUES (1), (2)",
                "CREATE FUNCTION shop.made() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                "ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO PUBLIC",
            )
        make(server, "postgres", app.role, f"GRANT {group} TO {friend}")
        # what others gave it, what a policy says of it, and a database of its own
        giver = server.fresh_role("giver").user
        server.execute(f"GRANT UPDATE ON shop.items TO {giver} WITH GRANT OPTION", dbname=shop.name)
        server.execute(f"GRANT USAGE ON SCHEMA shop TO {giver}", dbname=shop.name)
        make(server, shop.name, giver, f"GRANT UPDATE ON shop.items TO {quoted}")
        server.execute(f"CREATE POLICY seen ON shop.items TO {quoted} USING (true)", dbname=shop.name)
        own = server.fresh_database("own", owner=app.role)
        # who gives a database away needs CREATEDB; what is told helps, and nothing else was touched
        refused = await Ending(target).drop(app)
        assert refused is not None and refused.reason == "DropBlocked" and refused.object == own, refused
        assert exists(server, app.role) == (True,)
        server.execute(refused.message.partition("as an administrator run ")[2])
        rows = server.execute("SELECT datdba::regrole::text FROM pg_database WHERE datname = %s", [own])
        assert rows == [(heir,)]
        # who is to own a function needs the right to make one there
        refused = await Ending(target).drop(app)
        assert refused is not None and refused.reason == "DropBlocked", refused
        print(refused.message)
        assert "permission denied for schema shop" in refused.message
        for place in (shop, other):
            server.execute(f"GRANT CREATE ON SCHEMA shop TO {heir}", dbname=place.name)
        refused = await Ending(target).drop(app)
        assert refused is not None and refused.reason == "DropBlocked", refused
        assert f"table shop.items (has privileges) in database {shop.name}" in refused.message
        assert f"run SET ROLE {giver}; REVOKE UPDATE ON TABLE shop.items FROM {quoted}; RESET ROLE" in refused.message
        server.execute(f"GRANT {giver} TO pgtend_users" + (" WITH INHERIT FALSE" if server.major >= 16 else ""))
        done = await Ending(target).drop(app)
        assert done is None, done.message
    assert exists(server, app.role) is None
    for place in (shop, other):
        rows = server.execute(
            "SELECT relowner::regrole::text, (SELECT count(*) FROM shop.made) FROM pg_class WHERE relname = 'made'",
            dbname=place.name,
        )
        assert rows == [(heir, 2)], "the table and its rows are there"
        assert server.execute("SELECT proowner::regrole::text FROM pg_proc WHERE proname = 'made'", dbname=place.name)
    assert server.execute("SELECT rolname FROM pg_roles WHERE rolname = %s", [heir]) == [(heir,)]


@pytest.mark.covers("DatabaseUser.reason.DropBlocked")
async def test_what_blocks_is_named_and_nothing_is_changed(server: PostgresServer) -> None:
    shop, other = Shop.open(server), Shop.open(server)
    app = user(server, grants=shop.trio())
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        quoted = f'"{app.role}"'
        for place, name in ((shop, "one"), (other, "two")):
            server.execute(f"CREATE TABLE shop.{name} (); ALTER TABLE shop.{name} OWNER TO {quoted}", dbname=place.name)
        ending = Ending(target)
        problem = await ending.drop(app)
        assert problem is not None and problem.reason == "DropBlocked"
        assert "owns 2 objects" in problem.message
        for place, name in ((shop, "one"), (other, "two")):
            assert f"table shop.{name} in database {place.name}" in problem.message
        heirs = {
            "no_such_role": "does not exist",
            server.fresh_role("boss", "SUPERUSER").user: "has the powers of a superuser",
            (stranger := server.fresh_role("stranger").user): f"GRANT {stranger} TO pgtend_users",
        }
        for heir, told in heirs.items():
            asked = user(server, name=app.key.name, drop={"reassignOwnedTo": heir})
            problem = await ending.drop(asked)
            assert problem is not None and problem.reason == "DropBlocked" and problem.object == heir
            assert told in problem.message
        # a database that nobody may look into
        server.execute(f"GRANT {stranger} TO pgtend_users")
        server.execute(f"REVOKE CONNECT ON DATABASE {other.name} FROM PUBLIC, pgtend_users CASCADE")
        server.execute(f"REVOKE {other.owner} FROM pgtend_users")
        asked = user(server, name=app.key.name, drop={"reassignOwnedTo": stranger})
        problem = await ending.drop(asked)
        assert problem is not None and problem.object == other.name
        assert f"run GRANT CONNECT ON DATABASE {other.name} TO pgtend_users" in problem.message
        assert exists(server, app.role) == (True,)
        rows = server.execute("SELECT has_table_privilege(%s, 'shop.items', 'SELECT')", [app.role], dbname=shop.name)
        assert rows == [(True,)]
        server.execute(problem.message.partition("as an administrator run ")[2])
        assert await ending.drop(asked) is None
    assert exists(server, app.role) is None


@pytest.mark.covers("DatabaseUser.spec.drop.sessions", "DatabaseUser.reason.SessionsRemain")
@pytest.mark.parametrize("sessions", ["Refuse", "Wait", "Terminate"])
async def test_sessions_are_refused_waited_for_or_ended(server: PostgresServer, sessions: str) -> None:
    initialize(server)
    app = user(server, drop={"sessions": sessions})
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        ending = Ending(target)
        with server.connect(app.role, "postgres", password=app.password.reveal()) as session:
            problem = await ending.drop(app)
            if sessions == "Terminate":
                assert problem is None
                with pytest.raises(psycopg.OperationalError):
                    session.execute("SELECT 1")
                assert exists(server, app.role) is None
                return
            assert problem is not None
            assert (problem.reason, problem.sessions) == ("SessionsRemain", 1)
            assert exists(server, app.role) == (sessions == "Refuse",)
            assert session.execute("SELECT 1").fetchone() == (1,)
            again = await ending.drop(app)
            assert again is not None and again.sessions == 1
        until(lambda: not server.execute("SELECT 1 FROM pg_stat_activity WHERE usename = %s", [app.role]))
        assert await ending.drop(app) is None
    assert exists(server, app.role) is None


async def test_who_streams_changes_is_ended_too(postgres: Postgres) -> None:
    # before 16 our login alters no role that may replicate
    server = postgres(18)
    initialize(server)
    app = user(server, drop={"sessions": "Terminate"})
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        server.execute(f'ALTER ROLE "{app.role}" REPLICATION')
        with server.connect(app.role, "postgres", password=app.password.reveal(), replication="database"):
            rows = server.execute("SELECT backend_type FROM pg_stat_activity WHERE usename = %s", [app.role])
            assert rows == [("walsender",)]
            assert await Ending(target).drop(app) is None
    assert exists(server, app.role) is None


@pytest.mark.parametrize("rested", [False, True])
@pytest.mark.parametrize("policy", ["Drop", "Disable"])
async def test_it_is_undone_though_target_and_secrets_are_gone(
    server: PostgresServer, policy: Policy, rested: bool
) -> None:
    """Also where the target was suspended, or its spec not valid, before it went."""
    shop = Shop.open(server)
    app = user(server, grants=shop.trio())
    async with reached(server) as target:
        gone = False

        class Going:
            async def get(self, namespace: str, name: str, *, fresh: bool = False) -> SecretData | None:
                return None if gone else await target._secrets.get(namespace, name, fresh=fresh)

        registry = Registry(
            secrets=cast(Any, Going()),
            policy=target._policy,
            installation=INSTALLATION,
            clock=SystemClock(),
            undoable=lambda key: True,
        )
        live = await registry.server(target.key, target.spec)
        live.standing = target.standing
        assert (await tend(live, app)).clean()
        await registry.keep(target.key)
        if rested:
            await registry.rest(target.key)
        gone = True
        await registry.retire(target.key)
        kept = registry.retired(target.key)
        assert kept is not None
        assert await Ending(kept).finisher.undo(kept, app.key, app.role, policy, How()) is None
        await registry.close()
    assert exists(server, app.role) == (None if policy == "Drop" else (False,))


async def test_a_name_that_is_sql_drops_nothing_else(server: PostgresServer) -> None:
    initialize(server)
    for name in ("a$pgtend$; DROP ROLE b", "o'; SELECT 1; --", 'q"uo"ted', "per%s%%cent", "ü" * 31):
        app = user(server, name="hostile", roleName=server.fresh_name("x") + name[:20])
        async with reached(server) as target:
            assert (await tend(target, app)).clean()
            table = _table(server)
            server.execute(f"CREATE POLICY p ON {table} TO {_quoted(app.role)}")
            # on a table of somebody else's it is not ours to change
            refused = await Ending(target).drop(app)
            assert refused is not None and refused.reason == "DropBlocked", refused
            assert refused.message.startswith(f"policy p on table {table} in database postgres names role {app.role},")
            assert exists(server, app.role) == (True,)
            server.execute(refused.message.rpartition(", or ")[2])
            assert await Ending(target).drop(app) is None
        assert exists(server, app.role) is None


async def test_who_may_create_databases_gives_them_away(server: PostgresServer) -> None:
    initialize(server)
    server.execute("ALTER ROLE pgtend_users CREATEDB")
    heir = server.fresh_role("heir").user
    server.execute(f"GRANT {heir} TO pgtend_users")
    app = user(server, drop={"reassignOwnedTo": heir})
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        own = server.fresh_database("own", owner=app.role)
        assert await Ending(target).drop(app) is None
    assert server.execute("SELECT datdba::regrole::text FROM pg_database WHERE datname = %s", [own]) == [(heir,)]


def _table(server: PostgresServer) -> str:
    name = server.fresh_name("t")
    server.execute(f"CREATE TABLE public.{name} ()")
    return f"public.{name}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def test_drops_keep_the_pace_of_the_target(server: PostgresServer) -> None:
    initialize(server)
    users = [user(server) for _ in range(4)]
    async with reached(server, maxDestructivePerPass=3) as target:
        assert (await tend(target, *users)).clean()
        ending, clock = Ending(target), FakeClock()
        ending.finisher._pace = ending.finisher._dropper._pace = Pace(clock)
        found = [await ending.drop(one) for one in users]
        assert [p.reason if p else None for p in found] == [None, None, None, "TooManyAtOnce"]
        assert exists(server, users[3].role) == (True,)
        clock.advance(5)
        assert await ending.drop(users[3]) is None
