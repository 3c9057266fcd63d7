"""How many privileges a role has in effect, and by what: given to itself, to what it inherits from, to everybody.

A part of the statements in objects.py, so that it costs no round trip of its own. Roles with the same memberships are
counted together, and what everybody has is counted once: the cost grows with what roles have, not with roles times
objects. An owner has what the ACL says of the owner, by itself.
"""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

# `inherits` has each role with itself and, transitively, those whose privileges it has without SET ROLE; until 15 it is
# the member that inherits or not, from 16 on the membership. `held` is by the set of groups.
_COUNTING = sql.SQL("""
, inherits AS (
    SELECT oid AS member, oid AS has FROM role
    UNION SELECT i.member, m.roleid FROM inherits AS i JOIN pg_catalog.pg_auth_members AS m ON m.member = i.has
    WHERE {inherit}),
closure AS MATERIALIZED (
    SELECT role.oid, role.name, array_agg(i.has ORDER BY i.has) FILTER (WHERE i.has <> i.member) AS groups
    FROM role JOIN inherits AS i ON i.member = role.oid GROUP BY 1, 2),
entry AS MATERIALIZED (
    SELECT place, kind, objid, part, grantee, bit_or(bit) AS mask FROM ({entries}) AS e GROUP BY 1, 2, 3, 4, 5),
everybody AS MATERIALIZED (SELECT place, kind, objid, part, mask FROM entry WHERE grantee = 0),
held AS MATERIALIZED (
    SELECT c.groups, e.place, e.kind, e.objid, e.part, bit_or(e.mask) AS mask
    FROM (SELECT DISTINCT groups FROM closure WHERE groups IS NOT NULL) AS c CROSS JOIN LATERAL unnest(c.groups) AS g
         JOIN entry AS e ON e.grantee = g GROUP BY 1, 2, 3, 4, 5),
via AS MATERIALIZED (
    SELECT h.groups, h.place, sum({h}) AS held, sum({h_and_p}) AS open
    FROM held AS h LEFT JOIN everybody AS p USING (place, kind, objid, part) GROUP BY 1, 2),
own AS MATERIALIZED (
    SELECT c.oid, e.place, sum({e}) AS direct, sum({e_and_h}) AS twice, sum({e_and_p}) AS open
    FROM closure AS c JOIN entry AS e ON e.grantee = c.oid
         LEFT JOIN held AS h ON h.groups = c.groups AND (h.place, h.kind, h.objid, h.part) =
                                                        (e.place, e.kind, e.objid, e.part)
         LEFT JOIN everybody AS p ON (p.place, p.kind, p.objid, p.part) = (e.place, e.kind, e.objid, e.part)
    GROUP BY 1, 2),
total AS (SELECT place, sum({p}) AS public FROM everybody AS p GROUP BY 1)
""")

COUNTS: sql.SQL = sql.SQL("""
SELECT 'Effective', NULL::text, c.place, NULL::text, '', '', false, 0,
       json_agg(json_build_array(c.role, c.direct::int, c.roles::int, c.public::int)), 0, 0, NULL::bool, false
FROM (
    SELECT place, '' AS role, 0 AS direct, 0 AS roles, public FROM total
    UNION ALL SELECT coalesce(own.place, via.place), closure.name, coalesce(direct, 0),
           coalesce(held, 0) - coalesce(twice, 0),
           coalesce((SELECT public FROM total WHERE total.place = coalesce(own.place, via.place)), 0)
           - coalesce(via.open, 0) - coalesce(own.open, 0)
    FROM closure JOIN (SELECT oid, place FROM own UNION SELECT closure.oid, place FROM closure JOIN via USING (groups)
         ) AS there ON there.oid = closure.oid
         LEFT JOIN own ON own.oid = closure.oid AND own.place = there.place
         LEFT JOIN via ON via.groups = closure.groups AND via.place = there.place
) AS c GROUP BY c.place""")
"""Rows of the kind Effective, one per place: [role, direct, via roles, via public]. The role without a name is one that
has nothing but what everybody has."""


def counting(entries: sql.Composed, *, major: int) -> sql.Composed:
    """The common table expressions behind COUNTS. `entries` gives place, kind, objid, part, grantee and bit."""
    inherit: LiteralString = (
        "m.inherit_option"
        if major >= 16
        else "(SELECT r.rolinherit FROM pg_catalog.pg_roles AS r WHERE r.oid = m.member)"
    )
    bits: dict[str, LiteralString] = {
        "h": "h.mask",
        "p": "p.mask",
        "e": "e.mask",
        "h_and_p": "h.mask & coalesce(p.mask, 0)",
        "e_and_h": "e.mask & coalesce(h.mask, 0)",
        "e_and_p": "e.mask & ~coalesce(h.mask, 0) & coalesce(p.mask, 0)",
    }
    counted = {name: sql.SQL("pg_catalog.bit_count(({})::bit(32))").format(sql.SQL(of)) for name, of in bits.items()}
    return _COUNTING.format(entries=entries, inherit=sql.SQL(inherit), **counted)
