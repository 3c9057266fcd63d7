"""What one user asks for is read together with what others do, and must break nothing of theirs."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import sql
from pydantic import ValidationError
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.postgres.passwords_ground import Ground, conditions, message, status
from tests.postgres.users_ground import Shop, initialize, reached

from pgtend.api.databaseuser import UserSpec
from pgtend.users.case import Case


def a_database(server: PostgresServer, encoding: str) -> str:
    name = server.fresh_name("old")
    server.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C'")
    initialize(server, databases=[name])
    return name


def on_table(database: str, schema: str, name: str) -> list[dict[str, Any]]:
    return [{"database": database, "kind": "Table", "schema": schema, "names": [name], "privileges": ["Select"]}]


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1251", "EUC_KR", "SQL_ASCII"])
async def test_a_name_that_a_database_cannot_hold_is_missing_and_breaks_nothing(
    postgres: Postgres, encoding: str
) -> None:
    server = postgres(18)
    database = a_database(server, encoding)
    there = {"LATIN1": "größe", "WIN1251": "заказы", "SQL_ASCII": "größe"}.get(encoding, "orders")
    with server.superuser_connect(database) as admin:
        admin.execute("SET client_encoding = 'UTF8'")
        admin.execute(f'CREATE TABLE public."{there}" (id int)')
        admin.execute(f'GRANT SELECT ON public."{there}" TO pgtend_users WITH GRANT OPTION')
    ground = Ground(server)
    async with reached(server) as target:
        good = ground.case(ground.name(), grants=on_table(database, "public", there))
        bad = [
            ground.case(ground.name(), grants=on_table(database, "public", "漢\N{ROCKET}")),
            ground.case(ground.name(), grants=on_table(database, "\N{ROCKET}", "x")),
        ]
        await ground.tender.tend(target, [good, *bad])
    assert conditions(good)["Ready"] == ("True", "InForce"), message(good, "Ready")
    for case in bad:
        assert conditions(case)["PrivilegesInSync"] == ("False", "ObjectMissing")


async def test_a_role_that_the_maintenance_database_cannot_hold_fails_alone(postgres: Postgres) -> None:
    server = postgres(18)
    database = a_database(server, "LATIN1")
    ground = Ground(server)
    async with reached(server, maintenanceDatabase=database) as target:

        def case(role: str) -> Case:
            return ground.case(ground.name(), roleName=role)

        good, bad = case(server.fresh_name("plain")), case(server.fresh_name("\N{ROCKET}"))
        await ground.tender.tend(target, [good, bad])
    assert conditions(good)["Ready"] == ("True", "InForce"), message(good, "Ready")
    assert conditions(bad)["Ready"][0] == "False"


async def test_what_a_role_sets_for_itself_is_not_read_without_end(server: PostgresServer) -> None:
    """Every role may, and a look is many users'; what one has set is taken away like any other setting."""
    ground = Ground(server)
    names = [ground.name(), ground.name()]
    async with reached(server) as target:
        cases = [ground.case(name, settings={"search_path": "shop"}) for name in names]
        await ground.tender.tend(target, cases)
        with server.connect(names[0], "postgres", password=ground.secret(names[0])["password"]) as program:
            much = ",".join(["a" * 50] * 700_000)
            program.execute(f"ALTER ROLE CURRENT_USER SET search_path = '{much}'")
            program.execute(f"ALTER ROLE CURRENT_USER SET DateStyle = 'ISO{', ISO' * 1000}'")
        server.execute(f'ALTER ROLE "{names[1]}" CONNECTION LIMIT 7')
        cases = [ground.again(case) for case in cases]
        await ground.tender.tend(target, cases)
        for case in cases:
            assert conditions(case)["Ready"] == ("True", "InForce"), message(case, "Ready")[:200]
        assert [len(case.corrected) for case in cases] == [2, 1]
    kept = "SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = %s::regrole"
    assert server.execute(kept, [f'"{names[0]}"']) == [("search_path=shop",)]


async def test_what_anybody_grants_is_not_read_without_end(server: PostgresServer) -> None:
    """Whoever may connect makes large objects by the hundred thousand, and grants on them to whom he likes."""
    shop, ground, stranger = Shop.open(server), Ground(server), server.fresh_role("stranger")
    with server.superuser_connect(shop.name) as admin:
        (ours,) = admin.execute("SELECT lo_create(4294967000)::text").fetchone() or ("",)
        admin.execute(f"GRANT SELECT ON LARGE OBJECT {ours} TO pgtend_users WITH GRANT OPTION")
    large = {"database": shop.name, "kind": "LargeObject", "names": [ours], "privileges": ["Select"]}
    async with reached(server) as target:
        case, beside = (ground.case(ground.name(), grants=[*shop.trio(), large]) for _ in range(2))
        await ground.tender.tend(target, [case, beside])
        assert conditions(case)["Ready"] == ("True", "InForce"), message(case, "Ready")
        make = sql.SQL(
            "DO $$ DECLARE o oid; BEGIN FOR i IN 1..2000 LOOP o := lo_create(0);"
            " EXECUTE 'GRANT SELECT ON LARGE OBJECT ' || o || ' TO {}'; END LOOP; END $$"
        ).format(sql.Identifier(case.wanted.role))
        with server.connect(stranger.user, shop.name, password=stranger.password) as program:
            program.autocommit = True
            for _ in range(100):
                program.execute(make)
        server.execute(f'REVOKE ALL ON shop.items FROM "{beside.wanted.role}"', dbname=shop.name)
        case, beside = (ground.case(one.key.name, status=status(one), grants=shop.trio()) for one in (case, beside))
        await ground.tender.tend(target, [case, beside])
    for one in (case, beside):
        assert conditions(one)["Ready"] == ("True", "InForce"), message(one, "Ready")
        assert any(f"Select on large object {ours}" in text for text in one.corrected), "ours is seen before all others"
    left = "SELECT count(*) FROM pg_largeobject_metadata, aclexplode(lomacl) AS a WHERE a.grantee = %s::regrole"
    assert server.execute(left, [f'"{case.wanted.role}"'], dbname=shop.name) == [(200_000,)], "others' stay"


@pytest.mark.parametrize("oid", ["4294967296", "99999999999", "-1", "1e3", "\N{ARABIC-INDIC DIGIT ONE}", "9" * 400])
def test_what_is_no_oid_is_refused_before_anybody_is_asked(oid: str) -> None:
    grant = {"database": "orders", "kind": "LargeObject", "names": [oid], "privileges": ["Select"]}
    with pytest.raises(ValidationError, match="named by their OID"):
        UserSpec.model_validate({"targetRef": {"name": "orders"}, "grants": [grant]})
