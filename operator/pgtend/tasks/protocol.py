"""What every task gives and takes, so that a window and an operation run the same code and tell the same story."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Protocol, runtime_checkable

from pgtend.api.conditions import Reason
from pgtend.core.actions import Repeat
from pgtend.gate.classes import TaskType
from pgtend.gate.decide import Permit
from pgtend.server.member import MemberSessions
from pgtend.server.server import Server


class LockLevel(StrEnum):
    """The strongest lock that an item takes on its object, in SQL's words without spaces."""

    NONE = "None"
    SHARE_UPDATE_EXCLUSIVE = "ShareUpdateExclusive"
    ACCESS_EXCLUSIVE = "AccessExclusive"


class Staying(str):
    """A line of a sweep about what could not be taken away yet."""

    __slots__ = ()


class Outcome(StrEnum):
    """How one item ended. `final` says whether the item is done with in this run; `group` is where it is counted."""

    group: str

    def __new__(cls, value: str, group: str) -> Outcome:
        member = str.__new__(cls, value)
        member._value_ = value
        member.group = group
        return member

    PLANNED = "Planned", "planned"
    SUCCEEDED = "Succeeded", "succeeded"
    DEFERRED_NO_TIME = "DeferredNoTime", "deferred"
    DEFERRED_LOCKED = "DeferredLocked", "deferred"
    """Somebody held a lock; we do not queue behind them."""
    DEFERRED_BLOCKING = "DeferredBlocking", "deferred"
    """Somebody had to wait for us, so we gave way."""
    CANCELLED = "Cancelled", "cancelled"
    FAILED = "Failed", "failed"
    INTERRUPTED = "Interrupted", "failed"
    """The operator ended in between and the database does not tell whether it was done."""


_OUTCOMES = {str(outcome): outcome for outcome in Outcome}


def outcome_of(text: str) -> Outcome:
    """The outcome of this name; FAILED for a word that is none."""
    return _OUTCOMES.get(text, Outcome.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object's share of a task.

    `object` is what people read, `sql` what is sent (without its values where these are nobody's business), `estimate`
    is in seconds and None where nothing is known, `size_before` in bytes. `facts` is what the task itself needs to find
    the object again, as text; `shown` is what people read beside the object (user, database, running).
    """

    type: TaskType
    object: str
    verb: str
    sql: str
    lock: LockLevel = LockLevel.NONE
    database: str | None = None
    schema: str | None = None
    name: str | None = None
    estimate: float | None = None
    size_before: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    shown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResult:
    """What came of an item. `actual` is in seconds, sizes are in bytes (`size_before` where it is known better than
    when it was planned), `sql_state` is of the error that ended it. `reason` where a failure has one of its own."""

    outcome: Outcome
    actual: float = 0.0
    size_before: int | None = None
    size_after: int | None = None
    sql_state: str | None = None
    message: str = ""
    reason: Reason | None = None


class Breach(Enum):
    """Why a plan may not be carried out at all."""

    TOO_MANY_VICTIMS = "TooManyVictims"
    MISSING_PRIVILEGE = "MissingPrivilege"
    EXTENSION_MISSING = "ExtensionMissing"
    DISK_UNKNOWN = "DiskUnknown"
    MUST_BE_IN_TARGET_NAMESPACE = "MustBeInTargetNamespace"
    BACKUP_NOT_AVAILABLE = "BackupNotAvailable"
    DATABASE_NOT_IN_BACKUP = "DatabaseNotInBackup"
    DATABASE_NOT_EMPTY = "DatabaseNotEmpty"
    VERSION_MISMATCH = "VersionMismatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """A breach with its text: object, number, next step."""

    breach: Breach
    message: str
    object: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """What would be done, in order. `notes` is what people should know besides; `objection` forbids the run."""

    type: TaskType
    items: tuple[Item, ...]
    plan_hash: str
    sql: tuple[str, ...]
    notes: tuple[str, ...] = ()
    objection: Objection | None = None

    @property
    def estimate(self) -> float | None:
        """Seconds for everything, None where an item's is not known."""
        known = [item.estimate for item in self.items if item.estimate is not None]
        return sum(known) if len(known) == len(self.items) else None

    @property
    def lock(self) -> LockLevel:
        """The strongest lock of any item."""
        order = list(LockLevel)
        return max((item.lock for item in self.items), key=order.index, default=LockLevel.NONE)


def plan_hash(
    *,
    type: TaskType,
    system_identifier: str,
    items: Sequence[Item] = (),
    selector: Mapping[str, object] | None = None,
) -> str:
    """`sha256:<hex>` over type, target identity and the ordered (object, verb, SQL, lock level): not over estimates,
    sizes or pids. Emergency types give `selector` (with maxVictims) in place of items: victims change while one looks.
    """
    body: dict[str, object] = {"type": str(type), "system": system_identifier}
    if selector is not None:
        body["selector"] = dict(selector)
    else:
        body["items"] = [[item.object, item.verb, item.sql, str(item.lock)] for item in items]
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where a task works: the target's server, and the sessions on its members that are kept for acting at once."""

    server: Server
    members: MemberSessions


GOES_ON = "goes on"
"""The verb of an item that another process began and that is followed, never begun again."""


class Task(Protocol):
    """A type of work with its options. A task keeps no state between calls."""

    @property
    def type(self) -> TaskType: ...

    @property
    def repeat(self) -> Repeat:
        """ONCE: claimed in the journal before it starts and never repeated by itself."""

    @property
    def together(self) -> bool:
        """Whether all items are carried out in one go; else one after the other, with the gate asked before each."""

    async def plan(self, ground: Ground) -> TaskPlan:
        """Look, change nothing. Works in Observe too. Raises PgtendError where the target cannot be read."""

    def run(self, ground: Ground, permit: Permit, items: Sequence[Item]) -> AsyncIterator[tuple[Item, ItemResult]]:
        """Carry out what was planned; gives each item's result as it is known. Cancelled by closing or cancelling it:
        then nothing of it goes on in the database.

        Raises PgtendError where writing is not allowed any more; what was reported until then is done."""

    async def sweep(self, ground: Ground, items: Sequence[Item]) -> tuple[str, ...]:
        """Remove what an aborted run of these items has left behind, and only that. Gives one line for each removal."""

    async def find(self, ground: Ground, items: Sequence[Item]) -> Mapping[str, ItemResult]:
        """After a crash: what the database tells about items that were claimed, by object. What it does not tell is
        left out. Raises PgtendError where it cannot be asked."""


@runtime_checkable
class Outliving(Protocol):
    """A task, besides, whose work goes on without this process, in a pod of its own. The next process follows it: `run`
    is given items of the verb GOES_ON then, and begins nothing."""

    async def going_on(self, items: Sequence[Item]) -> frozenset[str]:
        """The objects of those items that are worked at, or whose end nobody has read. Raises PgtendError."""

    async def halt(self, items: Sequence[Item]) -> tuple[str, ...]:
        """End the work at these items and wait until it has ended. Gives one line for each. Raises PgtendError."""
