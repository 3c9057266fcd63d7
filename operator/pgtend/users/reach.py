"""What came of a login through every place that a Secret names, and what that says. Pure.

A refused password, or a database that is not to be connected to, keeps everybody out. A pg_hba.conf that does not let
us in from here may let in the program; who is away or full says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pgtend.api.reasons import TargetReason
from pgtend.api.reasons import UserReason as R
from pgtend.core.errors import PgtendError
from pgtend.users.state import Problem

LOGS_IN = "logs in through"
_WRONG = "password authentication failed"
_REFUSED = (_WRONG, "SASL authentication failed", "no such user")
_CLOSED = (*_REFUSED, "permission denied for database")
_AWAY = frozenset(
    {
        TargetReason.CONNECTION_REFUSED,
        TargetReason.TIMED_OUT,
        TargetReason.SERVER_STARTING,
        TargetReason.NAME_NOT_RESOLVED,
    }
)
"""A standby that nobody reaches lets nobody in with the old password either: it does not hold up the new one."""
_BUSY = _AWAY | {TargetReason.TOO_MANY_CONNECTIONS}
"""What says nothing of the login."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One place, and what came of it; `error` is None where it let us in."""

    place: str
    error: PgtendError | None = None

    @property
    def message(self) -> str:
        return self.error.message if self.error is not None else ""

    @property
    def wrong(self) -> bool:
        """Whether it is the password that was refused."""
        error = self.error
        return error is not None and error.reason is TargetReason.AUTHENTICATION_FAILED and _WRONG in error.message

    @property
    def refused(self) -> bool:
        return self.error is not None and any(text in self.error.message for text in _REFUSED)

    @property
    def closed(self) -> bool:
        """Whether nobody gets in there with what the Secret says, wherever he comes from."""
        error = self.error
        return error is not None and (
            error.reason is TargetReason.DATABASE_MISSING or any(text in error.message for text in _CLOSED)
        )

    @property
    def unsaid(self) -> bool:
        """Whether it says nothing: not reached, or full."""
        return self.error is not None and self.error.reason in _BUSY and not self.closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A login tried through every place of a Secret. `primary` is the one whose password counts, `beside` what it said
    where the Secret does not lead there."""

    attempts: tuple[Attempt, ...]
    primary: str | None
    pooled: bool = False
    beside: Attempt | None = None

    @property
    def done(self) -> int:
        return sum(attempt.error is None for attempt in self.attempts)

    @property
    def full(self) -> bool:
        return self.done == len(self.attempts)

    @property
    def wrong(self) -> bool:
        """Whether the primary has another password."""
        return any(attempt.wrong and attempt.place == self.primary for attempt in self._asked)

    @property
    def _asked(self) -> tuple[Attempt, ...]:
        return (*self.attempts, self.beside) if self.beside is not None else self.attempts

    @property
    def refused(self) -> bool:
        """Whether a place refused the password, or knows no such login."""
        return any(attempt.refused for attempt in self._asked)

    @property
    def silent(self) -> bool:
        """Whether no place said anything."""
        return all(attempt.unsaid for attempt in self.attempts)

    @property
    def closed(self) -> Attempt | None:
        """The first place that lets nobody in."""
        return next((attempt for attempt in self.attempts if attempt.closed), None)

    @property
    def unclear(self) -> Attempt | None:
        """The first place that did not let us in, and may let in others."""
        return next((a for a in self.attempts if a.error is not None and not a.closed and not a.unsaid), None)

    @property
    def text(self) -> str:
        """Through how many it logs in, and who was not reached."""
        if self.pooled:
            return f"{LOGS_IN} the pooler" if self.done else "does not log in through the pooler"
        away = [attempt.place for attempt in self.attempts if attempt.unsaid]
        left = f"; {', '.join(away)} {'was' if len(away) == 1 else 'were'} not reached" if away else ""
        return f"{LOGS_IN} {self.done} of {len(self.attempts)} members{left}"

    def problem(self, login: str) -> Problem | None:
        """Why a new login is not published. A member that is away is not counted against it, the primary is."""
        for place, error in ((a.place, a.error) for a in self.attempts):
            if error is not None and (self.pooled or place == self.primary or error.reason not in _AWAY):
                text = f"login {login} does not get in, and is not published: {error.message}"
                return Problem(reason=R.LOGIN_REFUSED, object=login, message=text, transient=True)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unheard:
    """A login that was to be tried, and for an interval nobody has answered: since when, why, and when somebody did the
    last time, as far as this process knows."""

    since: datetime
    why: str
    heard: datetime | None = None
