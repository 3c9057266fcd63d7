"""Every field of a DatabaseUser at once, on each major, by either kind of administrator that people have: one with
CREATEROLE as `pgtend target init-sql` makes it, and a superuser. Applied, drifted by hand, corrected, removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.fixtures.postgres import PostgresServer
from tests.postgres.test_users_kinds import ALL, every_kind, holds
from tests.postgres.test_users_kinds import ground as every_kind_of_object
from tests.postgres.users_ground import Shop, reached, tend, user

CREATEDB = "ALTER ROLE pgtend_users CREATEDB"


@pytest.fixture(params=["CREATEROLE", "SUPERUSER"])
def admin(server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    server.execute("ALTER ROLE pgtend_users NOSUPERUSER NOCREATEDB")


def everything(shop: Shop, admin: str, group: str) -> dict[str, Any]:
    # who has CREATEROLE alone gives CREATEDB where he has it himself, and BYPASSRLS to nobody
    attributes = ["CreateDB"] if admin == "CREATEROLE" else ["CreateDB", "CreateRole", "BypassRLS", "Replication"]
    future = [
        {
            "database": shop.name,
            "schema": "shop",
            "creators": {"names": [shop.owner]},
            "kind": kind,
            "privileges": words,
        }
        for kind, words in (("Table", ["Select"]), ("Sequence", ["Usage"]), ("Function", ["All"]), ("Type", ["Usage"]))
    ]
    return {
        "inherit": False,
        "attributes": attributes,
        "connectionLimit": 7,
        "validUntil": "2040-01-01T00:00:00Z",
        "settings": {"statement_timeout": "31s"},
        "databaseSettings": [{"database": shop.name, "settings": {"search_path": "shop"}}],
        "memberOf": [{"role": group}],
        "grants": every_kind(shop),
        "defaultPrivileges": future,
    }


def state(server: PostgresServer, shop: Shop, role: str) -> tuple[Any, ...]:
    """What the catalog says of all that, but for what is on objects."""
    (attributes,) = server.execute(
        "SELECT rolcanlogin, rolinherit, rolcreatedb, rolcreaterole, rolbypassrls, rolreplication, rolsuper,"
        " rolconnlimit, coalesce(rolvaliduntil, 'infinity') = 'infinity' FROM pg_roles WHERE rolname = %s",
        [role],
    )
    settings = server.execute(
        "SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = %s::regrole ORDER BY 1", [f'"{role}"']
    )
    groups = server.execute(
        "SELECT DISTINCT roleid::regrole::text FROM pg_auth_members WHERE member = %s::regrole", [f'"{role}"']
    )
    future = server.execute(
        "SELECT defaclobjtype::text, a.privilege_type FROM pg_default_acl, aclexplode(defaclacl) AS a"
        " WHERE a.grantee = %s::regrole ORDER BY 1, 2",
        [f'"{role}"'],
        dbname=shop.name,
    )
    return attributes, settings, groups, future


def by_hand(shop: Shop, role: str, group: str) -> Iterator[tuple[str, str]]:
    """Each field changed, with the database to do it in."""
    yield f"ALTER ROLE {role} NOLOGIN INHERIT NOCREATEDB CONNECTION LIMIT 3 VALID UNTIL '2030-01-01'", "postgres"
    yield f"ALTER ROLE {role} SET statement_timeout TO 0", "postgres"
    yield f"ALTER ROLE {role} SET work_mem TO '1MB'", "postgres"
    yield f"ALTER ROLE {role} IN DATABASE {shop.name} RESET search_path", "postgres"
    yield f"SET ROLE pgtend_users; REVOKE {group} FROM {role}", "postgres"
    yield f"REVOKE CREATE ON DATABASE {shop.name} FROM {role}", shop.name
    yield f"REVOKE CREATE ON SCHEMA shop FROM {role}", shop.name
    yield f"GRANT DELETE ON shop.items TO {role}", shop.name
    yield f"REVOKE UPDATE (id) ON shop.lines FROM {role}", shop.name
    yield f"GRANT UPDATE ON SEQUENCE shop.numbers TO {role}", shop.name
    yield f"REVOKE EXECUTE ON FUNCTION shop.pay(integer, text) FROM {role}", shop.name
    yield f"REVOKE EXECUTE ON PROCEDURE shop.close(integer) FROM {role}", shop.name
    yield f"REVOKE USAGE ON TYPE shop.money FROM {role}", shop.name
    default = f"ALTER DEFAULT PRIVILEGES FOR ROLE {shop.owner} IN SCHEMA shop"
    yield f"{default} REVOKE SELECT ON TABLES FROM {role}", shop.name  # noqa: S608 - a test's own names
    yield f"{default} GRANT UPDATE ON SEQUENCES TO {role}", shop.name


async def test_every_field_is_applied_drifts_is_corrected_and_removed(server: PostgresServer, admin: str) -> None:
    shop = every_kind_of_object(server)
    group = server.fresh_name("group")
    server.execute(f"CREATE ROLE {group} NOLOGIN; GRANT {group} TO pgtend_users WITH ADMIN OPTION")
    server.execute("ALTER ROLE pgtend_users SUPERUSER" if admin == "SUPERUSER" else CREATEDB)
    app = user(server, **everything(shop, admin, group))
    async with reached(server) as target:
        done = await tend(target, app)
        assert done.clean(), (done.failed, done.left)
        wanted, on_objects = state(server, shop, app.role), holds(server, shop, app.role)
        assert wanted[0][:3] == (True, False, True) and wanted[0][6:] == (False, 7, False)
        assert wanted[0][3:6] == (admin == "SUPERUSER",) * 3
        assert wanted[1:] == (
            [("search_path=shop",), ("statement_timeout=31s",)],
            [(group,)],
            [("S", "USAGE"), ("T", "USAGE"), ("f", "EXECUTE"), ("r", "SELECT")],
        )
        assert on_objects == ALL
        assert (await tend(target, app, applied=True)).plans[app.key].actions == ()

        drifts = list(by_hand(shop, f'"{app.role}"', group))
        for statement, database in drifts:
            server.execute(statement, dbname=database)
        changed = state(server, shop, app.role)
        assert changed[0] != wanted[0] and all(a != b for a, b in zip(changed[1:], wanted[1:], strict=True))
        done = await tend(target, app, applied=True)
        assert done.clean(), (done.failed, done.left)
        assert len(done.plans[app.key].differences) >= len(drifts)
        assert (state(server, shop, app.role), holds(server, shop, app.role)) == (wanted, on_objects)

        bare = user(server, name=app.key.name)
        done = await tend(target, bare, applied=True)
        assert done.clean(), (done.failed, done.left)
    assert state(server, shop, app.role) == ((True, True, *[False] * 5, -1, True), [], [], [])
    assert holds(server, shop, app.role) <= {"temporary"}
