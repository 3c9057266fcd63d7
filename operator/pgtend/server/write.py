"""The only way to change anything in a database: a WriteSession, which Server.write() refuses to make in Observe, under
the brake, without the Lease, or on doubt about the server's identity.

Every transaction begins with a guard that raises on a standby, on another system and on a former primary: what was true
when the session was opened may not be true now. `default_transaction_read_only` would stop neither VACUUM nor signals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.postgres.locks import LOCK_CLASS, Lock
from pgtend.postgres.session import Query, Row, Session
from pgtend.server.standing import ServerIdentity
from pgtend.telemetry.metrics import METRICS

GUARD_STATE = "PGT01"


@dataclass(frozen=True, slots=True)
class Statement:
    """What is sent, and the same without secrets for people."""

    query: Query
    shown: str


_GUARD = sql.SQL("""DO $pgtend$ BEGIN
IF pg_catalog.pg_is_in_recovery() THEN
  RAISE EXCEPTION 'pgtend: this server is a standby' USING ERRCODE = {state};
ELSIF (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) <> {system} THEN
  RAISE EXCEPTION 'pgtend: this is another system' USING ERRCODE = {state};
ELSIF ('x' || left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))::bit(32)::int8 < {timeline} THEN
  RAISE EXCEPTION 'pgtend: this is a former primary, on an older timeline' USING ERRCODE = {state};
END IF; END $pgtend$""")


_BEGIN, _COMMIT, _ROLLBACK = sql.SQL("BEGIN"), sql.SQL("COMMIT"), sql.SQL("ROLLBACK")


class WriteSession:
    """Made by Server.write() alone. `check` raises PgtendError where writing is not allowed any more: between two
    transactions the Lease may be lost, or the process may have slept."""

    def __init__(self, session: Session, *, identity: ServerIdentity, check: Callable[[], object]) -> None:
        self._session, self._identity, self._check = session, identity, check

    @property
    def server_version(self) -> int:
        return self._session.server_version

    @property
    def usable(self) -> bool:
        return self._session.usable

    async def fetch(self, query: Query) -> list[Row]:
        """Read in this session, one round trip."""
        return await self._session.fetch(query)

    async def alone(self, query: Query) -> list[Row]:
        """One statement outside of any transaction block, as VACUUM and REINDEX CONCURRENTLY ask for: without a guard
        in front, so the caller has just read that this is the recorded primary.

        Raises PgtendError where writing is not allowed any more, and then nothing has been sent."""
        self._check()
        return await self._session.fetch(query)

    async def transaction(self, statements: Sequence[Statement], *, lock: Lock) -> None:
        """All statements or none, under the advisory lock, in one round trip (a pipeline).

        Raises PgtendError where writing is not allowed any more, and then nothing has been sent; the psycopg.Error of
        the first statement that fails, with everything rolled back. A lost connection or TimeoutError in the middle
        leaves it open whether the commit happened, so callers observe again.
        """
        self._check()
        connection = self._session.connection
        METRICS.statements.labels(self._session.purpose.value).inc()
        guard = _GUARD.format(
            state=sql.Literal(GUARD_STATE),
            system=sql.Literal(self._identity.system_identifier),
            timeline=sql.Literal(self._identity.timeline),
        )
        take = sql.SQL("SELECT pg_catalog.pg_advisory_xact_lock({}, {})").format(
            sql.Literal(LOCK_CLASS), sql.Literal(lock.value)
        )
        # one simple-protocol message would need one string; a pipeline keeps statements apart and errors exact. BEGIN
        # and COMMIT are sent as they are: connection.transaction() would wait for an answer to each.
        async with self._session.bounded():
            try:
                async with connection.pipeline():
                    for query in (_BEGIN, guard, take, *(statement.query for statement in statements), _COMMIT):
                        await connection.execute(query, prepare=False)
            except psycopg.Error:
                if self._session.usable and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    METRICS.statements.labels(self._session.purpose.value).inc()
                    await connection.execute(_ROLLBACK, prepare=False)
                raise


_NOBODY = frozenset(
    {
        TargetReason.NOT_PROBED,
        TargetReason.CONNECTION_REFUSED,
        TargetReason.CONNECTION_FAILED,
        TargetReason.TIMED_OUT,
        TargetReason.SERVER_STARTING,
    }
)


def primary_lost(error: BaseException) -> bool:
    """Whether a failed write says that the primary is not what or where the last probe found it: the guard stopped it,
    it only reads, it ended our session, or nobody answers there."""
    if isinstance(error, PgtendError):
        return error.reason in _NOBODY
    if isinstance(error, psycopg.Error):
        state = error.sqlstate
        if state is None:
            return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return is_guard(error) or state == "25006" or state.startswith(("08", "57P"))
    return isinstance(error, TimeoutError)


def is_guard(error: psycopg.Error) -> bool:
    """Whether the guard stopped it: the primary has moved, so the target is to be probed again at once."""
    return error.sqlstate == GUARD_STATE
