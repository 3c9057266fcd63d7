"""Acting on one named member, primary or standby: ending sessions there, and whatever else is no SQL write.

The sessions are opened ahead and kept, since the moment in which somebody must be thrown out is the moment in which no
connection is left. What is checked: same system identifier, Enforce, Lease, brake; consent is the caller's business.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from psycopg import sql

from pgtend.api.postgrestarget import Credential, Member
from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.session import Query, Row, Session
from pgtend.server.server import Server
from pgtend.server.standing import Standing

log = logging.getLogger(__name__)
ROLE = "maintenance"
# refusals that say nothing about the members themselves: their sessions may be ended while nobody can be written to
_NO_WRITER = frozenset({TargetReason.NO_PRIMARY, TargetReason.STALE_MEMBER})
_IDENTITY = sql.SQL("SELECT system_identifier::text AS system FROM pg_catalog.pg_control_system()")


def may_act(server: Server) -> Standing:
    """The standing, where members may be acted on at this moment; a primary is not needed. Raises PgtendError."""
    try:
        return server.writable()
    except PgtendError as error:
        standing = server.standing
        known = standing is not None and standing.identity is not None and standing.refusal is error
        if known and standing is not None and error.reason in _NO_WRITER:
            return standing
        raise


class MemberSession:
    """Made by MemberSessions.acting() alone. `check` raises PgtendError where acting is not allowed any more."""

    def __init__(self, session: Session, *, member: str, check: Callable[[], object]) -> None:
        self._session, self.member, self._check = session, member, check

    async def fetch(self, query: Query) -> list[Row]:
        """One statement. Raises PgtendError and then nothing has been sent, psycopg.Error or TimeoutError."""
        self._check()
        return await self._session.fetch(query)


@dataclass(slots=True)
class _Kept:
    server: Server
    session: Session
    stack: AsyncExitStack
    lock: asyncio.Lock


class MemberSessions:
    """One session per member of each target that is enforced and has credentials.maintenance, kept open."""

    def __init__(self) -> None:
        self._kept: dict[tuple[ObjectKey, str], _Kept] = {}
        self._opening: dict[tuple[ObjectKey, str], asyncio.Lock] = {}

    async def keep(self, server: Server) -> None:
        """Have a session on every member that answers, where acting is allowed. Never raises PgtendError."""
        try:
            may_act(server)
        except PgtendError:
            return
        if server.spec.credentials.maintenance is None:
            return
        await asyncio.gather(*(self._try(server, member) for member in server.spec.members))

    async def _try(self, server: Server, member: Member) -> None:
        slot = (server.key, member.name)
        try:
            kept = await self._session(server, member)
            if kept.lock.locked():
                return  # in use: next time
            try:
                vouched = await server.vouched(kept.session, role=ROLE, credential=needed(server))
            except PgtendError:
                await self._let_go(slot)  # the credential has been taken away, and with it what it opened
                raise
            if not vouched and not kept.lock.locked() and self._kept.get(slot) is kept:
                await self._let_go(slot)
                await self._session(server, member)
        except PgtendError as error:
            log.debug("no emergency session", extra={"member": member.name, "cause": error.message})

    async def drop(self, key: ObjectKey) -> None:
        """Close what is kept for a target."""
        for slot in [slot for slot in self._kept if slot[0] == key]:
            await self._let_go(slot)

    async def forget(self, alive: Callable[[ObjectKey], Server | None]) -> None:
        """Close what belongs to a server that is no longer the target's."""
        for slot, kept in list(self._kept.items()):
            if alive(slot[0]) is not kept.server:
                await self._let_go(slot)

    async def close(self) -> None:
        for slot in list(self._kept):
            await self._let_go(slot)

    @asynccontextmanager
    async def acting(self, server: Server, member: Member) -> AsyncIterator[MemberSession]:
        """A session on this member that may end others' sessions.

        Raises PgtendError: why acting is not allowed, CapabilityMissing, IdentityChanged, or why connecting failed.
        """
        identity = may_act(server).identity
        assert identity is not None  # noqa: S101 - may_act gives none without
        kept = await self._session(server, member)
        async with kept.lock:
            found = (await kept.session.fetch(_IDENTITY))[0]["system"]
            if found != identity.system_identifier:
                await self._let_go((server.key, member.name))
                raise PgtendError(
                    TargetReason.IDENTITY_CHANGED,
                    f"{member.name} belongs to another system, {found}, not {identity.system_identifier}: nothing is"
                    " done there",
                    object=member.name,
                )
            await server.take_over(
                kept.session, role=ROLE, credential=needed(server), system=identity.system_identifier, alone=True
            )
            yield MemberSession(kept.session, member=member.name, check=lambda: may_act(server))

    @asynccontextmanager
    async def reading(self, server: Server, member: Member) -> AsyncIterator[Session]:
        """A session for looking: the kept one, else a new one as `maintenance`, else as `monitor`. In Observe too."""
        kept = self._kept.get((server.key, member.name))
        if kept is not None and kept.server is server and kept.session.usable:
            async with kept.lock:
                yield kept.session
            return
        credentials = server.spec.credentials
        role, credential = (
            (ROLE, credentials.maintenance) if credentials.maintenance is not None else ("monitor", credentials.monitor)
        )
        async with server.session(member, purpose=Purpose.SIGNAL, role=role, credential=credential) as session:
            yield session

    async def _session(self, server: Server, member: Member) -> _Kept:
        slot = (server.key, member.name)
        async with self._opening.setdefault(slot, asyncio.Lock()):
            kept = self._kept.get(slot)
            if kept is not None and kept.server is server and kept.session.usable:
                return kept
            if kept is not None:
                await self._let_go(slot)
            credential = needed(server)
            stack = AsyncExitStack()
            session = await stack.enter_async_context(
                server.session(member, purpose=Purpose.SIGNAL, role=ROLE, credential=credential)
            )
            made = _Kept(server=server, session=session, stack=stack, lock=asyncio.Lock())
            self._kept[slot] = made
            return made

    async def _let_go(self, slot: tuple[ObjectKey, str]) -> None:
        kept = self._kept.pop(slot, None)
        if kept is not None:
            await kept.session.close()
            await kept.stack.aclose()


def needed(server: Server) -> Credential:
    """credentials.maintenance. Raises PgtendError CapabilityMissing."""
    credential = server.spec.credentials.maintenance
    if credential is None:
        raise PgtendError(
            TargetReason.CAPABILITY_MISSING,
            f"target {server.key} has no credentials.maintenance: add it (pgtend target init-sql prints the role)",
            object="credentials.maintenance",
            transient=False,
        )
    return credential
