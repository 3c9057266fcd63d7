"""Which backups somebody reads at this moment, or is about to: retention leaves them alone until that has ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pgtend.api.postgresbackup import BackupSpec
from pgtend.api.postgresoperation import OperationSpec
from pgtend.backups.runs import Run
from pgtend.core.findings import ObjectKey
from pgtend.kube.index import Index, Record


def in_use(index: Index, *, namespace: str, runs: Iterable[Run]) -> frozenset[str]:
    """Manifest keys of what a Restore that has not ended names, in whichever namespace, and of what an active one of
    `runs` (a policy's Jobs in `namespace`) reads."""
    read = (ObjectKey("PostgresBackup", namespace, run.backup or "") for run in runs
            if run.active and run.kind != "dump")  # fmt: skip
    keys = {*read, *_restored(index)}
    return frozenset(manifest for key in keys if (manifest := manifest_of(index.get(key))) is not None)


def manifest_of(record: Record | None) -> str | None:
    """The manifest's key, as the record's status knows it or its spec names it."""
    if record is None:
        return None
    told = record.status.get("manifest")
    if told is None and isinstance(record.spec, BackupSpec) and record.spec.stored is not None:
        told = record.spec.stored.manifest
    return str(told) if told is not None else None


def _restored(index: Index) -> Iterator[ObjectKey]:
    for record in index.of_kind("PostgresOperation"):
        spec = record.spec
        if isinstance(spec, OperationSpec) and spec.restore is not None and record.status.get("finishedAt") is None:
            yield ObjectKey("PostgresBackup", record.key.namespace, spec.restore.from_.backup_ref.name)
