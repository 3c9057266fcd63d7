"""The task Restore: one database of a backup into one database of a target, by a pod of its own, once.

The operator decides, looks whether the database is empty, and claims; the pod alone holds the private key, and compares
the server and the database again before its first write. It goes on when this process ends, and the next one follows
it: its Job is named after the very operation, and is made once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import Histogram

from pgtend.api.pod import PodSettings
from pgtend.api.postgresoperation import OperationSpec
from pgtend.api.postgrestarget import Credential
from pgtend.api.reasons import OperationReason as R
from pgtend.api.reasons import TargetReason
from pgtend.api.restore import RestoreDatabase, RestoreOptions
from pgtend.api.types import format_duration
from pgtend.backups import restoring
from pgtend.backups.inputs import Restoring
from pgtend.backups.jobs.config import Termination
from pgtend.backups.pods import OPERATION, restore_job, restore_job_name
from pgtend.backups.prepare import Preparer
from pgtend.backups.restoring import Found
from pgtend.backups.runs import Failure, Run, run_of, waits_for, with_report
from pgtend.core.actions import Repeat
from pgtend.core.clock import Clock
from pgtend.core.errors import PgtendError
from pgtend.core.failpoints import failpoint
from pgtend.gate.classes import TaskType
from pgtend.gate.decide import Permit
from pgtend.kube.client import JOBS, PODS, AlreadyExists, ApiError, Forbidden, Invalid, KubeClient
from pgtend.kube.index import Index, Record
from pgtend.postgres import contents
from pgtend.postgres.purposes import Purpose
from pgtend.postgres.quoting import identifier
from pgtend.server.server import Server
from pgtend.tasks.protocol import (
    GOES_ON,
    Breach,
    Ground,
    Item,
    ItemResult,
    LockLevel,
    Objection,
    Outcome,
    TaskPlan,
    plan_hash,
)
from pgtend.telemetry.metrics import METRICS

log = logging.getLogger(__name__)
ROLE = "restore"
POLL = 2.0
# an image that cannot be pulled for so long will not be pulled by waiting
IMAGE_PATIENCE = 120.0
# beyond the operation's own deadline, which the operator keeps as long as there is one
MARGIN = 60
BUCKETS = (1, 5, 15, 60, 300, 900, 3600, 14_400, 43_200)
SECONDS = Histogram(
    "pgtend_restore_seconds",
    "Seconds that each phase of a restore took",
    ["phase"],
    buckets=BUCKETS,
    registry=METRICS.registry,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every restore needs."""

    index: Index
    client: KubeClient
    preparer: Preparer
    installation: str
    clock: Clock


def maker(means: Means) -> Callable[[Record, OperationSpec], Restore]:
    """For the composition root: from an operation of type Restore to its task."""

    def make(record: Record, spec: OperationSpec) -> Restore:
        assert spec.restore is not None  # noqa: S101 - the type comes with it
        return Restore(
            means=means,
            record=record,
            options=spec.restore,
            pod=spec.pod or PodSettings.model_validate({}),
            elsewhere=spec.target_ref.namespace not in (None, record.key.namespace),
        )

    return make


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """`elsewhere` where the target is of another namespace than the operation."""

    means: Means
    record: Record
    options: RestoreOptions
    pod: PodSettings
    elsewhere: bool = False
    type: TaskType = TaskType.RESTORE
    repeat: Repeat = Repeat.ONCE
    together: bool = True

    @property
    def job(self) -> str:
        return restore_job_name(self.record.key.name, self.record.uid)

    async def plan(self, ground: Ground) -> TaskPlan:
        if self.elsewhere:
            text = (
                f"its pod mounts the Secrets of the target's namespace {ground.server.key.namespace}: make the"
                " operation there"
            )
            return self._objected(Objection(breach=Breach.MUST_BE_IN_TARGET_NAMESPACE, message=text))
        credential = _needed(ground.server)
        found = self._find(ground)
        if isinstance(found, Objection):
            return self._objected(found)
        database = self.options.into.database
        exists, held, total = await _look(ground.server, credential, database.name)
        if held and database.if_not_empty == "Refuse":
            text = (
                f"database {database.name} of {ground.server.key.name} holds {contents.told(held, total)}: name one"
                " that does not exist, or say ifNotEmpty: Add (nothing is ever dropped)"
            )
            return self._objected(Objection(breach=Breach.DATABASE_NOT_EMPTY, message=text, object=database.name))
        return self._plan(ground, found, database, exists=exists, held=held, total=total)

    def _plan(
        self, ground: Ground, found: Found, database: RestoreDatabase, *, exists: bool, held: list[str], total: int
    ) -> TaskPlan:
        lines = []
        if not exists:
            owner = identifier(database.owner) if database.owner is not None else f"<as in {found.backup}>"
            lines.append(f"CREATE DATABASE {identifier(database.name)} OWNER {owner}")
        owned = f" --no-owner --role={database.owner}" if database.owner is not None else ""
        schemas = ", ".join(identifier(name) for name in self.options.select.schemas)
        part = f" --use-list=<schema {schemas}>" if schemas else ""
        lines.append(
            f"pg_restore --single-transaction{owned}{part} -d {database.name} <{found.source} of {found.backup}>"
        )
        item = Item(
            type=self.type,
            object=database.name,
            verb="RESTORE",
            sql="; ".join(lines),
            lock=LockLevel.NONE,
            database=database.name,
            facts={"job": self.job, "database": database.name},
        )
        notes = [] if found.verified else [f"{found.backup} has not been read back yet"]
        if found.raw is not None:
            notes.append(f"{found.raw} before compression")
        if held:
            notes.append(f"it is added to what is there: {contents.told(held, total)}")
        standing = ground.server.standing
        system = standing.identity.system_identifier if standing and standing.identity else ""
        return TaskPlan(
            type=self.type,
            items=(item,),
            plan_hash=plan_hash(type=self.type, system_identifier=system, items=(item,)),
            sql=tuple(lines),
            notes=tuple(notes),
        )

    async def run(
        self, ground: Ground, permit: Permit, items: Sequence[Item]
    ) -> AsyncIterator[tuple[Item, ItemResult]]:
        for item in items:
            if item.verb != GOES_ON:
                refused = await self._start(ground, permit)
                if refused is not None:
                    yield item, refused
                    continue
            yield item, await self._follow()

    async def _start(self, ground: Ground, permit: Permit) -> ItemResult | None:
        """Make the Job. Gives why it was not made."""
        found = self._find(ground)
        if isinstance(found, Objection):
            return ItemResult(outcome=Outcome.FAILED, message=found.message[:256], reason=R(found.breach.value))
        identity = ground.server.writable().identity
        assert identity is not None  # noqa: S101 - a standing without a refusal has one
        given = Restoring(
            installation=self.means.installation,
            operation=self.record.key,
            target=ground.server.spec,
            credential=_needed(ground.server),
            destination=found.destination,
            recipient=found.recipient,
            manifest=found.manifest,
            source=found.source,
            schemas=self.options.select.schemas,
            database=self.options.into.database,
            identifier=identity.system_identifier,
            timeline=identity.timeline,
        )
        left = int((permit.deadline - self.means.clock.now()).total_seconds())
        body = restore_job(given, pod=self.pod, image=found.image, uid=self.record.uid, deadline=left + MARGIN)
        failpoint("backups.restore.before_job")
        try:
            await self.means.client.create(JOBS, self.record.key.namespace, body)
        except AlreadyExists:
            pass  # an answer of the API server was lost: it is ours, by the uid in its name
        except (Invalid, Forbidden) as error:
            text = f"Job {self.job}: {error.message[:200]}"
            return ItemResult(outcome=Outcome.FAILED, message=text, reason=R.RESTORE_FAILED)
        failpoint("backups.restore.after_job")
        return None

    async def _follow(self) -> ItemResult:
        """The end of the Job, whenever that is."""
        pulling: float | None = None
        missing = 0
        while True:
            try:
                run = await self._read()
                if run is not None and not run.active:
                    return _result(run)
                missing = missing + 1 if run is None else 0
                if missing > 2:
                    return _gone(self.job)
                waits = (
                    await waits_for(self.means.client, namespace=self.record.key.namespace, run=run) if run else None
                )
                if waits is None or waits.reason is None:
                    pulling = None
                elif pulling is None:
                    pulling = self.means.clock.monotonic()
                elif self.means.clock.monotonic() - pulling > IMAGE_PATIENCE:
                    await self.halt(())
                    return ItemResult(outcome=Outcome.FAILED, message=waits.text[:256], reason=R.TOOLS_IMAGE_MISSING)
            except ApiError as error:  # the pod works on, whatever the API server says to us
                log.warning("a restore is not seen", extra={"object": self.job, "cause": error.message})
            await asyncio.sleep(POLL)

    async def sweep(self, ground: Ground, items: Sequence[Item]) -> tuple[str, ...]:
        return ()

    async def find(self, ground: Ground, items: Sequence[Item]) -> Mapping[str, ItemResult]:
        """What the Job says, where it has ended."""
        run = await self._asked()
        if run is None or run.active:
            return {}
        return {item.object: _result(run) for item in items}

    async def going_on(self, items: Sequence[Item]) -> frozenset[str]:
        run = await self._asked()
        return frozenset(item.object for item in items) if run is not None else frozenset()

    async def halt(self, items: Sequence[Item]) -> tuple[str, ...]:
        """Delete the Job and wait for its pod, whose session ends with it: a transaction that is not committed is not
        there."""
        client, namespace = self.means.client, self.record.key.namespace
        try:
            run = await self._read()
            if run is None:
                return ()
            await client.delete(JOBS, namespace, self.job, uid=run.uid)
            for _ in range(60):
                if not [pod async for pod in client.list(PODS, namespace, labels=f"{OPERATION}={self.job}")]:
                    break
                await asyncio.sleep(POLL)
        except ApiError as error:
            raise PgtendError(R.RESTORE_FAILED, f"Job {self.job} could not be ended: {error.message[:200]}") from error
        return (f"Job {self.job} was ended: what it had not committed is not in {self.options.into.database.name}",)

    async def _asked(self) -> Run | None:
        try:
            return await self._read()
        except ApiError as error:
            raise PgtendError(R.WAITING_FOR_TARGET, f"Job {self.job}: {error.message[:200]}") from error

    async def _read(self) -> Run | None:
        client, namespace = self.means.client, self.record.key.namespace
        async for body in client.list(JOBS, namespace, labels=f"{OPERATION}={self.job}"):
            if "deletionTimestamp" not in body["metadata"]:
                return await with_report(client, namespace=namespace, run=run_of(body))
        return None

    def _find(self, ground: Ground) -> Found | Objection:
        return restoring.find(
            index=self.means.index,
            preparer=self.means.preparer,
            namespace=self.record.key.namespace,
            options=self.options,
            target=ground.server.key,
        )

    def _objected(self, objection: Objection) -> TaskPlan:
        return TaskPlan(
            type=self.type,
            items=(),
            plan_hash=plan_hash(type=self.type, system_identifier=""),
            sql=(),
            objection=objection,
        )


def _needed(server: Server) -> Credential:
    credential = server.spec.credentials.restore
    if credential is None:
        raise PgtendError(
            TargetReason.CAPABILITY_MISSING,
            f"target {server.key} has no credentials.restore: add it (pgtend target init-sql --features restore prints"
            " the role)",
            object="credentials.restore",
            transient=False,
        )
    return credential


async def _look(server: Server, credential: Credential, name: str) -> tuple[bool, list[str], int]:
    """Whether the database exists, what is in it, and how much. Raises PgtendError."""
    standing = server.standing
    if standing is None or standing.primary is None:
        raise PgtendError(TargetReason.NO_PRIMARY, f"no primary of target {server.key} is known")
    member = server.member(standing.primary)
    async with server.session(member, purpose=Purpose.CATALOG, role=ROLE, credential=credential) as session:
        if not await session.fetch(contents.EXISTS, {"name": name}):
            return False, [], 0
    async with server.session(
        member, purpose=Purpose.CATALOG, role=ROLE, credential=credential, database=name
    ) as session:
        rows = await session.fetch(contents.HELD)
    return True, [str(row["name"]) for row in rows], int(rows[0]["total"]) if rows else 0


def _result(run: Run) -> ItemResult:
    """What an ended Job has come to."""
    assert run.ended is not None  # noqa: S101 - it is not active
    actual, told = (run.ended - run.created).total_seconds(), run.termination
    if run.failure is not None:
        return ItemResult(
            outcome=Outcome.FAILED,
            actual=actual,
            message=run.failure.message[:256],
            reason=reason_of(run.failure, told),
        )
    if told is None:
        text = f"Job {run.job} ended well; what its pod said is gone"
        return ItemResult(outcome=Outcome.SUCCEEDED, actual=actual, message=text)
    for phase, seconds in told.phases.items():
        SECONDS.labels(phase).observe(seconds)
    took = ", ".join(f"{phase} {format_duration(seconds)}" for phase, seconds in told.phases.items() if seconds >= 1)
    return ItemResult(
        outcome=Outcome.SUCCEEDED,
        actual=actual,
        size_after=told.size.raw if told.size is not None else None,
        message=(told.message + (f" ({took})" if took else ""))[:256],
    )


def reason_of(failure: Failure, told: Termination | None) -> R:
    """The pod's own word where it had the last one; else what Kubernetes did to it."""
    word = told.reason if told is not None and told.message == failure.message else str(failure.reason)
    word = {"Evicted": "WorkerLost"}.get(word, word)
    return R(word) if word in {str(reason) for reason in R} else R.RESTORE_FAILED


def _gone(job: str) -> ItemResult:
    text = f"Job {job} is not there any more: somebody deleted it; look whether its transaction was committed"
    return ItemResult(outcome=Outcome.INTERRUPTED, message=text)
