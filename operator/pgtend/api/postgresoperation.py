"""PostgresOperation: one task, once, because somebody asked; immutable, bounded in time, and its own record."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pgtend.api.base import ApiModel, Column, Kind
from pgtend.api.conditions import BaseStatus
from pgtend.api.pod import PodSettings
from pgtend.api.reasons import OperationReason
from pgtend.api.refs import TargetRef
from pgtend.api.restore import RestoreOptions
from pgtend.api.tasks import OPTION_RULES, ReindexOptions, VacuumAnalyzeOptions, VacuumFullOptions, check_options
from pgtend.api.types import Duration, Timestamp

Pattern = Annotated[str, Field(min_length=1, max_length=128)]
Patterns = Annotated[tuple[Pattern, ...], Field(max_length=64)]


class QuerySelect(ApiModel):
    """Which sessions. A list that is left out means all; patterns know `*` only."""

    states: Annotated[tuple[Literal["Active", "IdleInTransaction", "Idle"], ...], Field(min_length=1, max_length=3)] = (
        "Active",
    )
    longer_than: Duration = Duration("5m")
    """Since the query began; of idle ones, since they became idle."""
    databases: Patterns = ()
    users: Patterns = ()
    applications: Patterns = ()
    """Dumps and backups are spared unless a pattern here names them."""
    pids: Annotated[tuple[Annotated[int, Field(ge=1, le=4194304)], ...], Field(max_length=50)] = ()


class TerminateQueriesOptions(ApiModel):
    select: QuerySelect = QuerySelect()
    max_victims: Annotated[int, Field(ge=1, le=50)]
    """With more victims than this nobody is touched."""


_FIELDS = (
    "targetRef", "type", "execution", "runPolicy", "reason", "requestedBy", "notAfter", "timeout", "terminateQueries",
    "vacuumAnalyze", "reindex", "vacuumFull", "restore", "pod",
)  # fmt: skip

_AT_ONCE = "TerminateQueries runs at once: leave runPolicy out"
_RESTORE = "type Restore comes with restore, and no other type does"
_POD = "pod is for type Restore: no other starts one"
_TIMEOUT, _RESTORE_TIMEOUT = Duration("10m"), Duration("24h")
_OVERRIDE = "runPolicy OverrideWindow is for types that need a window (Reindex, VacuumFull)"


def _immutable(field: str) -> tuple[str, str]:
    same = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
    return same, f"{field} is immutable, as all but cancel: make another PostgresOperation instead"


class OperationSpec(ApiModel):
    """Immutable but `cancel`."""

    target_ref: TargetRef
    type: Literal["TerminateQueries", "VacuumAnalyze", "Reindex", "VacuumFull", "Restore"]
    execution: Literal["Run", "DryRun"] = "Run"
    run_policy: Literal["Immediately", "InWindow", "OverrideWindow"] | None = None
    """InWindow for Reindex and VacuumFull, Immediately for the others. OverrideWindow runs although no window is open;
    dumps and exclusions hold all the same."""
    reason: Annotated[str, Field(min_length=1, max_length=512)]
    """Why, for the record."""
    requested_by: Annotated[str | None, Field(min_length=1, max_length=253)] = None
    """Who asks. Without the chart's admission policy this is a claim."""
    not_after: Timestamp
    """The last moment at which it may start, at most 7 days ahead; later it is Expired."""
    timeout: Duration | None = None
    """How long it may run once it has started. Default: 10m, of a Restore 24h."""
    cancel: bool = False
    """Stops it, or keeps it from starting."""
    terminate_queries: TerminateQueriesOptions | None = None
    vacuum_analyze: VacuumAnalyzeOptions | None = None
    reindex: ReindexOptions | None = None
    vacuum_full: VacuumFullOptions | None = None
    restore: RestoreOptions | None = None
    pod: Annotated[PodSettings | None, Field(default=None)] = None
    """Of a Restore's pod."""
    cel = (
        *(_immutable(field) for field in _FIELDS),
        *OPTION_RULES,
        ("!has(self.runPolicy) || self.runPolicy == 'Immediately' || self.type != 'TerminateQueries'", _AT_ONCE),
        (
            "!has(self.runPolicy) || self.runPolicy != 'OverrideWindow' || self.type in ['Reindex', 'VacuumFull']",
            _OVERRIDE,
        ),
        ("!has(oldSelf.cancel) || !oldSelf.cancel || self.cancel", "cancel cannot be taken back"),
        (
            "(self.type == 'TerminateQueries') == has(self.terminateQueries)",
            "type TerminateQueries comes with terminateQueries, and no other type does",
        ),
        ("(self.type == 'Restore') == has(self.restore)", _RESTORE),
        ("!has(self.pod) || self.type == 'Restore'", _POD),
    )

    @property
    def limit(self) -> Duration:
        """How long it may run."""
        return self.timeout or (_RESTORE_TIMEOUT if self.type == "Restore" else _TIMEOUT)

    @model_validator(mode="after")
    def _options(self) -> Self:
        # getattr: a default is checked on an object that has no other fields yet
        if getattr(self, "type", None) == "TerminateQueries" and self.terminate_queries is None:
            raise ValueError("type TerminateQueries comes with terminateQueries, and no other type does")
        if getattr(self, "type", None) is not None:
            self._one_way()
        return self

    def _one_way(self) -> None:
        if self.type != "TerminateQueries" and self.terminate_queries is not None:
            raise ValueError("type TerminateQueries comes with terminateQueries, and no other type does")
        if (self.type == "Restore") != (self.restore is not None):
            raise ValueError(_RESTORE)
        if self.type != "Restore" and self.pod is not None:
            raise ValueError(_POD)
        check_options(self, self.type)
        if self.type == "TerminateQueries" and self.run_policy not in (None, "Immediately"):
            raise ValueError(_AT_ONCE)
        if self.run_policy == "OverrideWindow" and self.type not in ("Reindex", "VacuumFull"):
            raise ValueError(_OVERRIDE)


class PlanStatus(ApiModel):
    """What would be, or was, done."""

    items: int
    estimate: Annotated[str | None, Field(max_length=16)] = None
    lock: Annotated[str, Field(max_length=32)]
    sql: Annotated[tuple[Annotated[str, Field(max_length=256)], ...], Field(max_length=10)] = ()


class SizeStatus(ApiModel):
    before: Annotated[str | None, Field(max_length=16)] = None
    after: Annotated[str | None, Field(max_length=16)] = None


class ItemStatus(ApiModel):
    """One object and what came of it."""

    type: Annotated[str, Field(max_length=32)]
    object: Annotated[str, Field(max_length=256)]
    outcome: Annotated[str, Field(max_length=32)]
    sql: Annotated[str | None, Field(max_length=256)] = None
    sql_state: Annotated[str | None, Field(max_length=5)] = None
    estimate: Annotated[str | None, Field(max_length=16)] = None
    actual: Annotated[str | None, Field(max_length=16)] = None
    size: SizeStatus | None = None
    user: Annotated[str | None, Field(max_length=63)] = None
    database: Annotated[str | None, Field(max_length=63)] = None
    running: Annotated[str | None, Field(max_length=16)] = None
    message: Annotated[str | None, Field(max_length=256)] = None


class ClaimedStatus(ApiModel):
    """An item that was claimed and is not finished: what is needed to look for it after a crash."""

    object: Annotated[str, Field(max_length=256)]
    facts: Annotated[dict[str, Annotated[str, Field(max_length=128)]], Field(max_length=8)]


class JournalStatus(ApiModel):
    """Proves that this status is the operator's own, and says what was claimed before it was begun.

    `mark` is `<installationID>/<uid of the object>`: a status that came with the object from elsewhere has another.
    """

    mark: Annotated[str, Field(max_length=64)]
    claimed_at: Timestamp | None = None
    claimed_by: Annotated[str | None, Field(max_length=64)] = None
    """The process that claimed it."""
    deadline: Timestamp | None = None
    unfinished: Annotated[tuple[ClaimedStatus, ...], Field(max_length=50)] = ()


class OperationStatus(BaseStatus):
    plan_hash: Annotated[str | None, Field(max_length=80)] = None
    plan: PlanStatus | None = None
    progress: Annotated[str | None, Field(max_length=16)] = None
    """Done of planned."""
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    items: Annotated[tuple[ItemStatus, ...], Field(max_length=50)] = ()
    truncated: bool | None = None
    """Whether there are more items than are listed."""
    items_config_map: Annotated[str | None, Field(max_length=253)] = None
    """The ConfigMap that has them all, where there are more."""
    next_at: Timestamp | None = None
    """When it is looked at again, while it waits for a window."""
    changes: int | None = None
    """How many things were changed."""
    journal: JournalStatus | None = None


POSTGRES_OPERATION = Kind(
    name="PostgresOperation",
    plural="postgresoperations",
    short="pgop",
    spec=OperationSpec,
    status=OperationStatus,
    reasons=OperationReason,
    conditions=("Accepted", "Complete"),
    columns=(
        Column(name="Target", json_path=".spec.targetRef.name"),
        Column(name="Type", json_path=".spec.type"),
        Column(name="Ready", json_path='.status.conditions[?(@.type=="Ready")].status'),
        Column(name="Reason", json_path=".status.worst.reason"),
        Column(name="Progress", json_path=".status.progress"),
        Column(name="By", json_path=".spec.requestedBy"),
        Column(name="Age", json_path=".metadata.creationTimestamp", type="date"),
    ),
    selectable=(".spec.targetRef.name",),
    description="One run of one operation.",
)
