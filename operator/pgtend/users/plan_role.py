"""What to change on the role itself: attributes, settings, memberships. Pure, a part of plan.py.

Each function yields actions with the difference that each ends, and notes what stands in the way. What we may not
change and nobody asked for (a setting of an administrator's, a membership that another gave) is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pgtend.api.databaseuser import MemberOf
from pgtend.api.reasons import UserReason as R
from pgtend.api.settings import elements
from pgtend.core.actions import Action
from pgtend.core.clock import rfc3339
from pgtend.postgres.quoting import identifier, literal
from pgtend.users.actions import (
    NO_END,
    AlterRole,
    ChangeSetting,
    CreateRole,
    GrantMembership,
    RevokeMembership,
    RoleOptions,
)
from pgtend.users.state import OPTIONS_SINCE, Membership, Observed, Problem, RoleState
from pgtend.users.wanted import Wanted, moment

ACTS_AS = "role"
"""The setting by which a session becomes another role; whoever is a member may have it."""
Step = tuple[Action | None, str]
"""An action (None where there is none that we may do) and the difference that it ends."""


def creation(wanted: Wanted, observed: Observed, problems: list[Problem]) -> CreateRole:
    having = tuple(sorted(wanted.attributes & observed.settable))
    options = RoleOptions(
        login=wanted.login,
        inherit=None if wanted.inherit else False,
        connection_limit=wanted.connection_limit if wanted.connection_limit >= 0 else None,
        valid_until=wanted.valid_until,
        having=having,
    )
    if lacking := sorted(wanted.attributes - observed.settable):
        problems.append(_not_settable(wanted.role, observed, having=lacking, without=[]))
    return CreateRole(object=wanted.role, verb="create role", role=wanted.role, options=options, comment=wanted.mark)


def attributes(wanted: Wanted, role: RoleState, observed: Observed, problems: list[Problem]) -> Iterator[Step]:
    """One ALTER ROLE for all attributes that we may set; with it come the texts of all that differ."""
    texts = []
    login = inherit = limit = until = None
    if role.login != wanted.login:
        login = wanted.login
        texts.append(f"login is {_word(role.login)}, not {_word(wanted.login)}")
    if role.inherit != wanted.inherit:
        inherit = wanted.inherit
        texts.append(f"inherit is {_word(role.inherit)}, not {_word(wanted.inherit)}")
    if role.connection_limit != wanted.connection_limit:
        limit = wanted.connection_limit
        texts.append(f"connectionLimit is {_limit(role.connection_limit)}, not {_limit(wanted.connection_limit)}")
    if role.valid_until != wanted.valid_until:
        until = NO_END if wanted.valid_until is None else wanted.valid_until
        texts.append(f"validUntil is {_until(role.valid_until)}, not {_until(wanted.valid_until)}")
    beyond, lacking = role.elevated - wanted.attributes, wanted.attributes - role.elevated
    texts += [f"the role has {word}" for word in sorted(beyond)]
    texts += [f"the role has no {word}" for word in sorted(lacking)]
    stuck = (beyond | lacking) - observed.settable
    if stuck:
        problems.append(
            _not_settable(role.name, observed, having=sorted(lacking & stuck), without=sorted(beyond & stuck))
        )
    options = RoleOptions(
        login=login,
        inherit=inherit,
        connection_limit=limit,
        valid_until=until,
        having=tuple(sorted(lacking & observed.settable)),
        without=tuple(sorted(beyond & observed.settable)),
    )
    action = AlterRole(object=role.name, verb="alter role", role=role.name, options=options)
    for text in texts:
        yield (action if options != RoleOptions() else None), text


def unalterable(role: RoleState, observed: Observed) -> Problem:
    """We may not change the role at all, and should."""
    name, who = identifier(role.name), identifier(observed.grantor)
    sql = f"GRANT {name} TO {who} WITH ADMIN OPTION"
    text = f"{observed.grantor} may not alter role {role.name}: as an administrator run {sql}"
    if observed.version < OPTIONS_SINCE and role.elevated & {"SUPERUSER", "REPLICATION"}:
        text = (
            f"{observed.grantor} may not alter role {role.name}, since before PostgreSQL 16 only a superuser alters one"
            " with REPLICATION: as an administrator set right what status.drift lists"
        )
    return Problem(reason=R.MISSING_PRIVILEGE, object=role.name, message=text, of_role=True)


def settings(wanted: Wanted, role: RoleState | None, observed: Observed, problems: list[Problem]) -> Iterator[Step]:
    """What is set as the spec says, and what is not in the spec and an ordinary role may set is taken away."""
    found = role.settings if role is not None else {}
    for database in sorted(wanted.settings.keys() | found.keys(), key=lambda name: (name is not None, name or "")):
        where = f" in database {database}" if database is not None else ""
        if database is not None and database not in observed.databases:
            text = f"database {database} does not exist: create it, or correct the name in spec.databaseSettings"
            problems.append(Problem(reason=R.OBJECT_MISSING, object=database, message=text, of_role=True))
            continue
        asked = {name.lower(): (name, value) for name, value in wanted.settings.get(database, {}).items()}
        if database is None and wanted.acts_as is not None:
            asked[ACTS_AS] = (ACTS_AS, wanted.acts_as)
        stands = {name.lower(): (name, value) for name, value in found.get(database, {}).items()}
        for low in sorted(stands.keys() - asked.keys()):
            if wanted.prunes and observed.settings.get(low):
                name, value = stands[low]
                yield _set(wanted.role, database, name, None), f"setting {name}{where} is {value}, and not in the spec"
        for low, (name, value) in sorted(asked.items()):
            acts = low == ACTS_AS and database is None and wanted.acts_as is not None
            values, before = (value,) if acts else elements(name, value), stands.get(low)
            if before is not None and _stands(name, before[1], values):
                continue
            may = acts or observed.settings.get(low)
            if not may:
                problems.append(_setting_denied(wanted.role, name, observed))
            was = "not set" if before is None else before[1]
            action = _set(wanted.role, database, name, values) if may else None
            yield action, f"setting {name}{where} is {was}, not {value}"


def memberships(wanted: Wanted, role: RoleState | None, observed: Observed, problems: list[Problem]) -> Iterator[Step]:
    """Ours are made as the spec says or taken away; another's that is enough is enough."""
    asked = {one.role: one for one in wanted.member_of}
    ours: dict[str, Membership] = {}
    others: dict[str, list[Membership]] = {}
    for one in role.memberships if role is not None else ():
        if one.ours:
            ours[one.role] = one
        else:
            others.setdefault(one.role, []).append(one)
    for group in sorted(ours.keys() - asked.keys()) if wanted.prunes else ():
        verb = "end the membership in"
        yield (
            RevokeMembership(object=group, verb=verb, role=wanted.role, group=group),
            f"membership in {group} is beyond the spec",
        )
    if wanted.prunes_others:
        yield from _of_others(wanted.role, asked, others, observed, problems)
    for group, want in sorted(asked.items()):
        mine = ours.get(group)
        if mine is not None and _as_asked(mine, want):
            continue
        if mine is None and any(_enough(one, want) for one in others.get(group, ())):
            continue
        text = f"membership in {group} is missing" if mine is None else f"membership in {group} {_differs(mine, want)}"
        yield (_membership(wanted, want, mine, others.get(group, []), observed, problems), text)


def _of_others(
    role: str,
    asked: Mapping[str, MemberOf],
    others: dict[str, list[Membership]],
    observed: Observed,
    problems: list[Problem],
) -> Iterator[Step]:
    """What others granted beyond the spec, which is taken out of `others`: it is enough for nothing any more."""
    old = observed.version < OPTIONS_SINCE
    for group, found in sorted(others.items()):
        want = asked.get(group)
        for one in list(found):
            if one.automatic or (want is not None and _enough(want, one)):
                continue
            by = "" if old else f" GRANTED BY {identifier(one.grantor)}"
            only = want is not None and old  # one membership for all: what is asked for stays
            text = f"membership in {group}, granted by {one.grantor}, is beyond the spec"
            if not one.revocable:
                what = f"{'ADMIN OPTION FOR ' if only else ''}{identifier(group)}"
                sql = f"REVOKE {what} FROM {identifier(role)}{by}"
                message = f"{text}, and {observed.grantor} may not end it: as an administrator run {sql}"
                problems.append(Problem(reason=R.MISSING_PRIVILEGE, object=group, message=message))
                yield None, text
                continue
            verb, grantor = "end the membership in", None if old else one.grantor
            yield (
                RevokeMembership(object=group, verb=verb, role=role, group=group, admin_only=only, grantor=grantor),
                text,
            )
            if not only:
                found.remove(one)


def _membership(
    wanted: Wanted,
    want: MemberOf,
    mine: Membership | None,
    others: list[Membership],
    observed: Observed,
    problems: list[Problem],
) -> Action | None:
    """What brings a membership about, or None with the problem noted."""
    group, old = want.role, observed.version < OPTIONS_SINCE
    state = observed.groups.get(group)
    if state is None:
        text = f"role {group} does not exist: create it, or correct the name in spec.memberOf"
        problems.append(Problem(reason=R.OBJECT_MISSING, object=group, message=text, transient=True))
        return None
    if state.powerful and "SUPERUSER" not in wanted.attributes:
        text = (
            f"role {group} has the powers of a superuser, and so would its members: admit and ask for the attribute"
            " Superuser, or take the role out of spec.memberOf"
        )
        problems.append(Problem(reason=R.NOT_PERMITTED, object=group, message=text))
        return None
    if old and not (want.inherit and want.set_):
        text = (
            f"PostgreSQL {observed.version} knows no membership without INHERIT or SET: leave inherit and set out of"
            " spec.memberOf, or set spec.inherit"
        )
        problems.append(Problem(reason=R.NOT_SUPPORTED, object=group, message=text))
        return None
    # before 16 there is one membership for all: to add ADMIN to another's would make it ours
    if not state.grantable or (old and mine is None and others):
        who = identifier(observed.grantor) if not others or not old else identifier(wanted.role)
        sql = f"GRANT {identifier(group)} TO {who} WITH ADMIN OPTION"
        text = f"{observed.grantor} may not grant role {group} so: as an administrator run {sql}"
        problems.append(Problem(reason=R.MISSING_PRIVILEGE, object=group, message=text))
        return None
    if old and mine is not None and mine.admin and not want.admin:
        verb = "take the admin option away on"
        return RevokeMembership(object=group, verb=verb, role=wanted.role, group=group, admin_only=True)
    return GrantMembership(
        object=group,
        verb="grant membership in",
        role=wanted.role,
        group=group,
        admin=want.admin,
        inherit=None if old else want.inherit,
        set_=None if old else want.set_,
    )


def _as_asked(one: Membership, want: MemberOf) -> bool:
    return (one.admin, one.inherit, one.set_) == (want.admin, want.inherit, want.set_)


def _enough(one: Membership | MemberOf, want: MemberOf | Membership) -> bool:
    return one.admin >= want.admin and one.inherit >= want.inherit and one.set_ >= want.set_


def _differs(one: Membership, want: MemberOf) -> str:
    pairs = (("admin", one.admin, want.admin), ("inherit", one.inherit, want.inherit), ("set", one.set_, want.set_))
    return "has " + ", ".join(f"{name} {_word(is_)}, not {_word(to)}" for name, is_, to in pairs if is_ != to)


def _set(role: str, database: str | None, name: str, values: tuple[str, ...] | None) -> ChangeSetting:
    verb = f"{'reset' if values is None else 'set'} {name} of"
    return ChangeSetting(object=role, verb=verb, role=role, database=database, name=name, values=values)


def _stands(name: str, kept: str, values: tuple[str, ...]) -> bool:
    try:
        return elements(name, kept) == values
    except ValueError:
        return False


def _setting_denied(role: str, name: str, observed: Observed) -> Problem:
    who = observed.grantor
    if observed.version >= 15:
        sql = f"GRANT SET ON PARAMETER {'.'.join(identifier(part) for part in name.split('.'))} TO {identifier(who)}"
        text = f"setting {name} is more than an ordinary role may set, and {who} was not given it: as an administrator"
        text += f" run {sql} (to a {who} that is no superuser), or take it out of the spec"
    else:
        text = f"setting {name} is more than an ordinary role may set: take it out of the spec, and as an administrator"
        text += f" run ALTER ROLE {identifier(role)} SET {name} = {literal('…')}"
    return Problem(reason=R.SETTING_NOT_ALLOWED, object=name, message=text, of_role=True)


def _not_settable(role: str, observed: Observed, *, having: list[str], without: list[str]) -> Problem:
    """Attributes that our role may neither give nor take."""
    sql = f"ALTER ROLE {identifier(role)} {' '.join([*having, *(f'NO{word}' for word in without)])}"
    does = f"give {', '.join(having)} to" if having else f"take {', '.join(without)} from"
    text = f"{observed.grantor} may not {does} role {role}: as an administrator run {sql}"
    return Problem(reason=R.MISSING_PRIVILEGE, object=role, message=text, of_role=True)


def _word(value: bool) -> str:
    return "true" if value else "false"


def _limit(value: int) -> str:
    return "unlimited" if value < 0 else str(value)


def _until(value: int | None) -> str:
    return "never" if value is None else rfc3339(moment(value))
