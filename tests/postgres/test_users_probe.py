"""Logins with what a Secret says: through how many places they get in, and a password that somebody changed."""

from __future__ import annotations

import pytest
from tests.fixtures.counters import SqlCounter
from tests.fixtures.plugin import Poolers, Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.passwords_ground import Ground, conditions, message
from tests.postgres.users_ground import reached

from pgtend.users.case import Case
from pgtend.users.plan import DIFFERS
from pgtend.users.probe import IN_A_PASS


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
