"""One user in a pass: what it is, and what was found, done and decided about it on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pgtend.api.conditions import Verdict
from pgtend.api.databaseuser import UserSpec
from pgtend.api.reasons import UserReason as R
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.kube.client import ApiError
from pgtend.kube.index import Record
from pgtend.users.admission import Admitted
from pgtend.users.claim import Claimant
from pgtend.users.judge import Judged
from pgtend.users.look import ask_for
from pgtend.users.observe.read import Ask
from pgtend.users.plan import Credential, Plan
from pgtend.users.rotation import Kept, Turn, others
from pgtend.users.state import Counts, Problem
from pgtend.users.wanted import Wanted


@dataclass(slots=True, kw_only=True)
class Case:
    """One user in the pass. Filled in as it goes on; in the end there is `judged`, or `error` where the API server
    failed us and nothing can be said."""

    record: Record
    spec: UserSpec
    wanted: Wanted
    admitted: Admitted
    rivals: Mapping[str, tuple[Claimant, ...]] = field(default_factory=dict)
    """Of each of its roles."""
    lives: Callable[[str], bool] = lambda name: True
    """Whether an object of this name still asks for the role."""
    adopts: bool = False
    steady: bool = False
    """Whether it is due by the clock alone."""
    left: bool = False
    """Whether its login was to be tried, and the time was over."""
    observing: str | None = None
    unique: Verdict | None = None
    kept: Kept | None = None
    turn: Turn | None = None
    doubt: Problem | None = None
    """Why the password that was set is not what lets somebody in."""
    refused: Problem | None = None
    """Why the password or the login that is to be next is not made or not published."""
    held: str | None = None
    """Why nothing may be written to the target now, if so."""
    again: float | None = None
    """In how many seconds there is something to do, where that is known."""
    compared: bool | None = None
    plan: Plan | None = None
    failed: Problem | None = None
    password_set: bool = False
    corrected: tuple[str, ...] = ()
    adopted: Verdict | None = None
    """What the role was before, where it has become this object's in this pass."""
    effective: Counts | None = None
    judged: Judged | None = None
    error: ApiError | None = None

    @property
    def key(self) -> ObjectKey:
        return self.record.key

    @property
    def trouble(self) -> tuple[Problem, ...]:
        """All that stands in the way."""
        found = [self.failed, self.kept.problem if self.kept is not None else None, self.refused]
        return (*(p for p in found if p is not None), *(self.plan.problems if self.plan is not None else ()))

    @property
    def rotated(self) -> bool:
        """Whether another password than before was set, and not the same one again."""
        kept = self.kept
        return self.password_set and kept is not None and self.set_at is not None and self.set_at != kept.changed_at

    @property
    def others(self) -> tuple[str, ...]:
        """Its logins beside the role."""
        return others(self.wanted.role, self.spec, self.record.status)

    @property
    def tended(self) -> bool:
        """Whether the role has been this object's before, as the status has it."""
        unique = next((c for c in self.record.status.get("conditions") or () if c["type"] == "Unique"), None)
        known = unique is not None and (unique["status"] == "True" or unique["reason"] == R.TAKEN_OVER)
        return known or self.set_at is not None

    @property
    def set_at(self) -> str | None:
        """When the role was last given a password of ours, as the status has it."""
        moment = (self.record.status.get("password") or {}).get("changedAt")
        return str(moment) if moment else None


def ask_of(cases: Iterable[Case]) -> Ask:
    """What to look at for these users, their logins included."""
    cases = list(cases)
    families = [(case.wanted.role, *case.others) for case in cases if case.others]
    return ask_for(((case.wanted.role, case.spec) for case in cases), families=families)


def credential_of(case: Case) -> Credential:
    """What is known of the password that the Secret holds."""
    kept = case.kept
    if case.observing is not None:
        # nothing is claimed about a password that nobody may compare
        return Credential(ready=True, applied=True, matches=case.compared)
    ready = kept is not None and kept.ready
    applied = case.password_set or (kept is not None and case.set_at is not None and case.set_at == kept.changed_at)
    absent = kept is not None and kept.source == "None"
    return Credential(ready=ready, absent=absent, applied=applied, matches=case.compared)


def password_of(case: Case, role: str) -> Sensitive | None:
    """What a role is given; None takes its password away."""
    kept, turn = case.kept, case.turn
    if kept is None or turn is None:
        return None
    if turn.candidate is not None and role == turn.next:
        return turn.candidate.password
    return kept.password if role == kept.login else None
