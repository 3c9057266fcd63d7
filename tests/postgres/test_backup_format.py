"""A backup that was written once, by an early version, is read, restored and listed for ever: whoever has one in a
bucket needs no old pgtend to get it back.

tests/fixtures/backup-format-1 holds the objects of one dump of PostgreSQL 14, which every later major takes, as they
lie in the bucket, and the age identity that opens them (a key of this test alone). PGTEND_FORMAT=write writes them
anew; that is for another format beside this one, never for this one.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from psycopg import sql
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_kit import INSTALLATION, POLICY, Kit, make_kit

from pgtend.backups.bucket import read_policy
from pgtend.core.redaction import Sensitive
from pgtend.objectstore.config import AccessKey, StoreConfig
from pgtend.objectstore.s3 import Store

FOLDER = Path(__file__).parents[1] / "fixtures" / "backup-format-1"
KEYS = FOLDER / "bucket"
DATABASE = "Ördérs / 1"
FILL = """
CREATE SCHEMA shop;
CREATE TABLE shop.orders (id bigserial PRIMARY KEY, note text NOT NULL, made timestamptz DEFAULT '2026-11-01');
INSERT INTO shop.orders (note) SELECT E'line\\nbreak \\\\. and tab\\t' || g FROM generate_series(1, 500) g;
CREATE TABLE shop.events (at date, what text) PARTITION BY RANGE (at);
CREATE TABLE shop.events_1 PARTITION OF shop.events FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
INSERT INTO shop.events SELECT date '2026-01-01' + g, 'event ' || g FROM generate_series(1, 300) g;
CREATE TABLE public."Odd ""(x)" ("a.b" int);
CREATE INDEX ON shop.events (what);
CREATE VIEW shop.recent AS SELECT id, note FROM shop.orders WHERE id > 490;
CREATE FUNCTION shop.twice(a int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * a';
COMMENT ON TABLE shop.orders IS 'what was ordered';
SELECT lo_from_bytea(0, 'a large object');
"""
ROWS = {"shop.orders": 500, "shop.events_1": 300, 'public.Odd "(x)': 0}


def test_the_objects_are_written_when_asked_to(postgres: Postgres, s3: S3Server, tmp_path: Path) -> None:
    """Makes the fixture; of all other runs it only looks that it is there and whole."""
    if os.environ.get("PGTEND_FORMAT") == "write":
        write(make_kit(postgres(14), s3, tmp_path))
    assert (FOLDER / "identity.txt").read_text().startswith("# ")
    assert sorted(path.name for path in KEYS.rglob("*.*")) == [
        "%C3%96rd%C3%A9rs%20%2F%201.dump.zst.age",
        "globals.sql.zst.age",
        "manifest.json",
        "verified-read.json",
    ]


def write(kit: Kit) -> None:
    with kit.server.superuser_connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    kit.sql(FILL, database=DATABASE)
    # no GRANT that whoever restores it would need a role for
    kit.server.execute(sql.SQL("ALTER ROLE {} SUPERUSER").format(sql.Identifier(kit.role.user)))
    result = kit.good_dump(databases=[DATABASE], globals="WithoutPasswords")
    assert kit.verify(str(result.manifest))[0] == 0
    for key in kit.run_keys():
        path = KEYS / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(kit.read(key))
    (FOLDER / "identity.txt").write_text(f"# of this fixture alone\n{kit.identity}\n")


@pytest.fixture
def kept(server: PostgresServer, s3: S3Server, tmp_path: Path) -> tuple[Kit, str]:
    """The objects in a bucket, and the manifest's key; a server of each everyday major."""
    kit = make_kit(server, s3, tmp_path)
    for path in KEYS.rglob("*.*"):
        kit.overwrite(path.relative_to(KEYS).as_posix(), path.read_bytes())
    kit.write("identity", (FOLDER / "identity.txt").read_text())
    (manifest,) = [key for key in kit.run_keys() if key.endswith("/manifest.json")]
    return kit, manifest


def test_a_backup_of_the_first_format_is_listed_as_verified(kept: tuple[Kit, str]) -> None:
    kit, manifest = kept
    admin = kit.s3.admin
    store = Store(
        config=StoreConfig.model_validate(kit.store()),
        credentials=AccessKey(id=admin.access_key, secret=Sensitive(admin.secret_key)),
    )
    catalog = read_policy(store, installation=INSTALLATION, policy=(POLICY["namespace"], POLICY["name"]))
    store.close()
    (backup,) = catalog.backups
    assert backup.run.location.manifest == manifest and backup.verified and not catalog.unreadable
    assert backup.manifest.format_version == 1 and backup.manifest.server_version.startswith("14.")
    assert backup.manifest.started_at < datetime.now(UTC)


def test_a_backup_of_the_first_format_is_read_and_restored(kept: tuple[Kit, str]) -> None:
    kit, manifest = kept
    status, result = kit.verify(manifest)
    assert status == 0, result
    assert result.rows_compared and [(d.name, d.rows) for d in result.databases] == [(DATABASE, sum(ROWS.values()))]

    restored = kit.server.fresh_database("restored")
    (dump,) = [key for key in kit.run_keys() if key.endswith(".dump.zst.age")]
    kit.restore_with_stock_tools(dump, restored)
    looks_as_it_did(kit, restored)

    into = kit.server.fresh_role("restoring", "SUPERUSER")
    copy = kit.server.fresh_name("copy")
    status, result = kit.restore(manifest, into, copy, source=DATABASE, owner=into.user)
    assert status == 0, result
    looks_as_it_did(kit, copy)


def looks_as_it_did(kit: Kit, database: str) -> None:
    def of(query: str) -> list[tuple[object, ...]]:
        return kit.sql(query, database=database)

    assert of("SELECT count(*), sum(id), min(note) FROM shop.orders") == [(500, 125250, "line\nbreak \\. and tab\t1")]
    assert of("SELECT count(*), max(what) FROM shop.events_1") == [(300, "event 99")]
    assert of('SELECT count(*) FROM "Odd ""(x)"') == [(0,)]
    assert of("SELECT count(*) FROM shop.recent") == [(10,)] and of("SELECT shop.twice(21)") == [(42,)]
    assert of("SELECT obj_description('shop.orders'::regclass)") == [("what was ordered",)]
    assert of("SELECT nextval('shop.orders_id_seq')") == [(501,)]
    assert of("SELECT lo_get(oid) FROM pg_largeobject_metadata") == [(b"a large object",)]
