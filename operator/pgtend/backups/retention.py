"""Which backups may go. Pure, and on the side of keeping: what is doubtful stays.

The order of a deletion is its safety: first a tombstone over the manifest (from then on nobody counts on the backup,
and what is left to delete is written down), then the data, then the tombstone. A crash in between is resumed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum

from pgtend.api.postgresbackuppolicy import Keep
from pgtend.backups.catalog import Backup, Catalog, Run
from pgtend.backups.generations import standing
from pgtend.backups.manifest import PolicyRecord, Tombstone

MAX_PER_PASS = 10
KEEP_NONE = Keep()


class Kept(StrEnum):
    """Why an expired backup stays."""

    HELD = "Held"
    IN_USE = "InUse"
    GENERATION = "Generation"
    LOCKED = "Locked"
    NEWEST_VERIFIED = "NewestVerified"
    NEWEST = "Newest"
    FLOOR = "Floor"
    PAUSED = "Paused"
    LATER = "Later"


class Paused(StrEnum):
    """Why nothing is deleted at all."""

    LAST_RUN_FAILED = "LastRunFailed"
    BELOW_FLOOR = "BelowFloor"
    CONTESTED = "Contested"


@dataclass(frozen=True, slots=True, kw_only=True)
class PutTombstone:
    """Overwrite `key` with `body`."""

    key: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteObject:
    key: str


Step = PutTombstone | DeleteObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletion:
    """One backup's end, steps in their order. `resumed` where a tombstone was found."""

    identifier: str
    manifest: str
    steps: tuple[Step, ...]
    resumed: bool = False

    @property
    def orders(self) -> tuple[tuple[str, bytes | None], ...]:
        """The steps as `objectstore.sweep.carry_out` takes them."""
        return tuple((s.key, s.body if isinstance(s, PutTombstone) else None) for s in self.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """`deletions` oldest first; `kept` are expired backups that stay, by manifest key; `paused` says why none goes."""

    deletions: tuple[Deletion, ...]
    kept: dict[str, Kept]
    paused: Paused | None = None


def expires_at(backup: Backup, *, keep_for: timedelta) -> datetime:
    """By the manifest's own time: the store's changes when a bucket is copied."""
    end = backup.manifest.finished_at + keep_for
    held = backup.manifest.retain_until
    return max(end, held) if held is not None else end


def plan_retention(
    *,
    catalog: Catalog,
    now: datetime,
    keep_for: timedelta,
    min_verified: int,
    last_run_failed: bool,
    contested: bool = False,
    keep: Keep = KEEP_NONE,
    zone: tzinfo = UTC,
    held: Collection[str] = (),
    in_use: Collection[str] = (),
    max_per_pass: int = MAX_PER_PASS,
) -> RetentionPlan:
    """What to delete now. `held` are manifest keys that somebody wants kept (`retainUntil` of a record), `in_use`
    those of backups that are being restored or read back. `contested` where another installation still takes backups
    that this one counts as its own: then nothing goes, not even what is half deleted.

    Never the newest verified backup, never below `min_verified` verified ones, nothing after a failed run, only keys
    that a manifest of this policy names or that lie beside it in its own folder with a name of ours.
    """
    resumed = tuple(_resume(run, tombstone) for run, tombstone in catalog.dying)
    expired = [b for b in catalog.backups if expires_at(b, keep_for=keep_for) <= now]
    verified = sum(b.verified for b in catalog.backups)
    paused = None
    if contested:
        paused, resumed = Paused.CONTESTED, ()
    elif last_run_failed:
        paused = Paused.LAST_RUN_FAILED
    elif verified < min_verified and expired:
        paused = Paused.BELOW_FLOOR
    if paused is not None:
        return RetentionPlan(
            deletions=resumed, kept={b.run.location.manifest: Kept.PAUSED for b in expired}, paused=paused
        )
    newest_verified = catalog.newest_verified
    generations = standing(catalog.backups, keep=keep, zone=zone)
    deletions: list[Deletion] = []
    kept: dict[str, Kept] = {}
    for backup in expired:
        key = backup.run.location.manifest
        if key in held:
            kept[key] = Kept.HELD
        elif key in generations:
            kept[key] = Kept.GENERATION
        elif key in in_use:
            kept[key] = Kept.IN_USE
        elif backup.locked(now):
            kept[key] = Kept.LOCKED
        elif backup is newest_verified or newest_verified is None:
            kept[key] = Kept.NEWEST_VERIFIED
        elif backup is catalog.newest:
            kept[key] = Kept.NEWEST
        elif backup.verified and verified <= min_verified:
            kept[key] = Kept.FLOOR
        elif len(deletions) >= max_per_pass:
            kept[key] = Kept.LATER
        else:
            verified -= backup.verified
            deletions.append(_delete(backup, now))
    return RetentionPlan(deletions=(*resumed, *deletions), kept=kept)


def _delete(backup: Backup, now: datetime) -> Deletion:
    run = backup.run
    present = {o.key for o in run.objects}
    named = [o.key for o in backup.manifest.objects if _inside(run, o.key)]
    keys = [k for k in (*named, *(e.key for e in run.evidence)) if k in present and k != run.location.manifest]
    tombstone = Tombstone(
        installation_id=backup.manifest.installation_id,
        policy=PolicyRecord(namespace=backup.manifest.policy.namespace, name=backup.manifest.policy.name),
        deleted_at=now,
        keys=tuple(keys),
    )
    return Deletion(
        identifier=run.location.identifier,
        manifest=run.location.manifest,
        steps=(
            PutTombstone(key=run.location.manifest, body=tombstone.to_bytes()),
            *(DeleteObject(key=k) for k in keys),
            DeleteObject(key=run.location.manifest),
        ),
    )


def _resume(run: Run, tombstone: Tombstone) -> Deletion:
    present = {o.key for o in run.objects}
    left = [k for k in tombstone.keys if k in present and _inside(run, k) and k != run.location.manifest]
    return Deletion(
        identifier=run.location.identifier,
        manifest=run.location.manifest,
        steps=(*(DeleteObject(key=k) for k in left), DeleteObject(key=run.location.manifest)),
        resumed=True,
    )


def _inside(run: Run, key: str) -> bool:
    """A manifest that was tampered with must not name a key elsewhere."""
    return key.startswith(run.location.folder) and "/" not in key.removeprefix(run.location.folder)
