"""From what was found and done to conditions, pure. Each function gives one whole status of one way things can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgtend.api.conditions import Reason, Status, Verdict
from pgtend.api.databaseuser import DriftStatus, EffectiveStatus, Exposed, PasswordSource, PasswordStatus, UserStatus
from pgtend.api.reasons import UserReason as R
from pgtend.api.types import Timestamp
from pgtend.core.clock import rfc3339
from pgtend.postgres.quoting import identifier
from pgtend.users.actions import MembershipAction, PrivilegeAction
from pgtend.users.admission import Admitted, Refusal
from pgtend.users.plan import Plan
from pgtend.users.reach import LOGS_IN, Proof, Unheard
from pgtend.users.state import Counts, Disabled, Problem
from pgtend.users.wanted import Wanted, microseconds, moment

BEHIND = ("Unique", "CredentialsReady", "PrivilegesInSync", "InSync", "RotationCurrent")
"""What is not looked at where the object is not accepted."""
SHOWN = 20
NOT_ASKED = Verdict("RotationCurrent", "Unknown", R.NOT_REQUESTED, "no rotation is asked for", negligible=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A status without its conditions, and the verdicts to make them of."""

    status: UserStatus
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordFacts:
    """What is known about the password. `set_at` is when the role was last given the Secret's, `pending` whether the
    Secret has another since; `compared` is None where the server does not let us compare. `proof` is what came of
    logging in with it, None where nobody has tried yet, `unheard` where that was due and nobody has answered; `told` is
    what the status says of that and still holds. `login` is whose it is, if not the role's own, `retiring` the login
    before it, `taken` are those still to be given back."""

    secret: str
    source: PasswordSource
    written: bool = False
    problem: Problem | None = None
    set_at: str | None = None
    compared: bool | None = None
    proof: Proof | None = None
    unheard: Unheard | None = None
    told: str | None = None
    exposure: tuple[Exposed, ...] = ()
    pending: bool = False
    login: str | None = None
    retiring: str | None = None
    taken: tuple[str, ...] = ()
    sessions: int | None = None
    next_at: datetime | None = None
    rotation: Verdict = NOT_ASKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One user after a pass. `plan` is what would still have to be done; `failed` what went wrong doing it; `observing`
    says whose mode keeps us from writing."""

    wanted: Wanted
    admitted: Admitted
    unique: Verdict
    plan: Plan
    password: PasswordFacts
    role_exists: bool
    failed: Problem | None = None
    observing: str | None = None
    grantor: str = "pgtend_users"
    effective: Counts | None = None


def judge(facts: Facts, *, previous: Mapping[str, Any], now: datetime) -> Judged:
    """The verdicts on a role that is this object's to tend."""
    accepted = Verdict("Accepted", "True", R.ACCEPTED, f"admitted by {facts.admitted.by}")
    credentials = _credentials(facts, now)
    privileges = _privileges(facts)
    in_sync = _in_sync(facts)
    ready = _ready(facts, credentials, privileges, in_sync)
    password = facts.password
    status = UserStatus(
        role_name=facts.wanted.role,
        secret_name=password.secret if password.written else previous.get("secretName"),
        password=PasswordStatus(
            source=password.source,
            changed_at=Timestamp(password.set_at) if password.set_at else None,
            exposure=password.exposure,
            active_login=password.login,
            retiring_login=password.retiring,
            withdrawn_logins=password.taken or None,
            next_rotation_at=Timestamp(rfc3339(password.next_at)) if password.next_at is not None else None,
        ),
        drift=_drift(facts.plan),
        effective=_effective(facts.effective),
        remaining_sessions=password.sessions,
    )
    return Judged(
        status=status, verdicts=(accepted, facts.unique, credentials, privileges, in_sync, password.rotation, ready)
    )


def not_unique(unique: Verdict, admitted: Admitted, *, role: str, previous: Mapping[str, Any]) -> Judged:
    """Another's role: nothing of it is looked at or touched."""
    text = "not compared; see Unique"
    verdicts = (
        Verdict("Accepted", "True", R.ACCEPTED, f"admitted by {admitted.by}"),
        unique,
        *(Verdict(name, "Unknown", R.NOT_UNIQUE, text, negligible=True) for name in BEHIND[1:]),
        Verdict("Ready", "False", unique.reason, "the role is not this object's; see Unique"),
    )
    return Judged(status=_carried(previous, role), verdicts=verdicts)


def refused(
    refusal: Refusal,
    *,
    role: str,
    previous: Mapping[str, Any],
    now: datetime,
    withdrawn: str | None = None,
    disabled: Disabled | None = None,
    ends: datetime | None = None,
) -> Judged:
    """Not admitted: the role is left as it is (`ends` is until when its login is), or (`disabled`) has lost its login,
    or is to lose it."""
    since = _since(previous, "Accepted", "False", str(refusal.reason), now)
    verdicts = (
        Verdict(
            "Accepted", "False", refusal.reason, f"{refusal.what}, since {since}: {refusal.next_step}", refusal.about
        ),
        *(Verdict(n, "Unknown", R.NOT_ACCEPTED, f"not compared since {since}", negligible=True) for n in BEHIND),
        _not_tended(refusal, since, disabled, ends),
    )
    status = _carried(previous, role)
    if status.password is not None and disabled is not None and disabled.now:
        logins = tuple(sorted({*(status.password.withdrawn_logins or ()), *disabled.now}))
        password = status.password.model_copy(update={"withdrawn_logins": logins})
        status = status.model_copy(update={"password": password})
    status = status.model_copy(
        update={
            "withdrawn_at": Timestamp(withdrawn) if withdrawn else None,
            "remaining_sessions": disabled.sessions if disabled is not None and disabled.off else None,
        }
    )
    return Judged(status=status, verdicts=verdicts)


def _not_tended(refusal: Refusal, since: str, disabled: Disabled | None, ends: datetime | None) -> Verdict:
    start = f"not tended since {since}"
    if disabled is not None and disabled.problem is not None:
        text = f"{start}, and the login is to be disabled: {disabled.problem.message}"
        return Verdict("Ready", "False", disabled.problem.reason, text, disabled.problem.object)
    if disabled is not None and disabled.off:
        text = f"{start}, and the login is disabled (onWithdrawal of the target); see Accepted"
        return Verdict("Ready", "False", R.LOGIN_DISABLED, text)
    then = f"; its login is disabled at {rfc3339(ends)} (onWithdrawal of the target)" if ends is not None else ""
    return Verdict("Ready", "False", refusal.reason, f"{start}, the role is as it was{then}; see Accepted")


def invalid(problem: str, *, previous: Mapping[str, Any]) -> Judged:
    """A spec that does not parse."""
    verdicts = (
        Verdict("Accepted", "False", R.INVALID_SPEC, problem),
        *(Verdict(n, "Unknown", R.NOT_ACCEPTED, "not compared; see Accepted", negligible=True) for n in BEHIND),
        Verdict("Ready", "False", R.INVALID_SPEC, "the spec does not parse; see Accepted"),
    )
    return Judged(status=_carried(previous, None), verdicts=verdicts)


def suspended(*, role: str, previous: Mapping[str, Any]) -> Judged:
    text = "spec.suspend is true: not compared"
    verdicts = (
        Verdict("Accepted", "Unknown", R.SUSPENDED, text, negligible=True),
        *(Verdict(name, "Unknown", R.SUSPENDED, text, negligible=True) for name in BEHIND),
        Verdict("Ready", "True", R.SUSPENDED, "spec.suspend is true: the role is left as it is"),
    )
    return Judged(status=_carried(previous, role), verdicts=verdicts)


def unreachable(problem: Problem, admitted: Admitted, *, target: str, role: str, previous: Mapping[str, Any]) -> Judged:
    """The target cannot be used; Ready carries the target's own reason."""
    text = f"not compared while target {target} cannot be used; see Ready"
    verdicts = (
        Verdict("Accepted", "True", R.ACCEPTED, f"admitted by {admitted.by}"),
        *(Verdict(name, "Unknown", R.NOT_REACHED, text, negligible=True) for name in BEHIND),
        Verdict("Ready", "False", problem.reason, f"target {target}: {problem.message}", target),
    )
    return Judged(status=_carried(previous, role), verdicts=verdicts)


def undropped(problem: Problem, *, role: str, previous: Mapping[str, Any]) -> Judged:
    """A deletion that waits; the other conditions stay as they were."""
    verdicts = []
    for condition in previous.get("conditions") or ():
        if condition["type"] != "Ready" and condition["reason"] in R._value2member_map_:
            state, reason = condition["status"], R(condition["reason"])
            text = condition.get("message", "")
            verdicts.append(Verdict(condition["type"], state, reason, text, negligible=True))
    text = problem.message
    if problem.reason in (R.DROP_BLOCKED, R.SESSIONS_REMAIN):
        text += ". After ten minutes this object is let go, and the ConfigMap pgtend-ledger lists what remains"
    verdicts.append(Verdict("Ready", "False", problem.reason, text, problem.object))
    status = _carried(previous, role).model_copy(update={"remaining_sessions": problem.sessions})
    return Judged(status=status, verdicts=tuple(verdicts))


def _credentials(facts: Facts, now: datetime) -> Verdict:
    name, password = "CredentialsReady", facts.password
    if password.problem is not None:
        return Verdict(name, "False", password.problem.reason, password.problem.message, password.problem.object)
    if facts.observing is not None and password.compared is not False:
        text = f"nothing is written while {facts.observing} is in mode Observe"
        return Verdict(name, "Unknown", R.OBSERVING, text, negligible=True)
    if not facts.role_exists or password.set_at is None:
        reason: Reason = facts.failed.reason if facts.failed is not None else R.NOT_CREATED
        text = f"role {facts.wanted.role} has no password of ours yet; see Ready"
        return Verdict(name, "False" if facts.failed is not None else "Unknown", reason, text, facts.wanted.role)
    if password.pending:
        text = f"Secret {password.secret} holds a password that role {password.login} was not given yet; see Ready"
        return Verdict(name, "False", R.PASSWORD_DIFFERS, text, password.login)
    if password.compared is False:
        held = f"another password than Secret {password.secret}" if password.source != "None" else "a password"
        login = password.login or facts.wanted.role
        return Verdict(name, "False", R.PASSWORD_DIFFERS, f"role {login} has {held}; see Ready", login)
    until = facts.wanted.valid_until
    if password.source != "None" and until is not None and until <= microseconds(now):
        text = (
            f"spec.validUntil {rfc3339(moment(until))} has passed: the server refuses the password. Set a later one,"
            " or remove it"
        )
        return Verdict(name, "False", R.PASSWORD_EXPIRED, text, facts.wanted.role)
    return _lets_in(facts)


def _lets_in(facts: Facts) -> Verdict:
    """Whether what the Secret says lets in, as far as somebody has tried; else that it holds what was set. What was
    told stands until something else is seen: that one was tried later is no news."""
    name, password = "CredentialsReady", facts.password
    proof = password.proof if facts.wanted.login else None
    login = password.login or facts.wanted.role
    refusal = proof and (proof.closed or proof.unclear)
    if proof is not None and refusal:
        text = f"Secret {password.secret} {proof.text} as {login}: {refusal.message}"
        state: Status = "False" if refusal.closed else "Unknown"
        return Verdict(name, state, R.LOGIN_REFUSED, text, refusal.place)
    if password.unheard is not None and facts.wanted.login and password.compared is None:
        return Verdict(
            name, "Unknown", R.NOT_PROVED, _unheard(login, password, password.unheard), login, negligible=True
        )
    if password.told is not None and (proof is None or (proof.full and LOGS_IN not in password.told)):
        return Verdict(name, "True", R.AS_EXPECTED, password.told)
    if proof is not None:
        return Verdict(name, "True", R.AS_EXPECTED, f"Secret {password.secret} {proof.text}")
    unseen = f"not compared, since {facts.grantor} may not read pg_authid"
    if password.source == "None" and not password.compared:
        text = (
            f"role {login} is without a password since {password.set_at}; whether somebody gave it one is not known"
            f" ({unseen}): in the maintenance database, GRANT SELECT ON pg_authid TO {identifier(facts.grantor)};"
        )
        return Verdict(name, "Unknown", R.MISSING_PRIVILEGE, text, login, negligible=True)
    if password.source == "None":
        text = f"Secret {password.secret} is without a password, and so is the role since {password.set_at}"
        return Verdict(name, "True", R.AS_EXPECTED, text)
    how = "compared with the server's" if password.compared else unseen
    off = "" if facts.wanted.login else "; login is off"
    text = f"Secret {password.secret} holds the password set at {password.set_at} ({how}){off}"
    return Verdict(name, "True", R.AS_EXPECTED, text)


def _unheard(login: str, password: PasswordFacts, unheard: Unheard) -> str:
    heard = unheard.heard
    last = f"proved at {rfc3339(heard)} the last time" if heard is not None else "not proved since the operator began"
    return (
        f"whether {login} has the password of Secret {password.secret} is not known, {last}; no"
        f" login is answered since {rfc3339(unheard.since)}: {unheard.why}"
    )


def _privileges(facts: Facts) -> Verdict:
    name = "PrivilegesInSync"
    if not facts.role_exists and facts.observing is None:
        text = f"role {facts.wanted.role} does not exist yet; see Ready"
        return Verdict(name, "Unknown", R.NOT_CREATED, text, facts.wanted.role, negligible=True)
    problem = next((p for p in facts.plan.problems if not p.of_role), None) or facts.failed
    if problem is not None:
        more = sum(not p.of_role for p in facts.plan.problems) - 1
        text = problem.message + (f"; and {more} more" if more > 0 else "")
        return Verdict(name, "False", problem.reason, text, problem.object)
    left = [action for action in facts.plan.actions if isinstance(action, PrivilegeAction | MembershipAction)]
    if left:
        reason = R.DRIFTED if facts.observing is not None else R.DIVERGED
        return Verdict(name, "False", reason, _first(facts.plan.differences), left[0].object)
    count, databases = facts.plan.privileges, facts.plan.databases
    extra = f", {number(facts.plan.memberships, 'membership')}" if facts.plan.memberships else ""
    text = f"{number(count, 'privilege')} in {number(databases, 'database')}{extra}"
    return Verdict(name, "True", R.AS_EXPECTED, text)


def _in_sync(facts: Facts) -> Verdict:
    if not facts.plan.differences:
        text = "no difference" + ("; of the password see CredentialsReady" if facts.password.unheard else "")
        return Verdict("InSync", "True", R.AS_EXPECTED, text)
    told = facts.failed is not None or facts.plan.problems or facts.password.problem is not None
    reason = R.DRIFTED if facts.observing is not None or told else R.DIVERGED
    return Verdict("InSync", "False", reason, _first(facts.plan.differences))


def _ready(facts: Facts, credentials: Verdict, privileges: Verdict, in_sync: Verdict) -> Verdict:
    if facts.observing is not None:
        count = len(facts.plan.differences)
        text = f"{number(count, 'difference')}; nothing is written while {facts.observing} is in mode Observe"
        return Verdict("Ready", "True", R.OBSERVING, text)
    for problem, where in (
        (facts.password.problem, "CredentialsReady"),
        (facts.failed, None),
        *((p, None if p.of_role else "PrivilegesInSync") for p in facts.plan.problems),
    ):
        if problem is not None:
            text = problem.message if where is None else f"not in force; see {where}"
            return Verdict("Ready", "False", problem.reason, text, problem.object)
    if in_sync.status != "True":
        return Verdict("Ready", "False", in_sync.reason, in_sync.message)
    if facts.password.compared:
        return Verdict("Ready", "True", R.IN_FORCE, "role, password and grants equal the spec")
    given = "given the password" if facts.password.source != "None" else "left without a password"
    text = f"role and grants equal the spec, and the role was {given} at {facts.password.set_at}"
    return Verdict("Ready", "True", R.IN_FORCE, text)


def _drift(plan: Plan) -> DriftStatus:
    shown = tuple(text if len(text) <= 256 else text[:255] + "…" for text in plan.differences[:SHOWN])
    return DriftStatus(total=len(plan.differences), differences=shown)


def _effective(counts: Counts | None) -> EffectiveStatus | None:
    if counts is None:
        return None
    return EffectiveStatus(direct=counts.direct, via_roles=counts.via_roles, via_public=counts.via_public)


def _first(differences: Sequence[str]) -> str:
    shown = "; ".join(differences[:3])
    more = len(differences) - 3
    return f"{number(len(differences), 'difference')}: {shown}" + (f"; and {more} more" if more > 0 else "")


def number(count: int, what: str) -> str:
    """Of one there is one only."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def _carried(previous: Mapping[str, Any], role: str | None) -> UserStatus:
    """What stays on record while nobody looks: which Secret, and which password the role was given."""
    kept = {name: previous[name] for name in ("secretName", "password", "roleName") if name in previous}
    status = UserStatus.model_validate(kept)
    return status if role is None else status.model_copy(update={"role_name": role})


def _since(previous: Mapping[str, Any], type_: str, status: Status, reason: str, now: datetime) -> str:
    """The moment at which the condition came to be so."""
    for condition in previous.get("conditions") or ():
        if condition["type"] == type_ and condition["status"] == status and condition["reason"] == reason:
            return str(condition["lastTransitionTime"])
    return rfc3339(now)
