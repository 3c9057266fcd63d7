"""Parts of a database: what our patterns mean is what pg_dump takes. Every dump here is read back, which compares the
tables in the archive, and their rows, with those that were locked and counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_kit import TABLES, Kit, fill, make_kit, row_counts

ODD = 'Odd "name" (x)'
# what a pattern could mistake: case, dots, quotes, and what pg_dump's own patterns know
NAMES = ["orders", "Orders", "ord?rs", "a.b", 'q"q', "$1", "a*b", "x|y", "(z)", "[q]", "ä b", "c\\d"]
SCHEMAS = ["shop", "Shop", "s.x", 's"h', "sh*p"]


@pytest.fixture
def kit(server: PostgresServer, s3: S3Server, tmp_path: Path) -> Kit:
    """On each everyday major."""
    return make_kit(server, s3, tmp_path)


def taken(kit: Kit, **part: Any) -> dict[str, int | None]:
    """The tables of a dump of this part, which is read back."""
    database = kit.databases[0]
    result = kit.good_dump(parts=[{"name": database, **part}])
    assert result.manifest is not None
    status, verified = kit.verify(result.manifest)
    assert status == 0, verified
    (contents,) = kit.manifest(result.manifest).databases
    return {f"{t.schema_name}.{t.name}": t.rows for t in contents.tables}


def of(*names: str) -> dict[str, int]:
    return {name: TABLES[name] for name in names}


@pytest.mark.covers(
    "PostgresBackupPolicy.spec.dump.databases[].schemas.*", "PostgresBackupPolicy.spec.dump.databases[].tables.*"
)
def test_parts_of_a_database_are_dumped_and_restore(kit: Kit) -> None:
    public = f"public.{ODD}"
    shop = {name for name in TABLES if name.startswith("shop.")}
    assert taken(kit, schemas={"include": ["sh*"]}) == of(*shop)
    assert taken(kit, schemas={"exclude": ["shop"]}) == of(public)
    assert taken(kit, tables={"exclude": ["shop.events_*", "*.empty"]}) == of(
        public, *(shop - {"shop.events_1", "shop.events_2", "shop.empty"})
    )
    assert taken(kit, tables={"include": ["shop.orders", "publi*.Odd*"], "exclude": ["public.*"]}) == of("shop.orders")
    database = kit.databases[0]
    result = kit.good_dump(parts=[{"name": database, "tables": {"exclude": ["shop.or*"]}}], globals="None")
    assert result.manifest is not None
    (contents,) = kit.manifest(result.manifest).databases
    assert contents.selected == "tables exclude shop.or*" and contents.large_objects == 1
    restored = kit.server.fresh_database("restored")
    # a materialized view needs the table that was left out, which stock pg_restore tells
    kit.sql("DROP MATERIALIZED VIEW shop.totals")
    result = kit.good_dump(parts=[{"name": database, "tables": {"exclude": ["shop.or*"]}}], globals="None")
    assert result.manifest is not None
    folder = result.manifest.rpartition("/")[0]
    kit.restore_with_stock_tools(f"{folder}/{database}.dump.zst.age", restored)
    assert row_counts(kit.server, restored) == {n: rows for n, rows in TABLES.items() if n != "shop.orders"}


def test_a_part_says_so_in_the_manifest_and_leaves_out_what_belongs_to_no_schema(kit: Kit) -> None:
    result = kit.good_dump(parts=[{"name": kit.databases[0], "schemas": {"include": ["shop"]}}])
    assert result.manifest is not None
    (contents,) = kit.manifest(result.manifest).databases
    assert contents.selected == "schemas include shop" and contents.large_objects == 0


@pytest.mark.covers("PostgresBackup.reason.NothingSelected", "PostgresBackupPolicy.reason.NothingSelected")
def test_a_pattern_that_means_nothing_is_refused(kit: Kit) -> None:
    for part in ({"schemas": {"include": ["Shop"]}}, {"tables": {"include": ["shop.nothing"]}}):
        status, result = kit.dump(parts=[{"name": kit.databases[0], **part}])
        assert (status, result.reason) == (1, "NothingSelected"), result
        assert kit.databases[0] in result.message and not result.transient
        kit.nothing_left()


def test_of_what_is_left_out_nothing_need_be_readable_or_unlocked(
    server: PostgresServer, s3: S3Server, tmp_path: Path
) -> None:
    role = server.fresh_role("backup")
    database = server.fresh_database("dump")
    fill(server, database)
    kit = Kit(server=server, s3=s3, folder=tmp_path, role=role, databases=[database])
    kit.sql(f"GRANT USAGE ON SCHEMA shop TO {role.user}; GRANT SELECT ON shop.orders TO {role.user}")
    kit.sql("ALTER TABLE shop.parent ENABLE ROW LEVEL SECURITY")
    only = {"name": database, "tables": {"include": ["shop.orders"]}}
    # the sequence of its key comes along
    status, result = kit.dump(parts=[only], globals="None")
    assert (status, result.reason) == (1, "PermissionDenied")
    assert f"GRANT SELECT ON SEQUENCE shop.orders_id_seq TO {role.user}" in result.message
    kit.sql(f"GRANT SELECT ON SEQUENCE shop.orders_id_seq TO {role.user}")
    with server.superuser_connect(database) as other:
        other.autocommit = False
        other.execute("LOCK TABLE shop.child IN ACCESS EXCLUSIVE MODE")
        kit.good_dump(parts=[only], globals="None", lockTimeout="500ms")
        # the control: with the locked table it does not go
        assert kit.dump(parts=[{**only, "tables": {"include": ["shop.child"]}}], lockTimeout="500ms")[0] == 1
        other.rollback()


pieces = st.lists(
    st.sampled_from(["*", "o", "O", "s", "h", "r", "?", ".", '"', "$", "(", "|", "a", "b"]), min_size=1, max_size=4
)
patterns = st.one_of(st.sampled_from([*NAMES, "*"]), pieces.map("".join))
scopes = st.one_of(st.sampled_from([*SCHEMAS, "*", "s*"]), pieces.map("".join).map(lambda text: text.replace(".", "")))


@pytest.fixture
def odd(postgres: Postgres, s3: S3Server, tmp_path: Path) -> Kit:
    kit = make_kit(postgres(18), s3, tmp_path)
    for schema in SCHEMAS:
        kit.sql(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)).as_string())
        for name in NAMES:
            table = sql.Identifier(schema, name)
            kit.sql(sql.SQL("CREATE TABLE IF NOT EXISTS {} (a int)").format(table).as_string())
    return kit


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(scope=scopes, name=patterns.filter(bool), other=scopes, how=st.sampled_from(["include", "exclude", "schemas"]))
@pytest.mark.timeout(300)
def test_whatever_the_names_both_mean_the_same(odd: Kit, scope: str, name: str, other: str, how: str) -> None:
    part: dict[str, Any] = {"tables": {how: [f"{scope or '*'}.{name}"]}}
    if how == "schemas":
        part = {"schemas": {"include": [scope or "*"], "exclude": [other or "x"]}}
    status, result = odd.dump(parts=[{"name": odd.databases[0], **part}], globals="None")
    if status:
        assert result.reason == "NothingSelected", result
        return
    assert result.manifest is not None
    status, verified = odd.verify(result.manifest)
    assert status == 0, (part, verified)
