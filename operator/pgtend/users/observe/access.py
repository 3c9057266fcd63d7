"""Who may do what on a whole server, for the access report: every role, every entry in an ACL. Read when somebody asks
for the report, never by the operator; a few statements for the roles and two in each database, for majors 14 to 18."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

import psycopg
from psycopg import sql

from pgtend.core.clock import rfc3339
from pgtend.postgres.session import Query, Session
from pgtend.users.access import PUBLIC, Entry, Membership, Person, Routine
from pgtend.users.observe.objects import entries
from pgtend.users.observe.read import ELEVATED, as_reason
from pgtend.users.state import NEVER, SERVER, unpack
from pgtend.users.wanted import moment

# Predefined roles (pg_*) are told as what others are members of, not as roles of their own.
_ROLES = sql.SQL("""
SELECT r.rolname::text AS name, r.oid = 10 AS bootstrap, r.rolcanlogin, r.rolsuper, r.rolcreatedb, r.rolcreaterole,
       r.rolreplication, r.rolbypassrls, r.rolconnlimit,
       CASE WHEN isfinite(r.rolvaliduntil) THEN (extract(epoch FROM r.rolvaliduntil) * 1000000)::int8
            WHEN r.rolvaliduntil = '-infinity' THEN {never} END AS valid_until,
       pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment, {verifier} AS verifier,
       coalesce(s.sessions, 0) AS sessions
FROM {catalog} AS r
LEFT JOIN (SELECT usesysid, count(*) AS sessions FROM pg_catalog.pg_stat_activity GROUP BY 1) AS s
       ON s.usesysid = r.oid
WHERE r.rolname !~ '^pg_' ORDER BY 1""")
# What a verifier is, and never itself.
_VERIFIER: LiteralString = """CASE WHEN r.rolpassword IS NULL THEN 'None'
    WHEN r.rolpassword LIKE 'SCRAM-SHA-256$%%' THEN 'Scram' ELSE 'Md5' END"""
_SERVER: Query = sql.SQL("""
SELECT pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS verifiers, pg_catalog.now() AS now,
       pg_catalog.current_setting('server_version') AS version, current_user::text AS me,
       (SELECT n.nspname::text FROM pg_catalog.pg_extension AS e
        JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace WHERE e.extname = 'pg_stat_statements') AS records
""")
# From 16 on the membership says whether it inherits, before that the member.
_MEMBERSHIPS = sql.SQL("""
SELECT p.rolname::text AS member, g.rolname::text AS role, bool_or(m.admin_option) AS admin,
       bool_or({inherits}) AS inherits
FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS p ON p.oid = m.member
     JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid
GROUP BY 1, 2 ORDER BY 1, 2""")
_DATABASES: Query = sql.SQL("""
SELECT datname::text AS name, datallowconn AS open, pg_catalog.has_database_privilege(oid, 'CONNECT') AS ours
FROM pg_catalog.pg_database WHERE NOT datistemplate ORDER BY 1""")
_RECORDS = sql.SQL("""
SELECT r.rolname::text AS name FROM {schema}.pg_stat_statements(false) AS s JOIN pg_catalog.pg_roles AS r
    ON r.oid = s.userid GROUP BY 1""")
_RECORDED = sql.SQL("SELECT stats_reset, dealloc FROM {schema}.pg_stat_statements_info")
_DEFINERS: Query = sql.SQL("""
SELECT n.nspname::text AS schema, p.proname || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')' AS name,
       o.rolname::text AS owner, o.rolsuper AS owner_is_superuser,
       EXISTS (SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a
               WHERE a.grantee = 0) AS public
FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
     JOIN pg_catalog.pg_roles AS o ON o.oid = p.proowner
WHERE p.prosecdef AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS c WHERE c LIKE 'search_path=%')
ORDER BY 1, 2""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What the maintenance database tells. `databases` with why each cannot be connected to, if so."""

    version: str
    now: datetime
    me: str
    people: tuple[Person, ...]
    memberships: tuple[Membership, ...]
    entries: tuple[Entry, ...]
    databases: dict[str, str | None]
    blind: dict[str, str]
    used_since: str | None


async def read_whole(session: Session) -> Whole:
    """Roles, memberships and what belongs to the server. Raises PgtendError."""
    major = session.server_version // 10000
    with as_reason(session):
        about = (await session.fetch(_SERVER))[0]
        sees = about["verifiers"]
        parts: dict[str, LiteralString] = {
            "verifier": _VERIFIER.replace("%%", "%") if sees else "'Unknown'",
            "catalog": "pg_catalog.pg_authid" if sees else "pg_catalog.pg_roles",
        }
        query = _ROLES.format(never=sql.Literal(NEVER), **{name: sql.SQL(text) for name, text in parts.items()})
        roles = await session.fetch(query)
        inherits = sql.SQL("m.inherit_option" if major >= 16 else "p.rolinherit")
        memberships = await session.fetch(_MEMBERSHIPS.format(inherits=inherits))
        databases = await session.fetch(_DATABASES)
        found = await _entries(session, SERVER, server=True)
    used, since, why = await _used(session, about["records"])
    blind = {} if used is not None else {"UnusedLogin": why}
    if not sees:
        blind["NonScramVerifier"] = f"{about['me']} may not read pg_authid"
    return Whole(
        version=about["version"],
        now=about["now"],
        me=about["me"],
        people=tuple(
            Person(
                name=row["name"],
                bootstrap=row["bootstrap"],
                login=row["rolcanlogin"],
                superuser=row["rolsuper"],
                attributes=tuple(word for column, word in ELEVATED.items() if row[column]),
                connection_limit=row["rolconnlimit"],
                valid_until=None if row["valid_until"] is None else rfc3339(moment(row["valid_until"])),
                comment=row["comment"],
                verifier=row["verifier"],
                sessions=row["sessions"],
                used=None if used is None else row["name"] in used,
            )
            for row in roles
        ),
        memberships=tuple(Membership(**row) for row in memberships),
        entries=found,
        databases={row["name"]: _closed(row["open"], row["ours"], about["me"]) for row in databases},
        blind=blind,
        used_since=since,
    )


async def read_inside(session: Session, database: str) -> tuple[tuple[Entry, ...], tuple[Routine, ...]]:
    """All entries in ACLs of one database, and its dangerous functions. Raises PgtendError."""
    with as_reason(session):
        found = await _entries(session, database, server=False)
        routines = await session.fetch(_DEFINERS)
    return found, tuple(Routine(database=database, **row) for row in routines)


async def _entries(session: Session, database: str, *, server: bool) -> tuple[Entry, ...]:
    rows = await session.fetch(entries(session.server_version // 10000, server=server), {"parameters": []})
    return tuple(
        Entry(
            database=row["name"] if row["kind"] == "Database" else database,
            kind=row["kind"],
            schema=row["schema"],
            name=row["name"],
            column=row["column"],
            owner=row["owner"],
            grantee=row["grantee"] or PUBLIC,
            privileges=unpack(row["mask"]),
            grantable=unpack(row["grantable"]),
            by_default=row["by_default"],
        )
        for row in rows
    )


def _closed(is_open: bool, ours: bool, me: str) -> str | None:
    if not is_open:
        return "it takes no connections"
    return None if ours else f"{me} may not connect to it"


async def _used(session: Session, schema: str | None) -> tuple[frozenset[str] | None, str | None, str]:
    """Who ran statements, since when; or None and why nobody can tell. PostgreSQL itself keeps no logins."""
    if schema is None:
        name = session.connection.info.dbname
        return None, None, f"no record of who ran statements: there is no pg_stat_statements in database {name}"
    where = sql.Identifier(schema)
    try:
        info = (await session.fetch(_RECORDED.format(schema=where)))[0]
        names: Iterable[str] = [row["name"] for row in await session.fetch(_RECORDS.format(schema=where))]
    except psycopg.Error as error:
        text = " ".join(str(error).split())[:120]
        return None, None, f"pg_stat_statements could not be read: {text}"
    if info["dealloc"]:
        return None, None, "pg_stat_statements has dropped entries: raise pg_stat_statements.max"
    return frozenset(names), rfc3339(info["stats_reset"]), ""
