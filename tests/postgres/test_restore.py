"""A backup becomes a database again, whole or not at all: as it was to the last ACL, and with everything that can go
wrong on the way named, and nothing left of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyrage
import pytest
from psycopg import sql
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import Login, PostgresServer
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_kit import TABLES, Kit, allow, hooks, make_kit, once, row_counts

from pgtend.backups.jobs.config import Termination
from pgtend.postgres.contents import HELD

ROOT = Path(__file__).resolve().parents[2]
RICH = """
CREATE ROLE {owner} NOLOGIN;
CREATE ROLE {reader} NOLOGIN;
CREATE SEQUENCE shop.tickets START 41 INCREMENT 7;
SELECT nextval('shop.tickets'), nextval('shop.tickets');
COMMENT ON TABLE shop.orders IS 'what was ordered; it''s "quoted"';
CREATE INDEX ON shop.orders (made) WHERE note IS NOT NULL;
CREATE DOMAIN shop.amount AS numeric CHECK (VALUE >= 0);
CREATE TYPE shop.state AS ENUM ('new', 'paid');
CREATE TABLE shop.payments (id int PRIMARY KEY, paid shop.amount, state shop.state DEFAULT 'new',
    order_id bigint REFERENCES shop.orders, twice numeric GENERATED ALWAYS AS (id * 2) STORED);
INSERT INTO shop.payments (id, paid, order_id) SELECT g, g / 3.0, g FROM generate_series(1, 500) g;
CREATE VIEW shop.open AS SELECT * FROM shop.payments WHERE state = 'new';
ALTER TABLE shop.payments ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON shop.payments USING (id % 2 = 0);
CREATE FUNCTION shop.stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.made := now(); RETURN NEW; END $$;
CREATE TRIGGER stamp BEFORE UPDATE ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.stamp();
ALTER TABLE shop.payments OWNER TO {owner};
GRANT SELECT (id, paid) ON shop.payments TO {reader};
GRANT USAGE ON SCHEMA shop TO {reader};
ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO {reader};
"""


@pytest.fixture
def server(postgres: Postgres, request: pytest.FixtureRequest) -> PostgresServer:
    return postgres(getattr(request, "param", 18))


@pytest.fixture
def kit(server: PostgresServer, s3: S3Server, tmp_path: Path) -> Kit:
    return make_kit(server, s3, tmp_path)


def schema_of(kit: Kit, database: str, *arguments: str) -> str:
    """`pg_dump -s` without what is different in every run."""
    done = subprocess.run(
        [str(kit.programs / "pg_dump"), "--schema-only", *arguments, "--dbname", kit.server.dsn(dbname=database)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin"},
    )
    return re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE)


def state_of(server: PostgresServer, database: str) -> dict[str, Any]:
    """An ordered hash of the rows of every table, every sequence's state, and every large object."""
    found: dict[str, Any] = {}
    with server.superuser_connect(database) as connection:
        tables = connection.execute(
            "SELECT n.nspname, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE relkind IN ('r', 'S', 'm') AND nspname NOT IN ('pg_catalog', 'information_schema')"
            " AND nspname NOT LIKE 'pg_toast%'"
        ).fetchall()
        for schema, name, kind in tables:
            row = sql.SQL("last_value, is_called") if kind == "S" else sql.SQL("t")
            query = sql.SQL("SELECT count(*), md5(string_agg(({})::text, '|' ORDER BY ({})::text)) FROM ONLY {} t")
            if kind == "S":
                query = sql.SQL("SELECT {0}, 0 FROM {2}")
            found[f"{schema}.{name}"] = connection.execute(
                query.format(row, row, sql.Identifier(schema, name))
            ).fetchone()
        found["large objects"] = connection.execute(
            "SELECT oid, md5(lo_get(oid)), lomowner, lomacl::text FROM pg_largeobject_metadata ORDER BY oid"
        ).fetchall()
    return found


def role(kit: Kit, *attributes: str) -> Login:
    return kit.server.fresh_role("restore", " ".join(attributes) or "CREATEDB")


def owner_of(kit: Kit, login: Login) -> str:
    """A role that the restoring role may make owner of what it restores."""
    name = kit.server.fresh_name("owner")
    kit.server.execute(f"CREATE ROLE {name} NOLOGIN; GRANT {name} TO {login.user}")
    return name


def exists(kit: Kit, database: str) -> bool:
    return bool(kit.server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]))


def held(kit: Kit, database: str) -> list[str]:
    with kit.server.superuser_connect(database) as connection:
        return [row[0] for row in connection.execute(HELD).fetchall()]


def fails(kit: Kit, manifest: str, into: Login, database: str, reason: str, **changes: Any) -> Termination:
    status, told = kit.restore(manifest, into, database, **changes)
    assert (status, told.outcome, told.reason) == (1, "Failed", reason), told
    assert not list(kit.scratch.glob("pgpass*"))
    return told


@pytest.mark.parametrize("server", [14, 18], indirect=True)
def test_what_was_wrecked_comes_back_to_the_last_grant(kit: Kit) -> None:
    names = {name: kit.server.fresh_name(name) for name in ("owner", "reader")}
    source, copy = kit.databases[0], kit.server.fresh_name("again")
    kit.sql(RICH.format(**names))
    allow(kit.server, source, kit.role)
    before, rows = schema_of(kit, source), state_of(kit.server, source)
    manifest = str(kit.good_dump().manifest)
    kit.sql("DROP SCHEMA shop CASCADE; SELECT lo_unlink(oid) FROM pg_largeobject_metadata")

    status, told = kit.restore(manifest, role(kit, "SUPERUSER"), copy)
    assert (status, told.reason, told.rows_compared) == (0, "Restored", True), told
    assert schema_of(kit, copy) == before
    assert state_of(kit.server, copy) == rows
    counted = sum(table.rows or 0 for table in kit.manifest(manifest).databases[0].tables)
    assert told.databases[0].rows == counted and f"{counted} rows counted and compared" in told.message
    assert {"connect", "create", "restore", "check"} <= told.phases.keys()
    made = "SELECT pg_encoding_to_char(encoding), datcollate, datctype, datdba FROM pg_database WHERE datname = %s"
    assert kit.server.execute(made, [copy]) == kit.server.execute(made, [source])
    # and the negative: the comparison sees a single row and a single grant
    kit.sql("UPDATE shop.payments SET paid = 1 WHERE id = 7", database=copy)
    assert state_of(kit.server, copy) != rows
    kit.sql(f"REVOKE SELECT (paid) ON shop.payments FROM {names['reader']}", database=copy)  # noqa: S608
    assert schema_of(kit, copy) != before


@pytest.mark.parametrize("server", [14, 18], indirect=True)
def test_a_role_without_superuser_restores_what_another_shall_own(kit: Kit) -> None:
    into, copy, source = role(kit), kit.server.fresh_name("owned"), kit.databases[0]
    owner = owner_of(kit, into)
    manifest = str(kit.good_dump().manifest)
    before, rows = schema_of(kit, source, "--no-owner"), state_of(kit.server, source)
    status, told = kit.restore(manifest, into, copy, owner=owner)
    assert (status, told.rows_compared) == (0, True), told
    assert schema_of(kit, copy, "--no-owner") == before
    after = state_of(kit.server, copy)
    assert {name: after[name] for name in after if "." in name} == {name: rows[name] for name in rows if "." in name}
    owners = kit.sql(
        "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE nspname IN ('shop', 'public') UNION SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname ="
        " current_database()",
        database=copy,
    )
    assert owners == [(owner,)]


EVERY_MAJOR = [14, 15, *(pytest.param(major, marks=pytest.mark.matrix) for major in (16, 17)), 18]
WHOLE = """
ALTER DATABASE {database} SET work_mem = '7MB';
ALTER DATABASE {database} SET search_path = "a b", shop, public;
ALTER DATABASE {database} SET default_transaction_read_only = on;
ALTER DATABASE {database} CONNECTION LIMIT 17;
ALTER ROLE {reader} IN DATABASE {database} SET my.note = 'it''s; DROP me \\ or not';
COMMENT ON DATABASE {database} IS E'what; it''s\n"for"';
REVOKE ALL ON DATABASE {database} FROM PUBLIC;
GRANT CONNECT ON DATABASE {database} TO {reader} WITH GRANT OPTION;
GRANT TEMPORARY ON DATABASE {database} TO {owner};
SET ROLE {reader};
GRANT CONNECT ON DATABASE {database} TO {owner};
RESET ROLE;
"""


def whole_of(kit: Kit, database: str) -> str:
    """All that `pg_dump --create -s` says of a database, with its name taken out."""
    return schema_of(kit, database, "--create").replace(database, "<database>")


@pytest.mark.parametrize("server", EVERY_MAJOR, indirect=True)
def test_what_belongs_to_the_database_as_a_whole_comes_back(kit: Kit) -> None:
    names = {name: kit.server.fresh_name(name) for name in ("owner", "reader")}
    source, copy = kit.databases[0], kit.server.fresh_name("whole")
    kit.sql(RICH.format(**names))
    kit.sql("CREATE EXTENSION pgstattuple")  # of a version that is not the newest the archive knows nothing
    allow(kit.server, source, kit.role)
    kit.server.execute(f"GRANT CONNECT ON DATABASE {source} TO {kit.role.user}")
    kit.server.execute(WHOLE.format(database=source, **names))
    manifest, rows = str(kit.good_dump().manifest), state_of(kit.server, source)
    before = whole_of(kit, source)
    assert all(word in before for word in ("work_mem", "my.note", "CONNECTION LIMIT", "COMMENT ON DATABASE", "GRANT"))
    kit.server.execute(
        f"ALTER DATABASE {source} RESET ALL; ALTER ROLE {names['reader']} IN DATABASE {source} RESET ALL"
    )
    kit.sql("DROP SCHEMA shop CASCADE; SELECT lo_unlink(oid) FROM pg_largeobject_metadata")

    status, told = kit.restore(manifest, role(kit, "SUPERUSER"), copy)
    assert (status, told.reason, told.rows_compared) == (0, "Restored", True), told
    assert "without" not in told.message and "database" in told.phases
    assert whole_of(kit, copy) == before
    assert state_of(kit.server, copy) == rows
    # and the negative: one setting of one role is seen
    kit.server.execute(f"ALTER ROLE {names['reader']} IN DATABASE {copy} RESET my.note")
    assert whole_of(kit, copy) != before


def test_a_limit_that_is_given_back_does_not_keep_the_count_out(kit: Kit) -> None:
    into, copy = role(kit), kit.server.fresh_name("closed")
    owner = owner_of(kit, into)
    # the dump itself needs to get in: with a limit of 0 only who is a superuser does
    kit.server.execute(f"ALTER DATABASE {kit.databases[0]} CONNECTION LIMIT 0; ALTER ROLE {kit.role.user} SUPERUSER")
    manifest = str(kit.good_dump().manifest)
    status, told = kit.restore(manifest, into, copy, owner=owner)
    assert (status, told.reason, told.rows_compared) == (0, "Restored", True), told
    assert kit.server.execute("SELECT datconnlimit FROM pg_database WHERE datname = %s", [copy]) == [(0,)]
    assert list(told.phases).index("check") < list(told.phases).index("database")


@pytest.mark.parametrize("server", [14, 18], indirect=True)
def test_what_the_database_has_of_its_own_stays_and_what_is_refused_is_told(kit: Kit) -> None:
    names = {name: kit.server.fresh_name(name) for name in ("owner", "reader")}
    source, mine, theirs = kit.databases[0], kit.server.fresh_database("mine"), kit.server.fresh_name("theirs")
    kit.server.execute("CREATE ROLE {owner} NOLOGIN; CREATE ROLE {reader} NOLOGIN".format(**names))
    kit.server.execute(WHOLE.format(database=source, **names))
    kit.server.execute(f"GRANT CONNECT ON DATABASE {source} TO {kit.role.user}")
    manifest = str(kit.good_dump().manifest)
    kit.server.execute(f"ALTER DATABASE {mine} SET work_mem = '3MB'")
    before = whole_of(kit, mine)
    assert kit.restore(manifest, role(kit, "SUPERUSER"), mine)[0] == 0
    kit.sql('DROP SCHEMA shop CASCADE; DROP TABLE "Odd ""name"" (x)"', database=mine)
    kit.sql("SELECT lo_unlink(oid) FROM pg_largeobject_metadata", database=mine)
    assert whole_of(kit, mine) == before, "what it had of its own is not overwritten"

    # a role that is no superuser gives what the owner may give; the setting of another role is the server's to refuse
    into = role(kit)
    status, told = kit.restore(manifest, into, theirs, owner=owner_of(kit, into))
    assert (status, told.reason) == (0, "Restored"), told
    refused = re.search(r" without (.*), which the server refused", told.message)
    assert refused is not None and refused[1].split(", ") == [
        f'ALTER ROLE {names["reader"]} IN DATABASE ... SET "my.note"',
        f"GRANT CONNECT ON DATABASE ... TO {names['owner']}",
    ]
    assert "DROP me" not in told.message
    after = whole_of(kit, theirs)
    assert "SET work_mem TO '7MB'" in after and f"GRANT CONNECT ON DATABASE <database> TO {names['reader']}" in after


PARTS = """
CREATE SCHEMA other;
COMMENT ON SCHEMA other IS 'it''s the other one';
CREATE TABLE other.things (id int PRIMARY KEY, note text);
CREATE INDEX things_note ON other.things (note);
INSERT INTO other.things SELECT g, 'x' FROM generate_series(1, 77) g;
CREATE FUNCTION other.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
GRANT USAGE ON SCHEMA other TO PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA other GRANT SELECT ON TABLES TO PUBLIC;
CREATE SCHEMA "odd Schema; --";
CREATE TABLE "odd Schema; --"."a b" (x int);
INSERT INTO "odd Schema; --"."a b" VALUES (1), (2);
"""


@pytest.mark.covers("PostgresOperation.spec.restore.select.schemas[]")
@pytest.mark.parametrize("server", [14, 15, 18], indirect=True)
@pytest.mark.parametrize("schema", ["other", "odd Schema; --"])
def test_a_schema_comes_back_beside_what_is_there(kit: Kit, schema: str) -> None:
    source = kit.databases[0]
    kit.sql(PARTS)
    allow(kit.server, source, kit.role)
    manifest, into = str(kit.good_dump().manifest), role(kit, "SUPERUSER")
    before, rows = schema_of(kit, source, f'--schema="{schema}"'), state_of(kit.server, source)
    kit.sql(f'DROP SCHEMA "{schema}" CASCADE')
    kit.sql("DELETE FROM shop.orders WHERE id > 10")
    kept = {name: value for name, value in state_of(kit.server, source).items() if not name.startswith(schema)}

    # into the database itself, beside all that it holds
    status, told = kit.restore(manifest, into, source, ifNotEmpty="Add", schemas=[schema])
    assert (status, told.reason, told.rows_compared) == (0, "Restored", True), told
    assert schema_of(kit, source, f'--schema="{schema}"') == before
    after = state_of(kit.server, source)
    assert {name: value for name, value in after.items() if not name.startswith(schema)} == kept
    assert {name: after[name] for name in after if name.startswith(schema)} == {
        name: rows[name] for name in rows if name.startswith(schema)
    }
    assert told.databases[0].tables == 1 and told.databases[0].rows == (77 if schema == "other" else 2)
    # once more it clashes, and changes nothing
    told = fails(kit, manifest, into, source, "ObjectClash", ifNotEmpty="Add", schemas=[schema])
    assert state_of(kit.server, source) == after

    # into a database of its own there is nothing else
    copy = kit.server.fresh_name("part")
    status, told = kit.restore(manifest, into, copy, schemas=[schema])
    assert (status, told.rows_compared) == (0, True), told
    assert {name.partition(".")[0] for name in state_of(kit.server, copy) if "." in name} == {schema}
    assert schema_of(kit, copy, f'--schema="{schema}"') == before


@pytest.mark.covers("PostgresOperation.reason.SchemaNotInBackup")
def test_a_schema_that_the_backup_lacks_is_told(kit: Kit) -> None:
    kit.sql('CREATE SCHEMA "shop two"')
    manifest, copy = str(kit.good_dump().manifest), kit.server.fresh_name("copy")
    told = fails(kit, manifest, role(kit), copy, "SchemaNotInBackup", schemas=["shop two", "nothing"])
    assert "no schema nothing of that database" in told.message and not exists(kit, copy)
    # whose name cannot be told from a longer one is not guessed at
    told = fails(kit, manifest, role(kit), copy, "ArchiveUnreadable", schemas=["shop"])
    assert "does not tell schema shop from another" in told.message and not exists(kit, copy)


def test_rows_that_a_schema_lacks_are_found(kit: Kit) -> None:
    """The comparison is of the chosen tables, and it is one: with a count that is none it fails."""
    manifest = str(kit.good_dump().manifest)
    record = json.loads(kit.read(manifest))
    [orders] = [t for d in record["databases"] for t in d["tables"] if t["name"] == "orders"]
    orders["rows"] += 1
    kit.overwrite(manifest, json.dumps(record).encode())
    told = fails(
        kit, manifest, role(kit, "SUPERUSER"), kit.server.fresh_name("copy"), "RowCountMismatch", schemas=["shop"]
    )
    assert "shop.orders has 5000 rows, the backup was taken of 5001" in told.message


@pytest.mark.covers("PostgresOperation.reason.NotCompared")
def test_a_server_that_is_lost_after_the_commit_is_not_told_as_nothing_restored(kit: Kit) -> None:
    manifest, into, copy = str(kit.good_dump().manifest), role(kit, "SUPERUSER"), kit.server.fresh_name("copy")
    with hooks(backups__restore__restored=once(lambda: kit.server.execute(f"ALTER ROLE {into.user} NOLOGIN"))):
        told = fails(kit, manifest, into, copy, "NotCompared")
    assert f"everything is in {copy}, but phase " in told.message
    assert row_counts(kit.server, copy) == TABLES


@pytest.mark.covers("PostgresOperation.reason.ObjectClash")
def test_a_database_that_holds_something_is_refused_and_added_to_only_when_told(kit: Kit) -> None:
    manifest, into = str(kit.good_dump().manifest), role(kit, "SUPERUSER")
    target = kit.server.fresh_database("busy")
    kit.sql("CREATE TABLE kept (a int); INSERT INTO kept VALUES (1)", database=target)
    told = fails(kit, manifest, into, target, "DatabaseNotEmpty")
    assert "public.kept" in told.message and "nothing was restored" in told.message
    assert held(kit, target) == ["public.kept"]

    status, told = kit.restore(manifest, into, target, ifNotEmpty="Add")
    assert (status, told.rows_compared) == (0, False), told
    assert kit.sql("SELECT count(*) FROM kept", database=target) == [(1,)]
    assert kit.sql("SELECT count(*) FROM shop.orders", database=target) == [(5000,)]
    # what is there is never replaced
    kit.sql("TRUNCATE shop.orders CASCADE", database=target)
    told = fails(kit, manifest, into, target, "ObjectClash", ifNotEmpty="Add")
    assert "already exists" in told.message
    assert kit.sql("SELECT count(*) FROM shop.orders", database=target) == [(0,)]


@pytest.mark.parametrize(
    "held_by", ["CREATE SCHEMA lone", "CREATE TYPE mood AS ENUM ('x')", "CREATE FUNCTION f() RETURNS int LANGUAGE sql"
                " AS 'SELECT 1'", "SELECT lo_from_bytea(0, 'x')", "CREATE SEQUENCE s", "CREATE DOMAIN d AS int"]
)  # fmt: skip
def test_anything_that_somebody_made_counts(kit: Kit, held_by: str) -> None:
    target = kit.server.fresh_database("held")
    assert held(kit, target) == []
    kit.sql(held_by, database=target)
    assert len(held(kit, target)) == 1


def test_of_an_extension_nothing_counts(kit: Kit) -> None:
    target = kit.server.fresh_database("extended")
    kit.sql("CREATE EXTENSION pgstattuple", database=target)
    assert held(kit, target) == []


def test_the_wrong_key_opens_nothing(kit: Kit) -> None:
    manifest, copy = str(kit.good_dump().manifest), kit.server.fresh_name("copy")
    kit.write("other", f"{pyrage.x25519.Identity.generate()}\n")
    told = fails(kit, manifest, role(kit), copy, "KeyMissing", identityFile=str(kit.folder / "other"))
    assert "verify, escrow" in told.message
    assert not exists(kit, copy)
    told = fails(kit, manifest, role(kit), copy, "SecretMissing", identityFile=str(kit.folder / "nowhere"))
    assert not exists(kit, copy)


def damaged(body: bytes, how: str) -> bytes:
    if how == "flipped":
        middle = len(body) // 2
        return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
    return body[: {"cut": len(body) // 2, "short by one": len(body) - 1}[how]]


@pytest.mark.covers("PostgresOperation.reason.TruncatedArchive", "PostgresOperation.reason.ChecksumMismatch")
@pytest.mark.parametrize(
    ("how", "reason"),
    [("cut", "TruncatedArchive"), ("short by one", "TruncatedArchive"), ("flipped", "ChecksumMismatch")],
)
def test_what_is_damaged_leaves_the_database_empty(kit: Kit, how: str, reason: str) -> None:
    kit.noise(6)
    manifest = str(kit.good_dump().manifest)
    key = f"{manifest.rpartition('/')[0]}/{kit.databases[0]}.dump.zst.age"
    whole, target, into = kit.read(key), kit.server.fresh_database("empty"), role(kit, "SUPERUSER")
    kit.overwrite(key, damaged(whole, how))
    fails(kit, manifest, into, target, reason)
    assert held(kit, target) == []
    kit.overwrite(key, whole)
    assert kit.restore(manifest, into, target)[0] == 0


@pytest.mark.covers("PostgresOperation.reason.RowCountMismatch")
def test_another_archive_under_the_same_name_is_not_restored(kit: Kit) -> None:
    """It decrypts, it decompresses, pg_restore would take it: the manifest's checksum alone tells."""
    good = str(kit.good_dump().manifest)
    kit.sql("DELETE FROM shop.orders WHERE id = 1")
    other = str(kit.good_dump().manifest)
    keys = [f"{manifest.rpartition('/')[0]}/{kit.databases[0]}.dump.zst.age" for manifest in (good, other)]
    kit.overwrite(keys[0], kit.read(keys[1]))
    target, into = kit.server.fresh_database("swapped"), role(kit, "SUPERUSER")
    with pytest.MonkeyPatch.context() as patch:  # the guard switched off: it would be taken
        patch.setattr("pgtend.backups.jobs.restore.compare_stored", lambda *_: None)
        patch.setattr("pgtend.backups.jobs.restore.compare_raw", lambda *_: None)
        fails(kit, good, into, target, "RowCountMismatch")
    assert held(kit, target) != []
    target = kit.server.fresh_database("guarded")
    status, told = kit.restore(good, into, target)
    assert (status, told.reason) in ((1, "ChecksumMismatch"), (1, "TruncatedArchive")), told
    assert held(kit, target) == []


@pytest.mark.covers("PostgresOperation.reason.ObjectMissing")
def test_an_object_that_is_gone_is_named(kit: Kit) -> None:
    manifest, target = str(kit.good_dump().manifest), kit.server.fresh_database("gone")
    key = f"{manifest.rpartition('/')[0]}/{kit.databases[0]}.dump.zst.age"
    kit.s3.client().delete_object(Bucket=kit.bucket, Key=key)
    assert fails(kit, manifest, role(kit), target, "ObjectMissing").object == key
    assert fails(kit, manifest, role(kit), target, "DatabaseNotInBackup", source="elsewhere").object == "elsewhere"


def lacking(kit: Kit, what: str) -> tuple[str, dict[str, Any], str]:
    """A fault that pg_restore meets on the server: the database to restore into, what is asked, what is said."""
    target = kit.server.fresh_database("lacking")
    into = role(kit, "SUPERUSER")
    if what == "RoleMissing":
        owner = kit.server.fresh_name("leaver")
        kit.sql(f"CREATE ROLE {owner}; ALTER TABLE shop.empty OWNER TO {owner}")
        manifest = str(kit.good_dump().manifest)
        kit.sql(f"ALTER TABLE shop.empty OWNER TO CURRENT_USER; DROP OWNED BY {owner}; DROP ROLE {owner}")
        return target, {"manifest": manifest, "into": into}, owner
    if what == "ExtensionUnavailable":
        kit.sql("CREATE EXTENSION pgstattuple")
        owner = owner_of(kit, into := role(kit))
        kit.server.execute(f"ALTER DATABASE {target} OWNER TO {owner}")
        return target, {"manifest": str(kit.good_dump().manifest), "into": into, "owner": owner}, "pgstattuple"
    if what == "PermissionDenied":
        return target, {"manifest": str(kit.good_dump().manifest), "into": role(kit)}, "permission denied"
    raise AssertionError(what)


@pytest.mark.covers(
    "PostgresOperation.reason.RoleMissing",
    "PostgresOperation.reason.PermissionDenied",
    "PostgresOperation.reason.ExtensionUnavailable",
)
@pytest.mark.parametrize("reason", ["RoleMissing", "PermissionDenied", "ExtensionUnavailable"])
def test_what_the_server_refuses_is_named_and_nothing_is_left(kit: Kit, reason: str) -> None:
    target, asked, said = lacking(kit, reason)
    told = fails(kit, asked.pop("manifest"), asked.pop("into"), target, reason, **asked)
    assert said in told.message and "pg_restore into" in told.message
    assert held(kit, target) == []


def test_a_database_that_may_not_be_created_says_which_grant(kit: Kit) -> None:
    manifest, copy = str(kit.good_dump().manifest), kit.server.fresh_name("copy")
    told = fails(kit, manifest, role(kit, "NOCREATEDB"), copy, "PermissionDenied")
    assert "CREATEDB" in told.message and not exists(kit, copy)
    told = fails(kit, manifest, role(kit, "SUPERUSER"), copy, "RoleMissing", owner="nobody at all")
    assert "nobody at all" in told.message and not exists(kit, copy)


def test_another_server_is_left_alone(kit: Kit) -> None:
    manifest, copy = str(kit.good_dump().manifest), kit.server.fresh_name("copy")
    told = fails(kit, manifest, role(kit), copy, "IdentityChanged", server={"systemIdentifier": "1"})
    assert "nothing was restored" in told.message and not exists(kit, copy)


@pytest.mark.covers("PostgresOperation.reason.VersionMismatch")
def test_a_newer_backup_is_refused_by_an_older_server(
    kit: Kit, postgres: Postgres, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    manifest = str(kit.good_dump().manifest)
    old = postgres(14)
    older = Kit(server=old, s3=s3, folder=tmp_path_factory.mktemp("older"), role=kit.role, databases=kit.databases,
                bucket=kit.bucket, identity=kit.identity)  # fmt: skip
    copy = old.fresh_name("copy")
    told = fails(older, manifest, role(older), copy, "VersionMismatch")
    assert "same major or a later one" in told.message and not exists(older, copy)


@pytest.mark.covers("PostgresOperation.reason.LocksExhausted")
def test_too_many_locks_for_one_transaction_are_named(kit: Kit) -> None:
    """Each large object whose owner is set takes a lock until the end; the server has room for some ten thousand."""
    many, into = kit.server.fresh_database("many"), role(kit, "SUPERUSER")
    for _ in range(14):  # a transaction each: they would not fit in one
        kit.sql("SELECT lo_create(0) FROM generate_series(1, 2000)", database=many)
    kit.server.execute(f"ALTER ROLE {kit.role.user} SUPERUSER")
    manifest = str(kit.good_dump(databases=[many]).manifest)
    target = kit.server.fresh_database("taking")
    told = fails(kit, manifest, into, target, "LocksExhausted", source=many)
    assert "max_locks_per_transaction" in told.message
    assert held(kit, target) == []


def started(kit: Kit, value: dict[str, Any], failpoints: str) -> subprocess.Popen[bytes]:
    """The job as a process of its own, as its pod runs it."""
    return subprocess.Popen(
        [sys.executable, "-m", "pgtend", "job", "restore", "--config", str(kit.config_file(value))],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "operator"), "PGTEND_FAILPOINTS": failpoints},
        stderr=subprocess.PIPE,
    )


def until(what: str, check: Callable[[], Any], *, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.2)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle_nothing_is_in_the_database(kit: Kit, how: signal.Signals) -> None:
    manifest, target, into = str(kit.good_dump().manifest), kit.server.fresh_database("half"), role(kit, "SUPERUSER")
    value = kit.restore_config(manifest, into, target)
    # everything was sent but the last bytes
    job = started(kit, value, "backups.restore.before_end=sleep:300")
    try:
        ours = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'pgtend/%%/restore/%%'"
        )
        wrote = f"{ours} AND backend_xid IS NOT NULL"
        until("rows are written", lambda: kit.server.execute(wrote, [target]) != [(0,)])
        job.send_signal(how)
        job.wait(60)
        # the client of a killed job reads the end of its input
        until("its session ends", lambda: kit.server.execute(ours, [target]) == [(0,)])
    finally:
        job.kill()
        job.communicate()
    assert held(kit, target) == []
    if how is signal.SIGTERM:
        told = kit.result()
        assert (told.reason, told.transient) == ("Interrupted", True)
        assert "while in phase restore" in told.message
    assert kit.restore(manifest, into, target)[0] == 0, "and it can be done again"


@pytest.mark.parametrize("point", ["created", "streaming", "restored"])
def test_killed_at_any_step_all_of_it_is_there_or_nothing(kit: Kit, point: str) -> None:
    manifest, target, into = str(kit.good_dump().manifest), kit.server.fresh_name("steps"), role(kit, "SUPERUSER")
    job = started(kit, kit.restore_config(manifest, into, target), f"backups.restore.{point}=kill")
    job.communicate(timeout=120)
    assert job.returncode == -signal.SIGKILL
    ours = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name LIKE 'pgtend/%%/restore/%%'"
    until("its session ends", lambda: kit.server.execute(ours, [target]) == [(0,)])
    if point == "restored":
        assert row_counts(kit.server, target) == TABLES
        fails(kit, manifest, into, target, "DatabaseNotEmpty")
    else:
        assert held(kit, target) == [], "the database was made, and is empty"
        assert kit.restore(manifest, into, target)[0] == 0, "and it can be done again"
        assert row_counts(kit.server, target) == TABLES


def test_pg_restore_killed_under_it_is_a_failure(kit: Kit) -> None:
    kit.noise(4)
    manifest, target, into = str(kit.good_dump().manifest), kit.server.fresh_database("under"), role(kit, "SUPERUSER")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND backend_xid IS NOT NULL"

    def strike() -> None:
        until("it writes", lambda: kit.server.execute(end, [target]))

    with hooks(backups__restore__before_end=once(strike)):
        told = fails(kit, manifest, into, target, "RestoreFailed")
    assert "terminat" in told.message
    assert held(kit, target) == []


def test_the_secrets_are_in_no_argument_and_no_message(kit: Kit) -> None:
    manifest, target, into = str(kit.good_dump().manifest), kit.server.fresh_database("secret"), role(kit, "SUPERUSER")
    job = started(kit, kit.restore_config(manifest, into, target), "backups.restore.before_end=sleep:300")
    secrets = (into.password, str(kit.identity), kit.s3.reader.secret_key)
    try:
        until("pg_restore runs", lambda: children(job.pid))
        for child in (job.pid, *children(job.pid)):
            for part in ("cmdline", "environ"):
                text = Path(f"/proc/{child}/{part}").read_text(errors="replace")
                assert not [secret for secret in secrets if secret in text], (child, part)
        assert "--single-transaction" in Path(f"/proc/{children(job.pid)[-1]}/cmdline").read_text()
    finally:
        job.terminate()
        _, errors = job.communicate(timeout=60)
    assert not [
        secret for secret in secrets if secret in errors.decode() + json.dumps(kit.result().to_wire(), default=str)
    ]


def children(pid: int) -> list[int]:
    done = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]
