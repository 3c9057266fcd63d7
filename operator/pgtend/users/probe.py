"""Whether a role still has the password of its Secret, where pg_authid may not be read: a login that ends at once.

It takes a connection and a few milliseconds of the server's, so that each user is tried rarely, a few in a pass, and at
once only where somebody has touched the object. Only a password that is refused says something: a pg_hba.conf that does
not let us in from here may let in the program, and a connection limit that is reached is no proof of anything.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pgtend.api.databaseuser import UserSpec
from pgtend.api.reasons import TargetReason
from pgtend.core.clock import Clock
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.core.redaction import Sensitive
from pgtend.postgres.login import Login
from pgtend.server.server import Server
from pgtend.users.password import database_of

AGAIN_SECONDS = 6 * 3600.0
TOUCHED_SECONDS = 60.0
IN_A_PASS = 5
_WRONG = "password authentication failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One user's login. `touched` where somebody wants to know now."""

    key: ObjectKey
    spec: UserSpec
    login: str
    password: Sensitive
    touched: bool


@dataclass(frozen=True, slots=True)
class _Known:
    login: str
    password: Sensitive
    at: float
    wrong: int


class Prober:
    """Remembers when whom it tried; a process that has just begun has tried nobody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[ObjectKey, _Known] = {}

    async def wrong(self, server: Server, questions: Collection[Question]) -> dict[ObjectKey, int]:
        """Whose password the primary refuses, of those that are due, and how often in a row."""
        standing = server.standing
        if standing is None or standing.primary is None:
            return {}
        member, now = server.member(standing.primary), self._clock.monotonic()
        found: dict[ObjectKey, int] = {}
        due = sorted((q for q in questions if self._is_due(q, now)), key=lambda q: (not q.touched, self._age(q)))
        for question in due[:IN_A_PASS]:
            before = self._of(question)
            wrong = 0
            try:
                who = Login(user=question.login, password=question.password)
                await server.try_login(member, login=who, database=database_of(question.spec, server.spec))
            except PgtendError as error:
                if error.reason is TargetReason.AUTHENTICATION_FAILED and _WRONG in error.message:
                    wrong = found[question.key] = (before.wrong if before is not None else 0) + 1
            self._known[question.key] = _Known(question.login, question.password, now, wrong)
        return found

    def forget(self, key: ObjectKey) -> None:
        self._known.pop(key, None)

    def _of(self, question: Question) -> _Known | None:
        """What is known of this very password."""
        known = self._known.get(question.key)
        same = known is not None and (known.login, known.password) == (question.login, question.password)
        return known if same else None

    def _is_due(self, question: Question, now: float) -> bool:
        known = self._of(question)
        if known is None:
            return True
        return now - known.at >= (TOUCHED_SECONDS if question.touched or known.wrong else AGAIN_SECONDS)

    def _age(self, question: Question) -> float:
        known = self._of(question)
        return known.at if known is not None else 0.0
