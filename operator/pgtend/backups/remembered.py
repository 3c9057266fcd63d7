"""What the status of a PostgresBackup remembers from one look to the next, when the Job or the bucket is gone."""

from __future__ import annotations

from dataclasses import replace

from pgtend.api.postgresbackup import BackupStatus
from pgtend.api.reasons import BackupReason as R
from pgtend.backups.pods import POLICY
from pgtend.backups.runs import Failure
from pgtend.kube.index import Record


def kept(record: Record) -> BackupStatus:
    """The status as it stands, without what the writer adds."""
    own = {"observedGeneration", "observedAt", "worst", "conditions"}
    return BackupStatus.model_validate({k: v for k, v in record.status.items() if k not in own})


def policy_of(record: Record) -> str:
    """Of a record of what is stored: by its label, else as its manifest said."""
    return record.labels.get(POLICY) or str(record.status.get("policy") or "")


def ended(record: Record) -> bool:
    """A wish that came to its end: it is never begun again."""
    if record.status.get("observedGeneration") is None:
        return False
    conditions = {c["type"]: c for c in record.status.get("conditions") or ()}
    ready = conditions.get("Ready", {})
    return "Stalled" in conditions or (ready.get("status") == "True" and ready.get("reason") == R.EXPIRED)


def explained(record: Record, failure: Failure) -> Failure:
    """A deadline that passed while the pod could not start has that as its cause; the pod is gone by then."""
    if failure.reason is not R.DEADLINE_EXCEEDED:
        return failure
    before = next((c for c in record.status.get("conditions") or () if c["type"] == "Complete"), None)
    if before is None or before["reason"] != R.IMAGE_MISSING:
        return failure
    return replace(failure, reason=R.IMAGE_MISSING, message=f"until its deadline: {before['message']}")


def gone(record: Record) -> R | None:
    found = next((c for c in record.status.get("conditions") or () if c["type"] == "Available"), None)
    if found is None or found["status"] == "True" or found["reason"] not in (R.EXPIRED, R.MISSING):
        return None
    return R(found["reason"])
