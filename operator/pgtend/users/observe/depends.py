"""What depends on a role that is to be dropped, in all databases: read from pg_shdepend, which is indexed by role.

In the maintenance database everything is counted and in each other what is there is named. What a role has for itself
alone (default privileges for what it would make, user mappings, the memberships that it granted) is nothing that
anybody would miss, so that it blocks nothing; DROP OWNED takes it away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from pgtend.postgres.session import Query, Session
from pgtend.users.observe.read import as_reason
from pgtend.users.state import AS_SUPERUSER, OF_PROVIDERS, OPTIONS_SINCE

WHY: Mapping[str, str] = {"o": "owned", "a": "has privileges", "r": "in a policy", "i": "has initial privileges"}
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where something depends on the role: a database, or (None) what belongs to the server. `owned` counts what would
    be missed, `others` the rest, `policies` those of the rest that are policies for rows."""

    database: str | None
    connectable: bool
    owned: int
    others: int
    policies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Heir:
    """Who is to get what the role owns: whether it is a superuser or as good as one, and whether we may act for it,
    with its rights and (since 16 these are two things) as it."""

    powerful: bool
    ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependents:
    """`member` is whether we have the role's own rights; `heir` None where there is no such role; `databases` are those
    that it owns, by name, and `gives_databases` whether we may give one to another role."""

    places: tuple[Place, ...]
    member: bool
    heir: Heir | None = None
    databases: tuple[str, ...] = ()
    gives_databases: bool = True

    @property
    def owned(self) -> int:
        return sum(place.owned for place in self.places)


# the objects of a role that are its own alone, by their catalog
OWN_ALONE = sql.SQL(
    "p.classid IN ('pg_catalog.pg_default_acl'::regclass, 'pg_catalog.pg_user_mapping'::regclass,"
    " 'pg_catalog.pg_auth_members'::regclass)"
)

_PLACES: Query = sql.SQL("""
SELECT d.datname::text AS database,
       d.oid IS NULL OR (d.datallowconn AND pg_catalog.has_database_privilege(d.oid, 'CONNECT')) AS connectable,
       count(*) FILTER (WHERE p.deptype = 'o' AND NOT {alone}) AS owned,
       count(*) FILTER (WHERE p.deptype <> 'o' OR {alone}) AS others,
       count(*) FILTER (WHERE p.classid = 'pg_catalog.pg_policy'::regclass) AS policies
FROM pg_catalog.pg_shdepend AS p LEFT JOIN pg_catalog.pg_database AS d ON d.oid = p.dbid
WHERE p.refclassid = 'pg_catalog.pg_authid'::regclass
  AND p.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %(role)s)
GROUP BY 1, 2 ORDER BY 1 NULLS FIRST
""").format(alone=OWN_ALONE)

_PEOPLE = sql.SQL("""
SELECT r.rolname::text AS name, pg_catalog.pg_has_role(r.oid, 'USAGE') AS rights,
       pg_catalog.pg_has_role(r.oid, {set_}) AS acting,
       EXISTS (SELECT FROM pg_catalog.pg_roles AS s WHERE (s.rolsuper OR s.rolname = ANY(%(powers)s))
               AND pg_catalog.pg_has_role(r.oid, s.oid, 'MEMBER')) AS powerful
FROM pg_catalog.pg_roles AS r WHERE r.rolname IN (%(role)s, %(heir)s)
""")

# giving a database away takes CREATEDB, by REASSIGN OWNED too since the minors of November 2026
_DATABASES: Query = sql.SQL("""
SELECT d.datname::text AS database, me.rolsuper OR me.rolcreatedb AS gives
FROM pg_catalog.pg_database AS d CROSS JOIN pg_catalog.pg_roles AS me
WHERE me.rolname = current_user
  AND d.datdba = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %(role)s)
ORDER BY 1
""")

# since the same minors DROP OWNED leaves those alone whose table the caller does not own, and only warns; what the
# role itself owns will be the heir's, for whom we may act
_POLICIES: Query = sql.SQL("""
SELECT t.polname::text AS policy, t.polrelid::regclass::text AS place, o.rolname::text AS owner
FROM pg_catalog.pg_shdepend AS p
JOIN pg_catalog.pg_policy AS t ON t.oid = p.objid
JOIN pg_catalog.pg_class AS c ON c.oid = t.polrelid
JOIN pg_catalog.pg_roles AS o ON o.oid = c.relowner
WHERE p.refclassid = 'pg_catalog.pg_authid'::regclass AND p.classid = 'pg_catalog.pg_policy'::regclass
  AND p.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND p.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %(role)s)
  AND o.oid <> p.refobjid AND NOT pg_catalog.pg_has_role(o.oid, 'USAGE')
ORDER BY 2, 1 LIMIT 1
""")

_NAMED: Query = sql.SQL("""
SELECT pg_catalog.pg_describe_object(p.classid, p.objid, p.objsubid) AS object, p.deptype::text AS why
FROM pg_catalog.pg_shdepend AS p
WHERE p.refclassid = 'pg_catalog.pg_authid'::regclass AND NOT {alone} AND (NOT %(owned)s OR p.deptype = 'o')
  AND p.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = %(role)s)
  AND CASE WHEN %(shared)s THEN p.dbid = 0
           ELSE p.dbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) END
ORDER BY 1 LIMIT {shown}
""").format(alone=OWN_ALONE, shown=sql.Literal(SHOWN))


async def read_dependents(session: Session, *, role: str, heir: str | None) -> Dependents:
    """In the maintenance database. Raises PgtendError."""
    params = {"role": role, "heir": heir, "powers": sorted(AS_SUPERUSER | OF_PROVIDERS)}
    split = session.server_version >= OPTIONS_SINCE * 10000
    with as_reason(session):
        places = await session.fetch(_PLACES, params)
        who = _PEOPLE.format(set_=sql.Literal("SET" if split else "USAGE"))
        people = {row["name"]: row for row in await session.fetch(who, params)}
        databases = await session.fetch(_DATABASES, params)
    found = people.get(heir) if heir is not None else None
    return Dependents(
        places=tuple(Place(**row) for row in places),
        member=bool(people.get(role, {}).get("rights")),
        heir=None if found is None else Heir(powerful=found["powerful"], ours=found["rights"] and found["acting"]),
        databases=tuple(row["database"] for row in databases),
        gives_databases=all(row["gives"] for row in databases),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignPolicy:
    """A policy that names the role, on a table whose owner alone may change it. `table` is quoted as SQL needs it."""

    policy: str
    table: str
    owner: str


async def read_foreign_policy(session: Session, *, role: str) -> ForeignPolicy | None:
    """The first in the session's database for whose table's owner we may not act. Raises PgtendError."""
    with as_reason(session):
        rows = await session.fetch(_POLICIES, {"role": role})
    return ForeignPolicy(policy=rows[0]["policy"], table=rows[0]["place"], owner=rows[0]["owner"]) if rows else None


async def read_named(session: Session, *, role: str, shared: bool, owned: bool) -> list[str]:
    """The first few objects in the session's database, or of the server, each with why. Raises PgtendError."""
    with as_reason(session):
        rows = await session.fetch(_NAMED, {"role": role, "shared": shared, "owned": owned})
    return [row["object"] + ("" if row["why"] == "o" else f" ({WHY.get(row['why'], 'depends on it')})") for row in rows]
