"""When a password is due, and who logs in with the next one. Pure.

In place the role itself gets the new password: who has read the Secret before is refused until he reads it again. With
two logins nobody is: the role keeps the privileges and logs in no more, `<role>_a` and `<role>_b` take turns. The next
one is given a password and proves it; the Secret changes over; the one before lives on for the grace. All that is
remembered of this stands in the Secret: who logs in, and since when. The rest follows from it and from the clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pgtend.api.conditions import Verdict
from pgtend.api.databaseuser import PasswordSource, UserSpec
from pgtend.api.reasons import UserReason as R
from pgtend.core.clock import parse_rfc3339, rfc3339
from pgtend.core.redaction import Sensitive
from pgtend.gate.walltime import ScheduleError, load_zone
from pgtend.gate.windows import check_schedule, occurrences
from pgtend.postgres.quoting import identifier
from pgtend.users.state import Problem, RoleState
from pgtend.users.wanted import derived


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The login that is to be next, and its password; `applied` where the server has it already."""

    login: str
    password: Sensitive
    applied: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What holds: `password` (none with source None), who logs in with it, and when it was decided upon, or the
    `problem`. `written` is whether the Secret has it; `candidate` is what is to follow it, `waits` since when that has
    to wait for the login that it needs; `stuck` is whether another was due and not made, since the role could not be
    given it; `rotated` is whether the password was made anew in this pass."""

    name: str
    source: PasswordSource
    login: str
    candidate: Candidate | None = None
    waits: datetime | None = None
    stuck: bool = False
    rotated: bool = False
    password: Sensitive | None = None
    changed_at: str | None = None
    problem: Problem | None = None
    written: bool = False

    @property
    def ready(self) -> bool:
        """Whether the role can be given what holds."""
        return self.problem is None and (self.password is not None or self.source == "None")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Who is who in a pass: the Secret's login is `active`; `others` are this object's other roles that may exist;
    `retiring` is the one that the status says was before, `taken` are those that withdrawn consent has switched off.
    `over` is whether the grace of those before is, `ends_sessions` whether what remains then is ended."""

    active: str
    candidate: Candidate | None = None
    others: tuple[str, ...] = ()
    retiring: str | None = None
    taken: frozenset[str] = frozenset()
    over: bool = True
    ends_sessions: bool = False

    @property
    def next(self) -> str | None:
        return self.candidate.login if self.candidate is not None else None


def logins(role: str, spec: UserSpec) -> tuple[str, ...]:
    """Who logs in: the role itself, or two in turn."""
    return derived(role) if spec.two_logins else (role,)


def others(role: str, spec: UserSpec, status: Mapping[str, Any]) -> tuple[str, ...]:
    """Roles of this object beside `role`: those of the spec, or of an earlier one for as long as they play a part."""
    password = status.get("password") or {}
    named = {password.get("activeLogin"), password.get("retiringLogin"), *taken(status)} & {*derived(role)}
    return derived(role) if spec.two_logins or named else ()


def taken(status: Mapping[str, Any]) -> frozenset[str]:
    """Logins that withdrawn consent has switched off, and that nobody has given back yet."""
    return frozenset((status.get("password") or {}).get("withdrawnLogins") or ())


def next_login(role: str, spec: UserSpec, active: str) -> str | None:
    """Who is to log in after `active`; None where the same role gets another password."""
    return next((login for login in logins(role, spec) if login != active), None)


def due_at(role: str, spec: UserSpec, *, active: str, changed_at: str) -> datetime | None:
    """When a password that was decided upon at `changed_at` is to be followed by another; None for never."""
    since = parse_rfc3339(changed_at)
    if active not in logins(role, spec):
        return since  # of another strategy: at once
    found: list[datetime] = []
    if spec.rotate_if_older_than is not None:
        limit = parse_rfc3339(spec.rotate_if_older_than)
        found += [limit] if since < limit else []
    if spec.rotation is not None and spec.rotation.interval is not None:
        found.append(since + spec.rotation.interval.timedelta)
    if spec.rotation is not None and spec.rotation.schedule is not None:
        try:
            zone = load_zone(spec.rotation.time_zone)
            found += occurrences(spec.rotation.schedule, zone=zone, after=since, limit=1)
        except ScheduleError:
            return None
    return min(found, default=None)


def grace_ends(spec: UserSpec, changed_at: str) -> datetime:
    """Until when the login before may still be used."""
    return parse_rfc3339(changed_at) + spec.grace.timedelta


def schedule_problem(spec: UserSpec, now: datetime) -> str | None:
    """What is wrong with a schedule that the API server could not see."""
    if spec.rotation is None or spec.rotation.schedule is None:
        return None
    try:
        check_schedule(spec.rotation.schedule, spec.rotation.time_zone, now=now)
    except ScheduleError as error:
        return f"spec.rotation: {error}"
    return None


def judge_rotation(
    *,
    spec: UserSpec,
    role: str,
    kept: Kept,
    problem: Problem | None,
    observing: str | None,
    held: str | None = None,
    retiring: str | None,
    owners: Sequence[RoleState],
    now: datetime,
) -> Verdict:
    """The condition RotationCurrent."""
    name = "RotationCurrent"
    asked = spec.rotation is not None or spec.rotate_if_older_than is not None or kept.login not in logins(role, spec)
    if not asked or spec.source != "Generate":
        return Verdict(name, "Unknown", R.NOT_REQUESTED, "no rotation is asked for", negligible=True)
    if kept.changed_at is None:
        return Verdict(
            name, "Unknown", R.NOT_CREATED, "there is no password yet; see CredentialsReady", negligible=True
        )
    if not spec.login:
        return Verdict(name, "Unknown", R.NOT_REQUESTED, "not rotated while spec.login is false", negligible=True)
    due = due_at(role, spec, active=kept.login, changed_at=kept.changed_at)
    late = due is not None and due <= now
    if problem is not None:
        return Verdict(name, "False", problem.reason, problem.message, problem.object)
    if late and due is not None:
        why = "not done yet; see Ready"
        if kept.waits is not None:
            login = next_login(role, spec, kept.login)
            why = f"it waits until {rfc3339(kept.waits)}, when the grace of login {login} ends"
        elif observing is not None:
            why = f"nothing is written while {observing} is in mode Observe"
        elif held is not None:
            why = f"nothing is written now: {held}"
        return Verdict(name, "False", R.ROTATION_DUE, f"due since {rfc3339(due)}: {why}", role)
    if owners:
        first = owners[0]
        text = (
            f"login {first.name} owns {first.owns} objects, which no other login may alter: as an administrator run"
            f" REASSIGN OWNED BY {identifier(first.name)} TO {identifier(role)} in each database that has some"
        )
        return Verdict(name, "False", R.LOGIN_OWNS_OBJECTS, text, first.name)
    text = f"due {rfc3339(due)}" if due is not None else f"the password is of {kept.changed_at}, and no other is due"
    if retiring is not None:
        text += f"; login {retiring} may be used until {rfc3339(grace_ends(spec, kept.changed_at))}"
    return Verdict(name, "True", R.AS_EXPECTED, text)


def seconds_to(
    spec: UserSpec, role: str, kept: Kept, retiring: Sequence[tuple[bool, int]], now: datetime
) -> float | None:
    """Until the next thing to do of a rotation. `retiring` is of each login before whether it may log in, and how many
    sessions it has."""
    if kept.changed_at is None:
        return None
    found: list[datetime] = []
    due = due_at(role, spec, active=kept.login, changed_at=kept.changed_at)
    if due is not None and spec.login and spec.source == "Generate":
        found.append(kept.waits or due)
    ends = grace_ends(spec, kept.changed_at)
    terminates = spec.rotation is not None and spec.rotation.sessions == "Terminate"
    if any(login or (sessions and terminates) for login, sessions in retiring):
        found.append(max(ends, now + timedelta(seconds=1)))
    return max(0.0, (min(found) - now).total_seconds()) if found else None
