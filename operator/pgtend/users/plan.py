"""What to change so that a role is as its spec says. Pure: a dry run, a test and the real run compute the very same.

A role is only ever planned for where it carries this object's mark, does not exist, or may be adopted (claim.py decides
that first).
What others granted, and what we may not set, is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pgtend.core.actions import Action
from pgtend.core.names import read_mark, with_mark
from pgtend.users.actions import AlterRole, CreateRole, MarkRole, SetPassword
from pgtend.users.plan_privileges import asked, privileges
from pgtend.users.plan_role import Step, attributes, creation, memberships, settings, unalterable
from pgtend.users.state import SERVER, Observed, Problem
from pgtend.users.wanted import Wanted

DIFFERS = "the password is not the one in the Secret"
NOT_ABSENT = "the role may have a password, and is to have none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What is known of the password: `ready` where there is one to set, `applied` where the role was given it before,
    `matches` what a comparison said (None: it could not be compared). `absent` where the role is to have none."""

    ready: bool = True
    absent: bool = False
    applied: bool = True
    matches: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`differences` tells each for people; `privileges` in `databases` is how many the spec asks for."""

    actions: tuple[Action, ...] = ()
    differences: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    privileges: int = 0
    databases: int = 0
    memberships: int = 0
    retires: frozenset[str] = frozenset()

    @property
    def given(self) -> frozenset[str]:
        """The roles whose password is set, or taken away."""
        return frozenset(a.role for a in self.actions if isinstance(a, CreateRole | SetPassword))

    @property
    def sets_password(self) -> bool:
        return bool(self.given)

    @property
    def disables(self) -> bool:
        """Whether it takes a login away, but for one whose grace after a rotation is over."""
        off = (a.role for a in self.actions if isinstance(a, AlterRole) and a.options.login is False)
        return any(role not in self.retires for role in off)


def plan(*, wanted: Wanted, observed: Observed, credential: Credential) -> Plan:
    """The difference between what is wanted and what was observed, and how to end it."""
    role = observed.roles.get(wanted.role)
    actions: list[Action] = []
    differences: list[str] = []
    problems: list[Problem] = []
    if role is None:
        differences.append(f"role {wanted.role} does not exist")
        if credential.ready:
            actions.append(creation(wanted, observed, problems))
    else:
        if wanted.mark and read_mark(role.comment) != read_mark(wanted.mark):
            differences.append(f"role {wanted.role} does not carry this object's mark")
            comment = with_mark(role.comment, wanted.mark)
            actions.append(
                MarkRole(object=wanted.role, verb="adopt role", role=wanted.role, comment=comment, before=role.comment)
            )
        _take(attributes(wanted, role, observed, problems), actions, differences)
        known = credential.applied if credential.matches is None else credential.matches
        if credential.ready and not known:
            actions.append(SetPassword(object=wanted.role, verb="set the password of", role=wanted.role))
            differences.append(NOT_ABSENT if credential.absent else DIFFERS)
    _take(settings(wanted, role, observed, problems), actions, differences)
    if role is not None and not role.alterable:
        if differences and not problems:
            problems.append(unalterable(role, observed))
        actions.clear()
    _take(memberships(wanted, role, observed, problems), actions, differences)
    wishes = asked(wanted, observed, problems)
    _take(privileges(wanted, observed, wishes, problems), actions, differences)
    if role is None and not credential.ready:
        actions.clear()
    return Plan(
        actions=tuple(actions),
        differences=tuple(differences),
        problems=tuple(problems),
        privileges=wishes.count,
        databases=len(wanted.databases),
        memberships=len(wanted.member_of),
    )


def weight(wanted: Wanted, observed: Observed) -> int:
    """How often a name is held against a pattern, about: what the plan of a user may cost, which its author decides."""
    sizes = {name: len(view.by_key) for name, view in observed.databases.items()}
    return sum(sizes.get(grant.database or SERVER, 0) * len(grant.names or ("*",)) for grant in wanted.grants)


def _take(steps: Iterable[Step], actions: list[Action], differences: list[str]) -> None:
    """One action may end several differences."""
    for action, text in steps:
        differences.append(text)
        if action is not None and (not actions or action is not actions[-1]):
            actions.append(action)
