"""What the backups say about a target: the condition BackedUp there. Read from what the policies' own status says, so
that it holds from the first moment after a restart. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from pgtend.api.conditions import Status
from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.reasons import TargetReason
from pgtend.core.findings import Finding, ObjectKey
from pgtend.kube.index import Record

CONDITION = "BackedUp"
_NEEDED = {"BackupCurrent": TargetReason.NOT_BACKED_UP, "Verified": TargetReason.BACKUP_NOT_VERIFIED}
_WORST_FIRST: tuple[Status, ...] = ("False", "Unknown", "True")


def backed_up(policies: Iterable[Record], target: ObjectKey, *, now: datetime) -> Finding | None:
    """The worst that a policy of the target says; None where it has no policy. `policies` may be of all targets."""
    mine = sorted((record for record in policies if _is_of(record, target)), key=lambda record: record.key)
    if not mine:
        return None
    told = [_told(record, condition) for record in mine for condition in _NEEDED]
    for status in _WORST_FIRST:
        found = next(((record, type_, said) for record, type_, got, said in told if got == status), None)
        if found is not None:
            break
    assert found is not None  # noqa: S101 - there is a policy, and each status is one of the three
    record, type_, said = found
    reason, name = TargetReason.AS_EXPECTED, record.key.name
    text = f"policy {name}: BackupCurrent and Verified"
    if status == "True" and len(mine) > 1:
        text = f"policies {', '.join(other.key.name for other in mine[:5])}: BackupCurrent and Verified"
    if status != "True":
        reason = _NEEDED[type_] if status == "False" else TargetReason.BACKUP_NOT_KNOWN
        text = f"policy {name}: {said}"
    return Finding(
        target=target,
        condition=CONDITION,
        status=status,
        reason=reason,
        message=text[:1000],
        object=name if status != "True" else None,
        as_of=now,
    )


def _is_of(record: Record, target: ObjectKey) -> bool:
    if record.key.namespace != target.namespace or record.deleting or not isinstance(record.spec, PolicySpec):
        return False
    ref = record.spec.target_ref
    return ref.name == target.name and ref.namespace in (None, target.namespace)


def _told(record: Record, condition: str) -> tuple[Record, str, Status, str]:
    found: Mapping[str, Any] | None = next(
        (c for c in record.status.get("conditions") or () if c["type"] == condition), None
    )
    if found is None:
        return record, condition, "Unknown", "it was not judged yet"
    status: Status = "True" if found["status"] == "True" else "False" if found["status"] == "False" else "Unknown"
    return record, condition, status, f"{found['reason']}: {found.get('message', '')}"
