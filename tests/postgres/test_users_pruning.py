"""What others granted to a role of ours: left alone by default, taken away with `pruning: All`, as far as we may."""

from __future__ import annotations

import pytest
from tests.fixtures.postgres import PostgresServer
from tests.postgres.test_users_attributes import group_of, memberships
from tests.postgres.test_users_roles import privileges
from tests.postgres.users_ground import Shop, reached, tend, user


def handed_on(server: PostgresServer, shop: Shop, role: str, *, ours: bool) -> str:
    """A role with the right to hand on, which it has used; `ours` where the login for users may act as it."""
    giver = server.fresh_role("giver").user
    for statement in (
        f"GRANT USAGE ON SCHEMA shop TO {giver}; GRANT SELECT, UPDATE ON shop.items TO {giver} WITH GRANT OPTION",
        f"GRANT UPDATE (id) ON shop.lines TO {giver} WITH GRANT OPTION",
        f'SET ROLE {giver}; GRANT SELECT, UPDATE ON shop.items TO "{role}"',
        f'SET ROLE {giver}; GRANT UPDATE (id) ON shop.lines TO "{role}"',
    ):
        server.execute(statement, dbname=shop.name)
    if ours:
        # with the rights of that role our own GRANTs would count as its; only with SET, or NOINHERIT, do they not
        server.execute(f"GRANT {giver} TO pgtend_users" + (" WITH INHERIT FALSE" if server.major >= 16 else ""))
    return giver


@pytest.mark.covers("DatabaseUser.spec.pruning")
async def test_all_revokes_what_others_granted(server: PostgresServer) -> None:
    shop = Shop.open(server)
    app = user(server, grants=shop.trio("Select"))
    every = user(server, name=app.key.name, grants=shop.trio("Select"), pruning="All")
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        ours = handed_on(server, shop, app.role, ours=True)
        theirs = handed_on(server, shop, app.role, ours=False)
        assert (await tend(target, app, applied=True)).plans[app.key].differences == ()
        done = await tend(target, every, applied=True)
        assert not done.failed
        left = done.left[app.key]
        # the other's grant stands, and is told with the statement that ends it
        assert {d.partition(", granted by ")[2].partition(",")[0] for d in left.differences} == {theirs}
        assert privileges(server, shop, app.role)["items"] == ["SELECT", "UPDATE"]
        rows = server.execute(
            "SELECT a.grantor::regrole::text FROM pg_class, aclexplode(relacl) AS a WHERE relname = 'items'"
            " AND a.grantee = %s::regrole AND a.grantor <> relowner AND a.privilege_type = 'UPDATE'",
            [f'"{app.role}"'],
            dbname=shop.name,
        )
        assert {row[0] for row in rows} == {theirs} and ours != theirs
        for problem in left.problems:
            assert problem.reason == "MissingPrivilege"
            statement = problem.message.partition("as an administrator run ")[2].partition(" in database ")[0]
            server.execute(statement, dbname=shop.name)
        assert (await tend(target, every, applied=True)).clean()
    assert privileges(server, shop, app.role) == {"items": ["SELECT"], "lines": ["SELECT"]}


async def test_all_ends_memberships_that_others_gave(server: PostgresServer) -> None:
    Shop.open(server)
    groups = [group_of(server) for _ in range(3)]
    kept = groups[0]
    for group in groups[:2]:
        server.execute(f"GRANT {group} TO pgtend_users WITH ADMIN OPTION")
    app = user(server, memberOf=[{"role": kept}], pruning="All")
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        giver = server.fresh_role("giver", "CREATEROLE").user
        for group in groups:
            server.execute(f"GRANT {group} TO {giver} WITH ADMIN OPTION")
            server.execute(f'SET ROLE {giver}; GRANT {group} TO "{app.role}" WITH ADMIN OPTION')
        stuck = server.major >= 16  # before, CREATEROLE is enough
        done = await tend(target, app, applied=True)
        assert not done.failed
        if stuck:
            assert {p.object for p in done.left[app.key].problems} == set(groups)
            server.execute(f"GRANT {giver} TO pgtend_users")
            assert (await tend(target, app, applied=True)).clean()
        assert (await tend(target, app, applied=True)).clean()
    found = memberships(server, app.role)
    assert {(row[0], row[2]) for row in found} == {(kept, False)}


@pytest.mark.parametrize("pruning", ["OwnGrants", "All"])
async def test_who_may_make_roles_keeps_those_it_made(server: PostgresServer, pruning: str) -> None:
    """From 16 on the server makes it a member of them, in the name of the bootstrap superuser."""
    Shop.open(server)
    app = user(server, attributes=["CreateRole"], pruning=pruning)
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        made = server.fresh_name("made")
        server.execute(f'SET ROLE "{app.role}"; CREATE ROLE {made}')
        assert (await tend(target, app, applied=True)).plans[app.key].differences == ()
    assert len(memberships(server, app.role)) == (1 if server.major >= 16 else 0)
