"""PostgresBackupPolicy: what is backed up when, to where, how long it is kept, and whether that is so."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pgtend.api.base import ApiModel, Column, Kind
from pgtend.api.conditions import BaseStatus
from pgtend.api.pod import PodSettings
from pgtend.api.reasons import BackupReason
from pgtend.api.refs import LocalRef, TargetRef
from pgtend.api.schedule import DEFAULT_TIME_ZONE, Daily, Schedule, TimeZoneName
from pgtend.api.tasks import NamePatterns
from pgtend.api.types import Duration, Identifier, TimeOfDay, Timestamp

TablePatterns = Annotated[
    tuple[Annotated[str, Field(min_length=3, max_length=128, pattern=r"^[^.]+\..+$")], ...], Field(max_length=64)
]


_TOGETHER = "tables.include stands alone: it takes the tables that it names, whatever their schema, and nothing else"


class Chosen(ApiModel):
    """Patterns that know `*`. Without include all are meant; exclude wins."""

    include: NamePatterns = ()
    exclude: NamePatterns = ()


class ChosenTables(ApiModel):
    """Patterns `<schema>.<table>` that know `*`; the schema's part ends at the first dot."""

    include: TablePatterns = ()
    exclude: TablePatterns = ()


class DumpedDatabase(ApiModel):
    """What is dumped of a database. With an include it is parts of it: what belongs to no schema or table that is named
    (extensions, publications, large objects) is left out then."""

    name: Identifier
    schemas: Chosen = Chosen()
    tables: ChosenTables = ChosenTables()
    cel = (
        (
            "!(has(self.tables) && has(self.tables.include) && size(self.tables.include) > 0 && has(self.schemas)"
            " && ((has(self.schemas.include) && size(self.schemas.include) > 0)"
            " || (has(self.schemas.exclude) && size(self.schemas.exclude) > 0)))",
            _TOGETHER,
        ),
    )

    @model_validator(mode="after")
    def _not_together(self) -> Self:
        if self.tables.include and (self.schemas.include or self.schemas.exclude):
            raise ValueError(_TOGETHER)
        return self


class DumpSettings(ApiModel):
    databases: Annotated[
        tuple[DumpedDatabase, ...] | None,
        Field(min_length=1, max_length=256, json_schema_extra={"x-list-map-keys": ["name"]}),
    ] = None
    """Default: all that accept connections."""
    globals: Literal["Auto", "WithPasswords", "WithoutPasswords", "None"] = "Auto"
    """Roles and tablespaces; Auto takes passwords along where the role may read them."""
    compression_level: Annotated[int, Field(ge=1, le=19)] = 1
    """Of zstd."""
    row_counts: Literal["Exact", "None"] = "Exact"
    """Exact counts the rows of each table within the dump's own snapshot, to compare them when it is read back."""
    lock_timeout: Duration = Duration("5m")
    """How long a dump waits for its first locks."""
    yield_to_ddl_after: Annotated[Duration | None, Field(alias="yieldToDDLAfter")] = None
    """A dump ends itself where somebody has waited so long to change a table that it has locked. Default: never."""


_Periods = Annotated[int, Field(ge=0, le=1000)]


class Keep(ApiModel):
    """So many days, weeks, months and years keep one backup each, counted back from the newest. Days are of
    spec.timeZone, weeks begin on Monday."""

    daily: _Periods = 0
    weekly: _Periods = 0
    monthly: _Periods = 0
    yearly: _Periods = 0


class Retention(ApiModel):
    keep_for: Duration = Duration("30d")
    keep: Keep = Keep()
    """What stays beyond keepFor."""
    min_verified: Annotated[int, Field(ge=1, le=1000)] = 3
    """Never fewer verified backups than that are left, however old they are."""
    execution: Literal["Run", "DryRun"] = "Run"
    """DryRun deletes nothing and tells in RetentionSafe what would go."""


class PolicySpec(ApiModel):
    """One target's backups at one destination. Every backup is read back by another pod."""

    target_ref: TargetRef
    destination_ref: LocalRef
    suspend: bool = False
    mode: Literal["Observe", "Enforce"] = "Enforce"
    """Observe starts no pod. The target's own mode counts too, the stricter wins."""
    adoption: Literal["Never", "Always"] = "Never"
    """Always takes over what another installation has left for a policy of this namespace and name: it gets its
    records, counts, and is subject to retention. For the time after that installation is gone."""
    time_zone: TimeZoneName = DEFAULT_TIME_ZONE
    schedule: Schedule = Schedule(daily=Daily(at=TimeOfDay("02:00")))
    """No rrule and no monthly.week: a CronJob carries it out."""
    schedule_spread: Duration = Duration("0s")
    """Starts that much later at most, by a hash of the policy's name, so that a fleet does not start at one moment; not
    beyond midnight."""
    starting_deadline: Duration = Duration("1h")
    """A run that could not start for that long is missed."""
    timeout: Duration = Duration("12h")
    """Of one run."""
    dump: DumpSettings = DumpSettings()
    retention: Retention = Retention()
    pod: PodSettings = PodSettings()
    cel = (
        ("self.targetRef == oldSelf.targetRef", "targetRef is immutable: make another PostgresBackupPolicy instead"),
        (
            "self.destinationRef == oldSelf.destinationRef",
            "destinationRef is immutable: make another PostgresBackupPolicy instead",
        ),
    )


class NamedBackup(ApiModel):
    name: Annotated[str, Field(max_length=253)]
    finished_at: Timestamp


class Attempt(ApiModel):
    name: Annotated[str, Field(max_length=253)]
    started_at: Timestamp


class VerifiedBackup(ApiModel):
    name: Annotated[str, Field(max_length=253)]
    level: Literal["Read"] = "Read"
    verified_at: Timestamp


class Backups(ApiModel):
    """What the bucket holds of this policy."""

    total: int
    verified: int
    locked: int = 0
    """Of these what the store would keep from being deleted."""
    size: Annotated[str, Field(max_length=16)]


class PolicyStatus(BaseStatus):
    last_backup: NamedBackup | None = None
    last_attempt: Attempt | None = None
    last_verified: VerifiedBackup | None = None
    next_at: Timestamp | None = None
    backups: Backups | None = None


POSTGRES_BACKUP_POLICY = Kind(
    name="PostgresBackupPolicy",
    plural="postgresbackuppolicies",
    short="pgbp",
    spec=PolicySpec,
    status=PolicyStatus,
    reasons=BackupReason,
    conditions=("Accepted", "BackupCurrent", "Verified", "RetentionSafe", "EncryptionCurrent"),
    columns=(
        Column(name="Target", json_path=".spec.targetRef.name"),
        Column(name="Ready", json_path='.status.conditions[?(@.type=="Ready")].status'),
        Column(name="Current", json_path='.status.conditions[?(@.type=="BackupCurrent")].status'),
        Column(name="Verified", json_path='.status.conditions[?(@.type=="Verified")].status'),
        Column(name="Reason", json_path=".status.worst.reason"),
        Column(name="Since", json_path=".status.worst.since", type="date"),
        Column(name="Last", json_path=".status.lastBackup.finishedAt", type="date"),
        Column(name="Next", json_path=".status.nextAt"),
        Column(name="Age", json_path=".metadata.creationTimestamp", type="date"),
    ),
    selectable=(".spec.targetRef.name",),
    name_max_length=40,
    never=frozenset(
        {
            BackupReason.COMMITTED,
            BackupReason.EXPIRED,
            BackupReason.MISSING,
            BackupReason.POLICY_NOT_FOUND,
            BackupReason.RUNNING,
            BackupReason.VERIFIED,
            BackupReason.WAITING,
        }
    ),
    description="What is backed up when and to where, how long it is kept, and whether that is so.",
)
