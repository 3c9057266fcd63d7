"""`pgtend backup list`: what a bucket holds, or what the cluster has records of. A backup is what was committed; all
else is told apart, since who looks in an emergency must not take a run that died for a backup."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgtend.api.types import format_bytes, format_duration
from pgtend.backups.catalog import Backup, Catalog, Listed, Run
from pgtend.cli.options import printable
from pgtend.core.clock import parse_rfc3339, rfc3339

SCHEMA = "pgtend.dev/backup-list/v1"
_COLUMNS = ("BACKUP", "POLICY", "TAKEN", "AGE", "SIZE", "RAW", "VERIFIED", "DATABASES", "RECIPIENTS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One committed backup. `taken` is the moment of which it holds the data; `broken` says what is wrong with it."""

    name: str
    namespace: str
    policy: str
    manifest: str
    taken: datetime
    finished: datetime
    server_version: str
    stored: str
    raw: str
    size: Mapping[str, int] | None
    databases: tuple[str, ...]
    more_databases: bool
    globals: str | None
    recipients: tuple[str, ...]
    verified: datetime | None
    level: str | None
    broken: str | None = None

    def document(self, now: datetime) -> dict[str, Any]:
        return {
            "name": self.name,
            "policy": {"namespace": self.namespace, "name": self.policy},
            "manifest": self.manifest,
            "takenAt": rfc3339(self.taken),
            "finishedAt": rfc3339(self.finished),
            "ageSeconds": max(0, int((now - self.taken).total_seconds())),
            "size": {"stored": self.stored, "raw": self.raw},
            "bytes": dict(self.size) if self.size is not None else None,
            "serverVersion": self.server_version,
            "databases": list(self.databases),
            "databasesTruncated": self.more_databases,
            "globals": self.globals,
            "recipients": list(self.recipients),
            "verified": {"level": self.level, "at": rfc3339(self.verified)} if self.verified is not None else None,
            "broken": self.broken,
        }

    def cells(self, now: datetime) -> tuple[str, ...]:
        proved = f"{self.level} {rfc3339(self.verified)}" if self.verified is not None else "no"
        return (
            self.name,
            f"{self.namespace}/{self.policy}",
            rfc3339(self.taken),
            format_duration(now - self.taken),
            self.stored,
            self.raw,
            "BROKEN" if self.broken is not None else proved,
            ",".join(self.databases) + (",..." if self.more_databases else ""),
            ",".join(self.recipients),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """What is there and is no backup."""

    what: str
    where: str
    message: str
    objects: int = 0
    size: int = 0

    @property
    def document(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "where": self.where,
            "message": self.message,
            "objects": self.objects,
            "bytes": self.size,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    source: str
    rows: tuple[Row, ...]
    others: tuple[Other, ...]

    @property
    def harmed(self) -> bool:
        return any(row.broken is not None for row in self.rows) or any(o.what == "Unreadable" for o in self.others)


def of_catalog(catalog: Catalog, *, location: str, policy: str | None, now: datetime) -> Found:
    """`policy` is [NAMESPACE/]NAME; what has no policy is told in any case."""
    rows = [row_of(backup) for backup in catalog.backups]
    others = [
        _run("Dying", run, f"retention is deleting it since {rfc3339(tombstone.deleted_at)}")
        for run, tombstone in catalog.dying
        if _asked(policy, tombstone.policy.namespace, tombstone.policy.name)
    ]
    others += [
        _run("Unreadable", run, "its manifest does not parse, or went while it was read") for run in catalog.unreadable
    ]
    others += [
        _run("Uncommitted", run, f"no manifest: a run that goes on, or died ({_since(run, now)})")
        for run in catalog.uncommitted
    ]
    others += [_foreign(item) for item in catalog.foreign]
    chosen = tuple(row for row in rows if _asked(policy, row.namespace, row.policy))
    return Found(source=location, rows=chosen, others=tuple(others))


def row_of(backup: Backup) -> Row:
    manifest = backup.manifest
    newest = max(backup.evidence, key=lambda proof: proof.verified_at) if backup.verified else None
    return Row(
        name=manifest.backup_name,
        namespace=manifest.policy.namespace,
        policy=manifest.policy.name,
        manifest=backup.run.location.manifest,
        taken=manifest.snapshot.taken_at,
        finished=manifest.finished_at,
        server_version=manifest.server_version,
        stored=format_bytes(manifest.stored_size),
        raw=format_bytes(manifest.raw_size),
        size={"stored": manifest.stored_size, "raw": manifest.raw_size},
        databases=tuple(database.name for database in manifest.databases),
        more_databases=False,
        globals=manifest.globals,
        recipients=tuple(recipient.name for recipient in manifest.recipients),
        verified=newest.verified_at if newest is not None else None,
        level=newest.level if newest is not None else None,
        broken=_broken(backup),
    )


def _broken(backup: Backup) -> str | None:
    if not backup.missing:
        return None
    there = {item.key for item in backup.run.objects}
    return "; ".join(
        f"{key} has another size than was written" if key in there else f"{key} is missing" for key in backup.missing
    )


def _run(what: str, run: Run, message: str) -> Other:
    size = sum(item.size for item in run.objects)
    return Other(what=what, where=run.location.folder, message=message, objects=len(run.objects), size=size)


def _foreign(item: Listed) -> Other:
    text = "no key of pgtend's: it is left alone"
    return Other(what="Foreign", where=item.key, message=text, objects=1, size=item.size)


def _since(run: Run, now: datetime) -> str:
    return f"begun {format_duration(now - run.location.started_at)} ago"


def of_records(bodies: Sequence[Mapping[str, Any]], *, source: str, policy: str | None) -> Found:
    """PostgresBackups as the API server gives them, oldest first."""
    rows, others = [], []
    for body in bodies:
        meta, status = body["metadata"], body.get("status") or {}
        wished = ((body.get("spec") or {}).get("policyRef") or {}).get("name")
        name = str(status.get("policy") or wished or "")
        if not _asked(policy, meta["namespace"], name):
            continue
        conditions = {one["type"]: one for one in status.get("conditions") or ()}
        if (conditions.get("Available") or {}).get("status") == "True" and _told(status):
            rows.append(_row_of_record(meta, status, name))
        else:
            others.append(_other_of_record(meta, conditions))
    rows.sort(key=lambda row: (row.finished, row.namespace, row.name))
    return Found(source=source, rows=tuple(rows), others=tuple(others))


def _told(status: Mapping[str, Any]) -> bool:
    return all(name in status for name in ("manifest", "origin", "snapshot", "finishedAt", "size"))


def _row_of_record(meta: Mapping[str, Any], status: Mapping[str, Any], policy: str) -> Row:
    verified = status.get("verified")
    return Row(
        name=meta["name"],
        namespace=meta["namespace"],
        policy=policy,
        manifest=status["manifest"],
        taken=parse_rfc3339(status["snapshot"]["takenAt"]),
        finished=parse_rfc3339(status["finishedAt"]),
        server_version=status["origin"]["serverVersion"],
        stored=status["size"]["stored"],
        raw=status["size"]["raw"],
        size=None,
        databases=tuple(one["name"] for one in status.get("databases") or ()),
        more_databases=bool(status.get("databasesTruncated")),
        globals=status.get("globals"),
        recipients=tuple(status.get("recipients") or ()),
        verified=parse_rfc3339(verified["verifiedAt"]) if verified else None,
        level=verified["level"] if verified else None,
    )


def _other_of_record(meta: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]) -> Other:
    complete, available = conditions.get("Complete"), conditions.get("Available")
    told = available if complete is not None and complete["status"] == "True" else complete
    message = "the operator has not looked at it yet"
    if told is not None:
        message = f"{told['type']}={told['status']}/{told['reason']}: {told['message']}"
    return Other(what="Record", where=f"{meta['namespace']}/{meta['name']}", message=message)


def _asked(policy: str | None, namespace: str, name: str) -> bool:
    return policy is None or policy in (name, f"{namespace}/{name}")


def render(found: Found, output: str, *, now: datetime) -> Iterator[str]:
    if output == "json":
        document = {
            "schema": SCHEMA,
            "source": found.source,
            "at": rfc3339(now),
            "backups": [row.document(now) for row in found.rows],
            "notBackups": [other.document for other in found.others],
        }
        yield json.dumps(document, indent=1, ensure_ascii=False)
        return
    yield from _table([_COLUMNS, *(row.cells(now) for row in found.rows)] if found.rows else [])
    if not found.rows:
        yield printable(f"no backup in {found.source}")
    for row in found.rows:
        if row.broken is not None:
            yield printable(f"broken: {row.name}: {row.broken}")
    for other in found.others:
        held = f" ({other.objects} objects, {format_bytes(other.size)})" if other.objects else ""
        yield printable(f"no backup: {other.where}{held}: {other.message}")


def _table(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    shown = [[printable(cell) for cell in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for line in shown:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
