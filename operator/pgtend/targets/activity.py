"""What the sessions of a server do, as values: connections, long queries, idle transactions, who waits for whom. What
upkeep.py wants to know is read by the same statement."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import psycopg
from psycopg import sql

from pgtend.postgres.session import Session
from pgtend.targets import upkeep
from pgtend.targets.reading import Activity, Blocked, SessionInfo

# One statement, no relation is touched. pg_locks and pg_blocking_pids take the lock manager's locks for a moment: they
# are asked for waiting sessions only, at most 50. waitstart is there from 14 on. Our own sessions do not count:
# by role too, for anybody may call his application what he likes.
_ACTIVITY = sql.SQL("""
WITH act AS MATERIALIZED (
  SELECT pid, usename::text AS usename, datname::text AS datname, application_name, state, backend_type,
         coalesce(application_name LIKE 'pgtend/%' AND usename = ANY({own}), false) AS ours,
         wait_event_type, backend_xmin AS xmin,
         extract(epoch FROM clock_timestamp() - query_start)::float8 AS query_age,
         extract(epoch FROM clock_timestamp() - state_change)::float8 AS state_age
  FROM pg_catalog.pg_stat_activity WHERE pid <> pg_catalog.pg_backend_pid()),
waiting AS MATERIALIZED (
  SELECT a.pid, a.usename, a.datname, a.application_name, pg_catalog.pg_blocking_pids(a.pid) AS blockers,
         (SELECT extract(epoch FROM clock_timestamp() - min(l.waitstart))::float8
            FROM pg_catalog.pg_locks AS l WHERE l.pid = a.pid AND NOT l.granted) AS age
  FROM act AS a WHERE a.wait_event_type = 'Lock' ORDER BY a.query_age DESC LIMIT 50)
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true), '0')::int AS limit,
       (SELECT count(*) FROM act WHERE backend_type = 'client backend') AS used,
       (SELECT coalesce(json_agg(r), '[]') FROM (
          SELECT usename AS name, count(*) AS n FROM act WHERE backend_type = 'client backend'
          GROUP BY 1 ORDER BY 2 DESC LIMIT 3) AS r) AS by_role,
       (SELECT coalesce(json_agg(q), '[]') FROM (
          SELECT pid, usename, datname, application_name, query_age AS age FROM act
          WHERE backend_type = 'client backend' AND state IN ('active', 'fastpath function call')
            AND query_age >= {query_floor} AND NOT ours
          ORDER BY query_age DESC LIMIT 20) AS q) AS long_queries,
       (SELECT coalesce(json_agg(i), '[]') FROM (
          SELECT pid, usename, datname, application_name, state_age AS age FROM act
          WHERE backend_type = 'client backend' AND state LIKE 'idle in transaction%' AND state_age >= {idle_floor}
            AND NOT ours
          ORDER BY state_age DESC LIMIT 20) AS i) AS idle,
       (SELECT coalesce(json_agg(w), '[]') FROM waiting AS w) AS waiting,
       (SELECT coalesce(json_agg(b), '[]') FROM (
          SELECT pid, usename, datname, application_name, coalesce(query_age, 0) AS age, state FROM act
          WHERE pid IN (SELECT unnest(blockers) FROM waiting)) AS b) AS blockers,
{upkeep}
""")


async def read_activity(
    session: Session, *, query_floor: float, idle_floor: float, own: Collection[str]
) -> Activity | None:
    """What the sessions do; floors in seconds keep the lists short, `own` are the roles of pgtend itself. None where it
    cannot be read."""
    query = _ACTIVITY.format(
        query_floor=sql.Literal(query_floor),
        idle_floor=sql.Literal(idle_floor),
        own=sql.Literal(sorted(own)),
        upkeep=upkeep.COLUMN,
    )
    try:
        row = (await session.fetch(query))[0]
    except (psycopg.Error, TimeoutError):
        return None
    infos = {item["pid"]: _session(item) for item in row["blockers"]}
    for item in row["waiting"]:
        infos.setdefault(item["pid"], _session({**item, "age": item["age"] or 0.0}))
    return Activity(
        limit=row["limit"],
        used=row["used"],
        by_role=tuple((item["name"] or "-", item["n"]) for item in row["by_role"]),
        long_queries=tuple(_session(item) for item in row["long_queries"]),
        idle=tuple(_session(item) for item in row["idle"]),
        blocked=tuple(
            Blocked(session=infos[item["pid"]], seconds=item["age"] or 0.0, blockers=tuple(item["blockers"]))
            for item in row["waiting"]
            if item["blockers"]
        ),
        sessions=infos,
        upkeep=upkeep.upkeep_of(row["upkeep"]),
    )


def _session(item: dict[str, Any]) -> SessionInfo:
    return SessionInfo(
        pid=item["pid"],
        user=item["usename"] or "-",
        database=item["datname"] or "-",
        application=(item["application_name"] or "")[:40],
        seconds=item["age"] or 0.0,
    )
