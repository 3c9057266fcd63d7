"""Logins with what a Secret says: through how many places they get in, and a password that somebody changed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.fixtures.counters import SqlCounter
from tests.fixtures.plugin import Poolers, Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.passwords_ground import Ground, conditions, message, status
from tests.postgres.users_ground import reached

from pgtend.users import probe
from pgtend.users.case import Case
from pgtend.users.plan import DIFFERS
from pgtend.users.probe import IN_A_PASS

AGAIN = 2
"""A login with the salt that was known, and one with the salt that the server has now: the password may be the same."""


def alter(server: PostgresServer, statement: str) -> None:
    """By hand, and told at once, where a server tells that a role was altered."""
    with server.superuser_connect() as admin:
        admin.execute(statement)
        if server.major >= 15:
            admin.execute("SELECT pg_stat_force_next_flush()")


def failures(seen: SqlCounter) -> list[str]:
    return [line.text for line in seen.lines() if "password authentication failed" in line.text]


async def test_a_password_that_was_changed_is_seen_and_set_again(server: PostgresServer) -> None:
    ground, name = Ground(server), Ground(server).name()
    async with reached(server) as target:
        seen = SqlCounter(server, user=name)
        case = await ground.tend(target, name)
        for _ in range(3):
            case = await ground.tend(target, name, before=case)
        assert seen.connections() == 1, "tried once, and not at each look"
        assert message(case, "CredentialsReady") == f"Secret {name} logs in through 1 of 1 members"

        server.execute(f"ALTER ROLE \"{name}\" PASSWORD 'another'")
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case)
        assert case.corrected == (DIFFERS,) and ground.logs_in(name)
        assert conditions(case)["CredentialsReady"] == ("True", "AsExpected")
        assert len(ground.api.published) == 1, "the password of the Secret is the one that holds"


async def test_a_turn_of_the_wheel_finds_it_and_none_logs_in_for_nothing(server: PostgresServer) -> None:
    """From 15 on a server tells that some role was altered: then each login is tried once. Before, in every turn."""
    ground, name, other = Ground(server), Ground(server).name(), server.fresh_role("other").user
    tells = server.major >= 15
    async with reached(server) as target:
        case = await ground.tend(target, name)
        seen = SqlCounter(server, user=name)
        for turns in range(1, 4):
            case = await ground.turn(target, case)
            assert seen.connections() == (0 if tells else turns)
        seen.mark()
        alter(server, f'ALTER ROLE "{other}" CONNECTION LIMIT 7')
        for turns in range(1, 4):
            case = await ground.turn(target, case)
            assert seen.connections() == (1 if tells else turns)
        assert len(ground.api.published) == 1 and case.corrected == ()

        alter(server, f"ALTER ROLE \"{name}\" PASSWORD 'another'")
        case = await ground.turn(target, case)
        assert case.corrected == (DIFFERS,) and ground.logs_in(name)
        assert conditions(case)["CredentialsReady"] == ("True", "AsExpected")


async def test_a_server_that_does_not_count_is_asked_in_each_turn(postgres: Postgres) -> None:
    server = postgres(18, fresh=True)
    server.configure(track_counts="off")
    ground, name = Ground(server), Ground(server).name()
    async with reached(server) as target:
        case = await ground.turn(target, await ground.tend(target, name))
        server.execute(f"ALTER ROLE \"{name}\" PASSWORD 'another'")
        case = await ground.turn(target, case)
        assert case.corrected == (DIFFERS,) and ground.logs_in(name)


async def test_a_crash_of_the_server_is_no_proof(postgres: Postgres) -> None:
    """What a server counts is lost with it, and may come to the same figures again."""
    server = postgres(18, fresh=True)
    ground, name = Ground(server), Ground(server).name()
    async with reached(server) as target:
        case = await ground.turn(target, await ground.tend(target, name))
    server.execute("CHECKPOINT")
    server.kill9()
    server.start()
    seen = SqlCounter(server, user=name)
    async with reached(server) as target:
        await ground.turn(target, case)
    assert seen.connections() == 1


async def test_a_password_that_is_refused_is_not_tried_again_by_itself(postgres: Postgres) -> None:
    """Some servers lock out who fails too often. Here the server's clock is ahead: it refuses whatever is set."""
    server = postgres(18)
    ground, name, other = Ground(server), Ground(server).name(), server.fresh_role("other").user
    until: Any = {"validUntil": "2026-11-22T04:00:00Z"}
    async with reached(server) as target:
        seen = SqlCounter(server, user=name)
        case = await ground.tend(target, name, **until)
        assert len(failures(seen)) == 1
        for turn in range(4):
            assert conditions(case)["Ready"] == ("False", "LoginRefused")
            assert conditions(case)["CredentialsReady"] == ("False", "LoginRefused")
            told = message(case, "CredentialsReady")
            assert "though that had been set; it is not tried again until this object" in told
            alter(server, f'ALTER ROLE "{other}" CONNECTION LIMIT {turn}')
            case = await ground.turn(target, case)
        assert len(failures(seen)) == 1 and case.corrected == ()
        case = await ground.tend(target, name, before=case, **until)
        assert len(failures(seen)) == 3, "touched: tried, set again, tried"
        case = await ground.turn(target, case)
        assert len(failures(seen)) == 3


async def test_a_password_that_cannot_be_set_is_not_tried_either(postgres: Postgres) -> None:
    server = postgres(18)
    ground, name = Ground(server), Ground(server).name()
    async with reached(server) as target:
        case = await ground.tend(target, name)
        server.execute(f"ALTER ROLE \"{name}\" PASSWORD 'another'")
        server.execute(f'REVOKE ADMIN OPTION FOR "{name}" FROM pgtend_users CASCADE')
        seen = SqlCounter(server, user=name)
        for _ in range(3):
            case = await ground.turn(target, case)
            assert conditions(case)["CredentialsReady"] == ("False", "PasswordDiffers")
            assert conditions(case)["Ready"] == ("False", "MissingPrivilege")
        assert len(failures(seen)) == AGAIN
        server.execute(f'GRANT "{name}" TO pgtend_users WITH ADMIN OPTION, INHERIT FALSE, SET FALSE')
        case = await ground.turn(target, case)
        assert case.corrected == (DIFFERS,) and ground.logs_in(name)


async def test_a_standby_that_refuses_is_asked_ever_more_rarely(postgres: Postgres) -> None:
    server = postgres(18, fresh=True)
    standby = server.make_standby()
    members = [{"name": "a", "host": server.host, "port": server.port}]
    members += [{"name": "b", "host": standby.host, "port": standby.port}]
    ground, name = Ground(server), Ground(server).name()
    server.wait_replayed(standby)
    standby.execute("SELECT pg_wal_replay_pause()")
    async with reached(server, members=members) as target:
        seen = SqlCounter(standby, user=name)
        case = await ground.tend(target, name)
        assert conditions(case)["CredentialsReady"] == ("False", "LoginRefused")
        assert 2 <= len(failures(seen)) <= 6, "with growing pauses, while a standby may lag"
        seen.mark()
        for _ in range(12):
            case = await ground.turn(target, case)
        assert 2 <= len(failures(seen)) <= 5
        standby.execute("SELECT pg_wal_replay_resume()")
        server.wait_replayed(standby)
        ground.clock.advance(3600)
        case = await ground.turn(target, case)
        assert message(case, "CredentialsReady") == f"Secret {name} logs in through 2 of 2 members"


@pytest.mark.covers("DatabaseUser.reason.NotProved")
async def test_what_nobody_could_try_for_an_interval_is_unknown(postgres: Postgres) -> None:
    server = postgres(18)
    ground, name, other = Ground(server), Ground(server).name(), server.fresh_role("other").user
    async with reached(server) as target:
        case = await ground.turn(target, await ground.tend(target, name, connectionLimit=1))
        told = message(case, "CredentialsReady")
        values = ground.secret(name)
        with server.connect(name, "postgres", password=values["password"]):
            alter(server, f'ALTER ROLE "{other}" CONNECTION LIMIT 7')
            case = await ground.turn(target, case)
            assert conditions(case)["CredentialsReady"] == ("True", "AsExpected"), "what it said holds for an interval"
            case = await ground.turn(target, case)
            assert conditions(case)["CredentialsReady"] == ("Unknown", "NotProved")
            assert conditions(case)["Ready"] == ("True", "InForce")
            form = (
                f"whether {name} has the password of Secret {name} is not known, proved at 2026-11-22T02:00:00Z the"
                " last time; no login is answered since 2026-11-22T02:10:00Z: a [(].*too many connections for role .*:"
                " Raise the CONNECTION LIMIT of this role or database, or end sessions[.]"
            )
            assert re.fullmatch(form, message(case, "CredentialsReady"))
        case = await ground.turn(target, case)
        assert conditions(case)["CredentialsReady"] == ("True", "AsExpected")
        assert message(case, "CredentialsReady") == told


async def test_whom_the_time_does_not_reach_has_another_turn(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = postgres(18)
    ground, name, other = Ground(server), Ground(server).name(), server.fresh_role("other").user
    async with reached(server) as target:
        case = await ground.tend(target, name)
        alter(server, f'ALTER ROLE "{other}" CONNECTION LIMIT 7')
        monkeypatch.setattr(probe, "PROBING_SECONDS", 0.0)
        case = await ground.turn(target, case)
        assert case.left and conditions(case)["CredentialsReady"] == ("True", "AsExpected")
        case = await ground.turn(target, case)
        assert case.left and conditions(case)["CredentialsReady"] == ("Unknown", "NotProved")
        assert message(case, "CredentialsReady").endswith("logins take too long, others came before")
        assert message(case, "InSync") == "no difference; of the password see CredentialsReady"
        monkeypatch.undo()
        case = await ground.turn(target, case)
        assert not case.left and conditions(case)["CredentialsReady"] == ("True", "AsExpected")


async def test_who_observes_sees_it_too_and_tries_once(postgres: Postgres) -> None:
    server = postgres(18)
    ground, name = Ground(server), Ground(server).name()
    async with reached(server) as target:
        case = await ground.tend(target, name)
    alter(server, f"ALTER ROLE \"{name}\" PASSWORD 'another'")
    stored = server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name])
    async with reached(server, mode="Observe") as target:
        seen = SqlCounter(server, user=name)
        for _ in range(3):
            case = ground.again(case)
            ground.clock.advance(300)
            case.steady, case.observing = True, "target databases/orders"
            await ground.tender.tend(target, [case])
            assert conditions(case)["Ready"] == ("True", "Observing")
            assert conditions(case)["InSync"] == ("False", "Drifted")
            assert conditions(case)["CredentialsReady"] == ("False", "PasswordDiffers")
            assert status(case)["drift"] == {"total": 1, "differences": [DIFFERS]}
        assert len(failures(seen)) == AGAIN
    assert stored == server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name])
    assert len(ground.api.published) == 1


async def test_who_observes_is_told_the_first_twenty_of_what_differs(server: PostgresServer) -> None:
    ground = Ground(server)
    name, groups = ground.name(), [server.fresh_name("group") for _ in range(25)]
    for group in groups:
        server.execute(f"CREATE ROLE {group}; GRANT {group} TO pgtend_users WITH ADMIN OPTION")
    spec: Any = {"memberOf": [{"role": group} for group in groups]}
    async with reached(server) as target:
        case = await ground.tend(target, name, **spec)
    for group in groups:
        server.execute(f'REVOKE {group} FROM "{name}" CASCADE')
        server.execute(f'SET ROLE pgtend_users; REVOKE {group} FROM "{name}" CASCADE')
    async with reached(server, mode="Observe") as target:
        case = ground.again(case)
        case.observing = "target databases/orders"
        await ground.tender.tend(target, [case])
    drift = status(case)["drift"]
    assert drift == {"total": 25, "differences": [f"membership in {group} is missing" for group in sorted(groups)[:20]]}
    assert conditions(case)["InSync"] == ("False", "Drifted")
    assert message(case, "InSync").startswith("25 differences: ") and message(case, "InSync").endswith("and 22 more")
    assert not server.execute("SELECT 1 FROM pg_auth_members WHERE member = %s::regrole", [f'"{name}"'])


@pytest.mark.covers("DatabaseUser.reason.PasswordDiffers")
async def test_who_sets_it_again_and_again_is_told(postgres: Postgres) -> None:
    server = postgres(18)
    ground, name = Ground(server), Ground(server).name()
    async with reached(server) as target:
        case = await ground.tend(target, name)
        for _ in range(2):
            server.execute(f"ALTER ROLE \"{name}\" PASSWORD 'another'")
            ground.clock.advance(60)
            case = await ground.tend(target, name, before=case)
        assert conditions(case)["CredentialsReady"] == ("False", "LoginRefused")
        assert conditions(case)["Ready"] == ("False", "LoginRefused")
        assert "was refused with the password of Secret" in message(case, "CredentialsReady")
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case)
        assert conditions(case)["Ready"] == ("True", "InForce") and ground.logs_in(name)


async def test_not_to_get_in_from_here_proves_nothing(postgres: Postgres) -> None:
    """Neither a pg_hba.conf that admits programs from elsewhere, nor a connection limit, nor a time that is over."""
    server = postgres(18, fresh=True)
    ground, name = Ground(server), Ground(server).name()
    server.add_hba(f"hostssl all {name} all reject")
    async with reached(server) as target:
        case = await ground.tend(target, name)
        before = server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name])
        seen = SqlCounter(server, user=name)
        case = await ground.tend(target, name, before=case, connectionLimit=0)
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case, connectionLimit=0)
        assert conditions(case)["Ready"] == ("True", "InForce") and case.corrected == ()
        assert before == server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [name])
        assert any("pg_hba.conf" in line.text for line in seen.lines())
        assert conditions(case)["CredentialsReady"] == ("Unknown", "LoginRefused")
        assert f"Secret {name} logs in through 0 of 1 members as {name}: a (" in message(case, "CredentialsReady")


async def test_a_few_in_a_pass_and_each_in_its_turn(postgres: Postgres) -> None:
    server = postgres(18)
    ground = Ground(server)
    names = [ground.name() for _ in range(IN_A_PASS * 2)]
    async with reached(server) as target:
        cases = [ground.case(name) for name in names]
        seen = SqlCounter(server)
        await ground.tender.tend(target, cases)
        told = [message(case, "CredentialsReady") for case in cases]
        assert sum("logs in through 1 of 1 members" in text for text in told) == IN_A_PASS
        assert sum("holds the password set at" in text for text in told) == IN_A_PASS
        for share in (2, 2):
            cases = [ground.again(case) for case in cases]
            await ground.tender.tend(target, cases)
            tried = [line.user for line in seen.lines() if line.text.startswith("connection authorized")]
            assert len({user for user in tried if user in names}) == IN_A_PASS * share
            assert [message(case, "CredentialsReady") for case in cases] == told, "that it was tried is worth no write"
        ground.restart()
        cases = [ground.again(case) for case in cases]
        await ground.tender.tend(target, cases)
        assert [message(case, "CredentialsReady") for case in cases] == told, "nor that a process began"
        seen.mark()
        ground.restart()
        cases = [ground.again(case) for case in cases]
        for case in cases:
            case.steady = True
        await ground.tender.tend(target, cases)
        tried = [line.user for line in seen.lines() if line.text.startswith("connection authorized")]
        assert sorted(user for user in tried if user in names) == sorted(names), "each once, by the wheel"
        assert not any(case.left for case in cases)


@pytest.mark.covers("DatabaseUser.reason.LoginRefused")
async def test_in_how_many_members_it_logs_in_is_told(postgres: Postgres) -> None:
    server = postgres(18, fresh=True)
    standby = server.make_standby()
    members = [{"name": "a", "host": server.host, "port": server.port}]
    members += [{"name": "b", "host": standby.host, "port": standby.port}]
    ground, name = Ground(server), Ground(server).name()
    database = server.fresh_database("closed")
    server.execute(f'REVOKE CONNECT ON DATABASE "{database}" FROM PUBLIC')
    server.wait_replayed(standby)

    def told(case: Case) -> str:
        return message(case, "CredentialsReady")

    async with reached(server, members=members) as target:
        case = await ground.tend(target, name)
        assert told(case) == f"Secret {name} logs in through 2 of 2 members"
        standby.stop()
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case)
        assert conditions(case)["CredentialsReady"] == ("True", "AsExpected")
        assert told(case) == f"Secret {name} logs in through 1 of 2 members; b was not reached"
        standby.start()
        server.wait_replayed(standby)
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case)
        assert told(case) == f"Secret {name} logs in through 2 of 2 members"
        # the role has its password, and the Secret leads where it is not let in
        case = await ground.tend(target, name, before=case, secret={"database": database})
        assert conditions(case)["CredentialsReady"] == ("False", "LoginRefused")
        assert conditions(case)["Ready"] == ("True", "InForce"), "role, password and grants equal the spec"
        assert told(case).startswith(f"Secret {name} logs in through 0 of 2 members as {name}: a (")
        server.execute(f'GRANT CONNECT ON DATABASE "{database}" TO PUBLIC')
        server.wait_replayed(standby)
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case, secret={"database": database})
        assert told(case) == f"Secret {name} logs in through 2 of 2 members"


async def test_a_secret_for_the_pooler_is_tried_there(postgres: Postgres, pgbouncer: Poolers) -> None:
    """A pooler that has a list of its own may refuse what the server has; and it is the server that says whether the
    password was changed."""
    server = postgres(18)
    ground, name = Ground(server), Ground(server).name()
    looked_up = "SELECT usename, passwd FROM pg_shadow WHERE usename = $1"
    barred = pgbouncer(server, settings={"auth_query": f"{looked_up} AND usename <> '{name}'"})
    let_in = pgbouncer(server)
    spec = {"secret": {"endpoint": "Pooler"}}
    async with reached(server, pooler={"host": barred.host, "port": barred.port}) as target:
        case = await ground.tend(target, name, **spec)
        assert conditions(case)["CredentialsReady"] == ("False", "LoginRefused")
        assert f"Secret {name} does not log in through the pooler as {name}: " in message(case, "CredentialsReady")
    async with reached(server, pooler={"host": let_in.host, "port": let_in.port}) as target:
        case = await ground.tend(target, name, before=case, **spec)
        assert message(case, "CredentialsReady") == f"Secret {name} logs in through the pooler"
        server.execute(f"ALTER ROLE \"{name}\" PASSWORD 'another'")
        ground.clock.advance(60)
        case = await ground.tend(target, name, before=case, **spec)
        assert case.corrected == (DIFFERS,) and ground.logs_in(name)


async def test_a_standby_that_is_away_holds_up_no_rotation(postgres: Postgres) -> None:
    """Through the primary and each standby that answers; one that refuses is another matter than one that is away."""
    server = postgres(18, fresh=True)
    standby = server.make_standby()
    members = [{"name": "a", "host": server.host, "port": server.port}]
    members += [{"name": "b", "host": standby.host, "port": standby.port}]
    ground, name = Ground(server), Ground(server).name()
    spec = {"rotation": {"interval": "30d", "strategy": "DualRole"}}
    async with reached(server, members=members) as target:
        case = await ground.tend(target, name, **spec)
        ground.clock.advance(31 * 86_400)
        case = await ground.tend(target, name, before=case, **spec)
        assert conditions(case)["RotationCurrent"] == ("True", "AsExpected")
        assert standby.connect(f"{name}_b", password=ground.secret(name)["password"]).close() is None

        ground.clock.advance(31 * 86_400)
        standby.add_hba(f"hostssl all {name}_a all reject")
        refused = await ground.tend(target, name, before=case, **spec)
        assert conditions(refused)["RotationCurrent"] == ("False", "LoginRefused")
        assert f"not published: b ({standby.host}:{standby.port})" in message(refused, "RotationCurrent")
        assert ground.secret(name)["username"] == f"{name}_b"
        standby.stop()
        case = await ground.tend(target, name, before=refused, **spec)
        assert conditions(case)["RotationCurrent"] == ("True", "AsExpected")
        assert ground.secret(name)["username"] == f"{name}_a"
