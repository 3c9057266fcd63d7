"""A password that somebody changed on the server, seen by a login where pg_authid may not be read."""

from __future__ import annotations

import pytest
from tests.fixtures.counters import SqlCounter
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.passwords_ground import Ground, conditions, message
from tests.postgres.users_ground import reached

from pgtend.users.plan import DIFFERS
from pgtend.users.probe import IN_A_PASS


async def test_a_password_that_was_changed_is_seen_and_set_again(server: PostgresServer) -> None:
    ground, name = Ground(server), Ground(server).name()
    async with reached(server) as target:
        case = await ground.tend(target, name)
        seen = SqlCounter(server, user=name)
        for _ in range(3):
            case = await ground.tend(target, name, before=case)
        assert seen.connections() == 1, "tried once, and not at each look"
        assert "tried by a login now and then" in message(case, "CredentialsReady")

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


async def test_a_few_in_a_pass_and_each_in_its_turn(postgres: Postgres) -> None:
    server = postgres(18)
    ground = Ground(server)
    names = [ground.name() for _ in range(IN_A_PASS * 2)]
    async with reached(server) as target:
        cases = [ground.case(name) for name in names]
        await ground.tender.tend(target, cases)
        seen = SqlCounter(server)
        for share in (1, 2, 2):
            cases = [ground.again(case) for case in cases]
            await ground.tender.tend(target, cases)
            tried = [line.user for line in seen.lines() if line.text.startswith("connection authorized")]
            assert len({user for user in tried if user in names}) == IN_A_PASS * share


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
