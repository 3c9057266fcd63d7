"""Timeouts by purpose (safety.md, "Sessions"): set after connecting and read back, never as startup options, which
PgBouncer refuses or silently drops."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Milliseconds; 0 is without limit. `deadline` (seconds) is our own, on the client."""

    statement: int
    lock: int
    idle_in_transaction: int
    deadline: float


class Purpose(Enum):
    """What a session is for. The value goes into application_name."""

    PROBE = "probe"
    CATALOG = "catalog"
    DDL = "lane"
    WORK = "work"
    SIGNAL = "signal"

    @property
    def limits(self) -> Limits:
        return _LIMITS[self]


_LIMITS = {
    # no relation sizes in a probe: they queue behind a waiting exclusive lock
    Purpose.PROBE: Limits(statement=2_000, lock=200, idle_in_transaction=5_000, deadline=4.0),
    Purpose.CATALOG: Limits(statement=30_000, lock=1_000, idle_in_transaction=10_000, deadline=35.0),
    Purpose.DDL: Limits(statement=30_000, lock=3_000, idle_in_transaction=10_000, deadline=35.0),
    Purpose.WORK: Limits(statement=0, lock=0, idle_in_transaction=0, deadline=0.0),
    Purpose.SIGNAL: Limits(statement=5_000, lock=1_000, idle_in_transaction=5_000, deadline=8.0),
}
