"""What the domains share: one of each in a process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pgtend.api.databaseuser import DATABASE_USER
from pgtend.app.routing import Routing
from pgtend.app.settings import Settings
from pgtend.core.clock import Clock
from pgtend.core.findings import ObjectKey
from pgtend.engine.brake import Brake
from pgtend.engine.lease import Elector
from pgtend.kube.client import KubeClient
from pgtend.kube.events import EventRecorder
from pgtend.kube.namespaces import NamespaceLabels
from pgtend.kube.secrets import SecretReader
from pgtend.kube.status import StatusWriter
from pgtend.server.ledger import Ledger
from pgtend.server.member import MemberSessions
from pgtend.server.policy import WritePolicy
from pgtend.server.registry import Registry
from pgtend.users.undoing import is_undoable


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    settings: Settings
    clock: Clock
    client: KubeClient
    routing: Routing
    brake: Brake
    secrets: SecretReader
    policy: WritePolicy
    ledger: Ledger
    registry: Registry
    members: MemberSessions
    events: EventRecorder
    status: StatusWriter
    labels: NamespaceLabels

    async def close(self) -> None:
        await self.members.close()
        await self.registry.close()


def build(
    *, settings: Settings, clock: Clock, client: KubeClient, routing: Routing, elector: Elector, brake: Brake
) -> Parts:
    secrets = SecretReader(client=client, clock=clock)
    policy = WritePolicy(leading=elector.valid, braked=brake.on)
    events = EventRecorder(client=client, clock=clock)
    ledger = Ledger(client=client, namespace=settings.namespace)
    return Parts(
        settings=settings,
        clock=clock,
        client=client,
        routing=routing,
        brake=brake,
        secrets=secrets,
        policy=policy,
        ledger=ledger,
        registry=Registry(
            secrets=secrets,
            policy=policy,
            installation=settings.installation,
            clock=clock,
            doubtful=routing.queue.add,
            undoable=_undoable(routing, ledger),
        ),
        members=MemberSessions(),
        events=events,
        status=StatusWriter(client=client, index=routing.index, events=events, clock=clock),
        labels=NamespaceLabels(client=client, clock=clock, changed=routing.relabelled),
    )


def _undoable(routing: Routing, ledger: Ledger) -> Callable[[ObjectKey], bool]:
    """Whether users of a target, or what is left of them, need its server to be undone."""

    def undoable(target: ObjectKey) -> bool:
        users = (key for key in routing.dependents.of(target) if key.kind == DATABASE_USER.name)
        return any(is_undoable(routing.index.get(key), ledger.get(key)) for key in users)

    return undoable
