"""Whose role it is. Pure: by the mark that the role carries; where there is no role yet, by age.

Nothing without this object's mark is ever changed, unless it may be adopted: a role without a mark by consent of both
object and target, one with another's mark only where that object is no more or of another installation, and none that
has more than the spec may ask for. The loser of a conflict never drops anything.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from pgtend.api.conditions import Verdict
from pgtend.api.reasons import UserReason as R
from pgtend.core.findings import ObjectKey
from pgtend.core.names import read_mark, with_mark
from pgtend.postgres.quoting import identifier, literal
from pgtend.users.admission import ADOPTIONS, Adoption
from pgtend.users.plan_role import unalterable
from pgtend.users.state import Observed, RoleState
from pgtend.users.wanted import Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimant:
    """A DatabaseUser that is admitted to a role. Age is decided by creation, then by name. `asks` is the spec's
    adoption, `admitted` the target's."""

    key: ObjectKey
    created: datetime
    asks: Adoption = "Never"
    admitted: Adoption = "Never"

    @property
    def age(self) -> tuple[datetime, ObjectKey]:
        return self.created, self.key

    @property
    def adoption(self) -> Adoption:
        """The stricter wins."""
        return min(self.asks, self.admitted, key=ADOPTIONS.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The condition Unique, whose True is what allows everything else; `adopts` where the role is yet to be marked."""

    verdict: Verdict
    adopts: bool = False


def judge_claim(
    *,
    wanted: Wanted,
    observed: Observed,
    me: Claimant,
    rivals: Collection[Claimant],
    installation: str,
    lives: Callable[[str], bool] = lambda name: True,
    tended: bool = False,
) -> Claim:
    """`lives` tells of `namespace/name` whether such an object of this installation still asks for the role, admitted
    or not; `tended` whether the role has been this object's before."""
    role = observed.roles.get(wanted.role)
    if role is None:
        older = _oldest(rival for rival in rivals if rival.age < me.age)
        return Claim(verdict=_conflict(wanted, older, "is older") if older is not None else mine(wanted))
    mark = read_mark(role.comment)
    if mark == (installation, str(me.key)):
        return Claim(verdict=mine(wanted))
    holder = next((rival for rival in rivals if mark == (installation, str(rival.key))), None)
    if holder is not None:
        return Claim(verdict=_conflict(wanted, holder, "has its mark on the role"))
    if mark is None:
        return _unmarked(wanted, role, observed, me, rivals)
    ours = mark[0] == installation
    if ours and lives(mark[1]):
        text = f"belongs to DatabaseUser {mark[1]}, which exists, though it does not tend it now"
        return _left(wanted, role, f"{text}: it is not touched. Delete that one first", R.ROLE_EXISTS)
    what = "which does not ask for it any more" if ours else f"of the installation {mark[0]}"
    if not ours and tended:
        text = f"was this object's, and now belongs to DatabaseUser {mark[1]} {what}: it is not touched. Delete one of"
        return _left(wanted, role, f"{text} the two objects", R.TAKEN_OVER)
    what = f"belongs to DatabaseUser {mark[1]}{',' if ours else ''} {what}"
    if me.adoption != "Always":
        return _left(wanted, role, f"{what}: it is not touched. {_how(me, 'Always')}", R.ROLE_EXISTS)
    return _adopted(wanted, role, observed, me, rivals, what)


def mine(wanted: Wanted) -> Verdict:
    return Verdict("Unique", "True", R.AS_EXPECTED, f"{wanted.role} is tended by this object alone")


def is_marked(role: RoleState | None, *, key: ObjectKey, installation: str) -> bool:
    """Whether the role carries this object's mark: without it nothing is altered or dropped."""
    return role is not None and read_mark(role.comment) == (installation, str(key))


def _unmarked(wanted: Wanted, role: RoleState, observed: Observed, me: Claimant, rivals: Collection[Claimant]) -> Claim:
    what = "exists and was not made by pgtend"
    if me.adoption == "Never":
        return _left(wanted, role, f"{what}: it is not touched. {_how(me, 'IfUnowned')}", R.ROLE_EXISTS)
    return _adopted(wanted, role, observed, me, rivals, what)


def _adopted(
    wanted: Wanted, role: RoleState, observed: Observed, me: Claimant, rivals: Collection[Claimant], what: str
) -> Claim:
    """Of several that may adopt, the oldest does; and nobody adopts what he could not have asked for."""
    least = ADOPTIONS.index("Always" if read_mark(role.comment) else "IfUnowned")
    able = (rival for rival in rivals if rival.age < me.age and ADOPTIONS.index(rival.adoption) >= least)
    older = _oldest(able)
    if older is not None:
        return Claim(verdict=_conflict(wanted, older, "is older"))
    name = identifier(role.name)
    if role.powerful:
        text = "it has the powers of a superuser, and is never adopted. Make another DatabaseUser with another roleName"
        return Claim(
            verdict=Verdict("Unique", "False", R.ROLE_NOT_ALLOWED, f"role {role.name} {what}: {text}", role.name)
        )
    if not role.alterable:
        problem = unalterable(role, observed)
        return Claim(verdict=Verdict("Unique", "False", problem.reason, problem.message, problem.object))
    beyond = sorted(role.elevated - wanted.attributes - observed.settable)
    if beyond:
        words = " ".join(f"NO{word}" for word in beyond)
        text = (
            f"role {role.name} {what}: it has {', '.join(beyond)}, which the spec does not list and {observed.grantor}"
            f" may not take away, so it is not adopted. As an administrator run ALTER ROLE {name} {words}"
        )
        return Claim(verdict=Verdict("Unique", "False", R.MISSING_PRIVILEGE, text, role.name))
    text = f"role {role.name} {what}: adoption: {me.adoption} makes it this object's"
    return Claim(verdict=Verdict("Unique", "True", R.AS_EXPECTED, text), adopts=True)


def _how(me: Claimant, least: Adoption) -> str:
    """What would let it be adopted."""
    if ADOPTIONS.index(me.asks) >= ADOPTIONS.index(least):
        return f"The target's access admits adoption: {me.admitted} (ask its owner for users.adoption: {least})"
    return f"Make another DatabaseUser with another roleName, or set adoption: {least}"


def _left(wanted: Wanted, role: RoleState, what: str, reason: R) -> Claim:
    comment = literal(with_mark(role.comment, wanted.mark))
    text = (
        f"role {wanted.role} {what}; or, if it is this object's, as an administrator run"
        f" COMMENT ON ROLE {identifier(wanted.role)} IS {comment}"
    )
    return Claim(verdict=Verdict("Unique", "False", reason, text, wanted.role))


def _oldest(claimants: Iterable[Claimant]) -> Claimant | None:
    return min(claimants, key=lambda one: one.age, default=None)


def _conflict(wanted: Wanted, other: Claimant, why: str) -> Verdict:
    text = f"role {wanted.role} is tended by DatabaseUser {other.key}, which {why}: delete one of the two"
    return Verdict("Unique", "False", R.CONFLICT, text, str(other.key))
