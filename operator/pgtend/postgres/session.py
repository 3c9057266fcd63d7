"""One open connection: every call has its deadline, and what was interrupted is never used again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg import pq, sql

from pgtend.postgres.flood import Flooded, all_rows, bounded_answer
from pgtend.postgres.login import Address
from pgtend.postgres.purposes import Purpose
from pgtend.telemetry.metrics import METRICS

# how long a statement that is over time may take to be cancelled on the server
GRACE_SECONDS = 1.0
Row = dict[str, Any]
Query = sql.SQL | sql.Composed


class Session:
    """One connection with its purpose. Every call ends within the purpose's deadline; afterwards it is broken."""

    def __init__(
        self, connection: psycopg.AsyncConnection[Row], *, purpose: Purpose, address: Address, login: str
    ) -> None:
        self.connection, self.purpose, self.address = connection, purpose, address
        self.login = login
        """The fingerprint of the credential that opened it."""

    @property
    def usable(self) -> bool:
        """Whether it can be used, as far as the socket tells without asking: a server that restarted, or ended the
        session while it was idle, has said so."""
        pgconn = self.connection.pgconn
        if not self.connection.closed and pgconn.transaction_status == pq.TransactionStatus.IDLE:
            with suppress(psycopg.Error):
                pgconn.consume_input()  # the server's last words, if there are any
                pgconn.consume_input()  # the end
        return not self.connection.closed and not self.connection.broken

    @property
    def server_version(self) -> int:
        """As libpq gives it: 170007."""
        return self.connection.info.server_version

    async def fetch(self, query: Query, params: Sequence[Any] | dict[str, Any] | None = None) -> list[Row]:
        """All rows of one statement, one round trip. Raises psycopg.Error or TimeoutError."""
        METRICS.statements.labels(self.purpose.value).inc()
        async with self.bounded():
            cursor = await self.connection.execute(query, params, prepare=False)
            return await all_rows(cursor) if cursor.description else []

    @asynccontextmanager
    async def bounded(self) -> AsyncIterator[None]:
        """What is awaited inside ends within the purpose's deadline (TimeoutError), brings no more than fits (Flooded),
        and leaves no half-read connection: one that was interrupted is closed."""
        try:
            async with within(self.purpose.limits.deadline):
                with bounded_answer(self.connection):
                    yield
        except (asyncio.CancelledError, TimeoutError, Flooded):
            await self.close()
            raise

    async def close(self) -> None:
        await self.connection.close()


@asynccontextmanager
async def within(seconds: float) -> AsyncIterator[None]:
    """TimeoutError after `seconds` (0: never), and a moment later even where the connection is a black hole.

    psycopg answers the first cancellation by cancelling the query and waiting for its end, five seconds each; the
    second one ends that.
    """
    async with (
        asyncio.timeout(seconds + GRACE_SECONDS if seconds else None),
        asyncio.timeout(seconds or None),
    ):
        yield
