"""What tasks on tables and indexes share: the selector, the databases, the work session and its guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg import sql

from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.gate.decide import Permit
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.session import Row, Session
from pgtend.server.consent import matches
from pgtend.server.member import needed
from pgtend.server.server import Server
from pgtend.server.write import WriteSession
from pgtend.tasks.protocol import ItemResult, Outcome

MOST = 2000
"""Relations of one plan."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Patterns that know `*` only; an empty tuple means all."""

    databases: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()

    def fit(self, *, schema: str, table: str, index: str | None = None) -> bool:
        return fits(self.schemas, schema) and fits(self.tables, table) and (index is None or fits(self.indexes, index))

    def name(self, *, schema: str, table: str, index: str | None = None) -> bool:
        """Whether a pattern that is given names it: for what is excluded."""
        given = ((self.schemas, schema), (self.tables, table), (self.indexes, index or ""))
        return any(patterns and fits(patterns, text) for patterns, text in given)


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """Which relations: those that `names` fits and `exclude` does not name."""

    names: Names = Names()
    exclude: Names = Names()

    def takes(self, *, schema: str, table: str, index: str | None = None) -> bool:
        return self.names.fit(schema=schema, table=table, index=index) and not self.exclude.name(
            schema=schema, table=table, index=index
        )


def fits(patterns: Sequence[str], text: str) -> bool:
    return not patterns or any(matches(pattern, text) for pattern in patterns)


_DATABASES = sql.SQL("""
SELECT datname::text AS name FROM pg_catalog.pg_database
WHERE datallowconn AND NOT datistemplate AND pg_catalog.has_database_privilege(oid, 'CONNECT') ORDER BY 1""")
_WHERE = sql.SQL("""
SELECT pg_catalog.pg_is_in_recovery() AS standby, pg_catalog.pg_backend_pid() AS pid, current_user::text AS me,
       CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN
         ('x' || left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))::bit(32)::int8 END AS timeline,
       (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system""")

_LIMITS = sql.SQL(
    "SELECT pg_catalog.set_config('lock_timeout', {}, false), pg_catalog.set_config('statement_timeout', {}, false)"
)


@asynccontextmanager
async def reader(
    server: Server, *, database: str | None = None, purpose: Purpose = Purpose.CATALOG
) -> AsyncIterator[Session]:
    """A session for reading on the primary, as `maintenance` or else `monitor`. Raises PgtendError."""
    standing = server.standing
    if standing is None or standing.primary is None:
        raise PgtendError(TargetReason.NO_PRIMARY, f"target {server.key} has no primary to look at")
    credentials = server.spec.credentials
    role, credential = (
        ("maintenance", credentials.maintenance)
        if credentials.maintenance is not None
        else ("monitor", credentials.monitor)
    )
    member = server.member(standing.primary)
    async with server.session(member, purpose=purpose, role=role, credential=credential, database=database) as session:
        yield session


async def databases(server: Server, select: Select) -> list[str]:
    """The selected databases that the role may connect to, in order."""
    async with reader(server) as session:
        names = [row["name"] for row in await session.fetch(_DATABASES)]
    excluded = select.exclude.databases
    return [n for n in names if fits(select.names.databases, n) and not (excluded and fits(excluded, n))]


async def look(server: Server, query: sql.SQL | sql.Composed, select: Select) -> list[tuple[str, list[Row]]]:
    """The rows of a reading query in each selected database of the primary."""
    found = []
    for name in await databases(server, select):
        async with reader(server, database=name) as session:
            found.append((name, await session.fetch(query)))
    return found


@dataclass(frozen=True, slots=True)
class Work:
    """A session for one long statement, with its backend's number and its role."""

    session: WriteSession
    pid: int
    role: str

    async def alone(self, query: sql.SQL | sql.Composed) -> list[Row]:
        """One statement outside of any transaction block that changes something. Raises PgtendError where writing is
        not allowed any more, and then nothing has been sent."""
        return await self.session.alone(query)

    async def read(self, query: sql.SQL | sql.Composed) -> list[Row]:
        return await self.session.fetch(query)

    async def limit(self, *, lock_ms: int, statement_ms: int) -> None:
        """The timeouts from here on; 0 is without limit."""
        await self.session.fetch(_LIMITS.format(sql.Literal(str(lock_ms)), sql.Literal(str(statement_ms))))

    async def drained(self) -> None:
        """Take up a cancel that came after the statement it was meant for."""
        try:
            await self.session.fetch(sql.SQL("SELECT"))
        except psycopg.Error as error:
            if error.sqlstate != "57014":
                raise


@asynccontextmanager
async def work_on(server: Server, database: str, *, permit: Permit, lock_ms: int) -> AsyncIterator[Work]:
    """A work session in a database of the primary, with its timeouts. Raises PgtendError where nothing may be written,
    or where this is not the recorded primary."""
    identity = server.writable().identity
    assert identity is not None  # noqa: S101 - a standing without a refusal has one
    async with server.write(
        role="maintenance", credential=needed(server), purpose=Purpose.WORK, database=database
    ) as session:
        row = (await session.fetch(_WHERE))[0]
        other = row["standby"] or row["system"] != identity.system_identifier
        # a former primary that is back is writable too, and on an older timeline
        if other or row["timeline"] < identity.timeline:
            text = f"the primary of {server.key} has moved: look again"
            raise PgtendError(TargetReason.NOT_PROBED, text)
        left = left_ms(permit)
        work = Work(session, row["pid"], row["me"])
        await work.limit(lock_ms=lock_ms, statement_ms=left)  # every time: the session may be warm from another item
        yield work


def left_ms(permit: Permit) -> int:
    """Milliseconds until the permit's deadline, at least one: 0 would be without limit."""
    return max(1, int((permit.deadline - datetime.now(UTC)).total_seconds() * 1000))


def failure(error: psycopg.Error | TimeoutError | PgtendError, spent: float) -> ItemResult:
    """What an error means for an item."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    text = " ".join((error.message if isinstance(error, PgtendError) else str(error)).split())
    outcome = Outcome.FAILED
    if state == "55P03":
        outcome, text = Outcome.DEFERRED_LOCKED, "somebody held a lock on it"
    elif state == "57014":
        outcome = Outcome.CANCELLED
    return ItemResult(outcome=outcome, actual=spent, sql_state=state, message=text[:256])
