"""The counts that the design promises, on the wire: a batch costs round trips per database, not per user."""

from __future__ import annotations

import pytest
from tests.fixtures.counters import SqlCounter
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.proxy import Proxy
from tests.postgres.users_ground import Shop, reached, tend, user

from pgtend.users.look import Looker, ask_for
from pgtend.users.observe.read import Ask

SETTLING = 1  # round trips of a new connection: its settings


def ten_grants(shop: Shop) -> list[dict[str, object]]:
    tables = [
        {"database": shop.name, "kind": "Table", "schema": "shop", "names": [name], "privileges": ["Select", "Insert"]}
        for name in shop.tables
    ]
    return [*shop.trio()[:2], *tables]


TAKING_OVER = 1


async def test_a_hundred_users_cost_three_round_trips_per_database(server: PostgresServer) -> None:
    shop = Shop.open(server, tables=[f"t{number}" for number in range(8)])
    users = [user(server, grants=ten_grants(shop)) for _ in range(100)]
    proxy = Proxy.before(server)
    try:
        async with reached(server, proxy=proxy) as target:
            looker = Looker(target)
            await looker.look(
                Ask(roles=frozenset({"nobody"}))
            )  # the connection to the maintenance database stands, as in a running operator
            before = proxy.counts(user="pgtend_users")
            seen = SqlCounter(server, user="pgtend_users")
            done = await tend(target, *users, looker=looker)
            assert done.clean(), (done.failed, next(iter(done.left.values())))
            spent = proxy.counts(user="pgtend_users") - before
            print(f"100 users, 10 grants each: {spent.round_trips} round trips, {spent.connections} new connections,"
                  f" {len(seen.statements())} statements")  # fmt: skip
            # look, apply, look again; in the maintenance database and in theirs. Before the first write of a term, once
            # per server, what an earlier leader left is ended
            assert spent.connections == 1
            assert spent.round_trips == 2 * 3 + SETTLING + TAKING_OVER
            # one for the database, one for the schema, one for all tables: each row is rewritten once for everybody
            grants = [s for s in seen.statements() if s.startswith("GRANT")]
            assert len(grants) == 3

            seen.mark()
            before = proxy.counts(user="pgtend_users")
            again = await looker.look(ask_for((one.role, one.spec) for one in users))
            spent = proxy.counts(user="pgtend_users") - before
            assert len(again.roles) == 100
            assert (spent.connections, spent.round_trips) == (0, 2)
            # steady: two queries for the server and one for the database, whatever the number of users
            assert len([s for s in seen.statements() if "SELECT" in s]) == 3
    finally:
        proxy.close()


async def test_nothing_is_written_where_nothing_differs(server: PostgresServer) -> None:
    shop = Shop.open(server, tables=[f"t{number}" for number in range(300)])
    users = [user(server, grants=shop.trio("Select", "Insert", "Update", "Delete")) for _ in range(5)]
    async with reached(server) as target:
        assert (await tend(target, *users)).clean()
        rows = "SELECT md5(string_agg(concat(oid, xmin, ctid), ',' ORDER BY oid)) FROM pg_class"
        before = server.execute(rows, dbname=shop.name)
        seen = SqlCounter(server, user="pgtend_users")
        again = await tend(target, *users, applied=True)
        assert not any(p.actions for p in again.plans.values())
        assert not [s for s in seen.statements() if s.split()[0] in ("GRANT", "REVOKE", "ALTER", "CREATE", "BEGIN")]
        assert server.execute(rows, dbname=shop.name) == before, "no row of the catalog was rewritten"


@pytest.mark.matrix
async def test_every_major_reads_and_writes_alike(server: PostgresServer) -> None:
    shop = Shop.open(server)
    app = user(server, grants=shop.trio("Select", "Delete"), connectionLimit=4, validUntil="2040-01-01T00:00:00Z")
    async with reached(server) as target:
        assert (await tend(target, app)).clean()
        assert (await tend(target, app, applied=True)).plans[app.key].actions == ()
