"""What is true of one backup. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from pgtend.api.conditions import Verdict
from pgtend.api.postgresbackup import (
    BackupStatus,
    DatabaseStatus,
    Origin,
    SizeStatus,
    SnapshotStatus,
    Verification,
)
from pgtend.api.reasons import BackupReason as R
from pgtend.api.refs import LocalRef
from pgtend.api.types import Timestamp, format_bytes
from pgtend.backups.catalog import Backup
from pgtend.core.clock import parse_rfc3339, rfc3339

MOST_DATABASES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How far reading it back is. `reason` None while it goes on or has not begun."""

    verified_at: datetime | None = None
    reason: R | None = None
    message: str = "it is being read back, or will be"
    object: str | None = None


def describe(backup: Backup, *, policy: str, target: str | None) -> BackupStatus:
    """What the manifest says, as the status shows it."""
    manifest = backup.manifest
    proofs = [proof.verified_at for proof in backup.evidence] if backup.verified else []
    return BackupStatus(
        policy=policy,
        manifest=backup.run.location.manifest,
        origin=Origin(
            target_ref=LocalRef(name=target) if target else None,
            system_identifier=manifest.system_identifier,
            timeline=str(manifest.timeline),
            server_version=manifest.server_version[:64],
        ),
        started_at=_stamp(manifest.started_at),
        snapshot=SnapshotStatus(taken_at=_stamp(manifest.snapshot.taken_at), lsn=manifest.snapshot.lsn),
        finished_at=_stamp(manifest.finished_at),
        size=SizeStatus(raw=format_bytes(manifest.raw_size), stored=format_bytes(manifest.stored_size)),
        databases=tuple(
            DatabaseStatus(name=d.name, tables=len(d.tables), rows=str(d.rows) if d.rows is not None else None)
            for d in manifest.databases[:MOST_DATABASES]
        ),
        databases_truncated=True if len(manifest.databases) > MOST_DATABASES else None,
        globals=manifest.globals,
        recipients=tuple(recipient.name for recipient in manifest.recipients[:16]),
        verified=Verification(verified_at=_stamp(max(proofs))) if proofs else None,
    )


def expires_at(
    *, finished: datetime, keep_for: timedelta | None, retain: tuple[datetime | None, ...]
) -> datetime | None:
    """When retention may take it; None where no policy is known."""
    moments = [moment for moment in retain if moment is not None]
    if keep_for is not None:
        moments.append(finished + keep_for)
    return max(moments, default=None)


def committed(status: BackupStatus, reading: Reading, *, gone: R | None, now: datetime) -> tuple[Verdict, ...]:
    """Of a backup that is, or was, in the bucket."""
    finished = str(status.finished_at)
    stored = status.size.stored if status.size is not None else "it"
    until = ""
    if status.expires_at is not None:
        outlived = parse_rfc3339(status.expires_at) <= now
        until = f"; it expired at {status.expires_at} and stays" if outlived else f" until {status.expires_at}"
    complete = Verdict("Complete", "True", R.COMMITTED, f"manifest written at {finished}")
    if gone is not None:
        said = "retention has deleted it" if gone is R.EXPIRED else "the bucket does not hold it any more"
        ready = Verdict("Ready", "True" if gone is R.EXPIRED else "False", gone, said)
        return (
            complete,
            Verdict("Verified", "Unknown", gone, "nothing is left to read", negligible=True),
            Verdict("Available", "False", gone, said) if gone is R.MISSING else _quiet(gone, said),
            ready,
        )
    available = Verdict("Available", "True", R.AS_EXPECTED, f"in the bucket{until}")
    if reading.verified_at is not None:
        tables = sum(database.tables for database in status.databases)
        return (
            complete,
            Verdict("Verified", "True", R.AS_EXPECTED, f"{stored} read and decrypted, {tables} tables"),
            available,
            Verdict(
                "Ready", "True", R.VERIFIED, f"committed at {finished}, read whole at {rfc3339(reading.verified_at)}"
            ),
        )
    if reading.reason is None:
        verified = Verdict("Verified", "Unknown", R.VERIFY_PENDING, reading.message)
    else:
        verified = Verdict("Verified", "False", reading.reason, reading.message, object=reading.object)
    return (complete, verified, available, Verdict("Ready", "True", R.COMMITTED, f"committed at {finished}"))


def not_there(reason: R, message: str, *, object: str | None = None, stalled: bool = False) -> tuple[Verdict, ...]:
    """Of a backup that failed (`stalled`: it is not tried again) or could not be begun yet."""
    again = "it is not tried again: create a new PostgresBackup"
    verdicts = (
        Verdict("Complete", "False", reason, message, object=object),
        Verdict("Verified", "Unknown", R.NOT_COMPLETE, "nothing to read", negligible=True),
        Verdict("Available", "False", R.NOT_COMPLETE, "nothing is stored"),
        Verdict("Ready", "False", reason, "not committed, nothing is left in the bucket; see Complete"),
    )
    return (*verdicts, Verdict("Stalled", "True", reason, again)) if stalled else verdicts


def under_way(reason: R, message: str) -> tuple[Verdict, ...]:
    return (
        Verdict("Complete", "Unknown", reason, message),
        Verdict("Verified", "Unknown", R.NOT_COMPLETE, "nothing to read yet", negligible=True),
        Verdict("Available", "Unknown", R.NOT_COMPLETE, "nothing is stored yet", negligible=True),
        Verdict("Ready", "Unknown", reason, message),
        Verdict("Reconciling", "True", reason, message),
    )


def rests(reason: R, message: str) -> tuple[Verdict, ...]:
    """Nothing is done, and that is as asked: it expired, or somebody observes."""
    return (
        Verdict("Complete", "Unknown", reason, message, negligible=True),
        Verdict("Verified", "Unknown", R.NOT_COMPLETE, "nothing to read", negligible=True),
        Verdict("Available", "Unknown", R.NOT_COMPLETE, "nothing is stored", negligible=True),
        Verdict("Ready", "True", reason, message),
    )


def _quiet(reason: R, message: str) -> Verdict:
    return Verdict("Available", "False", reason, message, negligible=True)


def _stamp(moment: datetime) -> Timestamp:
    return Timestamp(rfc3339(moment))
