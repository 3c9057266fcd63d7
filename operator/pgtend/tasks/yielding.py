"""Our own backend, watched while it works: when somebody has had to wait for it for two seconds, it gives way.

A manual VACUUM does not yield by itself, and neither does REINDEX CONCURRENTLY: an ALTER TABLE that waits for it makes
every later query wait in turn. That we have cancelled ourselves is known before the cancel is sent, never read from its
answer, which may come later than its effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum

import psycopg
from psycopg import sql

from pgtend.core.errors import PgtendError
from pgtend.tasks.protocol import Ground

WATCH_EVERY = 0.5
PATIENCE_SECONDS = 2

# pg_blocking_pids takes the lock manager's locks for a moment: asked for waiting sessions only. waitstart: 14 on.
_LOOK = sql.SQL("""
SELECT (SELECT nullif(p.current_locker_pid, 0) FROM pg_catalog.pg_stat_progress_create_index AS p WHERE p.pid = {pid})
         AS locker,
       (SELECT l.pid FROM pg_catalog.pg_locks AS l
        WHERE NOT l.granted AND l.pid <> {pid} AND {harm}
          AND l.waitstart < clock_timestamp() - {patience} * interval '1 second'
          AND {pid} = ANY(pg_catalog.pg_blocking_pids(l.pid))
        ORDER BY l.waitstart LIMIT 1) AS waiter""")
_CANCEL = sql.SQL("SELECT pg_catalog.pg_cancel_backend({pid}) AS sent")


class Harm(Enum):
    """Who must not wait. ANYBODY: all; the work is cheap to take up again. TRAFFIC: whoever waits for a lock that makes
    queries queue behind it. Another VACUUM, ANALYZE or index build waits for ShareUpdateExclusive, or for our
    transaction's end, and nobody's query waits behind those."""

    ANYBODY = "true"
    TRAFFIC = "l.locktype = 'relation' AND l.mode <> 'ShareUpdateExclusiveLock'"


class Watch:
    """What is known about the work's manners. `asked` is set before we cancel our own backend."""

    def __init__(self, ground: Ground, pid: int, harm: Harm) -> None:
        self._ground, self._pid, self._harm = ground, pid, harm
        self._over = asyncio.Event()
        self.asked = False
        self.waiter: int | None = None
        self.locker: int | None = None
        """Whose transaction an index build waits for, as of the last look."""

    @property
    def why(self) -> str:
        return f"pid {self.waiter} waited for it for {PATIENCE_SECONDS} seconds, so it gave way"

    async def run(self) -> None:
        """Until the work is over, or has been cancelled."""
        ground = self._ground
        member = ground.server.member(str(ground.server.writable().primary))
        look = _LOOK.format(
            pid=sql.Literal(self._pid), harm=sql.SQL(self._harm.value), patience=sql.Literal(PATIENCE_SECONDS)
        )
        while not await self._ended(WATCH_EVERY):
            with suppress(PgtendError, psycopg.Error, TimeoutError):
                async with ground.members.acting(ground.server, member) as session:
                    row = (await session.fetch(look))[0]
                    self.locker = row["locker"]
                    if row["waiter"] is not None and not self._over.is_set():
                        self.asked, self.waiter = True, row["waiter"]
                        await session.fetch(_CANCEL.format(pid=sql.Literal(self._pid)))
                        return

    def end(self) -> None:
        self._over.set()

    async def _ended(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        return self._over.is_set()


@asynccontextmanager
async def yielding(ground: Ground, pid: int, *, harm: Harm) -> AsyncIterator[Watch]:
    """Watch the backend `pid` while the block runs. Afterwards no cancel of ours is on its way any more: a look that
    has begun is waited for, which takes no longer than a statement of the emergency session may."""
    watch = Watch(ground, pid, harm)
    running = asyncio.create_task(watch.run(), name=f"watch over pid {pid}")
    try:
        yield watch
    finally:
        watch.end()
        await asyncio.gather(running, return_exceptions=True)
