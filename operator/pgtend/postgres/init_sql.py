"""The minimal roles that pgtend logs in as, as SQL that an administrator reads before running it.

Plain SQL for psql and any driver, for every major from 14 on, to run as superuser (or a managed service's
administrator) in the maintenance database; running it again changes nothing. Passwords are set afterwards, each by
`\\password`, so that none stands in a file, a log or the history of a shell. The tests use exactly these roles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgtend.postgres.quoting import identifier, literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the roles are for. `owners` are roles whose tables `users` may grant on and `maintenance` may tend, and
    who may own what `restore` restores, by membership."""

    databases: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()


def init_sql(features: Sequence[str], *, databases: Sequence[str] = (), owners: Sequence[str] = ()) -> str:
    """The script. `features` are keys of FEATURES. Raises ValueError for what is none."""
    scope = Scope(databases=tuple(databases), owners=tuple(owners))
    unknown = sorted(set(features) - FEATURES.keys())
    if unknown:
        raise ValueError(f"no such feature: {', '.join(unknown)}; there are {', '.join(FEATURES)}")
    chosen = [name for name in FEATURES if name in features]
    parts = [
        "-- Roles for pgtend. Run as an administrator in the target's maintenance database (spec.maintenanceDatabase).",
        *(FEATURES[name](scope) for name in chosen),
        "-- Then give each a password of its own, in psql:",
        *(f"--   \\password pgtend_{name}" for name in chosen),
        "-- and put it into the Secret that spec.credentials of the PostgresTarget names.",
    ]
    return "\n".join(parts) + "\n"


def _monitor(scope: Scope) -> str:
    lines = [
        "",
        "-- monitor: reads statistics, configuration and the catalog; changes nothing.",
        _role("pgtend_monitor", "LOGIN"),
        "GRANT pg_monitor TO pgtend_monitor;",
        _from(16, "GRANT pg_use_reserved_connections TO pgtend_monitor"),
    ]
    lines += [f"GRANT CONNECT ON DATABASE {identifier(name)} TO pgtend_monitor;" for name in scope.databases]
    return "\n".join(lines)


def _users(scope: Scope) -> str:
    lines = [
        "",
        "-- users: creates roles and grants on what it is given here. No superuser, sees no password.",
        _role("pgtend_users", "LOGIN CREATEROLE"),
        # from 16 on a creator has ADMIN OPTION on its roles; SET lets it hand their objects to others before a drop
        _from(16, "ALTER ROLE pgtend_users SET createrole_self_grant = 'set'"),
    ]
    for name in scope.databases:
        lines.append(f"GRANT CONNECT ON DATABASE {identifier(name)} TO pgtend_users WITH GRANT OPTION;")
    for owner in scope.owners:
        lines.append(f"GRANT {identifier(owner)} TO pgtend_users;")
    if not scope.owners:
        lines += [
            "-- To grant on tables it must be a member of their owner (--grant-through OWNER prints this), or be given",
            "-- each privilege with grant option:",
            "--   GRANT <owner of the tables> TO pgtend_users;",
        ]
    return "\n".join(lines)


def _maintenance(scope: Scope) -> str:
    lines = [
        "",
        "-- maintenance: ends sessions, vacuums and rebuilds indexes. No superuser, reads no table.",
        _role("pgtend_maintenance", "LOGIN"),
        "GRANT pg_monitor, pg_signal_backend TO pgtend_maintenance;",
        _from(16, "GRANT pg_use_reserved_connections TO pgtend_maintenance"),
        _from(17, "GRANT pg_maintain TO pgtend_maintenance"),
    ]
    lines += [f"GRANT CONNECT ON DATABASE {identifier(name)} TO pgtend_maintenance;" for name in scope.databases]
    # before 17 only an owner may vacuum and rebuild
    lines += [f"GRANT {identifier(owner)} TO pgtend_maintenance;" for owner in scope.owners]
    return "\n".join(lines)


def _backup(scope: Scope) -> str:
    lines = [
        "",
        "-- backup: reads every row of every database. BYPASSRLS: a dump that row security filters lacks rows and",
        "-- nobody notices; large objects are granted one by one, no predefined role covers them.",
        _role("pgtend_backup", "LOGIN BYPASSRLS"),
        "GRANT pg_read_all_data TO pgtend_backup;",
    ]
    lines += [f"GRANT CONNECT ON DATABASE {identifier(name)} TO pgtend_backup;" for name in scope.databases]
    return "\n".join(lines)


def _restore(scope: Scope) -> str:
    lines = [
        "",
        "-- restore: creates databases and restores into them, as the owners that it is a member of. No superuser.",
        _role("pgtend_restore", "LOGIN CREATEDB"),
    ]
    lines += [f"GRANT CONNECT ON DATABASE {identifier(name)} TO pgtend_restore;" for name in scope.databases]
    lines += [f"GRANT {identifier(owner)} TO pgtend_restore;" for owner in scope.owners]
    if not scope.owners:
        lines += [
            "-- What it restores shall belong to somebody: make it a member of every role that the backup's objects",
            "-- belong to (--grant-through OWNER prints this), or of one that restore.into.database.owner names:",
            "--   GRANT <owner> TO pgtend_restore;",
        ]
    return "\n".join(lines)


FEATURES: dict[str, Callable[[Scope], str]] = {
    "monitor": _monitor,
    "users": _users,
    "backup": _backup,
    "maintenance": _maintenance,
    "restore": _restore,
}
"""By name, as `spec.credentials` spells it."""


def _role(name: str, options: str) -> str:
    return (
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {literal(name)}) THEN"
        f" CREATE ROLE {name} {options}; END IF; END $$;"
    )


def _from(major: int, statement: str) -> str:
    """A statement that older majors do not know."""
    return (
        f"DO $$ BEGIN IF current_setting('server_version_num')::int >= {major}0000 THEN"
        f" EXECUTE {literal(statement)}; END IF; END $$;"
    )
