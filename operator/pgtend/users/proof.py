"""A login as a program would do it, through every place that a Secret names: the one proof that what it says lets
somebody in. A password that the server has says nothing of pg_hba.conf, of the pooler's own list of users, or of a
standby that lags."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pgtend.api.databaseuser import UserSpec
from pgtend.api.reasons import TargetReason
from pgtend.api.reasons import UserReason as R
from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive
from pgtend.postgres.login import Login
from pgtend.server.server import Server
from pgtend.users.password import database_of
from pgtend.users.state import Problem

PATIENCE = 5.0
"""Seconds for a standby or a pooler to hear of a role that was made a moment ago."""
PAUSE = 0.25
_AWAY = frozenset(
    {
        TargetReason.CONNECTION_REFUSED,
        TargetReason.TIMED_OUT,
        TargetReason.SERVER_STARTING,
        TargetReason.NAME_NOT_RESOLVED,
    }
)
"""A standby that nobody reaches lets nobody in with the old password either: it does not hold up the new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Through how many of how many places it logged in; `problem` where one that answers refused."""

    done: int
    of: int
    what: str
    problem: Problem | None = None

    @property
    def text(self) -> str:
        return (
            f"logs in through {self.done} of {self.of} {self.what}" if self.of > 1 else f"logs in through {self.what}"
        )


async def prove(server: Server, *, spec: UserSpec, login: str, password: Sensitive) -> Proof:
    """Log in everywhere. A member that is away is not counted against it, the primary is. Raises nothing."""
    who = Login(user=login, password=password)
    database = database_of(spec, server.spec)
    if spec.secret.endpoint == "Pooler":
        pooler = server.spec.pooler
        assert pooler is not None  # noqa: S101 - without one there is no Secret
        error = await _patiently(lambda: server.try_login(pooler, login=who, database=database))
        return Proof(
            done=int(error is None),
            of=1,
            what="the pooler",
            problem=_refused(login, error) if error is not None else None,
        )
    members = server.spec.members
    primary = server.standing.primary if server.standing is not None else None
    errors = await asyncio.gather(
        *(
            _patiently(lambda m=member: server.try_login(m, login=who, database=database))  # type: ignore[misc]
            for member in members
        )
    )
    failed = [
        error
        for member, error in zip(members, errors, strict=True)
        if error is not None and (member.name == primary or error.reason not in _AWAY)
    ]
    what = "members" if len(members) > 1 else members[0].name
    problem = _refused(login, failed[0]) if failed else None
    return Proof(done=errors.count(None), of=len(members), what=what, problem=problem)


async def _patiently(attempt: Callable[[], Awaitable[None]]) -> PgtendError | None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while True:
        try:
            await attempt()
        except PgtendError as error:
            if error.reason is not TargetReason.AUTHENTICATION_FAILED or loop.time() >= deadline:
                return error
        else:
            return None
        await asyncio.sleep(PAUSE)


def _refused(login: str, error: PgtendError) -> Problem:
    text = f"login {login} does not get in, and is not published: {error.message}"
    return Problem(reason=R.LOGIN_REFUSED, object=login, message=text, transient=True)
