"""The plan of a user with all its roles: the one that has the privileges, and those that log in for it. Pure.

A login is a member of the role and acts as it from its first statement (the setting `role`), so that what it makes
belongs to the role and not to a login that retires. The role's own attributes, limits and settings are carried along,
since a session has those of whoever logged in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pgtend.api.databaseuser import MemberOf
from pgtend.core.actions import Action
from pgtend.users.actions import EndSessions
from pgtend.users.plan import Credential, Plan, plan
from pgtend.users.rotation import Turn
from pgtend.users.state import GroupState, Observed, RoleState
from pgtend.users.wanted import Wanted


def plan_user(*, wanted: Wanted, observed: Observed, credential: Credential, turn: Turn) -> Plan:
    """The difference between what is wanted and what was observed, and how to end it. What is on its way (the next
    login, the end of the one before) is done like the rest, but is no difference."""
    if turn.active == wanted.role and not turn.others:
        return plan(wanted=wanted, observed=observed, credential=credential)
    parts = list(_parts(wanted, _with_group(observed, wanted.role), credential, turn))
    first = parts[0][1]
    differences = [text for name, one in parts for text in _told(name, one, wanted.role, turn)]
    actions: list[Action] = [action for _, one in parts for action in one.actions]
    return replace(
        first,
        actions=(*actions, *_ended(wanted, observed, turn)),
        differences=tuple(differences),
        problems=tuple(problem for _, one in parts for problem in one.problems),
        retires=frozenset({turn.retiring} if turn.retiring is not None and turn.over else ()),
    )


def login_of(wanted: Wanted, name: str, *, login: bool) -> Wanted:
    """What a role that logs in for another should be."""
    return replace(
        wanted,
        role=name,
        login=login,
        inherit=True,
        acts_as=wanted.role,
        member_of=(MemberOf(role=wanted.role),),
        grants=(),
        default_privileges=(),
    )


def retiring(wanted: Wanted, observed: Observed, turn: Turn) -> tuple[RoleState, ...]:
    """Who has logged in before and may still, or has sessions from then."""
    names = (wanted.role, *turn.others) if turn.others else ()
    found = (observed.roles.get(name) for name in names if name not in (turn.active, turn.next))
    return tuple(role for role in found if role is not None and (role.login or role.sessions))


def _parts(wanted: Wanted, observed: Observed, credential: Credential, turn: Turn) -> Iterator[tuple[str, Plan]]:
    for name in (wanted.role, *turn.others):
        role = observed.roles.get(name)
        serves = name in (turn.active, turn.next)
        if role is None and not serves and name != wanted.role:
            continue
        # what was switched off by hand stays off; what withdrawn consent has taken is given back
        lives_on = role is not None and not turn.over and (role.login or name in turn.taken)
        login = wanted.login and (serves or lives_on)
        want = replace(wanted, login=login) if name == wanted.role else login_of(wanted, name, login=login)
        if name == turn.active:
            known = credential
        elif turn.candidate is not None and name == turn.next:
            known = Credential(applied=turn.candidate.applied)
        elif login:
            known = Credential()
        else:
            known = _without_password(role, observed, taken=name in turn.taken)
        yield name, plan(wanted=want, observed=observed, credential=known)


def _without_password(role: RoleState | None, observed: Observed, *, taken: bool) -> Credential:
    """With a login its password ends too: where a password cannot be seen, in the statement that ends the login. Of one
    that was `taken` no more than the login was."""
    matches = role.verifier is None if role is not None and observed.sees_verifiers else None
    return Credential(absent=True, applied=role is None or not (role.login or taken), matches=matches)


def _told(name: str, one: Plan, role: str, turn: Turn) -> Iterator[str]:
    if name == turn.next or (turn.over and (name == turn.retiring or (name in turn.taken and name != turn.active))):
        return
    for text in one.differences:
        yield text if name == role or text.startswith(f"role {name} ") else f"{name}: {text}"


def _ended(wanted: Wanted, observed: Observed, turn: Turn) -> Iterator[Action]:
    """Sessions that outlived their login's grace, once nobody can begin another."""
    if not (turn.over and turn.ends_sessions):
        return
    for role in retiring(wanted, observed, turn):
        if not role.login:
            options = observed.version >= 16
            yield EndSessions(
                object=role.name, verb="end the sessions of", role=role.name, borrowed=True, options=options
            )


def _with_group(observed: Observed, role: str) -> Observed:
    """Who creates a role may grant it in the same transaction; and who logs in for it is to be no less than it is,
    whatever it was admitted to."""
    known = observed.groups.get(role) if role in observed.roles else GroupState(name=role)
    if known is None:
        return observed
    return replace(observed, groups={**observed.groups, role: replace(known, powerful=False)})
