"""What a policy does once it has read the bucket: write the records that lack, have retention carried out, drop the
records of what is gone."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pgtend.api.backupdestination import DestinationSpec
from pgtend.api.base import API_VERSION, GROUP, VERSION
from pgtend.api.postgresbackup import POSTGRES_BACKUP, BackupSpec
from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.reasons import BackupReason as R
from pgtend.api.types import format_bytes
from pgtend.backups.catalog import Catalog, location_of
from pgtend.backups.in_use import in_use, manifest_of
from pgtend.backups.judge import Trouble
from pgtend.backups.manifest import Manifest
from pgtend.backups.pods import POLICY
from pgtend.backups.retention import MAX_PER_PASS, Deletion, Kept, Paused, RetentionPlan, plan_retention
from pgtend.backups.runs import Run
from pgtend.backups.stores import Stores
from pgtend.core.clock import Clock, parse_rfc3339, rfc3339
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.gate.walltime import load_zone
from pgtend.kube.client import AlreadyExists, KubeClient, Resource
from pgtend.kube.index import Index, Record
from pgtend.objectstore.errors import StoreReason
from pgtend.objectstore.s3 import Store
from pgtend.objectstore.sweep import abort_stale_uploads, carry_out, delete_abandoned

log = logging.getLogger(__name__)
RECORDS = Resource(GROUP, VERSION, POSTGRES_BACKUP.plural)
MOST_RECORDS = 100
MANAGED = "app.kubernetes.io/managed-by"
# of one pass; what is left is done by the next
SECONDS = 25.0
# in the message of a dry run
MOST_NAMED = 10
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """What retention came to: why something stays that has expired, by manifest key and in all, what is left, and
    whether to go on soon."""

    kept: Trouble | None
    stays: dict[str, Kept]
    left: Catalog
    unfinished: bool


class Housekeeper:
    """`may_write` is asked right before each write: leading, and no brake."""

    def __init__(
        self,
        *,
        index: Index,
        client: KubeClient,
        stores: Stores,
        installation: str,
        clock: Clock,
        may_write: Callable[[], bool],
    ) -> None:
        self._index, self._client, self._stores = index, client, stores
        self._installation, self._clock, self._may_write = installation, clock, may_write

    def records(self, key: ObjectKey) -> list[Record]:
        """The PostgresBackups of a policy."""
        return [
            record
            for record in self._index.of_kind("PostgresBackup")
            if record.key.namespace == key.namespace
            and (record.labels.get(POLICY) == key.name or record.status.get("policy") == key.name)
        ]

    async def write_records(self, key: ObjectKey, spec: PolicySpec, catalog: Catalog) -> None:
        """Make a record of each backup that has none. Raises ApiError."""
        known = {other.key.name for other in self.records(key)}
        for backup in catalog.backups[-MOST_RECORDS:]:
            name = backup.manifest.backup_name
            if name in known or len(name) > 56 or not _NAME.fullmatch(name):
                continue
            held = backup.manifest.retain_until
            stored = {
                "destinationRef": {"name": spec.destination_ref.name},
                "manifest": backup.run.location.manifest,
            }
            body = {
                "apiVersion": API_VERSION,
                "kind": "PostgresBackup",
                "metadata": {
                    "name": name,
                    "namespace": key.namespace,
                    "labels": {MANAGED: "pgtend", POLICY: key.name},
                },
                "spec": {"stored": stored} | ({"retainUntil": rfc3339(held)} if held is not None else {}),
            }
            failpoint("backups.policy.before_record")
            try:
                await self._client.create(RECORDS, key.namespace, body)
            except AlreadyExists:
                continue
            failpoint("backups.policy.after_record")

    async def drop_records(self, key: ObjectKey, catalog: Catalog) -> None:
        """Delete records that we made: those whose backup retention had deleted before this pass, and those beyond the
        hundredth. Raises ApiError."""
        ours = [record for record in self.records(key) if record.labels.get(MANAGED) == "pgtend"]
        expired = [record for record in ours if unavailable(record) == R.EXPIRED]
        listed = {backup.manifest.backup_name for backup in catalog.backups[-MOST_RECORDS:]}
        beyond = [record for record in ours if record.key.name not in listed] if len(ours) > MOST_RECORDS else []
        for record in {record.key: record for record in (*expired, *beyond)}.values():
            failpoint("backups.policy.before_drop_record")
            await self._client.delete(RECORDS, record.key.namespace, record.key.name, uid=record.uid)

    async def retain(
        self,
        policy: Record,
        spec: PolicySpec,
        destination: DestinationSpec,
        catalog: Catalog,
        *,
        last_failed: bool,
        runs: Sequence[Run],
    ) -> Retained:
        """Carry out what retention decided. `runs` are the policy's Jobs."""
        key, now = policy.key, self._clock.now()
        dry = spec.retention.execution == "DryRun"
        plan = plan_retention(
            catalog=catalog,
            now=now,
            keep_for=spec.retention.keep_for.timedelta,
            keep=spec.retention.keep,
            zone=load_zone(spec.time_zone),
            min_verified=spec.retention.min_verified,
            last_run_failed=last_failed,
            contested=any(backup.manifest.started_at > policy.created for backup in catalog.adopted),
            held=self._held(key, now),
            in_use=in_use(self._index, namespace=key.namespace, runs=runs),
            max_per_pass=len(catalog.backups) if dry else MAX_PER_PASS,
        )
        trouble = _why_kept(plan, spec)
        if dry:
            doomed = _doomed(plan, catalog)
            names = [manifest.backup_name for manifest in doomed]
            log.info("retention would delete", extra={"policy": str(key), "backups": names})
            return Retained(kept=trouble or _would_go(doomed, now), stays=plan.kept, left=catalog, unfinished=False)
        gone: set[str] = set()
        unfinished = not {Kept.LATER, Kept.IN_USE}.isdisjoint(plan.kept.values())
        try:
            unfinished = await self._delete(key, destination, plan.deletions, runs=runs, gone=gone) or unfinished
            adopted = {backup.manifest.installation_id for backup in catalog.adopted}
            lost = adopted - {self._installation} if plan.paused is not Paused.CONTESTED else set()
            await self._sweep(key, spec, destination, catalog, now, also=lost)
        except PgtendError as error:
            denied = error.reason is StoreReason.BUCKET_DENIED
            # where nothing had to go, only the sweep of others' leftovers was refused
            if plan.deletions or not denied:
                reason = R.DELETE_DENIED if denied else R.RETENTION_FAILED
                trouble = Trouble(condition="RetentionSafe", reason=reason, message=error.message)
                unfinished = True
        if gone:
            log.info("retention", extra={"policy": str(key), "deleted": len(gone)})
        left = tuple(backup for backup in catalog.backups if backup.run.location.manifest not in gone)
        return Retained(kept=trouble, stays=plan.kept, left=replace(catalog, backups=left), unfinished=unfinished)

    async def _delete(
        self,
        key: ObjectKey,
        destination: DestinationSpec,
        deletions: Sequence[Deletion],
        *,
        runs: Sequence[Run],
        gone: set[str],
    ) -> bool:
        """One backup after the other; `gone` gets the manifests. Whether something is left to do. Raises
        PgtendError."""
        until = self._clock.monotonic() + SECONDS
        for deletion in deletions:
            if not self._may_write() or self._clock.monotonic() > until:
                return True
            # a Restore may have been asked for since the plan was made
            if not deletion.resumed and deletion.manifest in in_use(self._index, namespace=key.namespace, runs=runs):
                return True
            await self._stores.ask(
                destination.s3,
                namespace=key.namespace,
                use="delete",
                act=lambda store, deletion=deletion: carry_out(store, deletion.orders),  # type: ignore[misc]
                seconds=SECONDS,
            )
            gone.add(deletion.manifest)
        return False

    async def _sweep(
        self,
        key: ObjectKey,
        spec: PolicySpec,
        destination: DestinationSpec,
        catalog: Catalog,
        now: datetime,
        *,
        also: Collection[str],
    ) -> None:
        """Remove what crashed runs of this installation left, and of those whose backups were adopted (`also`). Raises
        PgtendError."""
        if not self._may_write():
            return
        # longer than any run takes, or one that goes on is cut
        stale = max(timedelta(hours=48), 2 * spec.timeout.timedelta)
        owners = [
            {"pgtend-installation": installation, "pgtend-policy": f"{key.namespace}/{key.name}"}
            for installation in (self._installation, *sorted(also))
        ]
        dead = [o.key for run in catalog.abandoned(now=now, older_than=stale) for o in run.objects]
        prefix = destination.s3.prefix

        def sweep(store: Store) -> None:
            abort_stale_uploads(
                store,
                prefix=f"{prefix}/",
                now=now,
                ours=lambda name: location_of(prefix=prefix, key=name) is not None,
                older_than=stale,
            )
            for owner in owners:
                delete_abandoned(store, keys=dead, owner=owner)

        await self._stores.ask(destination.s3, namespace=key.namespace, use="delete", act=sweep, seconds=SECONDS)

    def _held(self, key: ObjectKey, now: datetime) -> set[str]:
        held = set()
        for record in self.records(key):
            if record.spec_error is not None:
                continue
            spec = record.parsed(BackupSpec)
            if spec.retain_until is not None and parse_rfc3339(spec.retain_until) > now:
                manifest = manifest_of(record)
                if manifest is not None:
                    held.add(manifest)
        return held


def unavailable(record: Record) -> R | None:
    """Why the record says that its backup is not in the bucket; None where it does not say so."""
    found = next((c for c in record.status.get("conditions") or () if c["type"] == "Available"), None)
    if found is None or found["status"] == "True":
        return None
    try:
        return R(found["reason"])
    except ValueError:
        return None


def _why_kept(plan: RetentionPlan, spec: PolicySpec) -> Trouble | None:
    kept = len(plan.kept)
    if plan.paused is Paused.BELOW_FLOOR:
        least = spec.retention.min_verified
        text = f"{kept} backups have expired, and fewer than {least} are verified: nothing is deleted"
        return Trouble(condition="RetentionSafe", reason=R.BELOW_FLOOR, message=text)
    if plan.paused is Paused.CONTESTED:
        text = (
            "adoption is Always, and another installation takes backups here for a policy of this namespace and name:"
            " nothing is deleted. Give one of the two another prefix, or set adoption: Never"
        )
        return Trouble(condition="RetentionSafe", reason=R.CONTESTED, message=text)
    if plan.paused is Paused.LAST_RUN_FAILED and kept:
        text = f"{kept} backups have expired; nothing is deleted while the last run has failed"
        return Trouble(condition="RetentionSafe", reason=R.LAST_RUN_FAILED, message=text, status="Unknown")
    return None


def _doomed(plan: RetentionPlan, catalog: Catalog) -> list[Manifest]:
    manifests = {deletion.manifest for deletion in plan.deletions if not deletion.resumed}
    return [backup.manifest for backup in catalog.backups if backup.run.location.manifest in manifests]


def _would_go(doomed: Sequence[Manifest], now: datetime) -> Trouble:
    """Of a dry run that nothing stands in the way of. With its moment: a message is not written anew while its verdict
    stands and nothing else of the status has changed."""
    text = f"retention.execution is DryRun: as of {rfc3339(now)} nothing would be deleted"
    if doomed:
        size = format_bytes(sum(manifest.stored_size for manifest in doomed))
        names = ", ".join(manifest.backup_name for manifest in doomed[:MOST_NAMED])
        more = f" and {len(doomed) - MOST_NAMED} more" if len(doomed) > MOST_NAMED else ""
        text = (
            f"retention.execution is DryRun: as of {rfc3339(now)} {len(doomed)} backups ({size}) would be deleted:"
            f" {names}{more}; set it to Run to have that done"
        )
    return Trouble(condition="RetentionSafe", reason=R.DRY_RUN, message=text, status="True")
