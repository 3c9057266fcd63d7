"""Whether what a Secret says lets somebody in: logins that end at once, through every place that it names.

Each takes a connection and a few milliseconds of the server's, so that of many users a few are tried in a pass, each of
them rarely, and at once only where somebody has touched the object or the role has just been given its password. A
password that is refused says that somebody changed it, which pg_authid would say where that may be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pgtend.api.databaseuser import UserSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.core.clock import Clock
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.server.server import Server
from pgtend.users.password import database_of, endpoints
from pgtend.users.proof import PATIENCE, prove
from pgtend.users.reach import Proof

AGAIN_SECONDS = 6 * 3600.0
TOUCHED_SECONDS = 60.0
IN_A_PASS = 5


Way = tuple[tuple[tuple[str, int], ...], str]
"""The places that a Secret names, and the database."""


def way(spec: UserSpec, target: TargetSpec) -> Way:
    return tuple((place.host, place.port) for place in endpoints(spec, target)), database_of(spec, target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One user's login, by the `way` that its Secret says. `touched` where somebody wants to know now; `beside` where
    the primary is to say whether it has the password, since nothing else does."""

    key: ObjectKey
    spec: UserSpec
    login: str
    password: Sensitive
    way: Way
    touched: bool = False
    beside: bool = False

    def same(self, other: Question) -> bool:
        """Whether an answer to one is an answer to the other."""
        return (self.login, self.password, self.way) == (other.login, other.password, other.way)


@dataclass(frozen=True, slots=True)
class _Known:
    question: Question
    at: float
    wrong: int
    proof: Proof


class Prober:
    """Remembers when whom it tried; a process that has just begun has tried nobody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[ObjectKey, _Known] = {}

    async def wrong(self, server: Server, questions: Collection[Question]) -> dict[ObjectKey, int]:
        """Whose password the primary refuses, of those that are due, and how often in a row."""
        if server.standing is None or server.standing.primary is None:
            return {}
        found: dict[ObjectKey, int] = {}
        now = self._clock.monotonic()
        due = sorted((q for q in questions if self._is_due(q, now)), key=lambda q: (not q.touched, self._age(q)))
        for question in due[:IN_A_PASS]:
            proof = await _tried(server, question, patience=0.0)
            wrong = self._wrong(question) + 1 if proof.wrong else 0
            self._note(question, proof, wrong=wrong)
            if wrong:
                found[question.key] = wrong
        return found

    async def given(self, server: Server, questions: Sequence[Question]) -> None:
        """Try those whose role has just been given the password. Together they wait for what lags, not one by one."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        for question in questions[:IN_A_PASS]:
            proof = await _tried(server, question, patience=max(0.0, deadline - loop.time()))
            # that it gets in now is no proof that nobody changes it again
            self._note(question, proof, wrong=self._wrong(question))

    def proved(self, question: Question, proof: Proof) -> None:
        """Somebody has tried it already."""
        self._note(question, proof, wrong=0)

    def proof(self, question: Question) -> Proof | None:
        """What came of the last try, where that says something."""
        known = self._of(question)
        return known.proof if known is not None and not known.proof.silent else None

    def forget(self, key: ObjectKey) -> None:
        self._known.pop(key, None)

    def _note(self, question: Question, proof: Proof, *, wrong: int) -> None:
        self._known[question.key] = _Known(question, self._clock.monotonic(), wrong, proof)

    def _of(self, question: Question) -> _Known | None:
        """What is known of this very login."""
        known = self._known.get(question.key)
        return known if known is not None and known.question.same(question) else None

    def _wrong(self, question: Question) -> int:
        known = self._of(question)
        return known.wrong if known is not None else 0

    def _is_due(self, question: Question, now: float) -> bool:
        known = self._of(question)
        if known is None:
            return True
        soon = question.touched or known.wrong or not known.proof.full
        return now - known.at >= (TOUCHED_SECONDS if soon else AGAIN_SECONDS)

    def _age(self, question: Question) -> float:
        known = self._of(question)
        return known.at if known is not None else 0.0


async def _tried(server: Server, question: Question, *, patience: float) -> Proof:
    return await prove(
        server,
        spec=question.spec,
        login=question.login,
        password=question.password,
        patience=patience,
        beside=question.beside,
    )
