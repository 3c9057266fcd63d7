"""By property, on real servers: whatever a role has come to, one pass brings it to its spec and a second finds nothing
to do; and whatever a name is made of, it comes back as it was written and does nothing else.

A short form is in every run, seeded by PGTEND_SEED; `make matrix` has 10,000 names, 2,000 on each major.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from psycopg import sql
from tests.fixtures.postgres import PostgresServer
from tests.postgres.test_users_kinds import ground as every_kind_of_object
from tests.postgres.users_ground import Shop, User, look, reached, tend, user

from pgtend.api.databaseuser import reserved
from pgtend.users.plan import Credential, plan

SEED = int(os.environ.get("PGTEND_SEED", "1"))
AT_ONCE = 50
CALM = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example, HealthCheck.filter_too_much]


def examples(number: int) -> Any:
    def marked(test: Any) -> Any:
        found = settings(max_examples=number, deadline=None, database=None, suppress_health_check=CALM)(test)
        return seed(SEED)(found)

    return marked


# Privileges

KINDS: dict[str, tuple[str, list[str]]] = {
    "Table": ("TABLE shop.items", ["Select", "Insert", "Update", "Delete", "Truncate"]),
    "Column": ("shop.lines", ["Select", "Update"]),
    "Sequence": ("SEQUENCE shop.numbers", ["Usage", "Select"]),
    "Function": ("FUNCTION shop.pay(integer)", ["Execute"]),
    "Type": ("TYPE shop.money", ["Usage"]),
    "Schema": ("SCHEMA shop", ["Usage", "Create"]),
    "Database": ("DATABASE {}", ["Connect", "Temporary"]),
}
held = st.lists(
    st.sampled_from(sorted(KINDS)).flatmap(
        lambda kind: st.tuples(
            st.just(kind),
            st.lists(st.sampled_from(KINDS[kind][1]), min_size=1, max_size=3, unique=True),
            st.booleans(),
        )
    ),
    max_size=5,
)


def asked(shop: Shop, items: list[tuple[str, list[str], bool]]) -> list[dict[str, Any]]:
    """The same as a spec says it."""
    places: dict[str, dict[str, Any]] = {
        "Table": {"schema": "shop", "names": ["it*"]},
        "Column": {"schema": "shop", "names": ["lines"], "columns": ["id"]},
        "Sequence": {"schema": "shop"},
        "Function": {"schema": "shop", "names": ["pay(integer)"]},
        "Type": {"schema": "shop", "names": ["money"]},
        "Schema": {"names": ["shop"]},
        "Database": {},
    }
    return [
        {
            "database": shop.name,
            "kind": "Table" if kind == "Column" else kind,
            "privileges": words,
            "grantOption": option,
            **places[kind],
        }
        for kind, words, option in items
    ]


def drifted(shop: Shop, role: str, items: list[tuple[str, list[str], bool]], *, revoke: bool) -> None:
    """Somebody gives or takes by hand, as the owner."""
    for kind, words, option in items:
        listed = ", ".join(f"{word.upper()} (id)" if kind == "Column" else word.upper() for word in words)
        where = KINDS[kind][0].format(shop.name)
        how = f"REVOKE {listed} ON {where} FROM" if revoke else f"GRANT {listed} ON {where} TO"
        end = " CASCADE" if revoke else " WITH GRANT OPTION" if option else ""
        shop.server.execute(f'{how} "{role}"{end}', dbname=shop.name)


@pytest.mark.parametrize("count", [pytest.param(6, id="6"), pytest.param(100, id="100", marks=pytest.mark.matrix)])
@pytest.mark.timeout(900)
def test_any_privileges_converge_in_one_pass(server: PostgresServer, count: int) -> None:
    shop = every_kind_of_object(server)
    name = server.fresh_name("app").replace("_", "-")

    @examples(count)
    @given(first=held, given_=held, taken=held, last=held, pruning=st.sampled_from(["OwnGrants", "All"]))
    def converges(first: Any, given_: Any, taken: Any, last: Any, pruning: str) -> None:
        asyncio.run(one_case(first, given_, taken, last, pruning))

    async def one_case(first: Any, given_: Any, taken: Any, last: Any, pruning: str) -> None:
        async with reached(server) as target:
            before = user(server, name=name, grants=asked(shop, first))
            assert (await tend(target, before)).clean()
            drifted(shop, before.role, given_, revoke=False)
            drifted(shop, before.role, taken, revoke=True)
            after = user(server, name=name, grants=asked(shop, last), pruning=pruning)
            done = await tend(target, after, applied=True)
            assert done.clean(), (done.failed, done.left[after.key])

    converges()


# Names

PIECES = [
    "'", '"', "''", '""', "\\", ";", "--", "/*", "*/", "$$", "$pgtend$", "%s", "%(role)s", "{}", "{0}", "\n", "\t",
    " ", ".", ",", "(", ")", "[pgtend:1:x:y/z]", "DROP ROLE postgres", "; DROP TABLE sentinel; --", "ü", "表", "🐘",
    "\x01", "\u202e", "é", "a", "PUBLIC", "none", "E'", "U&\"", "\\'; SELECT 1", "null",
]  # fmt: skip
hostile = st.lists(
    st.sampled_from(PIECES) | st.text(st.characters(exclude_characters="\0*", codec="utf-8"), max_size=3),
    min_size=1,
    max_size=8,
).map("".join)


def cut(text: str, number: int) -> str:
    """At most 63 bytes, and like no other."""
    end = f"#{number}"
    kept = text.encode()[: 63 - len(end)].decode(errors="ignore")
    return kept + end


@pytest.mark.parametrize(
    "count", [pytest.param(2, id="100"), pytest.param(2000 // AT_ONCE, id="2000", marks=pytest.mark.matrix)]
)
@pytest.mark.timeout(1800)
def test_names_of_anything_come_back_and_do_nothing_else(server: PostgresServer, count: int) -> None:
    shop = Shop.open(server)
    server.execute("CREATE TABLE public.sentinel (id int)", dbname=shop.name)
    tried = 0

    @examples(count)
    @given(names=st.lists(hostile, min_size=AT_ONCE, max_size=AT_ONCE), table=hostile, setting=hostile)
    def round_trip(names: list[str], table: str, setting: str) -> None:
        nonlocal tried
        numbers = range(tried, tried + len(names))
        tried += len(names)
        found = [cut(text, number) for text, number in zip(names, numbers, strict=True)]
        roles = [name if not reserved(name) else f"x{name[:-1]}" for name in found]
        asyncio.run(one_case(roles, cut(table, tried), setting[:200]))

    async def one_case(names: list[str], table: str, setting: str) -> None:
        place = sql.Identifier(table)
        with server.superuser_connect(shop.name) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(place))
            connection.execute(sql.SQL("CREATE TABLE {0}.{0} ({0} int)").format(place))
            for what in (sql.SQL("SCHEMA {0}"), sql.SQL("TABLE {0}.{0}")):
                owner = sql.Identifier(shop.owner)
                connection.execute(sql.SQL("ALTER {} OWNER TO {}").format(what.format(place), owner))
        grants = [
            {"database": shop.name, "kind": "Schema", "names": [table], "privileges": ["Usage"]},
            {"database": shop.name, "kind": "Table", "schema": table, "names": [table], "privileges": ["Select"]},
            {
                "database": shop.name, "kind": "Table", "schema": table, "names": [table], "columns": [table],
                "privileges": ["Update"],
            },
        ]  # fmt: skip
        users = [
            user(server, name=f"n{number}", roleName=name, grants=grants, settings={"application_name": setting})
            for number, name in enumerate(names)
        ]
        before = roles_of(server)
        async with reached(server) as target:
            done = await tend(target, *users)
            assert done.clean(), (done.failed, [p for p in done.left.values() if p.problems][:1])
            observed = await look(target, *users)
        assert roles_of(server) - before == set(names)
        for one in users:
            check(one, observed, setting)
        assert server.execute("SELECT count(*) FROM public.sentinel", dbname=shop.name) == [(0,)]
        drop(server, shop, names, place)
        assert roles_of(server) == before

    def check(one: User, observed: Any, setting: str) -> None:
        role = observed.roles[one.role]
        assert role.settings == {None: {"application_name": setting}}
        assert role.comment == one.wanted.mark and not role.elevated
        again = plan(wanted=one.wanted, observed=observed, credential=Credential())
        assert again.actions == again.differences == again.problems == ()

    round_trip()
    assert tried >= count * AT_ONCE


def roles_of(server: PostgresServer) -> set[str]:
    return {row[0] for row in server.execute("SELECT rolname FROM pg_roles")}


def drop(server: PostgresServer, shop: Shop, names: list[str], place: sql.Identifier) -> None:
    listed = sql.SQL(", ").join(sql.Identifier(name) for name in names)
    with server.superuser_connect(shop.name) as connection:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(place))
        connection.execute(sql.SQL("DROP OWNED BY {}").format(listed))
        connection.execute(sql.SQL("DROP ROLE {}").format(listed))
