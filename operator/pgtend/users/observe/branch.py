"""How a kind of object in the catalog is asked for who has what on it.

There is one shape of SQL for what concerns a few roles, one for what each of them has in effect, one for everything. An
ACL is a column of its object, with a default where it is NULL; what a role has comes as numbers (state.BITS), one row
per object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from pgtend.api.privileges import SINCE, words_of
from pgtend.users.state import BITS
from pgtend.users.words import WORDS as SQL_WORDS

WORD_BITS = sql.SQL(", ").join(
    sql.SQL("({}, {})").format(sql.Literal(SQL_WORDS[word]), sql.Literal(bit)) for word, bit in BITS.items()
)

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
class Branch:
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
