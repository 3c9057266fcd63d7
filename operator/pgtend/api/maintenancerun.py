"""MaintenanceRun: the record of one window on one target, written by the operator alone."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pgtend.api.base import RECORDS_CATEGORY, ApiModel, Column, Kind
from pgtend.api.conditions import BaseStatus
from pgtend.api.postgresoperation import JournalStatus, SizeStatus
from pgtend.api.reasons import RunReason
from pgtend.api.refs import LocalRef
from pgtend.api.types import NamespaceName, ObjectName, Timestamp


class WindowRef(ApiModel):
    name: ObjectName
    namespace: Annotated[NamespaceName | None, Field(default=None)] = None
    """Default: the run's own namespace."""


class RunSpec(ApiModel):
    """Immutable; written as soon as there is a plan."""

    window_ref: WindowRef
    target_ref: LocalRef
    starts_at: Timestamp
    """Of the window."""
    ends_at: Timestamp
    """Excluded."""
    plan_hash: Annotated[str, Field(max_length=80)]
    """Of the plan as it was when this was written; it is made anew when the window opens."""
    cel = (("self == oldSelf", "a MaintenanceRun is a record: change the MaintenanceWindow instead"),)


class CountsStatus(ApiModel):
    succeeded: int = 0
    deferred: int = 0
    cancelled: int = 0
    failed: int = 0


class ResumeStatus(ApiModel):
    """Where the next window goes on."""

    type: Annotated[str, Field(max_length=32)]
    object: Annotated[str, Field(max_length=256)]


class RunItemStatus(ApiModel):
    """One object and what came of it."""

    type: Annotated[str, Field(max_length=32)]
    object: Annotated[str, Field(max_length=256)]
    outcome: Annotated[str, Field(max_length=32)]
    sql: Annotated[str | None, Field(max_length=256)] = None
    sql_state: Annotated[str | None, Field(max_length=5)] = None
    estimate: Annotated[str | None, Field(max_length=16)] = None
    actual: Annotated[str | None, Field(max_length=16)] = None
    size: SizeStatus | None = None
    message: Annotated[str | None, Field(max_length=256)] = None


class RunJournalStatus(JournalStatus):
    resume_from: Annotated[str | None, Field(max_length=256)] = None
    """Of the items in order the last one that is done: `<type> <object>`."""


class RunStatus(BaseStatus):
    progress: Annotated[str | None, Field(max_length=16)] = None
    """Done of planned."""
    counts: CountsStatus | None = None
    started_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    resume_from: ResumeStatus | None = None
    items: Annotated[tuple[RunItemStatus, ...], Field(max_length=50)] = ()
    truncated: bool | None = None
    """Whether there are more items than are listed."""
    items_config_map: Annotated[str | None, Field(max_length=253)] = None
    """Holds all items where there are more."""
    journal: RunJournalStatus | None = None


MAINTENANCE_RUN = Kind(
    name="MaintenanceRun",
    plural="maintenanceruns",
    short="pgmr",
    spec=RunSpec,
    status=RunStatus,
    reasons=RunReason,
    conditions=("Accepted", "Complete"),
    columns=(
        Column(name="Window", json_path=".spec.windowRef.name"),
        Column(name="Target", json_path=".spec.targetRef.name"),
        Column(name="Ready", json_path='.status.conditions[?(@.type=="Ready")].status'),
        Column(name="Reason", json_path=".status.worst.reason"),
        Column(name="Progress", json_path=".status.progress"),
        Column(name="Finished", json_path=".status.finishedAt", type="date"),
        Column(name="Age", json_path=".metadata.creationTimestamp", type="date"),
    ),
    category=RECORDS_CATEGORY,
    description="Record of one window on one target.",
)
