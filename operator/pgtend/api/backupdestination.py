"""BackupDestination: where backups go, with which credentials, and who can open them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pgtend.api.base import ApiModel, Column, Kind
from pgtend.api.conditions import BaseStatus
from pgtend.api.reasons import DestinationReason
from pgtend.api.refs import FromSecret
from pgtend.api.types import Duration, ItemName, Quantity

_MIB = 1 << 20
_ONE_OF_TWO = "exactly one of aes256 and kms is needed"
_NOBODY = "at least one recipient without decryptOnly is needed: new backups are for somebody"
_NO_TIME = "duration is at least one second"


class AccessKeyRef(ApiModel):
    """A key pair. Both values may stand in one Secret."""

    id: FromSecret
    """Default key: id."""
    secret: FromSecret
    """Default key: secret."""


class StoreCredential(ApiModel):
    """How to log in to the store."""

    access_key: AccessKeyRef


class StoreCredentials(ApiModel):
    """One credential per purpose, so that each may have the least rights; what is left out is as `write`."""

    write: StoreCredential
    """Of dumps: puts objects and handles its own uploads."""
    read: StoreCredential | None = None
    """Of verification and of the operator: lists, gets, reads the bucket's lifecycle rules."""
    delete: StoreCredential | None = None
    """Of retention, by the operator: lists, gets, deletes, overwrites manifests, ends uploads."""


class Aes256(ApiModel):
    """With keys of the store."""


class Kms(ApiModel):
    """With a key of the store's key service."""

    key_id: Annotated[str | None, Field(alias="keyID", min_length=1, max_length=2048)] = None
    """Its id, alias or ARN. Default: the store's own."""


class ServerSideEncryption(ApiModel):
    """What the store is asked to do on top: what it gets is encrypted already."""

    aes256: Aes256 | None = None
    kms: Kms | None = None
    cel = (("has(self.aes256) != has(self.kms)", _ONE_OF_TWO),)

    @model_validator(mode="after")
    def _one_member(self) -> Self:
        if (self.aes256 is None) == (self.kms is None):
            raise ValueError(_ONE_OF_TWO)
        return self


class ObjectLock(ApiModel):
    """The store keeps every object of a backup for so long, whoever asks to delete it. The bucket must have it."""

    mode: Literal["Governance", "Compliance"]
    duration: Duration
    """From the start of the dump."""
    cel = (("self.duration.matches('[1-9]')", _NO_TIME),)

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.duration.seconds < 1:
            raise ValueError(_NO_TIME)
        return self


class StoreLimits(ApiModel):
    """Of the store: parts of one upload, bytes of one object."""

    parts: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    object_size: Quantity = Quantity("5Ti")


class S3(ApiModel):
    """A bucket of S3 or of a store that speaks it, and the prefix that is pgtend's there."""

    bucket: Annotated[str, Field(min_length=3, max_length=63, pattern=r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$")]
    prefix: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9!_.'()-]+(/[A-Za-z0-9!_.'()-]+)*$")]
    """Never empty, no slash at either end."""
    region: Annotated[str, Field(min_length=1, max_length=64)] = "us-east-1"
    endpoint: Annotated[str | None, Field(pattern=r"^https?://[^\s@]+$", max_length=256)] = None
    """Default: AWS of the region."""
    addressing: Literal["VirtualHost", "Path"] = "VirtualHost"
    ca: FromSecret | None = None
    """Default: the system's roots; key ca.crt."""
    credentials: StoreCredentials
    server_side_encryption: ServerSideEncryption | None = None
    """Default: the bucket's own."""
    object_lock: ObjectLock | None = None
    limits: StoreLimits = StoreLimits()
    upload_rate: Quantity | None = None
    """Bytes per second of each pod that dumps, at least 1Mi. Default: as fast as it goes."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.upload_rate is not None and self.upload_rate.bytes < _MIB:
            raise ValueError("uploadRate is at least 1Mi")
        if self.limits.object_size.bytes < 5 * _MIB:
            raise ValueError("limits.objectSize is at least 5Mi")
        return self


class AgeRecipient(ApiModel):
    """Somebody who can open backups. Where its private key is in a Secret, pods that verify mount it."""

    name: ItemName
    public_key: Annotated[str, Field(pattern=r"^age1[02-9ac-hj-np-z]{58}$", max_length=62)]
    identity: FromSecret | None = None
    """Default: kept elsewhere; key identity."""
    decrypt_only: bool = False
    """Retired: new backups are not for it, older ones are opened with its identity as long as they are kept."""


class Age(ApiModel):
    recipients: Annotated[
        tuple[AgeRecipient, ...],
        Field(min_length=1, max_length=16, json_schema_extra={"x-list-map-keys": ["name"]}),
    ]
    """Each of them alone can open every backup that was taken while it was named and not retired."""
    cel = (("self.recipients.exists(r, !has(r.decryptOnly) || !r.decryptOnly)", _NOBODY),)

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if all(recipient.decrypt_only for recipient in self.recipients):
            raise ValueError(_NOBODY)
        return self


class Encryption(ApiModel):
    """There is no backup without."""

    age: Age


class DestinationSpec(ApiModel):
    """One place for backups. It lives in the namespace of the policies that use it."""

    s3: S3
    encryption: Encryption


class LifecycleRule(ApiModel):
    """A rule of the bucket that would delete backups."""

    id: Annotated[str, Field(max_length=255)]
    prefix: Annotated[str, Field(max_length=1024)]
    expires_after: Annotated[str, Field(max_length=32)]


class DestinationStatus(BaseStatus):
    location: Annotated[str | None, Field(max_length=512)] = None
    conditional_writes: Literal["Honored", "Ignored", "Unknown"] | None = None
    object_lock: Literal["None", "Governance", "Compliance"] | None = None
    """What backups are locked with; absent where it is not known whether the bucket has it."""
    incomplete_uploads: int | None = None
    """Multipart uploads that nobody has ended yet; absent where the credential may not list them."""
    lifecycle_rules: Annotated[tuple[LifecycleRule, ...], Field(max_length=10)] = ()


BACKUP_DESTINATION = Kind(
    name="BackupDestination",
    plural="backupdestinations",
    short="pgbd",
    spec=DestinationSpec,
    status=DestinationStatus,
    reasons=DestinationReason,
    conditions=("Accepted", "Reachable", "Safe"),
    columns=(
        Column(name="Ready", json_path='.status.conditions[?(@.type=="Ready")].status'),
        Column(name="Safe", json_path='.status.conditions[?(@.type=="Safe")].status'),
        Column(name="Reason", json_path=".status.worst.reason"),
        Column(name="Since", json_path=".status.worst.since", type="date"),
        Column(name="Location", json_path=".status.location"),
        Column(name="Age", json_path=".metadata.creationTimestamp", type="date"),
    ),
    description="Where backups go, and who can open them.",
)
