"""Carries plans out: one transaction for the roles of the whole batch, one in each database for what is local to it.

Users who want the same are served by one statement, so that a table's row is rewritten once and not once per user.
Where the batch fails, it is halved until the failing user stands alone: one bad user does not stop the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import LiteralString, TypeVar

import psycopg
from psycopg import sql

from pgtend.api.reasons import UserReason as R
from pgtend.core.actions import Action
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.core.names import role_mark
from pgtend.core.redaction import Sensitive, redact
from pgtend.gate.classes import TaskType
from pgtend.gate.decide import Permit
from pgtend.postgres.errors import SqlClass, classify
from pgtend.postgres.locks import Lock
from pgtend.postgres.quoting import identifier
from pgtend.server.server import Server
from pgtend.server.write import Statement, WriteSession, is_guard
from pgtend.users.actions import (
    NO_END,
    AlterRole,
    ChangeSetting,
    CreateRole,
    DropOwned,
    DropRole,
    EndSessions,
    GrantMembership,
    GrantPrivileges,
    MarkRole,
    MembershipAction,
    OwnedAction,
    PrivilegeAction,
    ReassignOwned,
    RevokeMembership,
    RevokePrivileges,
    RoleAction,
    RoleOptions,
    SetPassword,
    is_shared,
)
from pgtend.users.ending import Permits, permits
from pgtend.users.naming import before, on
from pgtend.users.observe.depends import OWN_ALONE
from pgtend.users.state import NEVER, Problem
from pgtend.users.wanted import moment

Actions = Mapping[ObjectKey, Sequence[Action]]
Verifiers = Mapping[str, Sensitive | None]
"""By role; None takes a password away."""
A = TypeVar("A", bound=RoleAction)
_ATTRIBUTES: dict[str, tuple[LiteralString, LiteralString]] = {
    "SUPERUSER": ("SUPERUSER", "NOSUPERUSER"),
    "CREATEDB": ("CREATEDB", "NOCREATEDB"),
    "CREATEROLE": ("CREATEROLE", "NOCREATEROLE"),
    "REPLICATION": ("REPLICATION", "NOREPLICATION"),
    "BYPASSRLS": ("BYPASSRLS", "NOBYPASSRLS"),
}
# whoever streams the server's changes in the role's name has a session too, and never ends it by himself
_END = sql.SQL("""
SELECT count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity
WHERE usename = {role} AND backend_type IN ('client backend', 'walsender')""")
# in the same transaction as DROP OWNED, which would drop tables: it fails where the role owns any. No DO block, since a
# role's name may hold whatever would end its quotes
_OWNS_NOTHING: sql.SQL = sql.SQL("""
SELECT CASE WHEN count(*) > 0 THEN ('the role still owns ' || count(*) || ' objects')::int END
FROM pg_catalog.pg_shdepend AS p
WHERE p.refclassid = 'pg_catalog.pg_authid'::regclass AND p.deptype = 'o' AND NOT {alone}
  AND p.refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = {role})
  AND p.dbid IN (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()
                 UNION ALL SELECT 0::oid)
""")
# else the look that follows does not see that roles were altered (Observed.altered), and a later one takes it for news
_TELL = Statement(sql.SQL("SELECT pg_catalog.pg_stat_force_next_flush()"), "tell at once what was altered")
# under the lock, which others of pgtend take too: between the look and now somebody may have dropped the role and made
# another, or have taken it over. Text that is no number is the error
_STILL: sql.SQL = sql.SQL("""
SELECT CASE WHEN count(*) > 0 THEN ({changed} || pg_catalog.min(w.role))::int END
FROM (VALUES {roles}) AS w (role, mark, before)
LEFT JOIN pg_catalog.pg_roles AS r ON r.rolname = w.role
WHERE r.oid IS NULL OR CASE WHEN w.mark IS NULL
    THEN pg_catalog.shobj_description(r.oid, 'pg_authid') IS DISTINCT FROM w.before
    ELSE pg_catalog.strpos(coalesce(pg_catalog.shobj_description(r.oid, 'pg_authid'), ''), w.mark) = 0 END
""")
CHANGED = "is not this object's any more: role "
NOBODY: Permits = MappingProxyType({})
DEPENDENT = "2BP01"
GUARDED = "the primary has moved"


@dataclass(frozen=True, slots=True)
class Applied:
    """Whom it failed for and why; `roles` are those whose role, password and database privileges were carried out."""

    failed: dict[ObjectKey, Problem]
    roles: frozenset[ObjectKey]


async def apply(server: Server, actions: Actions, verifiers: Verifiers) -> Applied:
    """Carry out each user's actions. What failed for a role is not followed by its grants. `verifiers` holds those of
    every role whose password is set. Failures are in the answer, never raised."""
    failed: dict[ObjectKey, Problem] = {}
    shared = {key: [a for a in mine if is_shared(a)] for key, mine in actions.items()}
    leave: dict[str, Permit] = {}
    for key, mine in shared.items():
        answer = permits(mine, target=server.key, spec=server.spec, braked=server.braked, now=server.clock.now())
        if isinstance(answer, Problem):
            failed[key] = answer
        else:
            leave |= answer
    able = {key: mine for key, mine in shared.items() if mine and key not in failed}
    await _in_database(server, None, able, verifiers, failed, leave)
    roles = frozenset(actions.keys() - failed.keys())
    for name in sorted({d for mine in actions.values() for a in mine if (d := _database(a)) is not None}):
        local = {
            key: found
            for key, mine in actions.items()
            if key not in failed and (found := [a for a in mine if _database(a) == name])
        }
        await _in_database(server, name, local, verifiers, failed, {})
    return Applied(failed, roles)


def _database(action: Action) -> str | None:
    """Where it must be carried out; None for the maintenance database."""
    if not isinstance(action, PrivilegeAction | OwnedAction) or is_shared(action):
        return None
    return action.database


async def _in_database(
    server: Server,
    database: str | None,
    actions: Actions,
    verifiers: Verifiers,
    failed: dict[ObjectKey, Problem],
    leave: Permits,
) -> None:
    if not actions:
        return
    waiting: list[Actions] = [actions]
    while waiting:
        batch = waiting.pop()
        try:
            async with server.write(
                role="users", credential=server.spec.credentials.users, database=database
            ) as session:
                lock = Lock.SHARED if database is None else Lock.LOCAL
                still = _still(batch, server.installation, me=_login(server))
                await _transaction(session, batch, verifiers, leave, lock, still)
        except (psycopg.Error, TimeoutError) as error:
            if len(batch) > 1 and classify(error) is not SqlClass.TRANSIENT:
                keys = list(batch)
                middle = len(keys) // 2
                waiting += [{k: batch[k] for k in keys[middle:]}, {k: batch[k] for k in keys[:middle]}]
                continue
            for key, mine in batch.items():
                failed[key] = explain(error, mine, server)
        except PgtendError as error:
            problem = Problem(
                reason=error.reason, message=error.message, object=error.object, transient=error.transient
            )
            failed.update(dict.fromkeys(batch, problem))


def _still(actions: Actions, installation: str, *, me: str) -> list[Statement]:
    """That the roles are whose they were when somebody looked: those that exist carry the mark, one that is to get it
    the comment that it had. What `me` becomes a member of for a while is one of them."""
    rows: dict[str, tuple[str | None, str | None]] = {}
    made = {a.role for mine in actions.values() for a in mine if isinstance(a, CreateRole)}
    for key, mine in actions.items():
        mark = role_mark(installation=installation, namespace=key.namespace, name=key.name)
        for action in mine:
            if isinstance(action, MarkRole):
                rows[action.role] = None, action.before
            elif isinstance(action, MembershipAction) and action.role == me:
                rows.setdefault(action.group, (mark, None))
            elif isinstance(action, RoleAction) and action.role not in made:
                rows.setdefault(action.role, (mark, None))
    if not rows:
        return []
    row = sql.SQL("({}::text, {}::text, {}::text)")
    roles = sql.SQL(", ").join(row.format(*map(sql.Literal, (role, *rest))) for role, rest in rows.items())
    query = _STILL.format(changed=sql.Literal(CHANGED), roles=roles)
    return [Statement(query, "see whose the roles are")]


async def _transaction(
    session: WriteSession,
    actions: Actions,
    verifiers: Verifiers,
    leave: Permits,
    lock: Lock,
    still: Sequence[Statement],
) -> None:
    failpoint("users.apply.before_sql")
    statements = [*still, *render((a for mine in actions.values() for a in mine), verifiers, leave)]
    if lock is Lock.SHARED and session.server_version >= 150000:
        statements.append(_TELL)
    await session.transaction(statements, lock=lock)
    failpoint("users.apply.after_sql")


def render(actions: Iterable[Action], verifiers: Verifiers, leave: Permits = NOBODY) -> Iterator[Statement]:
    """Statements in the order in which they may follow each other: roles, then revokes, then grants, then drops.
    `leave` holds the gate's for every role whose sessions end."""
    revokes: dict[RevokePrivileges | RevokeMembership, list[str]] = {}
    grants: dict[GrantPrivileges | GrantMembership, list[str]] = {}
    drops: list[DropRole] = []
    for action in actions:
        if isinstance(action, RevokePrivileges | RevokeMembership):
            revokes.setdefault(_anybody(action), []).append(action.role)
        elif isinstance(action, GrantPrivileges | GrantMembership):
            grants.setdefault(_anybody(action), []).append(action.role)
        elif isinstance(action, DropRole):
            drops.append(action)
        else:
            yield from _role_statements(action, verifiers, leave)
    for revoke, roles in revokes.items():
        yield from _revoke(revoke, roles)
    for grant, roles in grants.items():
        if isinstance(grant, GrantMembership):
            group, options = sql.Identifier(grant.group), _membership_options(grant)
            query = sql.SQL("GRANT {} TO {}{}").format(group, _names(roles), options)
        else:
            option = sql.SQL(" WITH GRANT OPTION" if grant.option else "")
            query = sql.SQL("{}GRANT {} TO {}{}").format(before(grant), on(grant), _names(roles), option)
        yield Statement(query, grant.describe())
    for drop in drops:
        yield Statement(sql.SQL("DROP ROLE {}").format(sql.Identifier(drop.role)), drop.describe())


def _revoke(revoke: RevokePrivileges | RevokeMembership, roles: Sequence[str]) -> Iterator[Statement]:
    """What another granted is revoked as that role, since GRANTED BY takes nobody else for privileges."""
    taken, grantor = sql.SQL("REVOKE {} FROM {}").format(_taken(revoke), _names(roles)), revoke.grantor
    if isinstance(revoke, RevokeMembership):
        by = sql.SQL("") if grantor is None else sql.SQL(" GRANTED BY {}").format(sql.Identifier(grantor))
        yield Statement(sql.SQL("{}{}").format(taken, by), revoke.describe())
        return
    if grantor is not None:
        yield Statement(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(grantor)), f"act as {grantor}")
    yield Statement(sql.SQL("{}{}").format(before(revoke), taken), revoke.describe())
    if grantor is not None:
        yield Statement(sql.SQL("RESET ROLE"), "act as ourselves")


def _anybody(action: A) -> A:
    """The same for no role in particular: what is equal is said once for all."""
    return replace(action, role="")


def _taken(action: RevokePrivileges | RevokeMembership) -> sql.Composed:
    if isinstance(action, RevokeMembership):
        option = sql.SQL("ADMIN OPTION FOR " if action.admin_only else "")
        return sql.SQL("{}{}").format(option, sql.Identifier(action.group))
    return sql.SQL("{}{}").format(sql.SQL("GRANT OPTION FOR " if action.option_only else ""), on(action))


def _membership_options(action: GrantMembership) -> sql.Composable:
    """Before 16 there is ADMIN OPTION, or nothing to say."""
    if action.inherit is None or action.set_ is None:
        return sql.SQL(" WITH ADMIN OPTION" if action.admin else "")
    words = [sql.SQL("TRUE" if on else "FALSE") for on in (action.admin, action.inherit, action.set_)]
    return sql.SQL(" WITH ADMIN {}, INHERIT {}, SET {}").format(*words)


def _names(names: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(name) for name in names)


def _role_statements(action: Action, verifiers: Verifiers, leave: Permits) -> Iterator[Statement]:
    if isinstance(action, CreateRole):
        role = sql.Identifier(action.role)
        parts = [*_options(action.options), _password(verifiers[action.role])]
        yield Statement(sql.SQL("CREATE ROLE {} {}").format(role, sql.SQL(" ").join(parts)), action.describe())
        yield _comment(action)
    elif isinstance(action, MarkRole):
        yield _comment(action)
    elif isinstance(action, AlterRole):
        parts = list(_options(action.options))
        query = sql.SQL("ALTER ROLE {} {}").format(sql.Identifier(action.role), sql.SQL(" ").join(parts))
        yield Statement(query, action.describe())
    elif isinstance(action, EndSessions):
        yield from _ending(action, leave[action.role])
    elif isinstance(action, ReassignOwned):
        names = sql.Identifier(action.role), sql.Identifier(action.to)
        yield Statement(sql.SQL("REASSIGN OWNED BY {} TO {}").format(*names), action.describe())
    elif isinstance(action, DropOwned):
        yield Statement(_OWNS_NOTHING.format(role=sql.Literal(action.role), alone=OWN_ALONE), f"look at {action.role}")
        yield Statement(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(action.role)), action.describe())
    elif isinstance(action, ChangeSetting):
        yield Statement(_setting(action), action.describe())
    elif isinstance(action, SetPassword):
        password = _password(verifiers[action.role])
        yield Statement(sql.SQL("ALTER ROLE {} {}").format(sql.Identifier(action.role), password), action.describe())
    else:
        raise TypeError(f"no SQL for {type(action).__name__}")


def _comment(action: CreateRole | MarkRole) -> Statement:
    query = sql.SQL("COMMENT ON ROLE {} IS {}").format(sql.Identifier(action.role), sql.Literal(action.comment))
    return Statement(query, f"mark {action.role}")


def _ending(action: EndSessions, permit: Permit) -> Iterator[Statement]:
    """Only a member of a role may end its sessions: we are one for as long as it takes, and what that changes in a
    membership that there is already is undone with it. Raises ValueError where the leave is for something else."""
    if (permit.type, permit.object) != (TaskType.END_SESSIONS, f"role {action.role}"):
        raise ValueError(f"no leave to end the sessions of role {action.role}: {permit.type} of {permit.object}")
    if not action.borrowed:
        yield Statement(_END.format(role=sql.Literal(action.role)), action.describe())
        return
    role, options = sql.Identifier(action.role), sql.SQL(" WITH INHERIT TRUE" if action.options else "")
    yield Statement(sql.SQL("SAVEPOINT pgtend_member"), f"begin to {action.describe()}")
    yield Statement(sql.SQL("GRANT {} TO CURRENT_USER{}").format(role, options), f"become a member of {action.role}")
    yield Statement(_END.format(role=sql.Literal(action.role)), action.describe())
    yield Statement(sql.SQL("ROLLBACK TO SAVEPOINT pgtend_member"), f"be no member of {action.role} any more")


def _setting(action: ChangeSetting) -> sql.Composed:
    role: sql.Composable = sql.Identifier(action.role)
    if action.database is not None:
        role = sql.SQL("{} IN DATABASE {}").format(role, sql.Identifier(action.database))
    name = sql.SQL(".").join(sql.Identifier(part) for part in action.name.split("."))
    if action.values is None:
        return sql.SQL("ALTER ROLE {} RESET {}").format(role, name)
    values = sql.SQL(", ").join(sql.Literal(value) for value in action.values)
    return sql.SQL("ALTER ROLE {} SET {} TO {}").format(role, name, values)


def _options(options: RoleOptions) -> Iterator[sql.Composable]:
    if options.login is not None:
        yield sql.SQL("LOGIN" if options.login else "NOLOGIN")
    if options.inherit is not None:
        yield sql.SQL("INHERIT" if options.inherit else "NOINHERIT")
    if options.connection_limit is not None:
        yield sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(options.connection_limit))
    if options.valid_until is not None:
        yield sql.SQL("VALID UNTIL {}").format(sql.Literal(_until(options.valid_until)))
    for words, chosen in ((options.having, 0), (options.without, 1)):
        for word in words:
            yield sql.SQL(_ATTRIBUTES[word][chosen])


def _until(value: int) -> str:
    return "infinity" if value == NO_END else "-infinity" if value == NEVER else moment(value).isoformat()


def _password(verifier: Sensitive | None) -> sql.Composed:
    return sql.SQL("PASSWORD {}").format(sql.SQL("NULL") if verifier is None else sql.Literal(verifier.reveal()))


def explain(error: BaseException, actions: Sequence[Action], server: Server) -> Problem:
    """A failed transaction of one user as a reason, with the statement that would help where one is known."""
    who = identifier(_login(server))
    text = _primary_message(error)
    kind = classify(error)
    role = next((a.role for a in actions if isinstance(a, RoleAction)), "")
    if isinstance(error, psycopg.Error) and is_guard(error):
        return Problem(reason=R.WRITE_FAILED, message=f"{GUARDED}: tried again after the next probe", transient=True)
    if CHANGED in text:
        message = f"role {role} is not what it was when it was looked at, and is left alone: it is looked at again"
        return Problem(reason=R.WRITE_FAILED, message=message, object=role, transient=True)
    if any(isinstance(a, OwnedAction) for a in actions) and kind is not SqlClass.TRANSIENT:
        where = next((a.describe() for a in actions if isinstance(a, OwnedAction)), "")
        message = f"could not {where} ({text}): grant what is missing, or reassign or drop it by hand"
        return Problem(reason=R.DROP_BLOCKED, message=message, object=role)
    if kind is SqlClass.DENIED:
        own = any(not isinstance(a, PrivilegeAction | MembershipAction | CreateRole) for a in actions)
        sql_text = f"GRANT {identifier(role)} TO {who} WITH ADMIN OPTION" if own else f"ALTER ROLE {who} CREATEROLE"
        message = f"{who} was refused ({text}): as an administrator run {sql_text}"
        return Problem(reason=R.MISSING_PRIVILEGE, message=message, object=role)
    if kind is SqlClass.INVALID:
        return Problem(reason=R.OBJECT_MISSING, message=f"{text}: create it, or correct the spec", object=role)
    state = getattr(error, "sqlstate", None)
    if state == DEPENDENT and not any(isinstance(a, DropRole) for a in actions):
        message = f"{text}: role {role} has handed on what is to be revoked from it. Revoke that first"
        return Problem(reason=R.WRITE_FAILED, message=message, object=role)
    if state == DEPENDENT:
        detail = error.diag.message_detail if isinstance(error, psycopg.Error) else None
        named = redact("; ".join((detail or "").splitlines()[:5]))
        message = f"{text}: {named}. Reassign or drop it, or set deletionPolicy: Retain"
        return Problem(reason=R.DROP_BLOCKED, message=message, object=role)
    message = f"{text}{f' (SQLSTATE {state})' if state else ''}: tried again with growing pauses"
    return Problem(reason=R.WRITE_FAILED, message=message, object=role, transient=True)


def _login(server: Server) -> str:
    users = server.spec.credentials.users
    return (users.username if users else None) or "pgtend_users"


def _primary_message(error: BaseException) -> str:
    """What the server said, without the statement: that may hold a verifier."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return redact(error.diag.message_primary)[:200]
    return redact(" ".join(str(error).split()))[:200] or "no answer within the deadline"
