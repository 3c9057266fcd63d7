"""Reindex: REINDEX INDEX CONCURRENTLY on indexes that are mostly empty, one at a time and never two on one table.

It is without a lock timeout: one that strikes leaves an invalid index behind. What bounds it is the deadline, and a
look beforehand at who else is on the table. An aborted one is swept (leftovers.py). Success is that the name stands for
another index than before, a valid one: not that no error came.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pgtend.api.reasons import TargetReason
from pgtend.core.actions import Repeat
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.gate.classes import TaskType
from pgtend.gate.decide import Permit
from pgtend.postgres.quoting import identifier
from pgtend.postgres.session import Row
from pgtend.tasks.indexes import look_at_indexes
from pgtend.tasks.leftovers import sweep_indexes
from pgtend.tasks.protocol import (
    Ground,
    Item,
    ItemResult,
    Outcome,
    TaskPlan,
)
from pgtend.tasks.rebuilding import corrupting, plan_of
from pgtend.tasks.relations import Select, Work, failure, left_ms, reader, work_on
from pgtend.tasks.yielding import Harm, Watch, yielding

log = logging.getLogger(__name__)
BUSY_MS = 1000
"""How long to wait for the lock under which the size is read: whoever holds it would hold up the rebuilding too."""
# the size needs a lock on the index; everything else is catalog. SUE: another VACUUM, ANALYZE or index build; a
# stronger one is somebody's DDL, or a lock taken by hand.
_NOW = sql.SQL("""
SELECT i.oid::text AS oid, x.indisvalid AS valid, pg_catalog.pg_relation_filenode(i.oid)::text AS filenode,
       pg_catalog.pg_relation_size(i.oid) AS bytes, pg_catalog.pg_get_userbyid(i.relowner)::text AS owner,
       current_setting('server_version_num')::int AS version, t.relname::text AS table_name,
       (SELECT l.pid FROM pg_catalog.pg_locks AS l WHERE l.locktype = 'relation' AND l.relation = x.indrelid
        AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        AND l.pid <> pg_catalog.pg_backend_pid() AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock',
          'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock') LIMIT 1) AS holder
FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_class AS t ON t.oid = x.indrelid JOIN pg_catalog.pg_namespace AS n ON n.oid = i.relnamespace
WHERE n.nspname = {schema} AND i.relname = {name} AND x.indrelid = {table}::oid""")
_FIND = sql.SQL("""
SELECT i.oid::text AS oid, x.indisvalid AS valid, i.relpages::int8 * current_setting('block_size')::int8 AS bytes
FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = i.relnamespace
WHERE n.nspname = {schema} AND i.relname = {name} AND x.indrelid = {table}::oid""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reindex:
    """The task, see tasks.protocol.Task. `min_bloat` is the empty share (0 to 1) from which on an index is due; at 0
    all are. `exact` measures by pgstattuple."""

    select: Select
    min_bloat: float = 0.3
    exact: bool = False

    type = TaskType.REINDEX
    repeat = Repeat.IDEMPOTENT
    together = False

    async def plan(self, ground: Ground) -> TaskPlan:
        exact = self.exact and self.min_bloat > 0
        seen = await look_at_indexes(ground.server, self.select, exact=exact)
        if (text := corrupting(seen.version)) is not None:
            raise PgtendError(TargetReason.UNSUPPORTED_VERSION, text, transient=False)
        standing = ground.server.standing
        system = standing.identity.system_identifier if standing and standing.identity else ""
        return plan_of(seen, exact=exact, min_bloat=self.min_bloat, system_identifier=system)

    async def run(
        self, ground: Ground, permit: Permit, items: Sequence[Item]
    ) -> AsyncIterator[tuple[Item, ItemResult]]:
        if permit.type is not self.type or permit.target != ground.server.key:
            raise ValueError("this permit is for something else")
        for item in items:
            yield item, await self._one(ground, permit, item)

    async def sweep(self, ground: Ground, items: Sequence[Item]) -> tuple[str, ...]:
        return await sweep_indexes(ground.server, items)

    async def find(self, ground: Ground, items: Sequence[Item]) -> Mapping[str, ItemResult]:
        """Whatever is another index than the one that was planned, and valid, has been rebuilt."""
        found: dict[str, ItemResult] = {}
        for database in sorted({item.facts["database"] for item in items}):
            async with reader(ground.server, database=database) as session:
                for item in (item for item in items if item.facts["database"] == database):
                    rows = await session.fetch(_named(_FIND, item))
                    if rows and rows[0]["valid"] and rows[0]["oid"] != item.facts["oid"]:
                        found[item.object] = ItemResult(outcome=Outcome.SUCCEEDED, size_after=rows[0]["bytes"])
        return found

    async def _one(self, ground: Ground, permit: Permit, item: Item) -> ItemResult:
        started = time.monotonic()
        try:
            async with work_on(ground.server, item.facts["database"], permit=permit, lock_ms=BUSY_MS) as work:
                before, refused = await _ready(work, item)
                if refused is not None:
                    return refused
                await work.limit(lock_ms=0, statement_ms=left_ms(permit))
                result = await _rebuild(ground, item, before, work, started)
        except (psycopg.Error, TimeoutError) as error:
            ground.server.writable()
            result = failure(error, time.monotonic() - started)
        if result.outcome is Outcome.SUCCEEDED:
            return result
        failpoint("tasks.reindex.failed")
        return with_lines(result, await self._swept(ground, item))

    async def _swept(self, ground: Ground, item: Item) -> tuple[str, ...]:
        try:
            return await sweep_indexes(ground.server, [item])
        except (PgtendError, psycopg.Error, TimeoutError) as error:
            log.warning("leftovers not looked for", extra={"object": item.object, "cause": str(error)})
            return ("leftovers could not be looked for",)


async def _ready(work: Work, item: Item) -> tuple[Row, ItemResult | None]:
    """The index as it stands, or why there is nothing to do, or nothing to do now."""
    rows = await work.read(_named(_NOW, item))
    if not rows:
        return {}, ItemResult(outcome=Outcome.SUCCEEDED, message="the index is gone")
    row = rows[0]
    if row["oid"] != item.facts["oid"] and row["valid"]:
        return row, ItemResult(outcome=Outcome.SUCCEEDED, message="it has been rebuilt since it was planned")
    if row["holder"] is not None:
        text = f"pid {row['holder']} works on table {row['table_name']}: never two at a time"
        return row, ItemResult(outcome=Outcome.DEFERRED_LOCKED, message=text)
    return row, None


async def _rebuild(ground: Ground, item: Item, before: Row, work: Work, started: float) -> ItemResult:
    query = sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(sql.Identifier(item.facts["schema"], item.facts["name"]))
    failpoint("tasks.reindex.before")
    async with yielding(ground, work.pid, harm=Harm.TRAFFIC) as watch:
        try:
            await work.alone(query)
        except psycopg.Error as error:
            return _failed(error, item, before, work, watch, time.monotonic() - started)
    if watch.asked:
        await work.drained()
    failpoint("tasks.reindex.after")
    spent = time.monotonic() - started
    after = next(iter(await work.read(_named(_FIND, item))), None)
    if after is None or not after["valid"] or after["oid"] == before["oid"]:
        text = "the server reported no error, but the index is the old one"
        return ItemResult(outcome=Outcome.FAILED, actual=spent, message=text)
    return ItemResult(outcome=Outcome.SUCCEEDED, actual=spent, size_before=before["bytes"], size_after=after["bytes"])


def _named(query: sql.SQL, item: Item) -> sql.Composed:
    facts = item.facts
    return query.format(
        schema=sql.Literal(facts["schema"]), name=sql.Literal(facts["name"]), table=sql.Literal(facts["table"])
    )


def _failed(error: psycopg.Error, item: Item, before: Row, work: Work, watch: Watch, spent: float) -> ItemResult:
    state = error.sqlstate
    if state == "57014" and watch.asked:
        return ItemResult(outcome=Outcome.DEFERRED_BLOCKING, actual=spent, sql_state=state, message=watch.why)
    if state == "40P01":
        text = "it met somebody else's work on the same table"
        return ItemResult(outcome=Outcome.DEFERRED_LOCKED, actual=spent, sql_state=state, message=text)
    if state == "42501":
        return ItemResult(outcome=Outcome.FAILED, actual=spent, sql_state=state, message=_right(item, before, work))
    result = failure(error, spent)
    if state == "57014" and watch.locker is not None:
        text = f"{result.message}; it waited for the transaction of pid {watch.locker} to end"
        return ItemResult(outcome=result.outcome, actual=spent, sql_state=state, message=text[:256])
    return result


def _right(item: Item, before: Row, work: Work) -> str:
    role, schema = identifier(work.role), identifier(item.facts["schema"])
    text = f"{work.role} may not rebuild it: run GRANT {identifier(before['owner'])} TO {role}"
    if before["version"] >= 170000:
        table = f"{schema}.{identifier(before['table_name'])}"
        text = f"{work.role} may not rebuild it: run GRANT MAINTAIN ON {table} TO {role}"
    return f"{text}, and GRANT USAGE ON SCHEMA {schema} TO {role}"[:256]


def with_lines(result: ItemResult, lines: Sequence[str]) -> ItemResult:
    """The result with what was swept, in its message."""
    if not lines:
        return result
    text = "; ".join((result.message, *lines)) if result.message else "; ".join(lines)
    return ItemResult(
        outcome=result.outcome,
        actual=result.actual,
        size_before=result.size_before,
        size_after=result.size_after,
        sql_state=result.sql_state,
        message=text[:256],
    )
