"""Default privileges on real servers: what others will make is granted as it is made, by whoever makes it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fixtures.counters import SqlCounter
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import Shop, reached, tend, user


def default(shop: Shop, kind: str, *privileges: str, creators: list[str] | None, **rest: Any) -> dict[str, Any]:
    by = {"auto": {}} if creators is None else {"names": creators}
    return {
        "database": shop.name,
        "schema": "shop",
        "kind": kind,
        "privileges": list(privileges),
        "creators": by,
        **rest,
    }


def make(server: PostgresServer, shop: Shop, role: str, name: str) -> None:
    """A table, a sequence, a function and a type of this role."""
    with server.superuser_connect(shop.name) as connection:
        connection.execute(f"SET ROLE {role}")
        connection.execute(f"CREATE TABLE shop.t_{name} (id int); CREATE SEQUENCE shop.s_{name}")
        connection.execute(f"CREATE FUNCTION shop.f_{name}() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        connection.execute(f"CREATE TYPE shop.e_{name} AS ENUM ('a')")


def given(server: PostgresServer, shop: Shop, role: str, name: str) -> set[str]:
    """What the role was given by name on what `make` made."""
    rows = server.execute(
        "SELECT relname || ' ' || privilege_type FROM pg_class, aclexplode(relacl) a WHERE a.grantee = %(r)s::regrole"
        " UNION SELECT proname || ' ' || privilege_type FROM pg_proc, aclexplode(proacl) a"
        " WHERE a.grantee = %(r)s::regrole"
        " UNION SELECT typname || ' ' || privilege_type FROM pg_type, aclexplode(typacl) a"
        " WHERE a.grantee = %(r)s::regrole",
        {"r": f'"{role}"'},
        dbname=shop.name,
    )
    return {row[0] for row in rows if f"_{name} " in row[0]}


@pytest.mark.covers(
    "DatabaseUser.spec.defaultPrivileges.database",
    "DatabaseUser.spec.defaultPrivileges.schema",
    "DatabaseUser.spec.defaultPrivileges.creators.names",
    "DatabaseUser.spec.defaultPrivileges.kind",
    "DatabaseUser.spec.defaultPrivileges.privileges",
)
async def test_what_a_named_creator_makes_is_granted_as_it_is_made(server: PostgresServer) -> None:
    shop = Shop.open(server)
    server.execute(f"GRANT CREATE ON SCHEMA shop TO {shop.owner}", dbname=shop.name)
    owner = [shop.owner]
    wishes = [
        default(shop, "Table", "Select", "Insert", creators=owner),
        default(shop, "Sequence", "Usage", creators=owner),
        default(shop, "Function", "All", creators=owner),
        default(shop, "Type", "Usage", creators=owner),
    ]
    everywhere = default(shop, "Schema", "Usage", creators=owner)
    del everywhere["schema"]
    app = user(server, defaultPrivileges=[*wishes, everywhere])
    async with reached(server) as target:
        done = await tend(target, app)
        assert done.clean(), (done.failed, done.left)
        make(server, shop, shop.owner, "one")
        assert given(server, shop, app.role, "one") == {
            "t_one SELECT", "t_one INSERT", "s_one USAGE", "f_one EXECUTE", "e_one USAGE",
        }  # fmt: skip
        seen = SqlCounter(server, user="pgtend_users")
        # what was given as it was made is not in `grants`, and is not taken away: the spec asks for it
        again = await tend(target, app, applied=True)
        assert not [s for s in seen.statements() if s.startswith(("ALTER DEFAULT", "REVOKE"))]
        assert again.plans[app.key].actions == ()

        quoted = f'"{app.role}"'
        server.execute(
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {shop.owner} IN SCHEMA shop REVOKE INSERT ON TABLES FROM {quoted};"
            f" ALTER DEFAULT PRIVILEGES FOR ROLE {shop.owner} IN SCHEMA shop GRANT DELETE ON TABLES TO {quoted}",
            dbname=shop.name,
        )
        done = await tend(target, app, applied=True)
        assert done.clean()
        where = f"tables to come of {shop.owner} in schema shop of database {shop.name}"
        assert {f"Insert on {where} is missing", f"Delete on {where} is beyond the spec"} <= set(
            done.plans[app.key].differences
        )
        bare = user(server, name=app.key.name)
        assert (await tend(target, bare, applied=True)).clean()
    assert server.execute("SELECT count(*) FROM pg_default_acl", dbname=shop.name) == [(0,)]
    assert given(server, shop, app.role, "one") == set()


@pytest.mark.covers("DatabaseUser.spec.defaultPrivileges.creators.auto")
async def test_auto_follows_who_may_create(server: PostgresServer) -> None:
    shop = Shop.open(server)
    maker = server.fresh_role("maker").user
    server.execute(f"GRANT {maker} TO pgtend_users")
    app = user(server, defaultPrivileges=[default(shop, "Table", "Select", creators=None)])
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        server.execute(f"GRANT CREATE, USAGE ON SCHEMA shop TO {maker}", dbname=shop.name)
        done = await tend(target, app, applied=True)
        assert done.clean()
        assert done.plans[app.key].differences == (
            f"Select on tables to come of {maker} in schema shop of database {shop.name} is missing",
        )
    with server.superuser_connect(shop.name) as connection:
        connection.execute(f"SET ROLE {maker}")
        connection.execute("CREATE TABLE shop.made (id int)")
    has = "SELECT has_table_privilege(%s, 'shop.made', 'SELECT')"
    assert server.execute(has, [app.role], dbname=shop.name) == [(True,)]


async def test_creators_that_are_not_ours_come_with_the_statement(server: PostgresServer) -> None:
    shop = Shop.open(server)
    stranger = server.fresh_role("stranger").user
    wish = default(shop, "Table", "Select", creators=[stranger, "postgres", "no_such_role"])
    app = user(server, defaultPrivileges=[wish])
    async with reached(server) as target:
        done = await tend(target, app)
        assert not done.failed
        problems = {str(p.object): p for p in done.left[app.key].problems}
        assert str(problems["no_such_role"].reason) == "ObjectMissing"
        rest = [p for p in problems.values() if str(p.reason) == "MissingPrivilege"]
        assert len(rest) == 2
        for problem in rest:
            statement = problem.message.partition("as an administrator run ")[2].partition(" in database")[0]
            server.execute(statement, dbname=shop.name)
        done = await tend(target, app, applied=True)
        assert [str(p.reason) for p in done.left[app.key].problems] == ["ObjectMissing"]
    server.execute(f"CREATE TABLE shop.super (id int); GRANT CREATE ON SCHEMA shop TO {stranger}", dbname=shop.name)
    with server.superuser_connect(shop.name) as connection:
        connection.execute(f"SET ROLE {stranger}")
        connection.execute("CREATE TABLE shop.strange (id int)")
    for table in ("super", "strange"):
        has = f"SELECT has_table_privilege(%s, 'shop.{table}', 'SELECT')"
        assert server.execute(has, [app.role], dbname=shop.name) == [(True,)]
