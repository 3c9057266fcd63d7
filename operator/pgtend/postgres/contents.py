"""What a database holds already: asked by the plan of a restore, and by its pod again before it begins. One query, so
that both mean the same by empty."""

from __future__ import annotations

from psycopg import sql

# 14 to 18; catalogs only. What belongs to an extension does not count: a backup brings its extensions along.
# Indexes and TOAST go with their tables, types of tables too.
HELD = sql.SQL("""
WITH own AS (
    SELECT oid, nspname FROM pg_catalog.pg_namespace
    WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname !~ '^pg_(toast|temp|toast_temp)'
), member AS (
    SELECT classid, objid FROM pg_catalog.pg_depend
    WHERE deptype = 'e' AND refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
), held AS (
    SELECT 1 AS rank, own.nspname || '.' || c.relname AS name
    FROM pg_catalog.pg_class c JOIN own ON own.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
      AND (SELECT count(*) FROM member
           WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND objid = c.oid) = 0
    UNION ALL
    SELECT 2, own.nspname || '.' || p.proname || '()'
    FROM pg_catalog.pg_proc p JOIN own ON own.oid = p.pronamespace
    WHERE (SELECT count(*) FROM member
           WHERE classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND objid = p.oid) = 0
    UNION ALL
    SELECT 3, 'type ' || own.nspname || '.' || t.typname
    FROM pg_catalog.pg_type t JOIN own ON own.oid = t.typnamespace
    WHERE t.typtype IN ('d', 'e', 'r', 'b') AND t.typcategory <> 'A'
      AND (SELECT count(*) FROM member
           WHERE classid = 'pg_catalog.pg_type'::pg_catalog.regclass AND objid = t.oid) = 0
    UNION ALL
    SELECT 4, 'schema ' || own.nspname FROM own
    WHERE own.nspname <> 'public'
      AND (SELECT count(*) FROM member
           WHERE classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND objid = own.oid) = 0
    UNION ALL
    SELECT 5, 'large object ' || oid FROM pg_catalog.pg_largeobject_metadata
)
SELECT name, (count(*) OVER ())::int AS total FROM held ORDER BY rank, name LIMIT 5
""")
"""Up to five things that users have made, each with the number of all. No row: the database is empty."""

EXISTS = sql.SQL("SELECT datname AS name FROM pg_catalog.pg_database WHERE datname = %(name)s")


def told(names: list[str], total: int) -> str:
    """As a message lists it."""
    return ", ".join(names) + (f" and {total - len(names)} more" if total > len(names) else "")
