"""Which backup a Restore takes, and whether it can be opened and fits: everything that can be known before a server is
asked. Reads the index; sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pgtend.api.backupdestination import AgeRecipient, DestinationSpec
from pgtend.api.postgresbackup import BackupSpec
from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.reasons import OperationReason as R
from pgtend.api.restore import RestoreOptions
from pgtend.backups.plan import major_of
from pgtend.backups.prepare import Preparer
from pgtend.backups.readback import opens
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.kube.index import Index, Record
from pgtend.tasks.protocol import Breach, Objection


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A backup that can be opened, and the image whose programs fit the target."""

    backup: str
    manifest: str
    source: str
    version: str
    destination: DestinationSpec
    recipient: AgeRecipient
    image: str
    verified: bool
    raw: str | None
    """How large it is, as its record says."""


def find(
    *, index: Index, preparer: Preparer, namespace: str, options: RestoreOptions, target: ObjectKey
) -> Found | Objection:
    """An objection is for good. Raises PgtendError with a reason of OperationReason for what may yet come."""
    name = options.from_.backup_ref.name
    key = ObjectKey("PostgresBackup", namespace, name)
    record = index.get(key)
    if record is None or record.deleting or record.spec_error is not None:
        raise _wait(R.BACKUP_NOT_FOUND, f"PostgresBackup {key} does not exist, or is not valid", name)
    status = record.status
    if _condition(status, "Available") == "False" and status.get("finishedAt"):
        text = f"PostgresBackup {key} is not in the bucket any more: restore from another one"
        return Objection(breach=Breach.BACKUP_NOT_AVAILABLE, message=text, object=name)
    if not status.get("manifest") or not status.get("origin"):
        raise _wait(R.BACKUP_NOT_COMPLETE, f"PostgresBackup {key} is not committed", name)
    source = _source(options, record)
    if isinstance(source, Objection):
        return source
    destination = _destination(index, preparer, record)
    recipient = opens(destination, status.get("recipients") or ())
    if recipient is None:
        text = f"none of the recipients of {name} has an identity in the cluster: give one of them at its destination"
        raise _wait(R.IDENTITY_MISSING, text, name)
    version, own = str(status["origin"].get("serverVersion")), _version(index, target)
    taken, major = major_of(version), major_of(own)
    if major is None:
        raise _wait(R.WAITING_FOR_TARGET, f"the version of target {target} is not known yet", target.name)
    if taken is not None and taken > major:
        text = (
            f"{name} was taken of PostgreSQL {version} and target {target} runs {own}: restore into a target of the"
            " same major or a later one"
        )
        return Objection(breach=Breach.VERSION_MISMATCH, message=text, object=name)
    image = preparer.images.of(major)
    if image is None:
        text = f"no tools image is configured for PostgreSQL {own}: set the chart's tools.image and tools.majors"
        raise _wait(R.TOOLS_IMAGE_MISSING, text, target.name)
    return Found(
        backup=name,
        manifest=str(status["manifest"]),
        source=source,
        version=version,
        destination=destination,
        recipient=recipient,
        image=image,
        verified=status.get("verified") is not None,
        raw=(status.get("size") or {}).get("raw"),
    )


def _source(options: RestoreOptions, record: Record) -> str | Objection:
    """The database of the backup that is meant. A record lists fifty; of a longer one the pod finds out."""
    status, wanted = record.status, options.select.databases
    names = [str(database["name"]) for database in status.get("databases") or ()]
    if wanted and (wanted[0] in names or status.get("databasesTruncated")):
        return wanted[0]
    if not wanted and len(names) == 1:
        return names[0]
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    what = f"does not hold {wanted[0]}" if wanted else "holds several databases and none is named"
    text = f"{record.key.name} {what}; it holds {listed}: name one in restore.select.databases"
    return Objection(breach=Breach.DATABASE_NOT_IN_BACKUP, message=text, object=wanted[0] if wanted else None)


def _destination(index: Index, preparer: Preparer, record: Record) -> DestinationSpec:
    spec, namespace = record.parsed(BackupSpec), record.key.namespace
    where = spec.stored.destination_ref.name if spec.stored is not None else None
    if where is None:
        policy = index.get(ObjectKey("PostgresBackupPolicy", namespace, str(record.status.get("policy"))))
        if policy is None or policy.spec_error is not None:
            text = (
                f"the policy {record.status.get('policy')} of backup {record.key.name} does not exist: make a"
                " PostgresBackup with spec.stored"
            )
            raise _wait(R.DESTINATION_NOT_READY, text, record.key.name)
        where = policy.parsed(PolicySpec).destination_ref.name
    destination, _, trouble = preparer.destination(namespace, where)
    if destination is None:
        raise _wait(R.DESTINATION_NOT_READY, trouble.message if trouble else f"{where} cannot be used", where)
    return destination


def _version(index: Index, target: ObjectKey) -> str:
    record = index.get(target)
    return str(record.status.get("serverVersion") or "") if record is not None else ""


def _condition(status: Mapping[str, Any], type_: str) -> str | None:
    return next((c["status"] for c in status.get("conditions") or () if c["type"] == type_), None)


def _wait(reason: R, message: str, object: str) -> PgtendError:
    return PgtendError(reason, message, object=object)
