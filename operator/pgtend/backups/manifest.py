"""What is written into the bucket beside the data: the manifest that commits a backup, the tombstone that ends it, and
the evidence of whoever read it back. Read for ever, so their format has a version."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

FORMAT: Literal[1] = 1


class _Record(BaseModel):
    """Objects in the bucket outlive the code that wrote them: unknown fields of a later version are kept out of the
    way instead of making the backup unreadable."""

    model_config = ConfigDict(extra="ignore", frozen=True, alias_generator=to_camel, populate_by_name=True)

    def to_bytes(self) -> bytes:
        value = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


class Snapshot(_Record):
    """What a dump contains: everything committed before. `lsn` as PostgreSQL prints it."""

    taken_at: datetime
    lsn: str


class TableRows(_Record):
    """A table whose data the archive must hold; `rows` None where they were not counted."""

    schema_name: Annotated[str, Field(alias="schema")]
    name: str
    rows: int | None = None


class DatabaseContents(_Record):
    name: str
    snapshot: Snapshot
    tables: tuple[TableRows, ...]
    large_objects: int = 0
    selected: str | None = None
    """What of it was taken, for people; None stands for everything."""

    @property
    def rows(self) -> int | None:
        counted = [t.rows for t in self.tables if t.rows is not None]
        return sum(counted) if len(counted) == len(self.tables) else None


class StoredData(_Record):
    """One data object: `size` and `sha256` of what is stored, `raw_size` before compression and encryption."""

    key: str
    kind: Literal["Dump", "Globals"]
    database: str | None = None
    size: int
    raw_size: int
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    parts: int


class RecipientRecord(_Record):
    name: str
    public_key: str


class PolicyRecord(_Record):
    namespace: str
    name: str


class Manifest(_Record):
    """The commit of a backup, enough to restore from when all else is lost. When it expires is the policy's business
    and not written here; `retain_until` is what was asked for when it was taken."""

    format_version: Literal[1] = FORMAT
    type: Literal["Dump"] = "Dump"
    installation_id: Annotated[str, Field(alias="installationID")]
    policy: PolicyRecord
    backup_name: str
    reason: str | None = None
    retain_until: datetime | None = None
    locked_until: datetime | None = None
    """Until then the store keeps its objects, whoever asks to delete them."""
    system_identifier: str
    timeline: int
    server_version: str
    client_version: str
    writer_version: str
    started_at: datetime
    finished_at: datetime
    snapshot: Snapshot
    databases: tuple[DatabaseContents, ...]
    globals: Literal["WithPasswords", "WithoutPasswords", "None"]
    objects: tuple[StoredData, ...]
    recipients: tuple[RecipientRecord, ...]
    warnings: tuple[str, ...] = ()
    """What pg_dump could not see, in its own words, such as subscriptions for a role that is no superuser."""
    encryption: Literal["age"] = "age"
    compression: Literal["zstd"] = "zstd"

    @property
    def stored_size(self) -> int:
        return sum(o.size for o in self.objects)

    @property
    def raw_size(self) -> int:
        return sum(o.raw_size for o in self.objects)


class Tombstone(_Record):
    """Put over a manifest before anything is deleted: from then on the backup does not count, and whoever finds it
    knows what is left to delete."""

    tombstone: Literal[True] = True
    format_version: Literal[1] = FORMAT
    installation_id: Annotated[str, Field(alias="installationID")]
    policy: PolicyRecord
    deleted_at: datetime
    keys: tuple[str, ...]


class Evidence(_Record):
    """What a reader proved of a backup. It names the manifest's own bytes: of another manifest it proves nothing."""

    format_version: Literal[1] = FORMAT
    level: Literal["Read", "Restored", "Tested"]
    verified_at: datetime
    manifest_sha256: Annotated[str, Field(alias="manifestSHA256")]
    verifier_version: str
    recipient: str
    tables: int
    rows: int | None = None
    rows_compared: bool = False
    size: int


def parse_manifest(raw: bytes) -> Manifest | Tombstone | None:
    """The manifest or tombstone in these bytes, None where they are neither."""
    try:
        value = json.loads(raw)
        kind = Tombstone if isinstance(value, dict) and value.get("tombstone") else Manifest
        return kind.model_validate(value)
    except (ValueError, ValidationError):
        return None
