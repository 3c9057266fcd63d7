"""Which databases a dump holds, and how large they are."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from pgtend.api.reasons import TargetReason
from pgtend.backups.jobs.checks import quote_name
from pgtend.backups.jobs.config import JobReason
from pgtend.backups.jobs.report import format_names
from pgtend.backups.jobs.session import Connection
from pgtend.core.errors import PgtendError

# Databases that a cloud provider keeps for itself and lets no customer into: left out where we may not connect.
PROVIDERS_OWN = {"rdsadmin", "cloudsqladmin", "alloydbadmin", "alloydbmetadata", "azure_maintenance", "azure_sys"}

# 14 to 18. A database that was left half-dropped has a connection limit of -2 and accepts nobody.
_DATABASES = sql.SQL("""
SELECT datname, has_database_privilege(oid, 'CONNECT'),
       CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END
FROM pg_database
WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2
ORDER BY datname
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """`size` in bytes on the server's disk."""

    name: str
    size: int


def choose_databases(connection: Connection, *, wanted: tuple[str, ...] | None, user: str) -> list[Database]:
    """The databases to dump. Raises PgtendError (DatabaseMissing, PermissionDenied)."""
    found = {name: (allowed, size) for name, allowed, size in connection.execute(_DATABASES)}
    names = list(wanted) if wanted is not None else list(found)
    missing = [n for n in names if n not in found]
    if missing:
        raise PgtendError(
            TargetReason.DATABASE_MISSING,
            f"there is no database {format_names(missing)} that accepts connections",
            object=missing[0],
            transient=False,
        )
    if wanted is None:
        names = [n for n in names if found[n][0] or n not in PROVIDERS_OWN]
    denied = [n for n in names if not found[n][0]]
    if denied:
        grants = "; ".join(f"GRANT CONNECT ON DATABASE {quote_name(n)} TO {quote_name(user)}" for n in denied[:5])
        raise PgtendError(
            JobReason.PERMISSION_DENIED,
            f"{user} may not connect to {format_names(denied)}. Run {grants}",
            object=denied[0],
            transient=False,
        )
    return [Database(name=n, size=int(found[n][1])) for n in names]


def reads_passwords(connection: Connection) -> bool:
    """Whether the role may read pg_authid, so that roles can be dumped with their passwords."""
    row = connection.execute("SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')").fetchone()
    return bool(row and row[0])
