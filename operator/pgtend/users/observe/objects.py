"""The catalog queries of DatabaseUser about objects and who has what on them, for majors 14 to 18.

A role's entries in ACLs are found by pg_shdepend, which is indexed by role and knows all databases, so the cost does
not grow with what others have. What a role has on an object comes as numbers (state.BITS), one row per object. All
kinds of one database are one statement.
"""
# ruff: noqa: S608 - composed of this module's own texts; what comes from outside is a parameter

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from pgtend.api.privileges import SINCE, words_of
from pgtend.postgres.session import Query
from pgtend.users.observe.effective import COUNTS, counting
from pgtend.users.state import BITS
from pgtend.users.words import WORDS as SQL_WORDS

_BITS = sql.SQL(", ").join(
    sql.SQL("({}, {})").format(sql.Literal(SQL_WORDS[word]), sql.Literal(bit)) for word, bit in BITS.items()
)

_WITH = sql.SQL("""
WITH RECURSIVE role AS (SELECT oid, rolname::text AS name FROM pg_catalog.pg_roles WHERE rolname = ANY(%(roles)s)),
     me AS (SELECT oid, rolsuper FROM pg_catalog.pg_roles WHERE rolname = %(grantor)s),
     word (privilege, bit) AS (VALUES {bits}),
dependent AS (
    SELECT DISTINCT p.classid, p.objid, p.objsubid FROM pg_catalog.pg_shdepend AS p JOIN role ON role.oid = p.refobjid
    WHERE p.refclassid = 'pg_catalog.pg_authid'::regclass AND p.deptype = 'a' AND p.dbid = {database})
""")

# One object with what each role, and everybody, has on it. `ours` stands in the name that a GRANT of ours bears
# (select_best_grantor in acl.c): the owner's where we are a superuser; our own for what we hold with grant option
# ourselves (`direct`); else the owner's where we are its member. Only such entries does a REVOKE of ours end. The
# owner's own entries are no grants. Where our role does not exist yet it is taken to be able to do all. `effective` is
# the ACL that counts for granting: of a column the table's too.
_BRANCH = sql.SQL("""
SELECT {kind} AS kind, {schema} AS schema, {name} AS name, {column} AS column, {arguments} AS arguments,
       o.rolname::text AS owner, o.rolsuper AS owner_is_superuser,
       CASE WHEN h.as_owner THEN {every} ELSE coalesce(
           (SELECT bit_or(word.bit) FROM pg_catalog.aclexplode({effective}) AS a
            JOIN word ON word.privilege = a.privilege_type
            WHERE a.is_grantable AND a.grantee <> 0 AND pg_catalog.pg_has_role(me.oid, a.grantee, 'USAGE')), 0)
       END AS grantable,
  (SELECT json_agg(json_build_array(x.name, x.held, x.grantable, x.ours, x.others)) FROM (
     SELECT role.name, bit_or(word.bit) AS held,
            bit_or(CASE WHEN a.is_grantable THEN word.bit ELSE 0 END) AS grantable,
            bit_or(CASE WHEN our.own THEN word.bit ELSE 0 END) AS ours,
            json_agg(json_build_array(pg_catalog.pg_get_userbyid(a.grantor), word.bit,
                pg_catalog.pg_has_role(me.oid, a.grantor, '{act_as}'))) FILTER (WHERE NOT our.own) AS others
     FROM pg_catalog.aclexplode({acl}) AS a JOIN role ON role.oid = a.grantee
          JOIN word ON word.privilege = a.privilege_type
          CROSS JOIN LATERAL (SELECT CASE WHEN word.bit & h.direct <> 0 THEN a.grantor = me.oid
                                          WHEN h.as_owner THEN a.grantor = {owner}
                                          ELSE pg_catalog.pg_has_role(me.oid, a.grantor, 'USAGE') END AS own) AS our
     WHERE a.grantee <> {owner} GROUP BY role.name) AS x) AS held,
  (SELECT bit_or(word.bit) FROM pg_catalog.aclexplode({effective}) AS a JOIN word ON word.privilege = a.privilege_type
   WHERE a.grantee = 0) AS public, h.direct, {connectable} AS connectable, {auto} AS auto
FROM {source} JOIN pg_catalog.pg_roles AS o ON o.oid = {owner} LEFT JOIN me ON true
CROSS JOIN LATERAL (
    SELECT me.oid IS NULL OR pg_catalog.pg_has_role(me.oid, {owner}, 'USAGE') AS as_owner,
           CASE WHEN me.oid IS NULL OR me.rolsuper OR me.oid = {owner} THEN 0 ELSE coalesce(
               (SELECT bit_or(word.bit) FROM pg_catalog.aclexplode({effective}) AS a
                JOIN word ON word.privilege = a.privilege_type WHERE a.grantee = me.oid AND a.is_grantable), 0)
           END AS direct) AS h
WHERE {where}""")

_ORDER = " ORDER BY 1, 2, 3, 4, 6"
_ENTRY = sql.SQL("""
SELECT {place} AS place, {kind} AS kind, {oid} AS objid, {part}::int AS part, a.grantee, word.bit
FROM {source} CROSS JOIN LATERAL pg_catalog.aclexplode({acl}) AS a JOIN word ON word.privilege = a.privilege_type
WHERE {where} AND (a.grantee = 0 OR a.grantee IN (SELECT has FROM inherits))""")

_EVERYTHING = sql.SQL("""
SELECT {kind} AS kind, {schema} AS schema, {name} AS name, {column} AS column, o.rolname::text AS owner,
       g.rolname::text AS grantee, bit_or(word.bit) AS mask,
       bit_or(CASE WHEN a.is_grantable THEN word.bit ELSE 0 END) AS grantable, {bare} IS NULL AS by_default
FROM {source} JOIN pg_catalog.pg_roles AS o ON o.oid = {owner} CROSS JOIN LATERAL pg_catalog.aclexplode({acl}) AS a
     JOIN word ON word.privilege = a.privilege_type LEFT JOIN pg_catalog.pg_roles AS g ON g.oid = a.grantee
WHERE ({where}) AND (a.grantee = 0 OR g.oid IS NOT NULL) GROUP BY 1, 2, 3, 4, 5, 6, 9""")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Branch:
    """One kind of object in the catalog. `acl` is without its default, which is acldefault(`letter`, owner)."""

    kind: str
    source: LiteralString
    acl: LiteralString
    owner: LiteralString
    letter: LiteralString
    name: LiteralString
    oid: LiteralString
    scope: LiteralString
    """Which of them are a user's at all."""
    chosen: LiteralString = "true"
    """Which of those are to be seen."""
    part: LiteralString = "0"
    """With the OID what identifies it."""
    schema: LiteralString = "NULL::text"
    column: LiteralString = "NULL::text"
    arguments: LiteralString = "''"
    connectable: LiteralString = "NULL::bool"
    beside: LiteralString = ""
    """The ACL of what it is a part of."""
    auto: LiteralString = "false"
    effective: LiteralString = ""
    """Where no ACL says who may grant."""

    @property
    def full_acl(self) -> LiteralString:
        return f"coalesce({self.acl}, pg_catalog.acldefault('{self.letter}', {self.owner}))"

    def entry(self, place: LiteralString) -> sql.Composed:
        """What is in the ACLs for a role, for what it inherits from, and for everybody; of databases the chosen only,
        since there may be many."""
        where = f"({self.scope}) AND ({self.chosen})" if self.kind == "Database" else self.scope
        parts: dict[str, LiteralString] = {
            "place": place,
            "oid": self.oid,
            "part": self.part,
            "source": self.source,
            "acl": self.acl if self.part != "0" else self.full_acl,
            "where": where,
        }
        return _ENTRY.format(kind=sql.Literal(self.kind), **{name: sql.SQL(text) for name, text in parts.items()})

    def everything(self) -> sql.Composed:
        """Every object with every grantee."""
        parts: dict[str, LiteralString] = {
            "schema": self.schema,
            "name": self.name,
            "column": self.column,
            "owner": self.owner,
            "bare": self.acl,
            "acl": self.acl if self.part != "0" else self.full_acl,
            "source": self.source,
            "where": self.scope,
        }
        return _EVERYTHING.format(kind=sql.Literal(self.kind), **{name: sql.SQL(text) for name, text in parts.items()})

    def query(self, major: int) -> sql.Composed:
        words = words_of(self.kind, columns=self.column != "NULL::text")
        known = (word for word in words if SINCE.get((self.kind, word), 0) <= major)
        # of default privileges nothing is there until somebody grants
        acl = self.acl if self.effective else self.full_acl
        parts: dict[str, LiteralString] = {
            "schema": self.schema,
            "name": self.name,
            "column": self.column,
            "arguments": self.arguments,
            "owner": self.owner,
            "acl": acl,
            "effective": self.effective or (f"({acl} || {self.beside})" if self.beside else acl),
            "auto": self.auto,
            "connectable": self.connectable,
            "source": self.source,
            "where": f"({self.scope}) AND ({self.chosen})",
            # whether we may SET ROLE to whoever granted
            "act_as": "SET" if major >= 16 else "MEMBER",
        }
        return _BRANCH.format(
            kind=sql.Literal(self.kind),
            every=sql.Literal(sum(BITS[word] for word in known)),
            **{name: sql.SQL(text) for name, text in parts.items()},
        )


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
    _Branch(
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
    _Branch(
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
_PARAMETER = _Branch(
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
    _Branch(
        kind="Schema",
        source="pg_catalog.pg_namespace AS n",
        acl="n.nspacl",
        owner="n.nspowner",
        letter="n",
        name="n.nspname::text",
        oid="n.oid",
        scope=_USERS,
    ),
    _Branch(
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
    _Branch(
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
    _Branch(
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
        _Branch(
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
    _Branch(
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
    _Branch(
        kind="Language",
        source="pg_catalog.pg_language AS l",
        acl="l.lanacl",
        owner="l.lanowner",
        letter="l",
        name="l.lanname::text",
        oid="l.oid",
        scope="l.lanpltrusted",
    ),
    _Branch(
        kind="ForeignServer",
        source="pg_catalog.pg_foreign_server AS s",
        acl="s.srvacl",
        owner="s.srvowner",
        letter="S",
        name="s.srvname::text",
        oid="s.oid",
        scope="true",
    ),
    _Branch(
        kind="LargeObject",
        source="pg_catalog.pg_largeobject_metadata AS l",
        acl="l.lomacl",
        owner="l.lomowner",
        letter="L",
        name="l.oid::text",
        oid="l.oid",
        scope="true",
        chosen=f"l.oid = ANY(%(large_objects)s::oid[]) OR {_dependent('pg_largeobject', 'l.oid')}",
    ),
    *(
        _Branch(
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


def _all(branches: Iterable[_Branch], *, major: int, database: LiteralString, place: LiteralString) -> Query:
    branches = tuple(branches)
    start = _WITH.format(bits=_BITS, database=sql.SQL(database))
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
    return _all(_LOCAL, major=major, database=here, place="''")


@functools.cache
def entries(major: int, *, server: bool) -> Query:
    """Every entry in an ACL: of the server's own objects, or of one database's, without default privileges."""
    branches = (*(_SHARED if major < 15 else (*_SHARED, _PARAMETER)),) if server else _LOCAL
    start = sql.SQL("WITH word (privilege, bit) AS (VALUES {}) ").format(_BITS)
    return start + sql.SQL(" UNION ALL ").join(b.everything() for b in branches if not b.effective) + sql.SQL(_ORDER)
