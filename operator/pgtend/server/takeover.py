"""What an earlier leader left on a server ends before this one writes there (safety.md, "Sessions").

A leader that was frozen, or cut off from the API server, loses its Lease, but the server goes on with the statement it
was sent, and a session of its may still hold a lock. So before the first write of a term on a member, and before the
first act there, older backends of this installation that write (purposes lane, work, signal) are terminated and waited
for. Once per member and term, one round trip where nothing is left.

"Older" is told by the server's clock alone: older than our own session, less the time for which we had led when we
began to open it. A process that slept in between cannot end sessions of its successor by that.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager

import psycopg
from psycopg import sql

from pgtend.api.reasons import TargetReason
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.session import Row, Session

log = logging.getLogger(__name__)
WRITING = (Purpose.DDL, Purpose.WORK, Purpose.SIGNAL)
# seconds that an ended backend may take to go, and between two looks
PATIENCE = 5.0
LOOK_EVERY = 0.1

# A role may end its own sessions; with pg_signal_backend those of others, but no superuser's. Backends of other roles
# show their start to members of pg_read_all_stats only. No relation but shared catalogs; all majors from 14.
_END = sql.SQL("""
WITH me AS (
  SELECT a.usesysid, a.backend_start - pg_catalog.make_interval(secs => {age}) AS since, r.rolsuper,
         pg_catalog.pg_has_role(a.usesysid, 'pg_signal_backend', 'USAGE')
           AND pg_catalog.pg_has_role(a.usesysid, 'pg_read_all_stats', 'USAGE') AS others,
         (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) = {system} AS here
  FROM pg_catalog.pg_stat_activity AS a JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
  WHERE a.pid = pg_catalog.pg_backend_pid()),
old AS (
  SELECT a.pid, a.backend_start, a.application_name, pg_catalog.pg_terminate_backend(a.pid) AS sent
  FROM me JOIN pg_catalog.pg_stat_activity AS a ON me.here
    AND a.backend_type = 'client backend' AND a.backend_start < me.since AND a.pid <> ALL({own}::int[])
    AND pg_catalog.split_part(a.application_name, '/', 1) = 'pgtend'
    AND pg_catalog.split_part(a.application_name, '/', 2) = {installation}
    AND pg_catalog.split_part(a.application_name, '/', 3) = ANY({purposes})
    AND a.usename = ANY({users})
  JOIN pg_catalog.pg_roles AS r ON r.oid = a.usesysid
    AND (a.usesysid = me.usesysid OR me.others AND (me.rolsuper OR NOT r.rolsuper)))
SELECT me.here, me.others,
       (SELECT pg_catalog.array_agg(pid || ' ' || backend_start::text) FROM old) AS ended
FROM me""")
_LEFT = sql.SQL("""
SELECT pid FROM pg_catalog.pg_stat_activity WHERE pid || ' ' || backend_start::text = ANY({ended}) ORDER BY 1""")

Opened = Callable[[], AbstractAsyncContextManager[Session]]


class Takeover:
    """Of one Server. `age` tells of a session how long we had led when we began to open it, in seconds; `own` are the
    pids of the sessions that we hold."""

    def __init__(
        self, *, installation: str, age: Callable[[Session], float], own: Callable[[], Collection[int]]
    ) -> None:
        self._installation, self._age, self._own = installation, age, own
        self._settled: set[tuple[str, str]] = set()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ensure(
        self, session: Session, *, user: str, system: str, users: Collection[str], others: Sequence[tuple[str, Opened]]
    ) -> None:
        """What is older than our term has ended on this member, as far as `user`, who is logged in, may end it.

        `users` are all logins of the target. Those whose sessions `user` may not end do it themselves, by `others`;
        where one of them cannot log in, its own first write does. Raises PgtendError TakingOver where something does
        not end, psycopg.Error or TimeoutError. Another system than `system` is left alone: the write's guard tells.
        """
        member = session.address.name
        if (member, user) in self._settled:
            return
        async with self._locks[member]:
            if (member, user) in self._settled:
                return
            if not await self._end(session, user=user, system=system, users=users):
                return
            for name, opened in others:
                if (member, name) in self._settled:
                    continue
                try:
                    async with opened() as other:
                        await self._end(other, user=name, system=system, users=users)
                except (PgtendError, psycopg.Error, TimeoutError) as error:
                    if isinstance(error, PgtendError) and error.reason is TargetReason.TAKING_OVER:
                        raise
                    text = error.message if isinstance(error, PgtendError) else " ".join(str(error).split())
                    log.warning("older sessions not ended", extra={"member": member, "user": name, "cause": text})

    async def _end(self, session: Session, *, user: str, system: str, users: Collection[str]) -> bool:
        """Whether this is our system; then nothing older of `user` is left."""
        failpoint("server.takeover.before")
        (row,) = await session.fetch(
            _END.format(
                age=sql.Literal(self._age(session)),
                system=sql.Literal(system),
                own=sql.Literal(sorted(self._own())),
                installation=sql.Literal(self._installation),
                purposes=sql.Literal([purpose.value for purpose in WRITING]),
                users=sql.Literal(sorted(users)),
            )
        )
        if not row["here"]:
            return False
        if row["ended"]:
            await self._wait(session, row)
        member = session.address.name
        self._settled.update((member, name) for name in (users if row["others"] else (user,)))
        failpoint("server.takeover.after")
        return True

    async def _wait(self, session: Session, row: Row) -> None:
        member, ended = session.address.name, row["ended"]
        log.info("sessions of an earlier leader ended", extra={"member": member, "count": len(ended)})
        left: list[Row] = []
        for _ in range(int(PATIENCE / LOOK_EVERY)):
            left = await session.fetch(_LEFT.format(ended=sql.Literal(ended)))
            if not left:
                return
            await asyncio.sleep(LOOK_EVERY)
        pids = ", ".join(str(one["pid"]) for one in left)
        text = f"on {member} sessions of an earlier leader do not end (pid {pids}): nothing is written while they run"
        raise PgtendError(TargetReason.TAKING_OVER, text, object=member)
