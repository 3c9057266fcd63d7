"""The contract between the controller and its pods: what a job is told, what it reports, and with which reasons.

Both sides import these models, so neither can misspell the other. No secret is a value here: secrets are files.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from pgtend.api.base import ApiModel
from pgtend.api.conditions import Reason
from pgtend.api.postgresbackuppolicy import DumpedDatabase
from pgtend.api.types import Duration
from pgtend.backups.manifest import Snapshot
from pgtend.objectstore.config import CredentialFiles, StoreConfig

MESSAGE_BYTES = 4096
"""Kubernetes keeps that much of a termination message."""


class JobReason(Reason):
    """Reasons that jobs give beside those of connecting (TargetReason), of the store and of the pipe."""

    COMMITTED = "Committed", "The manifest was written: the backup exists.", "Nothing."
    VERIFIED = "Verified", "Every object was read whole and holds what the manifest says.", "Nothing."
    INVALID_CONFIG = "InvalidConfig", "The job's configuration does not parse.", "Report it: pgtend wrote it."
    SECRET_MISSING = "SecretMissing", "A file that should be mounted is not there.", "Create the Secret or its key."
    CLIENT_TOO_OLD = (
        "ClientTooOld",
        "libpq in the image is older than 16 and could be made to send the password in clear text.",
        "Use a tools image with libpq 16 or later.",
    )
    VERSION_MISMATCH = (
        "VersionMismatch",
        "The image's pg_dump is not of the server's major version.",
        "Use the tools image of that major.",
    )
    PERMISSION_DENIED = (
        "PermissionDenied",
        "The role may not read something that the backup must contain.",
        "Run the GRANT that the message gives.",
    )
    ROW_SECURITY = (
        "RowSecurity",
        "Row security would hide rows from the role: a backup would silently lack them.",
        "Run the ALTER ROLE that the message gives.",
    )
    LARGE_OBJECT_DENIED = (
        "LargeObjectDenied",
        "The role may not read a large object.",
        "Run the GRANT that the message gives, or make the role their owner's member.",
    )
    GLOBALS_DENIED = (
        "GlobalsDenied",
        "Roles were to be dumped with passwords, and the role may not read pg_authid.",
        "Set `spec.dump.globals: Auto`, or grant SELECT on pg_authid.",
    )
    NOTHING_SELECTED = (
        "NothingSelected",
        "The patterns of a database match no table of it, so the backup would hold none.",
        "Correct `schemas` and `tables` of that entry of `spec.dump.databases`.",
    )
    LOCK_TIMEOUT = (
        "LockTimeout",
        "A table stayed locked by somebody else for longer than `spec.dump.lockTimeout`.",
        "See the message for who holds the lock.",
    )
    LOCKS_EXHAUSTED = (
        "LocksExhausted",
        "The server's table of locks is full: a dump locks every table of a database.",
        "Raise max_locks_per_transaction on the server; it needs a restart.",
    )
    YIELDED_TO_DDL = (
        "YieldedToDDL",
        "Somebody waited longer than `spec.dump.yieldToDDLAfter` to change a table that the dump had locked: it ended.",
        "Run the backup at another time than the change, or raise the limit; the message names who waited.",
    )
    TABLES_CHANGING = (
        "TablesChanging",
        "Tables were truncated, rewritten or dropped again and again while the dump began.",
        "Run the backup at another time than the batch job that does it.",
    )
    SNAPSHOT_LOST = (
        "SnapshotLost",
        "The session that held the snapshot and its locks ended before the dump did.",
        "See the server's log; the next run starts anew.",
    )
    DUMP_FAILED = "DumpFailed", "pg_dump or pg_dumpall failed.", "See the message: its last lines are quoted."
    INTERRUPTED = (
        "Interrupted",
        "The pod was told to stop: its deadline passed, or its node was drained.",
        "Raise `spec.timeout` if it was the deadline.",
    )
    MANIFEST_UNREADABLE = "ManifestUnreadable", "The manifest does not parse.", "Treat this backup as lost."
    CHECKSUM_MISMATCH = (
        "ChecksumMismatch",
        "An object is not what was written: same size, other bytes.",
        "Treat this backup as lost and take a new one; look at the store.",
    )
    TOC_MISMATCH = (
        "TocMismatch",
        "The archive does not hold the data of all tables that the manifest names.",
        "Treat this backup as incomplete, and report it.",
    )
    ROW_COUNT_MISMATCH = (
        "RowCountMismatch",
        "The archive holds another number of rows of a table than its snapshot had.",
        "Treat this backup as incomplete, and report it.",
    )
    ARCHIVE_UNREADABLE = (
        "ArchiveUnreadable",
        "pg_restore does not read the archive to its end.",
        "Treat this backup as lost and take a new one.",
    )
    INTERNAL_ERROR = "InternalError", "The job failed in a way that nobody thought of.", "Report it with the pod's log."


class RestoreReason(Reason):
    """Reasons that only restoring gives."""

    RESTORED = "Restored", "Everything that the backup holds of the database is in it.", "Nothing."
    DATABASE_NOT_IN_BACKUP = (
        "DatabaseNotInBackup",
        "The backup does not hold the database, or holds several and none was named.",
        "Name one of those that the message lists in `restore.select.databases`.",
    )
    SCHEMA_NOT_IN_BACKUP = (
        "SchemaNotInBackup",
        "The backup does not hold a schema that `restore.select.schemas` names. Nothing was restored.",
        "Correct the name; `pg_restore --list` shows what an archive holds.",
    )
    DATABASE_NOT_EMPTY = (
        "DatabaseNotEmpty",
        "The database that would take the backup holds something already. Nothing was changed.",
        "Name a database that does not exist, or say `ifNotEmpty: Add`: nothing is ever dropped.",
    )
    ROLE_MISSING = (
        "RoleMissing",
        "The backup names an owner or a grantee that the server does not have. Nothing was restored.",
        "Create the role, or name another owner in `restore.into.database.owner`.",
    )
    EXTENSION_UNAVAILABLE = (
        "ExtensionUnavailable",
        "The backup needs an extension that the server does not have, or that the role may not create.",
        "Install it, or have an administrator create it in the empty database first.",
    )
    LOCKS_EXHAUSTED = (
        "LocksExhausted",
        "The restore is one transaction, and the server's table of locks is full.",
        "Raise max_locks_per_transaction on the server; it needs a restart.",
    )
    OBJECT_CLASH = (
        "ObjectClash",
        "Something of that name is in the database already. Nothing was restored.",
        "Restore into a database of its own, or remove what the message names.",
    )
    DISK_FULL = "DiskFull", "The server has no space left. Nothing was restored.", "Make room on the server."
    NOT_COMPARED = (
        "NotCompared",
        "The backup is in the database and committed, but the server was lost before its settings and grants were given"
        " back or its rows counted.",
        "Look at the database before you use it; nothing has to be restored again.",
    )
    RESTORE_FAILED = (
        "RestoreFailed",
        "pg_restore failed; it is one transaction, so nothing was restored.",
        "See the message: its last lines are quoted.",
    )


class HostPort(ApiModel):
    host: str
    port: Annotated[int, Field(ge=1, le=65535)] = 5432


class ServerAccess(ApiModel):
    """How to reach the primary, and which server it must be.

    One of `password_file` and (`certificate_file`, `key_file`). All members are listed; the primary is chosen.
    """

    hosts: Annotated[tuple[HostPort, ...], Field(min_length=1)]
    maintenance_database: str = "postgres"
    user: str
    password_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    allow_md5: bool = False
    sslmode: Literal["require", "verify-ca", "verify-full"] = "verify-full"
    ca_file: Path | None = None
    system_identifier: Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
    minimum_timeline: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _one_credential(self) -> ServerAccess:
        certificate = self.certificate_file is not None and self.key_file is not None
        if certificate == (self.password_file is not None):
            raise ValueError("give passwordFile, or certificateFile and keyFile")
        if self.sslmode != "require" and self.ca_file is None:
            raise ValueError(f"sslmode {self.sslmode} needs caFile")
        return self


class Destination(ApiModel):
    store: StoreConfig
    credentials: CredentialFiles = CredentialFiles()


class Recipient(ApiModel):
    name: str
    public_key: str


class PolicyName(ApiModel):
    namespace: str
    name: str


class _Job(ApiModel):
    installation_id: Annotated[str, Field(alias="installationID", pattern=r"^[a-z0-9-]{4,20}$")]
    destination: Destination
    termination_log: Path = Path("/dev/termination-log")
    scratch_folder: Path = Path("/tmp")  # noqa: S108 - a memory-backed emptyDir in the pod
    """Holds the password file while the programs run. Must be memory."""
    programs_folder: Path | None = None
    """Where pg_dump, pg_dumpall and pg_restore are; None looks on the PATH."""


class _PolicyJob(_Job):
    policy: PolicyName

    @property
    def holder(self) -> PolicyName:
        """Whose sessions these are."""
        return self.policy


class DumpConfig(_PolicyJob):
    """`job dump`. `databases` None means all that accept connections; `backup_name` None derives
    `<policy>-<YYYYmmdd-HHMMSS>` from the start, which is what a CronJob needs."""

    kind: Literal["Dump"] = "Dump"
    backup_name: str | None = None
    reason: str | None = None
    retain_until: datetime | None = None
    server: ServerAccess
    databases: Annotated[tuple[str, ...] | None, Field(min_length=1)] = None
    parts: tuple[DumpedDatabase, ...] = ()
    """What is taken of databases of which not everything is."""
    globals: Literal["Auto", "WithPasswords", "WithoutPasswords", "None"] = "Auto"
    row_counts: Literal["Exact", "None"] = "Exact"
    compression_level: Annotated[int, Field(ge=1, le=19)] = 1
    lock_timeout: Duration = Duration("5m")
    yield_after: Duration | None = None
    """The dump ends where somebody waits so long for one of its locks."""
    recipients: Annotated[tuple[Recipient, ...], Field(min_length=1)]


class VerifyConfig(_PolicyJob):
    """`job verify`. `destination.credentials` read; `evidence_credentials` write `verified-read.json` beside the
    manifest, None tries the same credentials and reports `evidence: Denied` where they may only read."""

    kind: Literal["Verify"] = "Verify"
    manifest: str
    identity_file: Path
    evidence_credentials: CredentialFiles | None = None


class RestoreConfig(_Job):
    """`job restore`: one database of a backup into one database of a server. `owner` None keeps the owners of the
    backup; a database that does not exist is created. `if_not_empty` Add restores beside what is there."""

    kind: Literal["Restore"] = "Restore"
    operation: PolicyName
    manifest: str
    identity_file: Path
    server: ServerAccess
    source: str
    """The database in the backup."""
    schemas: tuple[str, ...] = ()
    """Of that only these, with all that is in them; none for everything."""
    database: str
    owner: str | None = None
    if_not_empty: Literal["Refuse", "Add"] = "Refuse"

    @property
    def holder(self) -> PolicyName:
        """Whose sessions these are."""
        return self.operation


class Size(ApiModel):
    """Bytes."""

    raw: int
    stored: int


class DatabaseFigures(ApiModel):
    name: str
    tables: int
    rows: int | None = None


class Termination(ApiModel):
    """What a job leaves as its termination message, at most 4 KiB. A job that leaves none was killed.

    `reason` is a value of JobReason, RestoreReason, TargetReason, StoreReason or PipeReason. `object` is the offender,
    for `worst`. `transient` says that trying again may help without a change by people. `phases` are seconds by name.
    """

    model_config = ConfigDict(extra="ignore")  # of an older or a newer version's pod

    kind: Literal["Dump", "Verify", "Restore"]
    outcome: Literal["Succeeded", "Failed"]
    reason: str
    message: str
    object: str | None = None
    transient: bool = False
    policy: PolicyName | None = None
    backup_name: str | None = None
    manifest: str | None = None
    system_identifier: str | None = None
    timeline: int | None = None
    server_version: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    snapshot: Snapshot | None = None
    size: Size | None = None
    databases: tuple[DatabaseFigures, ...] = ()
    databases_total: int | None = None
    globals: Literal["WithPasswords", "WithoutPasswords", "None"] | None = None
    recipients: tuple[str, ...] = ()
    phases: Annotated[dict[str, float], Field(default_factory=dict)]
    restarts: int | None = None
    warnings: tuple[str, ...] = ()
    level: Literal["Read"] | None = None
    rows_compared: bool | None = None
    evidence: Literal["Written", "Present", "Denied"] | None = None

    def to_message(self) -> bytes:
        """JSON of at most 4 KiB: what does not fit is left out, least important first, so that it always parses."""
        value = self.to_wire()
        for shrink in (_keep, _drop_warnings, _drop_databases, _drop_databases, _clip_message, _drop_details):
            shrink(value)
            raw = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
            if len(raw) <= MESSAGE_BYTES:
                return raw
        value["message"] = ""
        return json.dumps(value, separators=(",", ":")).encode()[:MESSAGE_BYTES]


def parse_termination(text: str) -> Termination | None:
    """The message a container left, None where it left none of ours."""
    try:
        return Termination.model_validate_json(text)
    except ValueError:
        return None


def _keep(value: dict[str, Any]) -> None:
    pass


def _drop_warnings(value: dict[str, Any]) -> None:
    value["warnings"] = [w[:200] for w in value.get("warnings", ())[:2]]


def _drop_databases(value: dict[str, Any]) -> None:
    value["databases"] = value.get("databases", ())[: 10 if len(value.get("databases", ())) > 10 else 0]


def _clip_message(value: dict[str, Any]) -> None:
    value["warnings"] = []
    value["message"] = value["message"].encode()[:1500].decode(errors="ignore")


def _drop_details(value: dict[str, Any]) -> None:
    value["message"] = value["message"][:300]
    for name in ("object", "recipients", "phases"):
        value.pop(name, None)
