"""PostgresOperation's controller: decides whether an operation is to be begun (beginning.py), followed, taken up again
(underway.py), or is over.

Each object has a lane of its own, so an emergency waits for nothing; what takes long runs in the background
(tasks/runner.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from pgtend.api.postgresoperation import OperationSpec
from pgtend.api.reasons import OperationReason as R
from pgtend.core.clock import Clock
from pgtend.core.findings import ObjectKey
from pgtend.core.journal import of_another, read_journal
from pgtend.engine.dependents import Dependents
from pgtend.engine.loop import Outcome as Due
from pgtend.gate.classes import TaskType
from pgtend.kube.client import KubeClient
from pgtend.kube.index import Index
from pgtend.kube.status import StatusWriter
from pgtend.operations.admission import No
from pgtend.operations.asking import Asking, Maker
from pgtend.operations.beginning import Beginning
from pgtend.operations.place import SOON, BusyOf, Labels, Places, Windows, target_of
from pgtend.operations.records import ItemRecords
from pgtend.operations.scribe import Scribe
from pgtend.operations.underway import Underway
from pgtend.server.member import MemberSessions
from pgtend.server.registry import Registry
from pgtend.tasks.runner import Ending, Runner

log = logging.getLogger(__name__)


class OperationController:
    """`windows_of` gives the windows of a target, `busy_of` its dumps, `labels_of` the labels of a namespace (None
    where they may not be read); `requesters_checked` where an admission policy has compared requestedBy; `runner` is
    shared with all who start tasks; `makers` make the tasks that other domains carry out."""

    def __init__(
        self,
        *,
        index: Index,
        client: KubeClient,
        registry: Registry,
        status: StatusWriter,
        members: MemberSessions,
        dependents: Dependents,
        braked: Callable[[], bool],
        windows_of: Windows,
        busy_of: BusyOf,
        runner: Runner,
        makers: Mapping[TaskType, Maker],
        labels_of: Labels,
        installation: str,
        requesters_checked: bool,
        clock: Clock,
    ) -> None:
        self._index, self._dependents, self._installation = index, dependents, installation
        places = Places(
            index=index,
            registry=registry,
            braked=braked,
            windows_of=windows_of,
            busy_of=busy_of,
            labels_of=labels_of,
        )
        self._scribe = Scribe(
            status=status,
            records=ItemRecords(client),
            installation=installation,
            checked=requesters_checked,
            clock=clock,
        )
        self._runner = runner
        asking = Asking(makers)
        self._underway = Underway(
            places=places,
            scribe=self._scribe,
            runner=runner,
            members=members,
            dependents=dependents,
            asking=asking,
            clock=clock,
        )
        self._beginning = Beginning(
            places=places,
            scribe=self._scribe,
            runner=runner,
            members=members,
            underway=self._underway,
            asking=asking,
            clock=clock,
        )

    async def reconcile(self, keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Due]:
        return {key: await self._one(key) for key in keys}

    async def _one(self, key: ObjectKey) -> Due:
        record = self._index.get(key)
        run = self._runner.find(key)
        if run is not None and (record is None or record.deleting or record.uid != run.order.uid):
            self._runner.stop(key, Ending.CANCELLED, "the object was deleted")
            if run.ending is None:
                return Due(again=SOON)
            self._underway.forget(key, run.order.uid)
            run = None
        if record is None or record.deleting:
            self._dependents.drop(key)
            return Due()
        other = of_another(record.status, installation=self._installation, uid=record.uid)
        if other is not None and run is None:
            log.warning("another installation tends this object", extra={"object": str(key), "installation": other})
            self._dependents.drop(key)
            return Due()
        journal = read_journal(record.status, mark=self._scribe.mark(record))
        if journal is not None and journal.finished:
            self._dependents.drop(key)
            return Due()
        if record.spec_error is not None:
            return await self._scribe.refuse(record, No(reason=R.INVALID_SPEC, message=record.spec_error))
        spec = record.parsed(OperationSpec)
        if run is not None:
            return await self._underway.follow(record, spec, run)
        self._dependents.set(record.key, [target_of(record, spec)])
        if journal is not None and journal.claimed_at is not None:
            return await self._underway.go_on(record, spec, journal, journal.claimed_at)
        return await self._beginning.begin(record, spec)
