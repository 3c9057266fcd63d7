"""What one probe of one member found, as values: what the judges work on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pgtend.core.errors import PgtendError


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """One session without its query's text. `seconds` is how long its statement (or idleness) has lasted."""

    pid: int
    user: str
    database: str
    application: str
    seconds: float

    def __str__(self) -> str:
        application = f", {self.application}" if self.application else ""
        return f"pid {self.pid} ({self.user} in {self.database}{application})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A session that waits for a lock: since how many seconds, and for which pids."""

    session: SessionInfo
    seconds: float
    blockers: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """`limit` is max_connections less what is reserved; lists are longest first and hold at most 20 (waiting: 50)."""

    limit: int
    used: int
    by_role: tuple[tuple[str, int], ...]
    long_queries: tuple[SessionInfo, ...]
    idle: tuple[SessionInfo, ...]
    blocked: tuple[Blocked, ...]
    sessions: Mapping[int, SessionInfo]
    upkeep: Upkeep


@dataclass(frozen=True, slots=True, kw_only=True)
class Age:
    """How many transaction and multixact ids ago the oldest of a database was given out that is not frozen yet."""

    database: str
    xids: int
    multixacts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whoever keeps VACUUM from freezing what is younger than `xids` ids."""

    what: str
    xids: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A replication slot. `retained` is the WAL in bytes that the server keeps for it; None where it keeps none."""

    name: str
    kind: str
    active: bool
    lost: bool
    retained: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Archiver:
    """`failing` is the file that the last attempt failed on, None when the last one succeeded. `archived_age` is
    seconds since the last success, `waiting` bytes of WAL written since then; None where nothing was archived yet."""

    mode: str
    failing: str | None
    failures: int
    archived_age: float | None
    waiting: int | None
    segment: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """`ages` are the three oldest databases, the oldest first; `slot_limit` is max_slot_wal_keep_size in bytes, None
    where it is unlimited."""

    ages: tuple[Age, ...]
    holder: Holder | None
    slots: tuple[Slot, ...]
    slot_limit: int | None
    archiver: Archiver


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """One pool of a PgBouncer, per database and user. `wait` is how many seconds the first client has waited."""

    database: str
    user: str
    servers: int
    size: int
    waiting: int
    wait: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolerReading:
    pools: tuple[Pool, ...] = ()
    error: PgtendError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One member as it was seen. `error` is set, and all else empty, where it could not be read.

    LSNs are byte positions; `replay_age` is seconds since the last replayed transaction's commit (None: never).
    """

    member: str
    error: PgtendError | None = None
    in_recovery: bool = False
    system_identifier: str = ""
    timeline: int | None = None
    flush_lsn: int | None = None
    replay_lsn: int | None = None
    replay_age: float | None = None
    started: str = ""
    version: str = ""
    sees_stats: bool = True
    has_receiver: bool = False
    receiver_status: str | None = None
    activity: Activity | None = None
    at: datetime | None = None

    @property
    def writable(self) -> bool:
        return self.error is None and not self.in_recovery
