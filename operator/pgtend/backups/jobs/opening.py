"""A backup as it is opened by whoever reads it: the manifest, the key that fits it, and stored bytes that are what was
written. Reading back and restoring must not differ in what they take for sound."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pgtend.backups.jobs.config import JobReason
from pgtend.backups.jobs.report import Report, format_names
from pgtend.backups.manifest import Manifest, StoredData, Tombstone, parse_manifest
from pgtend.core.errors import PgtendError
from pgtend.core.redaction import Sensitive
from pgtend.objectstore.errors import NotFound, StoreError, StoreReason
from pgtend.objectstore.pipe import PipeReason, parse_identities, public_keys, unseal
from pgtend.objectstore.reading import ObjectReader
from pgtend.objectstore.s3 import Store


def read_identities(path: Path, report: Report) -> list[Any]:
    """The private keys, which the report keeps out of texts from then on. Raises PgtendError."""
    try:
        found = parse_identities(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PgtendError(JobReason.SECRET_MISSING, f"identity file: {error}", transient=False) from None
    report.secrets.extend(Sensitive(str(identity)) for identity in found)
    return found


def read_manifest(store: Store, key: str) -> tuple[Manifest, str]:
    """The manifest and the checksum of its own bytes. Raises PgtendError."""
    raw = store.get(key)
    record = parse_manifest(raw)
    if isinstance(record, Tombstone):
        raise PgtendError(StoreReason.OBJECT_MISSING, f"{key} is being deleted by retention", transient=False)
    if record is None:
        raise PgtendError(JobReason.MANIFEST_UNREADABLE, f"{key} is no manifest", object=key, transient=False)
    return record, hashlib.sha256(raw).hexdigest()


def matching_key(manifest: Manifest, identities: Sequence[Any]) -> str:
    """The name of the recipient that one of the identities belongs to. Raises PgtendError(KeyMissing)."""
    ours = set(public_keys(identities))
    for recipient in manifest.recipients:
        if recipient.public_key in ours:
            return recipient.name
    names = format_names([r.name for r in manifest.recipients])
    raise PgtendError(
        PipeReason.KEY_MISSING,
        f"the identity belongs to none of the recipients {names}: mount the identity of one of them",
        object=manifest.backup_name,
        transient=False,
    )


def pour(store: Store, data: StoredData, identities: Sequence[Any], take: Callable[[bytes], object]) -> int:
    """Pass the raw bytes of an object to `take`; returns their number. The stored bytes are read to the end and
    compared whatever happens to them later: damage in the store is named as such. Raises PgtendError, and what `take`
    raises."""
    reader = ObjectReader(store=store, key=data.key)
    raw, failure = 0, None
    try:
        try:
            with closing(iter(unseal(source=reader, identities=identities))) as blocks:
                for block in blocks:
                    take(block)
                    raw += len(block)
        except StoreError:
            raise
        except PgtendError as error:
            failure = error
        reader.drain()
    except NotFound as error:
        raise PgtendError(error.reason, error.message, object=data.key, transient=False) from error
    finally:
        reader.close()
    compare_stored(data, reader)
    if failure is not None:
        raise PgtendError(failure.reason, f"{data.key}: {failure.message}", object=data.key, transient=False)
    return raw


def compare_stored(data: StoredData, reader: ObjectReader) -> None:
    """Of an object that was read to its end. Raises PgtendError(TruncatedArchive, ChecksumMismatch)."""
    if reader.size != data.size:
        raise PgtendError(
            PipeReason.TRUNCATED_ARCHIVE if reader.size < data.size else JobReason.CHECKSUM_MISMATCH,
            f"{data.key} has {reader.size} bytes, {data.size} were written",
            object=data.key,
            transient=False,
        )
    if reader.sha256 != data.sha256:
        raise PgtendError(
            JobReason.CHECKSUM_MISMATCH,
            f"{data.key} has sha256 {reader.sha256[:16]}…, {data.sha256[:16]}… was written",
            object=data.key,
            transient=False,
        )


def compare_raw(data: StoredData, raw: int) -> None:
    """Raises PgtendError(TruncatedArchive) where other than what was dumped came out."""
    if raw != data.raw_size:
        raise PgtendError(
            PipeReason.TRUNCATED_ARCHIVE,
            f"{data.key} holds {raw} raw bytes, the manifest says {data.raw_size}",
            object=data.key,
            transient=False,
        )
