"""What an aborted REINDEX INDEX CONCURRENTLY leaves behind, and how it is taken away: only what is ours and dead.

Dead: the index is invalid and nobody builds on its table. Ours: it carries the name that PostgreSQL gives to the copy
of an index that we planned to rebuild, and it was made after we planned it (its catalog row's transaction is later than
the plan's). An older one is somebody else's, and people are told of it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import psycopg
from psycopg import sql

from pgtend.core.failpoints import failpoint
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.quoting import identifier
from pgtend.server.member import needed
from pgtend.server.server import Server
from pgtend.server.write import WriteSession
from pgtend.tasks.protocol import Item, Staying

log = logging.getLogger(__name__)
DROP_SECONDS = 60
"""DROP INDEX CONCURRENTLY waits for transactions that use the table; one that is given up is tried again when the run
has ended (runner.py), and then left to people."""

_OURS = sql.SQL("""
SELECT i.oid::text AS oid, n.nspname::text AS schema, i.relname::text AS name
FROM pg_catalog.pg_index AS x JOIN pg_catalog.pg_class AS i ON i.oid = x.indexrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = i.relnamespace,
LATERAL (SELECT regexp_replace(i.relname, '_cc(new|old)[0-9]*$', '') AS name) AS base
WHERE x.indrelid = {table}::oid AND NOT x.indisvalid AND i.relname ~ '_cc(new|old)[0-9]*$'
  AND (base.name = {name} OR (octet_length(i.relname) >= 60 AND starts_with({name}, base.name)))
  AND pg_catalog.age(i.xmin) <= pg_catalog.age({horizon}::xid)
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_progress_create_index AS p
    WHERE p.datname = current_database() AND (p.relid IS NULL OR p.relid = x.indrelid))
ORDER BY 3""")
_LIMITS = sql.SQL(
    "SELECT pg_catalog.set_config('lock_timeout', '0', false), pg_catalog.set_config('statement_timeout', {}, false)"
)


async def drop_leftovers(session: WriteSession, item: Item) -> tuple[str, ...]:
    """Drop what our rebuilding of this index has left; one line for each. Raises PgtendError, psycopg.Error."""
    facts = item.facts
    find = _OURS.format(
        table=sql.Literal(facts["table"]), name=sql.Literal(facts["name"]), horizon=sql.Literal(_xid(facts["horizon"]))
    )
    await session.fetch(_LIMITS.format(sql.Literal(str(DROP_SECONDS * 1000))))
    lines: list[str] = []
    for row in await session.fetch(find):
        shown = f"{identifier(row['schema'])}.{identifier(row['name'])}"
        drop = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(sql.Identifier(row["schema"], row["name"]))
        try:
            await session.alone(drop)
        except psycopg.Error as error:
            log.warning("a leftover stays", extra={"index": shown, "cause": str(error)})
            text = f"{shown} in {facts['database']} is left over: run DROP INDEX CONCURRENTLY {shown}"
            lines.append(Staying(text))
        else:
            lines.append(f"dropped the leftover {shown} in {facts['database']}")
        failpoint("tasks.leftovers.dropped")
    return tuple(lines)


async def sweep_indexes(server: Server, items: Sequence[Item]) -> tuple[str, ...]:
    """Remove what rebuilding these indexes has left. What still builds for a process that is gone has been ended when
    the session is given (server/takeover.py)."""
    lines: list[str] = []
    for database in sorted({item.facts["database"] for item in items}):
        mine = [item for item in items if item.facts["database"] == database]
        async with server.write(
            role="maintenance", credential=needed(server), purpose=Purpose.WORK, database=database
        ) as session:
            for item in mine:
                lines += await drop_leftovers(session, item)
    return tuple(lines)


def _xid(horizon: str) -> str:
    """The 32 bits of a transaction number that catalog rows carry."""
    return str(int(horizon) & 0xFFFFFFFF)
