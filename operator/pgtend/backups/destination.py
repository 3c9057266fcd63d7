"""BackupDestination's controller: look at the store with each credential, judge, write. It only ever writes one small
object of its own under the prefix, to see whether a write that must not overwrite does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from pgtend.api.backupdestination import BACKUP_DESTINATION, S3, DestinationSpec, DestinationStatus
from pgtend.api.postgresbackuppolicy import PolicySpec
from pgtend.api.reasons import DestinationReason
from pgtend.backups.generations import longest
from pgtend.backups.judge_destination import Look, judge, reason_of, refused
from pgtend.backups.stores import Stores
from pgtend.core.errors import PgtendError
from pgtend.core.findings import ObjectKey
from pgtend.engine.loop import Outcome
from pgtend.kube.index import Index, Record
from pgtend.kube.secrets import SecretReader
from pgtend.kube.status import Draft, StatusWriter
from pgtend.objectstore.errors import StoreError, StoreReason
from pgtend.objectstore.s3 import Store
from pgtend.server.policy import WritePolicy
from pgtend.telemetry.metrics import METRICS

EVERY = 600.0
# a store or a Secret that is not there may come any minute, and somebody waits for it
AGAIN = 30.0
SECONDS = 8.0
FIGURES = frozenset({"incompleteUploads"})


class DestinationController:
    """`changed` is called with the destination's key when what its policies may do has changed."""

    def __init__(
        self,
        *,
        index: Index,
        status: StatusWriter,
        stores: Stores,
        secrets: SecretReader,
        policy: WritePolicy,
        changed: Callable[[ObjectKey], None],
    ) -> None:
        self._index, self._status, self._stores, self._changed = index, status, stores, changed
        self._secrets, self._policy = secrets, policy

    async def reconcile(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        return {key: await self._one(key) for key in keys}

    async def _one(self, key: ObjectKey) -> Outcome:
        record = self._index.get(key)
        if record is None or record.deleting:
            METRICS.forget(key)
            self._changed(key)
            return Outcome()
        if record.spec_error is not None:
            text = f"{record.spec_error}: correct it"
            return await self._write(record, Draft(status=DestinationStatus(), verdicts=_invalid(text)), None)
        spec = record.parsed(DestinationSpec)
        # two megabytes of native code, which an operator without a BackupDestination does not load
        from pgtend.objectstore.pipe import parse_recipients

        try:
            parse_recipients([recipient.public_key for recipient in spec.encryption.age.recipients])
        except PgtendError as error:
            verdicts = refused(reason_of(error), f"{error.message}: give a key as age-keygen prints it")
            return await self._write(record, Draft(status=DestinationStatus(), verdicts=verdicts), None)
        look = await self._look(spec.s3, key.namespace)
        if look.failure is not None and look.failure.reason is not StoreReason.BUCKET_UNREACHABLE:
            # the Secret may be the cause: it is read anew next time
            self._secrets.forget(key.namespace)
        judged = judge(spec, look, keep=self._longest(key))
        again = EVERY if look.failure is None and not look.braked else AGAIN
        return await self._write(record, Draft(status=judged.status, verdicts=judged.verdicts, figures=FIGURES), again)

    async def _write(self, record: Record, draft: Draft, again: float | None) -> Outcome:
        METRICS.conditions.tell(record.key, draft.verdicts)
        written = await self._status.write(BACKUP_DESTINATION, record, draft)
        if written is not record:
            self._changed(record.key)
        return Outcome(again=again)

    async def _look(self, s3: S3, namespace: str) -> Look:
        braked = self._policy.braked() or not self._policy.leading()
        try:
            rules, uploads, locks = await self._stores.ask(
                s3, namespace=namespace, use="read", act=_read, seconds=SECONDS
            )
            if uploads is None and s3.credentials.delete is not None:
                uploads = await self._stores.ask(s3, namespace=namespace, use="delete", act=_uploads, seconds=SECONDS)
            honored = None
            if not braked:
                key = f"{s3.prefix}/.pgtend/conditional-write"
                honored = await self._stores.ask(
                    s3,
                    namespace=namespace,
                    use="write",
                    act=lambda store: store.honors_conditional_writes(key),
                    seconds=SECONDS,
                )
        except PgtendError as error:
            return Look(failure=error)
        return Look(honored=honored, rules=rules, uploads=uploads, locks=locks, braked=braked)

    def _longest(self, key: ObjectKey) -> tuple[str, timedelta] | None:
        found = [
            (longest(record.parsed(PolicySpec).retention), record.key.name)
            for record in self._index.of_kind("PostgresBackupPolicy")
            if record.key.namespace == key.namespace
            and record.spec_error is None
            and record.parsed(PolicySpec).destination_ref.name == key.name
        ]
        if not found:
            return None
        span, name = max(found)
        return name, span


def _invalid(text: str) -> Sequence[Any]:
    return refused(DestinationReason.INVALID_SPEC, text)


def _read(store: Store) -> tuple[tuple[Mapping[str, Any], ...] | None, int | None, bool | None]:
    next(iter(store.objects(f"{store.config.prefix}/")), None)
    rules: tuple[Mapping[str, Any], ...] | None
    try:
        rules = tuple(store.expiring_rules())
    except StoreError as error:
        if error.reason is not StoreReason.BUCKET_DENIED:
            raise
        rules = None
    # a request that only those pay who ask for it
    locks = store.locks_objects() if store.config.object_lock is not None else False
    return rules, _uploads(store), locks


def _uploads(store: Store) -> int | None:
    try:
        return sum(1 for _ in store.incomplete_uploads(f"{store.config.prefix}/"))
    except StoreError as error:
        if error.reason is not StoreReason.BUCKET_DENIED:
            raise
        return None
