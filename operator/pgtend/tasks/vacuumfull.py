"""VacuumFull: VACUUM (FULL, ANALYZE) on tables that are mostly empty. It locks the table against everybody while it
copies it, so it is never begun in a queue: it asks for the lock for two seconds, goes away, and asks again.

Success is that the table lies in another file than before: a VACUUM without the right only warns. Cancelled it rolls
back, and nothing is left behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pgtend.api.types import format_bytes
from pgtend.core.actions import Repeat
from pgtend.core.failpoints import failpoint
from pgtend.gate.classes import TaskType
from pgtend.gate.decide import Permit
from pgtend.postgres.quoting import identifier
from pgtend.postgres.session import Row
from pgtend.tasks.bloat import columns_of, table_bloat
from pgtend.tasks.protocol import (
    Breach,
    Ground,
    Item,
    ItemResult,
    LockLevel,
    Objection,
    Outcome,
    TaskPlan,
    plan_hash,
)
from pgtend.tasks.relations import MOST, Select, Work, failure, left_ms, look, reader, work_on

LOCK_MS = 2000
PAUSES = (2.0, 5.0, 10.0, 20.0)
"""Seconds between two tries for the lock."""
# bytes per second of reading a table, writing it and building its indexes anew: rather too slow
PACE = 20 << 20

# Catalog and statistics only, no relation is opened: a size would queue behind a waiting exclusive lock. pg_stats shows
# only what the role may read. System schemas and temporary tables are left out; a partitioned table has no storage, its
# partitions are here themselves.
_TABLES = sql.SQL("""
SELECT c.oid::text AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relpages,
       c.reltuples::float8 AS tuples, current_setting('block_size')::int8 AS block, current_user::text AS me,
       c.relfilenode::text AS file,
       coalesce((SELECT split_part(o, '=', 2)::int FROM unnest(c.reloptions) AS o WHERE o LIKE 'fillfactor=%'), 100)
         AS fillfactor,
       (SELECT coalesce(sum(i.relpages), 0)::int8 FROM pg_catalog.pg_index AS x
        JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid WHERE x.indrelid = c.oid) AS index_pages,
       (SELECT json_agg(json_build_array(a.attlen, a.attalign, s.avg_width, s.null_frac) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute AS a
        LEFT JOIN pg_catalog.pg_stats AS s ON s.schemaname = n.nspname AND s.tablename = c.relname
          AND s.attname = a.attname AND NOT s.inherited
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 2, 3""")
_NOW = sql.SQL("""
SELECT c.relfilenode::text AS file, c.relpages::int8 * current_setting('block_size')::int8 AS bytes,
       pg_catalog.pg_get_userbyid(c.relowner)::text AS owner, n.nspname::text AS schema, c.relname::text AS name,
       current_setting('server_version_num')::int AS version
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = {oid}::oid""")


@dataclass(frozen=True, slots=True, kw_only=True)
class VacuumFull:
    """The task, see tasks.protocol.Task. A table is due when its empty share is `min_bloat` (0 to 1) and what that
    comes to is `min_reclaim` bytes. No disk provider exists yet, so without `allow_unknown_disk` it is refused."""

    select: Select
    min_bloat: float = 0.5
    min_reclaim: int = 5 << 30
    allow_unknown_disk: bool = False

    type = TaskType.VACUUM_FULL
    repeat = Repeat.IDEMPOTENT
    together = False

    async def plan(self, ground: Ground) -> TaskPlan:
        due: list[tuple[float, str, Row]] = []
        blind: list[str] = []
        role = ""
        for database, rows in await look(ground.server, _TABLES, self.select):
            for row in rows:
                if not self.select.takes(schema=row["schema"], table=row["name"]):
                    continue
                role = row["me"]
                bytes_, bloat = row["relpages"] * row["block"], _bloat(row)
                if bloat is None and bytes_ >= self.min_reclaim and self.min_bloat > 0:
                    blind.append(f"{database}.{row['schema']}.{row['name']}")
                reclaim = bytes_ * (bloat or 0.0)
                if (self.min_bloat <= 0 or (bloat or 0.0) >= self.min_bloat) and reclaim >= self.min_reclaim:
                    due.append((reclaim, database, row))
        due.sort(key=lambda entry: (-entry[0], entry[1], entry[2]["schema"], entry[2]["name"]))
        items = tuple(_item(database, row) for _, database, row in due[:MOST])
        standing = ground.server.standing
        system = standing.identity.system_identifier if standing and standing.identity else ""
        return TaskPlan(
            type=self.type,
            items=items,
            plan_hash=plan_hash(type=self.type, system_identifier=system, items=items),
            sql=tuple(item.sql for item in items[:10]),
            notes=_notes(blind, role, len(due) - len(items)),
            objection=self._objection(due),
        )

    def _objection(self, due: Sequence[tuple[float, str, Row]]) -> Objection | None:
        if self.allow_unknown_disk or not due:
            return None
        sizes = [((row["relpages"] + row["index_pages"]) * row["block"], database, row) for _, database, row in due]
        most, database, row = max(sizes, key=lambda entry: entry[0])
        name = f"{database}.{row['schema']}.{row['name']}"
        return Objection(
            breach=Breach.DISK_UNKNOWN,
            message=f"VACUUM FULL of {name} writes it and its indexes anew, up to {format_bytes(most)} and as much WAL,"
            " and how much disk is free is not known: look at the server, then set allowUnknownDisk: true in another",
            object=name,
        )

    async def run(
        self, ground: Ground, permit: Permit, items: Sequence[Item]
    ) -> AsyncIterator[tuple[Item, ItemResult]]:
        if permit.type is not self.type or permit.target != ground.server.key:
            raise ValueError("this permit is for something else")
        for item in items:
            yield item, await self._one(ground, permit, item)

    async def sweep(self, ground: Ground, items: Sequence[Item]) -> tuple[str, ...]:
        return ()

    async def find(self, ground: Ground, items: Sequence[Item]) -> Mapping[str, ItemResult]:
        """Whatever lies in another file than when it was planned has been rewritten."""
        found: dict[str, ItemResult] = {}
        for database in sorted({item.facts["database"] for item in items}):
            async with reader(ground.server, database=database) as session:
                for item in (item for item in items if item.facts["database"] == database):
                    rows = await session.fetch(_NOW.format(oid=sql.Literal(item.facts["oid"])))
                    if rows and rows[0]["file"] != item.facts["file"]:
                        found[item.object] = ItemResult(outcome=Outcome.SUCCEEDED, size_after=rows[0]["bytes"])
        return found

    async def _one(self, ground: Ground, permit: Permit, item: Item) -> ItemResult:
        started = time.monotonic()
        for pause in (*PAUSES, None):
            try:
                async with work_on(ground.server, item.facts["database"], permit=permit, lock_ms=LOCK_MS) as work:
                    result = await _rewrite(permit, item, work, started)
            except (psycopg.Error, TimeoutError) as error:
                ground.server.writable()
                result = failure(error, time.monotonic() - started)
            if result.outcome is not Outcome.DEFERRED_LOCKED or pause is None or left_ms(permit) < pause * 2000:
                return result
            await asyncio.sleep(pause)
        raise AssertionError("the last try has no pause")


async def _rewrite(permit: Permit, item: Item, work: Work, started: float) -> ItemResult:
    look_again = _NOW.format(oid=sql.Literal(item.facts["oid"]))
    rows = await work.read(look_again)
    if not rows:
        return ItemResult(outcome=Outcome.SUCCEEDED, message="the table is gone")
    before = rows[0]
    if before["file"] != item.facts["file"]:
        return ItemResult(outcome=Outcome.SUCCEEDED, message="it has been rewritten since it was planned")
    table = sql.Identifier(before["schema"], before["name"])
    failpoint("tasks.vacuumfull.before")
    try:
        await work.alone(sql.SQL("VACUUM (FULL, ANALYZE) {}").format(table))
    except psycopg.Error as error:
        if error.sqlstate != "42501":
            raise
        return _denied(before, work, time.monotonic() - started)
    failpoint("tasks.vacuumfull.after")
    spent = time.monotonic() - started
    after = await work.read(look_again)
    if not after or after[0]["file"] == before["file"]:
        return _denied(before, work, spent)
    return ItemResult(
        outcome=Outcome.SUCCEEDED, actual=spent, size_before=item.size_before, size_after=after[0]["bytes"]
    )


def _denied(row: Row, work: Work, spent: float) -> ItemResult:
    role, schema = identifier(work.role), identifier(row["schema"])
    grant = f"GRANT {identifier(row['owner'])} TO {role}"
    if row["version"] >= 170000:
        grant = f"GRANT MAINTAIN ON {schema}.{identifier(row['name'])} TO {role}"
    text = f"{work.role} may not vacuum it, so the server skipped it: run {grant}, and GRANT USAGE ON SCHEMA {schema}"
    text += f" TO {role}"
    return ItemResult(outcome=Outcome.FAILED, actual=spent, sql_state="42501", message=text[:256])


def _bloat(row: Row) -> float | None:
    return table_bloat(
        pages=row["relpages"],
        tuples=row["tuples"],
        fillfactor=row["fillfactor"],
        columns=columns_of(row["columns"]),
        block=row["block"],
    )


def _notes(blind: Sequence[str], role: str, left: int) -> tuple[str, ...]:
    notes = []
    if left:
        notes.append(f"{left} more are left for another run")
    if blind:
        rest = f" and {len(blind) - 1} more are" if len(blind) > 1 else " is"
        notes.append(
            f"{blind[0]}{rest} without statistics that {role} may read: run ANALYZE, and GRANT pg_read_all_data TO"
            f" {identifier(role)} or membership in the owner"
        )
    return tuple(notes)


def _item(database: str, row: Row) -> Item:
    bytes_ = row["relpages"] * row["block"]
    return Item(
        type=TaskType.VACUUM_FULL,
        object=f"{database}.{row['schema']}.{row['name']}",
        verb="vacuum full",
        sql=f"VACUUM (FULL, ANALYZE) {identifier(row['schema'])}.{identifier(row['name'])}",
        lock=LockLevel.ACCESS_EXCLUSIVE,
        database=database,
        schema=row["schema"],
        name=row["name"],
        estimate=2.0 + (bytes_ + row["index_pages"] * row["block"]) / PACE,
        size_before=bytes_,
        facts={"database": database, "oid": row["oid"], "file": row["file"]},
    )
