"""What grows until a server stops, as values: transaction ages, WAL that waits for the archive, slots that keep it.

It rides on the activity statement, so that a probe stays at two statements.
"""

from __future__ import annotations

import re
from typing import Any

from psycopg import sql

from pgtend.server.standing import parse_lsn
from pgtend.targets.reading import Age, Archiver, Holder, Slot, Upkeep

# Shared catalogs and memory only: pg_database has a row per database, pg_stat_archiver is one row. Slot columns that
# are younger than 14 are not asked for. current_setting gives sizes with their unit, hence pg_size_bytes.
# An xmin is held back by whichever is the oldest: a session (a standby's feedback shows as its walsender), a prepared
# transaction, a slot. pg_prepared_xacts and pg_replication_slots take their lightweight lock for a moment.
COLUMN = sql.SQL("""
       (SELECT json_build_object(
          'ages', (SELECT json_agg(d) FROM (
             SELECT datname AS name, pg_catalog.age(datfrozenxid) AS xids, pg_catalog.mxid_age(datminmxid) AS multixacts
             FROM pg_catalog.pg_database
             ORDER BY greatest(pg_catalog.age(datfrozenxid), pg_catalog.mxid_age(datminmxid)) DESC LIMIT 3) AS d),
          'holder', (SELECT row_to_json(h) FROM (
             SELECT 'session' AS kind, pid::text AS name, usename AS detail, pg_catalog.age(xmin) AS xids FROM act
               WHERE xmin IS NOT NULL
             UNION ALL SELECT 'prepared', gid, database::text, pg_catalog.age(transaction)
               FROM pg_catalog.pg_prepared_xacts
             UNION ALL SELECT 'slot', slot_name::text, slot_type, greatest(pg_catalog.age(xmin),
               pg_catalog.age(catalog_xmin)) FROM pg_catalog.pg_replication_slots
               WHERE xmin IS NOT NULL OR catalog_xmin IS NOT NULL
             ORDER BY 4 DESC LIMIT 1) AS h),
          'archive_mode', pg_catalog.current_setting('archive_mode'),
          'archiver', (SELECT row_to_json(a) FROM (
             SELECT last_archived_wal, last_failed_wal, failed_count,
                    extract(epoch FROM clock_timestamp() - last_archived_time)::float8 AS archived_age,
                    extract(epoch FROM clock_timestamp() - last_failed_time)::float8 AS failed_age
             FROM pg_catalog.pg_stat_archiver) AS a),
          'segment', pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),
          'keep', pg_catalog.current_setting('max_slot_wal_keep_size'),
          'keep_bytes', CASE WHEN pg_catalog.current_setting('max_slot_wal_keep_size') <> '-1'
                        THEN pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_slot_wal_keep_size')) END,
          'lsn', CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_receive_lsn()
                 ELSE pg_catalog.pg_current_wal_lsn() END::text,
          'slots', (SELECT coalesce(json_agg(s), '[]') FROM (
             SELECT slot_name::text AS name, slot_type AS kind, active, wal_status AS status, restart_lsn::text AS lsn
             FROM pg_catalog.pg_replication_slots WHERE NOT temporary ORDER BY restart_lsn NULLS FIRST LIMIT 50) AS s)
        )) AS upkeep""")
_WAL_FILE = re.compile(r"[0-9A-F]{24}")


def upkeep_of(found: dict[str, Any]) -> Upkeep:
    """The values of one row of `COLUMN`."""
    end = parse_lsn(found["lsn"]) if found["lsn"] else None
    holder = found["holder"]
    return Upkeep(
        ages=tuple(Age(database=a["name"], xids=a["xids"], multixacts=a["multixacts"]) for a in found["ages"] or ()),
        holder=_holder(holder) if holder else None,
        slots=tuple(
            Slot(
                name=s["name"],
                kind=s["kind"],
                active=s["active"],
                lost=s["status"] == "lost",
                retained=max(0, end - parse_lsn(s["lsn"])) if end is not None and s["lsn"] else None,
            )
            for s in found["slots"]
        ),
        slot_limit=found["keep_bytes"],
        archiver=_archiver(found, end),
    )


def _holder(found: dict[str, Any]) -> Holder:
    what = {"session": "pid {0} ({1})", "prepared": "prepared transaction {0} in {1}", "slot": "{1} slot {0}"}
    return Holder(what=what[found["kind"]].format(found["name"], found["detail"] or "-"), xids=found["xids"])


def _archiver(found: dict[str, Any], end: int | None) -> Archiver:
    row = found["archiver"]
    archived_age, failed_age = row["archived_age"], row["failed_age"]
    failing = failed_age is not None and (archived_age is None or failed_age < archived_age)
    done = wal_end(row["last_archived_wal"], found["segment"])
    return Archiver(
        mode=found["archive_mode"],
        failing=row["last_failed_wal"] if failing else None,
        failures=row["failed_count"],
        archived_age=archived_age,
        waiting=max(0, end - done) if end is not None and done is not None else None,
        segment=found["segment"],
    )


def wal_end(name: str | None, segment: int) -> int | None:
    """The byte position after the segment of this name; None for names that are no segment's (history, backup)."""
    if name is None or not _WAL_FILE.fullmatch(name):
        return None
    return (int(name[8:16], 16) << 32) + (int(name[16:], 16) + 1) * segment
