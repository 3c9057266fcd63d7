"""One consistent view of one database, held for as long as its dump runs.

A snapshot alone is not enough: TRUNCATE and ALTER TABLE commands that rewrite are not MVCC-safe. A table that is
truncated after the snapshot and before pg_dump locks it looks empty to the snapshot, pg_dump ends with status 0, and a
count under the same snapshot says 0 as well. So the storage of every table is noted before the snapshot, ACCESS SHARE
is taken on all of them after it and held until the dump has ended, and storage that changed in between restarts it.
What happens later waits for our locks.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from pgtend.backups.jobs.config import JobReason
from pgtend.backups.jobs.selection import EVERYTHING, Selection
from pgtend.backups.jobs.session import Connection
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint

# What pg_dump writes: neither system schemas, nor temporary tables, nor members of extensions, but of these the tables
# that the extension declares as its configuration. `c` is pg_class, `n` pg_namespace. 14 to 18.
DUMPED = sql.SQL("""(n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND c.relpersistence <> 't'
  AND (NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                   AND d.objsubid = 0 AND d.deptype = 'e')
       OR EXISTS (SELECT FROM pg_extension e WHERE c.oid = ANY (e.extconfig))))""")

# Schema and name of the table that a sequence belongs to; NULL for all else. Two look-ups by index for each sequence.
OWNER = sql.SQL("""(SELECT ARRAY[m.nspname, o.relname]::text[]
  FROM pg_depend d JOIN pg_class o ON o.oid = d.refobjid JOIN pg_namespace m ON m.oid = o.relnamespace
  WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.objsubid = 0
    AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') LIMIT 1)""")

# pg_relation_filenode looks at what is committed now, also within an older snapshot. Materialized views are left out:
# pg_dump stores their definition and the order to refresh, never their rows.
_STORAGE = sql.SQL("""
SELECT c.oid::int8, pg_relation_filenode(c.oid)::int8
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'S') AND {dumped}
""").format(dumped=DUMPED)

# In the transaction's snapshot. The condition is an extension's WHERE clause for its configuration table.
_TABLES = sql.SQL("""
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, {owner},
       (SELECT e.extcondition[array_position(e.extconfig, c.oid)] FROM pg_extension e WHERE c.oid = ANY (e.extconfig))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'S') AND {dumped}
ORDER BY n.nspname, c.relname
""").format(dumped=DUMPED, owner=OWNER)

_POSITION = sql.SQL("SELECT pg_current_wal_flush_lsn()::text, clock_timestamp()")

_EXPORT = sql.SQL("SELECT pg_export_snapshot(), (SELECT count(*) FROM pg_largeobject_metadata)")

_HELD = sql.SQL("""
SELECT l.relation::int8 FROM pg_locks l
WHERE l.pid = pg_backend_pid() AND l.locktype = 'relation' AND l.mode = 'AccessShareLock' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
""")

_BLOCKERS = sql.SQL("""
SELECT n.nspname, c.relname, l.pid, coalesce(a.usename, '?'), left(coalesce(a.query, ''), 60)
FROM pg_locks l JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.mode = 'AccessExclusiveLock' AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND c.oid = ANY (%s)
""")

_LOCKS_PER_STATEMENT = 200
PATIENCE = 0.9  # seconds; below deadlock_timeout, whose default is 1s
_CHANGED = {"42P01", "3F000", "40P01"}  # dropped or renamed in between; a deadlock that we lost


class TablesChangedError(Exception):
    """A table changed while the snapshot was taken, or wants to: this snapshot is useless, take another."""


class LockBusyError(Exception):
    """Somebody else holds a lock; `verdict` is what to raise when there is no time left."""

    def __init__(self, verdict: PgtendError) -> None:
        super().__init__(verdict.message)
        self.verdict = verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`kind` as in pg_class.relkind; `condition` restricts what pg_dump takes of an extension's table."""

    oid: int
    schema: str
    name: str
    kind: str
    condition: str = ""

    @property
    def has_rows(self) -> bool:
        return self.kind == "r"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A snapshot that pg_dump may use as long as its session lives. `lsn` was flushed before the snapshot was taken,
    so everything up to it is contained."""

    snapshot_id: str
    lsn: str
    taken_at: datetime
    tables: tuple[Table, ...]
    large_objects: int


class Exporter:
    """Takes and holds the snapshot on one session of its own. `server_version` decides nothing: 14 to 18 are alike."""

    def __init__(self, connection: Connection, selection: Selection = EVERYTHING) -> None:
        self._connection, self._selection = connection, selection
        self._held: Held | None = None
        self._sequences: dict[int, int] = {}

    def take(self, *, lock_wait: float = PATIENCE) -> Held:
        """`lock_wait` in seconds, for each statement that locks. Raises TablesChangedError, LockBusyError,
        PgtendError(PermissionDenied), psycopg.Error."""
        connection = self._connection
        self.release()
        failpoint("backups.dump.before_storage")
        before = self._storage()
        failpoint("backups.dump.before_snapshot")
        lsn, taken_at = one(connection.execute(_POSITION).fetchone())
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        snapshot_id, large_objects = one(connection.execute(_EXPORT).fetchone())
        failpoint("backups.dump.after_snapshot")
        tables = tuple(
            Table(oid=oid, schema=schema, name=name, kind=kind, condition=condition or "")
            for oid, schema, name, kind, owner, condition in connection.execute(_TABLES)
            if self._selection.takes(schema, name, owner=tuple(owner) if owner else None)
        )
        lockable = [t for t in tables if t.kind in "rp"]
        self._lock(lockable, lock_wait)
        failpoint("backups.dump.after_locks")
        self._compare(before, tables, lockable)
        self._held = Held(
            snapshot_id=snapshot_id,
            lsn=lsn,
            taken_at=taken_at.astimezone(UTC),
            tables=tables,
            large_objects=large_objects if self._selection.whole else 0,
        )
        return self._held

    def count(self, table: Table) -> int | None:
        """Exact rows of a table in the snapshot, its children's not included; None where an index of it is locked.

        Planning locks the indexes, which pg_dump never does. Kept until the dump ends, such a lock would stop a
        REINDEX, and everybody behind it; the end of a subtransaction gives it back, while the table stays locked.
        """
        query = sql.SQL("SELECT count(*) FROM ONLY {} {}").format(
            sql.Identifier(table.schema, table.name), sql.SQL(table.condition)
        )
        try:
            with self._connection.transaction(force_rollback=True):
                self._connection.execute("SET LOCAL lock_timeout = '1s'")
                (rows,) = one(self._connection.execute(query).fetchone())
        except psycopg.errors.LockNotAvailable:
            return None
        return int(rows)

    def confirm(self) -> None:
        """That the snapshot and its locks were held all the time, and that no sequence was reset meanwhile.

        Raises PgtendError(SnapshotLost) or TablesChangedError. Sequences cannot be locked: one that was restarted under
        the dump would give rows above its value.
        """
        assert self._held is not None  # noqa: S101 - take() comes first
        try:
            held = {oid for (oid,) in self._connection.execute(_HELD)}
            after = self._storage_of([t.oid for t in self._held.tables if t.kind == "S"])
        except psycopg.Error as error:
            raise PgtendError(
                JobReason.SNAPSHOT_LOST, f"the session that held the snapshot is gone: {first_line(error)}"
            ) from None
        if not held.issuperset(t.oid for t in self._held.tables if t.kind in "rp"):
            raise PgtendError(JobReason.SNAPSHOT_LOST, "the locks on the tables are gone")
        changed = [oid for oid, node in self._sequences.items() if after.get(oid) != node]
        if changed:
            names = [f"{t.schema}.{t.name}" for t in self._held.tables if t.oid in changed]
            raise TablesChangedError(f"sequence {', '.join(names[:3])} was reset or dropped")

    def cancel(self) -> None:
        """Stop the statement that another thread runs on this session."""
        with suppress(psycopg.Error):
            self._connection.cancel_safe(timeout=5)

    def release(self) -> None:
        """Give up snapshot and locks."""
        if not self._connection.closed:
            self._connection.rollback()

    def _lock(self, tables: list[Table], wait: float) -> None:
        connection = self._connection
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(max(1, int(wait * 1000))))
        try:
            for start in range(0, len(tables), _LOCKS_PER_STATEMENT):
                part = tables[start : start + _LOCKS_PER_STATEMENT]
                names = sql.SQL(", ").join(sql.SQL("ONLY {}").format(sql.Identifier(t.schema, t.name)) for t in part)
                connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
                failpoint("backups.dump.between_locks")
        except psycopg.Error as error:
            connection.rollback()
            if error.sqlstate in _CHANGED:
                raise TablesChangedError(first_line(error)) from None
            if error.sqlstate == "55P03":
                raise LockBusyError(self._busy(tables)) from None
            if error.sqlstate == "53200":
                raise PgtendError(
                    JobReason.LOCKS_EXHAUSTED,
                    f"the server's table of locks has no room for {len(tables)} tables: raise"
                    " max_locks_per_transaction, which needs a restart",
                ) from None
            if error.sqlstate == "42501":
                raise PgtendError(JobReason.PERMISSION_DENIED, first_line(error), transient=False) from None
            raise
        connection.execute("SET LOCAL lock_timeout = 0")

    def _busy(self, tables: list[Table]) -> PgtendError:
        rows = self._connection.execute(_BLOCKERS, ([t.oid for t in tables],)).fetchall()
        if not rows:
            return PgtendError(JobReason.LOCK_TIMEOUT, "a table is locked by somebody else all the time")
        schema, name, pid, user, query = rows[0]
        doing = f", running {query!r}" if query else ""
        return PgtendError(
            JobReason.LOCK_TIMEOUT,
            f"{schema}.{name} is locked by pid {pid} of {user}{doing}: end it or raise spec.dump.lockTimeout",
            object=f"{schema}.{name}",
        )

    def _compare(self, before: dict[int, int], tables: tuple[Table, ...], lockable: list[Table]) -> None:
        held = {oid for (oid,) in self._connection.execute(_HELD)}
        if any(t.oid not in held for t in lockable):
            raise TablesChangedError("a table was replaced by another of its name")
        after = self._storage_of([t.oid for t in tables if t.kind in "rS"])
        for table in tables:
            if table.kind in "rS" and before.get(table.oid) != after.get(table.oid):
                raise TablesChangedError(f"{table.schema}.{table.name} was truncated, rewritten or created")
        self._sequences = {t.oid: after[t.oid] for t in tables if t.kind == "S"}

    def _storage(self) -> dict[int, int]:
        return dict(self._connection.execute(_STORAGE).fetchall())

    def _storage_of(self, oids: list[int]) -> dict[int, int]:
        # Opening pg_class makes the backend take in what other sessions have changed since.
        query = "SELECT oid::int8, pg_relation_filenode(oid)::int8 FROM pg_class WHERE oid = ANY (%s::oid[])"
        return dict(self._connection.execute(query, (oids,)).fetchall())


@dataclass(slots=True)
class RowCounter:
    """Counts the rows of every table on the exporter's session while pg_dump reads them; `rows` by oid. Tables whose
    index was locked, at the first try and at a second one after all others, are missing."""

    exporter: Exporter
    held: Held
    rows: dict[int, int] = field(default_factory=dict)

    def work(self) -> None:
        """Raises PgtendError(SnapshotLost): a count fails only when its session does."""
        left = [t for t in self.held.tables if t.has_rows]
        try:
            for _ in range(2):
                for table in left:
                    rows = self.exporter.count(table)
                    if rows is not None:
                        self.rows[table.oid] = rows
                left = [t for t in left if t.oid not in self.rows]
        except psycopg.Error as error:
            raise PgtendError(JobReason.SNAPSHOT_LOST, f"counting rows failed: {first_line(error)}") from None

    def stop(self) -> None:
        self.exporter.cancel()


def take_until_stable(exporter: Exporter, *, lock_timeout: float, attempts: int = 5) -> tuple[Held, int]:
    """The snapshot, and how often it had to be taken again because tables changed.

    Locks are waited for in short spells, at most `lock_timeout` seconds in all: whoever waits long while it holds
    others stops the traffic behind it, and could make a user's transaction the victim of a deadlock, which PostgreSQL
    looks for after a second. Raises PgtendError (TablesChanging, LockTimeout).
    """
    deadline = time.monotonic() + lock_timeout
    changes = 0
    pause = 0.1
    while True:
        try:
            return exporter.take(lock_wait=min(PATIENCE, lock_timeout)), changes
        except TablesChangedError as changed:
            changes += 1
            if changes == attempts:
                text = f"{attempts} snapshots in a row were useless; last: {changed}"
                raise PgtendError(JobReason.TABLES_CHANGING, text) from None
        except LockBusyError as busy:
            if time.monotonic() >= deadline:
                raise busy.verdict from None
        exporter.release()
        time.sleep(pause)
        pause = min(2.0, pause * 2)


def one(row: TupleRow | None) -> TupleRow:
    """The row of a query that always gives one."""
    if row is None:
        raise RuntimeError("a query that always gives one row gave none")
    return row


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
