"""What becomes of passwords in a pass: compared or tried, given, proved and published; and what is known of them in the
end. The decisions are rotation.py's, the Secret is the Keeper's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from pgtend.api.databaseuser import Exposed
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import UserReason as R
from pgtend.core.clock import Clock
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.kube.client import ApiError
from pgtend.postgres.scram import matches
from pgtend.server.server import Server
from pgtend.users.case import Case
from pgtend.users.exposure import exposed
from pgtend.users.judge import PasswordFacts
from pgtend.users.keeper import Keeper
from pgtend.users.plan_logins import retiring
from pgtend.users.probe import Prober, Question, way
from pgtend.users.proof import PATIENCE, prove
from pgtend.users.reach import Proof
from pgtend.users.rotation import Kept, Turn, due_at, grace_ends, judge_rotation, next_login, seconds_to, taken
from pgtend.users.state import Observed, Problem
from pgtend.users.wanted import microseconds

_STUCK = (
    "it is not tried again until this object or its Secret changes, or six hours have passed. Does pg_hba.conf have it"
    " checked elsewhere, or is the login locked?"
)
PROVING_SECONDS = 15.0
"""Of a pass: what takes longer goes on in the next, so that nobody else waits."""


class Logins:
    """Of all targets."""

    def __init__(self, *, keeper: Keeper, clock: Clock) -> None:
        self._keeper, self._clock = keeper, clock
        self._prober = Prober(clock)
        # a comparison costs a millisecond of hashing: it is done again only where either side has changed
        self._compared: dict[ObjectKey, tuple[Sensitive | None, Sensitive, bool]] = {}
        # by the moment of the password that was sent: that a crash comes before the status tells is rare
        self._exposed: dict[ObjectKey, tuple[str | None, frozenset[Exposed]]] = {}

    def forget(self, key: ObjectKey) -> None:
        self._compared.pop(key, None)
        self._exposed.pop(key, None)
        self._keeper.forget(key)
        self._prober.forget(key)

    async def compare(self, case: Case, observed: Observed) -> None:
        """Whether the role has the Secret's password, where the server lets us see."""
        kept = case.kept
        role = observed.roles.get(kept.login) if kept is not None else None
        case.compared = None
        if role is None or kept is None or not kept.ready or not observed.sees_verifiers:
            return
        if kept.password is None:
            case.compared = role.verifier is None
            return
        known = self._compared.get(case.key)
        if known is None or known[:2] != (role.verifier, kept.password):
            same = await asyncio.to_thread(matches, role.verifier, kept.password)
            known = self._compared[case.key] = (role.verifier, kept.password, same)
        case.compared = known[2]

    async def probe(self, server: Server, cases: Iterable[Case], observed: Observed) -> None:
        """Try the passwords that roles were given before: one that is refused is set again, and if that did not help,
        it is said. What the server shows us to differ need not be tried."""
        asked: dict[ObjectKey, tuple[Case, Kept]] = {}
        questions = []
        for case in cases:
            kept, question = case.kept, self._question(case, server.spec, observed)
            if question is None or kept is None or case.compared is False or case.set_at != kept.changed_at:
                continue
            asked[case.key] = case, kept
            questions.append(question)
        found = await self._prober.wrong(server, questions)
        for case, _ in asked.values():
            case.left = self._prober.left(case.key)
        for key, times in found.items() if not observed.sees_verifiers else ():
            case, kept = asked[key]
            case.compared = False
            if times > 1 and case.observing is None:
                case.doubt = _doubt(kept, "it is set again. Who else sets it?")

    def _question(self, case: Case, target: TargetSpec, observed: Observed) -> Question | None:
        """Whether what the Secret says lets in, where that is to be expected."""
        kept, role = case.kept, observed.roles.get(case.kept.login) if case.kept is not None else None
        if role is None or not role.login or kept is None or kept.password is None:
            return None
        expired = role.valid_until is not None and role.valid_until <= microseconds(self._clock.now())
        if expired or not kept.written or kept.changed_at is None:
            return None
        return Question(
            key=case.key,
            spec=case.spec,
            login=kept.login,
            password=kept.password,
            way=way(case.spec, target),
            touched=not case.steady,
            beside=not observed.sees_verifiers,
            altered=observed.altered,
        )

    def turn(self, case: Case) -> Turn:
        """Who is who, after the Secret was read."""
        kept, spec = case.kept, case.spec
        assert kept is not None  # noqa: S101 - it was kept before
        return Turn(
            active=kept.login,
            candidate=kept.candidate,
            others=case.others,
            retiring=(case.record.status.get("password") or {}).get("retiringLogin"),
            taken=taken(case.record.status),
            over=kept.changed_at is not None and self._clock.now() >= grace_ends(spec, kept.changed_at),
            ends_sessions=spec.rotation is not None and spec.rotation.sessions == "Terminate",
        )

    async def change_over(self, server: Server, cases: Iterable[Case], observed: Observed) -> None:
        """Publish the logins that get in, and try what was set in this pass. One after the other, since the connections
        to a member are few."""
        loop = asyncio.get_running_loop()
        end = loop.time() + PROVING_SECONDS
        given = []
        for case in cases:
            proof = await self._change_over(server, case, observed) if loop.time() < end else None
            question = self._question(case, server.spec, observed) if case.password_set else None
            if question is not None and proof is not None:
                self._prober.proved(question, proof)
            elif question is not None and case.failed is None:
                given.append(question)
        await self._prober.given(server, given)

    async def _change_over(self, server: Server, case: Case, observed: Observed) -> Proof | None:
        """Publish the login that is to be next, where it gets in through every place that the Secret names."""
        turn, kept = case.turn, case.kept
        if turn is None or kept is None or turn.candidate is None or case.failed is not None or case.observing:
            return None
        if not turn.candidate.applied:
            return None
        failpoint("users.rotation.before_proof")
        candidate = turn.candidate
        proof = await prove(
            server, spec=case.spec, login=candidate.login, password=candidate.password, patience=PATIENCE
        )
        case.refused = proof.problem(candidate.login)
        if case.refused is not None:
            return None
        failpoint("users.rotation.after_proof")
        try:
            case.kept = await self._keeper.publish(case.key, case.spec, server.spec, kept)
        except ApiError as error:
            case.error = error
            return None
        if case.kept.problem is not None:
            return None
        case.password_set, case.turn = True, self.turn(case)
        self._exposed[case.key] = (case.kept.changed_at, exposed(observed.logging))
        return proof

    def given(self, case: Case, observed: Observed, *, done: bool) -> None:
        """Note whose password was set, and what could have recorded the verifier; a failed statement may be in the
        log."""
        plan, kept, turn = case.plan, case.kept, case.turn
        if plan is None or kept is None or turn is None:
            return
        if case.failed is not None and done:
            self._prober.forget(case.key)
        case.password_set = kept.login in plan.given and done
        if done:
            case.turn = turn = replace(turn, taken=frozenset())
        if turn.candidate is not None and turn.next in plan.given:
            self._keeper.applied(case.key, done=done)
            case.turn = replace(turn, candidate=replace(turn.candidate, applied=done))
        if kept.login in plan.given and kept.password is not None:
            before = self._exposed.get(case.key)
            known = before[1] if before is not None and before[0] == kept.changed_at else frozenset()
            self._exposed[case.key] = (kept.changed_at, known | exposed(observed.logging, failed=not done))

    def _exposure(self, case: Case, set_at: str | None, observed: Observed) -> tuple[Exposed, ...]:
        """Of the password that the role has: what was seen as it was set, or what the status says of that; where a
        crash has lost both, what would record it now."""
        password = case.record.status.get("password") or {}
        if set_at is None or case.spec.source == "None":
            return ()
        found = {word for word in password.get("exposure", ()) if password.get("changedAt") == set_at}
        found.discard("PgAudit")  # an earlier version did not know that it masks
        seen = self._exposed.get(case.key)
        if seen is not None and seen[0] == set_at:
            found |= seen[1]
        elif password.get("changedAt") != set_at:
            found |= exposed(observed.logging)
        return tuple(sorted(found))

    def facts(self, case: Case, target: TargetSpec, observed: Observed) -> PasswordFacts:
        """What the judge is told."""
        kept, turn = case.kept, case.turn
        assert kept and turn  # noqa: S101 - all planned
        role, now, question = case.wanted.role, self._clock.now(), self._question(case, target, observed)
        before = retiring(case.wanted, observed, turn)
        last = _before(role, case, [r.name for r in before])
        rotation = judge_rotation(
            spec=case.spec,
            role=role,
            kept=kept,
            problem=case.refused,
            observing=case.observing,
            held=case.held,
            retiring=last,
            owners=[r for name in case.others if (r := observed.roles.get(name)) is not None and r.owns],
            now=now,
        )
        if case.observing is None and not case.held:
            case.again = seconds_to(case.spec, role, kept, [(r.login, r.sessions) for r in before], now)
        stuck = question is not None and case.observing is None and self._prober.stuck(question)
        family = (observed.roles.get(name) for name in (role, *case.others))
        counted = before if case.wanted.login else tuple(r for r in family if r is not None)
        given = case.password_set or case.compared or case.set_at == kept.changed_at
        set_at = kept.changed_at if given and kept.changed_at else case.set_at
        due = due_at(role, case.spec, active=kept.login, changed_at=kept.changed_at) if kept.changed_at else None
        return PasswordFacts(
            secret=kept.name,
            source=kept.source,
            written=kept.written,
            problem=kept.problem or case.doubt or (_doubt(kept, _STUCK) if stuck else None),
            set_at=set_at,
            exposure=self._exposure(case, set_at, observed),
            compared=case.compared,
            proof=self._prober.proof(question) if question is not None else None,
            unheard=self._prober.unheard(question) if question is not None else None,
            told=_told(case),
            pending=kept.ready and not given and kept.changed_at is not None,
            login=kept.login,
            retiring=last,
            taken=_still_taken(case, observed),
            sessions=sum(r.sessions for r in counted) if counted else None,
            next_at=due,
            rotation=rotation,
        )


def _doubt(kept: Kept, then: str) -> Problem:
    text = f"login {kept.login} was refused with the password of Secret {kept.name} though that had been set; {then}"
    return Problem(reason=R.LOGIN_REFUSED, object=kept.login, message=text)


def _before(role: str, case: Case, names: Sequence[str]) -> str | None:
    """Of the logins that may still be used the one that the next rotation would take: that has to wait for it."""
    follows = next_login(role, case.spec, case.kept.login) if case.kept is not None else None
    return follows if follows in names else next(iter(names), None)


def _still_taken(case: Case, observed: Observed) -> tuple[str, ...]:
    """What withdrawn consent has taken, and could not be given back yet; what had its time meanwhile stays off."""
    turn = case.turn
    found = (observed.roles.get(name) for name in sorted(taken(case.record.status)) if case.spec.login and turn)
    off = (role.name for role in found if role is not None and not role.login)
    return tuple(name for name in off if turn is not None and (name == turn.active or not turn.over))


def _told(case: Case) -> str | None:
    """What the status says of this very password and this spec, where all is well."""
    record, kept = case.record, case.kept
    if kept is None or record.status.get("observedGeneration") != record.generation:
        return None
    if case.set_at != kept.changed_at or record.status.get("secretName") != kept.name:
        return None
    found = (c for c in record.status.get("conditions") or () if c["type"] == "CredentialsReady")
    return next((str(c["message"]) for c in found if c["status"] == "True"), None)
