"""How soon a target is probed again, and how long one probe waits for a member. Pure.

While there is no primary, a standby may be promoted at any moment and everybody waits for it: probes come each second,
and a member that has just been silent is not waited for as long as one that might be slow (api.md: writes go on within
5 s of an asynchronous failover, also where the former primary has become a black hole).
"""

from __future__ import annotations

from collections.abc import Sequence

from pgtend.api.reasons import TargetReason
from pgtend.targets.reading import Reading

IMPATIENT = 1.0
# seconds for which an unreachable target is probed each second: it may only be starting
PATIENCE = 60.0
PROBE_SECONDS = 10.0
SILENT_SECONDS = 1.5
# each of so many probes in a hurry waits long after all, else a slow primary would never be found
THOROUGH = 8


class Pace:
    """Of one target, from probe to probe."""

    def __init__(self) -> None:
        self._lost_since: float | None = None
        self._silent: frozenset[str] = frozenset()
        self._hurried = 0

    def patience(self, member: str) -> float:
        """Seconds to wait for this member in the probe that begins."""
        hurry = self._lost_since is not None and self._hurried % THOROUGH
        return SILENT_SECONDS if hurry and member in self._silent else PROBE_SECONDS

    def next(self, *, primary: str | None, readings: Sequence[Reading], interval: float, now: float) -> float:
        """Seconds until the next probe, after one that has ended at `now` (monotonic)."""
        self._silent = frozenset(r.member for r in readings if r.error and r.error.reason is TargetReason.TIMED_OUT)
        if primary is not None:
            self._lost_since, self._hurried = None, 0
            return interval
        self._hurried += 1
        if self._lost_since is None:
            self._lost_since = now
        answering = any(r.error is None for r in readings)
        return min(IMPATIENT, interval) if answering or now - self._lost_since < PATIENCE else interval
