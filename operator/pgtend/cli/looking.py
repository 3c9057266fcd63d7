"""A look at a server as the operator takes it, from a command: the same statements, the same values, nothing kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from pgtend.cli.reach import Reached
from pgtend.postgres.session import Session
from pgtend.users.look import inside_of
from pgtend.users.observe.read import Ask, read_shared
from pgtend.users.state import Observed

T = TypeVar("T")


async def look(reached: Reached, ask: Ask) -> Observed:
    """What the login that users are tended with may do is what counts. Raises PgtendError."""

    async def reading(database: str | None, read: Callable[[Session], Awaitable[T]]) -> T:
        async with reached.session(database) as session:
            return await read(session)

    async with reached.session() as session:
        me = session.connection.info.user
        grantor = reached.grantor or me
        shared = await read_shared(session, ask=ask, grantor=grantor, sees_verifiers=False)
    return await inside_of(shared, ask, grantor=grantor, who=me, reading=reading)
