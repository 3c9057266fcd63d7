"""PostgresBackup's controller: takes the backup that people asked for, has every backup read back, and keeps the record
of what the bucket holds. It deletes nothing there, not even when the record goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from pgtend.api.conditions import Verdict
from pgtend.api.postgresbackup import POSTGRES_BACKUP, BackupSpec, BackupStatus, Verification
from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.reasons import BackupReason as R
from pgtend.api.types import Timestamp
from pgtend.backups import bucket, remembered
from pgtend.backups import judge_record as told
from pgtend.backups.catalog import Backup
from pgtend.backups.judge_record import Reading
from pgtend.backups.pods import dump_job
from pgtend.backups.policy import PolicyController
from pgtend.backups.prepare import Preparer
from pgtend.backups.readback import ReadBack
from pgtend.backups.runs import Failure, Run, read_runs, waits_for, with_report
from pgtend.backups.stores import Stores
from pgtend.core.clock import Clock, parse_rfc3339, rfc3339
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.core.findings import ObjectKey
from pgtend.engine.dependents import Dependents
from pgtend.engine.loop import Outcome
from pgtend.kube.client import JOBS, AlreadyExists, Forbidden, Invalid, KubeClient
from pgtend.kube.index import Index, Record
from pgtend.kube.status import Draft, StatusWriter
from pgtend.server.policy import WritePolicy
from pgtend.telemetry.metrics import METRICS

SOON = 5.0
LATER = 60.0


class RecordController:
    def __init__(
        self,
        *,
        index: Index,
        client: KubeClient,
        status: StatusWriter,
        stores: Stores,
        preparer: Preparer,
        dependents: Dependents,
        policies: PolicyController,
        policy: WritePolicy,
        installation: str,
        clock: Clock,
    ) -> None:
        self._index, self._client, self._status, self._stores = index, client, status, stores
        self._preparer, self._dependents, self._policies = preparer, dependents, policies
        self._policy, self._installation, self._clock = policy, installation, clock
        self._reading = ReadBack(
            client=client, preparer=preparer, policy=policy, installation=installation, clock=clock
        )
        self._doubted: set[ObjectKey] = set()

    def doubt(self, key: ObjectKey) -> None:
        """The bucket does not list it any more: look anew at the next reconcile."""
        self._doubted.add(key)

    async def reconcile(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        return {key: await self._one(key) for key in keys}

    async def _one(self, key: ObjectKey) -> Outcome:
        record = self._index.get(key)
        if record is None or record.deleting:
            self._doubted.discard(key)
            self._dependents.drop(key)
            METRICS.forget(key)
            return Outcome()
        if record.spec_error is not None:
            return await self._write(
                record, BackupStatus(), told.not_there(R.INVALID_SPEC, f"{record.spec_error}: correct it")
            )
        spec = record.parsed(BackupSpec)
        name = spec.policy_ref.name if spec.policy_ref is not None else remembered.policy_of(record)
        policy = self._index.get(ObjectKey("PostgresBackupPolicy", key.namespace, name)) if name else None
        if policy is not None and (policy.deleting or policy.spec_error is not None):
            policy = None
        self._dependents.set(key, [ObjectKey("PostgresBackupPolicy", key.namespace, name)] if name else [])
        manifest = record.status.get("manifest") or (spec.stored.manifest if spec.stored is not None else None)
        if manifest is not None:
            return await self._stored(record, spec, policy, name, str(manifest))
        if remembered.ended(record):
            return Outcome()
        return await self._wanted(record, spec, policy, name)

    # A backup now

    async def _wanted(self, record: Record, spec: BackupSpec, policy: Record | None, name: str) -> Outcome:
        key, now = record.key, self._clock.now()
        claimed = record.status.get("job") is not None
        late = spec.not_after is not None and parse_rfc3339(spec.not_after) < now
        if late and not claimed:
            return await self._write(
                record, BackupStatus(policy=name), told.rests(R.EXPIRED, f"notAfter {spec.not_after} has passed")
            )
        if policy is None:
            text = f"PostgresBackupPolicy {key.namespace}/{name} does not exist, or is not valid: see there"
            return await self._write(
                record, BackupStatus(policy=name), told.not_there(R.POLICY_NOT_FOUND, text, object=name), LATER
            )
        runs = await self._runs(record, name)
        run = next((run for run in runs if run.kind == "dump"), None)
        if run is None and claimed:
            return await self._take_up(record, policy, name, None)
        if run is None:
            return await self._begin(record, spec, policy, name)
        status = BackupStatus(policy=name, job=run.job, started_at=Timestamp(rfc3339(run.created)))
        if run.active and run.ending:
            return Outcome(again=SOON)
        if run.active:
            waits = await waits_for(self._client, namespace=key.namespace, run=run)
            text = f"Job {run.job} runs since {rfc3339(run.created)}" + (f": {waits.text}" if waits else "")
            reason = waits.reason if waits is not None and waits.reason is not None else R.RUNNING
            return await self._write(record, status, told.under_way(reason, text), SOON)
        run = await with_report(self._client, namespace=key.namespace, run=run)
        if run.failure is not None and run.termination is None:
            # killed without a word, perhaps between the manifest and its end
            return await self._take_up(record, policy, name, remembered.explained(record, run.failure))
        if run.failure is not None:
            failure = run.failure
            self._policies.stale(policy.key)
            verdicts = told.not_there(failure.reason, failure.message, object=failure.object, stalled=True)
            return await self._write(record, status, verdicts)
        if run.termination is not None and run.termination.manifest is not None:
            outcome = await self._stored(record, spec, policy, name, run.termination.manifest)
            self._policies.stale(policy.key)
            return outcome
        return await self._take_up(record, policy, name, None)

    async def _begin(self, record: Record, spec: BackupSpec, policy: Record, name: str) -> Outcome:
        """Start its Job, unless the bucket holds a backup of this name already: then that one is taken up."""
        key = record.key
        prepared = self._preparer.prepare(policy, kind="PostgresBackup")
        if prepared.trouble is not None or prepared.setting is None:
            trouble = prepared.trouble
            reason, text = (trouble.reason, trouble.message) if trouble else (R.WAITING, "the policy is not ready")
            verdicts = told.not_there(reason, f"not begun: {text}", object=trouble.object if trouble else None)
            return await self._write(record, BackupStatus(policy=name), verdicts, SOON * 2)
        if prepared.observing:
            text = "nothing is started: the policy or its target observes"
            return await self._write(record, BackupStatus(policy=name), told.rests(R.OBSERVING, text))
        found = await self._find(record, policy)
        if found is not None:
            return await self._stored(record, spec, policy, name, found.run.location.manifest)
        if not self._may_write():
            return await self._write(
                record,
                BackupStatus(policy=name),
                told.under_way(R.BRAKE_ON, "the brake is on: nothing is started"),
                SOON,
            )
        retain = parse_rfc3339(spec.retain_until) if spec.retain_until is not None else None
        body = dump_job(prepared.setting, backup=key.name, uid=record.uid, reason=spec.reason, retain_until=retain)
        failpoint("backups.record.before_dump")
        try:
            with suppress(AlreadyExists):  # ours of before a crash; another's has no label of ours and is seen as gone
                await self._client.create(JOBS, key.namespace, body)
        except (Invalid, Forbidden) as error:
            text = f"Job {key.name}-dump: {error.message[:600]}"
            return await self._write(record, BackupStatus(policy=name), told.not_there(R.REFUSED_BY_API, text), LATER)
        failpoint("backups.record.after_dump")
        job = body["metadata"]["name"]
        status = BackupStatus(policy=name, job=job, started_at=Timestamp(rfc3339(self._clock.now())))
        self._policies.stale(policy.key)
        return await self._write(record, status, told.under_way(R.RUNNING, f"Job {job} was started"), SOON)

    async def _take_up(self, record: Record, policy: Record, name: str, failure: Failure | None) -> Outcome:
        """The Job is gone or told nothing: the bucket knows whether it did its work."""
        try:
            found = await self._find(record, policy)
        except PgtendError as error:
            text = f"its Job told nothing, and the bucket could not be asked: {error.message}"
            return await self._write(record, remembered.kept(record), told.under_way(R.WAITING, text), LATER)
        if found is not None:
            return await self._stored(record, record.parsed(BackupSpec), policy, name, found.run.location.manifest)
        if failure is None:
            text = f"Job {record.status.get('job')} is gone, and the bucket holds no backup named {record.key.name}"
            failure = Failure(reason=R.WORKER_LOST, message=text)
        self._policies.stale(policy.key)
        verdicts = told.not_there(failure.reason, failure.message, object=failure.object, stalled=True)
        return await self._write(record, remembered.kept(record), verdicts)

    async def _find(self, record: Record, policy: Record) -> Backup | None:
        spec = policy.parsed(PolicySpec)
        _, destination, _ = self._preparer.destination(record.key.namespace, spec.destination_ref.name)
        if destination is None:
            return None
        where = (policy.key.namespace, policy.key.name)
        catalog = await self._stores.ask(
            destination.s3,
            namespace=record.key.namespace,
            use="read",
            act=lambda store: bucket.read_policy(
                store, installation=self._installation, policy=where, adopt=spec.adoption == "Always"
            ),
        )
        return next((b for b in catalog.backups if b.manifest.backup_name == record.key.name), None)

    # What is in the bucket

    async def _stored(
        self, record: Record, spec: BackupSpec, policy: Record | None, name: str, manifest: str
    ) -> Outcome:
        key = record.key
        gone = remembered.gone(record)
        if gone is not None and key not in self._doubted:
            return Outcome()
        used = policy.parsed(PolicySpec) if policy is not None else None
        where = spec.stored.destination_ref.name if spec.stored is not None else used and used.destination_ref.name
        _, destination, trouble = self._preparer.destination(key.namespace, str(where))
        if record.status.get("origin") is None or key in self._doubted or record.status.get("manifest") is None:
            if destination is None:
                assert trouble is not None  # noqa: S101 - there is one where there is no destination
                verdicts = told.not_there(trouble.reason, trouble.message, object=trouble.object)
                return await self._write(record, remembered.kept(record), verdicts, LATER)
            try:
                found = await self._stores.ask(
                    destination.s3,
                    namespace=key.namespace,
                    use="read",
                    act=lambda store: bucket.read_backup(store, manifest),
                )
            except PgtendError as error:
                text = f"{manifest} could not be read: {error.message}"
                return await self._write(record, remembered.kept(record), told.under_way(R.WAITING, text), LATER)
            self._doubted.discard(key)
            if found is None:
                return await self._missing(record, manifest)
            if not name and found.manifest.policy.namespace == key.namespace:
                name = found.manifest.policy.name
            target = used.target_ref.name if used is not None else None
            status = told.describe(found, policy=name, target=target)
            retained = found.manifest.retain_until
        else:
            status, retained = remembered.kept(record), None
        finished = parse_rfc3339(str(status.finished_at))
        expires = told.expires_at(
            finished=finished,
            keep_for=used.retention.keep_for.timedelta if used is not None else None,
            retain=(retained, parse_rfc3339(spec.retain_until) if spec.retain_until is not None else None),
        )
        status = status.model_copy(
            update={
                "job": record.status.get("job"),
                "manifest": manifest,
                "expires_at": Timestamp(rfc3339(expires)) if expires is not None else None,
            }
        )
        reading, again = await self._reading.look(record, policy, destination, status)
        if reading.verified_at is not None and status.verified is None:
            verification = Verification(verified_at=Timestamp(rfc3339(reading.verified_at)))
            status = status.model_copy(update={"verified": verification})
            if policy is not None:
                self._policies.stale(policy.key)
        verdicts = told.committed(status, reading, gone=None, now=self._clock.now())
        return await self._write(record, status, verdicts, again)

    async def _missing(self, record: Record, manifest: str) -> Outcome:
        now = self._clock.now()
        if record.status.get("finishedAt") is None:
            text = f"the bucket holds no backup {manifest}: correct spec.stored, or delete this object"
            return await self._write(record, BackupStatus(), told.not_there(R.MISSING, text, stalled=True))
        status = remembered.kept(record)
        expired = status.expires_at is not None and parse_rfc3339(status.expires_at) <= now
        verdicts = told.committed(status, Reading(), gone=R.EXPIRED if expired else R.MISSING, now=now)
        return await self._write(record, status, verdicts)

    # Writing

    async def _runs(self, record: Record, policy: str) -> list[Run]:
        runs = await read_runs(self._client, namespace=record.key.namespace, policy=policy)
        return [run for run in runs if run.backup == record.key.name]

    def _may_write(self) -> bool:
        return self._policy.leading() and not self._policy.braked()

    async def _write(
        self, record: Record, status: BackupStatus, verdicts: Sequence[Verdict], again: float | None = None
    ) -> Outcome:
        METRICS.conditions.tell(record.key, verdicts)
        await self._status.write(POSTGRES_BACKUP, record, Draft(status=status, verdicts=verdicts))
        return Outcome(again=again)
