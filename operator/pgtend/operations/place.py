"""Where an operation works: its target, if that exists, admits it and can be used; and what is known about it now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from pgtend.api.conditions import Reason
from pgtend.api.postgresoperation import OperationSpec
from pgtend.api.postgrestarget import TargetSpec
from pgtend.api.reasons import OperationReason as R
from pgtend.core.findings import ObjectKey
from pgtend.gate.asking import State, TargetWindow
from pgtend.gate.busy import Busy
from pgtend.kube.index import Index, Record
from pgtend.operations.admission import No, admit
from pgtend.server.consent import Requester
from pgtend.server.registry import Registry
from pgtend.server.server import Server

# seconds until a target that cannot be used is asked again; a change of the target wakes us earlier
SOON, LATER = 1.0, 30.0
Windows = Callable[[ObjectKey], Sequence[TargetWindow]]
BusyOf = Callable[[ObjectKey], Busy]
Labels = Callable[[str], Awaitable[Mapping[str, str] | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The target cannot be used now. `starting` where this process has not looked at it yet, as after every start."""

    reason: Reason
    message: str
    object: str | None = None
    again: float = SOON
    starting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An operation with its target, admitted."""

    record: Record
    spec: OperationSpec
    target: ObjectKey
    target_spec: TargetSpec
    server: Server

    @property
    def observing(self) -> bool:
        return self.target_spec.mode == "Observe"


class Places:
    """Reads the index and the registry; sends nothing to a server."""

    def __init__(
        self,
        *,
        index: Index,
        registry: Registry,
        braked: Callable[[], bool],
        windows_of: Windows,
        busy_of: BusyOf,
        labels_of: Labels,
    ) -> None:
        self._index, self._registry, self._braked = index, registry, braked
        self._windows_of, self._busy_of, self._labels_of = windows_of, busy_of, labels_of

    async def find(self, record: Record, spec: OperationSpec) -> Place | No | Wait:
        """The target, where it exists, admits the operation and has been looked at."""
        key = target_of(record, spec)
        target = self._index.get(key)
        if target is None or target.deleting:
            text = f"PostgresTarget {key} does not exist"
            return Wait(reason=R.TARGET_NOT_FOUND, message=text, object=str(key), again=LATER)
        if target.spec_error is not None:
            text = f"the spec of target {key} does not parse"
            return Wait(reason=R.WAITING_FOR_TARGET, message=text, object=str(key), again=LATER)
        target_spec = target.parsed(TargetSpec)
        no = await self.admitted(record, spec, key, target_spec)
        if no is not None:
            return no
        if target_spec.suspend:
            text = f"target {key} is suspended"
            return Wait(reason=R.WAITING_FOR_TARGET, message=text, object=str(key), again=LATER)
        server = self._registry.find(key)
        if server is None or server.spec != target_spec or server.standing is None:
            text = f"target {key} has not been probed yet"
            return Wait(reason=R.WAITING_FOR_TARGET, message=text, object=str(key), starting=True)
        return Place(record=record, spec=spec, target=key, target_spec=target_spec, server=server)

    async def admitted(
        self, record: Record, spec: OperationSpec, target: ObjectKey, target_spec: TargetSpec
    ) -> No | None:
        """Why the target's access does not admit it, or None."""
        selecting = any(entry.namespaces.selector is not None for entry in target_spec.access)
        labels = await self._labels_of(record.key.namespace) if selecting else None
        requester = Requester(namespace=record.key.namespace, labels=labels)
        return admit(spec=spec, target=target, target_spec=target_spec, requester=requester)

    async def still_admitted(self, record: Record, spec: OperationSpec, target: ObjectKey) -> str | None:
        """Why what runs must stop: the target is gone, or does not admit it any more."""
        known = self._index.get(target)
        if known is None or not isinstance(known.spec, TargetSpec):
            return f"target {target} is gone"
        no = await self.admitted(record, spec, target, known.spec)
        return no.message if no is not None else None

    def server(self, target: ObjectKey) -> Server | None:
        """The target's server as it is now, once it has been probed."""
        found = self._registry.find(target)
        return found if found is not None and found.standing is not None else None

    def state(self, target: ObjectKey) -> State:
        """What the gate is told."""
        record = self._index.get(target)
        spec = record.spec if record is not None and isinstance(record.spec, TargetSpec) else None
        return State(
            target=target,
            mode=spec.mode if spec is not None else "Observe",
            suspended=spec.suspend if spec is not None else True,
            brake=self._braked(),
            windows=tuple(self._windows_of(target)),
            busy=self._busy_of(target),
        )


def target_of(record: Record, spec: OperationSpec) -> ObjectKey:
    return ObjectKey("PostgresTarget", spec.target_ref.namespace or record.key.namespace, spec.target_ref.name)
