"""Roles that exist already: taken over by consent of object and target, and never what is powerful."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fixtures.postgres import PostgresServer
from tests.postgres.test_users_tend import Ground, again, conditions
from tests.postgres.users_ground import INSTALLATION, Shop, reached

from pgtend.users.admission import Admitted, Adoption
from pgtend.users.case import Case

ADMIN = "WITH ADMIN OPTION"


def case(ground: Ground, role: str, *, admitted: Adoption = "Always", **spec: Any) -> Case:
    made = ground.case(ground.name(), roleName=role, **spec)
    made.admitted, made.lives = Admitted(by="the test", adoption=admitted), lambda name: False
    return made


def existing(server: PostgresServer, shop: Shop, *, comment: str | None = None, attributes: str = "") -> str:
    """A role of somebody's with a login, a comment, an attribute beyond any spec and a privilege."""
    role = server.fresh_role("theirs", f"CREATEDB CONNECTION LIMIT 7 {attributes}").user
    server.execute(f"GRANT {role} TO pgtend_users {ADMIN}")
    server.execute("ALTER ROLE pgtend_users CREATEDB")
    server.execute(f"SET ROLE {shop.owner}; GRANT USAGE ON SCHEMA shop TO {role}; RESET ROLE", dbname=shop.name)
    if comment is not None:
        server.execute(f"COMMENT ON ROLE {role} IS '{comment}'")
    return role


def told(server: PostgresServer, role: str) -> tuple[Any, ...]:
    return server.execute(
        "SELECT rolcreatedb, rolconnlimit, rolpassword, shobj_description(oid, 'pg_authid') FROM pg_authid"
        " WHERE rolname = %s",
        [role],
    )[0]


@pytest.mark.covers("DatabaseUser.spec.adoption", "PostgresTarget.spec.access.users.adoption")
@pytest.mark.parametrize(
    ("comment", "asks", "admitted", "adopted"),
    [
        (None, "Never", "Always", False),
        (None, "Always", "Never", False),
        ("of the warehouse", "IfUnowned", "IfUnowned", True),
        ("kept [pgtend:1:elsewhere:shop/app]", "IfUnowned", "Always", False),
        ("kept [pgtend:1:elsewhere:shop/app]", "Always", "Always", True),
        (f"kept [pgtend:1:{INSTALLATION}:shop/gone]", "Always", "Always", True),
    ],
)
async def test_a_role_that_exists_is_adopted_where_both_say_so(
    server: PostgresServer, comment: str | None, asks: Adoption, admitted: Adoption, adopted: bool
) -> None:
    ground, shop = Ground(server), Shop.open(server)
    role = existing(server, shop, comment=comment)
    before = told(server, role)
    async with reached(server) as target:
        observing = case(ground, role, adoption=asks, admitted=admitted, grants=shop.trio())
        observing.observing = "this object"
        await ground.tender.tend(target, [observing])
        assert told(server, role) == before
        tended = case(ground, role, adoption=asks, admitted=admitted, grants=shop.trio())
        await ground.tender.tend(target, [tended])
        if not adopted:
            assert conditions(tended)["Unique"] == conditions(observing)["Unique"] == ("False", "RoleExists")
            assert told(server, role) == before
            assert tended.kept is None, "no Secret is made for a role that is another's"
            return
        assert conditions(observing)["Unique"] == ("True", "AsExpected")
        assert observing.judged is not None and observing.judged.status.drift is not None
        shown = observing.judged.status.drift.differences
        assert {f"role {role} does not carry this object's mark", "the role has CREATEDB"} <= set(shown)
        assert conditions(tended)["Ready"] == ("True", "InForce"), tended.judged
        assert tended.adopted is not None and role in tended.adopted.message
        text = (comment or "").partition(" [")[0]
        mark = f"{text} [pgtend:1:{INSTALLATION}:shop/{tended.key.name}]"
        createdb, limit, verifier, stands = told(server, role)
        assert (createdb, limit, stands) == (False, -1, mark)
        assert verifier != before[2]
        with server.connect(role, shop.name, password=f"password of {tended.key.name}"):
            pass
        once_more = again(ground, tended)
        await ground.tender.tend(target, [once_more])
        assert once_more.adopted is None and once_more.corrected == ()


@pytest.mark.covers("DatabaseUser.reason.TakenOver")
async def test_what_another_installation_took_is_not_taken_back(server: PostgresServer) -> None:
    ground, shop = Ground(server), Shop.open(server)
    role = existing(server, shop)
    async with reached(server) as target:
        first = case(ground, role, adoption="Always")
        await ground.tender.tend(target, [first])
        assert conditions(first)["Ready"] == ("True", "InForce")
        server.execute(f"COMMENT ON ROLE {role} IS '[pgtend:1:elsewhere:shop/app]'")
        lost = again(ground, first)
        lost.admitted = first.admitted
        before = told(server, role)
        await ground.tender.tend(target, [lost])
        assert conditions(lost)["Unique"] == conditions(lost)["Ready"] == ("False", "TakenOver")
        assert told(server, role) == before


@pytest.mark.parametrize("how", ["superuser", "member", "files", "beyond", "not ours"])
async def test_what_has_more_than_a_spec_may_ask_for_is_not_adopted(server: PostgresServer, how: str) -> None:
    ground, shop = Ground(server), Shop.open(server)
    role = existing(server, shop, attributes={"superuser": "SUPERUSER", "beyond": "REPLICATION"}.get(how, ""))
    if how == "member":
        boss, between = server.fresh_role("boss", "SUPERUSER").user, server.fresh_role("between").user
        server.execute(f"GRANT {boss} TO {between}; GRANT {between} TO {role}")
    elif how == "files":
        server.execute(f"GRANT pg_write_server_files TO {role}")
    elif how == "not ours":
        server.execute(f"REVOKE {role} FROM pgtend_users")
    before = told(server, role)
    async with reached(server) as target:
        refused = case(ground, role, adoption="Always")
        await ground.tender.tend(target, [refused])
    if how == "not ours" and server.major < 16:
        # there CREATEROLE is enough
        assert conditions(refused)["Unique"] == ("True", "AsExpected")
        return
    assert refused.adopted is None
    assert told(server, role) == before
    reason = "RoleNotAllowed" if how in ("superuser", "member", "files") else "MissingPrivilege"
    assert conditions(refused)["Unique"] == conditions(refused)["Ready"] == ("False", reason)
