"""Every backup is read back by another pod, and again where that failed: a store that was away or a node that went must
not leave a good backup unproved, and an identity that is given later must be tried."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from pgtend.api.backupdestination import AgeRecipient, DestinationSpec
from pgtend.api.postgresbackup import BackupStatus
from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.reasons import BackupReason as R
from pgtend.backups.judge_record import Reading
from pgtend.backups.plan import major_of
from pgtend.backups.pods import verify_job
from pgtend.backups.prepare import Preparer
from pgtend.backups.runs import Run, read_runs, waits_for, with_report
from pgtend.core.clock import Clock, parse_rfc3339, rfc3339
from pgtend.core.failpoints import failpoint
from pgtend.kube.client import JOBS, AlreadyExists, Forbidden, Invalid, KubeClient
from pgtend.kube.index import Record
from pgtend.server.policy import WritePolicy

SOON = 5.0
LATER = 60.0
MOST_VERIFYING = 2
"""Of one policy: a bucket full of unread backups must not become a cluster full of pods."""
_TRANSIENT = tuple(timedelta(minutes=minutes) for minutes in (10, 60, 360, 1440))
_LASTING = tuple(timedelta(minutes=minutes) for minutes in (60, 360, 1440))


def again_after(*, failures: int, transient: bool) -> timedelta:
    """How long after the last of so many failures a backup is read again. What people must cure is tried more rarely;
    deleting the failed Job has it tried at once."""
    waits = _TRANSIENT if transient else _LASTING
    return waits[min(failures, len(waits)) - 1]


def attempt_of(job: str) -> int:
    """Which attempt a verification's Job is, by its name (`pods.verify_job`)."""
    found = re.search(r"-read-([0-9]+)$", job)
    return int(found[1]) if found is not None else 1


class ReadBack:
    """Starts and follows the Jobs that verify."""

    def __init__(
        self, *, client: KubeClient, preparer: Preparer, policy: WritePolicy, installation: str, clock: Clock
    ) -> None:
        self._client, self._preparer, self._policy = client, preparer, policy
        self._installation, self._clock = installation, clock

    async def look(
        self, record: Record, policy: Record | None, destination: DestinationSpec | None, status: BackupStatus
    ) -> tuple[Reading, float | None]:
        """How far reading it back is, and when to look again; starts it where it is due. Raises ApiError."""
        if status.verified is not None:
            return Reading(verified_at=parse_rfc3339(status.verified.verified_at)), None
        if policy is None or destination is None:
            return Reading(message="it is not read back: its policy or destination does not exist"), LATER
        recipient = opens(destination, status.recipients)
        if recipient is None:
            text = "none of its recipients has an identity in the cluster: give one of them at the destination"
            return Reading(reason=R.IDENTITY_MISSING, message=text), LATER
        runs = [run for run in await read_runs(self._client, namespace=record.key.namespace, policy=policy.key.name)
                if run.kind == "verify"]  # fmt: skip
        mine = [run for run in runs if run.backup == record.key.name]
        told = Reading()
        if mine:
            told, due = await self._follow(record, mine)
            if due is None or due > self._clock.now():
                wait = LATER if due is not None else None if told.verified_at is not None else SOON
                return told, wait
        prepared = self._preparer.prepare(policy)
        if prepared.observing or not prepared.permitted:
            return Reading(message="it is not read back: the policy or its target observes, or is refused"), LATER
        if not self._may_write() or sum(other.active for other in runs) >= MOST_VERIFYING:
            return told if mine else Reading(message="it waits for others to be read back"), LATER / 2
        version = status.origin.server_version if status.origin is not None else ""
        image = self._preparer.images.of(major_of(version) or 0)
        if image is None:
            text = f"no tools image is configured for PostgreSQL {version}: set the chart's tools.image, tools.majors"
            return Reading(reason=R.TOOLS_IMAGE_MISSING, message=text), LATER
        body = verify_job(
            installation=self._installation,
            policy=policy.key,
            pod=policy.parsed(PolicySpec).pod,
            destination=destination,
            recipient=recipient,
            image=image,
            backup=record.key.name,
            uid=record.uid,
            manifest=str(status.manifest),
            attempt=1 + max((attempt_of(run.job) for run in mine), default=0),
        )
        failpoint("backups.record.before_verify")
        try:
            await self._client.create(JOBS, record.key.namespace, body)
        except AlreadyExists:
            return told, SOON  # ours of before a crash; another's has no label of ours and is seen as gone
        except (Invalid, Forbidden) as error:
            text = f"Job {body['metadata']['name']}: {error.message[:600]}"
            return Reading(reason=R.REFUSED_BY_API, message=text), LATER
        failpoint("backups.record.after_verify")
        return told, SOON

    async def _follow(self, record: Record, mine: Sequence[Run]) -> tuple[Reading, datetime | None]:
        """What came of the attempts so far, and when the next is due, None where the last goes on or was good."""
        namespace, last = record.key.namespace, mine[-1]
        if last.active:
            waits = await waits_for(self._client, namespace=namespace, run=last)
            text = f"Job {last.job} reads it back since {rfc3339(last.created)}" + (f": {waits.text}" if waits else "")
            if waits is not None and waits.reason is not None:
                return Reading(reason=waits.reason, message=text, object=last.job), None
            if len(mine) == 1:
                return Reading(message=text), None
            before, _ = await self._follow(record, mine[:-1])
            if before.reason is None:
                return Reading(message=text), None
            return Reading(reason=before.reason, message=f"{before.message}; {text}", object=before.object), None
        run = await with_report(self._client, namespace=namespace, run=last)
        assert run.ended is not None  # noqa: S101 - it is not active
        if run.succeeded:
            finished = run.termination.finished_at if run.termination is not None else None
            return Reading(verified_at=finished or run.ended), None
        failure = run.failure
        assert failure is not None  # noqa: S101 - it ended and did not succeed
        due = run.ended + again_after(failures=len(mine), transient=failure.transient)
        text = f"{failure.message} (it is read again at {rfc3339(due)})"
        return Reading(reason=failure.reason, message=text, object=failure.object), due

    def _may_write(self) -> bool:
        return self._policy.leading() and not self._policy.braked()


def opens(destination: DestinationSpec, recipients: Sequence[str]) -> AgeRecipient | None:
    """One of a backup's recipients whose identity is in the cluster."""
    for recipient in destination.encryption.age.recipients:
        if recipient.identity is not None and recipient.name in recipients:
            return recipient
    return None
