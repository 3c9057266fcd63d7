"""VacuumAnalyze: VACUUM (ANALYZE) on tables with many dead rows, out of everybody's way.

A manual VACUUM does not yield by itself, so its own backend is watched: when somebody waits for it, it gives way. And
it only warns where the role may not vacuum: success is read from the table's counter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pgtend.core.actions import Repeat
from pgtend.core.failpoints import failpoint
from pgtend.gate.classes import TaskType
from pgtend.gate.decide import Permit
from pgtend.postgres.quoting import identifier
from pgtend.postgres.session import Row
from pgtend.tasks.protocol import Ground, Item, ItemResult, LockLevel, Outcome, TaskPlan, plan_hash
from pgtend.tasks.relations import MOST, Select, Work, failure, look, work_on
from pgtend.tasks.yielding import Harm, yielding

LOCK_MS = 2000
# bytes per second: a slow disk's pace, so that an estimate is rather too long
PACE = 50 << 20

# Statistics and catalog only, no relation is opened: a size would queue behind a waiting exclusive lock.
_TABLES = sql.SQL("""
SELECT c.oid::text AS oid, n.nspname::text AS schema, c.relname::text AS name,
       c.relpages::int8 * current_setting('block_size')::int8 AS bytes,
       pg_catalog.pg_stat_get_dead_tuples(c.oid) AS dead, pg_catalog.pg_stat_get_live_tuples(c.oid) AS live
FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 2, 3""")
_COUNT = sql.SQL("""
SELECT pg_catalog.pg_stat_get_vacuum_count({oid}::oid) AS count, c.relpages::int8 * 8192 AS bytes,
       pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owns FROM pg_catalog.pg_class AS c WHERE c.oid = {oid}::oid""")


@dataclass(frozen=True, slots=True, kw_only=True)
class VacuumAnalyze:
    """The task, see tasks.protocol.Task. `min_dead` is the share of dead rows (0 to 1) from which on a table is due."""

    select: Select
    min_dead: float = 0.2

    type = TaskType.VACUUM_ANALYZE
    repeat = Repeat.IDEMPOTENT
    together = False

    async def plan(self, ground: Ground) -> TaskPlan:
        items = []
        for database, rows in await look(ground.server, _TABLES, self.select):
            for row in rows:
                if not self.select.takes(schema=row["schema"], table=row["name"]):
                    continue
                total = row["dead"] + row["live"]
                if (row["dead"] / total if total else 0.0) >= self.min_dead:
                    items.append(self._item(database, row))
        standing = ground.server.standing
        system = standing.identity.system_identifier if standing and standing.identity else ""
        kept = tuple(items[:MOST])
        return TaskPlan(
            type=self.type,
            items=kept,
            plan_hash=plan_hash(type=self.type, system_identifier=system, items=kept),
            sql=tuple(item.sql for item in kept[:10]),
            notes=(f"{len(items) - MOST} more are left for another run",) if len(items) > MOST else (),
        )

    def _item(self, database: str, row: Row) -> Item:
        shown = f"{identifier(row['schema'])}.{identifier(row['name'])}"
        return Item(
            type=self.type,
            object=f"{database}.{row['schema']}.{row['name']}",
            verb="vacuum",
            sql=f"VACUUM (ANALYZE, SKIP_LOCKED, TRUNCATE false) {shown}",
            lock=LockLevel.SHARE_UPDATE_EXCLUSIVE,
            database=database,
            schema=row["schema"],
            name=row["name"],
            estimate=1.0 + row["bytes"] / PACE,
            size_before=row["bytes"],
            facts={"database": database, "oid": row["oid"]},
        )

    async def run(
        self, ground: Ground, permit: Permit, items: Sequence[Item]
    ) -> AsyncIterator[tuple[Item, ItemResult]]:
        if permit.type is not self.type or permit.target != ground.server.key:
            raise ValueError("this permit is for something else")
        for item in items:
            yield item, await self._one(ground, permit, item)

    async def _one(self, ground: Ground, permit: Permit, item: Item) -> ItemResult:
        started = time.monotonic()
        try:
            async with work_on(ground.server, str(item.database), permit=permit, lock_ms=LOCK_MS) as work:
                return await self._vacuum(ground, permit, item, work, started)
        except (psycopg.Error, TimeoutError) as error:
            ground.server.writable()
            return failure(error, time.monotonic() - started)

    async def _vacuum(self, ground: Ground, permit: Permit, item: Item, work: Work, started: float) -> ItemResult:
        count = _COUNT.format(oid=sql.Literal(item.facts["oid"]))
        before = await work.read(count)
        if not before:
            return ItemResult(outcome=Outcome.SUCCEEDED, message="the table is gone")
        # outside of a window the end of a table is not cut off: that takes an exclusive lock
        query = sql.SQL("VACUUM (ANALYZE, SKIP_LOCKED, TRUNCATE {cut}) {table}").format(
            cut=sql.SQL("true" if permit.window is not None else "false"),
            table=sql.Identifier(str(item.schema), str(item.name)),
        )
        failpoint("tasks.vacuum.before")
        async with yielding(ground, work.pid, harm=Harm.ANYBODY) as watch:
            try:
                await work.alone(query)
            except psycopg.Error as error:
                spent = time.monotonic() - started
                if error.sqlstate == "57014" and watch.asked:
                    return ItemResult(
                        outcome=Outcome.DEFERRED_BLOCKING, actual=spent, sql_state="57014", message=watch.why
                    )
                if error.sqlstate == "42501":
                    text = f"run GRANT USAGE ON SCHEMA {identifier(str(item.schema))} TO {identifier(work.role)}"
                    return ItemResult(
                        outcome=Outcome.FAILED, actual=spent, sql_state="42501", message=f"{error}: {text}"
                    )
                raise
        if watch.asked:
            await work.drained()
        failpoint("tasks.vacuum.after")
        spent = time.monotonic() - started
        after = await self._counted(work, count, before[0]["count"])
        if after is not None:
            return ItemResult(outcome=Outcome.SUCCEEDED, actual=spent, size_after=after["bytes"])
        if before[0]["owns"]:
            text = "the server skipped it: somebody held a lock on it"
            return ItemResult(outcome=Outcome.DEFERRED_LOCKED, actual=spent, message=text)
        return _skipped(item, work, spent)

    async def _counted(self, work: Work, count: sql.Composed, before: int) -> Row | None:
        """The table's row once its counter has moved; the statistics of 14 come up to a second late."""
        for pause in (0.0, 0.2, 0.5, 1.0):
            await asyncio.sleep(pause)
            rows = await work.read(count)
            if rows and rows[0]["count"] > before:
                return rows[0]
        return None

    async def sweep(self, ground: Ground, items: Sequence[Item]) -> tuple[str, ...]:
        return ()

    async def find(self, ground: Ground, items: Sequence[Item]) -> Mapping[str, ItemResult]:
        return {}


def _skipped(item: Item, work: Work, spent: float) -> ItemResult:
    table = f"{identifier(str(item.schema))}.{identifier(str(item.name))}"
    text = (
        f"skipped by the server: {work.role} does not own it, or somebody held a lock on it. On 17 and later run GRANT"
        f" MAINTAIN ON {table} TO {identifier(work.role)}, before that GRANT its owner to {identifier(work.role)}"
    )
    return ItemResult(outcome=Outcome.FAILED, actual=spent, sql_state="42501", message=text[:256])
