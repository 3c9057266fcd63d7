"""MaintenanceWindow: when disruptive work may run, on which targets, and which tasks run then."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pgtend.api.base import ApiModel, Column, Kind
from pgtend.api.conditions import BaseStatus
from pgtend.api.reasons import WindowReason
from pgtend.api.refs import TargetRef
from pgtend.api.schedule import DEFAULT_TIME_ZONE, Schedule, TimeZoneName, Weekday, Weekly
from pgtend.api.tasks import OPTION_RULES, TaskOptions
from pgtend.api.types import Duration, ItemName, TimeOfDay, Timestamp

_WHICH = "exactly one of targetRefs and targetSelector is needed"
_DAILY = "runPolicy Daily is for types that are not disruptive (VacuumAnalyze)"


class TargetSelector(ApiModel):
    """Labels of PostgresTargets, of the window's own namespace only."""

    match_labels: Annotated[
        dict[Annotated[str, Field(max_length=253)], Annotated[str, Field(max_length=63)]],
        Field(min_length=1, max_length=16),
    ]


class Closing(ApiModel):
    """Both count back from the window's end."""

    last_start: Duration = Duration("20m")
    """Nothing starts in the last part of a window."""
    cancel: Duration = Duration("5m")
    """What still runs so long before the end is cancelled."""


class Exclusion(ApiModel):
    """A span, its end excluded, in which no window is open. It beats everything, OverrideWindow too."""

    name: ItemName
    from_: Annotated[Timestamp, Field(alias="from")]
    to: Timestamp
    reason: Annotated[str | None, Field(max_length=256)] = None


class PauseWhile(ApiModel):
    """No item starts while any of these is exceeded; what runs goes on."""

    replication_lag: Duration = Duration("30s")
    """Of any standby that streams from the primary."""
    transaction_age: Duration = Duration("10m")
    """Of the oldest transaction of somebody else."""


class WindowTask(TaskOptions):
    """One type of work; `type` says which of the options may be given."""

    run_policy: Literal["InWindow", "Daily"] = "InWindow"
    """Daily runs once a day, at the time of day at which the window starts, on days without a window too."""
    execution: Literal["Run", "DryRun"] = "Run"
    """DryRun reports what would be done."""
    timeout: Duration | None = None
    """Default: to the window's end."""
    cel = (
        *OPTION_RULES,
        ("!has(self.runPolicy) || self.runPolicy != 'Daily' || self.type == 'VacuumAnalyze'", _DAILY),
    )

    @model_validator(mode="after")
    def _online(self) -> Self:
        if getattr(self, "run_policy", None) == "Daily" and self.type != "VacuumAnalyze":
            raise ValueError(_DAILY)
        return self


class WindowSpec(ApiModel):
    """When and where. Several windows of one target: the union counts, and the rarer is served first."""

    target_refs: Annotated[tuple[TargetRef, ...] | None, Field(min_length=1, max_length=64)] = None
    target_selector: TargetSelector | None = None
    suspend: bool = False
    mode: Literal["Observe", "Enforce"] = "Enforce"
    """Observe plans only. The target's own mode counts too, the stricter wins."""
    time_zone: TimeZoneName = DEFAULT_TIME_ZONE
    schedule: Schedule = Schedule(weekly=Weekly(days=(Weekday.SUNDAY,), at=TimeOfDay("02:00")))
    duration: Duration = Duration("2h")
    """Elapsed time, whatever the clock does meanwhile; the end is excluded."""
    closing: Closing = Closing()
    exclusions: Annotated[
        tuple[Exclusion, ...], Field(max_length=32, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = ()
    max_concurrent_targets: Annotated[int, Field(ge=1, le=64)] = 5
    stop_after_failures: Annotated[int, Field(ge=1, le=64)] = 1
    """After so many targets have failed in one window, no other begins in it."""
    pause_while: PauseWhile = PauseWhile()
    tasks: Annotated[
        tuple[WindowTask, ...], Field(min_length=1, max_length=16, json_schema_extra={"x-list-map-keys": ["type"]})
    ]
    cel = (("has(self.targetRefs) != has(self.targetSelector)", _WHICH),)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        # getattr: a default is checked on an object that has no other fields yet
        if getattr(self, "tasks", None) and (self.target_refs is None) == (self.target_selector is None):
            raise ValueError(_WHICH)
        return self


class Span(ApiModel):
    """One opening, its end excluded."""

    starts_at: Timestamp
    ends_at: Timestamp


class TargetsStatus(ApiModel):
    matched: int
    running: int
    failed: int
    """In the last window."""


class LastRunStatus(ApiModel):
    """Of the run that ended last, on whichever target."""

    started_at: Timestamp | None = None
    finished_at: Timestamp
    succeeded: int
    deferred: int
    failed: int


class WindowStatus(BaseStatus):
    targets: TargetsStatus | None = None
    next_at: Timestamp | None = None
    current: Span | None = None
    """While the window is open."""
    upcoming: Annotated[tuple[Span, ...], Field(max_length=3)] = ()
    last_run: LastRunStatus | None = None


MAINTENANCE_WINDOW = Kind(
    name="MaintenanceWindow",
    plural="maintenancewindows",
    short="pgmw",
    spec=WindowSpec,
    status=WindowStatus,
    reasons=WindowReason,
    conditions=("Accepted", "Active", "Unblocked"),
    columns=(
        Column(name="Ready", json_path='.status.conditions[?(@.type=="Ready")].status'),
        Column(name="Active", json_path='.status.conditions[?(@.type=="Active")].status'),
        Column(name="Unblocked", json_path='.status.conditions[?(@.type=="Unblocked")].status'),
        Column(name="Reason", json_path=".status.worst.reason"),
        Column(name="Since", json_path=".status.worst.since", type="date"),
        Column(name="Targets", json_path=".status.targets.matched", type="integer"),
        Column(name="Next", json_path=".status.nextAt"),
        Column(name="Age", json_path=".metadata.creationTimestamp", type="date"),
    ),
    name_max_length=40,
    description="When disruptive work may run, on which targets, and which tasks run then.",
)
