"""Whether what a Secret says lets somebody in: logins that end at once, through every place that it names.

Each costs 5 ms of ours and 9 ms of the server's, so that not all users are tried all the time. Where pg_authid may not
be read, it is a login that tells that somebody has changed a password: nobody has while no role was altered, which a
server tells from 15 on (Observed.altered). When one was, each user of the server is tried once in that turn of the
wheel, two at once. A password that was refused is not tried again by itself: a server may lock out who fails too often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pgtend.api.databaseuser import UserSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.clock import Clock
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.server.server import Server
from pgtend.users.password import database_of, endpoints
from pgtend.users.proof import PATIENCE, prove
from pgtend.users.reach import Proof, Unheard

AGAIN_SECONDS = 6 * 3600.0
"""What else may have changed: pg_hba.conf, a pooler's list, CONNECT."""
TURN_SECONDS = 60.0
"""Less than a turn of the wheel: once in each."""
IN_A_PASS = 5
"""Of users that somebody has touched; of those that the wheel brings, as many as the time allows."""
AT_ONCE = 2
PROBING_SECONDS = 10.0
UNHEARD_SECONDS = 300.0
"""An interval without an answer: from then on nobody knows."""


Way = tuple[tuple[tuple[str, int], ...], str]
"""The places that a Secret names, and the database."""


def way(spec: UserSpec, target: TargetSpec) -> Way:
    return tuple((place.host, place.port) for place in endpoints(spec, target)), database_of(spec, target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One user's login, by the `way` that its Secret says. `touched` where somebody wants to know now; `beside` where
    the primary is to say whether it has the password, since nothing else does; then `altered` is as in Observed, from
    before the login."""

    key: ObjectKey
    spec: UserSpec
    login: str
    password: Sensitive
    way: Way
    touched: bool = False
    beside: bool = False
    altered: str | None = None

    def same(self, other: Question) -> bool:
        """Whether an answer to one is an answer to the other."""
        return (self.login, self.password, self.way) == (other.login, other.password, other.way)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """The last try: `proof` is None where the password was set since. `wrong` is how often in a row the primary refused
    it, `stuck` whether it did though it had just been set, `refused` how often in a row another place did. `heard` is
    when anybody answered."""

    question: Question
    at: float
    proof: Proof | None
    wrong: int = 0
    stuck: bool = False
    refused: int = 0
    heard: datetime | None = None


class Prober:
    """Remembers when whom it tried; a process that has just begun has tried nobody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[ObjectKey, _Known] = {}
        self._owed: dict[ObjectKey, tuple[Question, float, datetime]] = {}
        self._left: set[ObjectKey] = set()

    async def wrong(self, server: Server, questions: Collection[Question]) -> dict[ObjectKey, int]:
        """Try those that are due. Returns whose password the primary refuses, and how often in a row; also where it
        said so before and nothing was set since."""
        standing = server.standing
        if standing is None or standing.primary is None or standing.refusal is not None:
            return {}
        now, loop = self._clock.monotonic(), asyncio.get_running_loop()
        due = sorted((q for q in questions if self._is_due(q, now)), key=self._age)
        end = loop.time() + PROBING_SECONDS
        slots = asyncio.Semaphore(AT_ONCE)
        for question in due:
            if not self._owes(question):
                self._owed[question.key] = question, now, self._clock.now()

        async def one(question: Question) -> None:
            async with slots:
                if loop.time() >= end:
                    self._left.add(question.key)
                    return
                self._note(question, await _tried(server, question, patience=0.0))

        self._left.difference_update(q.key for q in questions)
        touched, others = [q for q in due if q.touched], [q for q in due if not q.touched]
        await asyncio.gather(*(one(question) for question in (*touched[:IN_A_PASS], *others)))
        known = {question.key: self._of(question) for question in questions}
        return {key: k.wrong for key, k in known.items() if k and k.proof and k.proof.wrong and not k.stuck}

    async def given(self, server: Server, questions: Sequence[Question]) -> None:
        """Try those whose role has just been given the password. Together they wait for what lags, not one by one."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        for number, question in enumerate(questions):
            before = self._of(question)
            if number >= IN_A_PASS:
                if before is not None:
                    self._known[question.key] = replace(before, proof=None)
                continue
            proof = await _tried(server, question, patience=max(0.0, deadline - loop.time()))
            self._note(question, proof)
            # that it gets in now is no proof that nobody changes it again
            known, wrong = self._known[question.key], before.wrong if before is not None else 0
            self._known[question.key] = replace(known, wrong=wrong + proof.wrong, stuck=proof.wrong)

    def proved(self, question: Question, proof: Proof) -> None:
        """Somebody has tried it already."""
        self._note(question, proof)

    def proof(self, question: Question) -> Proof | None:
        """What came of the last try, where that says something."""
        known = self._of(question)
        return known.proof if known and known.proof and not known.proof.silent else None

    def stuck(self, question: Question) -> bool:
        """Whether the primary refuses the password though it was set."""
        known = self._of(question)
        return known is not None and known.stuck

    def left(self, key: ObjectKey) -> bool:
        """Whether the time was over before it was tried."""
        return key in self._left

    def unheard(self, question: Question) -> Unheard | None:
        """Where it was to be tried, and for an interval nobody has said anything."""
        _, at, since = self._owed.get(question.key, (None, 0.0, None))
        if since is None or not self._owes(question) or self._clock.monotonic() - at < UNHEARD_SECONDS:
            return None
        known = self._of(question)
        silent = known.proof if known is not None and known.proof is not None and known.proof.silent else None
        why = silent.attempts[0].message if silent is not None else "logins take too long, others came before"
        return Unheard(since=since, why=why, heard=known.heard if known is not None else None)

    def forget(self, key: ObjectKey) -> None:
        self._known.pop(key, None)
        self._owed.pop(key, None)
        self._left.discard(key)

    def _note(self, question: Question, proof: Proof) -> None:
        before = self._of(question)
        if proof.silent:
            known = before or _Known(question=question, at=0.0, proof=None)
            # what it said before is outdated
            self._known[question.key] = replace(known, question=question, at=self._clock.monotonic(), proof=proof)
            return
        self._owed.pop(question.key, None)
        self._known[question.key] = _Known(
            question=question,
            at=self._clock.monotonic(),
            proof=proof,
            wrong=(before.wrong if before is not None else 0) + 1 if proof.wrong else 0,
            refused=(before.refused if before is not None else 0) + 1 if proof.refused else 0,
            heard=self._clock.now(),
        )

    def _of(self, question: Question) -> _Known | None:
        """What is known of this very login."""
        known = self._known.get(question.key)
        return known if known is not None and known.question.same(question) else None

    def _owes(self, question: Question) -> bool:
        owed = self._owed.get(question.key)
        return owed is not None and owed[0].same(question)

    def _is_due(self, question: Question, now: float) -> bool:
        known = self._of(question)
        if known is None or known.proof is None:
            return True
        wait = AGAIN_SECONDS
        if question.touched or (question.beside and not known.stuck and _moved(known.question, question)):
            wait = TURN_SECONDS
        elif known.stuck or (question.beside and known.proof.wrong):
            pass
        elif known.refused:
            wait = min(AGAIN_SECONDS, TURN_SECONDS * 2**known.refused)  # a standby may lag, a pooler be told late
        elif not known.proof.full:
            wait = TURN_SECONDS
        return now - known.at >= wait

    def _age(self, question: Question) -> float:
        known = self._of(question)
        return known.at if known is not None else 0.0


def _moved(before: Question, now: Question) -> bool:
    return now.altered is None or now.altered != before.altered


async def _tried(server: Server, question: Question, *, patience: float) -> Proof:
    return await prove(
        server,
        spec=question.spec,
        login=question.login,
        password=question.password,
        patience=patience,
        beside=question.beside,
    )
