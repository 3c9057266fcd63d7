"""What indexes there are and how empty they are: what Reindex is planned from.

Catalog and statistics only; no relation is opened, since its size would queue behind a waiting exclusive lock. Exact
measuring opens and reads each index, so it is bounded in time and asked for by name.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import psycopg
from psycopg import sql

from pgtend.postgres.purposes import Purpose
from pgtend.postgres.quoting import identifier
from pgtend.postgres.session import Row, Session
from pgtend.server.server import Server
from pgtend.tasks.bloat import SMALLEST, btree_bloat, columns_of, measured_bloat
from pgtend.tasks.relations import Select, databases, reader

EXACT_SECONDS = 30.0
"""What exact measuring may take for one plan; what is left then is not known."""

# 14 to 18. One pass over the catalog, and per column of a B-tree one look at pg_stats (about 0.1 ms), which shows only
# what the role may read. System schemas, TOAST and temporary tables are left out: REINDEX CONCURRENTLY cannot, or
# should not, touch them. A partitioned index (relkind I) has no storage: its partitions' indexes are here themselves.
_INDEXES = sql.SQL("""
SELECT i.oid::text AS oid, n.nspname::text AS schema, i.relname::text AS name, t.oid::text AS table_oid,
       t.relname::text AS table_name, m.amname::text AS method, i.relpages, i.reltuples::float8 AS tuples,
       current_setting('block_size')::int8 AS block, t.relpages::int8 AS table_pages, x.indisvalid AS valid,
       x.indisexclusion AS exclusion, i.relname ~ '_cc(new|old)[0-9]*$' AS leftover,
       coalesce((SELECT split_part(o, '=', 2)::int FROM unnest(i.reloptions) AS o WHERE o LIKE 'fillfactor=%'), 90)
         AS fillfactor,
       CASE WHEN m.amname = 'btree' THEN (
         SELECT json_agg(json_build_array(a.attlen, a.attalign, s.avg_width, s.null_frac) ORDER BY a.attnum)
         FROM pg_catalog.pg_attribute AS a
         LEFT JOIN pg_catalog.pg_attribute AS c ON c.attrelid = t.oid AND c.attnum = x.indkey[a.attnum - 1]
         LEFT JOIN pg_catalog.pg_stats AS s ON s.schemaname = n.nspname AND NOT s.inherited
           AND s.tablename = CASE WHEN c.attnum IS NULL THEN i.relname ELSE t.relname END
           AND s.attname = coalesce(c.attname, a.attname)
         WHERE a.attrelid = i.oid) END AS columns
FROM pg_catalog.pg_index AS x
JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid JOIN pg_catalog.pg_class AS t ON t.oid = x.indrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = i.relnamespace JOIN pg_catalog.pg_am AS m ON m.oid = i.relam
WHERE i.relkind = 'i' AND i.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 2, 3""")
_HEAD = sql.SQL("""
SELECT current_setting('server_version_num')::int AS version, current_user::text AS me,
       pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text AS horizon,
       (SELECT n.nspname::text FROM pg_catalog.pg_extension AS e
        JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'pgstattuple') AS pgstattuple,
       (SELECT count(*) FROM pg_catalog.pg_stat_replication WHERE state = 'streaming') AS standbys""")
# reads the whole index; pg_monitor includes the right (pg_stat_scan_tables)
_EXACT = sql.SQL("""
SELECT index_size / current_setting('block_size')::int8 AS pages, leaf_pages, internal_pages, avg_leaf_density
FROM {schema}.pgstatindex({oid}::regclass)""")
_LIMITS = sql.SQL(
    "SELECT pg_catalog.set_config('lock_timeout', '1000', false),"
    " pg_catalog.set_config('statement_timeout', {milliseconds}, false)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """One index. `bloat` is the empty share (0 to 1), None where it is not known; sizes in bytes, from statistics."""

    database: str
    schema: str
    name: str
    oid: str
    table_oid: str
    table: str
    method: str
    bytes: int
    pages: int
    table_bytes: int
    fillfactor: int
    valid: bool
    exclusion: bool
    leftover: bool
    bloat: float | None

    @property
    def shown(self) -> str:
        return f"{identifier(self.schema)}.{identifier(self.name)}"

    @property
    def object(self) -> str:
        return f"{self.database}.{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexes:
    """What was found: in all selected databases. `horizon` by database is the first transaction that is later than
    this look; `notes` say what could not be seen, `unmeasured` names databases without pgstattuple."""

    version: int
    role: str
    standbys: int
    found: tuple[Index, ...]
    horizon: dict[str, str] = field(default_factory=dict)
    unmeasured: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


async def look_at_indexes(server: Server, select: Select, *, exact: bool) -> Indexes:
    """All selected indexes of all selected databases. Raises PgtendError, psycopg.Error or TimeoutError."""
    names = await databases(server, select)
    found: list[Index] = []
    horizon: dict[str, str] = {}
    unmeasured: list[str] = []
    notes: list[str] = []
    head: Row = {"version": 0, "me": "", "standbys": 0}
    until = time.monotonic() + EXACT_SECONDS
    for database in names:
        async with reader(server, database=database) as session:
            head = (await session.fetch(_HEAD))[0]
            rows = await session.fetch(_INDEXES)
        horizon[database] = head["horizon"]
        mine = [_index(database, row) for row in rows]
        mine = [x for x in mine if select.takes(schema=x.schema, table=x.table, index=x.name)]
        if exact and head["pgstattuple"] is None:
            unmeasured.append(database)
            mine = [replace(index, bloat=None) for index in mine]
        elif exact:
            mine, said = await _measure(server, database, head["pgstattuple"], mine, until)
            notes += said
        found += mine
    return Indexes(
        version=head["version"],
        role=head["me"],
        standbys=head["standbys"],
        found=tuple(found),
        horizon=horizon,
        unmeasured=tuple(unmeasured),
        notes=tuple(notes),
    )


def _index(database: str, row: Row) -> Index:
    bloat = None
    if row["method"] == "btree":
        bloat = btree_bloat(
            pages=row["relpages"],
            tuples=row["tuples"],
            fillfactor=row["fillfactor"],
            columns=columns_of(row["columns"]),
            block=row["block"],
        )
    return Index(
        database=database,
        schema=row["schema"],
        name=row["name"],
        oid=row["oid"],
        table_oid=row["table_oid"],
        table=row["table_name"],
        method=row["method"],
        bytes=row["relpages"] * row["block"],
        pages=row["relpages"],
        table_bytes=row["table_pages"] * row["block"],
        fillfactor=row["fillfactor"],
        valid=row["valid"],
        exclusion=row["exclusion"],
        leftover=row["leftover"],
        bloat=bloat,
    )


async def _measure(
    server: Server, database: str, schema: str, indexes: Sequence[Index], until: float
) -> tuple[list[Index], list[str]]:
    """The same indexes with what pgstatindex has read, and a note about those that it has not."""
    measured: list[Index] = []
    failed: list[str] = []
    async with reader(server, database=database, purpose=Purpose.WORK) as session:
        for index in indexes:
            if index.method != "btree" or not index.valid or index.exclusion:
                measured.append(index)
                continue
            bloat, pages = None, index.pages
            left = until - time.monotonic()
            if left > 0:
                try:
                    pages, bloat = await _exact(session, schema, index, left)
                except psycopg.Error as error:
                    if not session.usable:
                        raise
                    failed.append(f"{index.object}: {' '.join(str(error).split())[:80]}")
            else:
                failed.append(f"{index.object}: no time left")
            measured.append(replace(index, bloat=bloat, pages=pages))
    if not failed:
        return measured, []
    rest = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return measured, [f"not measured: {failed[0]}{rest}"]


async def _exact(session: Session, schema: str, index: Index, seconds: float) -> tuple[int, float]:
    await session.fetch(_LIMITS.format(milliseconds=sql.Literal(str(max(1, int(seconds * 1000))))))
    row = (await session.fetch(_EXACT.format(schema=sql.Identifier(schema), oid=sql.Literal(index.oid))))[0]
    bloat = measured_bloat(
        pages=row["pages"],
        leaf_pages=row["leaf_pages"],
        inner_pages=row["internal_pages"],
        leaf_density=row["avg_leaf_density"],
        fillfactor=index.fillfactor,
    )
    return row["pages"], bloat


def due(index: Index, min_bloat: float) -> bool:
    """Whether it is to be rebuilt. At 0 everything is, whatever is known of it."""
    if not index.valid or index.exclusion:
        return False
    if min_bloat <= 0:
        return True
    return index.bloat is not None and index.pages >= SMALLEST and index.bloat >= min_bloat
