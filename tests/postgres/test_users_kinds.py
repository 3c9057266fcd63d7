"""Privileges on every kind of object, on real servers, as PostgreSQL itself answers: given, drifted, mended, taken."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fixtures.counters import SqlCounter
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import Shop, look, reached, tend, user

from pgtend.users.plan import Credential, plan

MAKE = """
CREATE SEQUENCE shop.numbers;
CREATE FUNCTION shop.pay(integer, text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION shop.pay(integer) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE TYPE shop."Odd Type" AS ENUM ('a');
CREATE FUNCTION shop."Odd ""F""(x"(VARIADIC shop."Odd Type"[]) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE shop.total(integer) (SFUNC = int4pl, STYPE = integer);
CREATE PROCEDURE shop.close(integer) LANGUAGE sql AS 'SELECT 1';
CREATE DOMAIN shop.money AS numeric;
CREATE TABLE shop.parts (id int, note text, secret text) PARTITION BY RANGE (id);
CREATE TABLE shop.parts_1 PARTITION OF shop.parts FOR VALUES FROM (0) TO (9);
CREATE VIEW shop.seen AS SELECT 1 AS one;
CREATE MATERIALIZED VIEW shop.kept AS SELECT 1 AS one;
CREATE FOREIGN TABLE shop.far (id int) SERVER elsewhere;
REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA shop FROM PUBLIC;
REVOKE USAGE ON TYPE shop."Odd Type", shop.money FROM PUBLIC;
"""


def ground(server: PostgresServer) -> Shop:
    """A shop with one of everything, owned by its owner; only the owner may use what PUBLIC may by default."""
    shop = Shop.open(server)
    with server.superuser_connect(shop.name) as connection:
        connection.execute(f"GRANT CREATE ON SCHEMA shop TO {shop.owner}")
        connection.execute("CREATE FOREIGN DATA WRAPPER none; CREATE SERVER elsewhere FOREIGN DATA WRAPPER none")
        connection.execute(f"GRANT USAGE ON FOREIGN SERVER elsewhere TO {shop.owner}")
        connection.execute(f"SET ROLE {shop.owner}")
        connection.execute(MAKE)
    return shop


def every_kind(shop: Shop) -> list[dict[str, Any]]:
    here = {"database": shop.name, "schema": "shop"}
    return [
        {"database": shop.name, "kind": "Database", "privileges": ["Connect", "Create", "Temporary"]},
        {"database": shop.name, "kind": "Schema", "names": ["shop"], "privileges": ["All"]},
        {
            **here,
            "kind": "Table",
            "names": ["items", "par*", "seen", "kept", "far"],
            "privileges": ["Select", "Truncate"],
        },
        {**here, "kind": "Table", "names": ["lines"], "columns": ["id"], "privileges": ["Update", "References"]},
        {**here, "kind": "Sequence", "privileges": ["Usage", "Select"]},
        {**here, "kind": "Function", "names": ["pay(integer, text)", "Odd*", "total(integer)"], "privileges": ["All"]},
        {**here, "kind": "Procedure", "privileges": ["Execute"]},
        {**here, "kind": "Type", "names": ["Odd Type", "money"], "privileges": ["Usage"]},
    ]


def holds(server: PostgresServer, shop: Shop, role: str) -> set[str]:
    """Which of a list of privileges the role has."""
    asked = {
        "create": f"has_database_privilege(%(r)s, '{shop.name}', 'CREATE')",
        "temporary": f"has_database_privilege(%(r)s, '{shop.name}', 'TEMPORARY')",
        "schema": "has_schema_privilege(%(r)s, 'shop', 'CREATE')",
        "partitioned": "has_table_privilege(%(r)s, 'shop.parts', 'TRUNCATE')",
        "partition": "has_table_privilege(%(r)s, 'shop.parts_1', 'SELECT')",
        "view": "has_table_privilege(%(r)s, 'shop.seen', 'SELECT')",
        "materialized": "has_table_privilege(%(r)s, 'shop.kept', 'SELECT')",
        "foreign": "has_table_privilege(%(r)s, 'shop.far', 'SELECT')",
        "delete": "has_table_privilege(%(r)s, 'shop.items', 'DELETE')",
        "column": "has_column_privilege(%(r)s, 'shop.lines', 'id', 'UPDATE')",
        "lines": "has_table_privilege(%(r)s, 'shop.lines', 'UPDATE')",
        "sequence": "has_sequence_privilege(%(r)s, 'shop.numbers', 'USAGE')",
        "setval": "has_sequence_privilege(%(r)s, 'shop.numbers', 'UPDATE')",
        "pay2": "has_function_privilege(%(r)s, 'shop.pay(integer, text)', 'EXECUTE')",
        "pay1": "has_function_privilege(%(r)s, 'shop.pay(integer)', 'EXECUTE')",
        "aggregate": "has_function_privilege(%(r)s, 'shop.total(integer)', 'EXECUTE')",
        "odd": "(SELECT has_function_privilege(%(r)s, oid, 'EXECUTE') FROM pg_proc WHERE proname LIKE 'Odd%%')",
        "procedure": "has_function_privilege(%(r)s, 'shop.close(integer)', 'EXECUTE')",
        "enum": """has_type_privilege(%(r)s, 'shop."Odd Type"', 'USAGE')""",
        "domain": "has_type_privilege(%(r)s, 'shop.money', 'USAGE')",
    }
    row = server.execute(f"SELECT {', '.join(asked.values())}", {"r": role}, dbname=shop.name)[0]
    return {name for name, has in zip(asked, row, strict=True) if has}


ALL = {
    "create", "temporary", "schema", "partitioned", "partition", "view", "materialized", "foreign", "column",
    "sequence", "pay2", "aggregate", "odd", "procedure", "enum", "domain",
}  # fmt: skip


@pytest.mark.covers("DatabaseUser.spec.grants.columns")
async def test_every_kind_is_granted_drifts_and_is_mended(server: PostgresServer) -> None:
    shop = ground(server)
    app = user(server, grants=every_kind(shop))
    quoted = f'"{app.role}"'
    async with reached(server) as target:
        done = await tend(target, app)
        # to grant CREATE on a database or schema that a superuser gave away, its owner is who we are a member of
        assert done.clean(), (done.failed, done.left)
        # a database lets everybody make temporary tables, which is no less in force
        assert holds(server, shop, app.role) == ALL
        seen = SqlCounter(server, user="pgtend_users")
        assert (await tend(target, app, applied=True)).plans[app.key].actions == ()
        assert not [s for s in seen.statements() if s.startswith(("GRANT", "REVOKE", "BEGIN"))]

        for statement in (
            f"REVOKE EXECUTE ON FUNCTION shop.pay(integer, text) FROM {quoted}",
            f"GRANT EXECUTE ON FUNCTION shop.pay(integer) TO {quoted}",
            f"REVOKE USAGE ON TYPE shop.money FROM {quoted}",
            f"GRANT UPDATE ON SEQUENCE shop.numbers TO {quoted}",
            f"REVOKE UPDATE (id) ON shop.lines FROM {quoted}",
            f"GRANT DELETE ON shop.items TO {quoted}",
            f"REVOKE CREATE ON SCHEMA shop FROM {quoted}",
            f"REVOKE EXECUTE ON PROCEDURE shop.close(integer) FROM {quoted}",
        ):
            server.execute(statement, dbname=shop.name)
        done = await tend(target, app, applied=True)
        assert done.clean(), (done.failed, done.left)
        assert len(done.plans[app.key].differences) == 8
        assert f"Update on column id of table shop.lines of database {shop.name} is missing" in (
            done.plans[app.key].differences
        )
        assert holds(server, shop, app.role) == ALL

        bare = user(server, name=app.key.name)
        assert (await tend(target, bare, applied=True)).clean()
    assert holds(server, shop, app.role) <= {"temporary"}
    assert not server.execute("SELECT 1 FROM pg_shdepend WHERE refobjid = %s::regrole AND deptype = 'a'", [quoted]), (
        "nothing is left in any ACL"
    )


async def test_a_tables_revoke_takes_the_columns_with_it_and_they_are_given_again(server: PostgresServer) -> None:
    shop = ground(server)
    here = {"database": shop.name, "kind": "Table", "schema": "shop", "names": ["lines"]}
    app = user(server, grants=[{**here, "columns": ["id"], "privileges": ["Select"]}])
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        server.execute(f'GRANT SELECT, INSERT ON shop.lines TO "{app.role}"', dbname=shop.name)
        done = await tend(target, app, applied=True)
        assert done.clean(), done.left
    has = (
        "SELECT has_table_privilege(%(r)s, 'shop.lines', 'SELECT'),"
        " has_column_privilege(%(r)s, 'shop.lines', 'id', 'SELECT')"
    )
    assert server.execute(has, {"r": app.role}, dbname=shop.name) == [(False, True)]


@pytest.mark.covers("DatabaseUser.spec.grants.grantOption")
async def test_the_right_to_hand_on(server: PostgresServer) -> None:
    shop = ground(server)
    grants = [*shop.trio("Select")[:2], {**shop.trio("Select")[2], "names": ["items"], "grantOption": True}]
    app = user(server, grants=grants)
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        has = "SELECT has_table_privilege(%s, 'shop.items', 'SELECT WITH GRANT OPTION')"
        assert server.execute(has, [app.role], dbname=shop.name) == [(True,)]
        server.execute(f'REVOKE GRANT OPTION FOR SELECT ON shop.items FROM "{app.role}"', dbname=shop.name)  # noqa: S608
        done = await tend(target, app, applied=True)
        assert done.clean()
        shown = f"Select on table shop.items of database {shop.name} may not be handed on"
        assert done.plans[app.key].differences == (shown,)
        plain = user(server, name=app.key.name, grants=shop.trio("Select", names=["items"]))
        assert (await tend(target, plain, applied=True)).clean()
        assert server.execute(has, [app.role], dbname=shop.name) == [(False,)]


SERVER_WIDE = """
CREATE FOREIGN DATA WRAPPER shelf;
CREATE SERVER remote FOREIGN DATA WRAPPER shelf;
CREATE TRUSTED LANGUAGE tiny HANDLER plpgsql_call_handler;
REVOKE USAGE ON LANGUAGE tiny FROM PUBLIC;
"""


async def test_what_only_administrators_own_comes_with_their_statement(server: PostgresServer) -> None:
    """Languages, foreign servers, large objects, parameters: the advice is followed to the letter, then all is well."""
    shop = ground(server)
    with server.superuser_connect(shop.name) as connection:
        connection.execute(SERVER_WIDE)
        (large,) = connection.execute("SELECT lo_create(0)::text").fetchone() or ("",)
    here = {"database": shop.name}
    grants = [
        {**here, "kind": "Language", "names": ["tiny"], "privileges": ["Usage"]},
        {**here, "kind": "ForeignServer", "names": ["rem*"], "privileges": ["Usage"]},
        {**here, "kind": "LargeObject", "names": [large], "privileges": ["Select", "Update"]},
        {"kind": "Parameter", "names": ["Log_Statement"], "privileges": ["Set"]},
        {"kind": "Tablespace", "names": ["pg_default"], "privileges": ["Create"]},
    ]
    app = user(server, grants=grants)
    async with reached(server) as target:
        done = await tend(target, app)
        assert not done.failed
        problems = done.left[app.key].problems
        assert len(problems) == 5
        assert {str(p.reason) for p in problems} == {"MissingPrivilege"} | (
            {"NotSupported"} if server.major < 15 else set()
        )
        for problem in problems:
            statement = problem.message.partition("as an administrator run ")[2].partition(" in database")[0]
            if statement:
                server.execute(statement, dbname=shop.name)
        done = await tend(target, app, applied=True)
        assert not done.failed
        assert len(done.left[app.key].problems) == (1 if server.major < 15 else 0)
        asked = {
            "language": "has_language_privilege(%(r)s, 'tiny', 'USAGE')",
            "server": "has_server_privilege(%(r)s, 'remote', 'USAGE')",
            "tablespace": "has_tablespace_privilege(%(r)s, 'pg_default', 'CREATE')",
            "large": "(SELECT count(*) = 2 FROM pg_largeobject_metadata, aclexplode(lomacl) a"
            " WHERE oid::text = %(large)s AND a.grantee = (SELECT oid FROM pg_roles WHERE rolname = %(r)s))",
        }
        given = {"r": app.role, "large": large}
        if server.major >= 15:
            asked["parameter"] = "has_parameter_privilege(%(r)s, 'log_statement', 'SET')"
        row = server.execute(f"SELECT {', '.join(asked.values())}", given, dbname=shop.name)[0]
        assert all(row), dict(zip(asked, row, strict=True))
        bare = user(server, name=app.key.name)
        assert (await tend(target, bare, applied=True)).clean()
        row = server.execute(f"SELECT {', '.join(asked.values())}", given, dbname=shop.name)[0]
        assert not any(row), dict(zip(asked, row, strict=True))
    if server.major >= 15:
        server.execute("REVOKE SET ON PARAMETER log_statement FROM pgtend_users CASCADE")
    server.execute("REVOKE CREATE ON TABLESPACE pg_default FROM pgtend_users CASCADE")


@pytest.mark.covers("DatabaseUser.spec.pruning")
async def test_without_pruning_privileges_are_only_added(server: PostgresServer) -> None:
    shop = ground(server)
    adding = user(server, grants=shop.trio("Select", names=["items"]), pruning="None")
    async with reached(server) as target:
        assert (await tend(target, adding)).clean()
        quoted = f'"{adding.role}"'
        server.execute(f"GRANT DELETE ON shop.items TO {quoted}", dbname=shop.name)
        server.execute(f"REVOKE SELECT ON shop.items FROM {quoted}", dbname=shop.name)  # noqa: S608
        server.execute(f"ALTER ROLE {quoted} SET work_mem TO '1MB'")
        done = await tend(target, adding, applied=True)
        assert done.clean()
        assert done.plans[adding.key].differences == (f"Select on table shop.items of database {shop.name} is missing",)
        pruned = user(server, name=adding.key.name, grants=shop.trio("Select", names=["items"]))
        done = await tend(target, pruned, applied=True)
        assert done.clean()
        assert set(done.plans[adding.key].differences) == {
            f"Delete on table shop.items of database {shop.name} is beyond the spec",
            "setting work_mem is 1MB, and not in the spec",
        }


async def test_all_is_what_the_major_has(server: PostgresServer) -> None:
    shop = ground(server)
    app = user(server, grants=shop.trio("All", names=["items"]))
    async with reached(server) as target:
        done = await tend(target, app)
        assert done.clean()
        words = {
            row[0]
            for row in server.execute(
                "SELECT privilege_type FROM pg_class, aclexplode(relacl) a WHERE relname = 'items'"
                " AND a.grantee = %s::regrole",
                [f'"{app.role}"'],
                dbname=shop.name,
            )
        }
        classic = {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"}
        assert words == classic | ({"MAINTAIN"} if server.major >= 17 else set())
        new = user(server, grants=shop.trio("Maintain", names=["items"]))
        done = await tend(target, new)
        problems = [str(p.reason) for p in done.left[new.key].problems]
        assert problems == ([] if server.major >= 17 else ["NotSupported"])


@pytest.mark.covers("DatabaseUser.spec.grants.preset", "DatabaseUser.spec.grants.schemas")
async def test_presets_are_what_they_print(server: PostgresServer) -> None:
    shop = ground(server)
    here = {"database": shop.name}
    reader = user(server, grants=[{**here, "preset": "ReadOnly", "schemas": ["sh*"]}])
    writer = user(server, grants=[{**here, "preset": "ReadWrite"}])
    owner = user(server, grants=[{**here, "preset": "Owner", "schemas": ["shop"]}])
    spelled = user(
        server,
        grants=[
            *shop.trio("Select"),
            {**here, "kind": "Sequence", "schema": "shop", "privileges": ["Select"]},
        ],
    )
    server.execute(
        f"GRANT ALL ON SCHEMA public TO {shop.owner}; ALTER SCHEMA public OWNER TO {shop.owner}", dbname=shop.name
    )
    async with reached(server) as target:
        done = await tend(target, reader, writer, owner, spelled)
        assert done.clean(), (done.failed, {k: p for k, p in done.left.items() if p.problems})
        observed = await look(target, reader, spelled)
        found = {
            one.role: sorted(
                (item.key, sorted(item.held[one.role].all))
                for view in observed.databases.values()
                for item in view.by_role.get(one.role, ())
            )
            for one in (reader, spelled)
        }
        assert found[reader.role] == found[spelled.role]
        # what is made later is granted at the next look
        server.execute(
            f"CREATE TABLE shop.later (id int); ALTER TABLE shop.later OWNER TO {shop.owner}", dbname=shop.name
        )
        done = await tend(target, writer, applied=True)
        assert done.clean() and len(done.plans[writer.key].differences) == 1
    ask = "SELECT has_table_privilege(%(r)s, 'shop.later', 'DELETE'), has_schema_privilege(%(r)s, 'public', 'USAGE')"
    assert server.execute(ask, {"r": writer.role}, dbname=shop.name) == [(True, True)]
    assert {"create", "schema", "setval", "pay1", "procedure", "enum"} <= holds(server, shop, owner.role)


async def test_the_monitor_preset_is_a_membership(server: PostgresServer) -> None:
    shop = ground(server)
    server.execute("GRANT pg_monitor TO pgtend_users WITH ADMIN OPTION")
    app = user(server, grants=[{"database": shop.name, "preset": "Monitor"}])
    async with reached(server) as target:
        done = await tend(target, app)
        assert done.clean(), done.left
        assert server.execute("SELECT pg_has_role(%s, 'pg_monitor', 'USAGE')", [app.role]) == [(True,)]
        assert done.left[app.key].memberships == 1


async def test_many_users_with_every_kind_cost_the_same_statements(server: PostgresServer) -> None:
    shop = ground(server)
    users = [user(server, grants=every_kind(shop)) for _ in range(20)]
    async with reached(server) as target:
        seen = SqlCounter(server, user="pgtend_users")
        assert (await tend(target, *users)).clean()
        # one for each grant; CONNECT in our own name, since it was given to us to hand on, and the rest in the owner's
        assert len([s for s in seen.statements() if s.startswith("GRANT")]) == len(every_kind(shop)) + 1
        seen.mark()
        observed = await look(target, *users)
        assert len([s for s in seen.statements() if "SELECT" in s]) == 3
    left = [plan(wanted=u.wanted, observed=observed, credential=Credential()) for u in users]
    assert not any(one.actions for one in left)
