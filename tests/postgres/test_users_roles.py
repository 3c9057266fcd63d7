"""Roles, passwords and privileges on real servers, with the roles that init-sql prints and no superuser in sight."""

from __future__ import annotations

import psycopg
import pytest
from tests.fixtures.counters import SqlCounter
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import Shop, initialize, look, reached, tend, user

from pgtend.postgres.scram import verifier
from pgtend.users.apply import apply
from pgtend.users.look import Looker, ask_for
from pgtend.users.plan import Credential, plan


def privileges(server: PostgresServer, shop: Shop, role: str) -> dict[str, list[str]]:
    """What a role has, by object, as PostgreSQL itself answers."""
    words = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE")
    found = {}
    for table in shop.tables:
        row = server.execute(
            "SELECT " + ", ".join(f"has_table_privilege('{role}', 'shop.{table}', '{w}')" for w in words),
            dbname=shop.name,
        )[0]
        found[table] = [w for w, has in zip(words, row, strict=True) if has]
    return found


@pytest.mark.covers(
    "DatabaseUser.spec.roleName",
    "DatabaseUser.spec.login",
    "DatabaseUser.spec.connectionLimit",
    "DatabaseUser.spec.validUntil",
    "DatabaseUser.spec.grants.database",
    "DatabaseUser.spec.grants.kind",
    "DatabaseUser.spec.grants.schema",
    "DatabaseUser.spec.grants.names",
    "DatabaseUser.spec.grants.privileges",
)
async def test_a_role_is_made_as_the_spec_says(server: PostgresServer) -> None:
    shop = Shop.open(server)
    app = user(
        server,
        roleName=server.fresh_name("Shop App"),
        connectionLimit=3,
        validUntil="2037-12-31T00:00:00.000001+01:00",
        grants=shop.trio("Select", "Insert"),
    )
    async with reached(server) as target:
        done = await tend(target, app)
        assert done.clean(), done
        again = await tend(target, app, applied=True)
    assert again.plans[app.key].actions == ()
    row = server.execute(
        "SELECT rolcanlogin, rolconnlimit, rolvaliduntil = '2037-12-30 23:00:00.000001Z', rolsuper, rolcreaterole,"
        " shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s",
        [app.role],
    )[0]
    assert row == (True, 3, True, False, False, app.wanted.mark)
    assert privileges(server, shop, app.role) == {"items": ["SELECT", "INSERT"], "lines": ["SELECT", "INSERT"]}
    with server.connect(app.role, shop.name, password=app.password.reveal()) as connection:
        assert connection.execute("SELECT count(*) FROM shop.items").fetchone() == (0,)


async def test_no_password_is_in_the_log(server: PostgresServer) -> None:
    shop = Shop.open(server)
    app = user(server, grants=shop.trio())
    mark = server.log_mark()
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        server.execute(f'ALTER ROLE "{app.role}" PASSWORD NULL')
        await tend(target, app, applied=False)
    with server.connect(app.role, shop.name, password=app.password.reveal()):
        pass
    said = server.log_since(mark)
    assert "SCRAM-SHA-256$" in said, "log_statement=all shows the verifier, which safety.md admits"
    assert app.password.reveal() not in said


async def test_every_drift_is_repaired_and_nothing_else_written(server: PostgresServer) -> None:
    shop = Shop.open(server)
    app = user(server, grants=shop.trio("Select", "Insert"), connectionLimit=7)
    quoted = f'"{app.role}"'
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        for statement, database in (
            (f"ALTER ROLE {quoted} NOLOGIN CONNECTION LIMIT 1 VALID UNTIL '2030-01-01' CREATEDB NOINHERIT", "postgres"),
            (f"SET ROLE pgtend_users; REVOKE CONNECT ON DATABASE {shop.name} FROM {quoted}", "postgres"),
            (f"REVOKE USAGE ON SCHEMA shop FROM {quoted}", shop.name),
            (f"REVOKE SELECT ON shop.items FROM {quoted}", shop.name),  # noqa: S608 - a test's own names
            (f"GRANT DELETE ON shop.lines TO {quoted}", shop.name),
            (f"GRANT INSERT ON shop.lines TO {quoted} WITH GRANT OPTION", shop.name),
            (f"CREATE TABLE shop.later (id int); ALTER TABLE shop.later OWNER TO {shop.owner}", shop.name),
        ):
            server.execute(statement, dbname=database)
        seen = SqlCounter(server, user="pgtend_users")
        done = await tend(target, app, applied=True)
        if server.major >= 16:  # from then on only who has CREATEDB takes it away; all else is repaired all the same
            (problem,) = done.left[app.key].problems
            assert problem.reason == "MissingPrivilege"
            assert not done.failed
            assert done.left[app.key].differences == ("the role has CREATEDB",)
            server.execute(problem.message.partition("as an administrator run ")[2])
        else:
            assert done.clean(), done
        writes = [s for s in seen.statements() if s.split()[0] in ("CREATE", "ALTER", "GRANT", "REVOKE", "COMMENT")]
        assert len(writes) == 7, writes
        seen.mark()
        assert (await tend(target, app, applied=True)).clean()
        assert not [s for s in seen.statements() if not s.lstrip().startswith(("SELECT", "WITH", "BEGIN", "COMMIT"))]
    differences = done.plans[app.key].differences
    assert any("later" in text for text in differences), differences
    assert privileges(server, shop, app.role) == {"items": ["SELECT", "INSERT"], "lines": ["SELECT", "INSERT"]}


async def test_a_grant_that_leaves_the_spec_is_revoked_everywhere(server: PostgresServer) -> None:
    shop, other = Shop.open(server), Shop.open(server)
    app = user(server, grants=[*shop.trio(), *other.trio("Update")])
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        server.execute(f'GRANT TRUNCATE ON shop.items TO "{app.role}"', dbname=other.name)
        slim = user(server, name=app.key.name, grants=shop.trio(names=["it*"]))
        assert (await tend(target, slim, applied=True)).clean()
    assert privileges(server, shop, app.role) == {"items": ["SELECT"], "lines": []}
    # a superuser's GRANT stands in the owner's name, as ours do
    assert privileges(server, other, app.role) == {"items": [], "lines": []}


async def test_what_others_granted_stays(server: PostgresServer) -> None:
    shop = Shop.open(server)
    app = user(server, grants=shop.trio())
    giver = server.fresh_role("giver").user
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        server.execute(f"GRANT UPDATE ON shop.items TO {giver} WITH GRANT OPTION", dbname=shop.name)
        server.execute(f"GRANT USAGE ON SCHEMA shop TO {giver}", dbname=shop.name)
        with server.superuser_connect(shop.name) as connection:
            connection.execute(f"SET ROLE {giver}")
            connection.execute(f'GRANT UPDATE ON shop.items TO "{app.role}"')
        done = await tend(target, app, applied=True)
    assert done.plans[app.key].actions == ()
    assert privileges(server, shop, app.role)["items"] == ["SELECT", "UPDATE"]


async def test_objects_that_are_missing_are_named_and_the_rest_is_done(server: PostgresServer) -> None:
    shop = Shop.open(server)
    absent = {"database": "no_such_database", "kind": "Database", "privileges": ["Connect"]}
    app = user(server, grants=[*shop.trio(names=["items", "gone"]), absent])
    async with reached(server) as target:
        done = await tend(target, app)
    assert not done.failed
    assert {(p.reason, p.object) for p in done.left[app.key].problems} == {
        ("ObjectMissing", "shop.gone"),
        ("ObjectMissing", "no_such_database"),
    }
    assert privileges(server, shop, app.role) == {"items": ["SELECT"], "lines": []}


async def test_what_we_may_not_grant_comes_with_the_statement_that_helps(server: PostgresServer) -> None:
    shop = Shop.open(server, through=False)
    app = user(server, grants=shop.trio())
    async with reached(server) as target:
        done = await tend(target, app)
        assert not done.failed
        problems = done.left[app.key].problems
        assert {p.reason for p in problems} == {"MissingPrivilege"}
        statements = {p.message.partition("as an administrator run ")[2].partition(" in database")[0] for p in problems}
        assert statements == {f"GRANT {shop.owner} TO pgtend_users"}
        for statement in statements:  # the advice is followed to the letter
            server.execute(statement)
        assert (await tend(target, app, applied=True)).clean()


async def test_a_grant_option_is_enough_where_the_owner_is_a_superuser(server: PostgresServer) -> None:
    shop = Shop.open(server, through=False)
    for table in shop.tables:
        server.execute(f"ALTER TABLE shop.{table} OWNER TO postgres", dbname=shop.name)
    server.execute("ALTER SCHEMA shop OWNER TO postgres", dbname=shop.name)
    app = user(server, grants=shop.trio("Select", "Update"))
    async with reached(server) as target:
        done = await tend(target, app)
        for problem in done.left[app.key].problems:
            sql = problem.message.partition("as an administrator run ")[2].partition(" in database")[0]
            server.execute(sql, dbname=shop.name)
        assert (await tend(target, app, applied=True)).clean()
        slim = user(server, name=app.key.name, grants=shop.trio("Select"))
        assert (await tend(target, slim, applied=True)).clean()
    assert privileges(server, shop, app.role) == {"items": ["SELECT"], "lines": ["SELECT"]}


async def test_a_role_that_cannot_be_altered_does_not_stop_the_others(server: PostgresServer) -> None:
    shop = Shop.open(server)
    users = [user(server, grants=shop.trio()) for _ in range(9)]
    async with reached(server) as target:
        await tend(target, *users)
        victim = users[4]
        server.execute(f'ALTER ROLE "{victim.role}" SUPERUSER')
        for one in users[:5]:
            server.execute(f'ALTER ROLE "{one.role}" NOLOGIN')
        done = await tend(target, *users, applied=True)
        (problem,) = done.left[victim.key].problems
        assert problem.reason == "MissingPrivilege"
        assert all(not done.left[u.key].differences for u in users if u is not victim)
        server.execute(problem.message.partition("as an administrator run ")[2])
        assert (await tend(target, *users, applied=True)).clean()


async def test_a_failure_in_the_midst_of_a_batch_stops_nobody_else(server: PostgresServer) -> None:
    shop = Shop.open(server)
    users = [user(server, grants=shop.trio()) for _ in range(9)]
    victim = users[6]
    async with reached(server) as target:
        looker = Looker(target)
        observed = await looker.look(ask_for((u.role, u.spec) for u in users))
        plans = {u.key: plan(wanted=u.wanted, observed=observed, credential=Credential()) for u in users}
        # somebody makes the same role between our look and our act
        server.execute(f'CREATE ROLE "{victim.role}"')
        verifiers = {u.role: verifier(u.password) for u in users}
        failed = (await apply(target, {key: p.actions for key, p in plans.items()}, verifiers)).failed
        assert list(failed) == [victim.key]
        assert failed[victim.key].reason == "WriteFailed"
        assert "already exists" in failed[victim.key].message
        after = await looker.look(ask_for((u.role, u.spec) for u in users))
    for one in users:
        left = plan(wanted=one.wanted, observed=after, credential=Credential())
        assert bool(left.actions) == (one is victim)
    assert after.roles[victim.role].comment is None


async def test_observing_needs_no_more_than_monitor(server: PostgresServer) -> None:
    shop = Shop.open(server)
    app, absent = user(server, grants=shop.trio()), user(server, grants=shop.trio())
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
    server.execute(f'ALTER ROLE "{app.role}" CONNECTION LIMIT 3')
    seen = SqlCounter(server)
    async with reached(server, mode="Observe") as target:
        observed = await look(target, app, absent)
        plans = [plan(wanted=u.wanted, observed=observed, credential=Credential()) for u in (app, absent)]
    assert plans[0].differences == ("connectionLimit is 3, not unlimited",)
    assert len(plans[1].differences) == 4
    assert {line.user for line in seen.lines() if not line.text.startswith("disconnection")} - {"[unknown]"} == {
        "pgtend_monitor"
    }


async def test_password_drift_shows_where_verifiers_can_be_read(server: PostgresServer) -> None:
    shop = Shop.open(server)
    app = user(server, grants=shop.trio())
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        blind = await look(target, app)
        assert not blind.sees_verifiers
        assert blind.roles[app.role].verifier is None
    server.execute("GRANT SELECT ON pg_authid TO pgtend_users")
    try:
        async with reached(server) as target:
            assert (await tend(target, app, applied=True)).plans[app.key].actions == ()
            server.execute(f"ALTER ROLE \"{app.role}\" PASSWORD 'changed by hand'")
            done = await tend(target, app, applied=True)
            assert done.plans[app.key].differences == ("the password is not the one in the Secret",)
            assert done.clean()
            assert "SCRAM" not in repr(done)
    finally:
        server.execute("REVOKE SELECT ON pg_authid FROM pgtend_users")
    with server.connect(app.role, shop.name, password=app.password.reveal()):
        pass


async def test_another_system_is_never_written_to(server: PostgresServer) -> None:
    initialize(server)
    app = user(server)
    async with reached(server, system="1234567890123456789") as target:
        done = await tend(target, app)
    assert done.failed[app.key].reason == "WriteFailed"
    assert not server.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [app.role])
    with pytest.raises(psycopg.OperationalError):
        server.connect(app.role, password=app.password.reveal())
