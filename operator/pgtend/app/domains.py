"""The controllers of all kinds, each given what it needs of what is shared.

Targets and users are tended by every operator. The others are made, and their rooms loaded, when there is the first
object of their kind: what nobody uses takes no memory, and it would be more than three megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict

from pgtend.api.databaseuser import DATABASE_USER, UserSpec
from pgtend.app.parts import Parts
from pgtend.core.findings import Finding, ObjectKey
from pgtend.engine.loop import Controller, Outcome
from pgtend.kube.index import Index, Record
from pgtend.targets.controller import TargetController
from pgtend.users.controller import UserController
from pgtend.users.undoing import is_undoable
from pgtend.users.wanted import target_key

if TYPE_CHECKING:
    from pgtend.backups.busy import Dumps
    from pgtend.backups.destination import DestinationController
    from pgtend.backups.policy import PolicyController
    from pgtend.backups.prepare import Preparer
    from pgtend.backups.record import RecordController
    from pgtend.backups.stores import Stores
    from pgtend.core.clock import Clock
    from pgtend.engine.dependents import Dependents
    from pgtend.kube.client import KubeClient
    from pgtend.kube.status import StatusWriter
    from pgtend.maintenance.book import Book
    from pgtend.maintenance.controller import WindowController
    from pgtend.maintenance.execution import RunController
    from pgtend.operations.controller import OperationController
    from pgtend.server.member import MemberSessions
    from pgtend.server.policy import WritePolicy
    from pgtend.server.registry import Registry
    from pgtend.tasks.runner import Runner


class _Backing(TypedDict):
    """What the controllers of policies and of their records are both given."""

    index: Index
    client: KubeClient
    status: StatusWriter
    stores: Stores
    preparer: Preparer
    dependents: Dependents
    policy: WritePolicy
    installation: str
    clock: Clock


class _Maintaining(TypedDict):
    """What the controllers of windows, of their runs and of operations are all given."""

    index: Index
    client: KubeClient
    registry: Registry
    status: StatusWriter
    members: MemberSessions
    dependents: Dependents
    clock: Clock


class Domains:
    """One of each in a process. `controllers` are by kind."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.users = self._users()
        self.controllers: Mapping[str, Controller] = {
            "PostgresTarget": self._targets().reconcile,
            "DatabaseUser": self.users.reconcile,
            "BackupDestination": _when_needed(lambda: self.destinations.reconcile),
            "PostgresBackupPolicy": _when_needed(lambda: self.policies.reconcile),
            "PostgresBackup": _when_needed(lambda: self.records.reconcile),
            "MaintenanceWindow": _when_needed(lambda: self.windows.reconcile),
            "MaintenanceRun": _when_needed(lambda: self.runs.reconcile),
            "PostgresOperation": _when_needed(lambda: self.operations.reconcile),
        }

    async def start(self) -> None:
        """What must be known before anybody is served; the index is full."""
        if next(self._parts.routing.index.of_kind("MaintenanceWindow"), None) is not None:
            await self.windows.prime()

    async def close(self) -> None:
        made = vars(self)
        if "runner" in made:
            await self.runner.close()
        if "windows" in made:
            await self.windows.close()
        if "runs" in made:
            await self.runs.close()
        if "stores" in made:
            self.stores.close()

    # Of every operator

    def _targets(self) -> TargetController:
        parts = self._parts
        return TargetController(
            client=parts.client,
            index=parts.routing.index,
            registry=parts.registry,
            status=parts.status,
            secrets=parts.secrets,
            installation=parts.settings.installation,
            clock=parts.clock,
            standing_changed=parts.routing.wake_dependents,
            holders=_holders(parts.routing.index),
            braked=parts.brake.on,
            backups=self._backed_up,
        )

    def _backed_up(self, target: ObjectKey) -> Finding | None:
        found = tuple(self._parts.routing.index.of_kind("PostgresBackupPolicy"))
        if not found:
            return None
        from pgtend.backups.finding import backed_up

        return backed_up(found, target, now=self._parts.clock.now())

    def _users(self) -> UserController:
        parts = self._parts
        return UserController(
            client=parts.client,
            index=parts.routing.index,
            registry=parts.registry,
            status=parts.status,
            events=parts.events,
            secrets=parts.secrets,
            ledger=parts.ledger,
            installation=parts.settings.installation,
            labels_of=parts.labels.of,
            watched=parts.settings.namespaces,
            clock=parts.clock,
            braked=parts.brake.on,
            depend=parts.routing.dependents.set,
            wake=parts.routing.queue.add,
        )

    # Backups

    @cached_property
    def stores(self) -> Stores:
        from pgtend.backups.stores import Stores

        return Stores(secrets=self._parts.secrets)

    @cached_property
    def destinations(self) -> DestinationController:
        from pgtend.backups.destination import DestinationController

        parts = self._parts
        return DestinationController(
            index=parts.routing.index,
            status=parts.status,
            stores=self.stores,
            secrets=parts.secrets,
            policy=parts.policy,
            changed=parts.routing.wake_dependents,
        )

    @cached_property
    def _preparer(self) -> Preparer:
        from pgtend.backups.plan import ToolsImages
        from pgtend.backups.prepare import Preparer

        parts, settings = self._parts, self._parts.settings
        return Preparer(
            index=parts.routing.index,
            registry=parts.registry,
            installation=settings.installation,
            images=ToolsImages(template=settings.tools_image, majors=settings.tools_majors),
        )

    def _backing(self) -> _Backing:
        parts = self._parts
        return {
            "index": parts.routing.index,
            "client": parts.client,
            "status": parts.status,
            "stores": self.stores,
            "preparer": self._preparer,
            "dependents": parts.routing.dependents,
            "policy": parts.policy,
            "installation": parts.settings.installation,
            "clock": parts.clock,
        }

    @cached_property
    def policies(self) -> PolicyController:
        from pgtend.backups.policy import PolicyController

        policies = PolicyController(**self._backing(), wake=self._parts.routing.queue.add)
        policies.recheck = self._recheck
        return policies

    def _recheck(self, backup: ObjectKey) -> None:
        self.records.doubt(backup)
        self._parts.routing.queue.add(backup)

    @cached_property
    def records(self) -> RecordController:
        from pgtend.backups.record import RecordController

        return RecordController(**self._backing(), policies=self.policies)

    @cached_property
    def dumps(self) -> Dumps:
        from pgtend.backups.busy import Dumps

        return Dumps(index=self._parts.routing.index, policies=self.policies, clock=self._parts.clock)

    # Maintenance and operations

    @cached_property
    def book(self) -> Book:
        from pgtend.maintenance.book import Book

        return Book(self._parts.routing.index)

    @cached_property
    def runner(self) -> Runner:
        from pgtend.tasks.runner import Runner

        return Runner(clock=self._parts.clock, changed=self._parts.routing.queue.add)

    def _maintaining(self) -> _Maintaining:
        parts = self._parts
        return {
            "index": parts.routing.index,
            "client": parts.client,
            "registry": parts.registry,
            "status": parts.status,
            "members": parts.members,
            "dependents": parts.routing.dependents,
            "clock": parts.clock,
        }

    @cached_property
    def windows(self) -> WindowController:
        from pgtend.maintenance.controller import WindowController

        return WindowController(
            **self._maintaining(),
            book=self.book,
            labels_of=self._parts.labels.of,
            wake=self._parts.routing.queue.add,
            watched=self._parts.settings.namespaces,
        )

    @cached_property
    def runs(self) -> RunController:
        from pgtend.maintenance.execution import RunController

        return RunController(
            **self._maintaining(),
            book=self.book,
            runner=self.runner,
            busy_of=self.dumps.busy,
            braked=self._parts.brake.on,
            wake=self._parts.routing.queue.add,
            installation=self._parts.settings.installation,
        )

    @cached_property
    def operations(self) -> OperationController:
        from pgtend.backups.restore import Means, maker
        from pgtend.gate.classes import TaskType
        from pgtend.operations.controller import OperationController

        parts = self._parts
        means = Means(
            index=parts.routing.index,
            client=parts.client,
            preparer=self._preparer,
            installation=parts.settings.installation,
            clock=parts.clock,
        )
        return OperationController(
            **self._maintaining(),
            braked=parts.brake.on,
            windows_of=self.book.of,
            busy_of=self.dumps.busy,
            runner=self.runner,
            makers={TaskType.RESTORE: maker(means)},
            labels_of=parts.labels.of,
            installation=parts.settings.installation,
            requesters_checked=parts.settings.requesters_checked,
        )


def _when_needed(controller: Callable[[], Controller]) -> Controller:
    async def reconcile(keys: Sequence[ObjectKey]) -> Mapping[ObjectKey, Outcome]:
        return await controller()(keys)

    return reconcile


def _holders(index: Index) -> Callable[[ObjectKey], Sequence[Record]]:
    """The users of a target that have something to undo there, from what the API server says: after a start nobody has
    told yet whom he depends on."""

    def holders(target: ObjectKey) -> Sequence[Record]:
        undoable = (record for record in index.of_kind(DATABASE_USER.name) if is_undoable(record, None))
        return [r for r in undoable if isinstance(r.spec, UserSpec) and target_key(r.key, r.spec) == target]

    return holders
