"""PostgresBackupPolicy's controller: keep the CronJob, look at what its Jobs did, read the bucket when something has
changed there, write records, carry out retention. What is decided is decided in plan.py, judge.py, retention.py."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pgtend.api.backupdestination import DestinationSpec
from pgtend.api.postgresbackuppolicy import POSTGRES_BACKUP_POLICY, PolicySpec, PolicyStatus
from pgtend.api.reasons import BackupReason as R
from pgtend.api.types import Quantity
from pgtend.backups import bucket, judge
from pgtend.backups.attempts import Attempts
from pgtend.backups.catalog import Catalog
from pgtend.backups.cronjob import CronJobKeeper
from pgtend.backups.housekeeping import Housekeeper, unavailable
from pgtend.backups.in_use import in_use
from pgtend.backups.judge import Summary, Tried, Trouble, View
from pgtend.backups.prepare import Prepared, Preparer
from pgtend.backups.retention import Kept
from pgtend.backups.runs import Run
from pgtend.backups.stores import Stores
from pgtend.core.clock import Clock, parse_rfc3339
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.engine.dependents import Dependents
from pgtend.engine.loop import Outcome
from pgtend.kube.client import KubeClient
from pgtend.kube.index import Index, Record
from pgtend.kube.status import Draft, StatusWriter
from pgtend.objectstore.s3 import Store
from pgtend.server.policy import WritePolicy
from pgtend.telemetry.metrics import METRICS

RESYNC = 60.0
SOON = 5.0
PATIENCE = 120.0
PASS_EVERY = timedelta(days=1)
# what could not be deleted, or was too much for one pass
PASS_AGAIN = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Of a policy's Jobs at the last look. `handled_until`: starts up to then have had their Job; None where there is
    no CronJob that would start any."""

    handled_until: datetime | None
    runs: tuple[Run, ...]


@dataclass(slots=True)
class _Memory:
    """Of one policy, made anew when the process starts: then the bucket is read once."""

    uid: str
    since: float
    summary: Summary | None = None
    due_at: datetime | None = None
    generation: int = 0
    stale: bool = True
    attempts: Attempts = field(default_factory=Attempts)
    looked: bool = False
    outlived: frozenset[str] = frozenset()
    """Manifests of what had expired at the last pass and stays; `in_use` of these what somebody read then."""
    in_use: frozenset[str] = frozenset()


class PolicyController:
    """`recheck` is called with a record's key where the bucket does not hold it any more; `wake` queues a key."""

    def __init__(
        self,
        *,
        index: Index,
        client: KubeClient,
        status: StatusWriter,
        stores: Stores,
        preparer: Preparer,
        dependents: Dependents,
        policy: WritePolicy,
        installation: str,
        clock: Clock,
        wake: Callable[[ObjectKey], None],
    ) -> None:
        self._index, self._client, self._status, self._stores = index, client, status, stores
        self._preparer, self._dependents, self._policy = preparer, dependents, policy
        self._installation, self._clock, self._wake = installation, clock, wake
        self._cron_jobs = CronJobKeeper(client=client, may_write=self._may_write)
        self._house = Housekeeper(
            index=index,
            client=client,
            stores=stores,
            installation=installation,
            clock=clock,
            may_write=self._may_write,
        )
        self._memory: dict[ObjectKey, _Memory] = {}
        self.recheck: Callable[[ObjectKey], None] = wake

    async def reconcile(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        return {key: await self._one(key) for key in keys}

    def stale(self, key: ObjectKey) -> None:
        """The bucket has changed: read it again, soon."""
        if key in self._memory:
            self._memory[key].stale = True
        self._wake(key)

    def seen(self, key: ObjectKey) -> Seen | None:
        """What the last look at a policy's CronJob and Jobs has shown; None before the first."""
        memory = self._memory.get(key)
        if memory is None or not memory.looked:
            return None
        return Seen(handled_until=self._cron_jobs.handled_until(key), runs=memory.attempts.runs)

    async def _one(self, key: ObjectKey) -> Outcome:
        record = self._index.get(key)
        if record is None or record.deleting:
            self._memory.pop(key, None)
            self._cron_jobs.forget(key)
            self._dependents.drop(key)
            METRICS.forget(key)
            return Outcome()
        if record.spec_error is not None:
            verdicts = judge.invalid(R.INVALID_SPEC, f"{record.spec_error}: correct it")
            await self._status.write(POSTGRES_BACKUP_POLICY, record, Draft(status=PolicyStatus(), verdicts=verdicts))
            return Outcome()
        spec = record.parsed(PolicySpec)
        self._dependents.set(
            key,
            (
                ObjectKey("PostgresTarget", key.namespace, spec.target_ref.name),
                ObjectKey("BackupDestination", key.namespace, spec.destination_ref.name),
            ),
        )
        memory = self._recall(record)
        prepared = self._preparer.prepare(record)
        if self._too_early(record, prepared, memory):
            return Outcome(again=SOON / 5)
        trouble = await self._cron_jobs.keep(record, spec, prepared) or prepared.trouble
        memory.stale = await memory.attempts.look(self._client, key) or memory.stale
        memory.looked = True
        dump = memory.attempts.tried("dump")
        now = self._clock.now()
        if self._due(memory, record, now) and prepared.destination is not None:
            try:
                await self._pass(record, spec, prepared, memory, dump)
            except PgtendError as error:
                text = f"the bucket could not be read: {error.message}"
                trouble = trouble or Trouble(condition="Ready", reason=R.DESTINATION_NOT_READY, message=text)
        view = View(
            now=now,
            created=record.created,
            spec=spec,
            timetable=prepared.timetable,
            trouble=trouble,
            observing=prepared.observing,
            identity=prepared.destination is None
            or any(recipient.identity for recipient in prepared.destination.encryption.age.recipients),
            keys=frozenset(r.public_key for r in prepared.destination.encryption.age.recipients)
            if prepared.destination is not None
            else None,
            summary=memory.summary or _remembered(record.status),
            dump=dump,
            verify=memory.attempts.tried("verify"),
        )
        judged = judge.judge(view)
        self._measure(key, judged, view.summary)
        await self._status.write(POSTGRES_BACKUP_POLICY, record, Draft(status=judged.status, verdicts=judged.verdicts))
        return self._again(view, memory)

    def _again(self, view: View, memory: _Memory) -> Outcome:
        if memory.stale or memory.attempts.active:
            return Outcome(again=SOON)
        following = view.timetable.next_after(view.now) if view.timetable is not None else None
        if following is not None:
            return Outcome(again=max(1.0, min(RESYNC, (following - view.now).total_seconds() + SOON)))
        return Outcome(again=RESYNC)

    def _recall(self, record: Record) -> _Memory:
        memory = self._memory.get(record.key)
        if memory is None or memory.uid != record.uid:
            memory = self._memory[record.key] = _Memory(uid=record.uid, since=self._clock.monotonic())
        return memory

    def _too_early(self, record: Record, prepared: Prepared, memory: _Memory) -> bool:
        """After a start of the operator what the target and the store say comes in seconds: what stands is left."""
        unknown = prepared.trouble is not None and prepared.trouble.status == "Unknown"
        told = record.status.get("observedGeneration") == record.generation
        return unknown and told and self._clock.monotonic() - memory.since < PATIENCE

    def _due(self, memory: _Memory, record: Record, now: datetime) -> bool:
        if memory.stale or memory.due_at is None or memory.generation != record.generation:
            return True
        waits = memory.in_use
        if waits and waits - in_use(self._index, namespace=record.key.namespace, runs=memory.attempts.runs):
            return True
        return now >= memory.due_at

    def _may_write(self) -> bool:
        return self._policy.leading() and not self._policy.braked()

    async def _pass(
        self, record: Record, spec: PolicySpec, prepared: Prepared, memory: _Memory, dump: Tried | None
    ) -> None:
        """Read the bucket, delete what may go, write the records that lack. Raises PgtendError, ApiError."""
        destination, key = prepared.destination, record.key
        assert destination is not None  # noqa: S101 - the caller asked
        catalog = await self._read(key, spec, destination)
        kept: Trouble | None = None
        stays: Mapping[str, Kept] = {}
        pause = PASS_EVERY
        if not prepared.observing and prepared.permitted and self._may_write():
            if not spec.suspend:
                newest = catalog.newest.manifest.started_at if catalog.newest is not None else None
                failed = dump is not None and dump.failed_after(newest) is not None
                retained = await self._house.retain(
                    record, spec, destination, catalog, last_failed=failed, runs=memory.attempts.runs
                )
                kept, stays, catalog = retained.kept, retained.stays, retained.left
                pause = PASS_AGAIN if retained.unfinished else PASS_EVERY
            await self._house.write_records(key, spec, catalog)
            await self._house.drop_records(key, catalog)
        memory.summary = judge.summarize(catalog, now=self._clock.now(), kept=kept, stays=stays)
        outlived = stays.keys() - memory.outlived
        self._tell_records(key, catalog, outlived, all_of_them=memory.generation not in (0, record.generation))
        memory.outlived = frozenset(stays)
        memory.in_use = frozenset(manifest for manifest, why in stays.items() if why is Kept.IN_USE)
        memory.stale, memory.due_at, memory.generation = False, self._clock.now() + pause, record.generation

    async def _read(self, key: ObjectKey, spec: PolicySpec, destination: DestinationSpec) -> Catalog:
        def look(store: Store) -> Catalog:
            return bucket.read_policy(
                store,
                installation=self._installation,
                policy=(key.namespace, key.name),
                adopt=spec.adoption == "Always",
            )

        return await self._stores.ask(destination.s3, namespace=key.namespace, use="read", act=look, seconds=30)

    def _tell_records(self, key: ObjectKey, catalog: Catalog, outlived: Collection[str], *, all_of_them: bool) -> None:
        listed = {backup.run.location.manifest for backup in catalog.backups}
        for record in self._house.records(key):
            manifest = record.status.get("manifest")
            if manifest and manifest not in listed and unavailable(record) not in (R.EXPIRED, R.MISSING):
                self.recheck(record.key)
            elif all_of_them or manifest in outlived:
                self._wake(record.key)

    def _measure(self, key: ObjectKey, judged: judge.Judged, summary: Summary | None) -> None:
        METRICS.conditions.tell(key, judged.verdicts)
        proven = summary.newest_verified if summary is not None else None
        if proven is not None:
            METRICS.last_verified.labels(key.namespace, key.name).set(proven.finished.timestamp())


def _remembered(status: Mapping[str, Any]) -> Summary | None:
    """What an earlier process saw, until the bucket can be read."""
    last, proven, counts = status.get("lastBackup"), status.get("lastVerified"), status.get("backups")
    if counts is None:
        return None

    def fact(entry: Mapping[str, Any] | None) -> judge.Fact | None:
        if entry is None:
            return None
        verified = proven["verifiedAt"] if proven is not None and proven["name"] == entry["name"] else None
        finished = parse_rfc3339(str(entry.get("finishedAt") or entry.get("verifiedAt")))
        return judge.Fact(
            name=entry["name"],
            started=finished,
            finished=finished,
            verified=parse_rfc3339(verified) if verified else None,
        )

    return Summary(
        newest=fact(last),
        newest_verified=fact(proven),
        total=counts["total"],
        verified=counts["verified"],
        locked=counts.get("locked", 0),
        size=Quantity(counts["size"]).bytes,
    )
