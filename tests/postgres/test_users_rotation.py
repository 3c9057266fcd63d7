"""Passwords that are made anew on real servers: nobody is locked out, nothing false is published, and what is due is
done after a crash too."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any

import psycopg
import pytest
from tests.fixtures.plugin import Poolers, Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.passwords_ground import Ground, can_log_in, conditions, message, status
from tests.postgres.users_ground import Shop, reached

from pgtend.core.failpoints import on
from pgtend.postgres.locks import LOCK_CLASS, Lock

DAY = 86_400.0
DUAL = {"interval": "30d", "strategy": "DualRole", "grace": "1h"}


def stands(server: PostgresServer, role: str) -> tuple[Any, ...] | None:
    rows = server.execute("SELECT rolcanlogin, rolpassword IS NOT NULL FROM pg_authid WHERE rolname = %s", [role])
    return rows[0] if rows else None


@pytest.mark.covers(
    "DatabaseUser.spec.rotation.interval",
    "DatabaseUser.spec.rotateIfOlderThan",
    "DatabaseUser.reason.NotRequested",
)
async def test_in_place_the_secret_comes_first(server: PostgresServer) -> None:
    ground, shop = Ground(server), Shop.open(server)
    name, spec = ground.name(), {"grants": shop.trio(), "rotation": {"interval": "30d"}}
    async with reached(server) as target:
        case = await ground.tend(target, name, grants=shop.trio())
        assert conditions(case)["RotationCurrent"] == ("Unknown", "NotRequested")
        case = await ground.tend(target, name, before=case, **spec)
        first = ground.secret(name)
        assert message(case, "RotationCurrent") == "due 2026-12-22T02:00:00Z"
        assert status(case)["password"]["nextRotationAt"] == "2026-12-22T02:00:00Z"
        assert case.again == 30 * DAY

        ground.clock.advance(31 * DAY)
        with server.superuser_connect() as holder:
            holder.execute("SELECT pg_advisory_lock(%s, %s)", [LOCK_CLASS, Lock.SHARED.value])
            case = await ground.tend(target, name, before=case, **spec)
        assert ground.secret(name)["password"] != first["password"]
        assert conditions(case)["CredentialsReady"] == ("False", "PasswordDiffers")
        assert conditions(case)["Ready"] == ("False", "WriteFailed")
        assert status(case)["password"]["changedAt"] == "2026-11-22T02:00:00Z", "the role has the old one"
        assert can_log_in(server, name, first["password"])

        ground.restart()
        case = await ground.tend(target, name, before=case, **spec)
        assert conditions(case)["Ready"] == ("True", "InForce")
        assert status(case)["password"]["changedAt"] == "2026-12-23T02:00:00Z"
        assert case.rotated and case.corrected == ()
        assert len(ground.api.published) == 2, "the retry took what the Secret held"
        assert ground.logs_in(name, shop.name) and not can_log_in(server, name, first["password"])

        # once, by hand: older than a moment, and not again
        wish = {"grants": shop.trio(), "rotateIfOlderThan": "2026-12-23T02:30:00Z"}
        case = await ground.tend(target, name, before=case, **wish)
        assert message(case, "RotationCurrent") == "due 2026-12-23T02:30:00Z" and len(ground.api.published) == 2
        ground.clock.advance(3600)
        case = await ground.tend(target, name, before=case, **wish)
        case = await ground.tend(target, name, before=case, **wish)
        assert len(ground.api.published) == 3
        assert message(case, "RotationCurrent") == "the password is of 2026-12-23T03:00:00Z, and no other is due"
        assert ground.logs_in(name, shop.name)


SCHEDULES: list[tuple[dict[str, Any], str, str]] = [
    ({"daily": {"at": "03:00"}}, "2026-11-23T02:00:00Z", "2026-11-24T02:00:00Z"),
    ({"weekly": {"days": ["Monday"], "at": "03:00"}}, "2026-11-23T02:00:00Z", "2026-11-30T02:00:00Z"),
    ({"monthly": {"dayOfMonth": 1, "at": "03:00"}}, "2026-12-01T02:00:00Z", "2027-01-01T02:00:00Z"),
    (
        {"monthly": {"week": "Last", "days": ["Sunday"], "at": "03:30"}},
        "2026-11-29T02:30:00Z",
        "2026-12-27T02:30:00Z",
    ),
    ({"cron": "0 4 * * 3"}, "2026-11-25T03:00:00Z", "2026-12-02T03:00:00Z"),
    ({"rrule": "FREQ=DAILY;BYHOUR=5;BYMINUTE=0"}, "2026-11-22T04:00:00Z", "2026-11-23T04:00:00Z"),
]


@pytest.mark.covers(
    "DatabaseUser.spec.rotation.schedule.daily.at",
    "DatabaseUser.spec.rotation.schedule.weekly.days",
    "DatabaseUser.spec.rotation.schedule.weekly.at",
    "DatabaseUser.spec.rotation.schedule.monthly.week",
    "DatabaseUser.spec.rotation.schedule.monthly.days",
    "DatabaseUser.spec.rotation.schedule.monthly.dayOfMonth",
    "DatabaseUser.spec.rotation.schedule.monthly.at",
    "DatabaseUser.spec.rotation.schedule.cron",
    "DatabaseUser.spec.rotation.schedule.rrule",
    "DatabaseUser.spec.rotation.timeZone",
)
@pytest.mark.parametrize(("schedule", "first", "second"), SCHEDULES)
async def test_by_a_schedule_in_its_zone(postgres: Postgres, schedule: dict[str, Any], first: str, second: str) -> None:
    server = postgres(18)
    ground, name = Ground(server), Ground(server).name()
    spec = {"rotation": {"schedule": schedule, "timeZone": "Europe/Berlin"}}
    async with reached(server) as target:
        case = await ground.tend(target, name, **spec)
        assert status(case)["password"]["nextRotationAt"] == first
        start = datetime.fromisoformat(first)
        ground.clock.advance((start - ground.clock.now()).total_seconds() - 1)
        case = await ground.tend(target, name, before=case, **spec)
        assert len(ground.api.published) == 1
        ground.clock.advance(1)
        case = await ground.tend(target, name, before=case, **spec)
        assert len(ground.api.published) == 2 and ground.logs_in(name)
        assert status(case)["password"]["nextRotationAt"] == second


@pytest.mark.covers("DatabaseUser.spec.rotation.strategy", "DatabaseUser.spec.rotation.grace")
async def test_two_logins_take_turns_for_one_role(server: PostgresServer) -> None:
    ground, shop = Ground(server), Shop.open(server)
    name = ground.name()
    spec: dict[str, Any] = {
        "grants": [
            *shop.trio("Select", "Insert"),
            {"database": shop.name, "kind": "Schema", "names": ["shop"], "privileges": ["Create"]},
        ],
        "rotation": DUAL,
        "connectionLimit": 7,
        "validUntil": "2037-01-01T00:00:00Z",
        "settings": {"statement_timeout": "17s"},
        "databaseSettings": [{"database": shop.name, "settings": {"search_path": "shop"}}],
    }
    async with reached(server) as target:
        case = await ground.tend(target, name, **spec)
        assert conditions(case)["Ready"] == ("True", "InForce")
        assert status(case)["password"]["activeLogin"] == f"{name}_a"
        assert stands(server, name) == (False, False) and stands(server, f"{name}_b") is None
        first = ground.secret(name)
        with server.connect(first["username"], shop.name, password=first["password"]) as session:
            row = session.execute("SELECT session_user, current_user, current_setting('statement_timeout')").fetchone()
            assert row == (f"{name}_a", name, "17s")
            session.execute("CREATE TABLE made_by_a (id int)")

        ground.clock.advance(30 * DAY)
        case = await ground.tend(target, name, before=case, **spec)
        second = ground.secret(name)
        assert second["username"] == f"{name}_b" and second["password"] != first["password"]
        assert case.corrected == () and conditions(case)["InSync"] == ("True", "AsExpected")
        found = status(case)["password"]
        assert (found["activeLogin"], found["retiringLogin"]) == (f"{name}_b", f"{name}_a")
        assert found["changedAt"] == "2026-12-22T02:00:00Z"
        assert message(case, "RotationCurrent") == (
            f"due 2027-01-21T02:00:00Z; login {name}_a may be used until 2026-12-22T03:00:00Z"
        )
        assert can_log_in(server, first["username"], first["password"], shop.name), "the grace"
        # what belongs to a login is what its role has
        config = "SELECT rolconnlimit, rolvaliduntil::text, rolconfig FROM pg_roles WHERE rolname = %s"
        (a,), (b,) = (server.execute(config, [f"{name}_{x}"]) for x in "ab")
        assert a == b and a[0] == 7 and set(a[2]) == {f"role={name}", "statement_timeout=17s"}
        with server.connect(second["username"], shop.name, password=second["password"]) as session:
            session.execute("ALTER TABLE made_by_a ADD COLUMN more int")
            session.execute("INSERT INTO shop.items VALUES (1)")

        with server.connect(first["username"], shop.name, password=first["password"]) as old:
            ground.clock.advance(3600)
            case = await ground.tend(target, name, before=case, **spec)
            assert stands(server, f"{name}_a") == (False, False)
            assert case.corrected == () and conditions(case)["InSync"] == ("True", "AsExpected")
            assert not can_log_in(server, first["username"], first["password"], shop.name)
            old.execute("SELECT 1")
            assert status(case)["remainingSessions"] == 1
            assert status(case)["password"]["retiringLogin"] == f"{name}_a"
        case = await ground.tend(target, name, before=case, **spec)
        assert "retiringLogin" not in status(case)["password"] and "remainingSessions" not in status(case)

        # somebody lets it in again: that is drift
        server.execute(f'ALTER ROLE "{name}_a" LOGIN')
        case = await ground.tend(target, name, before=case, **spec)
        assert case.corrected[0] == f"{name}_a: login is true, not false"

        ground.clock.advance(30 * DAY)
        case = await ground.tend(target, name, before=case, **spec)
        assert ground.secret(name)["username"] == f"{name}_a" and ground.logs_in(name, shop.name)
        assert can_log_in(server, second["username"], second["password"], shop.name)
        assert {p["username"] for p in ground.api.published} == {f"{name}_a", f"{name}_b"}
        assert len(ground.api.published) == 3, "one write of the Secret for each rotation"


@pytest.mark.covers("DatabaseUser.spec.rotation.sessions")
async def test_what_outlives_the_grace_is_ended_where_that_is_wanted(server: PostgresServer) -> None:
    ground, name = Ground(server), Ground(server).name()
    spec = {"rotation": {**DUAL, "sessions": "Terminate"}}
    async with reached(server) as target:
        case = await ground.tend(target, name, **spec)
        first = ground.secret(name)
        with server.connect(first["username"], password=first["password"]) as old:
            ground.clock.advance(30 * DAY)
            case = await ground.tend(target, name, before=case, **spec)
            old.execute("SELECT 1")
            ground.clock.advance(3600)
            for _ in range(2):  # first the login, then the sessions: none may begin in between
                case = await ground.tend(target, name, before=case, **spec)
            with pytest.raises(psycopg.errors.AdminShutdown):
                old.execute("SELECT 1")
    # nobody has become a member on the way
    members = "SELECT count(*) FROM pg_auth_members WHERE roleid = %s::regrole AND member = 'pgtend_users'::regrole"
    options = " AND inherit_option" if server.major >= 16 else ""
    assert server.execute(members + options, [f'"{name}_a"']) == [(0,)]


@pytest.mark.covers("DatabaseUser.reason.RotationDue")
async def test_a_login_in_its_grace_is_waited_for(server: PostgresServer) -> None:
    ground, name = Ground(server), Ground(server).name()
    async with reached(server) as target:
        case = await ground.tend(target, name, rotation=DUAL)
        for minutes in (1, 2):
            ground.clock.advance(60)
            moment = (ground.clock.now()).strftime("%Y-%m-%dT%H:%M:%SZ")
            case = await ground.tend(target, name, before=case, rotation=DUAL, rotateIfOlderThan=moment)
            assert len(ground.api.published) == 2, minutes
        assert conditions(case)["RotationCurrent"] == ("False", "RotationDue")
        told = message(case, "RotationCurrent")
        assert told.endswith(f"it waits until 2026-11-22T03:01:00Z, when the grace of login {name}_a ends")
        assert case.again == 59 * 60
        ground.clock.advance(59 * 60)
        case = await ground.tend(target, name, before=case, rotation=DUAL, rotateIfOlderThan=moment)
        assert len(ground.api.published) == 3 and ground.logs_in(name)


async def test_a_login_in_its_grace_is_waited_for_behind_the_role_itself(server: PostgresServer) -> None:
    """The role of before and a login of before may both be used still; the next rotation takes the login."""
    ground, name = Ground(server), Ground(server).name()
    async with reached(server) as target:
        case = await ground.tend(target, name)
        case = await ground.tend(target, name, before=case, rotation=DUAL)
        first = ground.secret(name)
        assert first["username"] == f"{name}_a"
        for _ in range(2):
            ground.clock.advance(60)
            moment = ground.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            case = await ground.tend(target, name, before=case, rotation=DUAL, rotateIfOlderThan=moment)
        assert conditions(case)["RotationCurrent"] == ("False", "RotationDue")
        assert status(case)["password"]["retiringLogin"] == f"{name}_a"
        assert ground.secret(name)["username"] == f"{name}_b" and ground.logs_in(name)
        assert can_log_in(server, first["username"], first["password"]), "its grace is not over"


@pytest.mark.covers("DatabaseUser.reason.MissingPrivilege")
async def test_a_password_that_cannot_be_set_takes_the_place_of_none(server: PostgresServer) -> None:
    """The Secret has the only copy of the one that the role has."""
    ground, name = Ground(server), Ground(server).name()
    spec = {"rotation": {"interval": "30d"}}
    async with reached(server) as target:
        case = await ground.tend(target, name, **spec)
        if server.major >= 16:
            server.execute(f'REVOKE "{name}" FROM pgtend_users CASCADE')
        else:
            server.execute(f'ALTER ROLE "{name}" REPLICATION')
        ground.clock.advance(31 * DAY)
        for _ in range(2):
            case = await ground.tend(target, name, before=case, **spec)
            assert len(ground.api.published) == 1 and ground.logs_in(name)
            assert conditions(case)["CredentialsReady"][0] == "True"
            assert conditions(case)["RotationCurrent"] == ("False", "MissingPrivilege")
        told = message(case, "RotationCurrent")
        assert told.startswith(f"pgtend_users may not alter role {name}"), told
        # what helps is said there, or where before 16 an attribute is in the way
        helps = told if server.major >= 16 else message(case, "Ready")
        server.execute(helps.partition("as an administrator run ")[2])
        case = await ground.tend(target, name, before=case, **spec)
        assert len(ground.api.published) == 2 and ground.logs_in(name)
        assert conditions(case)["RotationCurrent"] == ("True", "AsExpected")


@pytest.mark.covers("DatabaseUser.reason.LoginRefused")
async def test_a_login_that_does_not_get_in_everywhere_is_not_published(postgres: Postgres, pgbouncer: Poolers) -> None:
    """A pooler with a list of its own users, which does not have the new login yet."""
    server = postgres(18)
    ground, name = Ground(server), Ground(server).name()
    listed = pgbouncer(
        server,
        settings={"auth_query": "SELECT usename, passwd FROM pg_shadow WHERE usename = $1 AND usename !~ '_b$'"},
    )
    spec = {"rotation": DUAL, "secret": {"endpoint": "Pooler"}}
    async with reached(server, pooler={"host": listed.host, "port": listed.port}) as target:
        case = await ground.tend(target, name, **spec)
        first = ground.secret(name)
        ground.clock.advance(30 * DAY)
        case = await ground.tend(target, name, before=case, **spec)
        assert conditions(case)["RotationCurrent"] == ("False", "LoginRefused")
        assert f"login {name}_b does not get in, and is not published: pooler" in message(case, "RotationCurrent")
        assert conditions(case)["Ready"] == ("True", "InForce")
        assert ground.secret(name) == first
        psycopg.connect(first["uri"]).close()
        assert stands(server, f"{name}_b") == (True, True)
        stored = server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [f"{name}_b"])
        case = await ground.tend(target, name, before=case, **spec)
        assert stored == server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [f"{name}_b"])
    async with reached(server, pooler=(p := pgbouncer(server)) and {"host": p.host, "port": p.port}) as target:
        case = await ground.tend(target, name, before=case, **spec)
        assert conditions(case)["RotationCurrent"] == ("True", "AsExpected")
        values = ground.secret(name)
        assert values["username"] == f"{name}_b" and values["port"] == str(p.port)
        psycopg.connect(values["uri"]).close()


async def test_there_and_back_between_the_strategies(server: PostgresServer) -> None:
    ground, name = Ground(server), Ground(server).name()
    async with reached(server) as target:
        case = await ground.tend(target, name)
        first = ground.secret(name)
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case, rotation=DUAL)
        second = ground.secret(name)
        assert (first["username"], second["username"]) == (name, f"{name}_a")
        assert can_log_in(server, name, first["password"]) and ground.logs_in(name)
        ground.clock.advance(3600)
        case = await ground.tend(target, name, before=case, rotation=DUAL)
        assert stands(server, name) == (False, False)
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case)
        assert ground.secret(name)["username"] == name and ground.logs_in(name)
        assert can_log_in(server, f"{name}_a", second["password"])
        ground.clock.advance(3600)
        case = await ground.tend(target, name, before=case)
        assert stands(server, f"{name}_a") == (False, False) and ground.logs_in(name)
        assert conditions(case)["Ready"] == ("True", "InForce")
        case = await ground.tend(target, name, before=case)
        assert case.others == (), "nobody asks for them any more"


async def test_a_role_of_another_is_no_login(server: PostgresServer) -> None:
    ground, name = Ground(server), Ground(server).name()
    server.execute(f'CREATE ROLE "{name}_b" LOGIN')
    async with reached(server) as target:
        case = await ground.tend(target, name, rotation=DUAL)
    assert conditions(case)["Unique"] == ("False", "RoleExists")
    assert f"role {name}_b exists and was not made by pgtend" in message(case, "Unique")
    assert stands(server, name) is None and ground.api.objects == {}


@pytest.mark.covers("DatabaseUser.reason.LoginOwnsObjects")
async def test_objects_of_a_login_are_told_with_the_way_out(server: PostgresServer) -> None:
    ground, shop, name = Ground(server), Shop.open(server), Ground(server).name()
    server.execute("GRANT CREATE ON SCHEMA shop TO PUBLIC", dbname=shop.name)
    async with reached(server) as target:
        case = await ground.tend(target, name, grants=shop.trio(), rotation=DUAL)
        values = ground.secret(name)
        with server.connect(values["username"], shop.name, password=values["password"]) as session:
            session.execute("SET ROLE NONE")
            session.execute("CREATE TABLE shop.mine ()")
        case = await ground.tend(target, name, before=case, grants=shop.trio(), rotation=DUAL)
        assert conditions(case)["RotationCurrent"] == ("False", "LoginOwnsObjects")
        told = message(case, "RotationCurrent")
        statement = told[told.index("REASSIGN") : told.index(" in each")]
        server.execute(statement, dbname=shop.name)
        case = await ground.tend(target, name, before=case, grants=shop.trio(), rotation=DUAL)
        assert conditions(case)["RotationCurrent"] == ("True", "AsExpected")


class Crash(BaseException):
    """Nobody catches it, as nobody catches kill -9."""


POINTS = [
    "users.apply.before_sql",
    "users.apply.after_sql",
    "users.rotation.before_proof",
    "users.rotation.after_proof",
    "users.apply.before_secret",
    "users.apply.after_secret",
    "status",
]


@pytest.mark.parametrize("strategy", ["InPlace", "DualRole"])
@pytest.mark.parametrize("point", POINTS)
async def test_a_crash_in_a_rotation_locks_nobody_out(postgres: Postgres, point: str, strategy: str) -> None:
    """At every failpoint on the way: what the Secret says gets in (in place: or the role still has what it said
    before), and the next process ends what was begun."""
    server = postgres(18)
    ground, name = Ground(server), Ground(server).name()
    spec = {"rotation": {**DUAL, "strategy": strategy}}
    async with reached(server) as target:
        before = await ground.tend(target, name, **spec)
        first = ground.secret(name)
        ground.clock.advance(31 * DAY)
        hit = []

        def crash() -> None:
            hit.append(point)
            raise Crash

        off = on(point, crash) if point != "status" else lambda: None
        with contextlib.suppress(Crash):
            await ground.tend(target, name, before=before, **spec)  # and its status is never written
        off()
        assert hit or point == "status" or (strategy == "InPlace" and "rotation" in point)
        values = ground.secret(name)
        gets_in = can_log_in(server, values["username"], values["password"])
        if strategy == "DualRole":
            assert gets_in and can_log_in(server, first["username"], first["password"])
        else:
            assert gets_in or can_log_in(server, first["username"], first["password"])
    ground.restart()
    async with reached(server) as target:
        case = before
        for _ in range(3):
            case = await ground.tend(target, name, before=case, **spec)
        assert conditions(case)["Ready"] == ("True", "InForce")
        assert conditions(case)["RotationCurrent"] == ("True", "AsExpected")
        assert ground.logs_in(name)
        assert len(ground.api.published) == 2, "rotated once, whatever happened"
        assert status(case)["password"]["changedAt"] == "2026-12-23T02:00:00Z"
        if strategy == "DualRole":
            assert ground.secret(name)["username"] == f"{name}_b"
            assert can_log_in(server, first["username"], first["password"]), "its grace is not over"
