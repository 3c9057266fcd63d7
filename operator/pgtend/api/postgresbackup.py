"""PostgresBackup: one backup. People ask for one now; of scheduled ones the operator writes the record."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pgtend.api.base import RECORDS_CATEGORY, ApiModel, Column, Kind
from pgtend.api.conditions import BaseStatus
from pgtend.api.reasons import BackupReason
from pgtend.api.refs import LocalRef
from pgtend.api.types import Timestamp

_ONE = "exactly one of policyRef and stored is needed"


class Stored(ApiModel):
    """A backup that is in the bucket already: enough to restore from when all else is lost."""

    destination_ref: LocalRef
    manifest: Annotated[str, Field(min_length=1, max_length=1024)]
    """The manifest's key."""


class BackupSpec(ApiModel):
    """Immutable but for retainUntil. Deleting the object never touches the bucket."""

    policy_ref: LocalRef | None = None
    """Asks for a backup now, as this policy takes them. A name that the bucket knows already is taken up."""
    stored: Stored | None = None
    reason: Annotated[str | None, Field(max_length=256)] = None
    """Kept in the manifest."""
    not_after: Timestamp | None = None
    """Not started any more after this moment."""
    retain_until: Timestamp | None = None
    """Holds the backup beyond the policy's retention."""
    cel = (
        ("has(self.policyRef) != has(self.stored)", _ONE),
        (
            "has(self.policyRef) == has(oldSelf.policyRef) && (!has(self.policyRef)"
            " || self.policyRef == oldSelf.policyRef) && has(self.stored) == has(oldSelf.stored)"
            " && (!has(self.stored) || self.stored == oldSelf.stored) && has(self.reason) == has(oldSelf.reason)"
            " && (!has(self.reason) || self.reason == oldSelf.reason) && has(self.notAfter) == has(oldSelf.notAfter)"
            " && (!has(self.notAfter) || self.notAfter == oldSelf.notAfter)",
            "all but retainUntil is immutable: make another PostgresBackup instead",
        ),
    )

    @model_validator(mode="after")
    def _one_member(self) -> Self:
        if (self.policy_ref is None) == (self.stored is None):
            raise ValueError(_ONE)
        return self


class Origin(ApiModel):
    target_ref: LocalRef | None = None
    system_identifier: Annotated[str, Field(max_length=24)]
    timeline: Annotated[str, Field(max_length=12)]
    server_version: Annotated[str, Field(max_length=64)]


class SnapshotStatus(ApiModel):
    """What it contains: everything that was committed before."""

    taken_at: Timestamp
    lsn: Annotated[str, Field(max_length=20)]


class SizeStatus(ApiModel):
    raw: Annotated[str, Field(max_length=16)]
    stored: Annotated[str, Field(max_length=16)]


class DatabaseStatus(ApiModel):
    name: Annotated[str, Field(max_length=63)]
    tables: int
    rows: Annotated[str | None, Field(max_length=24)] = None


class Verification(ApiModel):
    level: Literal["Read"] = "Read"
    verified_at: Timestamp


class BackupStatus(BaseStatus):
    policy: Annotated[str | None, Field(max_length=253)] = None
    """The name of the policy that it belongs to."""
    job: Annotated[str | None, Field(max_length=63)] = None
    """The Job that takes it; only of a backup that people asked for."""
    manifest: Annotated[str | None, Field(max_length=1024)] = None
    origin: Origin | None = None
    started_at: Timestamp | None = None
    snapshot: SnapshotStatus | None = None
    finished_at: Timestamp | None = None
    size: SizeStatus | None = None
    databases: Annotated[
        tuple[DatabaseStatus, ...], Field(max_length=50, json_schema_extra={"x-list-map-keys": ["name"]})
    ] = ()
    databases_truncated: bool | None = None
    globals: Literal["WithPasswords", "WithoutPasswords", "None"] | None = None
    recipients: Annotated[tuple[Annotated[str, Field(max_length=63)], ...], Field(max_length=16)] = ()
    verified: Verification | None = None
    expires_at: Timestamp | None = None


POSTGRES_BACKUP = Kind(
    name="PostgresBackup",
    plural="postgresbackups",
    short="pgb",
    spec=BackupSpec,
    status=BackupStatus,
    reasons=BackupReason,
    conditions=("Complete", "Verified", "Available"),
    columns=(
        Column(name="Policy", json_path=".status.policy"),
        Column(name="Ready", json_path='.status.conditions[?(@.type=="Ready")].status'),
        Column(name="Verified", json_path='.status.conditions[?(@.type=="Verified")].status'),
        Column(name="Reason", json_path=".status.worst.reason"),
        Column(name="Size", json_path=".status.size.stored"),
        Column(name="Expires", json_path=".status.expiresAt"),
        Column(name="Age", json_path=".metadata.creationTimestamp", type="date"),
    ),
    category=RECORDS_CATEGORY,
    never=frozenset(
        {
            BackupReason.ACCEPTED,
            BackupReason.BELOW_FLOOR,
            BackupReason.CONTESTED,
            BackupReason.DELETE_DENIED,
            BackupReason.DRY_RUN,
            BackupReason.IN_FORCE,
            BackupReason.LAST_RUN_FAILED,
            BackupReason.NEVER_RUN,
            BackupReason.NEVER_VERIFIED,
            BackupReason.NOT_ACCEPTED,
            BackupReason.OBJECT_NOT_OWNED,
            BackupReason.OVERDUE,
            BackupReason.RECIPIENT_GONE,
            BackupReason.RETENTION_FAILED,
            BackupReason.SUSPENDED,
            BackupReason.VERIFY_OVERDUE,
        }
    ),
    name_max_length=56,
    description="Record and evidence of one backup, or the wish for one now.",
)
