"""What a role is beside its privileges, on real servers: attributes, settings and memberships, made and mended."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fixtures.counters import SqlCounter
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import Shop, initialize, look, reached, tend, user

from pgtend.users.plan import Credential, plan

ATTRIBUTES = "rolinherit, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls, rolsuper"


def attributes(server: PostgresServer, role: str) -> tuple[Any, ...]:
    return tuple(server.execute(f"SELECT {ATTRIBUTES} FROM pg_roles WHERE rolname = %s", [role])[0])  # noqa: S608


def settings(server: PostgresServer, role: str) -> dict[str, list[str]]:
    rows = server.execute(
        "SELECT coalesce(datname, '*'), setconfig FROM pg_db_role_setting s LEFT JOIN pg_database d"
        " ON d.oid = setdatabase WHERE setrole = %s::regrole",
        [f'"{role}"'],
    )
    return {database: sorted(found) for database, found in rows}


def group_of(server: PostgresServer, options: str = "NOLOGIN") -> str:
    name = server.fresh_name("group")
    server.execute(f"CREATE ROLE {name} {options}")
    return name


def advice(message: str) -> str:
    return message.partition("as an administrator run ")[2]


@pytest.mark.covers("DatabaseUser.spec.inherit", "DatabaseUser.spec.attributes")
async def test_attributes_are_given_and_taken_as_far_as_ours_go(server: PostgresServer) -> None:
    initialize(server)
    app = user(server, inherit=False, attributes=["CreateDB", "CreateRole", "BypassRLS"])
    async with reached(server) as target:
        done = await tend(target, app)
        # until 15 CREATEROLE is enough for CREATEDB; from 16 on one gives what one has; never BYPASSRLS
        lacking = {"BYPASSRLS"} | ({"CREATEDB"} if server.major >= 16 else set())
        left = done.left[app.key]
        assert not done.failed
        assert set(left.differences) == {f"the role has no {word}" for word in lacking}
        (problem,) = left.problems
        assert problem.reason == "MissingPrivilege"
        server.execute(advice(problem.message))
        assert (await tend(target, app, applied=True)).clean()
        assert attributes(server, app.role) == (False, True, True, False, True, False)

        server.execute(f'ALTER ROLE "{app.role}" NOCREATEROLE INHERIT')
        slim = user(server, name=app.key.name, inherit=False, attributes=["CreateDB", "CreateRole", "BypassRLS"])
        done = await tend(target, slim, applied=True)
        assert done.clean()
        assert set(done.plans[app.key].differences) == {"inherit is true, not false", "the role has no CREATEROLE"}

        bare = user(server, name=app.key.name)
        done = await tend(target, bare, applied=True)
        server.execute(advice(done.left[app.key].problems[0].message))
        assert (await tend(target, bare, applied=True)).clean()
    assert attributes(server, app.role) == (True, False, False, False, False, False)


@pytest.mark.covers(
    "DatabaseUser.spec.settings",
    "DatabaseUser.spec.databaseSettings.database",
    "DatabaseUser.spec.databaseSettings.settings",
)
async def test_settings_of_sessions(server: PostgresServer) -> None:
    shop = Shop.open(server)
    here = [{"database": shop.name, "settings": {"search_path": 'Shop, "$user", "a ""b"'}}]
    app = user(
        server,
        grants=shop.trio(),
        settings={"Statement_Timeout": "31s", "DateStyle": "ISO, DMY"},
        databaseSettings=here,
    )
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        assert settings(server, app.role) == {
            "*": ["DateStyle=ISO, DMY", "statement_timeout=31s"],
            shop.name: ['search_path=shop, "$user", "a ""b"'],
        }
        seen = SqlCounter(server, user="pgtend_users")
        assert (await tend(target, app, applied=True)).plans[app.key].actions == ()
        assert not [s for s in seen.statements() if s.startswith("ALTER")]
        with server.connect(app.role, shop.name, password=app.password.reveal()) as connection:
            assert connection.execute("SHOW statement_timeout").fetchone() == ("31s",)
            assert connection.execute("SHOW search_path").fetchone() == ('shop, "$user", "a ""b"',)

        quoted = f'"{app.role}"'
        server.execute(f"ALTER ROLE {quoted} SET statement_timeout TO 0; ALTER ROLE {quoted} SET work_mem TO '1MB'")
        server.execute(f"ALTER ROLE {quoted} IN DATABASE {shop.name} RESET search_path")
        # an administrator's is not an ordinary role's to set, nor ours to take away
        server.execute(f"ALTER ROLE {quoted} SET log_min_duration_statement TO 500")
        done = await tend(target, app, applied=True)
        assert done.clean()
        assert set(done.plans[app.key].differences) == {
            "setting Statement_Timeout is 0, not 31s",
            "setting work_mem is 1MB, and not in the spec",
            f"setting search_path in database {shop.name} is not set, not {here[0]['settings']['search_path']}",
        }
        assert settings(server, app.role)["*"] == [
            "DateStyle=ISO, DMY",
            "log_min_duration_statement=500",
            "statement_timeout=31s",
        ]


@pytest.mark.covers("DatabaseUser.reason.SettingNotAllowed")
async def test_a_setting_of_administrators_needs_their_word(server: PostgresServer) -> None:
    initialize(server)
    app = user(server, settings={"log_statement": "ddl", "work_mem": "2MB", "shop.tenant": "7"})
    async with reached(server) as target:
        done = await tend(target, app)
        left = done.left[app.key]
        assert {(p.reason, p.object) for p in left.problems} == {
            ("SettingNotAllowed", "log_statement"),
            ("SettingNotAllowed", "shop.tenant"),
        }
        assert settings(server, app.role) == {"*": ["work_mem=2MB"]}
        if server.major >= 15:
            for problem in left.problems:
                server.execute(advice(problem.message).partition(" (to a")[0])
            assert (await tend(target, app, applied=True)).clean()
            assert settings(server, app.role) == {"*": ["log_statement=ddl", "shop.tenant=7", "work_mem=2MB"]}


async def test_not_even_a_superuser_sets_what_an_ordinary_role_may_not(server: PostgresServer) -> None:
    initialize(server)
    app = user(server, settings={"session_preload_libraries": "auto_explain", "lo_compat_privileges": "on"})
    server.execute("ALTER ROLE pgtend_users SUPERUSER")
    try:
        async with reached(server) as target:
            done = await tend(target, app)
    finally:
        server.execute("ALTER ROLE pgtend_users NOSUPERUSER")
    assert {p.reason for p in done.left[app.key].problems} == {"SettingNotAllowed"}
    assert settings(server, app.role) == {}


def memberships(server: PostgresServer, role: str) -> set[tuple[Any, ...]]:
    """Role, its grantor, and the options (None before 16)."""
    options = "inherit_option, set_option" if server.major >= 16 else "NULL::bool, NULL::bool"
    rows = server.execute(
        f"SELECT roleid::regrole::text, grantor::regrole::text, admin_option, {options} FROM pg_auth_members"  # noqa: S608
        " WHERE member = %s::regrole",
        [f'"{role}"'],
    )
    return {tuple(row) for row in rows}


@pytest.mark.covers("DatabaseUser.spec.memberOf.role", "DatabaseUser.spec.memberOf.admin")
async def test_memberships_are_kept_and_those_of_others_left(server: PostgresServer) -> None:
    initialize(server)
    groups = [group_of(server) for _ in range(3)]
    own, foreign, third = groups
    options = (True, True) if server.major >= 16 else (None, None)
    for group in (own, third):
        server.execute(f"GRANT {group} TO pgtend_users WITH ADMIN OPTION")
    app = user(server, memberOf=[{"role": own}])
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        assert memberships(server, app.role) == {(own, "pgtend_users", False, *options)}
        seen = SqlCounter(server, user="pgtend_users")
        assert (await tend(target, app, applied=True)).plans[app.key].actions == ()
        assert not [s for s in seen.statements() if s.startswith(("GRANT", "REVOKE", "ALTER"))]

        # somebody else makes it a member of another role, and ours of one too many
        server.execute(f'GRANT {foreign} TO "{app.role}"')
        server.execute(f'SET ROLE pgtend_users; GRANT {third} TO "{app.role}"; REVOKE {own} FROM "{app.role}"')
        done = await tend(target, app, applied=True)
        assert done.clean()
        assert set(done.plans[app.key].differences) == {
            f"membership in {third} is beyond the spec",
            f"membership in {own} is missing",
        }
        found = memberships(server, app.role)
        assert {(row[0], row[1]) for row in found} == {(own, "pgtend_users"), (foreign, "postgres")}

        handing = user(server, name=app.key.name, memberOf=[{"role": own, "admin": True}])
        assert (await tend(target, handing, applied=True)).clean()
        assert (own, "pgtend_users", True, *options) in memberships(server, app.role)
        assert (await tend(target, app, applied=True)).clean()
        assert (own, "pgtend_users", False, *options) in memberships(server, app.role)
        bare = user(server, name=app.key.name)
        assert (await tend(target, bare, applied=True)).clean()
    assert {row[0] for row in memberships(server, app.role)} == {foreign}


@pytest.mark.covers(
    "DatabaseUser.spec.memberOf.inherit", "DatabaseUser.spec.memberOf.set", "DatabaseUser.reason.NotSupported"
)
async def test_options_of_memberships_from_16_on(server: PostgresServer) -> None:
    initialize(server)
    group = group_of(server)
    server.execute(f"GRANT {group} TO pgtend_users WITH ADMIN OPTION")
    app = user(server, memberOf=[{"role": group, "inherit": False, "set": False}])
    async with reached(server) as target:
        done = await tend(target, app)
        if server.major < 16:
            assert [p.reason for p in done.left[app.key].problems] == ["NotSupported"]
            assert memberships(server, app.role) == set()
            return
        assert done.clean()
        assert memberships(server, app.role) == {(group, "pgtend_users", False, False, False)}
        # what another gave with more counts for itself, and stays
        server.execute(f'GRANT {group} TO "{app.role}" WITH INHERIT TRUE')
        server.execute(f'SET ROLE pgtend_users; GRANT {group} TO "{app.role}" WITH SET TRUE')
        done = await tend(target, app, applied=True)
        assert done.clean()
        assert done.plans[app.key].differences == (f"membership in {group} has set true, not false",)
    assert len(memberships(server, app.role)) == 2


async def test_memberships_that_are_not_ours_to_give(server: PostgresServer) -> None:
    initialize(server)
    boss = group_of(server, "NOLOGIN SUPERUSER")
    group = group_of(server)
    app = user(server, memberOf=[{"role": boss}, {"role": "no_such_role"}, {"role": group}])
    async with reached(server) as target:
        done = await tend(target, app)
        assert not done.failed
        found = {p.object: p for p in done.left[app.key].problems}
        assert (found[boss].reason, found["no_such_role"].reason) == ("NotPermitted", "ObjectMissing")
        if server.major >= 16:
            assert found[group].reason == "MissingPrivilege"
            server.execute(advice(found[group].message))
            done = await tend(target, app, applied=True)
        assert group not in {p.object for p in done.left[app.key].problems}
    assert {row[0] for row in memberships(server, app.role)} == {group}


@pytest.mark.covers("DatabaseUser.reason.NotPermitted")
async def test_nobody_becomes_a_superuser_by_a_detour(server: PostgresServer) -> None:
    initialize(server)
    for power in (group_of(server, "NOLOGIN SUPERUSER"), "pg_execute_server_program"):
        between, group = group_of(server), group_of(server)
        server.execute(f"GRANT {power} TO {between}")
        server.execute(f"GRANT {between} TO {group}")
        server.execute(f"GRANT {group} TO pgtend_users WITH ADMIN OPTION")
        app = user(server, memberOf=[{"role": group}])
        async with reached(server) as target:
            done = await tend(target, app)
        (problem,) = done.left[app.key].problems
        assert (problem.reason, problem.object) == ("NotPermitted", group)
        assert memberships(server, app.role) == set()
    # what amounts to a superuser by its own name is admitted by that name, and so is no detour
    server.execute("GRANT pg_write_server_files TO pgtend_users WITH ADMIN OPTION")
    app = user(server, memberOf=[{"role": "pg_write_server_files"}])
    async with reached(server) as target:
        assert (await tend(target, app)).clean()


async def test_a_hundred_members_of_one_role_cost_one_grant(server: PostgresServer) -> None:
    initialize(server)
    group = group_of(server)
    server.execute(f"GRANT {group} TO pgtend_users WITH ADMIN OPTION")
    users = [user(server, memberOf=[{"role": group}]) for _ in range(100)]
    async with reached(server) as target:
        seen = SqlCounter(server, user="pgtend_users")
        assert (await tend(target, *users)).clean()
        assert len([s for s in seen.statements() if s.startswith("GRANT")]) == 1
        seen.mark()
        await look(target, *users)
        assert len([s for s in seen.statements() if "SELECT" in s]) == 2


@pytest.mark.parametrize("nasty", ["'; DROP ROLE x; --", 'a"b', "ü" * 31, "$$", "\\'", "%s %(roles)s {}"])
async def test_names_and_values_inject_nothing(server: PostgresServer, nasty: str) -> None:
    initialize(server)
    group = f"{server.fresh_name('g')}{nasty}"[:31]
    server.execute(f'SET ROLE pgtend_users; CREATE ROLE "{group.replace(chr(34), chr(34) * 2)}" NOLOGIN')
    app = user(
        server,
        roleName=f"{server.fresh_name('r')}{nasty}"[:31],
        memberOf=[{"role": group}],
        settings={"application_name": nasty[:20]},
    )
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        observed = await look(target, app)
        again = plan(wanted=app.wanted, observed=observed, credential=Credential())
    assert again.actions == again.differences == ()
    role = observed.roles[app.role]
    assert [m.role for m in role.memberships] == [group]
    assert role.settings == {None: {"application_name": nasty[:20]}}
