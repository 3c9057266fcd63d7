"""A login as a program would do it, through every place that a Secret names: the one proof that what it says lets
somebody in. A password that the server has says nothing of pg_hba.conf, of the pooler's own list of users, or of a
standby that lags."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pgtend.api.databaseuser import UserSpec
from pgtend.api.postgrestarget import Member, Pooler
from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive
from pgtend.postgres.login import Login
from pgtend.server.server import Server
from pgtend.users.password import database_of, endpoints
from pgtend.users.reach import Attempt, Proof

PATIENCE = 5.0
"""Seconds for a standby or a pooler to hear of a role that was made a moment ago."""
PAUSE = 0.25


async def prove(
    server: Server, *, spec: UserSpec, login: str, password: Sensitive, patience: float = 0.0, beside: bool = False
) -> Proof:
    """Log in everywhere. A standby or pooler that does not know the password yet is asked again for `patience` seconds,
    with growing pauses; the primary knows. `beside` asks the primary where the Secret leads to a pooler, which may know
    another password. Raises nothing."""
    who = Login(user=login, password=password)
    database = database_of(spec, server.spec)
    deadline = asyncio.get_running_loop().time() + patience

    async def attempt(place: Member | Pooler) -> Attempt:
        name = place.name if isinstance(place, Member) else "pooler"
        until = deadline if name != primary else 0.0
        return Attempt(name, await _patiently(lambda: server.try_login(place, login=who, database=database), until))

    primary = server.standing.primary if server.standing is not None else None
    pooled = spec.secret.endpoint == "Pooler"
    attempts = await asyncio.gather(*(attempt(place) for place in endpoints(spec, server.spec)))
    return Proof(
        attempts=tuple(attempts),
        primary=primary,
        pooled=pooled,
        beside=await attempt(server.member(primary)) if pooled and beside and primary is not None else None,
    )


async def _patiently(attempt: Callable[[], Awaitable[None]], deadline: float) -> PgtendError | None:
    loop, pause = asyncio.get_running_loop(), PAUSE
    while True:
        try:
            await attempt()
        except PgtendError as error:
            if error.reason is not TargetReason.AUTHENTICATION_FAILED or loop.time() >= deadline:
                return error
        else:
            return None
        await asyncio.sleep(pause)
        pause *= 2
