"""The catalog queries of DatabaseUser about roles, for majors 14 to 18. Whom it concerns is filtered on the server."""

from __future__ import annotations

import functools
from typing import LiteralString

from psycopg import sql

from pgtend.postgres.session import Query
from pgtend.users.exposure import RECORDERS
from pgtend.users.state import NEVER

# Characters of a setting's value that are read: no spec's is as long. Every role may give itself any, of any length,
# and the answer is many users'.
LONGEST = 4096
# One row at least, also where no role is found: what our own role may do stands in each. Sessions are counted once for
# all; whose a session is, every role may see.
_ROLES = sql.SQL("""
WITH me AS (SELECT * FROM pg_catalog.pg_roles WHERE rolname = %(grantor)s),
one AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = ANY(%(roles)s)),
power AS MATERIALIZED (SELECT oid FROM pg_catalog.pg_roles WHERE rolsuper OR rolname = ANY(%(powers)s)),
setting AS MATERIALIZED (
    SELECT s.setrole, b.datname::text AS database, pg_catalog.split_part(c, '=', 1) AS name,
           pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1, {longest}) AS value
    FROM pg_catalog.pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS c
         LEFT JOIN pg_catalog.pg_database AS b ON b.oid = s.setdatabase
    WHERE s.setrole IN (SELECT oid FROM one)),
facts AS MATERIALIZED (
    SELECT (SELECT json_object_agg(n.name, coalesce(p.context = 'user', false) OR {may_set})
            FROM (SELECT unnest(%(settings)s::text[]) AS name UNION SELECT pg_catalog.lower(name) FROM setting) AS n
                 LEFT JOIN pg_catalog.pg_settings AS p ON pg_catalog.lower(p.name) = n.name
                 LEFT JOIN me ON true) AS settable,
           (SELECT json_agg(json_build_array(g.rolname, g.rolsuper OR EXISTS (
                    SELECT FROM power WHERE power.oid <> g.oid AND pg_catalog.pg_has_role(g.oid, power.oid, 'MEMBER')),
                me.oid IS NULL OR me.rolsuper OR (NOT g.rolsuper AND {may_group})))
            FROM pg_catalog.pg_roles AS g LEFT JOIN me ON true WHERE g.rolname = ANY(%(groups)s)) AS groups,
           (SELECT json_object_agg(name, setting) FROM pg_catalog.pg_settings WHERE name = ANY({recorders})) AS logging,
           {altered} AS altered)
SELECT r.rolname::text AS name, r.rolcanlogin, r.rolinherit, r.rolsuper, r.rolcreatedb, r.rolcreaterole,
       r.rolreplication, r.rolbypassrls, r.rolconnlimit,
       CASE WHEN isfinite(r.rolvaliduntil) THEN (extract(epoch FROM r.rolvaliduntil) * 1000000)::int8
            WHEN r.rolvaliduntil = '-infinity' THEN {never} END AS valid_until,
       pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment,
       {verifier} AS verifier,
       EXISTS (SELECT FROM power WHERE pg_catalog.pg_has_role(r.oid, power.oid, 'MEMBER')) AS powerful,
       coalesce(s.sessions, 0) AS sessions, coalesce(d.databases, '{{}}') AS databases, coalesce(d.owns, 0) AS owns,
       (SELECT json_agg(json_build_array(database, name, value)) FROM setting WHERE setrole = r.oid) AS settings,
       (SELECT json_agg(json_build_array(g.rolname, m.admin_option, {inherit}, {set}, m.grantor = {ours},
                pg_catalog.pg_get_userbyid(m.grantor), me.oid IS NULL OR me.rolsuper OR {may_end}, {automatic}))
        FROM pg_catalog.pg_auth_members AS m JOIN pg_catalog.pg_roles AS g ON g.oid = m.roleid
        WHERE m.member = r.oid) AS memberships,
       facts.settable, facts.groups, facts.logging, facts.altered,
       pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS sees_verifiers,
       coalesce(me.rolsuper, true) AS all_powerful, me.rolcreatedb AS may_createdb,
       me.rolreplication AS may_replication, me.rolbypassrls AS may_bypassrls,
       me.oid IS NULL OR me.rolsuper OR (me.rolcreaterole AND NOT r.rolsuper AND {may_alter}) AS alterable
FROM facts LEFT JOIN me ON true LEFT JOIN {catalog} AS r ON r.rolname = ANY(%(roles)s)
LEFT JOIN (SELECT usesysid, count(*) AS sessions FROM pg_catalog.pg_stat_activity GROUP BY 1) AS s
       ON s.usesysid = r.oid
LEFT JOIN LATERAL (
    SELECT array_agg(DISTINCT b.datname::text) FILTER (WHERE p.deptype = 'a' AND b.oid IS NOT NULL) AS databases,
           count(*) FILTER (WHERE p.deptype = 'o') AS owns
    FROM pg_catalog.pg_shdepend AS p LEFT JOIN pg_catalog.pg_database AS b ON b.oid = p.dbid
    WHERE p.refclassid = 'pg_catalog.pg_authid'::regclass AND p.refobjid = r.oid) AS d ON true
""")


_OTHERS: LiteralString = "pg_catalog.pg_has_role(me.oid, m.grantor, 'USAGE')"
# How often rows of pg_authid were written, as every role may see: while that stands still nobody's password has
# changed. It begins anew after a crash and on another server, which the moments tell. From 15 on a server tells within
# ten seconds, before not until the session ends. 0.1 ms.
_ALTERED: LiteralString = """
(SELECT CASE WHEN pg_catalog.current_setting('track_counts')::bool
             THEN pg_catalog.concat_ws(' ', pg_catalog.pg_stat_get_tuples_inserted(a),
                  pg_catalog.pg_stat_get_tuples_updated(a), pg_catalog.pg_stat_get_tuples_deleted(a),
                  extract(epoch FROM pg_catalog.pg_postmaster_start_time()),
                  extract(epoch FROM pg_catalog.pg_stat_get_bgwriter_stat_reset_time())) END
 FROM (SELECT 'pg_catalog.pg_authid'::regclass::oid AS a) AS authid)"""
_AUTOMATIC: LiteralString = "(m.grantor = 10 AND m.admin_option AND NOT m.inherit_option AND NOT m.set_option)"


@functools.cache
def roles(*, major: int, verifiers: bool) -> Query:
    """Roles, with what our own role may do; `verifiers` where it may read pg_authid.

    Before 16 a role with CREATEROLE may grant and alter whatever is no superuser's; from then on it needs ADMIN OPTION,
    given to itself: then its GRANTs bear its own name (a superuser's bear the bootstrap superuser's).
    """
    admin = (
        "EXISTS (SELECT FROM pg_catalog.pg_auth_members AS a"
        " WHERE a.roleid = g.oid AND a.member = me.oid AND a.admin_option)"
    )
    old = major < 16
    parts: dict[str, LiteralString] = {
        "may_set": "false"
        if major < 15
        else "(me.oid IS NOT NULL AND NOT me.rolsuper AND pg_catalog.has_parameter_privilege(me.oid, n.name, 'SET'))",
        "may_group": f"(me.rolcreaterole OR {admin})" if old else admin,
        "may_alter": "NOT r.rolreplication"
        if old
        else "pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER WITH ADMIN OPTION')",
        "inherit": "true" if old else "m.inherit_option",
        "set": "true" if old else "m.set_option",
        "ours": "me.oid" if old else "CASE WHEN me.rolsuper THEN 10 ELSE me.oid END",
        "may_end": f"(NOT g.rolsuper AND {'me.rolcreaterole' if old else _OTHERS})",
        # what CREATEROLE gives to who makes a role is no grant of anybody's
        "automatic": "false" if old else _AUTOMATIC,
        "altered": "NULL::text" if major < 15 else _ALTERED,
        "verifier": "r.rolpassword" if verifiers else "NULL::text",
        "catalog": "pg_catalog.pg_authid" if verifiers else "pg_catalog.pg_roles",
    }
    recorders = sql.Literal(list(RECORDERS))
    return _ROLES.format(
        never=sql.Literal(NEVER),
        longest=sql.Literal(LONGEST),
        recorders=recorders,
        **{name: sql.SQL(text) for name, text in parts.items()},
    )
