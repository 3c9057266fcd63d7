"""The catalog queries of DatabaseUser about objects and who has what on them, for majors 14 to 18.

A role's entries in ACLs are found by pg_shdepend, which is indexed by role and knows all databases, so the cost does
not grow with what others have. All kinds of one database are one statement; what one kind asks is branch.py's.
"""
# ruff: noqa: S608 - composed of this module's own texts; what comes from outside is a parameter

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import LiteralString

from psycopg import sql

from pgtend.postgres.session import Query
from pgtend.users.observe.branch import WORD_BITS, Branch
from pgtend.users.observe.effective import COUNTS, counting

_WITH = sql.SQL("""
WITH RECURSIVE role AS (SELECT oid, rolname::text AS name FROM pg_catalog.pg_roles WHERE rolname = ANY(%(roles)s)),
     me AS (SELECT oid, rolsuper FROM pg_catalog.pg_roles WHERE rolname = %(grantor)s),
     word (privilege, bit) AS (VALUES {bits}),
dependent AS (
    SELECT DISTINCT p.classid, p.objid, p.objsubid FROM pg_catalog.pg_shdepend AS p JOIN role ON role.oid = p.refobjid
    WHERE p.refclassid = 'pg_catalog.pg_authid'::regclass AND p.deptype = 'a' AND p.dbid = {database})
""")

# Whoever may connect makes large objects, as many as he likes, and grants on them to any role: of those that nobody
# asks for no more are read than `most` entries come to, what we could revoke before all else. The rest comes in its
# turn.
_LARGE = sql.SQL(""", large AS MATERIALIZED (
    SELECT objid FROM (
        SELECT d.objid, sum(pg_catalog.cardinality(m.lomacl)) OVER (ORDER BY (
                   me.oid IS NULL OR pg_catalog.pg_has_role(me.oid, m.lomowner, 'USAGE') OR EXISTS (
                       SELECT FROM pg_catalog.aclexplode(m.lomacl) AS a
                       WHERE pg_catalog.pg_has_role(me.oid, a.grantor, 'USAGE'))) DESC, d.objid) AS entries
        FROM dependent AS d JOIN pg_catalog.pg_largeobject_metadata AS m ON m.oid = d.objid LEFT JOIN me ON true
        WHERE d.classid = 'pg_catalog.pg_largeobject'::regclass AND m.oid <> ALL(%(large_objects)s::oid[])) AS o
    WHERE entries <= {most})
""")
MOST_LARGE = 20_000
_NOTHING = sql.SQL("")

_ORDER = " ORDER BY 1, 2, 3, 4, 6"


def _asked(kind: LiteralString) -> LiteralString:
    """Whether the schema is one in which all of a kind is to be seen."""
    return f"(n.nspname = ANY(%({kind})s) OR '*' = ANY(%({kind})s))"


def _dependent(table: LiteralString, oid: LiteralString) -> LiteralString:
    return f"{oid} IN (SELECT objid FROM dependent WHERE classid = 'pg_catalog.{table}'::regclass)"


_USERS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_IN = "JOIN pg_catalog.pg_namespace AS n ON n.oid ="
_OTHER = "NOT EXISTS (SELECT FROM pg_catalog.pg_type AS e WHERE e.typarray = t.oid)"
_RELATION = "pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
_ROUTINE = "pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace"
_ARGUMENTS = "'(' || pg_catalog.oidvectortypes(p.proargtypes) || ')'"

# Pairs of a schema (0: all of them) and a creator: those asked for; where `auto` is asked for, who may make objects
# there by itself; and those by whose default privileges a role gets something.
_FUTURE: LiteralString = """(SELECT creator, namespace, bool_or(auto) AS auto FROM (
    SELECT r.oid AS creator, n.oid AS namespace, false AS auto
    FROM pg_catalog.pg_roles AS r CROSS JOIN (SELECT oid FROM pg_catalog.pg_namespace
        WHERE nspname = ANY(%(default_schemas)s) UNION ALL SELECT 0::oid) AS n
    WHERE r.rolname = ANY(%(default_creators)s)
    UNION ALL SELECT r.oid, n.oid, true
    FROM pg_catalog.pg_namespace AS n CROSS JOIN LATERAL (
        SELECT n.nspowner AS oid
        UNION SELECT a.grantee FROM pg_catalog.aclexplode(n.nspacl) AS a WHERE a.privilege_type = 'CREATE'
        UNION SELECT c.relowner FROM pg_catalog.pg_class AS c WHERE c.relnamespace = n.oid AND {same}) AS m
    JOIN pg_catalog.pg_roles AS r ON r.oid = m.oid AND NOT r.rolsuper AND r.rolname !~ '^pg_'
    WHERE n.nspname = ANY(%(default_auto)s)
    UNION ALL SELECT d.defaclrole, d.defaclnamespace, false FROM pg_catalog.pg_default_acl AS d
    WHERE d.defaclobjtype = '{letter}'
      AND d.oid IN (SELECT objid FROM dependent WHERE classid = 'pg_catalog.pg_default_acl'::regclass)
  ) AS pair GROUP BY 1, 2) AS s
  LEFT JOIN pg_catalog.pg_default_acl AS d
    ON d.defaclrole = s.creator AND d.defaclnamespace = s.namespace AND d.defaclobjtype = '{letter}'
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.oid = s.namespace"""

_SHARED = (
    Branch(
        kind="Database",
        source="pg_catalog.pg_database AS d",
        acl="d.datacl",
        owner="d.datdba",
        letter="d",
        name="d.datname::text",
        connectable="d.datallowconn AND pg_catalog.has_database_privilege(d.oid, 'CONNECT')",
        oid="d.oid",
        scope="true",
        chosen="""d.datname = ANY(%(databases)s) OR d.oid IN (
            SELECT CASE WHEN p.dbid = 0 THEN p.objid ELSE p.dbid END FROM pg_catalog.pg_shdepend AS p
            JOIN role ON role.oid = p.refobjid
            WHERE p.refclassid = 'pg_catalog.pg_authid'::regclass AND p.deptype = 'a'
              AND (p.dbid <> 0 OR p.classid = 'pg_catalog.pg_database'::regclass))""",
    ),
    Branch(
        kind="Tablespace",
        source="pg_catalog.pg_tablespace AS s",
        acl="s.spcacl",
        owner="s.spcowner",
        letter="t",
        name="s.spcname::text",
        oid="s.oid",
        scope="true",
        chosen=f"s.spcname = ANY(%(tablespaces)s) OR '*' = ANY(%(tablespaces)s)"
        f" OR {_dependent('pg_tablespace', 's.oid')}",
    ),
)
# 10 is the bootstrap superuser, the owner of all parameters
_PARAMETER = Branch(
    kind="Parameter",
    source="""(SELECT pg_catalog.lower(asked) AS name FROM unnest(%(parameters)s::text[]) AS asked
               UNION SELECT parname FROM pg_catalog.pg_parameter_acl) AS s
              LEFT JOIN pg_catalog.pg_parameter_acl AS p ON p.parname = s.name""",
    acl="p.paracl",
    owner="10::oid",
    letter="p",
    name="s.name",
    oid="p.oid",
    scope="true",
    chosen=f"s.name IN (SELECT pg_catalog.lower(asked) FROM unnest(%(parameters)s::text[]) AS asked)"
    f" OR {_dependent('pg_parameter_acl', 'p.oid')}",
)
# Relations as GRANT ... ON TABLE takes them: tables, partitioned ones, views, materialized views, foreign tables.
_LOCAL = (
    Branch(
        kind="Schema",
        source="pg_catalog.pg_namespace AS n",
        acl="n.nspacl",
        owner="n.nspowner",
        letter="n",
        name="n.nspname::text",
        oid="n.oid",
        scope=_USERS,
    ),
    Branch(
        kind="Table",
        source=_RELATION,
        acl="c.relacl",
        owner="c.relowner",
        letter="r",
        schema="n.nspname::text",
        name="c.relname::text",
        oid="c.oid",
        scope=f"c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {_USERS}",
        chosen=f"{_asked('tables')}"
        f" OR c.oid IN (SELECT objid FROM dependent WHERE classid = 'pg_catalog.pg_class'::regclass AND objsubid = 0)",
    ),
    Branch(
        kind="Table",
        source=f"{_RELATION} JOIN pg_catalog.pg_attribute AS t ON t.attrelid = c.oid",
        acl="t.attacl",
        owner="c.relowner",
        letter="c",
        beside="coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))",
        schema="n.nspname::text",
        name="c.relname::text",
        column="t.attname::text",
        oid="c.oid",
        part="t.attnum",
        scope=f"c.relkind IN ('r', 'p', 'v', 'm', 'f') AND t.attnum > 0 AND NOT t.attisdropped AND {_USERS}",
        chosen=f"({_asked('column_schemas')} AND t.attname = ANY(%(columns)s)) OR (c.oid, t.attnum) IN ("
        "SELECT objid, objsubid FROM dependent WHERE classid = 'pg_catalog.pg_class'::regclass AND objsubid <> 0)",
    ),
    Branch(
        kind="Sequence",
        source=_RELATION,
        acl="c.relacl",
        owner="c.relowner",
        letter="s",
        schema="n.nspname::text",
        name="c.relname::text",
        oid="c.oid",
        scope=f"c.relkind = 'S' AND {_USERS}",
        chosen=f"{_asked('sequences')} OR {_dependent('pg_class', 'c.oid')}",
    ),
    *(
        Branch(
            kind=kind,
            source=_ROUTINE,
            acl="p.proacl",
            owner="p.proowner",
            letter="f",
            schema="n.nspname::text",
            name=f"p.proname || {_ARGUMENTS}",
            arguments=_ARGUMENTS,
            oid="p.oid",
            scope=f"p.prokind {are} 'p' AND {_USERS}",
            chosen=f"{_asked(param)} OR {_dependent('pg_proc', 'p.oid')}",
        )
        for kind, are, param in (("Function", "<>", "functions"), ("Procedure", "=", "procedures"))
    ),
    # no arrays, no row types of tables, no multiranges: they have no privileges of their own
    Branch(
        kind="Type",
        source="pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace",
        acl="t.typacl",
        owner="t.typowner",
        letter="T",
        schema="n.nspname::text",
        name="t.typname::text",
        oid="t.oid",
        scope=f"t.typtype IN ('b', 'c', 'd', 'e', 'r') AND {_OTHER} AND (t.typrelid = 0"
        " OR EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid = t.typrelid AND c.relkind = 'c'))"
        f" AND {_USERS}",
        chosen=f"{_asked('types')} OR {_dependent('pg_type', 't.oid')}",
    ),
    Branch(
        kind="Language",
        source="pg_catalog.pg_language AS l",
        acl="l.lanacl",
        owner="l.lanowner",
        letter="l",
        name="l.lanname::text",
        oid="l.oid",
        scope="l.lanpltrusted",
    ),
    Branch(
        kind="ForeignServer",
        source="pg_catalog.pg_foreign_server AS s",
        acl="s.srvacl",
        owner="s.srvowner",
        letter="S",
        name="s.srvname::text",
        oid="s.oid",
        scope="true",
    ),
    Branch(
        kind="LargeObject",
        source="pg_catalog.pg_largeobject_metadata AS l",
        acl="l.lomacl",
        owner="l.lomowner",
        letter="L",
        name="l.oid::text",
        oid="l.oid",
        scope="true",
        chosen="l.oid = ANY(%(large_objects)s::oid[]) OR l.oid IN (SELECT objid FROM large)",
    ),
    *(
        Branch(
            kind=kind,
            source=_FUTURE.replace("{letter}", letter).replace("{same}", same),
            acl="d.defaclacl",
            owner="s.creator",
            letter=letter,
            schema="n.nspname::text",
            name="o.rolname::text",
            auto="s.auto",
            # whose objects they will be grants, and nobody else
            effective="NULL::aclitem[]",
            oid="s.creator",
            scope="true",
        )
        for kind, letter, same in (
            ("DefaultTable", "r", "c.relkind IN ('r', 'p', 'v', 'm', 'f')"),
            ("DefaultSequence", "S", "c.relkind = 'S'"),
            ("DefaultFunction", "f", "false"),
            ("DefaultType", "T", "false"),
            ("DefaultSchema", "n", "false"),
        )
    ),
)


def _all(
    branches: Iterable[Branch],
    *,
    major: int,
    database: LiteralString,
    place: LiteralString,
    large: sql.Composable = _NOTHING,
) -> Query:
    branches = tuple(branches)
    start = _WITH.format(bits=WORD_BITS, database=sql.SQL(database)) + large
    counted = (b.entry(place if b.kind == "Database" else "''") for b in branches if not b.effective)
    counts = counting(sql.SQL(" UNION ALL ").join(counted), major=major)
    rows = (*(b.query(major) for b in branches), COUNTS)
    return sql.SQL("{}{}{}").format(start, counts, sql.SQL(" UNION ALL ").join(rows))


@functools.cache
def shared(major: int) -> Query:
    """The databases asked for and those in or on which a role has something; tablespaces and parameters likewise."""
    branches = _SHARED if major < 15 else (*_SHARED, _PARAMETER)
    return _all(branches, major=major, database="0::oid", place="d.datname::text")


@functools.cache
def local(major: int) -> Query:
    """What is asked for of one database, all its schemas, and whatever a role has something on."""
    here = "(SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
    large = _LARGE.format(most=sql.Literal(MOST_LARGE))
    return _all(_LOCAL, major=major, database=here, place="''", large=large)


@functools.cache
def entries(major: int, *, server: bool) -> Query:
    """Every entry in an ACL: of the server's own objects, or of one database's, without default privileges."""
    branches = (*(_SHARED if major < 15 else (*_SHARED, _PARAMETER)),) if server else _LOCAL
    start = sql.SQL("WITH word (privilege, bit) AS (VALUES {}) ").format(WORD_BITS)
    return start + sql.SQL(" UNION ALL ").join(b.everything() for b in branches if not b.effective) + sql.SQL(_ORDER)
