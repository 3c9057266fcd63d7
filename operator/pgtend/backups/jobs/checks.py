"""What would make a dump fail late, or succeed with less than everything, is looked for first and named.

pg_dump itself stops at the first table it may not read, after minutes, with one name; here all are found in one query
per database, and the message holds the statement that helps. Row security matters most: nothing fails by itself when
rows are merely filtered.
"""

from __future__ import annotations

from psycopg import sql

from pgtend.backups.jobs.config import JobReason
from pgtend.backups.jobs.selection import EVERYTHING, Selection
from pgtend.backups.jobs.session import Connection
from pgtend.backups.jobs.snapshot import DUMPED, OWNER
from pgtend.core.errors import PgtendError

SHOWN = 5

_ROLE = sql.SQL("SELECT rolsuper, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user")

# 14 to 18; one pass over pg_class. Partitioned parents count: pg_dump locks them and that needs SELECT.
_UNREADABLE = sql.SQL("""
SELECT n.nspname, c.relname, c.relkind, {owner},
       has_schema_privilege(n.oid, 'USAGE'),
       CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                      ELSE has_table_privilege(c.oid, 'SELECT') END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'S') AND {dumped}
  AND NOT (has_schema_privilege(n.oid, 'USAGE')
           AND CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                              ELSE has_table_privilege(c.oid, 'SELECT') END)
ORDER BY 1, 2
""").format(dumped=DUMPED, owner=OWNER)

_FILTERED = sql.SQL("""
SELECT n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND row_security_active(c.oid) AND {dumped}
ORDER BY 1, 2
""").format(dumped=DUMPED)

_NAMES = sql.SQL("""
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND {dumped}
""").format(dumped=DUMPED)

# Large objects know owner and ACL only; pg_read_all_data does not cover them before a server says so itself below.
_LARGE_OBJECTS = sql.SQL("""
SELECT m.oid
FROM pg_largeobject_metadata m
WHERE NOT pg_has_role(m.lomowner, 'USAGE')
  AND NOT EXISTS (SELECT FROM aclexplode(m.lomacl) a
                  WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))
ORDER BY m.oid LIMIT 1
""")


def quote_name(*parts: str) -> str:
    """A name as it is typed: quoted only where it must be."""
    return ".".join(p if p.isascii() and p.isidentifier() and p.islower() else _quoted(p) for p in parts)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def check_database(connection: Connection, *, database: str, user: str, selection: Selection = EVERYTHING) -> None:
    """Raises PgtendError (PermissionDenied, RowSecurity, LargeObjectDenied) unless all that a dump must hold can be
    read by this session's role, and PgtendError(NothingSelected) where `selection` takes no table."""
    if not selection.everything:
        _check_selection(connection, database, selection)
    role = connection.execute(_ROLE).fetchone()
    superuser, bypasses = role if role is not None else (False, False)
    if superuser:
        return
    _check_tables(connection, database, user, selection)
    if not bypasses:
        filtered = [row for row in connection.execute(_FILTERED) if selection.takes(*row)]
        if filtered:
            schema, table = filtered[0]
            raise PgtendError(
                JobReason.ROW_SECURITY,
                f"row security applies to {_many([f'{s}.{t}' for s, t in filtered])} in {database}: {user} would dump "
                f"only the rows that it may see. Run ALTER ROLE {quote_name(user)} BYPASSRLS",
                object=f"{database}.{schema}.{table}",
                transient=False,
            )
    if selection.whole:
        _check_large_objects(connection, database, user)


def _check_selection(connection: Connection, database: str, selection: Selection) -> None:
    if not any(selection.takes(schema, name) for schema, name in connection.execute(_NAMES)):
        raise PgtendError(
            JobReason.NOTHING_SELECTED,
            f"no table of {database} is meant by ({selection.told()}): correct them in spec.dump.databases",
            object=database,
            transient=False,
        )


def _check_tables(connection: Connection, database: str, user: str, selection: Selection) -> None:
    unreadable = [
        (schema, name, kind, usage, readable)
        for schema, name, kind, owner, usage, readable in connection.execute(_UNREADABLE)
        if selection.takes(schema, name, owner=tuple(owner) if owner else None)
    ]
    if not unreadable:
        return
    grants = []
    for schema in dict.fromkeys(s for s, _, _, usage, _ in unreadable if not usage):
        grants.append(f"GRANT USAGE ON SCHEMA {quote_name(schema)} TO {quote_name(user)}")
    for schema, name, kind, _, readable in unreadable:
        if not readable:
            what = "SEQUENCE " if kind == "S" else ""
            grants.append(f"GRANT SELECT ON {what}{quote_name(schema, name)} TO {quote_name(user)}")
    schema, name = unreadable[0][:2]
    more = f" (and {len(grants) - SHOWN} more, or grant pg_read_all_data)" if len(grants) > SHOWN else ""
    raise PgtendError(
        JobReason.PERMISSION_DENIED,
        f"{user} may not read {_many([f'{s}.{t}' for s, t, *_ in unreadable])} in {database}. "
        f"Run {'; '.join(grants[:SHOWN])}{more}",
        object=f"{database}.{schema}.{name}",
        transient=False,
    )


def _check_large_objects(connection: Connection, database: str, user: str) -> None:
    row = connection.execute(_LARGE_OBJECTS).fetchone()
    if row is None:
        return
    # The server has the last word (lo_compat_privileges, rights that later versions add).
    try:
        with connection.transaction():
            connection.execute("SELECT lo_get(%s::oid, 0, 0)", row)
    except Exception as error:
        if getattr(error, "sqlstate", None) != "42501":
            raise
        raise PgtendError(
            JobReason.LARGE_OBJECT_DENIED,
            f"{user} may not read large object {row[0]} in {database} (pg_read_all_data does not cover large objects). "
            f"Run GRANT SELECT ON LARGE OBJECT {row[0]} TO {quote_name(user)} for it and the others, or "
            f"GRANT its owner TO {quote_name(user)}",
            object=f"{database}.{row[0]}",
            transient=False,
        ) from None


def _many(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
