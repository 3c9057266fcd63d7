"""A dump is committed whole or leaves nothing, on real servers and a real store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from psycopg import sql
from tests.fixtures.plugin import Postgres
from tests.fixtures.postgres import PostgresServer
from tests.fixtures.s3 import S3Server
from tests.postgres.backup_kit import (
    INSTALLATION,
    PREFIX,
    TABLES,
    Kit,
    allow,
    fill,
    hooks,
    make_kit,
    once,
    row_counts,
    store_of,
)

from pgtend.backups.catalog import Catalog, Listed, read_catalog, sort_listing
from pgtend.backups.jobs import dump
from pgtend.backups.jobs.config import DumpConfig
from pgtend.core import failpoints
from pgtend.core.clock import FakeClock
from pgtend.objectstore.sweep import delete_abandoned

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def kit(server: PostgresServer, s3: S3Server, tmp_path: Path) -> Kit:
    """On each everyday major."""
    return make_kit(server, s3, tmp_path)


@pytest.fixture
def newest(postgres: Postgres, s3: S3Server, tmp_path: Path) -> Kit:
    """On one major, where no version can make a difference."""
    return make_kit(postgres(18), s3, tmp_path)


def test_a_backup_is_committed_and_restores_with_stock_tools(kit: Kit) -> None:
    result = kit.good_dump()
    assert result.outcome == "Succeeded" and result.reason == "Committed"
    assert result.manifest is not None
    manifest = kit.manifest(result.manifest)
    folder = result.manifest.rpartition("/")[0]
    database = kit.databases[0]
    assert folder.startswith(f"{PREFIX}/{kit.server.system_identifier}/dump/")
    assert kit.run_keys() == sorted(
        [f"{folder}/{database}.dump.zst.age", f"{folder}/globals.sql.zst.age", f"{folder}/manifest.json"]
    )
    assert {f"{t.schema_name}.{t.name}": t.rows for t in manifest.databases[0].tables} == TABLES
    assert manifest.databases[0].large_objects == 1
    assert manifest.globals == "WithPasswords"  # pg_read_all_data may read pg_authid
    assert manifest.server_version.startswith(f"{kit.server.major}.")
    restored = kit.server.fresh_database("restored")
    kit.restore_with_stock_tools(f"{folder}/{database}.dump.zst.age", restored)
    assert row_counts(kit.server, restored) == TABLES
    assert kit.server.execute("SELECT lo_get(oid) FROM pg_largeobject_metadata", dbname=restored) == [
        (b"a large object",)
    ]


def test_databases_with_odd_names_lie_under_names_of_their_own(newest: Kit) -> None:
    names = [f'Odd / "{newest.server.fresh_name()}" ü%2F.', f"plain-{newest.server.fresh_name()}"]
    for name in names:
        with newest.server.superuser_connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        fill(newest.server, name)
        allow(newest.server, name, newest.role)
    result = newest.good_dump(databases=names)
    assert result.manifest is not None
    folder = result.manifest.rpartition("/")[0]
    for name in names:
        key = f"{folder}/{quote(name, safe='')}.dump.zst.age"
        restored = newest.server.fresh_database("restored")
        newest.restore_with_stock_tools(key, restored)
        assert row_counts(newest.server, restored) == TABLES
    status, verified = newest.verify(result.manifest)
    assert status == 0, verified
    assert [d.name for d in verified.databases] == names


def test_what_belongs_to_an_extension_is_left_to_it_but_for_its_configuration(kit: Kit) -> None:
    kit.sql(
        """
        CREATE EXTENSION pgcrypto;
        CREATE TABLE member (a int); INSERT INTO member SELECT g FROM generate_series(1, 5) g;
        CREATE TABLE configuration (a int); INSERT INTO configuration SELECT g FROM generate_series(1, 10) g;
        CREATE TABLE settings (a int); INSERT INTO settings SELECT g FROM generate_series(1, 3) g;
        ALTER EXTENSION pgcrypto ADD TABLE member;
        ALTER EXTENSION pgcrypto ADD TABLE configuration;
        ALTER EXTENSION pgcrypto ADD TABLE settings;
        UPDATE pg_extension SET extconfig = ARRAY['settings'::regclass::oid, 'configuration'::regclass::oid],
                                extcondition = ARRAY['', 'WHERE a > 4'] WHERE extname = 'pgcrypto'
        """
    )
    with kit.server.superuser_connect(kit.databases[0]) as other:
        other.execute("CREATE TEMPORARY TABLE passing AS SELECT 1")
        result = kit.good_dump()
    assert result.manifest is not None
    tables = kit.manifest(result.manifest).databases[0].tables
    assert {f"{t.schema_name}.{t.name}": t.rows for t in tables} == TABLES | {
        "public.configuration": 6,
        "public.settings": 3,
    }
    status, verified = kit.verify(result.manifest)
    assert status == 0, verified


def test_what_the_dump_could_not_see_is_written_down(kit: Kit) -> None:
    kit.sql("CREATE SUBSCRIPTION elsewhere CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false)")
    try:
        result = kit.good_dump()
    finally:
        kit.sql("ALTER SUBSCRIPTION elsewhere DISABLE")
        kit.sql("ALTER SUBSCRIPTION elsewhere SET (slot_name = NONE)")
        kit.sql("DROP SUBSCRIPTION elsewhere")
    assert result.manifest is not None
    assert any("subscription" in w for w in result.warnings)
    assert kit.manifest(result.manifest).warnings == result.warnings


def test_all_databases_that_accept_connections_are_dumped(postgres: Postgres, s3: S3Server, tmp_path: Path) -> None:
    server = postgres(18, fresh=True)
    kit = make_kit(server, s3, tmp_path, databases=2)
    closed = server.fresh_database("closed")
    server.execute(f"ALTER DATABASE {closed} ALLOW_CONNECTIONS false")
    result = kit.good_dump(databases=None)
    assert {d.name for d in result.databases} == {*kit.databases, "postgres"}


def test_a_dump_whose_backend_is_killed_leaves_nothing(kit: Kit) -> None:
    kit.sql("CREATE TABLE shop.wide AS SELECT g, repeat(md5(g::text), 40) AS t FROM generate_series(1, 30000) g")
    role = kit.role.user

    def kill() -> None:
        def when_it_copies() -> None:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                if kit.sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "  # noqa: S608
                    f"WHERE usename = '{role}' AND query LIKE 'COPY shop.wide%'"
                ):
                    return
                time.sleep(0.002)

        threading.Thread(target=when_it_copies).start()

    # The upload is slow, so that the dump is alive when it is looked for.
    with hooks(backups__dump__stream_started=once(kill)):
        status, result = kit.dump(store={"uploadRate": 1 << 20}, compressionLevel=19)
    assert status == 1
    assert result.reason == "DumpFailed", result
    # the server's last word may be lost with the connection
    assert "terminating connection" in result.message or "unexpected eof" in result.message, result
    assert result.manifest is None and result.transient
    kit.nothing_left()


@pytest.mark.covers("PostgresBackup.reason.InternalError", "PostgresBackupPolicy.reason.InternalError")
def test_a_failure_in_the_second_database_leaves_nothing_of_the_first(
    postgres: Postgres, s3: S3Server, tmp_path: Path
) -> None:
    kit = make_kit(postgres(18), s3, tmp_path, databases=2)
    kit.noise(10)
    calls: list[int] = []

    def break_second() -> None:
        calls.append(1)
        if len(calls) == 2:
            assert s3.uploads(kit.bucket)  # the first one is with the store, and not visible
            assert kit.run_keys() == []
            raise RuntimeError("broken by the test")

    with hooks(backups__dump__stream_ended=break_second):
        status, result = kit.dump()
    assert (status, result.reason) == (1, "InternalError")
    kit.nothing_left()


@pytest.mark.covers("PostgresBackup.reason.ObjectExists", "PostgresBackupPolicy.reason.ObjectExists")
def test_a_run_never_overwrites_another_not_even_of_the_same_name(newest: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pods that began in the same second and drew the same number: the store decides who was first."""
    monkeypatch.setattr(dump.chance, "randbits", lambda bits: 7)
    config = DumpConfig.model_validate(newest.dump_config())
    assert dump.run(config, clock=FakeClock()) == 0
    manifest = newest.result().manifest
    assert manifest is not None
    before = {key: newest.read(key) for key in newest.run_keys()}
    assert dump.run(config, clock=FakeClock()) == 1
    assert newest.result().reason == "ObjectExists"
    assert {key: newest.read(key) for key in newest.run_keys()} == before and not newest.s3.uploads(newest.bucket)
    assert newest.verify(manifest)[0] == 0


STEPS = [
    "before_storage",
    "before_snapshot",
    "after_snapshot",
    "between_locks",
    "after_locks",
    "stream_started",
    "stream_ended",
]
CHANGES = {
    "truncate": "TRUNCATE shop.orders; INSERT INTO shop.orders (note) VALUES ('after')",
    "rewrite": "ALTER TABLE shop.orders ALTER COLUMN id TYPE numeric",
    "restart": "TRUNCATE shop.orders RESTART IDENTITY",
    "drop": "DROP TABLE shop.orders CASCADE",
    "rename": "ALTER TABLE shop.orders RENAME TO orders_old; CREATE TABLE shop.orders (id bigint, note text)",
    "sequence": "ALTER SEQUENCE shop.orders_id_seq RESTART WITH 1",
}


EVERYDAY = {
    "truncate": ["before_snapshot", "after_snapshot", "after_locks", "stream_started"],
    "rewrite": ["after_snapshot"],
    "rename": ["after_snapshot"],
}
CASES = [
    pytest.param(step, change, marks=() if step in EVERYDAY.get(change, ()) else pytest.mark.matrix)
    for change in CHANGES
    for step in STEPS
]


@pytest.mark.parametrize(("step", "change"), CASES)
def test_no_change_of_a_table_at_any_step_gives_a_backup_with_missing_rows(kit: Kit, step: str, change: str) -> None:
    done = threading.Event()

    def act() -> None:
        def run() -> None:
            kit.sql("BEGIN;" + CHANGES[change] + ";COMMIT")
            done.set()

        threading.Thread(target=run, daemon=True).start()
        done.wait(1)  # it may have to wait for our locks: then it happens after the dump

    with hooks(**{f"backups__dump__{step}": once(act)}):
        status, result = kit.dump(rowCounts="Exact")
    assert done.wait(20)
    assert status == 0, result
    assert result.manifest is not None
    rows = {f"{t.schema_name}.{t.name}": t.rows for t in kit.manifest(result.manifest).databases[0].tables}
    # As a whole before the change or as a whole after it, nothing in between.
    before = TABLES
    orders = {"truncate": 1, "rewrite": 5000, "restart": 0, "rename": 0, "sequence": 5000, "drop": None}[change]
    after = {k: v for k, v in TABLES.items() if k != "shop.orders"}
    if orders is not None:
        after["shop.orders"] = orders
    if change == "rename":
        after["shop.orders_old"] = 5000
    assert rows in (before, after)
    status, verified = kit.verify(result.manifest)
    assert status == 0, verified
    # The verification counts the rows in the archive itself.
    assert verified.rows_compared


def test_without_the_guard_a_truncate_would_be_lost(newest: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the same steps with the comparison switched off commit a backup without the rows."""
    from pgtend.backups.jobs.snapshot import Exporter

    monkeypatch.setattr(Exporter, "_compare", lambda *_: None)
    monkeypatch.setattr(Exporter, "_sequences", {}, raising=False)
    with hooks(backups__dump__after_snapshot=once(lambda: newest.sql("TRUNCATE shop.orders") and None)):
        status, result = newest.dump()
    assert status == 0 and result.manifest is not None
    rows = {t.name: t.rows for t in newest.manifest(result.manifest).databases[0].tables}
    assert rows["orders"] == 0


@pytest.mark.covers("PostgresBackup.reason.TablesChanging", "PostgresBackupPolicy.reason.TablesChanging")
def test_tables_that_never_rest_end_the_run_with_a_reason(newest: Kit) -> None:
    with hooks(backups__dump__after_snapshot=lambda: newest.sql("TRUNCATE shop.empty") and None):
        status, result = newest.dump()
    assert (status, result.reason) == (1, "TablesChanging")
    assert "shop.empty" in result.message
    newest.nothing_left()


@pytest.mark.covers("PostgresBackup.reason.LockTimeout", "PostgresBackupPolicy.reason.LockTimeout")
def test_a_lock_that_is_held_by_somebody_names_them(newest: Kit) -> None:
    with newest.server.superuser_connect(newest.databases[0]) as holder:
        holder.execute("BEGIN; LOCK TABLE shop.orders IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        status, result = newest.dump(lockTimeout="500ms")
        assert time.monotonic() - started < 15
        assert (status, result.reason) == (1, "LockTimeout")
        assert "shop.orders" in result.message and str(holder.info.backend_pid) in result.message
        assert result.object == "shop.orders"
    newest.nothing_left()


def test_the_locks_are_held_until_the_stream_has_ended(kit: Kit) -> None:
    refused: list[str] = []

    def probe() -> None:
        with kit.server.superuser_connect(kit.databases[0]) as connection:
            connection.execute("SET lock_timeout = '100ms'")
            try:
                connection.execute("TRUNCATE shop.orders")
            except Exception as error:
                refused.append(str(getattr(error, "sqlstate", "")))

    with hooks(backups__dump__after_locks=probe, backups__dump__stream_ended=once(probe)):
        kit.good_dump(globals="None")
    assert refused == ["55P03", "55P03"]
    kit.sql("TRUNCATE shop.orders")


def test_a_count_does_not_stop_a_reindex(newest: Kit) -> None:
    def reindex() -> None:
        with newest.server.superuser_connect(newest.databases[0]) as connection:
            connection.execute("SET lock_timeout = '2s'")
            connection.execute("REINDEX INDEX shop.orders_pkey")

    with hooks(backups__dump__stream_ended=once(reindex)):
        result = newest.good_dump()
    assert result.databases[0].rows == sum(TABLES.values())


def test_rows_of_a_table_whose_index_is_locked_are_left_uncounted(newest: Kit) -> None:
    with newest.server.superuser_connect(newest.databases[0]) as holder:
        holder.execute("BEGIN; REINDEX INDEX shop.orders_pkey")
        result = newest.good_dump()
    assert result.manifest is not None
    rows = {f"{t.schema_name}.{t.name}": t.rows for t in newest.manifest(result.manifest).databases[0].tables}
    assert rows == TABLES | {"shop.orders": None}
    status, verified = newest.verify(result.manifest)
    assert status == 0 and verified.rows_compared is False


@pytest.mark.covers("PostgresBackup.reason.SnapshotLost", "PostgresBackupPolicy.reason.SnapshotLost")
def test_the_session_that_holds_the_snapshot_must_live_to_the_end(newest: Kit) -> None:
    def kill() -> None:
        newest.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "  # noqa: S608
            f"WHERE usename = '{newest.role.user}' AND datname = current_database()"
        )

    with hooks(backups__dump__stream_ended=once(kill)):
        status, result = newest.dump()
    assert (status, result.reason) == (1, "SnapshotLost"), result
    newest.nothing_left()


def test_a_sequence_that_is_reset_under_the_dump_makes_it_start_again(kit: Kit) -> None:
    with hooks(backups__dump__stream_ended=once(lambda: kit.sql("ALTER SEQUENCE shop.orders_id_seq RESTART") and None)):
        result = kit.good_dump()
    assert result.restarts == 1
    assert len(kit.run_keys()) == 3 and not kit.s3.uploads(kit.bucket)


@pytest.mark.covers("PostgresBackup.reason.Interrupted", "PostgresBackupPolicy.reason.Interrupted")
@pytest.mark.parametrize("point", ["checked", "stream_started", "before_objects", "after_objects"])
def test_being_told_to_stop_leaves_nothing(newest: Kit, point: str) -> None:
    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    act: Callable[[], None] = once(stop)
    with hooks(**{f"backups__dump__{point}": act}):
        status, result = newest.dump(login="admin")
    assert (status, result.reason) == (1, "Interrupted")
    newest.nothing_left()


KILLED = sorted(n for n in failpoints.names(_ROOT / "operator" / "pgtend" / "backups" / "jobs") if ".dump." in n)


@pytest.mark.parametrize(
    "point", [pytest.param(n, marks=() if n.endswith("after_objects") else pytest.mark.matrix) for n in KILLED]
)
def test_killed_at_any_point_it_leaves_no_backup_and_the_next_run_is_whole(newest: Kit, point: str) -> None:
    """Objects without a manifest may stay behind: nothing lists them as a backup, and the sweep knows them as ours."""
    config = newest.config_file(newest.dump_config())
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT / "operator")}
    command = [sys.executable, "-m", "pgtend.backups.jobs", "dump", "--config", str(config)]
    done = subprocess.run(command, env=environment | {"PGTEND_FAILPOINTS": f"{point}=kill"}, check=False)
    assert done.returncode == -9
    committed = point.endswith("after_manifest")
    catalog = read_back(newest)
    assert len(catalog.backups) == committed and not catalog.foreign and not catalog.unreadable
    if point.endswith("after_objects"):
        (run,) = catalog.abandoned(now=datetime.now(UTC) + timedelta(days=2), older_than=timedelta(days=1))
        store = store_of(newest, "admin")
        owner = {"pgtend-installation": INSTALLATION, "pgtend-policy": "databases/orders"}
        assert len(delete_abandoned(store, keys=[o.key for o in run.objects], owner=owner)) == 2
        assert newest.run_keys() == []
        store.close()
    deadline = time.monotonic() + 20
    user = newest.role.user
    while newest.sql(f"SELECT 1 FROM pg_stat_activity WHERE usename = '{user}'") and time.monotonic() < deadline:  # noqa: S608
        time.sleep(0.1)  # the dead process's sessions end by themselves, and with them its locks
    assert time.monotonic() < deadline
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    assert len(read_back(newest).backups) == 1 + committed


def read_back(kit: Kit) -> Catalog:
    listed = [Listed(key=k, size=len(kit.read(k))) for k in kit.s3.keys(kit.bucket)]
    return read_catalog(
        listing=sort_listing(prefix=PREFIX, listed=listed),
        contents={item.key: kit.read(item.key) for item in listed if item.key.endswith(".json")},
        installation=INSTALLATION,
        policy=("databases", "orders"),
    )


@pytest.mark.covers(
    "PostgresBackupPolicy.spec.dump.yieldToDDLAfter",
    "PostgresBackup.reason.YieldedToDDL",
    "PostgresBackupPolicy.reason.YieldedToDDL",
)
def test_a_dump_ends_for_whoever_waits_too_long_to_change_a_table(kit: Kit) -> None:
    kit.noise(64)
    slow = {"uploadRate": 4 << 20}  # it would take twenty seconds
    waited: list[float] = []
    gone = threading.Event()

    def change() -> None:
        def run() -> None:
            time.sleep(1.5)  # until pg_dump has its own locks
            began = time.monotonic()
            kit.sql("ALTER TABLE shop.orders ADD COLUMN more int")
            waited.append(time.monotonic() - began)
            gone.set()

        threading.Thread(target=run, daemon=True).start()

    with hooks(backups__dump__stream_started=once(change)):
        status, result = kit.dump(yieldAfter="1500ms", store=slow)
    assert (status, result.reason) == (1, "YieldedToDDL"), result
    assert "AccessExclusiveLock on shop.orders" in result.message and result.object == "shop.orders"
    assert gone.wait(20) and 1.5 <= waited[0] < 6, waited
    kit.nothing_left()
    # nobody waits: it is as any other
    assert kit.good_dump(yieldAfter="1500ms").outcome == "Succeeded"


def test_without_the_limit_whoever_changes_a_table_waits_for_the_dump(newest: Kit) -> None:
    """The negative control: who waits is neither seen nor helped, and the dump is good."""
    gone = threading.Event()

    def change() -> None:
        def run() -> None:
            newest.sql("ALTER TABLE shop.orders ADD COLUMN more int")
            gone.set()

        threading.Thread(target=run, daemon=True).start()
        assert not gone.wait(4)

    with hooks(backups__dump__stream_ended=once(change)):
        newest.good_dump()
    assert gone.wait(20)


@pytest.mark.covers("PostgresBackup.reason.LocksExhausted", "PostgresBackupPolicy.reason.LocksExhausted")
def test_more_tables_than_the_server_has_locks_for_are_named(postgres: Postgres, s3: S3Server, tmp_path: Path) -> None:
    few = {"max_locks_per_transaction": "10", "max_connections": "20"}
    kit = make_kit(postgres(18, fresh=True, settings=few), s3, tmp_path)
    for number in range(60):  # a transaction each: they would not fit in one
        tables = "; ".join(f"CREATE TABLE shop.t_{number}_{i} ()" for i in range(100))
        kit.sql(tables)
    status, result = kit.dump()
    assert (status, result.reason) == (1, "LocksExhausted"), result
    assert "max_locks_per_transaction" in result.message
    kit.nothing_left()
