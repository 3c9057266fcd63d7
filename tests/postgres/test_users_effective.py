"""status.effective on real servers: what the one statement of a batch counts, against the ACLs counted one by one."""

from __future__ import annotations

import random

from psycopg import sql
from tests.fixtures.counters import SqlCounter
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import Shop, look, reached, tend, user

from pgtend.users.effective import effective
from pgtend.users.look import Looker, ask_for
from pgtend.users.state import Counts

OBJECTS = [
    ("TABLE", "shop.items", ["SELECT", "INSERT", "UPDATE"]),
    ("TABLE", "shop.lines", ["SELECT", "DELETE"]),
    ("SEQUENCE", "shop.numbers", ["USAGE", "SELECT"]),
    ("SCHEMA", "shop", ["USAGE", "CREATE"]),
    ("FUNCTION", "shop.pay(integer)", ["EXECUTE"]),
]
ENTRIES = """
SELECT 'n' AS kind, n.oid, 0 AS part, n.nspacl AS acl, pg_catalog.acldefault('n', n.nspowner) AS made
FROM pg_namespace AS n WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
UNION ALL SELECT 'c', c.oid, 0, relacl, acldefault(CASE relkind WHEN 'S' THEN 's' ELSE 'r' END::"char", relowner)
FROM pg_class AS c WHERE relnamespace = ANY(%(n)s::regnamespace[]) AND relkind IN ('r', 'S')
UNION ALL SELECT 'a', attrelid, attnum, attacl, NULL FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid
WHERE relnamespace = ANY(%(n)s::regnamespace[]) AND attacl IS NOT NULL
UNION ALL SELECT 'p', oid, 0, proacl, acldefault('f', proowner) FROM pg_proc
WHERE pronamespace = ANY(%(n)s::regnamespace[])
UNION ALL SELECT 'l', oid, 0, lanacl, acldefault('l', lanowner) FROM pg_language WHERE lanpltrusted
UNION ALL SELECT 'd', oid, 0, datacl, acldefault('d', datdba) FROM pg_database WHERE datname = current_database()
"""


def counted(server: PostgresServer, shop: Shop, role: str, *, inherits: set[str]) -> Counts:
    """The same from the ACLs, entry by entry, with memberships that the test knows."""
    found: dict[str, set[tuple[object, ...]]] = {}
    with server.superuser_connect(shop.name) as connection:
        rows = connection.execute(
            "SELECT kind, e.oid, part, privilege_type, coalesce(r.rolname, '') AS name"  # noqa: S608
            f" FROM ({ENTRIES}) AS e CROSS JOIN LATERAL aclexplode(coalesce(acl, made)) AS a"
            " LEFT JOIN pg_roles AS r ON r.oid = a.grantee",
            {"n": ["shop", "public"]},
        ).fetchall()
    for kind, oid, part, word, name in rows:
        found.setdefault(name, set()).add((kind, oid, part, word))
    direct = found.get(role, set())
    roles = set().union(*(found.get(name, set()) for name in inherits)) - direct
    return Counts(len(direct), len(roles), len(found.get("", set()) - direct - roles))


def ground(server: PostgresServer) -> Shop:
    shop = Shop.open(server)
    with server.superuser_connect(shop.name) as connection:
        connection.execute("CREATE SEQUENCE shop.numbers")
        connection.execute("CREATE FUNCTION shop.pay(integer) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    return shop


async def test_effective_privileges_are_counted_once_each(server: PostgresServer) -> None:
    shop = ground(server)
    chance = random.Random(4)  # noqa: S311
    outer, inner, apart = (server.fresh_role(name).user for name in ("outer", "inner", "apart"))
    everybody = [outer, inner, apart, "PUBLIC"]
    one = user(server, grants=shop.trio("Select", "Update"), memberOf=[{"role": outer}])
    two = user(server, grants=shop.trio()[:1])
    three = user(server, grants=shop.trio("Insert"), inherit=False)
    four = user(server, grants=[{"database": shop.name, "kind": "Table", "schema": "shop", "names": ["items"],
                                 "columns": ["id"], "privileges": ["Select"]}])  # fmt: skip
    with server.superuser_connect(shop.name) as connection:
        for kind, name, words in OBJECTS * 2:
            who = chance.choice(everybody)
            connection.execute(f"GRANT {chance.choice(words)} ON {kind} {name} TO {who}")
        connection.execute(f"GRANT TEMPORARY ON DATABASE {shop.name} TO {inner}")
        connection.execute(f"GRANT {inner} TO {outer}")
        connection.execute(f"GRANT {outer} TO pgtend_users WITH ADMIN OPTION")
    async with reached(server) as target:
        done = await tend(target, one, two, three, four)
        assert done.clean(), done
        with server.superuser_connect(shop.name) as connection:
            # a member that does not inherit, and one who owns something
            connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(apart), sql.Identifier(three.role)))
            connection.execute(sql.SQL("CREATE TABLE shop.own (id int)"))
            connection.execute(sql.SQL("ALTER TABLE shop.own OWNER TO {}").format(sql.Identifier(four.role)))
        together = await look(target, one, two, three, four)
        for who, inherits in ((one, {outer, inner}), (three, set()), (four, set())):
            alone = await look(target, who)
            expected = counted(server, shop, who.role, inherits=inherits)
            assert effective(who.wanted, together) == expected, who.role
            assert effective(who.wanted, alone) == expected, who.role
        # who has nothing inside of the database is told of the database alone, whoever else was looked at
        assert effective(two.wanted, together) == effective(two.wanted, await look(target, two)) == Counts(1, 0, 1)


async def test_they_are_unknown_where_a_database_cannot_be_looked_into(server: PostgresServer) -> None:
    shop = ground(server)
    one = user(server, grants=shop.trio())
    async with reached(server) as target:
        assert (await tend(target, one)).clean()
        server.execute(f"ALTER DATABASE {shop.name} ALLOW_CONNECTIONS false")
        assert effective(one.wanted, await look(target, one)) is None


async def test_they_cost_no_statement_of_their_own(server: PostgresServer) -> None:
    shop = ground(server)
    users = [user(server, grants=shop.trio()) for _ in range(5)]
    async with reached(server) as target:
        assert (await tend(target, *users)).clean()
        looker = Looker(target)
        await looker.look(ask_for((one.role, one.spec) for one in users))
        counter = SqlCounter(server, user="pgtend_users")
        observed = await looker.look(ask_for((one.role, one.spec) for one in users))
        assert len(counter.statements()) == 3  # roles and databases, and one in the database
    assert all(effective(one.wanted, observed) is not None for one in users)
