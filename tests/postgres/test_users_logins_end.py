"""What becomes of two logins with their role: when the target admits them no more, and when the object goes."""

from __future__ import annotations

from typing import Any, cast

import pytest
from tests.fixtures.postgres import PostgresServer
from tests.postgres.passwords_ground import Ground, can_log_in, conditions, status
from tests.postgres.test_users_drop import Ending, make
from tests.postgres.test_users_withdrawal import WITHDRAWN, Said
from tests.postgres.users_ground import INSTALLATION, Shop, reached, user

from pgtend.kube.events import EventRecorder
from pgtend.users.door import Target
from pgtend.users.drop import How
from pgtend.users.pace import Pace
from pgtend.users.withdrawal import Withdrawer

DUAL = {"interval": "30d", "strategy": "DualRole", "grace": "1h"}


def roles(server: PostgresServer, name: str) -> dict[str, bool]:
    """Which of the three there are, by what their names end with, and whether each may log in."""
    names = [name, f"{name}_a", f"{name}_b"]
    rows = server.execute("SELECT rolname, rolcanlogin FROM pg_roles WHERE rolname = ANY(%s)", [names])
    return {role.removeprefix(name): login for role, login in rows}


@pytest.mark.parametrize("how", ["within the grace", "switched off by hand", "after the grace", "withdrawn twice"])
async def test_consent_that_is_given_again_gives_back_what_was_taken(server: PostgresServer, how: str) -> None:
    """The login that holds, and the one before where it was still let in; one that somebody else had switched off, or
    whose grace has ended meanwhile, is no part of it."""
    ground, name = Ground(server), Ground(server).name()
    async with reached(server, onWithdrawal="Disable", withdrawalGrace="0s") as target:
        case = await ground.tend(target, name, rotation=DUAL)
        first = ground.secret(name)
        ground.clock.advance(31 * 86_400)
        case = await ground.tend(target, name, before=case, rotation=DUAL)
        assert roles(server, name) == {"": False, "_a": True, "_b": True}
        if how == "switched off by hand":
            server.execute(f'ALTER ROLE "{name}_a" NOLOGIN')
        withdrawer = Withdrawer(
            looker=ground.tender.looker,
            events=cast(EventRecorder, Said()),
            installation=INSTALLATION,
            clock=ground.clock,
            pace=Pace(ground.clock),
        )
        there = Target(key=target.key, spec=target.spec, server=target)
        record = ground.again(case).record
        for _ in range(2):  # a second look takes nothing, and forgets nothing
            (settled,) = await withdrawer.settle(there, [(record, WITHDRAWN)])
            assert settled.problem is None and roles(server, name) == {"": False, "_a": False, "_b": False}
            wire = settled.judged.status.to_wire()
            record = ground.case(name, status=wire, rotation=DUAL).record
        taken = ["_b"] if how == "switched off by hand" else ["_a", "_b"]
        assert wire["password"]["withdrawnLogins"] == [f"{name}{login}" for login in taken]
        if how == "after the grace":
            ground.clock.advance(3600)
        back = ground.case(name, status=wire, rotation=DUAL)
        await ground.tender.tend(target, [back])
        assert conditions(back)["Ready"] == ("True", "InForce")
        assert conditions(back)["InSync"] == ("True", "AsExpected")
        assert "withdrawnLogins" not in status(back)["password"] and ground.logs_in(name)
        lets_in = how in ("within the grace", "withdrawn twice")
        assert roles(server, name) == {"": False, "_a": lets_in, "_b": True}
        assert can_log_in(server, first["username"], first["password"]) == lets_in
        if how == "after the grace":
            stored = server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [f"{name}_a"])
            assert stored == [(None,)], "with the login its password ends"
        if how == "withdrawn twice":
            (settled,) = await withdrawer.settle(there, [(ground.again(back).record, WITHDRAWN)])
            assert settled.problem is None and roles(server, name) == {"": False, "_a": False, "_b": False}
            back = ground.case(name, status=settled.judged.status.to_wire(), rotation=DUAL)
            await ground.tender.tend(target, [back])
            assert roles(server, name) == {"": False, "_a": True, "_b": True}
        # what somebody switches off afterwards is his again
        server.execute(f'ALTER ROLE "{name}_a" NOLOGIN')
        back = await ground.tend(target, name, before=back, rotation=DUAL)
        assert roles(server, name) == {"": False, "_a": False, "_b": True}


async def test_logins_go_with_their_role_or_stay_with_it(server: PostgresServer) -> None:
    ground, shop, name = Ground(server), Shop.open(server), Ground(server).name()
    asked: dict[str, Any] = {"grants": shop.trio("Select"), "rotation": DUAL}
    server.execute("GRANT CREATE ON SCHEMA shop TO PUBLIC", dbname=shop.name)
    async with reached(server) as target:
        case = await ground.tend(target, name, **asked)
        ground.clock.advance(31 * 86_400)
        case = await ground.tend(target, name, before=case, **asked)
        make(server, shop.name, name, "CREATE TABLE shop.mine ()")
        ending = Ending(target)
        problem = await ending.drop(user(server, name=name))
        assert problem is not None and problem.reason == "DropBlocked" and problem.object == name
        assert roles(server, name) == {"": False, "_a": True, "_b": True}, "what blocks the role spares its logins"
        values = ground.secret(name)
        with server.connect(values["username"], shop.name, password=values["password"]):
            problem = await ending.drop(user(server, name=name, drop={"reassignOwnedTo": shop.owner}))
            assert problem is not None and problem.reason == "SessionsRemain"
            assert roles(server, name) == {"": False, "_a": True, "_b": True}
        key = case.key
        off = await ending.finisher.undo(target, key, name, "Disable", How())
        assert off is None and roles(server, name) == {"": False, "_a": False, "_b": False}
        assert await ending.drop(user(server, name=name, drop={"reassignOwnedTo": shop.owner})) is None
    assert roles(server, name) == {}
    assert server.execute("SELECT tableowner FROM pg_tables WHERE tablename = 'mine'", dbname=shop.name) == [
        (shop.owner,)
    ]
