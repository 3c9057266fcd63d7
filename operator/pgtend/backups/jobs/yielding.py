"""Ends a dump for whoever has waited too long to change a table that it has locked: a dump of hours must not keep a
migration, and everybody who queues behind that, for hours."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import psycopg
from psycopg import sql

from pgtend.backups.jobs.config import JobReason
from pgtend.backups.jobs.session import Connection
from pgtend.backups.jobs.snapshot import first_line
from pgtend.core.errors import PgtendError

EVERY = 1.0

# 14 to 18; waitstart is unset for a moment after the wait has begun. pg_blocking_pids takes the lock manager's locks,
# so it is asked of those alone who have waited long enough.
_WAITING = sql.SQL("""
WITH waiting AS MATERIALIZED (
  SELECT l.pid, l.relation, l.mode, l.waitstart FROM pg_locks l
  WHERE NOT l.granted AND l.locktype = 'relation' AND l.waitstart < clock_timestamp() - %(after)s * interval '1 s'
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
SELECT w.pid, n.nspname, c.relname, w.mode, coalesce(a.usename, '?'),
       extract(epoch FROM clock_timestamp() - w.waitstart)::float8
FROM waiting w JOIN pg_class c ON c.oid = w.relation JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stat_activity a ON a.pid = w.pid
WHERE %(holder)s = ANY (pg_blocking_pids(w.pid))
ORDER BY w.waitstart LIMIT 1
""")


class Yielder:
    """Looks once a second, on a session of its own, who waits for `holder`, the session that holds a dump's locks.
    `give_up` is called once, from another thread, when somebody has waited `after` seconds; `verdict` then says who."""

    def __init__(self, connection: Connection, *, holder: int, after: float) -> None:
        self._connection, self._holder, self._after = connection, holder, after
        self._done = threading.Event()
        self.verdict: PgtendError | None = None

    def watch(self, give_up: Callable[[], None]) -> None:
        """Until `stop`. What goes wrong here is the verdict, too: a guard that fails must not fail unseen."""
        while not self._done.wait(min(EVERY, self._after)):
            try:
                row = self._connection.execute(_WAITING, {"after": self._after, "holder": self._holder}).fetchone()
            except psycopg.Error as error:
                if self._done.is_set():
                    return
                text = f"the session that looks who waits for the dump is gone: {first_line(error)}"
                self.verdict = PgtendError(JobReason.SNAPSHOT_LOST, text)
            else:
                if row is None:
                    continue
                pid, schema, name, mode, user, seconds = row
                self.verdict = PgtendError(
                    JobReason.YIELDED_TO_DDL,
                    f"pid {pid} of {user} waited {seconds:.0f} s for {mode} on {schema}.{name}, and the dump ended to"
                    " let it pass (spec.dump.yieldToDDLAfter)",
                    object=f"{schema}.{name}",
                )
                self._let_go()
            give_up()
            return

    def _let_go(self) -> None:
        """At once: the dump takes a while to end, since parts are on their way to the store. It is our own role's."""
        with suppress(psycopg.Error):
            self._connection.execute("SELECT pg_terminate_backend(%s)", (self._holder,))

    def stop(self) -> None:
        self._done.set()
