"""Reads one member: at most two statements per probe and server, both cheap and free of locks on relations."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

import psycopg
from psycopg import sql

from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.postgres.session import Session
from pgtend.server.standing import parse_lsn
from pgtend.targets.activity import read_activity
from pgtend.targets.reading import Reading

# Timeline from the WAL file's name: the control file stays behind after a promotion. pg_walfile_name raises in
# recovery, hence CASE. pg_stat_wal_receiver hides its columns from who lacks pg_read_all_stats. All majors from 14.
_STATE = sql.SQL("""
SELECT pg_catalog.pg_is_in_recovery() AS in_recovery,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery()
            THEN substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END AS timeline,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_flush_lsn()::text END AS flush_lsn,
       pg_catalog.pg_last_wal_replay_lsn()::text AS replay_lsn,
       extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8
         AS replay_age,
       pg_catalog.pg_postmaster_start_time()::text AS started,
       pg_catalog.current_setting('server_version') AS version,
       pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_stats,
       r.pid IS NOT NULL AS has_receiver, r.status AS receiver_status, r.received_tli AS receiver_timeline,
       (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()) AS recovery_timeline
FROM (VALUES (1)) AS one LEFT JOIN pg_catalog.pg_stat_wal_receiver AS r ON true
""")


async def read_member(
    session: Session, *, at: datetime, query_floor: float, idle_floor: float, own: Collection[str]
) -> Reading:
    """Read the member behind this session; `own` are the roles of pgtend itself. A failed statement becomes the
    reading's error, never an exception."""
    name = session.address.name
    try:
        rows = await session.fetch(_STATE)
    except (psycopg.Error, TimeoutError) as error:
        text = " ".join(str(error).split())[:200] or "no answer within the deadline"
        return Reading(member=name, error=PgtendError(TargetReason.PROBE_FAILED, f"{name} could not be read: {text}"))
    row = rows[0]
    activity = None
    if row["sees_stats"]:
        activity = await read_activity(session, query_floor=query_floor, idle_floor=idle_floor, own=own)
    timeline = int(row["timeline"], 16) if row["timeline"] else row["receiver_timeline"] or row["recovery_timeline"]
    return Reading(
        member=name,
        in_recovery=row["in_recovery"],
        system_identifier=row["system_identifier"],
        timeline=timeline or None,
        flush_lsn=parse_lsn(row["flush_lsn"]) if row["flush_lsn"] else None,
        replay_lsn=parse_lsn(row["replay_lsn"]) if row["replay_lsn"] else None,
        replay_age=row["replay_age"],
        started=row["started"],
        version=row["version"].split(" ")[0],
        sees_stats=row["sees_stats"],
        has_receiver=row["has_receiver"],
        receiver_status=row["receiver_status"],
        activity=activity,
        at=at,
    )
