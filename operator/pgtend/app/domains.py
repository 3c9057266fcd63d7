"""The controllers of all kinds, each given what it needs of what is shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from pgtend.api.databaseuser import DATABASE_USER, UserSpec
from pgtend.app.parts import Parts
from pgtend.backups.busy import Dumps
from pgtend.backups.destination import DestinationController
from pgtend.backups.plan import ToolsImages
from pgtend.backups.policy import PolicyController
from pgtend.backups.prepare import Preparer
from pgtend.backups.record import RecordController
from pgtend.backups.restore import Means, maker
from pgtend.backups.stores import Stores
from pgtend.core.clock import Clock
from pgtend.core.findings import ObjectKey
from pgtend.engine.dependents import Dependents
from pgtend.engine.loop import Controller
from pgtend.gate.classes import TaskType
from pgtend.kube.client import KubeClient
from pgtend.kube.index import Index, Record
from pgtend.kube.status import StatusWriter
from pgtend.maintenance.controller import WindowController
from pgtend.maintenance.execution import RunController
from pgtend.operations.controller import OperationController
from pgtend.server.member import MemberSessions
from pgtend.server.policy import WritePolicy
from pgtend.server.registry import Registry
from pgtend.targets.controller import TargetController
from pgtend.users.controller import UserController
from pgtend.users.undoing import is_undoable
from pgtend.users.wanted import target_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Domains:
    """`controllers` by kind; the others are those that have a beginning or an end of their own."""

    controllers: Mapping[str, Controller]
    users: UserController
    windows: WindowController
    runs: RunController

    async def close(self) -> None:
        await self.windows.close()
        await self.runs.close()


def build(parts: Parts) -> Domains:
    targets, users = _targets(parts), _users(parts)
    destinations = _destinations(parts)
    preparer = _preparer(parts)
    policies, records = _backups(parts, preparer)
    dumps = Dumps(index=parts.routing.index, policies=policies, clock=parts.clock)
    windows, runs = _windows(parts), _runs(parts, dumps)
    operations = _operations(parts, dumps, preparer)
    controllers = {
        "PostgresTarget": targets.reconcile,
        "DatabaseUser": users.reconcile,
        "BackupDestination": destinations.reconcile,
        "PostgresBackupPolicy": policies.reconcile,
        "PostgresBackup": records.reconcile,
        "MaintenanceWindow": windows.reconcile,
        "MaintenanceRun": runs.reconcile,
        "PostgresOperation": operations.reconcile,
    }
    return Domains(controllers=controllers, users=users, windows=windows, runs=runs)


def _targets(parts: Parts) -> TargetController:
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
    )


def _holders(index: Index) -> Callable[[ObjectKey], Sequence[Record]]:
    """The users of a target that have something to undo there, from what the API server says: after a start nobody has
    told yet whom he depends on."""

    def holders(target: ObjectKey) -> Sequence[Record]:
        undoable = (record for record in index.of_kind(DATABASE_USER.name) if is_undoable(record, None))
        return [r for r in undoable if isinstance(r.spec, UserSpec) and target_key(r.key, r.spec) == target]

    return holders


def _users(parts: Parts) -> UserController:
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


def _destinations(parts: Parts) -> DestinationController:
    return DestinationController(
        index=parts.routing.index,
        status=parts.status,
        stores=parts.stores,
        secrets=parts.secrets,
        policy=parts.policy,
        changed=parts.routing.wake_dependents,
    )


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


def _preparer(parts: Parts) -> Preparer:
    settings = parts.settings
    return Preparer(
        index=parts.routing.index,
        registry=parts.registry,
        installation=settings.installation,
        images=ToolsImages(template=settings.tools_image, majors=settings.tools_majors),
    )


def _backing(parts: Parts, preparer: Preparer) -> _Backing:
    return _Backing(
        index=parts.routing.index,
        client=parts.client,
        status=parts.status,
        stores=parts.stores,
        preparer=preparer,
        dependents=parts.routing.dependents,
        policy=parts.policy,
        installation=parts.settings.installation,
        clock=parts.clock,
    )


def _backups(parts: Parts, preparer: Preparer) -> tuple[PolicyController, RecordController]:
    shared = _backing(parts, preparer)
    policies = PolicyController(**shared, wake=parts.routing.queue.add)
    records = RecordController(**shared, policies=policies)

    def recheck(key: ObjectKey) -> None:
        records.doubt(key)
        parts.routing.queue.add(key)

    policies.recheck = recheck
    return policies, records


class _Maintaining(TypedDict):
    """What the controllers of windows, of their runs and of operations are all given."""

    index: Index
    client: KubeClient
    registry: Registry
    status: StatusWriter
    members: MemberSessions
    dependents: Dependents
    clock: Clock


def _maintaining(parts: Parts) -> _Maintaining:
    return _Maintaining(
        index=parts.routing.index,
        client=parts.client,
        registry=parts.registry,
        status=parts.status,
        members=parts.members,
        dependents=parts.routing.dependents,
        clock=parts.clock,
    )


def _windows(parts: Parts) -> WindowController:
    return WindowController(
        **_maintaining(parts),
        book=parts.book,
        labels_of=parts.labels.of,
        wake=parts.routing.queue.add,
        watched=parts.settings.namespaces,
    )


def _runs(parts: Parts, dumps: Dumps) -> RunController:
    return RunController(
        **_maintaining(parts),
        book=parts.book,
        runner=parts.runner,
        busy_of=dumps.busy,
        braked=parts.brake.on,
        wake=parts.routing.queue.add,
        installation=parts.settings.installation,
    )


def _operations(parts: Parts, dumps: Dumps, preparer: Preparer) -> OperationController:
    means = Means(
        index=parts.routing.index,
        client=parts.client,
        preparer=preparer,
        installation=parts.settings.installation,
        clock=parts.clock,
    )
    return OperationController(
        **_maintaining(parts),
        braked=parts.brake.on,
        windows_of=parts.book.of,
        busy_of=dumps.busy,
        runner=parts.runner,
        makers={TaskType.RESTORE: maker(means)},
        labels_of=parts.labels.of,
        installation=parts.settings.installation,
        requesters_checked=parts.settings.requesters_checked,
    )
