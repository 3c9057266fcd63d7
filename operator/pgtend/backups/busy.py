"""When dumps of a target run and are due, as the gate wants to know it: from what the policies' controller has seen
last and from the records of backups that people asked for. Asks nobody, since it is asked every second."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from pgtend.api.postgresbackup import BackupSpec
from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import BackupReason as R
from pgtend.backups.plan import spread
from pgtend.backups.policy import PolicyController
from pgtend.core.clock import Clock, parse_rfc3339
from pgtend.core.findings import ObjectKey
from pgtend.gate.busy import ActiveDump, Busy, DumpPlan, dump_plan
from pgtend.gate.walltime import ScheduleError, load_zone
from pgtend.kube.index import Index, Record


class Dumps:
    def __init__(self, *, index: Index, policies: PolicyController, clock: Clock) -> None:
        self._index, self._policies, self._clock = index, policies, clock

    def busy(self, target: ObjectKey) -> Busy:
        """The dumps of a target, from every policy of its namespace."""
        now = self._clock.now()
        plans: list[DumpPlan] = []
        active: list[ActiveDump] = []
        for record in self._of(target):
            active += self._active(record)
            plan = self._plan(record, target, now)
            if plan is not None:
                plans.append(plan)
        return Busy(dump_plans=tuple(plans), active_dumps=tuple(active))

    def _of(self, target: ObjectKey) -> Iterator[Record]:
        for record in self._index.of_kind("PostgresBackupPolicy"):
            if record.key.namespace != target.namespace or record.spec_error is not None or record.deleting:
                continue
            if record.parsed(PolicySpec).target_ref.name == target.name:
                yield record

    def _plan(self, record: Record, target: ObjectKey, now: datetime) -> DumpPlan | None:
        """None where nothing will be started: suspended, observed, or without a CronJob."""
        spec = record.parsed(PolicySpec)
        found = self._index.get(target)
        observed = found is None or not isinstance(found.spec, TargetSpec) or found.spec.mode == "Observe"
        if spec.suspend or spec.mode == "Observe" or observed:
            return None
        seen = self._policies.seen(record.key)
        if seen is not None and seen.handled_until is None:
            return None
        attempt = (record.status.get("lastAttempt") or {}).get("startedAt")
        known = [record.created, *([parse_rfc3339(str(attempt))] if attempt else ())]
        if seen is not None and seen.handled_until is not None:
            known.append(seen.handled_until)
            known += [run.created for run in seen.runs if run.kind == "dump" and run.backup is None]
        try:
            return dump_plan(
                policy=record.key,
                schedule=spread(spec, str(record.key)),
                zone=load_zone(spec.time_zone),
                now=now,
                handled_until=max(known),
                starting_deadline=spec.starting_deadline.timedelta,
            )
        except ScheduleError:
            return None

    def _active(self, policy: Record) -> Iterator[ActiveDump]:
        seen = self._policies.seen(policy.key)
        jobs = set()
        for run in seen.runs if seen is not None else ():
            if run.kind == "dump" and run.active:
                jobs.add(run.job)
                yield ActiveDump(policy=policy.key, job=run.job, started_at=run.created)
        # one that people asked for is known as soon as it is begun
        for record in self._index.of_kind("PostgresBackup"):
            if record.key.namespace != policy.key.namespace or not isinstance(record.spec, BackupSpec):
                continue
            ref, job = record.spec.policy_ref, record.status.get("job")
            if ref is None or ref.name != policy.key.name or not job or job in jobs or not _runs(record):
                continue
            started = record.status.get("startedAt")
            yield ActiveDump(
                policy=policy.key, job=str(job), started_at=parse_rfc3339(str(started)) if started else record.created
            )


def _runs(record: Record) -> bool:
    found = next((c for c in record.status.get("conditions") or () if c["type"] == "Complete"), None)
    return found is not None and found["status"] == "Unknown" and found["reason"] == R.RUNNING
