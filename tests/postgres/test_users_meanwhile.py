"""What somebody does to a role between the look and the statement: what is not ours any more is left alone."""

from __future__ import annotations

import pytest
from psycopg import sql
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import INSTALLATION, Shop, User, look, reached, tend, user

from pgtend.api.reasons import UserReason as R
from pgtend.core.names import role_mark
from pgtend.server.server import Server
from pgtend.users.apply import Applied, apply
from pgtend.users.plan import Credential, Plan, plan
from pgtend.users.state import Observed


def planned(one: User, observed: Observed) -> Plan:
    return plan(wanted=one.wanted, observed=observed, credential=Credential(ready=True, applied=True))


async def done(target: Server, *users: User, by: Observed) -> Applied:
    return await apply(target, {one.key: planned(one, by).actions for one in users}, {})


def comment(server: PostgresServer, role: str, text: str | None) -> None:
    query = sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(role), sql.Literal(text))
    with server.superuser_connect() as admin:
        admin.execute(query)


@pytest.mark.parametrize("how", ["dropped", "made anew", "taken over"])
async def test_a_role_that_is_another_by_now_is_left_alone(server: PostgresServer, how: str) -> None:
    shop = Shop.open(server)
    one, beside = (user(server, grants=shop.trio()[1:]) for _ in range(2))
    async with reached(server) as target:
        assert (await tend(target, one, beside)).clean()
        for drifted in (one, beside):
            server.execute(f'ALTER ROLE "{drifted.role}" CONNECTION LIMIT 7')
            server.execute(f'REVOKE ALL ON shop.items FROM "{drifted.role}"', dbname=shop.name)
        observed = await look(target, one, beside)
        if how == "taken over":
            comment(server, one.role, role_mark(installation="another", namespace="shop", name="x"))
        else:
            server.execute(f'DROP OWNED BY "{one.role}"', dbname=shop.name)
            server.execute(f'DROP ROLE "{one.role}"')
        if how == "made anew":
            server.execute(f'CREATE ROLE "{one.role}" CONNECTION LIMIT 7')
        answer = await done(target, one, beside, by=observed)
        assert answer.roles == {beside.key}
        problem = answer.failed[one.key]
        assert (problem.reason, problem.object, problem.transient) == (R.WRITE_FAILED, one.role, True)
        assert "is not what it was when it was looked at, and is left alone" in problem.message
        left = server.execute("SELECT rolconnlimit FROM pg_roles WHERE rolname = %s", [one.role])
        assert left == ([] if how == "dropped" else [(7,)])
        if how != "dropped":
            may = "SELECT has_table_privilege(%s, 'shop.items', 'SELECT')"
            assert server.execute(may, [one.role], dbname=shop.name) == [(False,)]
        observed = await look(target, beside)
        assert not planned(beside, observed).actions, "who is tended beside it is not held up"


async def test_what_is_local_to_a_database_is_asked_again_too(server: PostgresServer) -> None:
    shop = Shop.open(server)
    one = user(server, grants=shop.trio())
    async with reached(server) as target:
        assert (await tend(target, one)).clean()
        server.execute(f'REVOKE ALL ON shop.items FROM "{one.role}"', dbname=shop.name)
        observed = await look(target, one)
        comment(server, one.role, None)
        assert (await done(target, one, by=observed)).failed
    may = "SELECT has_table_privilege(%s, 'shop.items', 'SELECT')"
    assert server.execute(may, [one.role], dbname=shop.name) == [(False,)]


@pytest.mark.parametrize("before", [None, "of the shop"])
async def test_of_two_that_adopt_a_role_at_once_one_does(server: PostgresServer, before: str | None) -> None:
    role = server.fresh_role("old").user
    comment(server, role, before)
    if server.major >= 16:
        server.execute(f'GRANT "{role}" TO pgtend_users WITH ADMIN TRUE, INHERIT FALSE, SET FALSE')
    one = user(server, roleName=role, adoption="IfUnowned")
    theirs = role_mark(installation="another", namespace="shop", name="x")
    async with reached(server) as target:
        observed = await look(target, one)
        assert next(action.verb for action in planned(one, observed).actions) == "adopt role"
        comment(server, role, theirs)
        assert one.key in (await done(target, one, by=observed)).failed
        stands = "SELECT shobj_description(%s::regrole, 'pg_authid')"
        assert server.execute(stands, [f'"{role}"']) == [(theirs,)]
        comment(server, role, before)
        assert not (await done(target, one, by=observed)).failed
        mine = role_mark(installation=INSTALLATION, namespace="shop", name=one.key.name)
        assert server.execute(stands, [f'"{role}"']) == [(f"{before} {mine}" if before else mine,)]
