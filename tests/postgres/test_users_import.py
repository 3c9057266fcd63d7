"""`pgtend user import` on servers with two hundred odd roles: applying what it prints changes nothing. The plan of each
spec against the server is empty, and carried out by the operator's own machinery nothing but the marks is written."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from psycopg import sql
from tests.fixtures.postgres import PostgresServer
from tests.postgres.users_ground import Shop, initialize, reached

from pgtend.__main__ import main
from pgtend.api.databaseuser import UserSpec
from pgtend.api.kinds import KINDS
from pgtend.core.findings import ObjectKey
from pgtend.users.apply import apply
from pgtend.users.look import Looker, ask_for
from pgtend.users.plan import Credential, plan
from pgtend.users.wanted import role_name, wanted

COUNT = 200
ODD = (
    'with "quotes"', "with 'single'", "Ünïcödé", "名前", "two  words", "trailing ", "$$dollar$$", "percent%s%%", "a*b",
    "a-b.c", "; DROP ROLE x; --", "back\\slash", "UPPER", "select", "tab\there", "new\nline", "emoji 🐘", "{brace}",
    "x" * 40,
)  # fmt: skip
OBJECTS = [
    ("DATABASE", "{db}", ["CONNECT", "TEMPORARY", "CREATE"]),
    ("SCHEMA", 'shop, "Odd ""schema"""', ["USAGE", "CREATE"]),
    ("TABLE", 'shop.items, "Odd ""schema"""."Ödd, table"', ["SELECT", "UPDATE", "TRUNCATE"]),
    ("TABLE", "shop.seen", ["SELECT"]),
    ("SEQUENCE", "shop.numbers", ["USAGE", "UPDATE"]),
    ("FUNCTION", "shop.pay(integer, text)", ["EXECUTE"]),
    ("PROCEDURE", "shop.close(integer)", ["EXECUTE"]),
    ("TYPE", "shop.mood", ["USAGE"]),
    ("LANGUAGE", "plpgsql", ["USAGE"]),
    ("LARGE OBJECT", "{lo}", ["SELECT", "UPDATE"]),
]
MAKE = r'''
CREATE SEQUENCE shop.numbers;
CREATE FUNCTION shop.pay(integer, text) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE PROCEDURE shop.close(integer) LANGUAGE sql AS 'SELECT 1';
CREATE TYPE shop.mood AS ENUM ('a');
CREATE VIEW shop.seen AS SELECT 1 AS one;
CREATE TABLE shop.wide (id int, note text, "Odd ""col" text);
CREATE TABLE "Odd ""schema"""."Ödd, table" (id int);
'''
SETTINGS = [
    ("statement_timeout", "30s"), ("search_path", '"$user", "Odd ""schema""", public'), ("work_mem", "64MB"),
    ("application_name", "it's \"odd\" = %"), ("DateStyle", "ISO, DMY"),
]  # fmt: skip
ATTRIBUTES = [
    ["CREATEDB"],
    ["NOINHERIT"],
    ["CONNECTION LIMIT 0", "CONNECTION LIMIT 7"],
    ["VALID UNTIL '2031-02-03 04:05:06.789+02'", "VALID UNTIL 'infinity'", "VALID UNTIL '-infinity'"],
]


def odd_roles(server: PostgresServer, shop: Shop, chance: random.Random) -> list[str]:
    """Two hundred roles with what an administrator, an owner and pgtend's own login may have given them."""
    tag = server.fresh_name("o")[-6:]
    names = [f"{ODD[n % len(ODD)]}_{n}_{tag}" for n in range(COUNT)]
    groups: list[str] = []
    with server.superuser_connect(shop.name) as connection:
        connection.execute('CREATE SCHEMA "Odd ""schema"""')
        connection.execute(MAKE)
        made = connection.execute("SELECT lo_create(0)").fetchone()
        assert made is not None
        connection.execute(f'ALTER SCHEMA "Odd ""schema""" OWNER TO {shop.owner}')
        for number, name in enumerate(names):
            role = sql.Identifier(name)
            options = sql.SQL(" ").join(sql.SQL(chance.choice(of)) for of in ATTRIBUTES if chance.random() < 0.25)
            login = sql.SQL("LOGIN PASSWORD 'not-to-be-seen-in-any-yaml'" if number % 3 else "NOLOGIN")
            connection.execute(sql.SQL("CREATE ROLE {} {} {}").format(role, login, options))
            if server.major >= 16:
                connection.execute(sql.SQL("GRANT {} TO pgtend_users WITH ADMIN OPTION, INHERIT FALSE").format(role))
            for _ in range(chance.randrange(5)):
                _grant(connection, shop, role, chance, str(made[0]))
            if chance.random() < 0.4:
                name_, value = chance.choice(SETTINGS)
                one = sql.SQL("IN DATABASE {}").format(sql.Identifier(shop.name))
                where = one if chance.random() < 0.3 else sql.SQL("")
                given = sql.SQL(value) if name_ == "search_path" else sql.Literal(value)
                connection.execute(
                    sql.SQL("ALTER ROLE {} {} SET {} TO {}").format(role, where, sql.Identifier(name_), given)
                )
            if groups and chance.random() < 0.5:
                option = chance.choice(["", " WITH ADMIN OPTION"])
                if server.major >= 16:
                    option = chance.choice(["", " WITH ADMIN TRUE", " WITH INHERIT FALSE", " WITH SET FALSE"])
                by = chance.choice(["", "pgtend_users"]) if server.major >= 16 and not option else ""
                connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(by)) if by else "RESET ROLE")
                connection.execute(
                    sql.SQL("GRANT {} TO {}{}").format(sql.Identifier(chance.choice(groups)), role, sql.SQL(option))
                )
                connection.execute("RESET ROLE")
            if chance.random() < 0.2:
                groups.append(name)
    return names


def _grant(connection: Any, shop: Shop, role: sql.Identifier, chance: random.Random, lo: str) -> None:
    """By the administrator, the owner, or pgtend's login."""
    if chance.random() < 0.4:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(shop.owner)))
    option = sql.SQL(chance.choice(["", "", " WITH GRANT OPTION"]))
    way = chance.random()
    try:
        if way < 0.15:
            connection.execute(
                sql.SQL('GRANT SELECT (id, "Odd ""col"), UPDATE (note) ON shop.wide TO {}{}').format(role, option)
            )
        elif way < 0.3:
            connection.execute(
                sql.SQL("ALTER DEFAULT PRIVILEGES FOR ROLE {} {} GRANT {} TO {}{}").format(
                    sql.Identifier(shop.owner),
                    sql.SQL(chance.choice(["", "IN SCHEMA shop"])),
                    sql.SQL(chance.choice(["SELECT ON TABLES", "USAGE ON SEQUENCES", "EXECUTE ON FUNCTIONS"])),
                    role,
                    option,
                )
            )
        else:
            kind, names, words = chance.choice(OBJECTS)
            on = names.replace("{db}", shop.name).replace("{lo}", lo)
            connection.execute(
                sql.SQL("GRANT {} ON {} {} TO {}{}").format(
                    sql.SQL(", ".join(_some(chance, words, 3))),
                    sql.SQL(kind),
                    sql.SQL(on),
                    role,
                    option,  # type: ignore[arg-type]
                )
            )
    except Exception as error:
        # the owner may not grant what it does not own
        if "permission denied" not in str(error):
            raise
    connection.execute("RESET ROLE")


def _some(chance: random.Random, of: list[str], most: int) -> list[str]:
    return chance.sample(of, chance.randint(1, min(most, len(of)))) if most else []


def catalogs(server: PostgresServer, shop: Shop) -> list[list[Any]]:
    """All that a DatabaseUser could have changed, but for comments."""
    with server.superuser_connect(shop.name) as connection:
        return [
            sorted(map(str, connection.execute(query).fetchall()))
            for query in (
                "SELECT to_jsonb(a) FROM pg_authid AS a WHERE rolname !~ '^pg'",
                "SELECT roleid, member, grantor, to_jsonb(m) - 'oid' FROM pg_auth_members AS m",
                "SELECT * FROM pg_db_role_setting",
                "SELECT relname, relacl FROM pg_class WHERE relnamespace >= 16384",
                "SELECT attrelid, attname, attacl FROM pg_attribute WHERE attrelid >= 16384",
                "SELECT nspname, nspacl FROM pg_namespace",
                "SELECT oid, proacl FROM pg_proc WHERE oid >= 16384",
                "SELECT oid, typacl FROM pg_type WHERE oid >= 16384",
                "SELECT lanname, lanacl FROM pg_language",
                "SELECT oid, lomacl FROM pg_largeobject_metadata",
                "SELECT * FROM pg_default_acl",
                f"SELECT datname, datacl FROM pg_database WHERE datname = '{shop.name}'",  # noqa: S608
            )
        ]


def command(folder: Path, server: PostgresServer, *words: str) -> Result:
    (folder / "dsn").write_text(server.dsn())
    target = {
        "apiVersion": "pgtend.dev/v1alpha1",
        "kind": "PostgresTarget",
        "metadata": {"name": "orders", "namespace": "databases"},
        "spec": {
            "members": [{"name": "a", "host": "127.0.0.1"}],
            "credentials": {
                name: {"password": {"secretRef": {"name": f"orders-{name}"}}} for name in ("monitor", "users")
            },
        },
    }
    (folder / "target.yaml").write_text(yaml.safe_dump(target))
    given = ["user", "import", "--dsn-file", str(folder / "dsn"), "--target-file", str(folder / "target.yaml")]
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(CliRunner().invoke, main, [*given, *words]).result()


@pytest.mark.timeout(300)
async def test_applying_what_is_imported_changes_nothing(server: PostgresServer, tmp_path: Path) -> None:
    shop = Shop.open(server)
    names = odd_roles(server, shop, random.Random(server.major))  # noqa: S311
    initialize(server, databases=[shop.name], owners=[shop.owner])
    try:
        done = command(tmp_path, server, "--namespace", "shop")
        assert done.exit_code == 0, done.stderr[-2000:] + str(done.exception)
        assert "not-to-be-seen" not in done.output and "SCRAM-SHA-256$" not in done.output
        bodies = [body for body in yaml.safe_load_all(done.stdout) if body]
        kind = next(kind for kind in KINDS if kind.name == "DatabaseUser")
        specs = {}
        for body in bodies:
            key = ObjectKey(kind.name, body["metadata"]["namespace"], body["metadata"]["name"])
            specs[key] = UserSpec.model_validate(body["spec"])
        mine = {role_name(key, spec): (key, spec) for key, spec in specs.items()}
        assert len(mine) == len(specs) == len(bodies)
        assert set(names) <= mine.keys() and not {"pgtend_users", "pgtend_monitor"} & mine.keys()
        before = catalogs(server, shop)
        async with reached(server) as target:
            observed = await Looker(target).look(ask_for((role, mine[role][1]) for role in names))
        actions = {}
        for role in names:
            key, spec = mine[role]
            made = plan(
                wanted=wanted(key, spec, installation="testing"),
                observed=observed,
                credential=Credential(ready=True, applied=True),
            )
            # the mark, and nothing else
            assert [type(action).__name__ for action in made.actions] == ["MarkRole"], (role, made.differences)
            assert len(made.differences) == 1 and not made.problems, (role, made)
            actions[key] = made.actions
        async with reached(server) as target:
            assert not (await apply(target, actions, {})).failed
        assert catalogs(server, shop) == before
        again = command(tmp_path, server, "--namespace", "shop")
        assert not set(names) & {body["spec"]["roleName"] for body in yaml.safe_load_all(again.stdout) if body}
        assert again.stderr.count("the mark of DatabaseUser shop/") >= COUNT
        assert sum(len(spec.grants) for spec in specs.values()) > COUNT
        pruned = [key for key, spec in specs.items() if spec.pruning == "None"]
        print(f"{len(specs)} roles, {len(pruned)} of them with pruning: None")
        assert len(pruned) < COUNT / 4
    finally:
        with server.superuser_connect(shop.name) as connection:
            for name in names:
                connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            for name in names:
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))
